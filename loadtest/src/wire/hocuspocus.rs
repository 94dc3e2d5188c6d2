//! The messages of Hocuspocus: the document's name, a type, then mostly what y-websocket has.
//!
//! We speak as its provider 4 does, with one document per connection.

use super::websocket::{BINARY, write_frame, write_header};
use super::{Message, y_websocket};
use crate::lib0::{Malformed, Reader, varuint_len, write_var_bytes};

const SYNC: u64 = 0;
const AUTH: u64 = 2;
const SYNC_REPLY: u64 = 4;
const CLOSE: u64 = 7;
const SYNC_STATUS: u64 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const AUTH_TOKEN: u64 = 0;
const AUTH_DENIED: u64 = 1;
const AUTH_DONE: u64 = 2;

/// The version we name: servers only ping those who name one of the fourth generation.
const PROVIDER_VERSION: &str = "4.7.0";

#[inline]
pub fn parse<'a>(document: &str, payload: &'a [u8]) -> Result<Message<'a>, Malformed> {
    match payload {
        // Bare: they belong to the socket, not to a document.
        [PING] => return Ok(Message::Ping),
        [PONG] => return Ok(Message::Other),
        _ => {}
    }
    let mut reader = Reader::new(payload);
    if reader.var_bytes()? != document.as_bytes() {
        return Err(reader.malformed("a message for a document that this connection never opened"));
    }
    match reader.varuint()? {
        SYNC | SYNC_REPLY => y_websocket::parse_sync(&mut reader),
        y_websocket::AWARENESS => Ok(Message::Awareness(reader.var_bytes()?)),
        SYNC_STATUS => Ok(Message::Ack { accepted: reader.varuint()? == 1 }),
        AUTH => parse_auth(&mut reader),
        CLOSE => Ok(Message::Closed),
        _ => Ok(Message::Other),
    }
}

fn parse_auth<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, Malformed> {
    match reader.varuint()? {
        AUTH_DENIED => Ok(Message::Denied(std::str::from_utf8(reader.var_bytes()?).unwrap_or(""))),
        AUTH_DONE => Ok(Message::Authenticated { read_only: reader.var_bytes()? == b"readonly" }),
        _ => Ok(Message::Other), // the server would like a fresh token
    }
}

#[inline]
pub fn write_sync(out: &mut Vec<u8>, document: &str, kind: u64, body: &[u8]) {
    let len =
        varuint_len(document.len() as u64) + document.len() + 2 + varuint_len(body.len() as u64) + body.len();
    write_header(out, BINARY, len);
    write_var_bytes(out, document.as_bytes());
    out.extend_from_slice(&[SYNC as u8, kind as u8]);
    write_var_bytes(out, body);
}

/// Appends the first message of a connection.
pub fn write_auth(out: &mut Vec<u8>, document: &str, token: &str) {
    let mut payload = Vec::with_capacity(document.len() + token.len() + 16);
    write_var_bytes(&mut payload, document.as_bytes());
    payload.extend_from_slice(&[AUTH as u8, AUTH_TOKEN as u8]);
    write_var_bytes(&mut payload, token.as_bytes());
    write_var_bytes(&mut payload, PROVIDER_VERSION.as_bytes());
    write_frame(out, BINARY, &payload);
}

pub fn write_awareness(out: &mut Vec<u8>, document: &str, update: &[u8]) {
    let mut payload = Vec::with_capacity(document.len() + update.len() + 8);
    write_var_bytes(&mut payload, document.as_bytes());
    payload.push(y_websocket::AWARENESS as u8);
    write_var_bytes(&mut payload, update);
    write_frame(out, BINARY, &payload);
}

/// Appends the answer to a ping.
pub fn write_pong(out: &mut Vec<u8>) {
    write_frame(out, BINARY, &[PONG]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::UPDATE;

    #[test]
    fn an_update_names_its_document() {
        let mut out = Vec::new();
        write_sync(&mut out, "doc", UPDATE, &[9, 9]);
        assert_eq!(out, [0x82, 0x89, 0, 0, 0, 0, 3, b'd', b'o', b'c', 0, 2, 2, 9, 9]);
        assert_eq!(parse("doc", &out[6..]), Ok(Message::Update(&[9, 9])));
        assert!(parse("other", &out[6..]).is_err());
    }

    #[test]
    fn authentication_carries_token_and_version() {
        let mut out = Vec::new();
        write_auth(&mut out, "d", "tok");
        assert_eq!(&out[6..], b"\x01d\x02\x00\x03tok\x054.7.0");
    }

    #[test]
    fn what_a_server_may_send_is_told_apart() {
        assert_eq!(
            parse("d", b"\x01d\x02\x02\x0aread-write"),
            Ok(Message::Authenticated { read_only: false })
        );
        assert_eq!(parse("d", b"\x01d\x02\x02\x08readonly"), Ok(Message::Authenticated { read_only: true }));
        assert_eq!(parse("d", b"\x01d\x02\x01\x044003"), Ok(Message::Denied("4003")));
        assert_eq!(parse("d", b"\x01d\x08\x01"), Ok(Message::Ack { accepted: true }));
        assert_eq!(parse("d", b"\x01d\x08\x00"), Ok(Message::Ack { accepted: false }));
        assert_eq!(parse("d", b"\x01d\x04\x00\x01\x00"), Ok(Message::Step1(&[0])));
        assert_eq!(parse("d", b"\x01d\x07\x00"), Ok(Message::Closed));
        assert_eq!(parse("d", b"\x09"), Ok(Message::Ping));
        assert_eq!(parse("d", b"\x0a"), Ok(Message::Other));
    }
}
