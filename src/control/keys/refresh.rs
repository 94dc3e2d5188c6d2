//! When a tenant's keys are fetched: polls, and refreshes that tokens with an unknown key ask for.
//!
//! Invariants: at most one fetch of a tenant at a time, however many wait for it; every waiter gets an answer after at
//! most one fetch; tokens can cause no more fetches than the rates allow, whatever tenants they name.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use uuid::Uuid;

/// Fetches under way at once.
pub(in crate::control) const RUNNING_MAX: usize = 4;

/// Waiters for one tenant's fetch; one more is answered without waiting.
const WAITERS_MAX: usize = 65_536;

const MINUTE: Duration = Duration::from_secs(60);

/// The queue of fetches; `W` is whoever waits for one.
#[derive(Debug)]
pub(in crate::control) struct Refreshes<W> {
    /// Queued or running, with those who wait for the outcome.
    pending: BTreeMap<Uuid, Vec<W>>,
    queue: VecDeque<Uuid>,
    running: usize,
    /// Refreshes of the last minute, in order.
    asked: VecDeque<(Duration, Uuid)>,
    interval: Duration,
    per_minute: usize,
    pub limited_total: u64,
}

impl<W> Refreshes<W> {
    /// `interval` between two refreshes of one tenant, at most a minute; `per_minute` for all tenants together.
    pub fn new(interval: Duration, per_minute: u32) -> Self {
        Self {
            pending: BTreeMap::new(),
            queue: VecDeque::new(),
            running: 0,
            asked: VecDeque::new(),
            interval: interval.min(MINUTE),
            per_minute: per_minute as usize,
            limited_total: 0,
        }
    }

    /// Takes new rates; what was asked for in the last minute still counts.
    pub fn reconfigure(&mut self, interval: Duration, per_minute: u32) {
        self.interval = interval.min(MINUTE);
        self.per_minute = per_minute as usize;
    }

    /// Whether nothing is queued or under way.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// A token names an unknown key of this tenant. The waiter comes back at once when no fetch is allowed for it, else
    /// from [`Self::finished`].
    pub fn ask(&mut self, now: Duration, tenant: Uuid, waiter: W) -> Option<W> {
        if let Some(waiters) = self.pending.get_mut(&tenant) {
            if waiters.len() >= WAITERS_MAX {
                return Some(waiter);
            }
            waiters.push(waiter);
            self.hurry(tenant);
            return None;
        }
        while self.asked.front().is_some_and(|&(at, _)| now - at >= MINUTE) {
            self.asked.pop_front();
        }
        let too_soon = self.asked.iter().any(|&(at, id)| id == tenant && now - at < self.interval);
        if too_soon || self.asked.len() >= self.per_minute {
            self.limited_total += 1;
            return Some(waiter);
        }
        self.asked.push_back((now, tenant));
        self.pending.insert(tenant, vec![waiter]);
        self.queue.push_front(tenant);
        None
    }

    /// Somebody waits for what so far was only a poll: it goes first.
    fn hurry(&mut self, tenant: Uuid) {
        if let Some(at) = self.queue.iter().position(|&queued| queued == tenant)
            && at > 0
        {
            self.queue.remove(at);
            self.queue.push_front(tenant);
        }
    }

    /// Queues a fetch that nobody waits for.
    pub fn poll(&mut self, tenant: Uuid) {
        self.pending.entry(tenant).or_insert_with(|| {
            self.queue.push_back(tenant);
            Vec::new()
        });
    }

    /// The next fetch to begin now, if one may.
    pub fn start_next(&mut self) -> Option<Uuid> {
        if self.running >= RUNNING_MAX {
            return None;
        }
        let tenant = self.queue.pop_front()?;
        self.running += 1;
        Some(tenant)
    }

    /// A fetch is over, whatever came of it: those who waited.
    pub fn finished(&mut self, tenant: Uuid) -> Vec<W> {
        self.running = self.running.saturating_sub(1);
        self.pending.remove(&tenant).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn tenant(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn refreshes() -> Refreshes<u32> {
        Refreshes::new(10 * S, 5)
    }

    #[test]
    fn all_who_ask_while_a_fetch_is_pending_share_it() {
        let mut refreshes = refreshes();
        assert_eq!(refreshes.ask(S, tenant(1), 1), None);
        assert_eq!(refreshes.ask(S, tenant(1), 2), None);
        assert_eq!(refreshes.start_next(), Some(tenant(1)));
        assert_eq!(refreshes.ask(S, tenant(1), 3), None);
        assert_eq!(refreshes.start_next(), None);
        assert_eq!(refreshes.finished(tenant(1)), [1, 2, 3]);
    }

    #[test]
    fn one_tenant_is_refreshed_once_per_interval() {
        let mut refreshes = refreshes();
        refreshes.ask(S, tenant(1), 1);
        refreshes.start_next();
        refreshes.finished(tenant(1));
        assert_eq!(refreshes.ask(10 * S, tenant(1), 2), Some(2));
        assert_eq!(refreshes.limited_total, 1);
        assert_eq!(refreshes.ask(11 * S, tenant(1), 3), None);
    }

    #[test]
    fn made_up_tenants_cannot_cause_more_fetches_than_the_rate_of_all() {
        let mut refreshes = refreshes();
        let started = (0..100).filter(|&n| refreshes.ask(S, tenant(n), 0).is_none()).count();
        assert_eq!(started, 5);
        assert_eq!(refreshes.ask(60 * S, tenant(200), 0), Some(0));
        assert_eq!(refreshes.ask(61 * S, tenant(200), 0), None);
        assert!(refreshes.asked.len() <= 5);
    }

    #[test]
    fn a_refresh_overtakes_polls_and_polls_do_not_pile_up() {
        let mut refreshes = refreshes();
        for n in 0..10 {
            refreshes.poll(tenant(n));
            refreshes.poll(tenant(n));
        }
        assert_eq!(refreshes.ask(S, tenant(50), 1), None);
        assert_eq!(refreshes.ask(S, tenant(7), 2), None);
        let started: Vec<_> = std::iter::from_fn(|| refreshes.start_next()).collect();
        assert_eq!(started, [tenant(7), tenant(50), tenant(0), tenant(1)], "bounded by {RUNNING_MAX}");
        assert_eq!(refreshes.finished(tenant(7)), [2]);
        assert_eq!(refreshes.start_next(), Some(tenant(2)));
    }
}
