//! What the dashboard's key feed brings, and what the dashboard is told of this node.

use std::time::Duration;

use uuid::Uuid;

use super::{Control, Effect};
use crate::control::keys::feed::{ClientError, FromFeed, Heartbeat, HeartbeatAnswer, UsageAnswer};
use crate::control::keys::{Changes, Jwks};
use crate::limits::Meter;
use crate::time::Now;

/// Until the dashboard has said how often it wants to hear of this node.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);

/// Where this node stands with its dashboard.
#[derive(Debug, Default)]
pub(super) struct Feed {
    is_followed: bool,
    /// None while the node has no credential, or an answer is awaited.
    beat_at: Option<Duration>,
    /// The fleet was heard of since the feed was followed: then a heartbeat's answer, which may be older, is not asked.
    has_fleet: bool,
    /// Something has changed while an answer was awaited.
    beat_again: bool,
    /// Whether the operator wants this node drained, as last heard.
    pub(super) wants_drain: bool,
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
            FromFeed::Fleet(fleet) => {
                self.feed.has_fleet = true;
                if let Some(drained) = fleet.wants_drain() {
                    self.set_wanted(now, drained);
                }
                self.fleet = fleet;
            }
            FromFeed::Limits { app, limits, issued_until_unix_s, hold } => {
                self.pushed.set(app, limits, issued_until_unix_s, now.monotonic.saturating_add(hold));
            }
            FromFeed::Lost => {
                (self.feed.is_followed, self.feed.has_fleet) = (false, false);
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
        let boot = self.meter.as_ref().map_or(0, Meter::boot);
        let draining = self.draining;
        self.effects.push_back(Effect::Heartbeat(Heartbeat { connections, documents, draining, boot }));
    }

    /// The dashboard has heard, or could not be told.
    pub fn heartbeat_answered(&mut self, now: Now, outcome: Result<HeartbeatAnswer, ClientError>) {
        let mut every = HEARTBEAT_EVERY;
        match outcome {
            Ok(HeartbeatAnswer { state, heartbeat_s }) => {
                every = Duration::from_secs(heartbeat_s.clamp(1, 3600));
                if !self.feed.has_fleet {
                    self.set_wanted(now, &*state == "draining");
                }
                self.report_usage(now);
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "the dashboard could not be told that this node lives");
            }
        }
        let again = std::mem::take(&mut self.feed.beat_again);
        self.feed.beat_at = Some(if again { now.monotonic } else { now.monotonic + every });
    }

    /// The next heartbeat has news.
    pub(super) fn beat_soon(&mut self, now: Now) {
        match &mut self.feed.beat_at {
            Some(at) => *at = now.monotonic,
            None => self.feed.beat_again = true,
        }
    }

    /// After a heartbeat: the dashboard must know of this process before it takes its reports.
    fn report_usage(&mut self, now: Now) {
        let Some(meter) = &mut self.meter else { return };
        if let Some(report) = meter.report(now.unix_s, &self.ledger) {
            self.effects.push_back(Effect::Usage(report));
        }
    }

    /// The dashboard has taken a report, or could not be told; then it is sent again after the next heartbeat.
    pub fn usage_answered(&mut self, now: Now, outcome: Result<UsageAnswer, ClientError>) {
        match outcome {
            Ok(UsageAnswer { taken: true }) => {
                if self.meter.as_mut().is_some_and(Meter::confirmed) {
                    self.report_usage(now);
                }
            }
            // It knows another process as this node: the next heartbeat tells it of this one, and the report follows.
            Ok(UsageAnswer { taken: false }) => {
                tracing::debug!("the dashboard has not taken a report of usage");
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "the dashboard could not be told of the apps' usage");
            }
        }
    }
}
