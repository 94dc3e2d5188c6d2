//! A run second by second: one sample per interval of what arrived, how late, and what it cost.
//!
//! A sample covers the time since the one before. It takes about a tenth of a millisecond of the load
//! tester's thread, so an interval of a second can't be seen in the result.

use super::process::{Process, ProcessError};
use super::server::Server;
use super::{Latency, LatencySummary};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The end of the sample, since the run began.
    pub t_s: f64,
    pub deliveries_per_s: f64,
    /// Of what was due in the measured window and arrived in this interval.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub max_ms: Option<f64>,
    /// Of one core.
    pub server_cpu_percent: Option<f64>,
    pub server_memory_bytes: Option<u64>,
    pub generator_cpu_percent: Option<f64>,
}

/// What a load has counted so far.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'a> {
    pub deliveries: u64,
    pub latency: &'a Latency,
    pub failures: usize,
}

#[derive(Debug)]
pub struct Sampler {
    interval_ns: u64,
    start_ns: Option<u64>,
    next_ns: u64,
    last_ns: u64,
    server: Option<Server>,
    own: Option<Process>,
    server_cpu_s: Option<f64>,
    own_cpu_s: Option<f64>,
    deliveries: u64,
    latency: Latency,
    samples: Vec<Sample>,
    waits_for_orders: bool,
}

impl Sampler {
    pub fn new(interval_s: f64, server: Option<Server>, own: Option<Process>) -> Self {
        Self {
            interval_ns: (interval_s * 1e9) as u64,
            start_ns: None,
            next_ns: 0,
            last_ns: 0,
            server,
            own,
            server_cpu_s: None,
            own_cpu_s: None,
            deliveries: 0,
            latency: Latency::default(),
            samples: Vec::new(),
            waits_for_orders: false,
        }
    }

    /// Is it time for a sample?
    #[inline]
    pub fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.next_ns && !self.waits_for_orders
    }

    /// Takes a sample; the first call only marks the beginning. `counted` is `None` where a load counts
    /// no deliveries (yet).
    pub fn sample(&mut self, now_ns: u64, counted: Option<Counted<'_>>) -> Result<(), ProcessError> {
        let server_cpu_s = self.server.as_ref().map(Server::cpu).transpose()?.map(|cpu| cpu.total_s);
        let own_cpu_s = self.own.as_ref().map(Process::cpu).transpose()?.map(|cpu| cpu.total_s);
        let start_ns = *self.start_ns.get_or_insert(now_ns);
        if now_ns > start_ns {
            let span_s = now_ns.saturating_sub(self.last_ns).max(1) as f64 / 1e9;
            let percent = |now: Option<f64>, before: Option<f64>| Some(100.0 * (now? - before?) / span_s);
            let deliveries = counted.map_or(0, |counted| counted.deliveries.saturating_sub(self.deliveries));
            let latency = counted.and_then(|counted| self.latency_since(counted.latency));
            let sample = Sample {
                t_s: (now_ns - start_ns) as f64 / 1e9,
                deliveries_per_s: deliveries as f64 / span_s,
                p50_ms: latency.map(|latency| latency.p50_ms),
                p99_ms: latency.map(|latency| latency.p99_ms),
                max_ms: latency.map(|latency| latency.max_ms),
                server_cpu_percent: percent(server_cpu_s, self.server_cpu_s),
                server_memory_bytes: self.server.as_ref().map(Server::resident_bytes).transpose()?,
                generator_cpu_percent: percent(own_cpu_s, self.own_cpu_s),
            };
            self.samples.push(sample);
        }
        (self.server_cpu_s, self.own_cpu_s) = (server_cpu_s, own_cpu_s);
        if let Some(counted) = counted {
            self.deliveries = counted.deliveries;
            self.latency.clone_from(counted.latency);
        }
        self.last_ns = now_ns;
        // On a grid, so that a late sample doesn't move those after it.
        let passed = (now_ns - start_ns) / self.interval_ns;
        self.next_ns = start_ns + (passed + 1) * self.interval_ns;
        Ok(())
    }

    fn latency_since(&self, latency: &Latency) -> Option<LatencySummary> {
        (latency.count() > 0).then(|| latency.since(&self.latency).summary()).flatten()
    }

    /// What is counted from now on begins at nothing.
    pub fn restart(&mut self) {
        (self.deliveries, self.latency) = (0, Latency::default());
    }

    /// Samples are due only when somebody says so.
    pub fn wait_for_orders(&mut self) {
        self.waits_for_orders = true;
    }

    /// Takes no more samples, and keeps those there are.
    pub fn stop(&mut self) {
        self.next_ns = u64::MAX;
    }

    pub fn last(&self) -> Option<&Sample> {
        self.samples.last()
    }

    pub fn take(&mut self) -> Vec<Sample> {
        std::mem::take(&mut self.samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn each_sample_covers_the_time_since_the_last() {
        let mut sampler = Sampler::new(1.0, None, None);
        let mut latency = Latency::default();
        let start = 70 * SECOND;
        let sample = |sampler: &mut Sampler, at, deliveries, latency: &Latency| {
            assert!(sampler.is_due(at));
            sampler.sample(at, Some(Counted { deliveries, latency, failures: 0 })).expect("sampled");
        };
        sample(&mut sampler, start, 0, &latency);
        assert!(!sampler.is_due(start + SECOND - 1));
        latency.record_ns(5_000_000);
        sample(&mut sampler, start + SECOND, 100, &latency);
        latency.record_ns(9_000_000);
        sample(&mut sampler, start + 3 * SECOND + 500, 400, &latency);
        assert!(!sampler.is_due(start + 4 * SECOND - 1) && sampler.is_due(start + 4 * SECOND));
        sampler.sample(start + 4 * SECOND, None).expect("sampled");
        let samples = sampler.take();
        let rates: Vec<f64> = samples.iter().map(|sample| sample.deliveries_per_s.round()).collect();
        assert_eq!(rates, [100.0, 150.0, 0.0]);
        let worst: Vec<Option<f64>> = samples.iter().map(|sample| sample.max_ms.map(f64::round)).collect();
        assert_eq!(worst, [Some(5.0), Some(9.0), None]);
    }

    #[test]
    fn a_new_run_counts_from_nothing() {
        let mut sampler = Sampler::new(1.0, None, None);
        let latency = Latency::default();
        for (second, deliveries) in [(1, 0), (2, 500), (3, 700)] {
            sampler.restart();
            sampler
                .sample(second * SECOND, Some(Counted { deliveries, latency: &latency, failures: 0 }))
                .expect("sampled");
        }
        assert_eq!(sampler.last().map(|sample| sample.deliveries_per_s), Some(700.0));
    }

    #[test]
    fn a_process_is_sampled_too() {
        let own = Process::own().expect("our own process");
        let mut sampler = Sampler::new(1.0, Some(Server::Process(own)), Some(own));
        for second in 1..=2 {
            sampler.sample(second * SECOND, None).expect("sampled");
        }
        let sample = sampler.last().expect("one sample");
        assert!(sample.server_memory_bytes > Some(1 << 20), "{sample:?}");
        assert!(sample.server_cpu_percent >= Some(0.0) && sample.generator_cpu_percent >= Some(0.0));
    }
}
