//! The messages of y-websocket: a type, then what y-protocols says. One message per frame.

use super::websocket::{BINARY, write_header};
use super::{Message, STEP_1, STEP_2, UPDATE};
use crate::lib0::{Malformed, Reader, varuint_len, write_var_bytes};

const SYNC: u64 = 0;
pub(super) const AWARENESS: u64 = 1;
const AUTH: u64 = 2;

#[inline]
pub fn parse(payload: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut reader = Reader::new(payload);
    match reader.varuint()? {
        SYNC => parse_sync(&mut reader),
        AWARENESS => Ok(Message::Awareness(reader.var_bytes()?)),
        AUTH => {
            reader.varuint()?; // only one kind: permission denied
            Ok(Message::Denied(std::str::from_utf8(reader.var_bytes()?).unwrap_or("")))
        }
        _ => Ok(Message::Other),
    }
}

/// The part that all protocols share: the kind of sync message and its body.
#[inline]
pub fn parse_sync<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, Malformed> {
    let kind = reader.varuint()?;
    let body = reader.var_bytes()?;
    match kind {
        STEP_1 => Ok(Message::Step1(body)),
        STEP_2 => Ok(Message::Step2(body)),
        UPDATE => Ok(Message::Update(body)),
        _ => Err(reader.malformed("unknown kind of sync message")),
    }
}

#[inline]
pub fn write_sync(out: &mut Vec<u8>, kind: u64, body: &[u8]) {
    let len = 2 + varuint_len(body.len() as u64) + body.len();
    write_header(out, BINARY, len);
    out.extend_from_slice(&[SYNC as u8, kind as u8]);
    write_var_bytes(out, body);
}

/// Appends a token in WireSocket's own message: authentication, kind 0.
pub fn write_token(out: &mut Vec<u8>, token: &str) {
    write_header(out, BINARY, 2 + varuint_len(token.len() as u64) + token.len());
    out.extend_from_slice(&[AUTH as u8, 0]);
    write_var_bytes(out, token.as_bytes());
}

pub fn write_awareness(out: &mut Vec<u8>, update: &[u8]) {
    write_header(out, BINARY, 1 + varuint_len(update.len() as u64) + update.len());
    out.push(AWARENESS as u8);
    write_var_bytes(out, update);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_written_as_the_provider_writes_it() {
        let mut out = Vec::new();
        write_sync(&mut out, UPDATE, &[9, 9, 9]);
        assert_eq!(out, [0x82, 0x86, 0, 0, 0, 0, 0, 2, 3, 9, 9, 9]);
        assert_eq!(parse(&out[6..]), Ok(Message::Update(&[9, 9, 9])));
    }

    #[test]
    fn a_token_is_an_authentication_message_of_kind_0() {
        let mut out = Vec::new();
        write_token(&mut out, "tok");
        assert_eq!(&out[6..], b"\x02\x00\x03tok");
    }

    #[test]
    fn awareness_is_written_as_the_provider_writes_it() {
        let mut out = Vec::new();
        write_awareness(&mut out, &[1, 7, 2, 2, b'{', b'}']);
        assert_eq!(&out[6..], [1, 6, 1, 7, 2, 2, b'{', b'}']);
        assert_eq!(parse(&out[6..]), Ok(Message::Awareness(&[1, 7, 2, 2, b'{', b'}'])));
    }

    #[test]
    fn what_a_server_may_send_is_told_apart() {
        assert_eq!(parse(&[0, 0, 1, 0]), Ok(Message::Step1(&[0])));
        assert_eq!(parse(&[0, 1, 2, 0, 0]), Ok(Message::Step2(&[0, 0])));
        assert_eq!(parse(&[1, 1, 0]), Ok(Message::Awareness(&[0])));
        assert_eq!(parse(&[3]), Ok(Message::Other));
        assert_eq!(parse(&[2, 0, 2, b'n', b'o']), Ok(Message::Denied("no")));
        assert!(parse(&[0, 3, 0]).is_err());
        assert!(parse(&[0, 2, 9, 1]).is_err());
    }
}
