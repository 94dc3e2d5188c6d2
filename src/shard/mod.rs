//! The loop of one core: sockets, handshakes, hand-overs, and the engine between them.
//!
//! One glommio task owns everything of a shard: the listener, all connections, the mailbox and the engine. Each turn
//! reads what is ready, lets the engine work, and writes once to each connection that has something queued. Load makes
//! the batches of a turn bigger, not its queues longer; an idle shard sleeps, and a message then waits for nothing.
//!
//! Invariants:
//! - Only the shard's own loop mutates the shard. To others go messages, and descriptors that close when dropped.
//! - The engine hears of dead and of full sockets between turns, never while a turn is being written out.
//! - A panic anywhere in here ends the process: half a node is worse than none.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod accept;
mod doors;
mod handshake;
mod letters;
pub mod mailbox;
pub mod metrics;
mod places;
mod poller;
mod socket;
mod traffic;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use rustc_hash::FxHashMap;

use self::mailbox::{Letter, Mailbox, Sender};
use self::metrics::ShardMetrics;
use self::places::Places;
use self::poller::{Poller, Ready};
use self::socket::{Sending, Socket};
use crate::auth::{KeySets, Policy, Verifier};
use crate::config::{RING_MEMORY_BYTES, ShardSettings};
use crate::control::messages::{ShardIndex, ToControl};
use crate::engine::Engine;
use crate::engine::batch::Batch;
use crate::engine::document::Document;
use crate::engine::event::{Event, Ticket};
use crate::engine::slab::{Key, Slab};
use crate::journal::{self, Command};
use crate::protocol::document::DocumentId;
use crate::time::Now;

/// The largest read from a socket, and so the most that one socket brings into one turn.
const READ_BYTES: usize = 64 << 10;

/// How precisely time-outs are kept: those that fall due within one such time share a waking.
const TICK: Duration = Duration::from_millis(50);

/// How long a shard waits for its sockets at most. As often it lets glommio's reactor run, which has little to do: nothing
/// of glommio's is outstanding but this one task.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// glommio's preemption timer, which it arms just before it runs tasks. If the thread is kept from the CPU until that has
/// fired (100 ms by default: a busy host, a stolen CPU), glommio 0.9.0 runs nothing, takes the timer's event, and parks
/// although the shard's task is ready to run: for ever, since nothing is armed that could wake it. An executor with one
/// task has nobody to preempt it for.
const NEVER_PREEMPT: Duration = Duration::from_secs(365 * 86_400);

/// Where a shard's messages to the control shard go: one batch per turn.
pub type ToControlSender = tokio::sync::mpsc::Sender<Vec<ToControl>>;

/// Everything a shard begins with.
#[derive(Debug)]
pub struct Setup {
    pub index: ShardIndex,
    /// The core to run on.
    pub cpu: Option<u16>,
    pub settings: Arc<ShardSettings>,
    pub keys: Arc<KeySets>,
    /// For [`crate::config::NodeSettings::listen`], and for the second, plain address if there is one.
    pub listeners: Vec<TcpListener>,
    /// What the first of them speaks; the second one speaks plain HTTP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub mailbox: Mailbox,
    /// Every shard's mailbox, by index; this shard's own too.
    pub shards: Vec<Sender>,
    pub control: ToControlSender,
    pub journal: Option<journal::thread::Sender>,
    /// This shard's documents that the journal had.
    pub recovered: Vec<(DocumentId, Document)>,
    /// The moment from which all threads of the node count.
    pub started: Instant,
    /// Hard to guess, and different for each shard.
    pub seed: u64,
}

/// Starts a shard on a thread of its own.
///
/// # Errors
/// When glommio cannot start: too little locked memory, no io_uring, or a core that does not exist.
pub fn spawn(setup: Setup) -> glommio::Result<ExecutorJoinHandle<io::Result<()>>, ()> {
    let placement = setup.cpu.map_or(Placement::Unbound, |cpu| Placement::Fixed(usize::from(cpu)));
    LocalExecutorBuilder::new(placement)
        .name(&format!("shard-{}", setup.index))
        .io_memory(RING_MEMORY_BYTES)
        .preempt_timer(NEVER_PREEMPT)
        .spawn(move || async move { Shard::new(setup)?.run().await })
}

/// What a token must say, by the configuration.
#[must_use]
pub fn token_policy(settings: &ShardSettings) -> Policy {
    Policy {
        issuer: settings.issuer.as_str().to_owned(),
        leeway_s: settings.engine.leeway.as_secs(),
        token_bytes_max: settings.token_bytes_max,
    }
}

struct Shard {
    index: ShardIndex,
    settings: Arc<ShardSettings>,
    started: Instant,
    engine: Engine,
    poller: Poller,
    mailbox: Mailbox,
    shards: Vec<Sender>,
    /// Letters that did not fit into a shard's mailbox yet.
    backlog: Vec<VecDeque<Letter>>,
    control: ToControlSender,
    to_control: Vec<ToControl>,
    journal: Option<journal::thread::Sender>,
    to_journal: VecDeque<Command>,
    /// By their numbers.
    listeners: Vec<TcpListener>,
    tls: Option<Arc<rustls::ServerConfig>>,
    listening: bool,
    /// The process is out of descriptors: accept again from then on.
    accept_again_at: Option<Duration>,
    sockets: Slab<Socket>,
    /// Of handshakes, in this turn.
    tls_reads: usize,
    /// Of sockets that are still in their handshake.
    places: Places,
    /// Handshakes that wait for the control shard.
    awaiting: FxHashMap<Ticket, Key>,
    /// When a handshake or a close must be over.
    deadlines: BinaryHeap<Reverse<(Duration, Key)>>,
    /// What was read behind the message with which a connection left the engine.
    unread: Option<(Key, Vec<u8>)>,
    /// Sockets to tell the engine about once the turn is written.
    dead: Vec<Key>,
    full: Vec<Key>,
    scratch: Box<[u8]>,
    batch: Batch,
    sends: Vec<Sending>,
    draining: bool,
    drained_said: bool,
    /// The number of the latest drain.
    drain_round: u32,
    shedding: bool,
    stopping: bool,
    metrics: ShardMetrics,
}

impl Shard {
    fn new(setup: Setup) -> io::Result<Self> {
        let poller = Poller::new()?;
        for (number, listener) in setup.listeners.iter().enumerate() {
            poller.add_listener(listener, number)?;
        }
        poller.add_mailbox(&setup.mailbox)?;
        let verifier = Verifier::new(
            token_policy(&setup.settings),
            setup.keys,
            setup.settings.token_cache_entries,
            setup.seed,
        );
        let count = u16::try_from(setup.shards.len()).unwrap_or(u16::MAX);
        let engine_settings = setup.settings.engine.clone();
        let mut engine = Engine::new(setup.index, count, engine_settings, verifier, setup.seed);
        let now = Now { monotonic: setup.started.elapsed(), unix_s: 0 };
        for (id, document) in setup.recovered {
            engine.handle_event(now, Event::Recovered { id, document: Box::new(document) });
        }
        Ok(Self {
            index: setup.index,
            engine,
            settings: setup.settings,
            started: setup.started,
            poller,
            mailbox: setup.mailbox,
            backlog: setup.shards.iter().map(|_| VecDeque::new()).collect(),
            shards: setup.shards,
            control: setup.control,
            to_control: Vec::new(),
            journal: setup.journal,
            to_journal: VecDeque::new(),
            listeners: setup.listeners,
            tls: setup.tls,
            listening: true,
            accept_again_at: None,
            sockets: Slab::default(),
            tls_reads: 0,
            places: Places::default(),
            awaiting: FxHashMap::default(),
            deadlines: BinaryHeap::new(),
            unread: None,
            dead: Vec::new(),
            full: Vec::new(),
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            batch: Batch::default(),
            sends: Vec::new(),
            draining: false,
            drained_said: false,
            drain_round: 0,
            shedding: false,
            stopping: false,
            metrics: ShardMetrics::default(),
        })
    }

    async fn run(mut self) -> io::Result<()> {
        // The key sets lie in the mailbox: read it before the first connection.
        self.take_letters(self.now(Instant::now()));
        let mut ready = Vec::new();
        let mut visited_reactor = Instant::now();
        while !self.stopping {
            let timeout = if self.mailbox.may_sleep() { self.wait_at_most() } else { Duration::ZERO };
            self.poller.wait(timeout, &mut ready)?;
            self.mailbox.awake();
            let began = Instant::now();
            let now = self.now(began);
            self.tls_reads = 0;
            for event in &ready {
                match *event {
                    Ready::Listener(number) => self.accept(now, number),
                    Ready::Mailbox => self.mailbox.drain_wake_ups(),
                    Ready::Socket { key, readable, writable, hung_up } => {
                        self.socket_ready(now, key, readable, writable, hung_up);
                    }
                }
            }
            let letters = self.take_letters(now);
            self.engine.handle_timeout(now);
            self.check_deadlines(now);
            self.finish_turn(now);
            if !ready.is_empty() || letters > 0 {
                self.metrics.turn_us.saturating_record(began.elapsed().as_micros() as u64);
            }
            if began - visited_reactor >= WAIT_MAX {
                visited_reactor = began;
                glommio::executor().yield_task_queue_now().await;
            }
        }
        Ok(())
    }

    /// Until the next time-out; what did not fit into another thread's queue is tried again soon.
    fn wait_at_most(&self) -> Duration {
        if !self.to_control.is_empty()
            || !self.to_journal.is_empty()
            || self.backlog.iter().any(|letters| !letters.is_empty())
        {
            return TICK;
        }
        let closing = self.deadlines.peek().map(|Reverse((at, _))| *at);
        let next = [self.engine.poll_timeout(), closing, self.accept_again_at].into_iter().flatten().min();
        next.map_or(WAIT_MAX, |at| at.saturating_sub(self.started.elapsed()).clamp(TICK, WAIT_MAX))
    }

    /// Carries out what the engine wants and writes what it has, until nothing is left of either.
    fn finish_turn(&mut self, now: Now) {
        loop {
            self.carry_out_effects(now);
            self.transmit(now);
            self.carry_out_effects(now);
            if self.dead.is_empty() && self.full.is_empty() {
                break;
            }
            self.tell_engine(now);
        }
        let updates = self.engine.counters().updates_in - self.metrics.updates_in_total;
        self.metrics.updates_in_total = self.engine.counters().updates_in;
        if updates > 0 {
            self.metrics.batch_updates.saturating_record(updates);
        }
        self.send_backlog();
        self.send_to_journal();
        // Connections that have said nothing yet are not waited for: load balancers hold such ones.
        let rests = self.sockets.len() == self.places.taken();
        if self.draining && !self.drained_said && self.engine.is_drained() && rests {
            self.drained_said = true;
            self.to_control.push(ToControl::Drained { shard: self.index, round: self.drain_round });
        }
        self.send_to_control();
    }

    fn now(&self, instant: Instant) -> Now {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { monotonic: instant.saturating_duration_since(self.started), unix_s: unix.as_secs() }
    }

    /// The counters as the control shard wants them.
    fn report(&self) -> ShardMetrics {
        let mut metrics = self.metrics.clone();
        let (counters, gauges) = (self.engine.counters(), self.engine.gauges());
        let tokens = self.engine.verifier().counters();
        metrics.connections = gauges.connections as u64;
        metrics.sessions = gauges.sessions as u64;
        metrics.documents = gauges.documents as u64;
        metrics.documents_shrunk = gauges.documents_shrunk as u64;
        metrics.outbox_bytes = self.sockets.iter().map(|(_, socket)| socket.outbox.len() as u64).sum();
        metrics.stalled_connections = self.sockets.iter().filter(|(_, socket)| socket.stalled).count() as u64;
        metrics.token_cache_entries = self.engine.verifier().cached() as u64;
        metrics.key_epoch = self.engine.verifier().keys().epoch();
        metrics.connections_total = counters.connections;
        metrics.sessions_total = counters.sessions;
        metrics.updates_out_total = counters.updates_out;
        metrics.updates_parked_total = counters.updates_parked;
        metrics.updates_refused_total = counters.updates_refused;
        metrics.awareness_in_total = counters.awareness_in;
        metrics.resyncs_total = counters.resyncs;
        metrics.crdt_panics_total = counters.crdt_panics;
        metrics.updates_acknowledged_total = counters.acknowledged;
        metrics.journal_refusals_total = counters.journal_refusals;
        metrics.unstored_bytes = gauges.unstored_bytes as u64;
        metrics.token_cache_hits_total = tokens.hits;
        metrics.token_verifications_total = tokens.verifications;
        metrics
    }
}
