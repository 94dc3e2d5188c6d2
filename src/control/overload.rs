//! Whether the node takes more connections: a decision with hysteresis, and the reading it is taken on.

/// A line to shed at and a lower one to recover at, so that the answer doesn't flap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// From this value on, new connections are refused.
    pub shed_at: u64,
    /// Below this value they are welcome again.
    pub recover_at: u64,
}

impl Mark {
    /// Both lines as shares of what the node is planned for, rounded up: a node for one connection takes one, and is
    /// welcoming again when it has gone.
    #[must_use]
    pub fn of(capacity: u64, shed_percent: u8, recover_percent: u8) -> Self {
        let share = |percent: u8| u64::try_from((u128::from(capacity) * u128::from(percent)).div_ceil(100));
        Self {
            shed_at: share(shed_percent).unwrap_or(u64::MAX),
            recover_at: share(recover_percent).unwrap_or(u64::MAX),
        }
    }
}

/// The marks of a node; what has none is not watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    pub connections: Option<Mark>,
    pub rss_bytes: Option<Mark>,
}

/// The load as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Load {
    pub connections: u64,
    /// Unknown where the kernel doesn't say; an unknown figure never sheds.
    pub rss_bytes: Option<u64>,
    /// The journal stores nothing any more: whoever came in would never be acknowledged.
    pub storage_failed: bool,
}

/// The decision. Nobody who is inside is dropped by it.
#[derive(Debug)]
pub(super) struct Overload {
    marks: Marks,
    on: bool,
}

impl Overload {
    pub fn new(marks: Marks) -> Self {
        Self { marks, on: false }
    }

    pub fn reconfigure(&mut self, marks: Marks) {
        self.marks = marks;
    }

    pub fn is_on(&self) -> bool {
        self.on
    }

    /// The new decision, if this load changes it.
    pub fn observe(&mut self, load: Load) -> Option<bool> {
        let rss_bytes = load.rss_bytes.unwrap_or(0);
        let any = |crossed: fn(u64, Mark) -> bool| {
            self.marks.connections.is_some_and(|mark| crossed(load.connections, mark))
                || self.marks.rss_bytes.is_some_and(|mark| crossed(rss_bytes, mark))
        };
        let on = load.storage_failed
            || if self.on {
                any(|value, mark| value >= mark.recover_at.min(mark.shed_at))
            } else {
                any(|value, mark| value >= mark.shed_at)
            };
        (on != self.on).then(|| {
            self.on = on;
            on
        })
    }
}

/// This process's resident memory, from `/proc/self/status`.
pub(super) fn rss_bytes() -> Option<u64> {
    parse_rss(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(connections: u64, rss_bytes: u64) -> Load {
        Load { connections, rss_bytes: Some(rss_bytes), storage_failed: false }
    }

    #[test]
    fn shedding_begins_at_the_mark_and_ends_below_the_lower_one() {
        let marks = Marks { connections: Some(Mark::of(100, 80, 75)), rss_bytes: None };
        let mut overload = Overload::new(marks);
        assert_eq!(overload.observe(load(79, 0)), None);
        assert_eq!(overload.observe(load(80, 0)), Some(true));
        assert_eq!(overload.observe(load(79, 0)), None);
        assert_eq!(overload.observe(load(75, 0)), None);
        assert_eq!(overload.observe(load(74, 0)), Some(false));
        assert_eq!(overload.observe(load(79, 0)), None);
    }

    #[test]
    fn the_smallest_node_takes_somebody_and_recovers() {
        for capacity in 1..200 {
            for (shed, recover) in [(80, 70), (100, 1), (2, 1)] {
                let marks = Marks { connections: Some(Mark::of(capacity, shed, recover)), rss_bytes: None };
                let mut overload = Overload::new(marks);
                assert_eq!(overload.observe(load(0, 0)), None, "{capacity} at {shed} %");
                assert_eq!(overload.observe(load(capacity, 0)), Some(true));
                assert_eq!(overload.observe(load(0, 0)), Some(false), "{capacity} at {recover} %");
            }
        }
    }

    #[test]
    fn either_mark_sheds_and_both_must_clear() {
        let mark = Some(Mark { shed_at: 100, recover_at: 90 });
        let mut overload = Overload::new(Marks { connections: mark, rss_bytes: mark });
        assert_eq!(overload.observe(load(0, 100)), Some(true));
        assert_eq!(overload.observe(load(95, 0)), None);
        assert_eq!(overload.observe(load(0, 0)), Some(false));
    }

    #[test]
    fn a_figure_that_is_unknown_or_has_no_mark_never_sheds() {
        let mark = Some(Mark { shed_at: 1, recover_at: 1 });
        let mut overload = Overload::new(Marks { connections: None, rss_bytes: mark });
        assert_eq!(overload.observe(Load { connections: u64::MAX, ..Load::default() }), None);
    }

    #[test]
    fn a_failed_journal_sheds_until_the_end_whatever_the_load() {
        let mut overload = Overload::new(Marks::default());
        let failed = Load { storage_failed: true, ..Load::default() };
        assert_eq!(overload.observe(failed), Some(true));
        assert_eq!(overload.observe(failed), None);
    }

    #[test]
    fn a_reload_that_removes_the_marks_ends_the_shedding() {
        let mut overload = Overload::new(Marks { connections: Some(Mark::of(10, 80, 70)), rss_bytes: None });
        assert_eq!(overload.observe(load(10, 0)), Some(true));
        overload.reconfigure(Marks::default());
        assert_eq!(overload.observe(load(10, 0)), Some(false));
    }

    #[test]
    fn resident_memory_is_read_from_the_kernels_own_words() {
        assert_eq!(parse_rss("Name:\tx\nVmRSS:\t    5120 kB\nThreads:\t1\n"), Some(5120 * 1024));
        assert_eq!(parse_rss("Name:\tx\n"), None);
        assert!(rss_bytes().is_some_and(|bytes| bytes > 100_000));
    }
}
