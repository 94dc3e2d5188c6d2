//! Time, handed in: the system's, or one that a test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the dashboard reads the time from; all clones of one clock show the same.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Set(Arc<AtomicI64>),
}

impl Clock {
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until it is moved.
    #[must_use]
    pub fn standing_at(unix_s: i64) -> Self {
        Self(Source::Set(Arc::new(AtomicI64::new(unix_s))))
    }

    /// Moves a standing clock on; does nothing to the system's.
    pub fn advance(&self, seconds: i64) {
        if let Source::Set(unix_s) = &self.0 {
            unix_s.fetch_add(seconds, Ordering::SeqCst);
        }
    }

    /// Seconds since the Unix epoch.
    #[must_use]
    pub fn unix_s(&self) -> i64 {
        match &self.0 {
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                i64::try_from(since).unwrap_or(i64::MAX)
            }
            Source::Set(unix_s) => unix_s.load(Ordering::SeqCst),
        }
    }
}
