//! When every update is due. Pure arithmetic: nothing waits here, nothing is stored per update.
//!
//! Updates come at even intervals over all writers together, one writer after the other, so writer
//! `w` types its `k`-th character as update `k * writers + w`. The schedule is fixed before the run
//! and never slips: an update that goes out late is still measured from the instant it was due
//! (no coordinated omission).

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

    /// When writer `writer` types the character with this clock.
    #[inline]
    pub fn due_of(&self, writer: u32, clock: u32) -> u64 {
        self.due_ns(u64::from(clock) * self.writers + u64::from(writer))
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
    pub fn clocks_of(&self, writer: u32, count: u64) -> u32 {
        let before = count + self.writers - 1 - u64::from(writer);
        (before / self.writers) as u32
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
            prop_assert_eq!(schedule.clocks_of(writer, number), clock);
            prop_assert_eq!(schedule.clocks_of(writer, number + 1), clock + 1);
        }

        #[test]
        fn counting_is_exact(writers in 1u32..50, rate in 0.1f64..10_000.0, span in 0u64..20_000_000_000) {
            let schedule = Schedule::new(1000, writers, rate);
            let count = schedule.count_before(1000 + span);
            prop_assert!(schedule.due_ns(count) >= 1000 + span);
            prop_assert!(count == 0 || schedule.due_ns(count - 1) < 1000 + span);
            let by_writer: u64 = (0..writers).map(|writer| u64::from(schedule.clocks_of(writer, count))).sum();
            prop_assert_eq!(by_writer, count);
        }
    }
}
