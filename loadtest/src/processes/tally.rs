//! What one part found: everything in it adds up with that of the others.

use crate::load::Failures;
use crate::load::typing::convergence::{Convergence, TraceResult};
use crate::load::typing::cursors::CursorResult;
use crate::measure::Latency;
use crate::measure::process::Cpu;
use crate::report::Outcome;
use crate::tokens::TokenCounts;
use crate::verification::Findings;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tally {
    pub latency: Latency,
    pub ack_latency: Latency,
    pub send_lag: Latency,
    pub connect: Latency,
    pub cursor_latency: Latency,
    pub storm: Latency,
    pub churn: Latency,
    pub offered_deliveries_per_s: f64,
    pub deliveries: u64,
    pub updates_sent: u64,
    pub item_messages: f64,
    /// Until everything had arrived, or everybody was connected.
    pub span_s: f64,
    pub verification: Findings,
    pub cursors: Option<CursorResult>,
    pub convergence: Option<Convergence>,
    pub trace: Option<TraceResult>,
    pub generator_cpu: Cpu,
    pub tokens: Option<TokenCounts>,
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
                cursor_latency: result.histograms.cursors,
                storm: result.histograms.storm,
                churn: result.histograms.churn,
                offered_deliveries_per_s: result.offered_deliveries_per_s,
                deliveries: result.deliveries,
                updates_sent: result.updates_sent,
                item_messages: result.deliveries as f64 / result.items_per_message.max(f64::MIN_POSITIVE),
                span_s: result.settle_s,
                verification: result.verification,
                cursors: result.cursors,
                convergence: result.convergence,
                trace: result.trace,
                generator_cpu: result.generator_cpu,
                tokens: None, // known to the target, not to the run
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
            Outcome::Join(_) | Outcome::Day(_) | Outcome::Ramp(_) | Outcome::Nothing(_) => None,
        }
    }

    pub fn add(&mut self, other: Self) {
        self.latency.add(&other.latency);
        self.ack_latency.add(&other.ack_latency);
        self.send_lag.add(&other.send_lag);
        self.connect.add(&other.connect);
        self.cursor_latency.add(&other.cursor_latency);
        self.storm.add(&other.storm);
        self.churn.add(&other.churn);
        self.offered_deliveries_per_s += other.offered_deliveries_per_s;
        self.deliveries += other.deliveries;
        self.updates_sent += other.updates_sent;
        self.item_messages += other.item_messages;
        self.span_s = self.span_s.max(other.span_s);
        self.verification += other.verification;
        if let Some(cursors) = other.cursors {
            *self.cursors.get_or_insert_default() += cursors;
        }
        if let Some(convergence) = other.convergence {
            self.convergence.get_or_insert_default().add(convergence);
        }
        if let Some(trace) = other.trace {
            // Writers of the same trace differ by one edit at most.
            let text_is_right = trace.text_is_right && self.trace.as_ref().is_none_or(|it| it.text_is_right);
            let trace = self.trace.take().filter(|it| it.edits >= trace.edits).unwrap_or(trace);
            self.trace = Some(TraceResult { text_is_right, ..trace });
        }
        self.generator_cpu += other.generator_cpu;
        if let Some(tokens) = other.tokens {
            *self.tokens.get_or_insert_default() += tokens;
        }
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
            part.cursors = Some(CursorResult { moves_seen: ms, ..CursorResult::default() });
            part.churn.record_ns(ms);
            part.convergence = Some(Convergence { documents: 4, ..Convergence::default() });
            let text_is_right = lost == 1;
            part.trace =
                Some(TraceResult { source: String::new(), edits: lost as u32, characters: 0, text_is_right });
            part
        };
        let mut sum = part(10, 1);
        let json = serde_json::to_string(&part(30, 2)).expect("JSON");
        sum.add(serde_json::from_str(&json).expect("read back"));
        assert_eq!((sum.deliveries, sum.verification.lost, sum.span_s), (40, 3, 30.0));
        assert_eq!((sum.latency.count(), sum.churn.count()), (2, 2));
        assert_eq!(sum.cursors.map(|cursors| cursors.moves_seen), Some(40));
        assert_eq!(sum.convergence.map(|convergence| convergence.documents), Some(8));
        let trace = sum.trace.as_ref().expect("a trace");
        assert_eq!((trace.edits, trace.text_is_right), (2, false));
        assert_eq!(sum.failures.into_sentences(), ["10", "30"]);
    }
}
