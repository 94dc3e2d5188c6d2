//! The journal as the control shard sees it: whether it stores, and its figures.
//!
//! A journal that has failed makes the node `degraded` and shed new sessions until it is restarted. One that is silent (a
//! disk that hangs) makes it `degraded` until it speaks again.

use std::fmt;
use std::time::Duration;

use super::metrics::Page;
use crate::journal::thread::JournalFigures;

/// Upper bounds of the buckets, in microseconds.
const COMMIT_US: &[u64] =
    &[100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 10_000_000];

/// What is known of the journal. A node without one is well.
#[derive(Debug, Default)]
pub(super) struct Storage {
    figures: Option<Box<JournalFigures>>,
    heard_at: Duration,
    silent: bool,
}

impl Storage {
    pub fn reported(&mut self, now: Duration, figures: Box<JournalFigures>) {
        (self.heard_at, self.figures) = (now, Some(figures));
    }

    /// Looks whether it has been silent for too long; says so once.
    pub fn check(&mut self, now: Duration, silence_max: Duration) {
        let silent = self.figures.is_some() && now.saturating_sub(self.heard_at) > silence_max;
        if silent && !self.silent {
            tracing::error!("the journal does not answer: its disk may hang; the node reports degraded");
        }
        if self.silent && !silent {
            tracing::info!("the journal answers again");
        }
        self.silent = silent;
    }

    pub fn has_failed(&self) -> bool {
        self.figures.as_ref().is_some_and(|figures| figures.log.failed)
    }

    pub fn is_well(&self) -> bool {
        !self.has_failed() && !self.silent
    }

    pub fn figures(&self) -> Option<Box<JournalFigures>> {
        self.figures.clone()
    }
}

/// The journal's part of the metrics page.
pub(super) fn encode(figures: &JournalFigures, page: &mut Page<'_>) -> fmt::Result {
    let log = &figures.log;
    page.gauge(
        "wiresocket_journal_failed",
        "1 once the journal stores nothing any more",
        u64::from(log.failed),
    )?;
    page.gauge("wiresocket_journal_documents", "Documents in the journal", log.documents)?;
    page.gauge("wiresocket_journal_segments", "Segment files of the journal", log.segments)?;
    page.gauge("wiresocket_journal_disk_bytes", "Bytes of these files", log.bytes)?;
    page.gauge("wiresocket_journal_state_bytes", "Of these: whole states of documents", log.state_bytes)?;
    page.counter("wiresocket_journal_records", "Records gathered", log.records_total)?;
    page.counter("wiresocket_journal_written_bytes", "Bytes written", log.bytes_total)?;
    page.counter("wiresocket_journal_states", "Whole states of documents written", log.states_total)?;
    let removed = log.segments_removed_total;
    page.counter("wiresocket_journal_segments_removed", "Segment files removed", removed)?;
    let unreadable = log.unreadable_total;
    page.counter("wiresocket_journal_unreadable", "Documents that could not be read", unreadable)?;
    page.histogram(
        "wiresocket_journal_commit_seconds",
        "Length of a commit",
        COMMIT_US,
        1e6,
        &figures.commit_us,
    )
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::*;
    use crate::journal::log::LogFigures;

    fn figures(failed: bool) -> Box<JournalFigures> {
        let commit_us = Histogram::new(2).unwrap();
        Box::new(JournalFigures { log: LogFigures { failed, ..LogFigures::default() }, commit_us })
    }

    #[test]
    fn a_journal_that_failed_or_fell_silent_is_not_well() {
        const S: Duration = Duration::from_secs(1);
        let mut storage = Storage::default();
        storage.check(100 * S, S);
        assert!(storage.is_well(), "a node without a journal");
        storage.reported(100 * S, figures(false));
        storage.check(101 * S, S);
        assert!(storage.is_well());
        storage.check(102 * S, S);
        assert!(!storage.is_well() && !storage.has_failed());
        storage.reported(103 * S, figures(false));
        storage.check(103 * S, S);
        assert!(storage.is_well());
        storage.reported(104 * S, figures(true));
        assert!(!storage.is_well() && storage.has_failed());
    }
}
