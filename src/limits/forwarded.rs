//! Which address a request really came from, when proxies stand before the node (`X-Forwarded-For`).

use std::net::IpAddr;

use super::network::Network;

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
