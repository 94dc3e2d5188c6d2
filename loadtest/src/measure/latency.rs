//! Latencies, kept as a histogram: any quantile can be asked for, and histograms of several processes add up.

use hdrhistogram::Histogram;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Steps of the percentile distribution for each halving of what is left to 100 %.
const STEPS_PER_HALVING: u32 = 5;

/// Latencies in microseconds, three digits kept, up to an hour.
///
/// Serialised as its counts, `[[µs, count], …]`: nothing is lost on the way between processes.
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

/// A share of the latencies, none of which took longer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "(f64, f64, u64)", into = "(f64, f64, u64)")]
pub struct Percentile {
    pub quantile: f64,
    pub ms: f64,
    /// How many took no longer.
    pub count: u64,
}

impl From<(f64, f64, u64)> for Percentile {
    fn from((quantile, ms, count): (f64, f64, u64)) -> Self {
        Self { quantile, ms, count }
    }
}

impl From<Percentile> for (f64, f64, u64) {
    fn from(step: Percentile) -> Self {
        (step.quantile, step.ms, step.count)
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

    /// The percentile distribution, denser towards 100 %.
    pub fn percentiles(&self) -> Vec<Percentile> {
        self.histogram
            .iter_quantiles(STEPS_PER_HALVING)
            .scan(0, |count, step| {
                *count += step.count_since_last_iteration();
                Some(Percentile {
                    quantile: step.quantile_iterated_to(),
                    ms: ms(step.value_iterated_to().min(self.histogram.max())),
                    count: *count,
                })
            })
            .collect()
    }

    /// The percentile distribution, in milliseconds, as HdrHistogram's plotters read it.
    pub fn hgrm(&self) -> String {
        use std::fmt::Write;
        let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
        for Percentile { quantile, ms, count } in self.percentiles() {
            let _ = write!(out, "{ms:12.3} {quantile:14.12} {count:10}");
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
            ms(self.histogram.max()),
            self.histogram.len(),
        );
        out
    }
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let recorded = self.histogram.iter_recorded();
        serializer
            .collect_seq(recorded.map(|step| (step.value_iterated_to(), step.count_since_last_iteration())))
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut latency = Self::default();
        for (us, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            latency.histogram.record_n(us, count).map_err(D::Error::custom)?;
        }
        Ok(latency)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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

    fn recorded(ms: impl Iterator<Item = u64>) -> Latency {
        let mut latency = Latency::default();
        ms.for_each(|ms| latency.record_ns(ms * 1_000_000));
        latency
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        assert_eq!(Latency::default().summary(), None);
        let latency = recorded(1..=1000);
        let summary = latency.summary().expect("something was recorded");
        assert!((summary.p50_ms - 500.0).abs() < 1.0 && (summary.p99_ms - 990.0).abs() < 1.0);
        assert_eq!(summary.count, 1000);
        let file = latency.hgrm();
        assert!(file.contains("Total count    =         1000"));
        assert!(file.lines().count() > 10);
    }

    #[test]
    fn the_distribution_ends_with_the_slowest_and_counts_all() {
        let steps = recorded(1..=1000).percentiles();
        assert!(steps.windows(2).all(|pair| pair[0].ms <= pair[1].ms && pair[0].count <= pair[1].count));
        let last = steps.last().expect("steps");
        assert_eq!((last.quantile, last.count), (1.0, 1000));
        assert!((last.ms - 1000.0).abs() < 1.0, "{last:?}");
    }

    #[test]
    fn what_happened_since_an_earlier_copy_is_told_apart() {
        let mut latency = recorded(1..=10);
        let earlier = latency.clone();
        latency.record_ns(77_000_000);
        let since = latency.since(&earlier).summary().expect("one");
        assert_eq!(since.count, 1);
        assert!((since.max_ms - 77.0).abs() < 0.1, "{since:?}");
        assert_eq!(recorded(5..=6).since(&earlier).count(), 2); // no copy of that one
    }

    #[test]
    fn histograms_travel_and_add_up() {
        let (mut one, other) = (recorded(1..=500), recorded(501..=1000));
        let json = serde_json::to_string(&other).expect("JSON");
        one.add(&serde_json::from_str(&json).expect("read back"));
        assert_eq!(one.summary(), recorded(1..=1000).summary());
    }
}
