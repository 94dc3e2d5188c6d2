//! When the server is measured, by kind of scenario, and what comes of it.

use super::Tally;
use crate::load::ServerCost;
use crate::load::idle::IdleResult;
use crate::load::storm::StormResult;
use crate::load::typing::TypingResult;
use crate::load::typing::cursors::CursorResult;
use crate::measure::process::{Cpu, Memory};
use crate::report::Outcome;
use crate::scenario::{Scenario, Typing};

#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// After the common beginning.
    pub begin_s: f64,
    /// `None`: until everybody has finished.
    pub length_s: Option<f64>,
}

impl Window {
    /// `None` for kinds that can't be divided.
    pub fn of(scenario: &Scenario) -> Option<Self> {
        match scenario {
            Scenario { typing: Some(typing), .. } => {
                Some(Self { begin_s: typing.warmup_s, length_s: Some(typing.measure_s) })
            }
            Scenario { idle: Some(idle), .. } => {
                Some(Self { begin_s: idle.settle_s, length_s: Some(idle.measure_s) })
            }
            Scenario { storm: Some(_), .. } => Some(Self { begin_s: 0.0, length_s: None }),
            _ => None,
        }
    }

    /// Between two updates of one part.
    pub fn interval_s(&self, scenario: &Scenario) -> Option<f64> {
        let typing = scenario.typing.as_ref()?;
        Some(1.0 / (typing.rate * f64::from(typing.writers)))
    }

    pub fn outcome(
        &self,
        scenario: &Scenario,
        sum: Tally,
        cpu: Option<Cpu>,
        memory_before: Option<Memory>,
        memory_after: Option<Memory>,
    ) -> Outcome {
        let window_s = self.length_s.unwrap_or(sum.span_s);
        let server = ServerCost::of(cpu, window_s, memory_before, memory_after);
        let connections = f64::from(scenario.connections());
        if scenario.idle.is_some() {
            let cost = server.as_ref();
            Outcome::Idle(IdleResult {
                measure_s: window_s,
                connect: sum.connect.summary(),
                resident_bytes_per_connection: cost.map(|cost| cost.resident_growth_bytes() / connections),
                proportional_bytes_per_connection: cost
                    .map(|cost| cost.proportional_growth_bytes() / connections),
                server,
                histogram: sum.connect,
                failures: sum.failures,
            })
        } else if scenario.storm.is_some() {
            Outcome::Storm(StormResult {
                storm_s: sum.span_s,
                connections_per_s: connections / sum.span_s,
                connect: sum.connect.summary(),
                cpu_per_connection_us: server.map(|cost| cost.cpu.total_s * 1e6 / connections),
                server,
                latency: sum.connect,
                failures: sum.failures,
            })
        } else {
            Outcome::Typing(typing(scenario.typing.as_ref(), sum, window_s, server))
        }
    }
}

fn typing(scenario: Option<&Typing>, sum: Tally, measure_s: f64, server: Option<ServerCost>) -> TypingResult {
    let deliveries = sum.deliveries as f64;
    TypingResult {
        measure_s,
        offered_deliveries_per_s: sum.offered_deliveries_per_s,
        deliveries: sum.deliveries,
        deliveries_per_s: deliveries / measure_s,
        updates_sent: sum.updates_sent,
        latency: sum.latency.summary(),
        ack_latency: sum.ack_latency.summary(),
        send_lag: sum.send_lag.summary(),
        connect: sum.connect.summary(),
        items_per_message: deliveries / sum.item_messages.max(f64::MIN_POSITIVE),
        settle_s: sum.span_s,
        verification: sum.verification,
        cpu_per_delivery_us: server
            .filter(|_| sum.deliveries > 0)
            .map(|cost| cost.cpu.total_s * 1e6 / deliveries),
        server,
        cursors: sum.cursors.map(|cursors| CursorResult { latency: sum.cursor_latency.summary(), ..cursors }),
        storm: scenario.and_then(|typing| typing.storm.as_ref()).map(|_| (&sum.storm).into()),
        churn: scenario.and_then(|typing| typing.churn.as_ref()).map(|_| (&sum.churn).into()),
        convergence: sum.convergence,
        trace: sum.trace,
        generator_cpu: sum.generator_cpu,
        generator_cpu_percent: 100.0 * sum.generator_cpu.total_s / measure_s,
        histogram: sum.latency,
        failures: sum.failures,
        ..TypingResult::default()
    }
}
