//! What the dashboard's key feed brings, and what the dashboard is told of this node.

use std::time::Duration;

use uuid::Uuid;

use super::{Control, Effect};
use crate::control::keys::feed::{ClientError, FromFeed, Heartbeat, HeartbeatAnswer};
use crate::control::keys::{Changes, Jwks};
use crate::time::Now;

/// Until the dashboard has said how often it wants to hear of this node.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);

/// Where this node stands with its dashboard.
#[derive(Debug, Default)]
pub(super) struct Feed {
    is_followed: bool,
    /// None while the node has no credential, or an answer is awaited.
    beat_at: Option<Duration>,
    /// What the operator wants this node to be, as last heard.
    wanted: Option<Box<str>>,
    /// Key sets that were pushed.
    pub documents_total: u64,
    /// Times the feed was lost, or could not be followed.
    pub losses_total: u64,
}

impl Feed {
    /// Whether every change is heard of as it happens.
    pub fn is_followed(&self) -> bool {
        self.is_followed
    }

    pub fn beat_at(&self) -> Option<Duration> {
        self.beat_at
    }
}

impl Control {
    /// Takes what following the feed has brought.
    pub fn heard(&mut self, now: Now, what: FromFeed) {
        match what {
            // How it gets its credential is the shell's business.
            FromFeed::Enrolled { .. } => self.feed.beat_at = Some(now.monotonic),
            FromFeed::Documents { documents, is_complete } => {
                self.pushed(now, documents);
                if is_complete && !self.feed.is_followed {
                    self.feed.is_followed = true;
                    tracing::info!("the key feed is followed: keys are no longer polled");
                }
            }
            FromFeed::Lost => {
                self.feed.is_followed = false;
                self.feed.losses_total += 1;
            }
        }
    }

    /// All of a batch at once: each publication empties every shard's cache of verified tokens.
    fn pushed(&mut self, now: Now, documents: Vec<(Uuid, Jwks)>) {
        let mut all = Changes::default();
        for (tenant, jwks) in documents {
            self.feed.documents_total += 1;
            if let Some(is_overtaken) = self.fetching.get_mut(&tenant) {
                *is_overtaken = true;
            }
            let changes = self.take_document(now, tenant, jwks, None);
            all.sets |= changes.sets;
            all.revoked.extend(changes.revoked);
        }
        self.publish(all);
    }

    /// Says that this node lives, if it is time to.
    pub(super) fn beat(&mut self, now: Now) {
        if self.feed.beat_at.is_none_or(|at| now.monotonic < at) {
            return;
        }
        self.feed.beat_at = None;
        let totals = self.ledger.totals();
        let documents =
            self.shards.iter().filter_map(|link| link.metrics.as_ref()).map(|m| m.documents).sum();
        let connections = totals.connections;
        self.effects.push_back(Effect::Heartbeat(Heartbeat {
            connections,
            documents,
            draining: self.draining,
        }));
    }

    /// The dashboard has heard, or could not be told.
    pub fn heartbeat_answered(&mut self, now: Now, outcome: Result<HeartbeatAnswer, ClientError>) {
        let mut every = HEARTBEAT_EVERY;
        match outcome {
            Ok(HeartbeatAnswer { state, heartbeat_s }) => {
                every = Duration::from_secs(heartbeat_s.clamp(1, 3600));
                if self.feed.wanted.as_ref() != Some(&state) {
                    tracing::info!(state = %state, "what the dashboard wants this node to be");
                    self.feed.wanted = Some(state);
                }
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "the dashboard could not be told that this node lives");
            }
        }
        self.feed.beat_at = Some(now.monotonic + every);
    }
}
