//! What one part found: everything in it adds up with that of the others.

use crate::load::Failures;
use crate::measure::Latency;
use crate::measure::process::Cpu;
use crate::report::Outcome;
use crate::verification::Findings;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tally {
    pub latency: Latency,
    pub ack_latency: Latency,
    pub send_lag: Latency,
    pub connect: Latency,
    pub offered_deliveries_per_s: f64,
    pub deliveries: u64,
    pub updates_sent: u64,
    pub item_messages: f64,
    /// Until everything had arrived, or everybody was connected.
    pub span_s: f64,
    pub verification: Findings,
    pub generator_cpu: Cpu,
    pub failures: Failures,
}

impl Tally {
    /// `None` for kinds of scenarios that can't be divided.
    pub fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Typing(result) => Some(Self {
                latency: result.histogram,
                ack_latency: result.histograms.ack_latency,
                send_lag: result.histograms.send_lag,
                connect: result.histograms.connect,
                offered_deliveries_per_s: result.offered_deliveries_per_s,
                deliveries: result.deliveries,
                updates_sent: result.updates_sent,
                item_messages: result.deliveries as f64 / result.items_per_message.max(f64::MIN_POSITIVE),
                span_s: result.settle_s,
                verification: result.verification,
                generator_cpu: result.generator_cpu,
                failures: result.failures,
            }),
            Outcome::Idle(result) => {
                Some(Self { connect: result.histogram, failures: result.failures, ..Self::default() })
            }
            Outcome::Storm(result) => Some(Self {
                connect: result.latency,
                span_s: result.storm_s,
                failures: result.failures,
                ..Self::default()
            }),
            Outcome::Join(_) | Outcome::Ramp(_) => None,
        }
    }

    pub fn add(&mut self, other: Self) {
        self.latency.add(&other.latency);
        self.ack_latency.add(&other.ack_latency);
        self.send_lag.add(&other.send_lag);
        self.connect.add(&other.connect);
        self.offered_deliveries_per_s += other.offered_deliveries_per_s;
        self.deliveries += other.deliveries;
        self.updates_sent += other.updates_sent;
        self.item_messages += other.item_messages;
        self.span_s = self.span_s.max(other.span_s);
        self.verification += other.verification;
        self.generator_cpu += other.generator_cpu;
        self.failures.append(other.failures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_latencies_add_up_and_failures_are_kept() {
        let part = |ms: u64, lost| {
            let mut part = Tally { deliveries: ms, span_s: ms as f64, ..Tally::default() };
            part.latency.record_ns(ms * 1_000_000);
            part.verification.lost = lost;
            part.failures.add(|| format!("{ms}"));
            part
        };
        let mut sum = part(10, 1);
        let json = serde_json::to_string(&part(30, 2)).expect("JSON");
        sum.add(serde_json::from_str(&json).expect("read back"));
        assert_eq!((sum.deliveries, sum.verification.lost, sum.span_s), (40, 3, 30.0));
        assert_eq!(sum.latency.count(), 2);
        assert_eq!(sum.failures.into_sentences(), ["10", "30"]);
    }
}
