//! The PROXY protocol, versions 1 and 2: what a proxy says of a connection before the connection's own first byte.
//!
//! Deliberately absent: what else version 2 may carry (TLVs), which is passed over; whether the sender may say it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>, section 2.2.
const SIGNATURE_2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const HEAD_2_BYTES: usize = 16;
const SIGNATURE_1: &[u8; 6] = b"PROXY ";
/// Section 2.1, with its line end.
const LINE_BYTES_MAX: usize = 107;

/// Addresses and what may follow them; senders stay under a packet's size.
const BODY_BYTES_MAX: usize = 2048;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Who connected to the proxy. `None`: the proxy itself (a health check), or it doesn't know.
    pub client: Option<SocketAddr>,
    /// How many bytes the header takes.
    pub length: usize,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    #[error("the connection doesn't begin with a PROXY header")]
    Absent,
    #[error("the PROXY header is of version {0}; 1 and 2 are known")]
    Version(u8),
    #[error("the PROXY header has the unknown command {0}")]
    Command(u8),
    #[error("the PROXY header is of a connection that is not TCP (0x{0:02x})")]
    Transport(u8),
    #[error("the PROXY header is too long, or too short for its addresses")]
    Length,
    #[error("the PROXY line is not \"PROXY TCP4|TCP6 <source> <destination> <port> <port>\"")]
    Line,
}

/// Parses the header at the front of `bytes`; `None` while it is not whole.
///
/// # Errors
/// [`ProxyError`] as soon as it can't become a header any more.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let begins = |signature: &[u8]| bytes.iter().zip(signature).all(|(byte, expected)| byte == expected);
    if begins(SIGNATURE_2) {
        binary(bytes)
    } else if begins(SIGNATURE_1) {
        line(bytes)
    } else {
        Err(ProxyError::Absent)
    }
}

fn binary(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD_2_BYTES) else { return Ok(None) };
    let (version, command, transport) = (head[12] >> 4, head[12] & 0x0f, head[13]);
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if version != 2 {
        return Err(ProxyError::Version(version));
    }
    if command > 1 {
        return Err(ProxyError::Command(command));
    }
    let addresses = match (command, transport) {
        (0, _) | (_, 0x00) => 0,
        (_, 0x11) => 12,
        (_, 0x21) => 36,
        (_, other) => return Err(ProxyError::Transport(other)),
    };
    if length > BODY_BYTES_MAX || length < addresses {
        return Err(ProxyError::Length);
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let client = match addresses {
        12 => address(&body[..4], &body[8..10]),
        36 => address(&body[..16], &body[32..34]),
        _ => None,
    };
    Ok(Some(Header { client, length: HEAD_2_BYTES + length }))
}

fn address(ip: &[u8], port: &[u8]) -> Option<SocketAddr> {
    let ip = match <[u8; 4]>::try_from(ip) {
        Ok(octets) => IpAddr::from(octets),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(port.try_into().ok()?)))
}

fn line(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let seen = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = seen.windows(2).position(|two| two == b"\r\n") else {
        return if seen.len() < LINE_BYTES_MAX { Ok(None) } else { Err(ProxyError::Length) };
    };
    let text = std::str::from_utf8(&seen[SIGNATURE_1.len()..end]).map_err(|_| ProxyError::Line)?;
    let length = end + 2;
    let mut words = text.split(' ');
    let protocol = words.next();
    if protocol == Some("UNKNOWN") {
        return Ok(Some(Header { client: None, length }));
    }
    let mut next = || words.next().ok_or(ProxyError::Line);
    let (source, destination, port, to_port) = (next()?, next()?, next()?, next()?);
    let ip = |text: &str| -> Option<IpAddr> {
        match protocol? {
            "TCP4" => text.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::from),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => None,
        }
    };
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
    match (ip(source), ip(destination), number(port), number(to_port), words.next()) {
        (Some(source), Some(_), Some(port), Some(_), None) => {
            Ok(Some(Header { client: Some(SocketAddr::new(source, port)), length }))
        }
        _ => Err(ProxyError::Line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary_header(version_command: u8, transport: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE_2.to_vec();
        bytes.extend([version_command, transport]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn of_ipv4(extra: &[u8]) -> Vec<u8> {
        let body = [192, 0, 2, 7, 198, 51, 100, 1, 0x30, 0x39, 0x01, 0xbb];
        binary_header(0x21, 0x11, &[&body[..], extra].concat())
    }

    fn of_ipv6() -> Vec<u8> {
        let source = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets();
        binary_header(0x21, 0x21, &[&source[..], &[0; 16], &[0, 80, 1, 187]].concat())
    }

    #[test]
    fn clients_are_read_of_every_form() {
        let cases: [(Vec<u8>, Option<&str>); 7] = [
            (of_ipv4(&[]), Some("192.0.2.7:12345")),
            (of_ipv4(&[3, 0, 4, 1, 2, 3, 4]), Some("192.0.2.7:12345")),
            (of_ipv6(), Some("[2001:db8::7]:80")),
            (binary_header(0x20, 0x00, &[]), None),
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n".to_vec(), Some("192.0.2.7:12345")),
            (b"PROXY TCP6 2001:db8::7 ::1 80 443\r\n".to_vec(), Some("[2001:db8::7]:80")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
        ];
        for (mut bytes, client) in cases {
            let length = bytes.len();
            bytes.extend(b"GET / HTTP/1.1\r\n");
            let client = client.map(|text| text.parse().unwrap());
            assert_eq!(parse(&bytes), Ok(Some(Header { client, length })));
            for cut in 0..length {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut} of {length}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        let long_line = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
        let cases: [(Vec<u8>, ProxyError); 13] = [
            (b"G".to_vec(), ProxyError::Absent),
            (vec![0x16, 3, 1], ProxyError::Absent),
            (b"\r\n\r\n\0\r\nQUIT!".to_vec(), ProxyError::Absent),
            (binary_header(0x11, 0x11, &[0; 12]), ProxyError::Version(1)),
            (binary_header(0x22, 0x11, &[0; 12]), ProxyError::Command(2)),
            (binary_header(0x21, 0x12, &[0; 12]), ProxyError::Transport(0x12)),
            (binary_header(0x21, 0x31, &[0; 216]), ProxyError::Transport(0x31)),
            (binary_header(0x21, 0x11, &[0; 11]), ProxyError::Length),
            (binary_header(0x21, 0x21, &[0; 35]), ProxyError::Length),
            (of_ipv4(&[0; 2048]), ProxyError::Length),
            (long_line, ProxyError::Length),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(), ProxyError::Line),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 +2\r\n".to_vec(), ProxyError::Line),
        ];
        for (bytes, error) in cases {
            assert_eq!(parse(&bytes), Err(error), "{bytes:?}");
        }
    }
}
