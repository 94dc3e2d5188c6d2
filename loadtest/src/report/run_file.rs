//! A run as its JSON tells it: what plots and comparisons are made from.
//!
//! Reads only what it shows, and leniently: files of older and newer load testers can be put side by side.

use super::Report;
use crate::load::day::OneDay;
use crate::load::typing::slices::Slice;
use crate::measure::Percentile;
use crate::measure::series::Sample;
use crate::ramp::RampStep;
use crate::redaction::redacted;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum RunFileError {
    #[error("cannot read the run {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not what `wiresocket-loadtest run --json` prints: {source}", path.display())]
    Parse { path: PathBuf, source: serde_json::Error },
}

#[derive(Debug, Clone, Deserialize)]
pub struct RunFile {
    #[serde(default)]
    pub label: String,
    pub url: String,
    pub wire: String,
    pub scenario: ScenarioName,
    pub connections: u64,
    pub ok: bool,
    #[serde(default)]
    pub interrupted: bool,
    #[serde(default)]
    pub failures: Vec<String>,
    #[serde(default)]
    pub percentiles: Vec<Percentile>,
    #[serde(default)]
    pub series: Vec<Sample>,
    #[serde(default)]
    result: Value,
}

#[derive(Debug, Clone, Deserialize)]
pub struct ScenarioName {
    pub name: String,
    pub description: String,
}

impl RunFile {
    pub fn read(path: &Path) -> Result<Self, RunFileError> {
        let text =
            std::fs::read(path).map_err(|source| RunFileError::Read { path: path.to_owned(), source })?;
        let mut run: Self = serde_json::from_slice(&text)
            .map_err(|source| RunFileError::Parse { path: path.to_owned(), source })?;
        run.url = redacted(&run.url).into_owned(); // older load testers left secrets in it
        if run.kind().is_none() {
            run.ok = false;
            run.failures.push("the file has no result".to_owned());
        }
        if run.label.is_empty() {
            run.label.clone_from(&run.scenario.name);
        }
        Ok(run)
    }

    /// The number at `pointer` (RFC 6901) of the result; of a ramp, of its best step.
    pub fn number(&self, pointer: &str) -> Option<f64> {
        self.measured()?.pointer(pointer)?.as_f64()
    }

    fn kind(&self) -> Option<(&String, &Value)> {
        self.result.as_object()?.iter().next()
    }

    fn measured(&self) -> Option<&Value> {
        let (kind, result) = self.kind()?;
        if kind == "ramp" { result.get("best") } else { Some(result) }
    }

    /// Of a ramp: what it found, in a sentence.
    pub fn ramp_summary(&self) -> Option<&str> {
        self.kind().filter(|(kind, _)| *kind == "ramp")?.1.get("summary")?.as_str()
    }

    /// Would the server have done more than the run's deliveries per second?
    pub fn is_lower_bound(&self) -> bool {
        self.kind().and_then(|(_, result)| result.get("lowerBound")?.as_bool()).unwrap_or_default()
    }

    /// A run in slices by the updates typed, if it was sliced.
    pub fn slices(&self) -> Vec<Slice> {
        self.list("slices")
    }

    /// The days of a run of days.
    pub fn days(&self) -> Vec<OneDay> {
        self.list("days")
    }

    /// Empty if it isn't there, or is another version's.
    fn list<T: DeserializeOwned>(&self, name: &str) -> Vec<T> {
        let list = self.measured().and_then(|result| result.get(name));
        list.and_then(|list| Vec::deserialize(list).ok()).unwrap_or_default()
    }

    /// The steps of a ramp and its bound in milliseconds.
    pub fn ramp(&self) -> Option<(Vec<RampStep>, f64)> {
        let (_, result) = self.kind().filter(|(kind, _)| *kind == "ramp")?;
        let steps = Vec::deserialize(result.get("steps")?).ok()?;
        Some((steps, result.get("bound_ms")?.as_f64()?))
    }
}

impl TryFrom<&Report> for RunFile {
    type Error = serde_json::Error;

    fn try_from(report: &Report) -> Result<Self, Self::Error> {
        serde_json::from_value(serde_json::to_value(report)?)
    }
}
