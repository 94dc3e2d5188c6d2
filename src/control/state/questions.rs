//! What the HTTP endpoints ask of the one owner of all state.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Control, Scrape, Waiter};
use crate::auth::{Grant, Limits};
use crate::control::fleet::{Here, Place};
use crate::control::metrics::{self, NodeFigures, ShardFigures};
use crate::limits::{Bucket, Usage};
use crate::protocol::close::Refusal;
use crate::protocol::document::{DocumentId, DocumentName};
use crate::time::Now;
use crate::tls::Expiry;

/// Whether the node takes new sessions, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::control) enum Health {
    Healthy,
    /// A shard does not answer, or the journal stores nothing.
    Degraded,
    Overloaded,
    Draining,
}

impl Health {
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Degraded, Self::Overloaded, Self::Draining];

    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
        }
    }
}

/// The outcome of checking a token.
pub(in crate::control) type Checked = Result<Arc<Grant>, Refusal>;

/// Where a document is, and whether anybody is in it.
#[derive(Debug)]
pub(in crate::control) struct Discovered {
    pub place: Place,
    pub is_new: bool,
}

/// A question of an HTTP request. An answer that nobody waits for any more is thrown away.
#[derive(Debug)]
pub(in crate::control) enum Question {
    Admit {
        bucket: Bucket,
        ip: IpAddr,
        answer: oneshot::Sender<bool>,
    },
    /// With what a degraded node lacks.
    Health {
        answer: oneshot::Sender<(Health, Option<&'static str>)>,
    },
    Metrics {
        answer: oneshot::Sender<String>,
    },
    Check {
        token: String,
        answer: oneshot::Sender<Checked>,
    },
    /// With the limits that hold for whoever has this grant.
    Usage {
        grant: Arc<Grant>,
        answer: oneshot::Sender<(Usage, Limits)>,
    },
    Discover {
        grant: Arc<Grant>,
        name: DocumentName,
        answer: oneshot::Sender<Discovered>,
    },
}

impl Control {
    pub fn question(&mut self, now: Now, question: Question) {
        // Nobody waiting for an answer is no failure of ours: the client has gone.
        match question {
            Question::Admit { bucket, ip, answer } => {
                let _ = answer.send(self.buckets.admit(now.monotonic, bucket, ip));
            }
            Question::Health { answer } => {
                let health = self.health();
                let _ = answer.send((health, self.complaint().filter(|_| health == Health::Degraded)));
            }
            Question::Usage { grant, answer } => {
                let Grant { app, limits, issued_unix_s, .. } = *grant;
                let limits = self.pushed.over(now.monotonic, app, limits, issued_unix_s);
                let _ = answer.send((self.ledger.usage(app), limits));
            }
            Question::Discover { grant, name, answer } => {
                let _ = answer.send(self.discover(&grant, name));
            }
            Question::Check { token, answer } => self.check(now, token, answer),
            Question::Metrics { answer } => {
                let reports = self.shards.iter_mut().map(|link| link.ask_report(now.monotonic)).collect();
                let deadline = now.monotonic + self.bounds.metrics_wait;
                self.scrapes.push(Scrape { reports, deadline, answer });
            }
        }
    }

    fn check(&mut self, now: Now, token: String, answer: oneshot::Sender<Checked>) {
        match (self.verify)(now.unix_s, &token) {
            Ok(grant) => drop(answer.send(Ok(grant))),
            Err(refused) => match refused.unknown_key {
                Some((tenant, key_id)) => {
                    self.refresh(now, tenant, &key_id, Waiter::Token { token, answer });
                }
                None => drop(answer.send(Err(refused.refusal))),
            },
        }
    }

    /// Whether a document is open is known of this node alone.
    fn discover(&self, grant: &Grant, name: DocumentName) -> Discovered {
        let app = grant.app;
        let document = DocumentId { app, name }.stable_hash();
        let accepts = !self.draining && !self.overload.is_on();
        let here = Here { region: &self.region, url: &self.public_url, accepts };
        let place = self.fleet.place(here, &grant.region, document);
        Discovered { place, is_new: !self.ledger.is_active(app, document) }
    }

    pub fn health(&self) -> Health {
        if self.draining {
            Health::Draining
        } else if !self.storage.is_well() {
            Health::Degraded
        } else if self.overload.is_on() {
            Health::Overloaded
        } else if !self.shards.iter().all(super::ShardLink::is_well) {
            Health::Degraded
        } else {
            Health::Healthy
        }
    }

    /// What is wrong with the node itself, and what an operator can do.
    fn complaint(&self) -> Option<&'static str> {
        if self.storage.has_failed() {
            Some("the journal has failed: see to its disk, then restart the node")
        } else if !self.storage.is_well() {
            Some("the journal does not answer: its disk may hang")
        } else {
            self.shards.iter().any(|link| !link.is_well()).then_some("a shard does not answer")
        }
    }

    /// Answers the scrapes that have all they wait for, or can wait no longer. A shard known to be silent is not waited for.
    pub(super) fn settle_scrapes(&mut self, now: Now) {
        let shards = &self.shards;
        let is_done = |scrape: &mut Scrape| {
            let mut links = shards.iter().zip(&scrape.reports);
            scrape.deadline <= now.monotonic
                || links.all(|(link, &report)| link.has_reported(report) || !link.is_well())
        };
        let done: Vec<_> = self.scrapes.extract_if(.., is_done).collect();
        if done.is_empty() {
            return;
        }
        for scrape in done {
            let reported =
                shards.iter().zip(&scrape.reports).map(|(l, &number)| l.has_reported(number)).collect();
            let _ = scrape.answer.send(metrics::encode(self.figures(now, reported)));
        }
    }

    fn figures(&self, now: Now, reported: Vec<bool>) -> NodeFigures {
        let shards = self.shards.iter().zip(reported).map(|(link, is_up)| ShardFigures {
            index: link.index,
            is_up,
            backlog: link.backlog() as u64,
            unanswered_total: link.unanswered_total,
            faults_total: link.faults_total,
            metrics: link.metrics.clone().unwrap_or_default(),
        });
        NodeFigures {
            uptime_s: now.monotonic.as_secs_f64(),
            shards: shards.collect(),
            journal: self.storage.figures(),
            health: self.health(),
            ledger: self.ledger.totals(),
            ops_windows: self.ops.len() as u64,
            buckets: self.buckets.len() as u64,
            buckets_refused: Bucket::ALL.map(|bucket| (bucket, self.buckets.refused_total(bucket))),
            buckets_undecided_total: self.buckets.undecided_total(),
            key_tenants: self.store.tenant_count() as u64,
            keys: self.store.key_count() as u64,
            keys_revoked: self.store.revoked_count() as u64,
            key_fetches_total: self.fetches_total,
            key_fetch_failures_total: self.fetch_failures_total,
            key_refreshes_limited_total: self.refreshes.limited_total,
            key_epoch: self.store.sets().epoch(),
            key_feed_followed: self.feed.is_followed(),
            key_feed_documents_total: self.feed.documents_total,
            key_feed_losses_total: self.feed.losses_total,
            http_requests_total: self.http_requests_total,
            http_refused_total: self.http_refused_total,
            rss_bytes: self.rss_bytes_now,
            certificate_ends_unix_s: self.certificate.as_ref().map(Expiry::unix_s),
        }
    }
}
