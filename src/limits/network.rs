//! Blocks of IP addresses in CIDR notation (RFC 4632, RFC 4291 section 2.3), and which address a request came from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address block. IPv4-mapped IPv6 addresses (`::ffff:a.b.c.d`, what a dual-stack socket reports) count as the
/// IPv4 addresses they stand for, on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The lowest address of the block: all host bits are zero.
    base: IpAddr,
    prefix_bits: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    #[error("`{0}` is not an IP address")]
    Address(String),
    #[error("the prefix `{prefix}` is not a number from 0 to {max}")]
    Prefix { prefix: String, max: u8 },
    #[error("it has bits set after its prefix; the network is {0}")]
    HostBits(Network),
}

impl Network {
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix_bits) == Some(self.base)
    }

    #[must_use]
    pub fn prefix_bits(&self) -> u8 {
        self.prefix_bits
    }
}

/// `address` with all but its first `prefix_bits` cleared; `None` if it hasn't that many.
fn masked(address: IpAddr, prefix_bits: u8) -> Option<IpAddr> {
    let prefix_bits = u32::from(prefix_bits);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(prefix_bits)?).unwrap_or(0);
            Some(Ipv4Addr::from_bits(address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(prefix_bits)?).unwrap_or(0);
            Some(Ipv6Addr::from_bits(address.to_bits() & mask).into())
        }
    }
}

/// `10.0.0.0/8`, `2001:db8::/32`, or a single address.
impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address_text, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let written: IpAddr =
            address_text.parse().map_err(|_| NetworkError::Address(address_text.to_owned()))?;
        let max = if written.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => max,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|bits| *bits <= max && digits.bytes().all(|byte| byte.is_ascii_digit()))
                .ok_or_else(|| NetworkError::Prefix { prefix: digits.to_owned(), max })?,
        };
        // a mapped block is the IPv4 block, if the prefix covers the whole of `::ffff:0:0/96`
        let address = written.to_canonical();
        let (address, prefix_bits) =
            match (written.is_ipv6() && address.is_ipv4(), prefix_bits.checked_sub(96)) {
                (true, Some(bits)) => (address, bits),
                (true, None) => (written, prefix_bits),
                (false, _) => (address, prefix_bits),
            };
        let base = masked(address, prefix_bits).unwrap_or(address);
        let network = Self { base, prefix_bits };
        if base == address { Ok(network) } else { Err(NetworkError::HostBits(network)) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix_bits)
    }
}

/// Whether an address is in one of them.
#[must_use]
pub fn is_in(ip: IpAddr, networks: &[Network]) -> bool {
    networks.iter().any(|network| network.contains(ip))
}

/// The client's address: the peer's own, unless the peer is a trusted proxy; then the right-most address of
/// `X-Forwarded-For` that is not a trusted proxy itself.
///
/// `forwarded` are the header's values in the order they came, as bytes: what a client puts into it may be no text, and
/// stands in one value with what the proxy appends. What stands left of the first untrusted address was written by that
/// address and proves nothing. An entry that is not an address ends the walk at the hop that reported it.
#[must_use]
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: &[Network],
) -> IpAddr {
    let mut client = peer.to_canonical();
    for entry in forwarded.rev().flat_map(|value| value.rsplit(|byte| *byte == b',')) {
        if !is_in(client, trusted) {
            break;
        }
        match std::str::from_utf8(entry).ok().and_then(|entry| forwarded_address(entry.trim())) {
            Some(ip) => client = ip.to_canonical(),
            None => break,
        }
    }
    client
}

/// `1.2.3.4`, `1.2.3.4:5678`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:5678`.
fn forwarded_address(entry: &str) -> Option<IpAddr> {
    if let Ok(ip) = entry.parse() {
        return Some(ip);
    }
    if let Some(bracketed) = entry.strip_prefix('[') {
        return bracketed.split_once(']')?.0.parse().ok();
    }
    entry.rsplit_once(':')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_block_holds_its_addresses_and_no_others() {
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.0"));
        assert!(
            contains("192.168.1.128/25", "192.168.1.200") && !contains("192.168.1.128/25", "192.168.1.127")
        );
        assert!(
            contains("2001:db8::/33", "2001:db8:7fff::1") && !contains("2001:db8::/33", "2001:db8:8000::1")
        );
        assert!(contains("127.0.0.1", "127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("0.0.0.0/0", "255.255.255.255") && contains("::/0", "ffff::1"));
    }

    #[test]
    fn mapped_addresses_are_the_addresses_they_map() {
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(contains("::ffff:10.0.0.0/104", "10.1.2.3") && !contains("::ffff:10.0.0.0/104", "11.1.2.3"));
        assert!(!contains("::/0", "10.1.2.3"), "an IPv6 block holds no IPv4 address");
        assert!(!contains("10.0.0.0/8", "a00::1"), "equal leading bits of another family");
    }

    #[test]
    fn what_is_no_network_says_why() {
        let error = |text: &str| text.parse::<Network>().unwrap_err().to_string();
        assert!(error("10.0.0.0/33").contains("from 0 to 32"));
        assert!(error("10.0.0.0/+8").contains("from 0 to 32"));
        assert!(error("10.0.0.1/8").contains("10.0.0.0/8"));
        assert!(error("example.com/8").contains("not an IP address"));
        assert!(error("::/129").contains("from 0 to 128"));
    }

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_client_is_the_right_most_address_that_is_not_a_trusted_proxy() {
        let trusted = [network("10.0.0.0/8"), network("::1")];
        let client = |peer: &str, values: &[&str]| {
            client_address(ip(peer), values.iter().map(|value| value.as_bytes()), &trusted)
        };
        // An untrusted peer may write whatever it likes.
        assert_eq!(client("203.0.113.9", &["1.1.1.1"]), ip("203.0.113.9"));
        assert_eq!(client("10.0.0.1", &["1.1.1.1"]), ip("1.1.1.1"));
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.2"]), ip("1.1.1.1"));
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "1.1.1.1", "10.0.0.2"]), ip("1.1.1.1"));
        assert_eq!(client("::1", &["[2001:db8::7]:443"]), ip("2001:db8::7"));
        assert_eq!(client("10.0.0.1", &["1.1.1.1:5555"]), ip("1.1.1.1"));
        // All hops trusted: the farthest one known.
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), ip("10.0.0.3"));
        assert_eq!(client("10.0.0.1", &[]), ip("10.0.0.1"));
        assert_eq!(client("10.0.0.1", &["1.1.1.1, unknown"]), ip("10.0.0.1"));
        // The same addresses in their IPv6 form.
        assert_eq!(client("::ffff:10.0.0.1", &["::ffff:1.1.1.1, [::ffff:10.0.0.2]:99"]), ip("1.1.1.1"));
        assert_eq!(client("::ffff:203.0.113.9", &["1.1.1.1"]), ip("203.0.113.9"));
    }

    #[test]
    fn nothing_that_a_client_writes_hides_what_its_proxy_appends() {
        let trusted = [network("10.0.0.0/8")];
        for garbage in [&b"\xff\xfe"[..], "é".as_bytes(), b"", b",,,", b"\t", b"unknown", b"10.0.0.9"] {
            let joined = [garbage, b", 1.1.1.1"].concat();
            let client = |values: &[&[u8]]| client_address(ip("10.0.0.1"), values.iter().copied(), &trusted);
            assert_eq!(client(&[&joined]), ip("1.1.1.1"), "{garbage:?}");
            assert_eq!(client(&[garbage, b"1.1.1.1"]), ip("1.1.1.1"), "{garbage:?}");
        }
    }
}
