//! `[typing]`: writers type at a fixed rate, everybody reads; and what may happen meanwhile.

use super::{ScenarioError, WINDOW_S, count, seconds, within};
use crate::update::pattern::{Mix, Pattern};
use crate::update::typist::Positions;
use serde::{Deserialize, Serialize};

/// Servers forget a cursor of which they hear nothing for 30 s.
const CURSOR_RATE_MIN: f64 = 0.05;

/// Writers type at a fixed rate, everybody reads.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Typing {
    /// Writers in each document; they are connections like the others, and read too.
    pub writers: u32,
    /// Updates per second of each writer; an update inserts one character, unless there is a mix or a trace.
    pub rate: f64,
    /// Where each writer types.
    #[serde(default = "positions")]
    pub positions: Positions,
    /// Typing before the measured window.
    pub warmup_s: f64,
    /// The measured window.
    pub measure_s: f64,
    /// How long after the window the last update may still arrive; then it counts as lost.
    pub settle_s: f64,
    /// Type the edits of this trace instead: each document's only writer, in order.
    pub trace: Option<String>,
    /// Report the run in slices: at every power of ten of updates, and every so many.
    pub slice_updates: Option<u32>,
    /// Type a mix of edits instead of single characters.
    pub mix: Option<Mix>,
    pub cursors: Option<Cursors>,
    pub slow_readers: Option<SlowReaders>,
    pub storm: Option<ReconnectStorm>,
    pub churn: Option<Churn>,
}

/// Whose cursors move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    Writers,
    Clients,
}

/// Awareness: cursors that move.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cursors {
    /// Moves per second of each cursor.
    pub rate: f64,
    #[serde(default = "writers")]
    pub of: Whose,
}

/// Readers who stop reading for a while, the last of each document.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SlowReaders {
    pub per_document: u32,
    /// When they stop, from the start of the measured window.
    pub at_s: f64,
    pub for_s: f64,
    /// What they read meanwhile; 0: nothing at all.
    #[serde(default)]
    pub bytes_per_s: u32,
    /// What the kernel may hold for each of them: little, so that it is the server that has to wait.
    #[serde(default = "receive_buffer_bytes")]
    pub receive_buffer_bytes: u32,
}

/// A share of the connections is cut at one instant, and all come back at once.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ReconnectStorm {
    /// From the start of the measured window.
    pub at_s: f64,
    pub share: f64,
    /// Reset the connections instead of closing them.
    #[serde(default)]
    pub reset: bool,
}

/// Readers (who don't write) leave and return all the time.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// Departures per second, over all documents.
    pub rate: f64,
    /// How long each stays away.
    pub away_s: f64,
}

impl Typing {
    pub(super) fn validate(&self, documents: u32, clients: u32) -> Result<(), ScenarioError> {
        let (writers, readers) = (f64::from(self.writers), f64::from(clients));
        within("clients (someone must read)", readers, 2.0..=1e6)?;
        within("typing.writers (they are clients too)", writers, 1.0..=readers)?;
        // Every reader's account of every writer is four bytes.
        let accounts = f64::from(documents) * readers * writers;
        within("documents * clients * typing.writers", accounts, 1.0..=5e8)?;
        within("typing.rate", self.rate, 1e-6..=1e7)?;
        seconds("typing.warmup_s", self.warmup_s)?;
        within("typing.measure_s", self.measure_s, WINDOW_S)?;
        seconds("typing.settle_s", self.settle_s)?;
        if let Some(every) = self.slice_updates {
            count("typing.slice_updates", every)?;
        }
        self.validate_payload()?;
        if let Some(cursors) = &self.cursors {
            within("typing.cursors.rate", cursors.rate, CURSOR_RATE_MIN..=1e6)?;
        }
        let slow = self.slow_readers.as_ref().map_or(0, |slow| slow.per_document);
        let idle_readers = readers - writers;
        if let Some(slow) = &self.slow_readers {
            within("typing.slow_readers.per_document", f64::from(slow.per_document), 1.0..=idle_readers)?;
            seconds("typing.slow_readers.at_s", slow.at_s)?;
            if slow.at_s >= self.measure_s {
                return Err(ScenarioError::Contradiction(
                    "typing.slow_readers.at_s must be before the end of the window (typing.measure_s or --seconds): \
                     else nobody stalls while it is measured",
                ));
            }
            within("typing.slow_readers.for_s", slow.for_s, WINDOW_S)?;
            let bytes = f64::from(slow.receive_buffer_bytes);
            within("typing.slow_readers.receive_buffer_bytes", bytes, 1024.0..=1e9)?;
        }
        if let Some(storm) = &self.storm {
            within("typing.storm.at_s (it must be in the window)", storm.at_s, 0.0..=self.measure_s)?;
            within("typing.storm.share", storm.share, 1e-6..=1.0)?;
        }
        if let Some(churn) = &self.churn {
            let readers = f64::from(documents) * (idle_readers - f64::from(slow));
            within("typing.churn.rate", churn.rate, 1e-3..=1e5)?;
            within("typing.churn.away_s", churn.away_s, 0.0..=86_400.0)?;
            // At most half of them may be away.
            within("typing.churn.rate * away_s", churn.rate * churn.away_s, 0.0..=readers / 2.0)?;
        }
        Ok(())
    }

    fn validate_payload(&self) -> Result<(), ScenarioError> {
        let mut clocks_per_update = 1.0;
        if let Some(mix) = &self.mix {
            let edits = f64::from(mix.characters) + f64::from(mix.pastes) + f64::from(mix.formatting);
            within("typing.mix (the sum of its weights)", edits, 1.0..=10_000.0)?;
            within("typing.mix.characters + pastes", edits - f64::from(mix.formatting), 1.0..=10_000.0)?;
            within("typing.mix.paste_length", f64::from(mix.paste_length), 1.0..=100_000.0)?;
            clocks_per_update = f64::from(mix.paste_length).max(2.0);
            let refuse = |what| Err(ScenarioError::Contradiction(what));
            if mix.formatting > 0 && self.positions == Positions::Random {
                return refuse(
                    "typing.mix.formatting embraces what was typed last: positions must be \"append\"",
                );
            }
            if self.trace.is_some() {
                return refuse("typing.trace says what is typed: there can't be a [typing.mix] too");
            }
            if Pattern::new(mix).is_none() {
                return refuse(
                    "typing.mix.formatting is too frequent: at least two characters must come between",
                );
            }
        }
        if self.trace.is_some() {
            within("typing.writers (a trace has one)", f64::from(self.writers), 1.0..=1.0)?;
        }
        // A writer's clock has 32 bits.
        let clocks = self.rate * (self.warmup_s + self.measure_s) * clocks_per_update;
        within("typing.rate * (warmup_s + measure_s), in clocks", clocks, 0.0..=4e9)
    }
}

fn positions() -> Positions {
    Positions::Append
}

fn writers() -> Whose {
    Whose::Writers
}

fn receive_buffer_bytes() -> u32 {
    32 * 1024
}
