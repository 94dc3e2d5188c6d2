//! `[day]`: simulated people over a compressed day, and `[day.soak]`: many days, one after the other.

use super::{ScenarioError, WINDOW_S, count, seconds, within};
use serde::{Deserialize, Serialize};

/// People come, type, move their cursors, fall silent, lose their connection, return, and go.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Day {
    /// The same seed makes the same day; 0 takes a new one for every run. It is in the report.
    #[serde(default)]
    pub seed: u64,
    /// From midnight to midnight.
    pub day_s: f64,
    /// How many are expected to be there at noon; at midnight it is `night_share` of that.
    pub people_at_noon: u32,
    pub night_share: f64,
    /// How long people stay, on average (exponentially distributed).
    pub session_mean_s: f64,
    /// The r-th most popular document is chosen 1/r^exponent as often as the first, and has
    /// 1/r^exponent of its characters before the day begins.
    pub zipf_exponent: f64,
    pub initial_characters_max: u32,
    /// How many of the people write; the others read.
    pub writers_share: f64,
    /// Updates of a burst of typing, on average; then people think.
    pub burst_mean_updates: f64,
    /// Updates per second within a burst.
    pub typing_rate: f64,
    pub think_mean_s: f64,
    /// How many of the updates are pastes, and format what was typed before.
    pub paste_share: f64,
    pub paste_length: u32,
    pub format_share: f64,
    /// Moves of a cursor per second; at least one in 20 s.
    pub cursor_rate: f64,
    /// How many of the people lose their connection once, and for how long, on average. They go on typing.
    pub offline_share: f64,
    pub offline_mean_s: f64,
    /// How long an update may take to arrive; then it is lost.
    pub settle_s: f64,
    pub soak: Option<Soak>,
}

/// Days one after the other, each with documents of its own. The server's memory must come back.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Soak {
    /// How long it goes on: whole days only, at least two.
    pub total_s: f64,
    /// Wait between days, so that the server can put away what nobody uses.
    pub calm_s: f64,
    /// After the last day the server may hold so much more resident memory than after the first.
    pub memory_tolerance: f64,
    /// Growth below this is never a failure: allocators don't give everything back.
    pub memory_slack_mb: f64,
}

impl Day {
    /// How many days the scenario has.
    pub fn days(&self) -> u32 {
        self.soak.as_ref().map_or(1, |soak| ((soak.total_s / (self.day_s + soak.calm_s)) as u32).max(2))
    }

    /// `--seconds` is the length of the whole.
    pub(super) fn set_seconds(&mut self, seconds: f64) {
        match &mut self.soak {
            Some(soak) => soak.total_s = seconds,
            None => self.day_s = seconds,
        }
    }

    pub(super) fn validate(&self) -> Result<(), ScenarioError> {
        let share = |key, value| within(key, value, 0.0..=1.0);
        within("day.day_s", self.day_s, 1.0..=86_400.0)?;
        count("day.people_at_noon", self.people_at_noon)?;
        within("day.night_share", self.night_share, 0.0..=1.0)?;
        within("day.session_mean_s", self.session_mean_s, 0.5..=86_400.0)?;
        within("day.zipf_exponent", self.zipf_exponent, 0.0..=5.0)?;
        within("day.initial_characters_max", f64::from(self.initial_characters_max), 0.0..=1e8)?;
        share("day.writers_share", self.writers_share)?;
        within("day.burst_mean_updates", self.burst_mean_updates, 1.0..=1e5)?;
        within("day.typing_rate", self.typing_rate, 0.01..=1e4)?;
        within("day.think_mean_s", self.think_mean_s, 0.01..=86_400.0)?;
        share("day.paste_share", self.paste_share)?;
        share("day.format_share", self.format_share)?;
        within("day.paste_share + format_share", self.paste_share + self.format_share, 0.0..=1.0)?;
        within("day.paste_length", f64::from(self.paste_length), 1.0..=100_000.0)?;
        within("day.cursor_rate", self.cursor_rate, 0.05..=1e3)?;
        share("day.offline_share", self.offline_share)?;
        within("day.offline_mean_s", self.offline_mean_s, 0.0..=86_400.0)?;
        within("day.settle_s", self.settle_s, 0.1..=3600.0)?;
        if let Some(soak) = &self.soak {
            within("day.soak.total_s", soak.total_s, WINDOW_S)?;
            seconds("day.soak.calm_s", soak.calm_s)?;
            within("day.soak.memory_tolerance", soak.memory_tolerance, 0.0..=100.0)?;
            within("day.soak.memory_slack_mb", soak.memory_slack_mb, 0.0..=1e6)?;
        }
        Ok(())
    }
}
