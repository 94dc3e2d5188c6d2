//! All state of the control shard, as plain values: messages in, messages and effects out, time as an argument.
//!
//! [`super::run`] drives it: it hands in what arrived, then calls [`Control::settle`], which puts the turn's answers into
//! the shards' mailboxes, and carries out what [`Control::poll_effect`] yields.

mod feed;
mod keys;
mod questions;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use feed::Feed;
pub(super) use questions::{Checked, Health, Question};

use super::fleet::Fleet;
use super::handle::{DrainOutcome, ReloadError};
use super::keys::KeyStore;
use super::keys::feed::Heartbeat;
use super::keys::refresh::Refreshes;
use super::link::{Mailbox, ShardLink};
use super::messages::{ShardIndex, ToControl, ToShard};
use super::overload::{Load, Overload};
use super::settings::{Bounds, KeyFunctions, KeySettings, Live, MakeVerifier, Verify};
use super::storage::Storage;
use crate::config::ShardSettings;
use crate::limits::{Bucket, Buckets, Ledger, Meter, OpsWindows, PushedLimits, Report};
use crate::time::Now;
use crate::tls::{Expiry, Session};

/// How soon a mailbox that was full is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// What somebody else must do for the control shard: it does no I/O itself.
#[derive(Debug)]
pub(super) enum Effect {
    Serve {
        socket: OwnedFd,
        tls: Option<Box<Session>>,
        read: Vec<u8>,
        peer: IpAddr,
    },
    /// Answered by [`Control::heartbeat_answered`].
    Heartbeat(Heartbeat),
    /// Answered by [`Control::usage_answered`].
    Usage(Arc<Report>),
    /// Answered by [`Control::fetched`].
    Fetch {
        tenant: Uuid,
        entity_tag: Option<Box<str>>,
    },
}

/// Whoever waits for a tenant's keys.
#[derive(Debug)]
enum Waiter {
    Shard { shard: ShardIndex, ticket: u64 },
    Token { token: String, answer: oneshot::Sender<Checked> },
}

/// A tenant whose keys are fetched regularly.
#[derive(Debug)]
struct Polled {
    entity_tag: Option<Box<str>>,
    /// When a fetch last succeeded; at first, when the polling began.
    fresh_at: Duration,
}

/// A `/metrics` request that waits for the shards' figures.
struct Scrape {
    /// By shard, the number of the report to wait for.
    reports: Vec<u64>,
    deadline: Duration,
    answer: oneshot::Sender<String>,
}

/// A reload that waits for the shards to have read what it brought.
struct Reload {
    /// By shard, the number of the report behind it.
    reports: Vec<u64>,
    deadline: Duration,
    outcome: Result<(), ReloadError>,
    done: oneshot::Sender<Result<(), ReloadError>>,
}

struct Drain {
    deadline: Duration,
    waiting: Vec<oneshot::Sender<DrainOutcome>>,
}

/// What [`Control::new`] is told.
pub(super) struct Parts {
    pub live: Live,
    pub bounds: Bounds,
    pub make_verifier: MakeVerifier,
    pub key_functions: KeyFunctions,
    pub mailboxes: Vec<Mailbox>,
    /// Reads this process's resident memory.
    pub rss_bytes: Box<dyn FnMut() -> Option<u64>>,
    /// `None` without TLS.
    pub certificate: Option<Expiry>,
    /// What usage is reported with; `None` if there is nobody to report it to.
    pub meter: Option<Meter>,
}

pub(super) struct Control {
    bounds: Bounds,
    shards: Vec<ShardLink>,
    ledger: Ledger,
    ops: OpsWindows,
    buckets: Buckets,
    overload: Overload,
    storage: Storage,
    rss_bytes_now: Option<u64>,
    rss_bytes: Box<dyn FnMut() -> Option<u64>>,
    certificate: Option<Expiry>,

    store: KeyStore,
    refreshes: Refreshes<Waiter>,
    /// The tenants whose URL is polled.
    polled: BTreeMap<Uuid, Polled>,
    /// Tenants that are being fetched, and whether the feed has said something newer meanwhile.
    fetching: BTreeMap<Uuid, bool>,
    feed: Feed,
    fleet: Fleet,
    meter: Option<Meter>,
    pushed: PushedLimits,
    keys: KeySettings,
    /// Of the latest reload: what a token is checked by, besides the keys.
    shard_settings: Arc<ShardSettings>,
    fetches_total: u64,
    fetch_failures_total: u64,
    make_verifier: MakeVerifier,
    verify: Verify,

    scrapes: Vec<Scrape>,
    reloads: Vec<Reload>,
    /// This node's region and URL, as the latest reload has them.
    region: Box<str>,
    public_url: Box<str>,
    draining: bool,
    /// The process ends after this drain: the dashboard can't call it off.
    is_ending: bool,
    drain_round: u32,
    drain_spread: Duration,
    drain: Option<Drain>,
    report_at: Duration,
    poll_at: Duration,
    effects: VecDeque<Effect>,
    http_requests_total: u64,
    pub http_refused_total: u64,
}

impl Control {
    pub fn new(parts: Parts, now: Now) -> Self {
        let Parts {
            live,
            bounds,
            make_verifier,
            key_functions,
            mailboxes,
            mut rss_bytes,
            certificate,
            meter,
        } = parts;
        let store = KeyStore::new(key_functions);
        let keys = live.keys;
        let begin = |&tenant: &Uuid| (tenant, Polled { entity_tag: None, fresh_at: now.monotonic });
        let indexed = mailboxes.into_iter().zip(0..);
        Self {
            bounds,
            shards: indexed.map(|(mailbox, index)| ShardLink::new(index, mailbox)).collect(),
            ledger: Ledger::new(),
            ops: OpsWindows::new(),
            buckets: Buckets::new(live.rates, live.exempt, bounds.buckets_max),
            overload: Overload::new(live.marks),
            storage: Storage::default(),
            rss_bytes_now: rss_bytes(),
            rss_bytes,
            certificate,
            verify: make_verifier(&live.shards, store.sets()),
            shard_settings: live.shards,
            make_verifier,
            store,
            refreshes: Refreshes::new(keys.refresh_interval, keys.refreshes_per_minute),
            polled: keys.tenants.iter().map(begin).collect(),
            fetching: BTreeMap::new(),
            feed: Feed::default(),
            fleet: Fleet::default(),
            meter,
            pushed: PushedLimits::default(),
            keys,
            fetches_total: 0,
            fetch_failures_total: 0,
            scrapes: Vec::new(),
            reloads: Vec::new(),
            region: live.region,
            public_url: live.public_url,
            draining: false,
            is_ending: false,
            drain_round: 0,
            drain_spread: live.drain_spread,
            drain: None,
            report_at: now.monotonic,
            poll_at: now.monotonic,
            effects: VecDeque::new(),
            http_requests_total: 0,
            http_refused_total: 0,
        }
    }

    /// One message of a shard.
    pub fn handle(&mut self, now: Now, message: ToControl) {
        match message {
            ToControl::Reserve { shard, ticket, claim, limits, issued_unix_s } => {
                let limits = self.pushed.over(now.monotonic, claim.app, limits, issued_unix_s);
                let ledger = &mut self.ledger;
                Self::answer(&mut self.shards, &self.bounds, shard, || ToShard::Reserved {
                    ticket,
                    outcome: ledger.reserve(claim, limits).map(|()| limits),
                });
            }
            ToControl::Release { claim } => self.ledger.release(claim),
            ToControl::LeaseOps { shard, app, ops_per_minute, wanted } => {
                let ops_per_minute = self.pushed.ops_over(now.monotonic, app, ops_per_minute);
                let ops = &mut self.ops;
                Self::answer(&mut self.shards, &self.bounds, shard, || {
                    let lease = ops.lease(now.monotonic, app, ops_per_minute, wanted);
                    ToShard::OpsLeased { app, granted: lease.granted, window_ends: lease.window_ends }
                });
            }
            ToControl::Admit { shard, ticket, ip } => {
                let buckets = &mut self.buckets;
                Self::answer(&mut self.shards, &self.bounds, shard, || ToShard::Admitted {
                    ticket,
                    allowed: buckets.admit(now.monotonic, Bucket::Upgrade, ip),
                });
            }
            ToControl::RefreshKeys { shard, ticket, tenant, key_id } => {
                self.refresh(now, tenant, &key_id, Waiter::Shard { shard, ticket });
            }
            ToControl::Http { socket, tls, read, peer } => {
                self.http_requests_total += 1;
                self.effects.push_back(Effect::Serve { socket, tls, read, peer });
            }
            ToControl::Metrics { shard, metrics } => {
                if let Some(link) = self.shards.get_mut(usize::from(shard)) {
                    link.reported(now.monotonic, *metrics);
                }
            }
            ToControl::Journal { figures } => self.storage.reported(now.monotonic, figures),
            ToControl::OpsDone { ops } => {
                if let Some(meter) = &mut self.meter {
                    ops.into_iter().for_each(|(app, ops)| meter.count(app, ops));
                }
            }
            ToControl::Drained { shard, round } => {
                if let Some(link) = self.shards.get_mut(usize::from(shard)) {
                    link.drained |= round == self.drain_round;
                }
                if self.draining && self.shards.iter().all(|link| link.drained) {
                    tracing::info!("every session is closed");
                }
            }
        }
    }

    /// Decides a shard's question, if its answer can be kept until the shard takes it.
    fn answer(
        shards: &mut [ShardLink],
        bounds: &Bounds,
        shard: ShardIndex,
        decide: impl FnOnce() -> ToShard,
    ) {
        match shards.get_mut(usize::from(shard)) {
            Some(link) => {
                if link.has_room(bounds) {
                    link.send(decide());
                }
            }
            None => tracing::error!(shard, "a question came from a shard that this node does not have"),
        }
    }

    fn broadcast(&mut self, message: impl Fn() -> ToShard) {
        for link in &mut self.shards {
            link.send(message());
        }
    }

    /// Refuse new sessions, end the living ones over this time; `done` hears when every shard is through, or which are not.
    pub fn drain(&mut self, now: Now, over: Duration, done: oneshot::Sender<DrainOutcome>) {
        if !self.is_ending {
            // Also if the node drains already: this drain's time counts now.
            self.is_ending = true;
            self.begin_drain(over);
        }
        let deadline = now.monotonic.saturating_add(over).saturating_add(self.bounds.drain_slack);
        let drain = self.drain.get_or_insert_with(|| Drain { deadline, waiting: Vec::new() });
        drain.waiting.push(done);
    }

    fn begin_drain(&mut self, over: Duration) {
        self.draining = true;
        self.drain_round += 1;
        tracing::info!(over_s = over.as_secs_f32(), "draining");
        self.shards.iter_mut().for_each(|link| link.drained = false);
        let round = self.drain_round;
        self.broadcast(|| ToShard::Drain { over, round });
    }

    /// The dashboard's word on whether this node is to be drained; the end of the process has the last one.
    fn set_wanted(&mut self, now: Now, drained: bool) {
        if self.feed.wants_drain == drained {
            return;
        }
        self.feed.wants_drain = drained;
        if self.is_ending {
            return;
        }
        if drained {
            self.begin_drain(self.drain_spread);
        } else {
            self.draining = false;
            tracing::info!("the dashboard wants this node back: new sessions are welcome");
            self.broadcast(|| ToShard::Accept);
        }
        self.beat_soon(now);
    }

    /// Takes new settings; what they change applies from the next decision.
    pub fn reload(&mut self, now: Now, live: &Live) {
        self.buckets.reconfigure(live.rates, live.exempt.clone());
        self.overload.reconfigure(live.marks);
        self.shard_settings = Arc::clone(&live.shards);
        (self.region, self.public_url) = (live.region.clone(), live.public_url.clone());
        self.drain_spread = live.drain_spread;
        self.reload_keys(now, &live.keys);
        self.broadcast(|| ToShard::Settings { settings: Arc::clone(&live.shards) });
    }

    /// The settings and keys of a reload are on their way to the shards; `done` hears the outcome once they have them.
    pub fn reloaded(
        &mut self,
        now: Now,
        outcome: Result<(), ReloadError>,
        done: oneshot::Sender<Result<(), ReloadError>>,
    ) {
        let reports = self.shards.iter_mut().map(|link| link.ask_report_behind(now.monotonic)).collect();
        let deadline = now.monotonic + self.bounds.silence_max;
        self.reloads.push(Reload { reports, deadline, outcome, done });
    }

    fn settle_reloads(&mut self, now: Now) {
        for reload in std::mem::take(&mut self.reloads) {
            let owing =
                self.shards.iter().zip(&reload.reports).filter(|(link, report)| !link.has_reported(**report));
            let unanswered: Vec<ShardIndex> = owing.map(|(link, _)| link.index).collect();
            if !unanswered.is_empty() && now.monotonic < reload.deadline {
                self.reloads.push(reload);
                continue;
            }
            let outcome =
                if unanswered.is_empty() { Ok(()) } else { Err(ReloadError::Unanswered(unanswered)) };
            // The operator may have stopped waiting.
            let _ = reload.done.send(reload.outcome.and(outcome));
        }
    }

    /// Tells every shard to leave its loop.
    pub fn stop(&mut self) {
        self.broadcast(|| ToShard::Stop);
    }

    /// Does what has become due. Call it when [`Self::poll_timeout`] is reached; more often does no harm.
    pub fn handle_timeout(&mut self, now: Now) {
        if now.monotonic >= self.report_at {
            self.report_at = now.monotonic + self.bounds.report_interval;
            self.rss_bytes_now = (self.rss_bytes)();
            self.ops.forget_ended(now.monotonic);
            self.pushed.forget_ended(now.monotonic);
            self.buckets.sweep(now.monotonic);
            for link in &mut self.shards {
                link.ask_report(now.monotonic);
            }
        }
        if now.monotonic >= self.poll_at {
            self.poll_keys(now);
        }
        self.beat(now);
    }

    /// Ends a turn: completes what can be completed and hands each shard this turn's messages as one batch.
    pub fn settle(&mut self, now: Now) {
        while let Some(tenant) = self.refreshes.start_next() {
            self.fetches_total += 1;
            self.fetching.insert(tenant, false);
            let entity_tag = self.polled.get(&tenant).and_then(|polled| polled.entity_tag.clone());
            self.effects.push_back(Effect::Fetch { tenant, entity_tag });
        }
        self.storage.check(now.monotonic, self.bounds.silence_max);
        if let Some(on) = self.overload.observe(self.load()) {
            tracing::warn!(on, load = ?self.load(), "overload: new connections are {}", if on { "refused" } else { "welcome again" });
            self.broadcast(|| ToShard::Shed { on });
        }
        for link in &mut self.shards {
            link.flush(now.monotonic);
            link.check(now.monotonic, &self.bounds);
        }
        self.settle_scrapes(now);
        self.settle_reloads(now);
        self.settle_drain(now);
    }

    /// Both counts are looked at: the shards' own is late by a report, the ledger knows only sessions with a token.
    fn load(&self) -> Load {
        let open = self.shards.iter().filter_map(|link| link.metrics.as_ref()).map(|m| m.connections).sum();
        Load {
            connections: self.ledger.totals().connections.max(open),
            rss_bytes: self.rss_bytes_now,
            storage_failed: self.storage.has_failed(),
        }
    }

    fn settle_drain(&mut self, now: Now) {
        let Some(drain) = &self.drain else {
            return;
        };
        let stragglers: Vec<_> =
            self.shards.iter().filter(|link| !link.drained).map(|link| link.index).collect();
        if !stragglers.is_empty() && now.monotonic < drain.deadline {
            return;
        }
        if !stragglers.is_empty() {
            tracing::error!(?stragglers, "shards have not finished draining in time");
        }
        for done in self.drain.take().into_iter().flat_map(|drain| drain.waiting) {
            // Whoever asked may have stopped waiting.
            let _ = done.send(DrainOutcome { stragglers: stragglers.clone() });
        }
    }

    /// When [`Self::handle_timeout`] and [`Self::settle`] are due next if nothing else happens.
    pub fn poll_timeout(&self, now: Now) -> Duration {
        let scrapes = self.scrapes.iter().map(|scrape| scrape.deadline);
        let reloads = self.reloads.iter().map(|reload| reload.deadline);
        let drain = self.drain.iter().map(|drain| drain.deadline);
        let retry = self.has_backlog().then_some(now.monotonic + RETRY_AFTER);
        let due = scrapes
            .chain(reloads)
            .chain(drain)
            .chain(retry)
            .chain(self.feed.beat_at())
            .fold(self.report_at, Duration::min);
        if self.keys.jwks_url.is_some() { due.min(self.poll_at) } else { due }
    }

    /// Whether messages still wait for a mailbox.
    pub fn has_backlog(&self) -> bool {
        self.shards.iter().any(|link| link.backlog() > 0)
    }

    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}
