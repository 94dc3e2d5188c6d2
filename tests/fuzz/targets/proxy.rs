//! What a proxy says of a connection: `protocol::proxy::parse` (PROXY headers) and `limits::client_address`
//! (`X-Forwarded-For`). The first byte says which, and where the bytes are cut.

use std::net::{IpAddr, Ipv4Addr};

use wiresocket::limits::{Network, client_address};
use wiresocket::protocol::proxy::parse;

/// The longest header there can be: version 2 with as much behind its addresses as is read.
const HEADER_BYTES_MAX: usize = 16 + 2048;

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

pub fn run(data: &[u8]) {
    let Some((&first, bytes)) = data.split_first() else { return };
    let cut = bytes.len() * usize::from(first >> 1) / 128;
    if first & 1 == 0 { header(bytes, cut) } else { forwarded(bytes, cut) }
}

/// However a header arrives, it is the same one, or refused; and it comes to an end.
fn header(bytes: &[u8], cut: usize) {
    let whole = parse(bytes);
    match whole {
        Ok(Some(header)) => {
            assert!(header.length <= bytes.len().min(HEADER_BYTES_MAX));
            assert_eq!(parse(&bytes[..header.length]), whole, "what follows a header is no part of it");
            assert_eq!(parse(&bytes[..header.length - 1]), Ok(None));
        }
        Ok(None) => assert!(bytes.len() < HEADER_BYTES_MAX, "a header without end waits on"),
        Err(_) => {}
    }
    match parse(&bytes[..cut]) {
        Ok(None) => {}
        found => assert_eq!(found, whole),
    }
}

/// Whatever a client writes, in one value or in two, its proxy's word is what counts; and nobody else's does.
fn forwarded(bytes: &[u8], cut: usize) {
    let trusted: [Network; 1] = ["10.0.0.0/8".parse().expect("a network")];
    let (front, back) = bytes.split_at(cut);
    let appended = [back, b", 192.0.2.1"].concat();
    for values in [&[front, &appended][..], &[bytes, b"192.0.2.1"]] {
        assert_eq!(client_address(PROXY, values.iter().copied(), &trusted), CLIENT);
        assert_eq!(client_address(CLIENT, values.iter().copied(), &trusted), CLIENT);
    }
    let named = client_address(PROXY, [front, back].into_iter(), &trusted);
    let text = String::from_utf8_lossy(bytes);
    assert!(named == PROXY || text.contains([':', '.']), "{named} is made up of {text:?}");
}
