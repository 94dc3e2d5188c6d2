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

use crate::load::day::DayResult;
use crate::load::idle::IdleResult;
use crate::load::join::JoinResult;
use crate::load::storm::StormResult;
use crate::load::typing::TypingResult;
use crate::measure::series::Sample;
use crate::measure::{Latency, Percentile};
use crate::ramp::RampResult;
use crate::scenario::Scenario;
use crate::target::Target;
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
}

impl Outcome {
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
            Outcome::Idle(_) => None,
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
    /// Is everything as it has to be?
    pub ok: bool,
    pub failures: Vec<String>,
    /// The latencies at the heart of the run: `[quantile, ms, how many took no longer]`.
    pub percentiles: Vec<Percentile>,
    /// The run second by second.
    pub series: Vec<Sample>,
}

impl Report {
    /// `label` defaults to the scenario's name.
    pub fn new(
        label: Option<&str>,
        scenario: &Scenario,
        target: &Target,
        mut result: Outcome,
        series: Vec<Sample>,
    ) -> Self {
        let failures = std::mem::take(match &mut result {
            Outcome::Typing(result) => &mut result.failures,
            Outcome::Idle(result) => &mut result.failures,
            Outcome::Storm(result) => &mut result.failures,
            Outcome::Join(result) => &mut result.failures,
            Outcome::Day(result) => &mut result.failures,
            Outcome::Ramp(result) => &mut result.failures,
        });
        Self {
            label: label.unwrap_or(&scenario.name).to_owned(),
            url: target.url.clone(),
            wire: target.protocol,
            connections: result.connections(scenario),
            scenario: scenario.clone(),
            ok: failures.is_empty(),
            failures: failures.into_sentences(),
            percentiles: result.latency().map(Latency::percentiles).unwrap_or_default(),
            series,
            result,
        }
    }
}
