//! Finds the most deliveries per second that a server makes with p99 under a bound.
//!
//! Doubles the rate from the scenario's until a step fails, then halves the interval (by ratio) until it
//! is narrow. Every step is a whole run with documents of its own; between steps the server may calm down.
//! A step passes if p99 is under the bound and the server kept up. Losing updates fails a step; sending
//! duplicated, reordered or foreign ones, at any rate, is wrong and fails the ramp.

use crate::load::typing::{TypingResult, run};
use crate::load::{Failures, LoadError, Session};
use crate::measure::process::Process;
use crate::progress::Progress;
use crate::scenario::{Scenario, Typing};
use crate::target::Target;
use serde::Serialize;
use std::time::{Duration, Instant};

/// The interval is narrow enough when its ends differ by less than this.
const RATIO_MIN: f64 = 1.06;
/// At least so much of what was offered must arrive within the window.
const KEPT_UP_SHARE: f64 = 0.97;
const STEPS_MAX: usize = 24;
/// A step that is over its bound will not get better by waiting.
const SETTLE_S_MAX: f64 = 3.0;
const WARMUP_S_MAX: f64 = 1.0;
/// The server is calm when it uses less than this share of a core for a while.
const CALM_SHARE: f64 = 0.05;
const CALM_TIMEOUT: Duration = Duration::from_secs(20);
const CALM_LOOK: Duration = Duration::from_millis(300);

#[derive(Debug, Serialize)]
pub struct RampStep {
    pub offered_deliveries_per_s: f64,
    pub deliveries_per_s: f64,
    pub p99_ms: Option<f64>,
    pub cpu_per_delivery_us: Option<f64>,
    pub generator_cpu_percent: f64,
    pub passed: bool,
}

#[derive(Debug, Serialize)]
pub struct RampResult {
    pub bound_ms: f64,
    pub steps: Vec<RampStep>,
    /// The passing step with the most deliveries.
    pub best: Option<TypingResult>,
    #[serde(skip)]
    pub failures: Failures,
}

/// Which rate to try next, knowing the highest that passed and the lowest that failed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Search {
    first: f64,
    passed: Option<f64>,
    failed: Option<f64>,
}

impl Search {
    fn new(first: f64) -> Self {
        Self { first, passed: None, failed: None }
    }

    fn next(&self) -> Option<f64> {
        match (self.passed, self.failed) {
            (None, None) => Some(self.first),
            (Some(passed), None) => Some(passed * 2.0),
            (None, Some(failed)) => Some(failed / 4.0),
            (Some(passed), Some(failed)) => (failed / passed > RATIO_MIN).then(|| (passed * failed).sqrt()),
        }
    }

    fn note(&mut self, rate: f64, passed: bool) {
        let side = if passed { &mut self.passed } else { &mut self.failed };
        *side = Some(rate);
    }
}

pub fn ramp(
    scenario: &Scenario,
    typing: &Typing,
    target: &Target,
    server: Option<Process>,
    bound_ms: f64,
    progress: &mut Progress,
) -> Result<RampResult, LoadError> {
    let mut result = RampResult { bound_ms, steps: Vec::new(), best: None, failures: Failures::default() };
    let mut search = Search::new(typing.rate);
    while let Some(rate) = search.next().filter(|_| result.steps.len() < STEPS_MAX) {
        let step = Typing {
            rate,
            warmup_s: typing.warmup_s.min(WARMUP_S_MAX),
            settle_s: typing.settle_s.min(SETTLE_S_MAX),
            ..typing.clone()
        };
        let measured = run(&Session::new(scenario, target, server)?, &step, progress)?;
        let p99_ms = measured.latency.map(|latency| latency.p99_ms);
        let kept_up = measured.deliveries_per_s >= KEPT_UP_SHARE * measured.offered_deliveries_per_s;
        let passed =
            measured.failures.is_empty() && kept_up && p99_ms.is_some_and(|p99_ms| p99_ms < bound_ms);
        search.note(rate, passed);
        result.steps.push(RampStep {
            offered_deliveries_per_s: measured.offered_deliveries_per_s,
            deliveries_per_s: measured.deliveries_per_s,
            p99_ms,
            cpu_per_delivery_us: measured.cpu_per_delivery_us,
            generator_cpu_percent: measured.generator_cpu_percent,
            passed,
        });
        let found = measured.verification;
        if found.duplicated + found.reordered + found.foreign > 0 {
            result
                .failures
                .add(|| format!("wrong deliveries at {:.0}/s: {found:?}", measured.offered_deliveries_per_s));
        }
        if passed {
            result.best = Some(measured);
        }
        calm_down(server)?;
    }
    if result.best.is_none() {
        result.failures.add(|| format!("no rate was found with p99 under {bound_ms} ms"));
    }
    Ok(result)
}

/// Waits until the server has worked off what the last step left behind.
fn calm_down(server: Option<Process>) -> Result<(), LoadError> {
    let Some(server) = server else {
        std::thread::sleep(CALM_LOOK * 5);
        return Ok(());
    };
    let start = Instant::now();
    while start.elapsed() < CALM_TIMEOUT {
        let before = server.cpu()?;
        std::thread::sleep(CALM_LOOK);
        if (server.cpu()? - before).total_s < CALM_SHARE * CALM_LOOK.as_secs_f64() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate found for a server that passes up to `capacity`.
    fn search(first: f64, capacity: f64) -> (Option<f64>, usize) {
        let mut search = Search::new(first);
        let mut steps = 0;
        while let Some(rate) = search.next().filter(|_| steps < STEPS_MAX) {
            search.note(rate, rate <= capacity);
            steps += 1;
        }
        (search.passed, steps)
    }

    #[test]
    fn the_capacity_is_found_from_below_and_from_above() {
        for (first, capacity) in [(10.0, 1000.0), (10.0, 13.0), (1e6, 70.0), (5.0, 5.0), (1.0, 9e4)] {
            let (found, steps) = search(first, capacity);
            let found = found.expect("some rate passes");
            assert!(found <= capacity && found * RATIO_MIN >= capacity, "{found} of {capacity} in {steps}");
        }
    }

    #[test]
    fn a_server_that_never_passes_ends_the_search() {
        assert_eq!(search(10.0, 0.0), (None, STEPS_MAX));
    }
}
