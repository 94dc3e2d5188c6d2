//! Finds the most deliveries per second that a server makes with p99 under a bound.
//!
//! Raises the rate from the scenario's until a step fails, then halves the interval (by ratio) until it is
//! narrow, or the time is up. Every step is a whole run with documents of its own; between steps the server
//! may calm down. A step passes if p99 is under the bound and the server kept up; one that doesn't is tried
//! once more before it counts, because a busy host can spoil any step. Losing updates fails a step; sending
//! duplicated, reordered or foreign ones, at any rate, is wrong and fails the ramp.

use crate::load::typing::{TypingResult, run};
use crate::load::{Failures, LoadError, Session};
use crate::measure::server::Server;
use crate::progress::Progress;
use crate::scenario::{Scenario, Typing};
use crate::target::Target;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};
use std::time::{Duration, Instant};

/// The interval is narrow enough when its ends differ by less than this.
const RATIO_MIN: f64 = 1.06;
/// At least so much of what was offered must arrive within the window.
const KEPT_UP_SHARE: f64 = 0.97;
const STEPS_MAX: usize = 40;
/// A step this far under the bound is a long way from the limit: the next may be larger.
const EASY_SHARE: f64 = 0.1;
const WINDOW_S_MAX: f64 = 3.0;
const WARMUP_S_MAX: f64 = 1.0;
/// A step that is over its bound will not get better by waiting.
const SETTLE_S_MAX: f64 = 2.0;
/// The server is calm when it uses less than this share of a core for a while.
const CALM_SHARE: f64 = 0.05;
const CALM_TIMEOUT: Duration = Duration::from_secs(5);
const CALM_LOOK: Duration = Duration::from_millis(200);

/// What is looked for, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub p99_ms: f64,
    pub seconds: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RampStep {
    pub offered_deliveries_per_s: f64,
    pub deliveries_per_s: f64,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub cpu_per_delivery_us: Option<f64>,
    pub server_cpu_percent: Option<f64>,
    pub generator_cpu_percent: f64,
    pub passed: bool,
}

#[derive(Debug, Serialize)]
pub struct RampResult {
    pub bound_ms: f64,
    pub seconds_max: f64,
    pub steps: Vec<RampStep>,
    /// Did the search end before its interval was narrow?
    pub out_of_time: bool,
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
    /// Failed once: not yet believed.
    doubted: Option<f64>,
    /// How much to raise a rate that passed.
    raise: f64,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Easy,
    Passed,
    Failed,
}

impl Search {
    fn new(first: f64) -> Self {
        Self { first, passed: None, failed: None, doubted: None, raise: 2.0 }
    }

    fn next(&self) -> Option<f64> {
        match (self.doubted, self.passed, self.failed) {
            (Some(doubted), ..) => Some(doubted),
            (None, None, None) => Some(self.first),
            (None, Some(passed), None) => Some(passed * self.raise),
            (None, None, Some(failed)) => Some(failed / 4.0),
            (None, Some(passed), Some(failed)) => {
                (failed / passed > RATIO_MIN).then(|| (passed * failed).sqrt())
            }
        }
    }

    fn note(&mut self, rate: f64, verdict: Verdict) {
        let is_retry = self.doubted.take().is_some();
        match verdict {
            Verdict::Easy | Verdict::Passed => {
                self.passed = Some(rate);
                self.raise = if verdict == Verdict::Easy { 4.0 } else { 2.0 };
            }
            Verdict::Failed if is_retry => self.failed = Some(rate),
            Verdict::Failed => self.doubted = Some(rate),
        }
    }
}

/// [`search`] over steps of this process.
pub fn ramp(
    scenario: &Scenario,
    typing: &Typing,
    target: &Target,
    server: Option<Server>,
    bounds: Bounds,
    progress: &mut Progress,
) -> Result<RampResult, LoadError> {
    search(typing.rate, bounds, progress, |rate, progress| {
        progress.restart();
        let step = step(typing, rate);
        let measured = run(&Session::new(scenario, target, server.clone())?, &step, progress)?;
        calm_down(server.as_ref())?;
        Ok(measured)
    })
}

/// What is done to the server at a rate.
fn step(typing: &Typing, rate: f64) -> Typing {
    Typing {
        rate,
        warmup_s: typing.warmup_s.min(WARMUP_S_MAX),
        measure_s: typing.measure_s.min(WINDOW_S_MAX),
        settle_s: typing.settle_s.min(SETTLE_S_MAX),
        ..typing.clone()
    }
}

/// The search over steps that `measure` takes at a rate.
fn search(
    first_rate: f64,
    bounds: Bounds,
    progress: &mut Progress,
    mut measure: impl FnMut(f64, &mut Progress) -> Result<TypingResult, LoadError>,
) -> Result<RampResult, LoadError> {
    let mut result = RampResult {
        bound_ms: bounds.p99_ms,
        seconds_max: bounds.seconds,
        steps: Vec::new(),
        out_of_time: false,
        best: None,
        failures: Failures::default(),
    };
    let mut search = Search::new(first_rate);
    let start = Instant::now();
    let mut longest_s = 0.0_f64;
    while let Some(rate) = search.next() {
        let elapsed_s = start.elapsed().as_secs_f64();
        if result.steps.len() >= STEPS_MAX || elapsed_s + longest_s > bounds.seconds {
            result.out_of_time = true;
            break;
        }
        let measured = measure(rate, progress)?;
        longest_s = longest_s.max(start.elapsed().as_secs_f64() - elapsed_s);
        let verdict = judge(&measured, bounds.p99_ms);
        search.note(rate, verdict);
        let step = RampStep::new(&measured, verdict != Verdict::Failed);
        progress.say(&step.to_string());
        result.steps.push(step);
        let found = measured.verification;
        if found.duplicated + found.reordered + found.foreign > 0 {
            result
                .failures
                .add(|| format!("wrong deliveries at {:.0}/s: {found:?}", measured.offered_deliveries_per_s));
        }
        if verdict != Verdict::Failed {
            result.best = Some(measured);
        }
    }
    if result.best.is_none() {
        result.failures.add(|| format!("no rate was found with p99 under {} ms", bounds.p99_ms));
    }
    Ok(result)
}

fn judge(measured: &TypingResult, bound_ms: f64) -> Verdict {
    let kept_up = measured.deliveries_per_s >= KEPT_UP_SHARE * measured.offered_deliveries_per_s;
    match measured.latency.map(|latency| latency.p99_ms) {
        Some(p99_ms) if measured.failures.is_empty() && kept_up && p99_ms < bound_ms => {
            if p99_ms < EASY_SHARE * bound_ms { Verdict::Easy } else { Verdict::Passed }
        }
        _ => Verdict::Failed,
    }
}

impl RampStep {
    fn new(measured: &TypingResult, passed: bool) -> Self {
        Self {
            offered_deliveries_per_s: measured.offered_deliveries_per_s,
            deliveries_per_s: measured.deliveries_per_s,
            p50_ms: measured.latency.map(|latency| latency.p50_ms),
            p99_ms: measured.latency.map(|latency| latency.p99_ms),
            cpu_per_delivery_us: measured.cpu_per_delivery_us,
            server_cpu_percent: measured.server.map(|cost| cost.cpu_percent),
            generator_cpu_percent: measured.generator_cpu_percent,
            passed,
        }
    }
}

impl Display for RampStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} offered, {:.0} deliveries/s, ",
            self.offered_deliveries_per_s, self.deliveries_per_s
        )?;
        match self.p99_ms {
            Some(p99_ms) => write!(f, "p99 {p99_ms:.2} ms")?,
            None => write!(f, "nothing arrived")?,
        }
        if let Some(us) = self.cpu_per_delivery_us {
            write!(f, ", {us:.2} µs a delivery")?;
        }
        write!(f, ": {}", if self.passed { "passed" } else { "failed" })
    }
}

/// Waits until the server has worked off what the last step left behind.
fn calm_down(server: Option<&Server>) -> Result<(), LoadError> {
    let Some(server) = server else {
        std::thread::sleep(CALM_LOOK * 3);
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

    /// The rate found for a server that passes up to `capacity`, where every `noisy`th step is spoilt.
    fn search(first: f64, capacity: f64, noisy: usize) -> (Option<f64>, usize) {
        let mut search = Search::new(first);
        let mut steps = 0;
        while let Some(rate) = search.next().filter(|_| steps < STEPS_MAX) {
            steps += 1;
            search.note(
                rate,
                match rate {
                    _ if steps % noisy == 0 => Verdict::Failed,
                    _ if rate <= capacity / 8.0 => Verdict::Easy,
                    _ if rate <= capacity => Verdict::Passed,
                    _ => Verdict::Failed,
                },
            );
        }
        (search.passed, steps)
    }

    #[test]
    fn the_capacity_is_found_from_below_and_from_above() {
        for (first, capacity) in [(10.0, 1000.0), (10.0, 13.0), (1e6, 70.0), (5.0, 5.0), (1.0, 9e4)] {
            let (found, steps) = search(first, capacity, usize::MAX);
            let found = found.expect("some rate passes");
            assert!(found <= capacity && found * RATIO_MIN >= capacity, "{found} of {capacity} in {steps}");
        }
    }

    #[test]
    fn steps_spoilt_by_noise_do_not_change_what_is_found() {
        for noisy in 2..8 {
            for (first, capacity) in [(10.0, 1000.0), (10.0, 13.0), (1.0, 9e4)] {
                let found = search(first, capacity, noisy).0.expect("some rate passes");
                assert!(
                    found <= capacity && found * RATIO_MIN >= capacity,
                    "{found} of {capacity}, 1 in {noisy}"
                );
            }
        }
    }

    #[test]
    fn a_server_that_never_passes_ends_the_search() {
        assert_eq!(search(10.0, 0.0, usize::MAX), (None, STEPS_MAX));
    }
}
