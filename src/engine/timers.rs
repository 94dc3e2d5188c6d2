//! What falls due when. Timers are never cancelled: whoever set one looks, when it fires, whether it still applies.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::slab::Key;

/// What to look at when a timer fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A connection: keep-alive, ping, idle, authentication, token, stall, drain.
    Connection(Key),
    /// A document without sessions: the end of its grace period.
    Grace(Key),
    /// A document without updates: time to shrink.
    Shrink(Key),
    /// A document with awareness: states that nobody renewed.
    Awareness(Key),
    /// A socket that was owed more than fitted into a turn.
    CatchUp(Key),
    /// An app whose ops window ends, or whose question for ops may have stayed unanswered.
    OpsWindow,
}

#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Duration, Timer)>>,
}

impl Timers {
    pub fn set(&mut self, at: Duration, timer: Timer) {
        self.heap.push(Reverse((at, timer)));
    }

    /// The next timer that is due, removed.
    pub fn pop_due(&mut self, now: Duration) -> Option<Timer> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, timer))| timer)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_and_not_early() {
        let mut timers = Timers::default();
        timers.set(Duration::from_secs(2), Timer::OpsWindow);
        timers.set(Duration::from_secs(1), Timer::Grace(Key::from_bits(1 << 32)));
        assert_eq!(timers.next(), Some(Duration::from_secs(1)));
        assert_eq!(timers.pop_due(Duration::from_millis(999)), None);
        assert!(matches!(timers.pop_due(Duration::from_secs(3)), Some(Timer::Grace(_))));
        assert_eq!(timers.pop_due(Duration::from_secs(3)), Some(Timer::OpsWindow));
        assert_eq!(timers.next(), None);
    }
}
