//! Time as the pure modules see it: a value handed in, never a clock that is read.

pub mod calendar;

use std::num::NonZeroU64;
use std::ops::Add;
use std::time::Duration;

/// One reading of both clocks, taken once per loop turn by whoever drives a pure module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Monotonic: time since the process started. Deadlines and windows use this one.
    pub monotonic: Duration,
    /// Wall clock, whole seconds since the Unix epoch. Only token times (`exp`, `nbf`) use this one.
    pub unix_s: u64,
}

/// A monotonic time as those keep it who keep many: a [`Duration`] since the process started takes twice the room, and an
/// optional one does too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    ns: NonZeroU64, // one more than there were; good for 584 years
}

impl Moment {
    /// After every other.
    pub const MAX: Self = Self { ns: NonZeroU64::MAX };
}

impl From<Duration> for Moment {
    fn from(since_start: Duration) -> Self {
        let ns = u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX);
        Self { ns: NonZeroU64::MIN.saturating_add(ns) }
    }
}

impl Add<Duration> for Moment {
    type Output = Duration;

    fn add(self, by: Duration) -> Duration {
        Duration::from_nanos(self.ns.get() - 1) + by
    }
}

impl Now {
    /// The same moment moved on by `by`, for tests and simulations that drive time.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self { monotonic: self.monotonic + by, unix_s: self.unix_s + by.as_secs() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_duration_it_was_made_of() {
        let at = Duration::new(3, 7);
        assert_eq!(Moment::from(at) + Duration::from_secs(1), Duration::new(4, 7));
        assert!(Moment::from(at) < Moment::from(at + Duration::from_nanos(1)));
        assert_eq!(Moment::from(Duration::MAX), Moment::MAX);
        assert_eq!(Moment::from(Duration::ZERO) + at, at);
        assert_eq!(size_of::<Option<Moment>>(), 8);
    }
}
