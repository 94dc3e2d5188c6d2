//! Time as the pure modules see it: a value handed in, never a clock that is read.

use std::time::Duration;

/// One reading of both clocks, taken once per loop turn by whoever drives a pure module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Monotonic: time since the process started. Deadlines and windows use this one.
    pub monotonic: Duration,
    /// Wall clock, whole seconds since the Unix epoch. Only token times (`exp`, `nbf`) use this one.
    pub unix_s: u64,
}

impl Now {
    /// The same moment moved on by `by`, for tests and simulations that drive time.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self { monotonic: self.monotonic + by, unix_s: self.unix_s + by.as_secs() }
    }
}
