//! Finds the most deliveries per second that a server makes with p99 under a bound.
//!
//! Raises the rate from the scenario's until a step fails, then halves the interval (by ratio) until it is
//! narrow, or the time is up. Every step is a whole run with documents of its own; between steps the server
//! may calm down. A step passes if p99 is under the bound and the server kept up; one that doesn't is tried
//! once more before it counts, because a busy host can spoil any step.
//!
//! Short windows with a second try keep the luckier of two, so what the search finds is only a candidate: a
//! run with a longer window must pass too, else the rate is lowered until one does. That run is the result. It
//! is a lower bound where the search stopped for another reason than the server: no time left, or a load tester
//! that had no CPU left itself.
//!
//! Losing updates fails a step; sending duplicated, reordered or foreign ones, at any rate, is wrong and fails
//! the ramp.

use crate::load::typing::{TypingResult, run};
use crate::load::{Failures, LoadError, Session};
use crate::progress::Progress;
use crate::scenario::{Scenario, Typing};
use crate::target::Target;
use crate::watch::Watch;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};
use std::time::{Duration, Instant};

/// A confirming run's window, against that of a step.
const CONFIRMING_WINDOWS: f64 = 3.0;
/// A rate that wasn't confirmed is lowered to this share of it …
const STEP_DOWN: f64 = 0.9;
/// … so often, even if that takes longer than the search may.
const CONFIRMATIONS_MAX: u32 = 6;
/// The load tester has one thread: above this share of a core it is the limit, …
const GENERATOR_PERCENT_MAX: f64 = 90.0;
/// … and also if so much of the bound has passed before it sends what is due.
const SEND_LAG_SHARE_MAX: f64 = 0.5;
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
    /// A longer run that was to confirm what the search had found.
    #[serde(default)]
    pub confirms: bool,
    /// Did the load tester itself have nothing left to give?
    #[serde(default)]
    pub generator_at_limit: bool,
}

/// Who kept the figure from being higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    #[serde(rename = "server")]
    Server,
    #[serde(rename = "load tester")]
    LoadTester,
    #[serde(rename = "time")]
    Time,
}

impl Limit {
    /// Why a figure is a lower bound.
    fn reason(self) -> Option<&'static str> {
        match self {
            Self::Server => None,
            Self::LoadTester => {
                Some("the load tester itself was the limit: try --processes, or a machine of its own")
            }
            Self::Time => Some("the search ran out of time: raise --ramp-seconds"),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct RampResult {
    pub bound_ms: f64,
    pub seconds_max: f64,
    pub steps: Vec<RampStep>,
    /// Did the search end before its interval was narrow?
    pub out_of_time: bool,
    /// Would the server have done more? Then the figure is a lower bound.
    #[serde(rename = "lowerBound")]
    pub lower_bound: bool,
    #[serde(rename = "limitedBy")]
    pub limited_by: Limit,
    /// The same in a sentence.
    pub summary: String,
    /// The confirming run that passed.
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
    watch: &Watch,
    bounds: Bounds,
    progress: &mut Progress,
) -> Result<RampResult, LoadError> {
    let start = Instant::now();
    let measure = |attempt: Attempt, progress: &mut Progress| {
        progress.restart();
        let step = step(typing, attempt);
        let mut session = Session::new(scenario, target, None)?;
        session.watch = watch.clone();
        session.reads_back = attempt.confirms;
        let measured = run(&session, &step, progress)?;
        calm_down(watch)?;
        session.go_on()?;
        Ok(measured)
    };
    Ramp { bounds, progress, measure, elapsed_s: || start.elapsed().as_secs_f64() }.run(typing.rate)
}

/// What is done to the server in one step.
fn step(typing: &Typing, attempt: Attempt) -> Typing {
    let window_s = typing.measure_s.min(WINDOW_S_MAX);
    Typing {
        rate: attempt.rate,
        warmup_s: typing.warmup_s.min(WARMUP_S_MAX),
        measure_s: if attempt.confirms { CONFIRMING_WINDOWS * window_s } else { window_s },
        settle_s: typing.settle_s.min(SETTLE_S_MAX),
        ..typing.clone()
    }
}

/// One step to be measured.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Attempt {
    rate: f64,
    confirms: bool,
}

/// The search under way.
struct Ramp<'a, Measure, Elapsed> {
    bounds: Bounds,
    progress: &'a mut Progress,
    measure: Measure,
    elapsed_s: Elapsed,
}

impl<Measure, Elapsed> Ramp<'_, Measure, Elapsed>
where
    Measure: FnMut(Attempt, &mut Progress) -> Result<TypingResult, LoadError>,
    Elapsed: Fn() -> f64,
{
    fn run(&mut self, first_rate: f64) -> Result<RampResult, LoadError> {
        let mut result = RampResult::new(self.bounds);
        match self.search(first_rate, &mut result) {
            // What was measured is told; nothing of it was confirmed.
            Err(LoadError::Halted) if !result.steps.is_empty() => {
                result.limited_by = Limit::Time;
                result.summary = "none was confirmed before the run was ended".to_owned();
            }
            found => found?,
        }
        Ok(result)
    }

    fn search(&mut self, first_rate: f64, result: &mut RampResult) -> Result<(), LoadError> {
        let mut search = Search::new(first_rate);
        let mut longest_s = 0.0_f64;
        // The lowest rate that failed decides who was the limit.
        let mut limited_by = Limit::Server;
        while let Some(rate) = search.next() {
            let elapsed_s = (self.elapsed_s)();
            // Another step, and a confirming run: only its window is longer than that of a step.
            let needed_s = longest_s * CONFIRMING_WINDOWS;
            if result.steps.len() >= STEPS_MAX || elapsed_s + needed_s > self.bounds.seconds {
                result.out_of_time = true;
                break;
            }
            let (_, verdict) = self.measure(Attempt { rate, confirms: false }, result)?;
            longest_s = longest_s.max((self.elapsed_s)() - elapsed_s);
            search.note(rate, verdict);
            if verdict == Verdict::Failed && search.failed == Some(rate) {
                limited_by = limit_of(&result.steps);
            }
        }
        if limited_by == Limit::Server && result.out_of_time {
            limited_by = Limit::Time;
        }
        if let Some(limit) = search.passed.map(|rate| self.confirm(rate, result)).transpose()?.flatten() {
            limited_by = limit;
        }
        result.limited_by = limited_by;
        result.lower_bound = result.best.is_some() && limited_by != Limit::Server;
        result.summary = result.sentence();
        if result.best.is_none() {
            let p99_ms = self.bounds.p99_ms;
            result.failures.add(|| match search.passed {
                Some(_) => format!("no rate kept p99 under {p99_ms} ms for a longer run: the host is busy, or p99 is close to the bound at any rate"),
                None => format!("no rate was found with p99 under {p99_ms} ms"),
            });
        }
        Ok(())
    }

    /// Lowers the rate until a longer run passes; who was the limit, if it had to be lowered.
    fn confirm(&mut self, found: f64, result: &mut RampResult) -> Result<Option<Limit>, LoadError> {
        let mut rate = found;
        let mut limit = None;
        for _ in 0..CONFIRMATIONS_MAX {
            let (measured, verdict) = self.measure(Attempt { rate, confirms: true }, result)?;
            if verdict != Verdict::Failed {
                result.best = Some(measured);
                break;
            }
            limit = Some(limit_of(&result.steps));
            rate *= STEP_DOWN;
        }
        Ok(limit)
    }

    fn measure(
        &mut self,
        attempt: Attempt,
        result: &mut RampResult,
    ) -> Result<(TypingResult, Verdict), LoadError> {
        let measured = (self.measure)(attempt, self.progress)?;
        let verdict = judge(&measured, self.bounds.p99_ms);
        let step = RampStep::new(&measured, self.bounds.p99_ms, attempt, verdict);
        self.progress.say(&step.to_string());
        result.steps.push(step);
        let found = measured.verification;
        if found.duplicated + found.reordered + found.foreign > 0 {
            result
                .failures
                .add(|| format!("wrong deliveries at {:.0}/s: {found:?}", measured.offered_deliveries_per_s));
        }
        Ok((measured, verdict))
    }
}

/// Who made the last step fail.
fn limit_of(steps: &[RampStep]) -> Limit {
    if steps.last().is_some_and(|step| step.generator_at_limit) { Limit::LoadTester } else { Limit::Server }
}

impl RampResult {
    /// What was found, in a sentence; with what the load tester itself used, and why there may be more.
    fn sentence(&self) -> String {
        let Some(best) = &self.best else {
            return format!("nothing with p99 < {} ms", self.bound_ms);
        };
        let bound = if self.lower_bound { "≥ " } else { "" };
        let mut text = format!(
            "{bound}{:.0} deliveries/s with p99 < {} ms over {} s; load tester's own CPU {:.0} %",
            best.deliveries_per_s, self.bound_ms, best.measure_s, best.generator_cpu_percent
        );
        if let Some(reason) = self.limited_by.reason().filter(|_| self.lower_bound) {
            text.push_str("; a lower bound: ");
            text.push_str(reason);
        }
        text
    }

    fn new(bounds: Bounds) -> Self {
        Self {
            bound_ms: bounds.p99_ms,
            seconds_max: bounds.seconds,
            steps: Vec::new(),
            out_of_time: false,
            lower_bound: false,
            limited_by: Limit::Server,
            summary: String::new(),
            best: None,
            failures: Failures::default(),
        }
    }
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
    fn new(measured: &TypingResult, bound_ms: f64, attempt: Attempt, verdict: Verdict) -> Self {
        let lag_ms = measured.send_lag.map_or(0.0, |lag| lag.p99_ms);
        Self {
            offered_deliveries_per_s: measured.offered_deliveries_per_s,
            deliveries_per_s: measured.deliveries_per_s,
            p50_ms: measured.latency.map(|latency| latency.p50_ms),
            p99_ms: measured.latency.map(|latency| latency.p99_ms),
            cpu_per_delivery_us: measured.cpu_per_delivery_us,
            server_cpu_percent: measured.server.map(|cost| cost.cpu_percent),
            generator_cpu_percent: measured.generator_cpu_percent,
            passed: verdict != Verdict::Failed,
            confirms: attempt.confirms,
            generator_at_limit: measured.fell_behind
                || measured.generator_cpu_percent > GENERATOR_PERCENT_MAX
                || lag_ms > SEND_LAG_SHARE_MAX * bound_ms,
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
        write!(f, ", load tester's CPU {:.0} %", self.generator_cpu_percent)?;
        write!(
            f,
            ": {}{}{}",
            if self.confirms { "longer run " } else { "" },
            if self.passed { "passed" } else { "failed" },
            if !self.passed && self.generator_at_limit { " (the load tester was the limit)" } else { "" }
        )
    }
}

/// Waits until the server has worked off what the last step left behind.
fn calm_down(watch: &Watch) -> Result<(), LoadError> {
    if !watch.has_server() {
        watch.sleep(CALM_LOOK * 3);
        return Ok(());
    }
    let start = Instant::now();
    while start.elapsed() < CALM_TIMEOUT && watch.look().is_none() {
        let before = watch.cpu()?;
        watch.sleep(CALM_LOOK);
        let used = crate::load::used(watch.cpu()?, before).map_or(0.0, |cpu| cpu.total_s);
        if used < CALM_SHARE * CALM_LOOK.as_secs_f64() {
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

    /// A step as it would be measured: p99 in ms, and the load tester's CPU.
    fn measured(rate: f64, p99_ms: f64, generator_cpu_percent: f64) -> TypingResult {
        let mut latency = crate::measure::Latency::default();
        latency.record_ns((p99_ms * 1e6) as u64);
        TypingResult {
            offered_deliveries_per_s: rate,
            deliveries_per_s: rate,
            latency: latency.summary(),
            generator_cpu_percent,
            ..TypingResult::default()
        }
    }

    /// A ramp with a bound of 100 ms where every step takes a second.
    fn ramp_of(seconds: f64, measure: impl Fn(Attempt) -> TypingResult) -> RampResult {
        let now_s = std::cell::Cell::new(0.0);
        let measure = |attempt: Attempt, _: &mut Progress| {
            now_s.set(now_s.get() + 1.0);
            Ok(measure(attempt))
        };
        let bounds = Bounds { p99_ms: 100.0, seconds };
        Ramp { bounds, progress: &mut Progress::silent(), measure, elapsed_s: || now_s.get() }
            .run(10.0)
            .expect("a result")
    }

    #[test]
    fn what_only_short_runs_pass_is_lowered_until_a_longer_one_does() {
        let result = ramp_of(1e3, |Attempt { rate, confirms }| {
            let capacity = if confirms { 700.0 } else { 1000.0 };
            measured(rate, if rate <= capacity { 50.0 } else { 150.0 }, 30.0)
        });
        let best = result.best.expect("confirmed").deliveries_per_s;
        assert!((700.0 * STEP_DOWN..=700.0).contains(&best), "{best}");
        let confirming: Vec<bool> =
            result.steps.iter().filter(|step| step.confirms).map(|step| step.passed).collect();
        assert!(confirming.len() > 2 && confirming.iter().rev().skip(1).all(|passed| !passed));
        assert_eq!((result.lower_bound, result.limited_by), (false, Limit::Server));
    }

    #[test]
    fn a_rate_that_no_longer_run_confirms_is_no_result() {
        let result = ramp_of(1e3, |Attempt { rate, confirms }| {
            measured(rate, if confirms || rate > 1000.0 { 150.0 } else { 50.0 }, 30.0)
        });
        assert!(result.best.is_none() && !result.failures.is_empty() && !result.lower_bound);
        assert_eq!(result.steps.iter().filter(|step| step.confirms).count() as u32, CONFIRMATIONS_MAX);
    }

    #[test]
    fn a_load_tester_without_cpu_finds_a_lower_bound() {
        let result = ramp_of(1e3, |Attempt { rate, .. }| {
            if rate <= 1000.0 { measured(rate, 50.0, 80.0) } else { measured(rate, 150.0, 97.0) }
        });
        assert_eq!((result.lower_bound, result.limited_by), (true, Limit::LoadTester));
        assert!(result.best.is_some());
    }

    #[test]
    fn a_search_that_runs_out_of_time_finds_a_lower_bound_and_confirms_it() {
        let result = ramp_of(9.0, |Attempt { rate, .. }| measured(rate, 50.0, 5.0));
        assert_eq!((result.lower_bound, result.limited_by), (true, Limit::Time));
        let last = result.steps.last().expect("steps");
        assert!(last.confirms && last.passed && result.out_of_time, "{last:?}");
        assert!(result.steps.len() <= 9, "{}", result.steps.len());
    }
}
