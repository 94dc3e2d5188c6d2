//! Networks (CIDR, RFC 4632) and which address a request really came from.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// Why a text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    #[error("`{0}` is not an IP address or network; write it as 10.0.0.0/8 or 2001:db8::/32")]
    Address(String),
    #[error("`{text}` has a prefix longer than {bits_max} bits")]
    Prefix { text: String, bits_max: u8 },
}

impl Network {
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (own, bits) = bits_of(self.address);
        let (other, other_bits) = bits_of(ip.to_canonical());
        let ignored = bits - self.prefix_bits;
        bits == other_bits && own.checked_shr(ignored.into()) == other.checked_shr(ignored.into())
    }
}

/// The address as a number, and how many bits it has.
fn bits_of(ip: IpAddr) -> (u128, u8) {
    match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let malformed = || NetworkError::Address(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let bits_max = bits_of(address).1;
        let prefix_bits = match prefix {
            None => bits_max,
            Some(prefix) => prefix.parse().map_err(|_| malformed())?,
        };
        if prefix_bits > bits_max {
            return Err(NetworkError::Prefix { text: text.to_owned(), bits_max });
        }
        Ok(Self { address, prefix_bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

/// The client's address: the peer's own, unless the peer is a trusted proxy; then the right-most address of
/// `X-Forwarded-For` that is not a trusted proxy itself.
///
/// `forwarded` are the header's values in the order they came. What stands left of the first untrusted address was
/// written by that address and proves nothing. An entry that is not an address ends the walk at the hop that reported it.
#[must_use]
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &[Network],
) -> IpAddr {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.contains(ip));
    let mut client = peer.to_canonical();
    for entry in forwarded.rev().flat_map(|value| value.rsplit(',')) {
        if !is_trusted(client) {
            break;
        }
        match forwarded_address(entry.trim()) {
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

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        assert!(network("10.1.0.0/16").contains(ip("10.1.255.255")));
        assert!(!network("10.1.0.0/16").contains(ip("10.2.0.0")));
        assert!(network("10.1.2.3").contains(ip("10.1.2.3")));
        assert!(!network("10.1.2.3").contains(ip("10.1.2.2")));
        assert!(network("2001:db8::/32").contains(ip("2001:db8:ffff::1")));
        assert!(!network("2001:db8::/32").contains(ip("2001:db9::1")));
        assert!(network("0.0.0.0/0").contains(ip("203.0.113.9")));
        assert!(!network("0.0.0.0/0").contains(ip("::1")));
        assert!(network("::/0").contains(ip("fe80::1")));
    }

    #[test]
    fn a_v4_address_that_arrives_on_a_v6_socket_is_the_v4_address() {
        assert!(network("127.0.0.0/8").contains(ip("::ffff:127.0.0.1")));
    }

    #[test]
    fn what_is_not_a_network_is_refused_by_name() {
        for wrong in ["", "10.0.0", "10.0.0.0/", "10.0.0.0/x", "10.0.0.0/-1", "host/8"] {
            assert_eq!(wrong.parse::<Network>(), Err(NetworkError::Address(wrong.to_owned())));
        }
        assert_eq!(
            "10.0.0.0/33".parse::<Network>(),
            Err(NetworkError::Prefix { text: "10.0.0.0/33".into(), bits_max: 32 })
        );
    }

    #[test]
    fn the_client_is_the_right_most_address_that_is_not_a_trusted_proxy() {
        let trusted = [network("10.0.0.0/8"), network("::1")];
        let client = |peer: &str, values: &[&str]| client_address(ip(peer), values.iter().copied(), &trusted);
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
    }
}
