//! `opsPerMinute` on one shard: ops are leased from the node's ledger in small lots, ahead of need.
//!
//! Invariant: no op passes that was not leased, so the sum over all shards never exceeds the limit. An op waits for
//! an answer only when the lease in hand is spent.

use std::time::Duration;

use super::legacy::Legacy;
use super::slab::Key;

/// The lease of one app on this shard.
#[derive(Debug, Default)]
pub struct OpsMeter {
    left: u32,
    window_ends: Duration,
    /// Since when a request is on its way.
    asked_at: Option<Duration>,
    /// The rate of whoever asked last.
    ops_per_minute: u32,
    /// Ops that have changed a document and were not told of yet.
    done: u64,
    /// The answer to the last request was "none left"; no need to ask again before the window ends.
    spent: bool,
    /// Sessions with an update that waits for the answer.
    pub waiting: Vec<Key>,
    /// Rooms with a parked update that waits for it.
    rooms: Vec<Key>,
    /// What sessions that left had waiting.
    pub legacies: Vec<Legacy>,
}

/// What to do with an op now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass; [`OpsMeter::spend`] if it changes the document.
    Pass,
    /// Hold it until [`OpsMeter::leased`].
    Wait,
    /// The app's ops of this minute are spent (4006).
    Exceeded,
}

/// Lots are a fraction of the limit, so that little of it lies unused on a quiet shard.
const LOTS: u32 = 32;
const LOT_MAX: u32 = 4096;

/// How long to wait for an answer before asking again.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

impl OpsMeter {
    /// How many ops to ask for at a time.
    #[must_use]
    pub fn lot(ops_per_minute: u32, shards: u16) -> u32 {
        (ops_per_minute / (LOTS * u32::from(shards.max(1)))).clamp(1, LOT_MAX)
    }

    pub fn verdict(&mut self, now: Duration) -> Verdict {
        if now >= self.window_ends {
            self.left = 0;
            self.spent = false;
        }
        match (self.left, self.spent) {
            (0, true) => Verdict::Exceeded,
            (0, false) => Verdict::Wait,
            _ => Verdict::Pass,
        }
    }

    /// An op changed a document.
    pub fn spend(&mut self) {
        debug_assert!(self.left > 0, "an op passed without a lease");
        self.left = self.left.saturating_sub(1);
        self.done += 1;
    }

    /// The ops that have changed a document since this was last asked.
    pub const fn take_done(&mut self) -> u64 {
        std::mem::replace(&mut self.done, 0)
    }

    /// Whether to ask the ledger now; marks it as asked. What was asked too long ago is asked again: were both
    /// answered, both leases would count.
    pub fn ask(&mut self, now: Duration, ops_per_minute: u32, lot: u32) -> bool {
        self.ops_per_minute = ops_per_minute;
        let is_out = self.asked_at.is_some_and(|at| now < at + ANSWER_TIMEOUT);
        let ask = !is_out && !self.spent && self.left <= lot / 2;
        if ask {
            self.asked_at = Some(now);
        }
        ask
    }

    /// Somebody waits for an answer that should have come.
    #[must_use]
    pub fn is_unanswered(&mut self, now: Duration) -> bool {
        let overdue = self.asked_at.is_some_and(|at| now >= at + ANSWER_TIMEOUT);
        if overdue && self.nobody_waits() {
            self.asked_at = None;
        }
        overdue && self.asked_at.is_some()
    }

    #[must_use]
    pub const fn window_ends(&self) -> Duration {
        self.window_ends
    }

    #[must_use]
    pub const fn ops_per_minute(&self) -> u32 {
        self.ops_per_minute
    }

    /// A parked update of this room waits for the next lease.
    pub fn wait_with_parked(&mut self, room: Key) {
        if !self.rooms.contains(&room) {
            self.rooms.push(room);
        }
    }

    /// The ledger's answer. Returns the sessions and the rooms that waited for it.
    pub fn leased(&mut self, granted: u32, window_ends: Duration) -> (Vec<Key>, Vec<Key>) {
        self.asked_at = None;
        if window_ends > self.window_ends {
            self.left = 0;
        }
        self.window_ends = window_ends;
        self.left = self.left.saturating_add(granted);
        self.spent = granted == 0;
        (std::mem::take(&mut self.waiting), std::mem::take(&mut self.rooms))
    }

    /// Keeps what a session that left had waiting, while all such of the app have room in `bytes_max`.
    pub fn inherit(&mut self, legacy: Legacy, bytes_max: usize) {
        let kept: usize = self.legacies.iter().map(Legacy::bytes).sum();
        if kept + legacy.bytes() <= bytes_max {
            self.legacies.push(legacy);
        }
    }

    /// Nothing in hand, nothing asked: the meter can be forgotten.
    #[must_use]
    pub fn is_idle(&self, now: Duration) -> bool {
        now >= self.window_ends && self.asked_at.is_none() && self.nobody_waits()
    }

    fn nobody_waits(&self) -> bool {
        self.waiting.is_empty() && self.rooms.is_empty() && self.legacies.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn ops_pass_while_the_lease_lasts_and_end_when_the_ledger_has_none() {
        let mut meter = OpsMeter::default();
        assert_eq!(meter.verdict(Duration::ZERO), Verdict::Wait);
        assert!(meter.ask(Duration::ZERO, 60, 2));
        assert!(!meter.ask(Duration::ZERO, 60, 2), "one request at a time");
        meter.leased(2, MINUTE);
        for _ in 0..2 {
            assert_eq!(meter.verdict(Duration::ZERO), Verdict::Pass);
            meter.spend();
        }
        assert_eq!(meter.verdict(Duration::ZERO), Verdict::Wait);
        assert!(meter.ask(Duration::ZERO, 60, 2));
        meter.leased(0, MINUTE);
        assert_eq!(meter.verdict(Duration::ZERO), Verdict::Exceeded);
        assert!(!meter.ask(Duration::ZERO, 60, 2));
        assert_eq!(meter.verdict(MINUTE), Verdict::Wait, "a new window, a new chance");
    }

    #[test]
    fn a_lease_of_an_old_window_is_void_in_the_next() {
        let mut meter = OpsMeter::default();
        meter.ask(Duration::ZERO, 60, 10);
        meter.leased(10, MINUTE);
        assert_eq!(meter.verdict(MINUTE), Verdict::Wait);
        meter.ask(MINUTE, 60, 10);
        meter.leased(3, MINUTE * 2);
        for _ in 0..3 {
            assert_eq!(meter.verdict(MINUTE), Verdict::Pass);
            meter.spend();
        }
        assert_eq!(meter.verdict(MINUTE), Verdict::Wait);
    }

    #[test]
    fn lots_shrink_with_the_limit_and_the_shards() {
        assert_eq!(OpsMeter::lot(10, 1), 1);
        assert_eq!(OpsMeter::lot(6400, 2), 100);
        assert_eq!(OpsMeter::lot(u32::MAX, 1), LOT_MAX);
    }
}
