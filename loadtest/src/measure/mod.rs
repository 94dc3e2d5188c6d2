//! What is measured: time, latencies, what the server costs, and all of them second by second.

pub mod cgroup;
mod latency;
pub mod process;
pub mod series;
pub mod server;

pub use latency::{Latency, LatencySummary, Percentile};

use std::time::Instant;

/// Nanoseconds of the host's monotonic clock: the same for all processes of a host, so that several can
/// keep one schedule.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    start_ns: u64,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: Instant::now(), start_ns: process::monotonic_ns() }
    }

    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.start_ns + self.start.elapsed().as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clocks_of_a_host_agree() {
        let (first, second) = (Clock::start(), Clock::start());
        let (early, between, late) = (first.now_ns(), second.now_ns(), first.now_ns());
        // Reading the two clocks a clock is made of takes a moment.
        const MOMENT_NS: u64 = 1_000_000_000;
        assert!(early < between + MOMENT_NS && between < late + MOMENT_NS, "{early} {between} {late}");
    }
}
