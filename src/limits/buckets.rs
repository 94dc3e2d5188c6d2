//! Per-address buckets: how often one client address may open a socket or call an endpoint.
//!
//! A bucket holds a minute's worth of requests and is full again one minute after the first of them: never more than the
//! rate in any one bucket's minute, and `Retry-After: 60` is always long enough. (A bucket that trickles full would let
//! a steady client through at nearly twice the configured figure in its first minute.)
//!
//! Bounded memory: an IPv6 client is its /64, stale buckets are thrown out as others are used, and when there is
//! no room for one more, the request is let in uncounted: a limiter that cannot decide must not refuse.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use super::network::{Network, is_in};

/// How long after its first request a bucket is full again.
pub const REFILL: Duration = Duration::from_secs(60);

/// Buckets looked at for staleness with each request. More than one, so that stale buckets go faster than new ones come.
const SWEPT_PER_REQUEST: usize = 4;

/// What is being counted; each has its own buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// WebSocket upgrades.
    Upgrade,
    Discovery,
    Usage,
    /// Health, metrics and whatever else answers without a token.
    Health,
}

impl Bucket {
    pub const ALL: [Self; 4] = [Self::Upgrade, Self::Discovery, Self::Usage, Self::Health];

    /// For logs and metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Upgrade => "upgrade",
            Self::Discovery => "discovery",
            Self::Usage => "usage",
            Self::Health => "health",
        }
    }
}

/// Requests per minute and address; 0 switches a limit off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    pub upgrades_per_minute: u32,
    pub discovery_per_minute: u32,
    pub usage_per_minute: u32,
    pub health_per_minute: u32,
}

impl Rates {
    /// No limit at all.
    pub const UNLIMITED: Self =
        Self { upgrades_per_minute: 0, discovery_per_minute: 0, usage_per_minute: 0, health_per_minute: 0 };

    fn of(&self, bucket: Bucket) -> u32 {
        match bucket {
            Bucket::Upgrade => self.upgrades_per_minute,
            Bucket::Discovery => self.discovery_per_minute,
            Bucket::Usage => self.usage_per_minute,
            Bucket::Health => self.health_per_minute,
        }
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            upgrades_per_minute: 60,
            discovery_per_minute: 60,
            usage_per_minute: 12,
            health_per_minute: 6000,
        }
    }
}

/// An ordered map's key, so that addresses a client can choose (an IPv6 /64 is cheap) can't degrade it.
type Key = (Bucket, u128);

#[derive(Debug, Clone, Copy)]
struct Level {
    used: u32,
    full_again: Duration,
}

/// The buckets of every address seen in the last minute.
#[derive(Debug)]
pub struct Buckets {
    rates: Rates,
    exempt: Vec<Network>,
    levels: BTreeMap<Key, Level>,
    buckets_max: usize,
    /// Where the sweep goes on.
    swept_to: Option<Key>,
    refused_total: BTreeMap<Bucket, u64>,
    undecided_total: u64,
}

impl Buckets {
    /// `buckets_max` bounds the memory: about 64 bytes each.
    #[must_use]
    pub fn new(rates: Rates, exempt: Vec<Network>, buckets_max: usize) -> Self {
        Self {
            rates,
            exempt,
            levels: BTreeMap::new(),
            buckets_max,
            swept_to: None,
            refused_total: BTreeMap::new(),
            undecided_total: 0,
        }
    }

    /// Takes new rates and exemptions; what addresses have used so far stays counted.
    pub fn reconfigure(&mut self, rates: Rates, exempt: Vec<Network>) {
        self.rates = rates;
        self.exempt = exempt;
    }

    /// May this address make one more such request? `now` is monotonic.
    pub fn admit(&mut self, now: Duration, bucket: Bucket, ip: IpAddr) -> bool {
        let rate = self.rates.of(bucket);
        if rate == 0 || is_in(ip, &self.exempt) {
            return true;
        }
        self.sweep(now);
        let key = (bucket, client_of(ip));
        if let Some(level) = self.levels.get_mut(&key) {
            if level.full_again <= now {
                *level = Level { used: 0, full_again: now + REFILL };
            }
            let admitted = level.used < rate;
            if admitted {
                level.used += 1;
            } else {
                *self.refused_total.entry(bucket).or_default() += 1;
            }
            return admitted;
        }
        if self.levels.len() >= self.buckets_max {
            self.undecided_total += 1;
            return true;
        }
        self.levels.insert(key, Level { used: 1, full_again: now + REFILL });
        true
    }

    /// Looks at the next few buckets and throws out those that are full again: constant work, whatever the flood.
    pub fn sweep(&mut self, now: Duration) {
        for _ in 0..SWEPT_PER_REQUEST {
            let from = self.swept_to.map_or(Bound::Unbounded, Bound::Excluded);
            let Some((&key, level)) = self.levels.range((from, Bound::Unbounded)).next() else {
                self.swept_to = None;
                return;
            };
            let is_stale = level.full_again <= now;
            self.swept_to = Some(key);
            if is_stale {
                self.levels.remove(&key);
            }
        }
    }

    /// Buckets in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.levels.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// Requests refused since the start.
    #[must_use]
    pub fn refused_total(&self, bucket: Bucket) -> u64 {
        self.refused_total.get(&bucket).copied().unwrap_or(0)
    }

    /// Requests let in uncounted because there was no room for their address.
    #[must_use]
    pub fn undecided_total(&self) -> u64 {
        self.undecided_total
    }
}

/// Who counts as one client: an IPv4 address, or the /64 of an IPv6 one, since a single host commonly owns a whole /64.
#[must_use]
pub fn client_of(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        // Above any /64 prefix, so the two families can't meet.
        IpAddr::V4(v4) => (1 << 64) | u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits() >> 64,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn v4(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    fn buckets(max: usize) -> Buckets {
        Buckets::new(
            Rates { usage_per_minute: 3, ..Rates::default() },
            vec!["10.0.0.0/8".parse().unwrap()],
            max,
        )
    }

    #[test]
    fn the_rate_is_admitted_in_a_minute_and_not_one_more() {
        let mut buckets = buckets(10);
        for n in 0..3 {
            assert!(buckets.admit(n * 10 * S, Bucket::Usage, v4(1)));
        }
        assert!(!buckets.admit(59 * S, Bucket::Usage, v4(1)));
        assert!(buckets.admit(60 * S, Bucket::Usage, v4(1)));
        assert_eq!(buckets.refused_total(Bucket::Usage), 1);
    }

    #[test]
    fn a_bucket_that_no_sweep_has_reached_is_full_again_all_the_same() {
        let mut buckets = buckets(1000);
        for n in 0..300 {
            assert!(buckets.admit(S, Bucket::Usage, v4(n / 3)));
        }
        for n in (0..300).rev() {
            assert!(buckets.admit(61 * S, Bucket::Usage, v4(n / 3)), "address {}", n / 3);
        }
        assert!(!buckets.admit(61 * S, Bucket::Usage, v4(50)));
    }

    #[test]
    fn addresses_and_purposes_have_buckets_of_their_own() {
        let mut buckets = buckets(10);
        for _ in 0..4 {
            buckets.admit(S, Bucket::Usage, v4(1));
        }
        assert!(!buckets.admit(S, Bucket::Usage, v4(1)));
        assert!(buckets.admit(S, Bucket::Usage, v4(2)));
        assert!(buckets.admit(S, Bucket::Discovery, v4(1)));
    }

    #[test]
    fn exempt_networks_and_a_rate_of_zero_know_no_limit() {
        let mut buckets = buckets(10);
        let exempt: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
        assert!((0..100).all(|_| buckets.admit(S, Bucket::Usage, exempt)));
        buckets.reconfigure(Rates::UNLIMITED, vec![]);
        assert!((0..100).all(|_| buckets.admit(S, Bucket::Usage, v4(1))));
        assert!(buckets.is_empty());
    }

    #[test]
    fn all_addresses_of_one_ipv6_subnet_are_one_client() {
        let mut buckets = buckets(10);
        let host = |n: u128| IpAddr::from(Ipv6Addr::from_bits((0x2001_0db8_0000_0001 << 64) | n));
        for n in 0..3 {
            assert!(buckets.admit(S, Bucket::Usage, host(n)));
        }
        assert!(!buckets.admit(S, Bucket::Usage, host(u128::MAX >> 64)));
        let neighbour: IpAddr = "2001:db8:0:2::1".parse().unwrap();
        assert!(buckets.admit(S, Bucket::Usage, neighbour));
    }

    #[test]
    fn a_flood_of_addresses_stays_within_the_bound_lets_newcomers_in_and_forgets_nobody() {
        let mut buckets = buckets(1000);
        for _ in 0..3 {
            buckets.admit(S, Bucket::Usage, v4(7));
        }
        for n in 100..50_000 {
            assert!(buckets.admit(S, Bucket::Usage, v4(n)));
            assert!(buckets.len() <= 1000);
        }
        assert!(buckets.undecided_total() > 0);
        assert!(!buckets.admit(2 * S, Bucket::Usage, v4(7)), "the flood has emptied another client's bucket");
    }

    #[test]
    fn stale_buckets_make_room_while_others_are_used() {
        let mut buckets = buckets(1000);
        for n in 0..1000 {
            buckets.admit(S, Bucket::Usage, v4(n));
        }
        for n in 5000..5400 {
            buckets.admit(120 * S, Bucket::Usage, v4(n));
        }
        assert_eq!(buckets.len(), 400, "only the living ones are left");
        assert_eq!(buckets.undecided_total(), 0);
    }
}
