//! Scenarios: what is done to the server, as TOML files describe it.
//!
//! A scenario is a number of documents and connections, and exactly one of the tables `[typing]`,
//! `[idle]`, `[storm]`, `[join]` and `[day]`. Keys that don't exist are refused, so that a misspelt one can't
//! silently measure something else. Once validated, every number can be used as it is.

mod day;
mod description;
mod typing;

pub use day::{Day, Soak};
pub use typing::{Churn, Cursors, ReconnectStorm, SlowReaders, Typing, Whose};

use crate::update::typist::Positions;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The scenarios that come with the load tester, by name.
const BUILT_IN: [(&str, &str); 9] = [
    ("a-classroom", include_str!("../../scenarios/a-classroom.toml")),
    ("b-many-rooms", include_str!("../../scenarios/b-many-rooms.toml")),
    ("c-idle", include_str!("../../scenarios/c-idle.toml")),
    ("d-storm", include_str!("../../scenarios/d-storm.toml")),
    ("e-cold-join", include_str!("../../scenarios/e-cold-join.toml")),
    ("f-long-run", include_str!("../../scenarios/f-long-run.toml")),
    ("g-stalled-reader", include_str!("../../scenarios/g-stalled-reader.toml")),
    ("day", include_str!("../../scenarios/day.toml")),
    ("soak", include_str!("../../scenarios/soak.toml")),
];

#[derive(Debug, Error)]
pub enum ScenarioError {
    #[error("cannot read the scenario {path}: {source} (built in: {names})", names = names())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the scenario {path} is not valid: {source}")]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error(
        "the scenario must have exactly one of the tables [typing], [idle], [storm], [join], [day]; it has {0}"
    )]
    Tables(usize),
    #[error("{key} = {value} is out of range: it must be from {from} to {to}")]
    Range { key: &'static str, value: f64, from: f64, to: f64 },
    #[error("{0}")]
    Contradiction(&'static str),
    #[error("{option} means nothing to a [{kind}] scenario")]
    Override { option: &'static str, kind: &'static str },
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub name: String,
    pub description: String,
    /// Documents, all new.
    pub documents: u32,
    /// Connections to each document.
    pub clients: u32,
    /// Connections being set up at the same time.
    #[serde(default = "connect_at_once")]
    pub connect_at_once: u32,
    /// How long setting up all of them may take.
    #[serde(default = "connect_timeout_s")]
    pub connect_timeout_s: f64,
    /// Connect from so many loopback addresses in turn (more than about 28,000 connections need it).
    #[serde(default = "source_addresses")]
    pub source_addresses: u32,
    /// How often each connection says (by an empty awareness message) that it is still there: servers
    /// drop those that are silent for 30 or 60 seconds.
    #[serde(default = "keep_alive_s")]
    pub keep_alive_s: f64,
    pub typing: Option<Typing>,
    pub idle: Option<Idle>,
    pub storm: Option<Storm>,
    pub join: Option<Join>,
    pub day: Option<Day>,
}

/// Everybody stays connected and does nothing.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Idle {
    /// Wait between the last connection and the measured window.
    pub settle_s: f64,
    /// The measured window.
    pub measure_s: f64,
}

/// Everybody connects; measured until the last one has the state.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// Wait for the server to calm down before the storm.
    #[serde(default)]
    pub settle_s: f64,
}

/// Newcomers load a document with a long history, again and again.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// How many joins are measured.
    pub joins: u32,
    /// Joins going on at the same time.
    pub at_once: u32,
    /// The editing trace that made the document: its file is `<trace>.json.gz`.
    pub trace: String,
    /// How long the server may take to have the document, and for each join.
    pub timeout_s: f64,
    /// After so long no more joins are begun: the report is about those that were.
    pub seconds_max: Option<f64>,
}

/// What the command line changes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides {
    pub documents: Option<u32>,
    pub clients: Option<u32>,
    pub writers: Option<u32>,
    pub rate: Option<f64>,
    /// Sets the rate so that so many items arrive at other clients in a second.
    pub deliveries: Option<f64>,
    pub seconds: Option<f64>,
    pub joins: Option<u32>,
    pub positions: Option<Positions>,
}

impl Scenario {
    /// Reads a file, or one of those built in, and checks it.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, ScenarioError> {
        let built_in = BUILT_IN.iter().find(|(name, _)| path == Path::new(name));
        let text = match built_in {
            Some((_, text)) if !path.exists() => (*text).to_owned(),
            _ => std::fs::read_to_string(path)
                .map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?,
        };
        let mut scenario: Self = toml::from_str(&text)
            .map_err(|source| ScenarioError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        let as_written = scenario.clone();
        scenario.apply(overrides)?;
        scenario.validate()?;
        if scenario != as_written {
            scenario.description = scenario.describe();
        }
        Ok(scenario)
    }

    pub fn connections(&self) -> u32 {
        self.documents * self.clients
    }

    /// The trace that is typed, if one is.
    pub fn trace(&self) -> Option<&str> {
        let typed = self.typing.as_ref().and_then(|typing| typing.trace.as_deref());
        typed.or(self.join.as_ref().map(|join| join.trace.as_str()))
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self { typing: Some(_), .. } => "typing",
            Self { idle: Some(_), .. } => "idle",
            Self { storm: Some(_), .. } => "storm",
            Self { day: Some(_), .. } => "day",
            _ => "join",
        }
    }

    fn apply(&mut self, overrides: &Overrides) -> Result<(), ScenarioError> {
        let kind = self.kind();
        let refuse = |option| Err(ScenarioError::Override { option, kind });
        self.documents = overrides.documents.unwrap_or(self.documents);
        self.clients = overrides.clients.unwrap_or(self.clients);
        if let Some(seconds) = overrides.seconds {
            match self {
                Self { typing: Some(typing), .. } => typing.measure_s = seconds,
                Self { idle: Some(idle), .. } => idle.measure_s = seconds,
                Self { join: Some(join), .. } => join.seconds_max = Some(seconds),
                Self { day: Some(day), .. } => day.set_seconds(seconds),
                _ => return refuse("--seconds"),
            }
        }
        match (&mut self.join, overrides.joins) {
            (Some(join), Some(joins)) => join.joins = joins,
            (None, Some(_)) => return refuse("--joins"),
            _ => {}
        }
        let Some(typing) = &mut self.typing else {
            let given = [
                ("--writers", overrides.writers.is_some()),
                ("--rate", overrides.rate.is_some()),
                ("--deliveries", overrides.deliveries.is_some()),
                ("--positions", overrides.positions.is_some()),
            ];
            return given.iter().find(|(_, given)| *given).map_or(Ok(()), |(option, _)| refuse(option));
        };
        typing.writers = overrides.writers.unwrap_or(typing.writers);
        typing.positions = overrides.positions.unwrap_or(typing.positions);
        typing.rate = overrides.rate.unwrap_or(typing.rate);
        if let Some(deliveries) = overrides.deliveries {
            let writers = f64::from(self.documents) * f64::from(typing.writers);
            typing.rate = deliveries / (writers * (f64::from(self.clients) - 1.0));
        }
        Ok(())
    }

    fn validate(&self) -> Result<(), ScenarioError> {
        let tables = [
            self.typing.is_some(),
            self.idle.is_some(),
            self.storm.is_some(),
            self.join.is_some(),
            self.day.is_some(),
        ];
        let tables = tables.into_iter().filter(|there| *there).count();
        if tables != 1 {
            return Err(ScenarioError::Tables(tables));
        }
        let connections = f64::from(self.documents) * f64::from(self.clients);
        let addresses = f64::from(self.source_addresses);
        count("documents", self.documents)?;
        count("clients", self.clients)?;
        within("documents * clients", connections, 1.0..=1e6)?;
        count("connect_at_once", self.connect_at_once)?;
        seconds("connect_timeout_s", self.connect_timeout_s)?;
        within("keep_alive_s", self.keep_alive_s, 0.1..=86_400.0)?;
        within("source_addresses", addresses, 1.0..=250.0)?;
        if let Some(typing) = &self.typing {
            typing.validate(self.documents, self.clients)?;
        }
        if let Some(idle) = &self.idle {
            seconds("idle.settle_s", idle.settle_s)?;
            within("idle.measure_s", idle.measure_s, WINDOW_S)?;
        }
        if let Some(storm) = &self.storm {
            seconds("storm.settle_s", storm.settle_s)?;
        }
        if let Some(day) = &self.day {
            day.validate()?;
        }
        if let Some(join) = &self.join {
            count("join.joins", join.joins)?;
            count("join.at_once", join.at_once)?;
            seconds("join.timeout_s", join.timeout_s)?;
            within("join.seconds_max", join.seconds_max.unwrap_or(1.0), WINDOW_S)?;
            within("documents (joins load one)", f64::from(self.documents), 1.0..=1.0)?;
            within("clients (a join has one writer)", f64::from(self.clients), 1.0..=1.0)?;
        }
        Ok(())
    }
}

const WINDOW_S: RangeInclusive<f64> = 0.001..=604_800.0;

fn within(key: &'static str, value: f64, range: RangeInclusive<f64>) -> Result<(), ScenarioError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (from, to) = range.into_inner();
    Err(ScenarioError::Range { key, value, from, to })
}

fn count(key: &'static str, value: u32) -> Result<(), ScenarioError> {
    within(key, f64::from(value), 1.0..=1e6)
}

fn seconds(key: &'static str, value: f64) -> Result<(), ScenarioError> {
    within(key, value, 0.0..=86_400.0)
}

fn connect_at_once() -> u32 {
    64
}

fn connect_timeout_s() -> f64 {
    60.0
}

fn keep_alive_s() -> f64 {
    25.0
}

fn source_addresses() -> u32 {
    1
}

fn names() -> String {
    BUILT_IN.map(|(name, _)| name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, overrides: &Overrides) -> Result<Scenario, ScenarioError> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("written");
        Scenario::load(file.path(), overrides)
    }

    #[test]
    fn all_built_in_scenarios_are_valid_and_named_as_their_file() {
        for (name, _) in BUILT_IN {
            let scenario = Scenario::load(Path::new(name), &Overrides::default()).expect(name);
            assert_eq!(scenario.name, name);
        }
    }

    #[test]
    fn the_rate_may_be_given_in_deliveries() {
        let overrides = Overrides { deliveries: Some(4900.0), ..Overrides::default() };
        let scenario = Scenario::load(Path::new("a-classroom"), &overrides).expect("valid");
        assert_eq!(scenario.typing.expect("typing").rate, 10.0);
    }

    #[test]
    fn unknown_keys_are_refused_with_their_name() {
        let text = BUILT_IN[0].1.replace("warmup_s", "warmup_seconds");
        let error = parse(&text, &Overrides::default()).expect_err("misspelt");
        let ScenarioError::Parse { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().contains("warmup_seconds"));
    }

    #[test]
    fn nonsense_is_refused() {
        let classroom = BUILT_IN[0].1;
        let refused = |text: String| parse(&text, &Overrides::default()).is_err();
        assert!(refused(format!("{classroom}\n[storm]\n")));
        assert!(refused(classroom.replace("writers = 10", "writers = 51")));
        assert!(refused(classroom.replace("documents = 1", "documents = 0")));
        assert!(refused(classroom.replace("rate = 10.0", "rate = nan")));
        let with = |more: &str| refused(format!("{classroom}\n{more}\n"));
        assert!(!with("[typing.mix]\ncharacters = 9\nformatting = 1"));
        assert!(with("[typing.mix]\ncharacters = 1\nformatting = 1"));
        assert!(with("[typing.mix]\ncharacters = 0\nformatting = 1"));
        assert!(with("[typing.churn]\nrate = 100.0\naway_s = 1.0"));
        assert!(with("[typing.storm]\nat_s = 11.0\nshare = 0.5"));
        assert!(with("[typing.slow_readers]\nper_document = 41\nat_s = 1.0\nfor_s = 1.0"));
        let stall_at = |at_s: &str| {
            with(&format!("[typing.slow_readers]\nper_document = 1\nat_s = {at_s}\nfor_s = 1.0"))
        };
        assert!(!stall_at("9.9") && stall_at("10.0") && stall_at("nan"));
        assert!(with("[typing.cursors]\nrate = 0.01"));
        assert!(refused(classroom.replace("writers = 10", "writers = 10\ntrace = \"x\"")));
        let no_meaning = Overrides { rate: Some(1.0), ..Overrides::default() };
        assert!(Scenario::load(Path::new("c-idle"), &no_meaning).is_err());
    }
}
