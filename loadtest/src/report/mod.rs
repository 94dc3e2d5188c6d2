//! What a run found: as JSON for programs, as a table for people, and as pages with plots.
//!
//! ```text
//! Report ──► JSON ──► RunFile ──► html      one run, or several side by side
//!    └─────► table       └──────► markdown
//! ```
//!
//! Plots are drawn from the JSON alone, so that what can be seen can also be compared later.

pub mod comparison;
pub mod figures;
pub mod html;
pub mod run_file;
mod table;

use crate::load::Failures;
use crate::load::day::DayResult;
use crate::load::idle::IdleResult;
use crate::load::join::JoinResult;
use crate::load::storm::StormResult;
use crate::load::typing::TypingResult;
use crate::measure::series::Sample;
use crate::measure::{Latency, Percentile};
use crate::ramp::RampResult;
use crate::redaction::redacted;
use crate::scenario::Scenario;
use crate::target::Target;
use crate::tokens::TokenCounts;
use crate::watch::Halt;
use crate::wire::Protocol;
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Typing(TypingResult),
    Idle(IdleResult),
    Storm(StormResult),
    Join(JoinResult),
    Day(DayResult),
    Ramp(RampResult),
    /// The run ended before anything was measured.
    Nothing(#[serde(skip)] Failures),
}

impl Outcome {
    /// A run that had to end before anything was measured, and what it said.
    pub fn nothing(reason: String) -> Self {
        let mut failures = Failures::default();
        failures.add(|| reason);
        Self::Nothing(failures)
    }

    /// How many there were at the same time; in a day people come and go, and documents have room for more.
    fn connections(&self, scenario: &Scenario) -> u32 {
        match self {
            Outcome::Day(result) => {
                let peak = result.days.iter().map(|day| day.peak).max();
                scenario.documents + peak.unwrap_or_default() // owners are always there
            }
            _ => scenario.connections(),
        }
    }

    /// The latencies at the heart of the run, if it has any.
    pub fn latency(&self) -> Option<&Latency> {
        match self {
            Outcome::Typing(result) => Some(&result.histogram),
            Outcome::Storm(result) => Some(&result.latency),
            Outcome::Join(result) => Some(&result.latency),
            Outcome::Day(result) => Some(&result.histogram),
            Outcome::Ramp(result) => result.best.as_ref().map(|best| &best.histogram),
            Outcome::Idle(_) | Outcome::Nothing(_) => None,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Report {
    /// What the run is called beside others.
    pub label: String,
    pub url: String,
    pub wire: Protocol,
    pub scenario: Scenario,
    pub connections: u32,
    pub result: Outcome,
    /// Is everything as it has to be? Never of a run that ended before its time.
    pub ok: bool,
    /// Somebody ended the run before its time: the figures are of what there was until then.
    pub interrupted: bool,
    /// When the run ended, if that was before its time: seconds since its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_early_s: Option<f64>,
    pub failures: Vec<String>,
    /// How tokens were made or fetched, and renewed, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenCounts>,
    /// The latencies at the heart of the run: `[quantile, ms, how many took no longer]`.
    pub percentiles: Vec<Percentile>,
    /// The run second by second.
    pub series: Vec<Sample>,
}

impl Report {
    /// `label` defaults to the scenario's name; `halted` says why the run ended before its time, and when.
    pub fn new(
        label: Option<&str>,
        scenario: &Scenario,
        target: &Target,
        mut result: Outcome,
        halted: Option<(Halt, f64)>,
        series: Vec<Sample>,
    ) -> Self {
        let mut failures = Failures::default();
        if let Some((Halt::ServerEnded, at_s)) = halted {
            failures.add(|| format!("the server's process ended at {at_s:.1} s"));
        }
        let of_result = std::mem::take(match &mut result {
            Outcome::Typing(result) => &mut result.failures,
            Outcome::Idle(result) => &mut result.failures,
            Outcome::Storm(result) => &mut result.failures,
            Outcome::Join(result) => &mut result.failures,
            Outcome::Day(result) => &mut result.failures,
            Outcome::Ramp(result) => &mut result.failures,
            Outcome::Nothing(failures) => failures,
        });
        failures.append(of_result);
        if let Outcome::Typing(result) = &result
            && result.histogram.count() == 0
            && halted.is_none()
        {
            failures
                .add(|| "nothing was measured: no update of the window was delivered to anybody".to_owned());
        }
        Self {
            label: label.unwrap_or(&scenario.name).to_owned(),
            url: target.shown_url.clone(),
            wire: target.protocol,
            connections: result.connections(scenario),
            scenario: scenario.clone(),
            ok: failures.is_empty() && halted.is_none(),
            interrupted: halted.is_some_and(|(halt, _)| halt == Halt::Interrupted),
            ended_early_s: halted.map(|(_, at_s)| at_s),
            // Servers like to repeat what they were asked for.
            failures: failures.into_sentences().iter().map(|text| redacted(text).into_owned()).collect(),
            tokens: target.tokens.counts(),
            percentiles: result.latency().map(Latency::percentiles).unwrap_or_default(),
            series,
            result,
        }
    }
}
