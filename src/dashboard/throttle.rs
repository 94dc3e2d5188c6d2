//! Who has asked or failed too often: fixed windows of ten minutes, in memory.
//!
//! Bounded: a flood of addresses forgets the windows that end first, never grows the table. An IPv6 client counts by its
//! /64, because more addresses than that cost nothing. Deliberately absent: sharing between dashboards.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

pub const WINDOW_S: i64 = 600;
const WINDOWS_MAX: usize = 100_000;

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    JwksOf(IpAddr),
    ApiFrom(IpAddr),
    ApiBy(Uuid),
    SignUpFrom(IpAddr),
    FailuresFrom(IpAddr),
    /// Of a `client_id` or an e-mail address.
    FailuresOf(String),
}

#[derive(Debug, Clone, Copy)]
struct Window {
    count: u32,
    ends_at: i64,
}

#[derive(Debug)]
pub(super) struct Throttle(Mutex<BTreeMap<Subject, Window>>);

impl Throttle {
    pub fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Counts once more; what the count then is, and the seconds until it begins anew.
    pub fn count(&self, now: i64, subject: Subject) -> (u32, i64) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= WINDOWS_MAX && !windows.contains_key(&subject) {
            windows.retain(|_, window| window.ends_at > now);
            if windows.len() >= WINDOWS_MAX {
                // A good part at once, so that a flood doesn't make each request look through the table.
                let soonest = windows.values().map(|window| window.ends_at).min().unwrap_or(now);
                windows.retain(|_, window| window.ends_at > soonest + WINDOW_S / 10);
            }
        }
        let window = windows.entry(subject).or_insert(Window { count: 0, ends_at: now + WINDOW_S });
        if window.ends_at <= now {
            *window = Window { count: 0, ends_at: now + WINDOW_S };
        }
        window.count = window.count.saturating_add(1);
        (window.count, window.ends_at - now)
    }

    /// Takes one back.
    pub fn uncount(&self, now: i64, subject: &Subject) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = windows.get_mut(subject).filter(|window| window.ends_at > now) {
            window.count = window.count.saturating_sub(1);
        }
    }

    /// What the count is, and the seconds until it begins anew.
    pub fn look(&self, now: i64, subject: &Subject) -> (u32, i64) {
        let windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.get(subject).filter(|window| window.ends_at > now);
        window.map_or((0, 0), |window| (window.count, window.ends_at - now))
    }
}

/// The address as it is counted.
pub(super) fn counted(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_begins_anew_when_its_window_ends() {
        let throttle = Throttle::new();
        let subject = Subject::FailuresOf("a".into());
        assert_eq!(throttle.count(0, subject.clone()), (1, WINDOW_S));
        assert_eq!(throttle.count(10, subject.clone()), (2, WINDOW_S - 10));
        assert_eq!(throttle.look(WINDOW_S - 1, &subject), (2, 1));
        assert_eq!(throttle.look(WINDOW_S, &subject), (0, 0));
        assert_eq!(throttle.count(WINDOW_S, subject), (1, WINDOW_S));
    }

    #[test]
    fn a_flood_of_subjects_does_not_grow_the_table() {
        let throttle = Throttle::new();
        for n in 0..WINDOWS_MAX + 10 {
            throttle.count((n / 1000) as i64, Subject::FailuresOf(n.to_string()));
        }
        assert!(throttle.0.lock().unwrap().len() <= WINDOWS_MAX);
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        assert_eq!(counted("2001:db8::1:2:3:4".parse().unwrap()), counted("2001:db8::9".parse().unwrap()));
        assert_eq!(counted("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
    }
}
