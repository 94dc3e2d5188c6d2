//! One line on the terminal that says what the run is doing; nothing where nobody watches.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

const REFRESH_NS: u64 = 200_000_000;

#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    next_ns: u64,
}

impl Progress {
    /// Shows something only if standard error is a terminal.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar
        });
        Self { bar, next_ns: 0 }
    }

    /// For tests and for runs whose output is read by programs.
    pub fn silent() -> Self {
        Self { bar: None, next_ns: 0 }
    }

    /// Shows `line()` if the last one is old enough. Cheap enough for every turn of the loop.
    pub fn show(&mut self, now_ns: u64, line: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar
            && now_ns >= self.next_ns
        {
            self.next_ns = now_ns + REFRESH_NS;
            bar.set_message(line());
            bar.tick();
        }
    }

    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.disable_steady_tick();
            bar.finish_and_clear();
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// The loop never sleeps longer than this, so that the line keeps moving.
pub const TURN_MAX: Duration = Duration::from_millis(200);
