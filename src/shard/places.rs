//! Places for handshakes, and how many of them one client has: whoever opens connections and says nothing would take all of
//! them otherwise, and nobody else would come in until their time is over. No I/O here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::ShardSettings;
use crate::limits::client_of;
use crate::limits::network::is_in;

/// One client may have this share of all places, or so many where that is less than a browser opens at once.
const SHARE: usize = 16;
const OF_ONE_MIN: usize = 8;

/// Whose a place is: an address as the per-address buckets count it. `None`: one of those whom they don't count.
pub type Holder = Option<u128>;

/// Invariant: the counts of all holders add up to no more than what is taken.
#[derive(Debug, Default)]
pub struct Places {
    taken: usize,
    /// An ordered map, as addresses are a client's to choose.
    by_client: BTreeMap<u128, usize>,
}

/// Proxies and exempt networks stand for many clients; without a limit on upgrades nobody is counted.
pub fn holder(settings: &ShardSettings, ip: IpAddr) -> Holder {
    let is_counted = settings.upgrades_limited
        && !is_in(ip, &settings.trusted_proxies)
        && !is_in(ip, &settings.exempt_networks);
    is_counted.then(|| client_of(ip))
}

impl Places {
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// False: this client has as many as one may have of `all`.
    #[must_use]
    pub fn take(&mut self, holder: Holder, all: usize) -> bool {
        let is_free = self.assign(holder, all);
        self.taken += usize::from(is_free);
        is_free
    }

    /// Says whose a place is that was taken by nobody in particular. False: as for [`Self::take`].
    #[must_use]
    pub fn assign(&mut self, holder: Holder, all: usize) -> bool {
        let Some(client) = holder else { return true };
        let count = self.by_client.entry(client).or_default();
        let is_free = *count < (all / SHARE).max(OF_ONE_MIN);
        *count += usize::from(is_free);
        is_free
    }

    pub fn give_back(&mut self, holder: Holder) {
        self.taken -= 1;
        let Some(client) = holder else { return };
        if let Some(count) = self.by_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.by_client.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodeConfig;

    #[test]
    fn one_client_has_a_share_and_what_it_gives_back() {
        let mut places = Places::default();
        let (one, other) = (Some(1), Some(2));
        for _ in 0..10 {
            assert!(places.take(one, 160) && places.take(None, 160));
        }
        assert!(!places.take(one, 160) && !places.assign(one, 160) && places.take(other, 160));
        assert_eq!(places.taken(), 21);
        places.give_back(one);
        assert!(places.take(one, 160) && !places.take(one, 160));
        for holder in [vec![one; 10], vec![None; 10], vec![other]].concat() {
            places.give_back(holder);
        }
        assert_eq!((places.taken(), places.by_client.len()), (0, 0));
        assert!(
            (0..OF_ONE_MIN).all(|_| places.take(one, 1)),
            "where there are few places, one client has more of them"
        );
    }

    #[test]
    fn proxies_and_exempt_networks_stand_for_many() {
        let mut settings = NodeConfig::dev("127.0.0.1:0".parse().unwrap(), None).shard;
        settings.upgrades_limited = true;
        settings.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        settings.exempt_networks = vec!["192.0.2.0/24".parse().unwrap()];
        let holder = |address: &str| holder(&settings, address.parse().unwrap());
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "192.0.2.9"] {
            assert_eq!(holder(address), None);
        }
        assert!(holder("203.0.113.1").is_some() && holder("203.0.113.1") != holder("203.0.113.2"));
        assert_eq!(holder("::ffff:203.0.113.1"), holder("203.0.113.1"));
        assert_eq!(holder("2001:db8::1"), holder("2001:db8::2"), "one /64");
        settings.upgrades_limited = false;
        assert_eq!(super::holder(&settings, "203.0.113.1".parse().unwrap()), None);
    }
}
