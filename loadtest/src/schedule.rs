//! When every update is due, and which clocks it takes. Pure arithmetic: nothing waits here, nothing is
//! stored per update.
//!
//! Updates come at even intervals over all writers together, one writer after the other, so writer
//! `w` types its `k`-th update as update `k * writers + w`. The schedule is fixed before the run
//! and never slips: an update that goes out late is still measured from the instant it was due
//! (no coordinated omission).
//!
//! [`Clocks`] says which update of its writer a clock belongs to: the same number where every update is
//! one character, else a look-up in the table of one period.

use std::ops::Range;
use std::rc::Rc;

/// A fixed plan of updates. Times are nanoseconds on the run's clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    writers: u64,
}

impl Schedule {
    /// `rate` in updates per second of each writer; both must be above zero.
    pub fn new(start_ns: u64, writers: u32, rate: f64) -> Self {
        assert!(writers > 0 && rate > 0.0, "a schedule needs writers and a rate");
        Self { start_ns, interval_ns: 1e9 / (rate * f64::from(writers)), writers: u64::from(writers) }
    }

    /// When update `number` (over all writers) is due.
    #[inline]
    pub fn due_ns(&self, number: u64) -> u64 {
        self.start_ns + (number as f64 * self.interval_ns) as u64
    }

    /// When writer `writer` types its update `nth`.
    #[inline]
    pub fn due_of(&self, writer: u32, nth: u32) -> u64 {
        self.due_ns(u64::from(nth) * self.writers + u64::from(writer))
    }

    /// Whose turn update `number` is.
    #[inline]
    pub fn writer(&self, number: u64) -> u32 {
        (number % self.writers) as u32
    }

    /// How many updates are due before `end_ns`.
    pub fn count_before(&self, end_ns: u64) -> u64 {
        let span = end_ns.saturating_sub(self.start_ns) as f64;
        let mut count = (span / self.interval_ns) as u64;
        while self.due_ns(count) < end_ns {
            count += 1;
        }
        while count > 0 && self.due_ns(count - 1) >= end_ns {
            count -= 1;
        }
        count
    }

    /// How many of the first `count` updates are this writer's.
    pub fn updates_of(&self, writer: u32, count: u64) -> u32 {
        let before = count + self.writers - 1 - u64::from(writer);
        (before / self.writers) as u32
    }
}

/// Which clocks a writer's updates take.
#[derive(Debug, Clone)]
pub enum Clocks {
    /// Update `k` is clock `k`.
    One,
    /// They repeat after a period (or end with it, where nobody types for longer).
    Periodic(Rc<Period>),
}

/// The clocks of one period of updates.
#[derive(Debug)]
pub struct Period {
    starts: Vec<u32>,      // by update: its first clock; one more for the end
    update_of: Vec<u32>,   // by clock
    with_clocks: Vec<u32>, // by update: how many of those before it have clocks; one more for the end
}

impl Period {
    /// From the number of clocks of each update; some must have any.
    pub fn new(clocks: impl IntoIterator<Item = u32>) -> Self {
        let mut period = Self { starts: vec![0], update_of: Vec::new(), with_clocks: vec![0] };
        let (mut end, mut with_clocks) = (0, 0);
        for (update, clocks) in clocks.into_iter().enumerate() {
            end += clocks;
            with_clocks += u32::from(clocks > 0);
            period.starts.push(end);
            period.with_clocks.push(with_clocks);
            period.update_of.resize(end as usize, update as u32);
        }
        assert!(end > 0, "a period needs an update with clocks");
        period
    }

    fn updates(&self) -> u32 {
        self.starts.len() as u32 - 1
    }

    fn clocks(&self) -> u32 {
        self.update_of.len() as u32
    }

    /// The update that a clock belongs to, and the clock behind its last.
    #[inline]
    fn update_of(&self, clock: u32) -> (u32, u32) {
        let (period, clock) = (clock / self.clocks(), clock % self.clocks());
        let update = self.update_of[clock as usize];
        let end = self.starts[update as usize + 1];
        (period * self.updates() + update, period * self.clocks() + end)
    }
}

impl Clocks {
    /// Clocks taken by a writer's first `updates` updates.
    pub fn before(&self, updates: u32) -> u32 {
        match self {
            Self::One => updates,
            Self::Periodic(period) => {
                let (periods, rest) = (updates / period.updates(), updates % period.updates());
                periods * period.clocks() + period.starts[rest as usize]
            }
        }
    }

    /// How many of a writer's first `updates` updates have clocks: only those can be told apart.
    pub fn measurable(&self, updates: u32) -> u32 {
        match self {
            Self::One => updates,
            Self::Periodic(period) => {
                let (periods, rest) = (updates / period.updates(), updates % period.updates());
                periods * period.with_clocks[period.updates() as usize] + period.with_clocks[rest as usize]
            }
        }
    }

    /// Calls `found` with each update whose last clock is among `clocks`.
    #[inline]
    pub fn completed(&self, clocks: Range<u32>, mut found: impl FnMut(u32)) {
        match self {
            Self::One => clocks.for_each(found),
            Self::Periodic(period) => {
                let mut clock = clocks.start;
                while clock < clocks.end {
                    let (update, end) = period.update_of(clock);
                    if end <= clocks.end {
                        found(update);
                    }
                    clock = end;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_second_holds_as_many_updates_as_the_rate_says() {
        let schedule = Schedule::new(5 * SECOND, 10, 10.0);
        assert_eq!(schedule.count_before(6 * SECOND), 100);
        assert_eq!(schedule.count_before(5 * SECOND), 0);
        assert_eq!(schedule.count_before(SECOND), 0);
        assert_eq!(schedule.due_of(3, 2), 5 * SECOND + 230_000_000);
    }

    proptest! {
        #[test]
        fn number_writer_and_clock_agree(writers in 1u32..3000, rate in 0.01f64..5000.0, number in 0u64..2_000_000) {
            let schedule = Schedule::new(17, writers, rate);
            let writer = schedule.writer(number);
            let clock = (number / u64::from(writers)) as u32;
            prop_assert_eq!(schedule.due_of(writer, clock), schedule.due_ns(number));
            prop_assert_eq!(schedule.updates_of(writer, number), clock);
            prop_assert_eq!(schedule.updates_of(writer, number + 1), clock + 1);
        }

        #[test]
        fn counting_is_exact(writers in 1u32..50, rate in 0.1f64..10_000.0, span in 0u64..20_000_000_000) {
            let schedule = Schedule::new(1000, writers, rate);
            let count = schedule.count_before(1000 + span);
            prop_assert!(schedule.due_ns(count) >= 1000 + span);
            prop_assert!(count == 0 || schedule.due_ns(count - 1) < 1000 + span);
            let by_writer: u64 = (0..writers).map(|writer| u64::from(schedule.updates_of(writer, count))).sum();
            prop_assert_eq!(by_writer, count);
        }

        /// Against a list of every clock's update, however the clocks arrive in pieces.
        #[test]
        fn every_update_is_found_once_by_its_last_clock(
            lengths in prop::collection::vec(0u32..5, 1..12),
            cuts in prop::collection::vec(1u32..9, 1..60),
        ) {
            prop_assume!(lengths.iter().any(|len| *len > 0));
            let clocks = Clocks::Periodic(Rc::new(Period::new(lengths.iter().copied())));
            let (mut found, mut at) = (Vec::new(), 0);
            for cut in cuts {
                clocks.completed(at..at + cut, |update| found.push(update));
                at += cut;
            }
            let (mut expected, mut update, mut end) = (Vec::new(), 0u32, 0);
            while end <= at {
                prop_assert_eq!(clocks.before(update), end);
                prop_assert_eq!(clocks.measurable(update) as usize, expected.len());
                let len = lengths[update as usize % lengths.len()];
                end += len;
                if len > 0 && end <= at {
                    expected.push(update);
                }
                update += 1;
            }
            prop_assert_eq!(found, expected);
        }
    }
}
