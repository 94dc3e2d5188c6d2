//! What is measured: time, latencies, and what the server's process costs.

pub mod process;

use hdrhistogram::Histogram;
use std::time::Instant;

/// Nanoseconds since the run began.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

/// Latencies in microseconds, three digits kept, up to an hour.
#[derive(Debug, Clone)]
pub struct Latency {
    histogram: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        const HOUR_US: u64 = 3_600_000_000;
        let histogram = Histogram::new_with_bounds(1, HOUR_US, 3).expect("constant bounds are legal");
        Self { histogram }
    }
}

impl Latency {
    #[inline]
    pub fn record_ns(&mut self, ns: u64) {
        self.histogram.saturating_record((ns / 1000).max(1));
    }

    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    pub fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all have the same bounds");
    }

    /// What was recorded since `earlier`, a copy of this one; everything if it is none.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut histogram = self.histogram.clone();
        match histogram.subtract(&earlier.histogram) {
            Ok(()) => Self { histogram },
            Err(_) => self.clone(),
        }
    }

    pub fn summary(&self) -> Option<LatencySummary> {
        let ms = |us: u64| us as f64 / 1000.0;
        let at = |quantile| ms(self.histogram.value_at_quantile(quantile));
        (self.count() > 0).then(|| LatencySummary {
            count: self.count(),
            mean_ms: self.histogram.mean() / 1000.0,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(self.histogram.max()),
        })
    }

    /// The percentile distribution, in milliseconds, as HdrHistogram's plotters read it.
    pub fn percentiles(&self) -> String {
        use std::fmt::Write;
        let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
        for step in self.histogram.iter_quantiles(5) {
            let quantile = step.quantile();
            let value = step.value_iterated_to() as f64 / 1000.0;
            let _ = write!(
                out,
                "{value:12.3} {quantile:14.12} {:10}",
                self.histogram.count_between(0, step.value_iterated_to())
            );
            let _ = if quantile < 1.0 {
                writeln!(out, " {:14.2}", 1.0 / (1.0 - quantile))
            } else {
                writeln!(out)
            };
        }
        let _ = writeln!(
            out,
            "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = {:12}]",
            self.histogram.mean() / 1000.0,
            self.histogram.stdev() / 1000.0,
            self.histogram.max() as f64 / 1000.0,
            self.histogram.len(),
        );
        out
    }
}

#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct LatencySummary {
    pub count: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut latency = Latency::default();
        assert_eq!(latency.summary(), None);
        (1..=1000).for_each(|ms| latency.record_ns(ms * 1_000_000));
        let summary = latency.summary().expect("something was recorded");
        assert!((summary.p50_ms - 500.0).abs() < 1.0 && (summary.p99_ms - 990.0).abs() < 1.0);
        assert_eq!(summary.count, 1000);
        let file = latency.percentiles();
        assert!(file.contains("Total count    =         1000"));
        assert!(file.lines().count() > 10);
    }
}
