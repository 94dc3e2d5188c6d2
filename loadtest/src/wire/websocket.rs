//! WebSocket (RFC 6455), the client's half, for speed: the upgrade request and its answer, frames out
//! with a zero mask key, frames in as borrowed slices.
//!
//! A mask key of zero is legal and makes masking free: the payload goes out as it is. Extensions are
//! not offered, so a frame with reserved bits is an error. Nothing here owns a socket or a buffer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use thiserror::Error;

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;

/// The longest message the load tester is ready to hold.
const PAYLOAD_BYTES_MAX: u64 = 1 << 30;
/// The longest answer to an upgrade it reads.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The key of every upgrade: it protects against caches, of which there are none between us.
pub const KEY: &str = "d2lyZXNvY2tldC1sb2FkdA==";

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("the server sent a frame with reserved bits set, though no extension was agreed")]
    Reserved,
    #[error("the server sent a masked frame")]
    Masked,
    #[error("the server announced a frame of {0} bytes")]
    TooLong(u64),
}

/// A frame, or how many bytes must be there before trying again (a lower bound).
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    Frame {
        opcode: u8,
        finished: bool,
        payload: &'a [u8],
        /// Bytes of the whole frame.
        len: usize,
    },
    Incomplete {
        needed: usize,
    },
}

/// Reads the frame at the start of `bytes`, as a client: a server never masks.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<Parsed<'_>, FrameError> {
    if bytes.len() < 2 {
        return Ok(Parsed::Incomplete { needed: 2 });
    }
    if bytes[0] & 0x70 != 0 {
        return Err(FrameError::Reserved);
    }
    if bytes[1] & 0x80 != 0 {
        return Err(FrameError::Masked);
    }
    let header = match bytes[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    if bytes.len() < header {
        return Ok(Parsed::Incomplete { needed: header });
    }
    let payload = match header {
        4 => u64::from(u16::from_be_bytes([bytes[2], bytes[3]])),
        10 => bytes[2..10].iter().fold(0, |value, &byte| value << 8 | u64::from(byte)),
        _ => u64::from(bytes[1]),
    };
    if payload > PAYLOAD_BYTES_MAX {
        return Err(FrameError::TooLong(payload));
    }
    let len = header + payload as usize;
    if bytes.len() < len {
        return Ok(Parsed::Incomplete { needed: len });
    }
    Ok(Parsed::Frame {
        opcode: bytes[0] & 0x0f,
        finished: bytes[0] & 0x80 != 0,
        payload: &bytes[header..len],
        len,
    })
}

/// Starts a client's frame of `payload_len` bytes; the caller appends exactly so many.
#[inline]
pub fn write_header(out: &mut Vec<u8>, opcode: u8, payload_len: usize) {
    const MASKED: u8 = 0x80;
    out.push(0x80 | opcode);
    write_len(out, payload_len, MASKED);
    out.extend_from_slice(&[0; 4]); // the mask key
}

/// Starts a server's frame: the same without a mask.
#[inline]
pub fn write_server_header(out: &mut Vec<u8>, opcode: u8, payload_len: usize) {
    out.push(0x80 | opcode);
    write_len(out, payload_len, 0);
}

#[inline]
fn write_len(out: &mut Vec<u8>, len: usize, mask: u8) {
    match len {
        0..126 => out.push(mask | len as u8),
        126..65536 => {
            out.push(mask | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(mask | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

pub fn write_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    write_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// What a server must answer to `key`.
pub fn accept_key(key: &str) -> String {
    let digest = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    STANDARD.encode(digest)
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UpgradeError {
    #[error("the server refused the upgrade: {status} {body}")]
    Refused { status: String, body: String },
    #[error("the server's answer to the upgrade isn't HTTP/1.1")]
    NotHttp,
    #[error("the server accepted the upgrade with a wrong Sec-WebSocket-Accept")]
    WrongAccept,
}

/// Reads the answer to an upgrade; the bytes of its head, or `None` while it is not complete.
pub fn parse_upgrade(bytes: &[u8], accept: &str) -> Result<Option<usize>, UpgradeError> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(UpgradeError::NotHttp);
        }
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| UpgradeError::NotHttp)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).ok_or(UpgradeError::NotHttp)?;
    if !status.starts_with("101") {
        let body = String::from_utf8_lossy(&bytes[end + 4..]);
        return Err(UpgradeError::Refused {
            status: status.to_owned(),
            body: body.chars().take(300).collect(),
        });
    }
    let accepted = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == accept);
    if accepted { Ok(Some(end + 4)) } else { Err(UpgradeError::WrongAccept) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_server_header(&mut out, opcode, payload.len());
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn frames_of_every_length_class_survive_the_round_trip() {
        for len in [0, 1, 125, 126, 127, 65535, 65536, 400_000] {
            let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let mut bytes = server_frame(BINARY, &payload);
            bytes.push(0xff); // the next frame
            assert_eq!(
                parse(&bytes),
                Ok(Parsed::Frame { opcode: BINARY, finished: true, payload: &payload, len: bytes.len() - 1 })
            );
        }
    }

    #[test]
    fn a_frame_cut_anywhere_says_how_much_it_needs_and_never_more_than_it_has() {
        for len in [5, 300, 70_000] {
            let bytes = server_frame(BINARY, &vec![7; len]);
            for cut in (0..bytes.len()).step_by(1 + len / 100) {
                match parse(&bytes[..cut]) {
                    Ok(Parsed::Incomplete { needed }) => {
                        assert!(needed > cut && needed <= bytes.len(), "cut at {cut}: {needed}");
                    }
                    other => panic!("cut at {cut}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_clients_frame_is_masked_with_zero() {
        let mut out = Vec::new();
        write_frame(&mut out, BINARY, b"xyz");
        assert_eq!(out, [0x82, 0x83, 0, 0, 0, 0, b'x', b'y', b'z']);
    }

    #[test]
    fn illegal_frames_are_refused() {
        assert_eq!(parse(&[0xc2, 0]), Err(FrameError::Reserved));
        assert_eq!(parse(&[0x82, 0x80]), Err(FrameError::Masked));
        let mut endless = vec![0x82, 127];
        endless.extend_from_slice(&u64::MAX.to_be_bytes());
        assert_eq!(parse(&endless), Err(FrameError::TooLong(u64::MAX)));
    }

    #[test]
    fn the_accept_key_is_the_one_of_the_specification() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn upgrades_are_checked() {
        let accept = accept_key(KEY);
        let good = format!("HTTP/1.1 101 Switching\r\nsec-websocket-accept: {accept}\r\n\r\nrest");
        assert_eq!(parse_upgrade(good.as_bytes(), &accept), Ok(Some(good.len() - 4)));
        assert_eq!(parse_upgrade(&good.as_bytes()[..40], &accept), Ok(None));
        let wrong = good.replace(&accept, "nonsense");
        assert_eq!(parse_upgrade(wrong.as_bytes(), &accept), Err(UpgradeError::WrongAccept));
        let refused = b"HTTP/1.1 401 Unauthorized\r\n\r\n{\"code\":4001}";
        assert_eq!(
            parse_upgrade(refused, &accept),
            Err(UpgradeError::Refused { status: "401 Unauthorized".into(), body: "{\"code\":4001}".into() })
        );
        assert_eq!(parse_upgrade(b"SSH-2.0\r\n\r\n", &accept), Err(UpgradeError::NotHttp));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
            let _ = parse_upgrade(&bytes, "x");
        }
    }
}
