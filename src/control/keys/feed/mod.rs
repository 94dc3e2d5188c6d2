//! Following the dashboard's feed (keys, and the fleet), on a thread of its own: enrolment, the stream, and coming back to it.
//!
//! Invariants:
//! - Where the feed was left is told to the dashboard when it is followed again, and only what has been handed on counts.
//! - Whatever fails is tried again, later and later up to [`BACKOFF_MAX`], and at a random time within that, so that a
//!   dashboard that comes back is not met by all nodes at once.
//! - The thread ends when nobody takes what it hands on.
//!
//! Not here: what is done with key sets ([`crate::control::keys`]), and the polls that go on while the feed is lost.

mod client;
mod events;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use uuid::Uuid;

use super::Jwks;
use crate::auth::Limits;
use crate::auth::keys::JWKS_BYTES_MAX;
use crate::control::fleet::Fleet;
use crate::protocol::document::AppId;
pub(in crate::control) use client::{Client, ClientError, Heartbeat, HeartbeatAnswer, UsageAnswer};
use events::{EventError, NewLimits, Parser};

const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Key sets that are handed on at once: each batch copies all sets once, and empties every cache of tokens.
const BATCH_MAX: usize = 256;

/// A line holds one tenant's document, or the fleet.
const LINE_BYTES_MAX: usize =
    if JWKS_BYTES_MAX > FLEET_BYTES_MAX { JWKS_BYTES_MAX } else { FLEET_BYTES_MAX } + 1024;
/// Some thousands of nodes.
const FLEET_BYTES_MAX: usize = 2 << 20;

/// Batches that may wait for the control shard.
pub(in crate::control) const WAITING_MAX: usize = 16;

/// What following the feed brings.
#[derive(Debug)]
pub(in crate::control) enum FromFeed {
    /// The node has a credential: it can say that it lives.
    Enrolled { credential: Arc<str> },
    /// These tenants' key sets as they are now. `is_complete`: no other has changed before them.
    Documents { documents: Vec<(Uuid, Jwks)>, is_complete: bool },
    /// All nodes, as they are now.
    Fleet(Fleet),
    /// An app has these limits now; tokens with others were issued up to then, and live for so long.
    Limits { app: AppId, limits: Limits, issued_until_unix_s: u64, hold: Duration },
    /// The feed is no longer followed; what changes now is not heard of.
    Lost,
}

/// Why the feed is no longer followed.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the key feed broke off")]
    Read(#[source] io::Error),
    #[error("the dashboard ended the key feed")]
    Ended,
    #[error("a line of the key feed has more than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error(transparent)]
    Event(#[from] EventError),
    /// The control shard is gone: so is the reason to follow anything.
    #[error("the node is stopping")]
    Stopping,
}

/// Follows the feed until nobody listens any more.
///
/// # Errors
/// If there can be no thread.
pub(in crate::control) fn spawn(client: Client, to: mpsc::Sender<FromFeed>) -> io::Result<()> {
    let follower = Follower { client, to, credential: None, last_id: None, failures: 0 };
    std::thread::Builder::new().name("key-feed".into()).spawn(move || follower.run()).map(drop)
}

struct Follower {
    client: Client,
    to: mpsc::Sender<FromFeed>,
    credential: Option<Arc<str>>,
    last_id: Option<Box<str>>,
    /// In a row, since the feed last said something.
    failures: u32,
}

impl Follower {
    fn run(mut self) {
        loop {
            let Err(error) = self.follow();
            if matches!(error, FeedError::Stopping) || self.hand_on(FromFeed::Lost).is_err() {
                return;
            }
            if matches!(error, FeedError::Client(ClientError::Refused { .. })) {
                self.credential = None; // perhaps another node of this name has enrolled
            }
            let wait = backoff(self.failures, random());
            self.failures = self.failures.saturating_add(1);
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, cause, retry_s = wait.as_secs_f32(), "the key feed is lost; keys are polled meanwhile");
            std::thread::sleep(wait);
        }
    }

    /// Until something fails, as in the end it does.
    fn follow(&mut self) -> Result<std::convert::Infallible, FeedError> {
        let credential = match &self.credential {
            Some(credential) => Arc::clone(credential),
            None => self.introduce()?,
        };
        let mut stream = match self.client.feed(&credential, self.last_id.as_deref()) {
            Err(ClientError::Refused { .. }) => {
                let credential = self.take(self.client.enrol()?)?;
                self.client.feed(&credential, self.last_id.as_deref())?
            }
            other => other?,
        };
        let (mut parser, mut line, mut documents) = (Parser::default(), Vec::new(), Vec::new());
        let mut is_told_complete = false;
        loop {
            read_line(&mut stream, &mut line)?;
            let Some(event) = parser.line(&String::from_utf8_lossy(&line))? else { continue };
            self.failures = 0;
            if let Some(fleet) = event.fleet {
                self.hand_on(FromFeed::Fleet(fleet))?;
            }
            if let Some(NewLimits { app, limits, issued_until_unix_s, hold }) = event.limits {
                self.hand_on(FromFeed::Limits { app, limits, issued_until_unix_s, hold })?;
            }
            documents.extend(event.keys);
            let is_complete = event.id.is_some();
            if documents.len() >= BATCH_MAX || (is_complete && !(is_told_complete && documents.is_empty())) {
                is_told_complete |= is_complete;
                self.hand_on(FromFeed::Documents { documents: std::mem::take(&mut documents), is_complete })?;
            }
            if event.id.is_some() {
                self.last_id = event.id;
            }
        }
    }

    fn introduce(&mut self) -> Result<Arc<str>, FeedError> {
        let credential = self.client.credential()?;
        self.take(credential)
    }

    fn take(&mut self, credential: Arc<str>) -> Result<Arc<str>, FeedError> {
        self.credential = Some(Arc::clone(&credential));
        self.hand_on(FromFeed::Enrolled { credential: Arc::clone(&credential) })?;
        Ok(credential)
    }

    fn hand_on(&self, what: FromFeed) -> Result<(), FeedError> {
        self.to.blocking_send(what).map_err(|_| FeedError::Stopping)
    }
}

/// A line, without its end.
fn read_line(stream: &mut impl BufRead, line: &mut Vec<u8>) -> Result<(), FeedError> {
    line.clear();
    let bound = LINE_BYTES_MAX as u64 + 1;
    stream.by_ref().take(bound).read_until(b'\n', line).map_err(FeedError::Read)?;
    match line.pop() {
        Some(b'\n') => {}
        Some(_) if line.len() >= LINE_BYTES_MAX => return Err(FeedError::TooLong),
        _ => return Err(FeedError::Ended),
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(())
}

/// Between half of it and all of what has doubled with each failure.
fn backoff(failures: u32, random: u64) -> Duration {
    let full = BACKOFF_FIRST.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
    let half_ms = u64::try_from(full.as_millis() / 2).unwrap_or(u64::MAX);
    Duration::from_millis(half_ms + random % (half_ms + 1))
}

/// Keyed afresh for each call by the standard library: randomness enough to spread nodes out.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_longer_and_longer_within_bounds_and_never_not_at_all() {
        for failures in 0..40 {
            let (least, most) = (backoff(failures, 0), backoff(failures, u64::MAX));
            assert!(least >= BACKOFF_FIRST / 2 && least <= most && most <= BACKOFF_MAX, "{failures}");
            assert!(backoff(failures + 1, 0) >= least);
        }
        assert!(backoff(0, u64::MAX) <= BACKOFF_FIRST);
        assert_eq!(backoff(40, 0), BACKOFF_MAX / 2);
    }

    #[test]
    fn lines_end_as_the_standard_allows_and_have_a_bound() {
        let mut text = &b"id: 1\r\n\nrest"[..];
        let mut line = Vec::new();
        read_line(&mut text, &mut line).unwrap();
        assert_eq!(line, b"id: 1");
        read_line(&mut text, &mut line).unwrap();
        assert_eq!(line, b"");
        assert!(matches!(read_line(&mut text, &mut line), Err(FeedError::Ended)));
        let long = vec![b'x'; 2 * LINE_BYTES_MAX];
        assert!(matches!(read_line(&mut &long[..], &mut line), Err(FeedError::TooLong)));
    }
}
