//! A scenario in a sentence, from its numbers: what a changed one is called, whose file says something else.

use super::{Scenario, Typing, Whose};
use crate::update::typist::Positions;
use std::fmt::Write;

impl Scenario {
    /// What is done, in short.
    pub(super) fn describe(&self) -> String {
        let documents = count(self.documents, "document");
        let rooms = format!("{documents} x {}", count(self.clients, "client"));
        let connections = count(self.connections(), "connection");
        match self {
            Self { typing: Some(typing), .. } => {
                format!("{rooms}, {}", describe_typing(typing, self.clients))
            }
            Self { idle: Some(idle), .. } => {
                format!("{connections} in {documents}, idle for {} s", idle.measure_s)
            }
            Self { storm: Some(_), .. } => {
                format!("{connections} to {documents}, {} at a time", self.connect_at_once)
            }
            Self { join: Some(join), .. } => {
                let mut text =
                    format!("{} of a document typed as {}", count(join.joins, "cold join"), join.trace);
                let _ = write!(text, ", {} at a time", join.at_once);
                if let Some(seconds) = join.seconds_max {
                    let _ = write!(text, ", for {seconds} s at most");
                }
                text
            }
            Self { day: Some(day), .. } => {
                let people = format!("{} people at noon in {documents}", day.people_at_noon);
                match &day.soak {
                    Some(soak) => format!("{people}, days of {} s for {} s", day.day_s, soak.total_s),
                    None => format!("{people}, a day of {} s", day.day_s),
                }
            }
            _ => rooms,
        }
    }
}

fn describe_typing(typing: &Typing, clients: u32) -> String {
    let who = if typing.writers == clients { "all".to_owned() } else { typing.writers.to_string() };
    let what = match (&typing.trace, &typing.mix) {
        (Some(trace), _) => format!("edits of {trace}"),
        (None, Some(_)) => "mixed edits".to_owned(),
        (None, None) if typing.positions == Positions::Random => "characters anywhere".to_owned(),
        (None, None) => "characters".to_owned(),
    };
    let mut text = format!("{who} typing {} {what}/s each for {} s", short(typing.rate), typing.measure_s);
    if let Some(cursors) = &typing.cursors {
        let whose = if cursors.of == Whose::Writers { "writers'" } else { "all" };
        let _ = write!(text, "; {whose} cursors move {}/s", short(cursors.rate));
    }
    if let Some(slow) = &typing.slow_readers {
        let _ = write!(text, "; {} stall for {} s", count(slow.per_document, "reader"), slow.for_s);
    }
    if let Some(storm) = &typing.storm {
        let _ = write!(text, "; {} % are cut off at once", short(100.0 * storm.share));
    }
    if let Some(churn) = &typing.churn {
        let _ = write!(text, "; {} leave and return per second", short(churn.rate));
    }
    text
}

fn count(count: u32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A rate with at most two decimals.
fn short(rate: f64) -> String {
    let text = format!("{rate:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use crate::scenario::{Overrides, Scenario};
    use std::path::Path;

    fn described(name: &str, overrides: Overrides) -> String {
        Scenario::load(Path::new(name), &overrides).expect("valid").description
    }

    #[test]
    fn a_changed_scenario_is_described_as_it_is_run() {
        let documents = Overrides { documents: Some(7), ..Overrides::default() };
        assert_eq!(
            described("b-many-rooms", documents),
            "7 documents x 4 clients, all typing 1 characters/s each for 10 s"
        );
        let seconds = Overrides { seconds: Some(2.5), ..Overrides::default() };
        let stalled = described("g-stalled-reader", seconds);
        assert_eq!(
            stalled,
            "1 document x 20 clients, 5 typing 400 mixed edits/s each for 2.5 s; 2 readers stall for 6 s"
        );
        assert_eq!(described("c-idle", documents), "14 connections in 7 documents, idle for 10 s");
        let joins = Overrides { joins: Some(1), ..Overrides::default() };
        assert_eq!(
            described("e-cold-join", joins),
            "1 cold join of a document typed as automerge-paper, 1 at a time, for 12 s at most"
        );
    }

    #[test]
    fn an_unchanged_scenario_is_described_by_its_file() {
        let file = "500 documents x 4 clients, all of them typing";
        assert_eq!(described("b-many-rooms", Overrides::default()), file);
        let same = Overrides { documents: Some(500), ..Overrides::default() };
        assert_eq!(described("b-many-rooms", same), file);
    }
}
