//! Ops windows: how many update messages an app may still send in its current minute.
//!
//! A window starts with an app's first op and lasts one minute; shards lease parts of it, so that no op waits for an
//! answer. Invariant: the sum of all leases of one window never exceeds the `ops_per_minute` of the request that got them.
//! What a shard leased and did not use is lost with the window, never carried over.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::protocol::document::AppId;

/// How long a window lasts.
pub const WINDOW: Duration = Duration::from_secs(60);

/// An answer to a shard that asked for ops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// How many ops may pass; 0 means the window is spent.
    pub granted: u32,
    /// Monotonic time at which the lease, and its window, end.
    pub window_ends: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    granted: u32,
    ends: Duration,
}

/// Every app's current window.
#[derive(Debug, Default)]
pub struct OpsWindows {
    windows: BTreeMap<AppId, Window>,
    /// In the order they end: all last equally long, so that is the order they began in.
    ending: VecDeque<(Duration, AppId)>,
}

impl OpsWindows {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Leases up to `wanted` ops of the app's current window, and begins one if there is none.
    ///
    /// `now` is monotonic and must not go backwards.
    pub fn lease(&mut self, now: Duration, app: AppId, ops_per_minute: u32, wanted: u32) -> Lease {
        self.forget_ended(now);
        if wanted == 0 && !self.windows.contains_key(&app) {
            return Lease { granted: 0, window_ends: now }; // no op, so no window begins
        }
        let window = self.windows.entry(app).or_insert_with(|| {
            let ends = now + WINDOW;
            self.ending.push_back((ends, app));
            Window { granted: 0, ends }
        });
        let granted = wanted.min(ops_per_minute.saturating_sub(window.granted));
        window.granted += granted;
        Lease { granted, window_ends: window.ends }
    }

    /// Ops leased in the app's current window.
    #[must_use]
    pub fn leased(&self, now: Duration, app: AppId) -> u32 {
        self.windows.get(&app).filter(|window| now < window.ends).map_or(0, |window| window.granted)
    }

    /// Forgets windows that are over; leasing does so too, this is for when nobody leases any more.
    pub fn forget_ended(&mut self, now: Duration) {
        while let Some(&(ends, app)) = self.ending.front()
            && ends <= now
        {
            self.ending.pop_front();
            self.windows.remove(&app);
        }
        if self.ending.is_empty() {
            self.ending = VecDeque::new();
        }
    }

    /// Apps with a window.
    #[must_use]
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn app(n: u128) -> AppId {
        AppId { tenant: Uuid::nil(), app: Uuid::from_u128(n) }
    }

    #[test]
    fn a_window_begins_with_the_first_op_and_all_its_leases_end_together() {
        let mut ops = OpsWindows::new();
        let first = ops.lease(5 * S, app(1), 100, 30);
        assert_eq!(first, Lease { granted: 30, window_ends: 65 * S });
        assert_eq!(ops.lease(60 * S, app(1), 100, 80), Lease { granted: 70, window_ends: 65 * S });
        assert_eq!(ops.lease(64 * S, app(1), 100, 1), Lease { granted: 0, window_ends: 65 * S });
        assert_eq!(ops.lease(65 * S, app(1), 100, 1), Lease { granted: 1, window_ends: 125 * S });
    }

    #[test]
    fn apps_do_not_share_a_window() {
        let mut ops = OpsWindows::new();
        assert_eq!(ops.lease(S, app(1), 10, 10).granted, 10);
        assert_eq!(ops.lease(S, app(2), 10, 10).granted, 10);
    }

    #[test]
    fn a_newer_smaller_limit_grants_nothing_more_once_it_is_passed() {
        let mut ops = OpsWindows::new();
        ops.lease(S, app(1), 100, 60);
        assert_eq!(ops.lease(S, app(1), 50, 10).granted, 0);
        assert_eq!(ops.lease(S, app(1), 65, 10).granted, 5);
    }

    #[test]
    fn windows_that_are_over_take_no_memory() {
        let mut ops = OpsWindows::new();
        for n in 0..1000 {
            ops.lease(S, app(n), 10, 1);
        }
        ops.forget_ended(60 * S);
        assert_eq!(ops.len(), 1000);
        ops.forget_ended(61 * S);
        assert!(ops.is_empty() && ops.ending.capacity() == 0);
    }

    #[test]
    fn asking_for_nothing_begins_no_window() {
        let mut ops = OpsWindows::new();
        assert_eq!(ops.lease(S, app(1), 10, 0).granted, 0);
        assert!(ops.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        /// A failure prints the shrunk sequence itself.
        #[test]
        fn the_leases_of_one_window_never_exceed_the_limit(
            limit in 1u32..50,
            asks in prop::collection::vec((0u64..20_000, 0u128..3, 0u32..30), 1..300),
        ) {
            let mut ops = OpsWindows::new();
            let mut now = Duration::ZERO;
            let mut sums: BTreeMap<(AppId, Duration), u32> = BTreeMap::new();
            for (pause_ms, n, wanted) in asks {
                now += Duration::from_millis(pause_ms);
                let lease = ops.lease(now, app(n), limit, wanted);
                prop_assert!(lease.granted == 0 || (lease.window_ends > now && lease.window_ends <= now + WINDOW));
                let sum = sums.entry((app(n), lease.window_ends)).or_default();
                *sum += lease.granted;
                prop_assert!(*sum <= limit);
                // A refusal in part means that the window is spent to the last op.
                prop_assert!(lease.granted == wanted || *sum == limit);
            }
        }
    }
}
