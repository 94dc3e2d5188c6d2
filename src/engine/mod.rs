//! A shard's documents and sessions: events in, effects out.
//!
//! The engine is synchronous. It does no I/O, reads no clock and draws no randomness: time, keys and a seed are
//! arguments, so the same engine runs in a shard's loop and in a simulation.
//!
//! Two halves meet in it. A [`connection`] is a socket of this shard: which wire it speaks, its tokens, its place in
//! the limits, and its channels, one per document it carries. A [`session`] is one client's place in a document of this
//! shard; a [`link`] is its way back to the socket, here or on another shard. A y-websocket connection has both halves
//! on one shard; a Hocuspocus socket may carry documents of any.
//!
//! Invariants:
//! - A session belongs to exactly one room and one link; what leaves one leaves both.
//! - Every claim that was granted is released exactly once, however its connection ends.
//! - Nothing is relayed or acknowledged before it is applied, or acknowledged before the journal has it.
//! - A refusal below 4000 ends the socket, one from 4000 up ends one document of a Hocuspocus socket.

mod admission;
pub mod awareness;
pub mod batch;
mod behind;
pub mod connection;
mod deadlines;
pub mod document;
pub mod event;
mod keeping;
mod leases;
mod legacy;
pub mod link;
mod ops;
pub mod prescan;
mod remote;
mod room;
mod rooms;
pub mod session;
pub mod settings;
pub mod slab;
pub mod state_vector;
mod timers;
mod tokens;
mod turn;
mod updates;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use self::batch::Batch;
use self::connection::Connection;
use self::event::{ConnectionId, Effect, Event, Mail, MailBody, ShardIndex, Ticket};
use self::keeping::Keeping;
use self::link::{Link, Target};
use self::ops::OpsMeter;
use self::prescan::Scan;
use self::rooms::Rooms;
use self::session::Session;
use self::slab::{Key, Slab, Table};
use self::timers::{Timer, Timers};
use self::turn::TurnPool;
use crate::auth::Grant;
use crate::auth::TokenError;
use crate::auth::verify::{Policy, Verifier};
use crate::limits::Claim;
use crate::protocol::document::AppId;
use crate::splitmix;
use crate::time::Now;

pub use self::settings::Settings;

/// What the engine counted since it was made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    pub connections: u64,
    pub sessions: u64,
    pub updates_in: u64,
    pub updates_out: u64,
    pub updates_parked: u64,
    /// Of sessions that may only read.
    pub updates_refused: u64,
    pub awareness_in: u64,
    pub resyncs: u64,
    pub crdt_panics: u64,
    /// Updates whose clients were told that they are stored.
    pub acknowledged: u64,
    /// Updates refused because too much waited for the journal.
    pub journal_refusals: u64,
}

/// What the engine holds now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gauges {
    pub connections: usize,
    pub sessions: usize,
    pub documents: usize,
    pub documents_shrunk: usize,
    /// What waits for the journal.
    pub unstored_bytes: usize,
}

/// A question to the control shard that is not answered yet.
#[derive(Debug)]
enum Question {
    Claim { connection: ConnectionId, channel: u32, claim: Claim, asked_at: Duration },
    Keys { connection: ConnectionId, channel: u32, token: Box<str>, asked_at: Duration },
}

/// One shard's documents and sessions.
#[derive(Debug)]
pub struct Engine {
    shard: ShardIndex,
    shards: u16,
    settings: Settings,
    verifier: Verifier,
    seed: u64,
    connections: Table<Connection>,
    links: Slab<Link>,
    /// Links to sockets of other shards, which live as long as a session uses them.
    remote_links: FxHashMap<(ShardIndex, ConnectionId), Key>,
    rooms: Rooms,
    sessions: Slab<Session>,
    meters: FxHashMap<AppId, OpsMeter>,
    /// Of meters that are gone, to be told with the others'.
    ops_done: Vec<(AppId, u64)>,
    questions: FxHashMap<Ticket, Question>,
    /// With so many it is worth looking for those that were never answered.
    questions_max: usize,
    next_ticket: Ticket,
    timers: Timers,
    effects: VecDeque<Effect>,
    dirty: Vec<Key>,
    /// Rooms that have a turn open.
    turn_rooms: Vec<Key>,
    turns: TurnPool,
    scan: Scan,
    draining: bool,
    keeping: Keeping,
    counters: Counters,
}

impl Engine {
    /// `seed` spreads what is jittered (retry hints, the times of a drain).
    #[must_use]
    pub fn new(shard: ShardIndex, shards: u16, settings: Settings, verifier: Verifier, seed: u64) -> Self {
        Self {
            shard,
            shards,
            settings,
            verifier,
            seed,
            connections: Table::default(),
            links: Slab::default(),
            remote_links: FxHashMap::default(),
            rooms: Rooms::default(),
            sessions: Slab::default(),
            meters: FxHashMap::default(),
            ops_done: Vec::new(),
            questions: FxHashMap::default(),
            questions_max: 0,
            next_ticket: 1,
            timers: Timers::default(),
            effects: VecDeque::new(),
            dirty: Vec::new(),
            turn_rooms: Vec::new(),
            turns: TurnPool::default(),
            scan: Scan::default(),
            draining: false,
            keeping: Keeping::default(),
            counters: Counters::default(),
        }
    }

    /// Takes in one event. What follows from it comes out of [`Engine::poll_effect`] and [`Engine::poll_transmit`].
    pub fn handle_event(&mut self, now: Now, event: Event<'_>) {
        match event {
            Event::Opened { connection, opening } => self.connection_opened(now, connection, opening),
            Event::Received { connection, message } => self.connection_received(now, connection, message),
            Event::Closed { connection } => self.forget_connection(now, connection),
            Event::Stalled { connection } => self.connection_stalled(now, connection),
            Event::Progressed { connection } => self.connection_progressed(now, connection),
            Event::Resumed { connection } => self.connection_resumed(now, connection),
            Event::Mail { from, mail } => self.mail_received(now, from, mail),
            Event::Reserved { ticket, outcome } => self.claim_answered(now, ticket, outcome),
            Event::OpsLeased { app, granted, window_ends } => self.ops_leased(now, app, granted, window_ends),
            Event::KeysRefreshed { ticket } => self.keys_refreshed(now, ticket),
            Event::Keys { sets } => self.verifier.replace_keys(sets),
            Event::KeyRevoked { tenant, key_id } => self.key_revoked(now, tenant, &key_id),
            Event::Drain { over } => self.drain(now, over),
            Event::Accept => self.call_off_drain(),
            Event::Journal(reply) => self.journal_said(now, reply),
            Event::Recovered { id, document } => self.document_recovered(now, id, *document),
        }
    }

    /// Does everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop_due(now.monotonic) {
            match timer {
                Timer::Connection(connection) => self.connection_timer(now, connection),
                Timer::Grace(room) => self.grace_ended(now, room),
                Timer::Shrink(room) => self.shrink_room(now, room),
                Timer::Awareness(room) => self.expire_awareness(now, room),
                Timer::CatchUp(link) => self.catch_up(now, link),
                Timer::OpsWindow => self.check_meters(now),
            }
        }
    }

    /// When [`Engine::handle_timeout`] has something to do next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// What is for the journal of this turn comes last, as one batch.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front().or_else(|| self.keeping.take_batch())
    }

    /// Gathers what this turn has for the sockets of this shard, as much as a batch holds; call it until it gathers
    /// nothing.
    ///
    /// Bytes for sockets of other shards leave as [`Effect::Mail`] in the course of it, so poll effects afterwards.
    pub fn poll_transmit(&mut self, now: Now, batch: &mut Batch) -> bool {
        while !batch.is_full()
            && let Some(key) = self.dirty.pop()
        {
            self.gather(now, key, batch);
        }
        if self.dirty.is_empty() {
            for room in self.turn_rooms.drain(..) {
                if let Some(turn) = self.rooms.get_mut(room).and_then(|room| room.turn.take()) {
                    self.turns.give_back(turn);
                }
            }
        }
        !batch.is_empty()
    }

    /// What this turn has for one link.
    fn gather(&mut self, now: Now, key: Key, batch: &mut Batch) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.dirty = false;
        let at = batch.bytes().len();
        let turn_of = |session: &Session| self.rooms.get(session.room).and_then(|room| room.turn.as_ref());
        if link.frames.is_empty()
            && let (Target::Socket(connection), &[only]) = (link.target, &link.sessions[..])
            && let Some(session) = self.sessions.get(only)
            && let Some(turn) = turn_of(session)
            && let Some(segment) = session.whole_turn(only, turn)
        {
            if segment.is_empty() {
                return;
            }
            self.counters.updates_out += segment.frames();
            batch.give_whole(connection, session.room, session.wire, segment.bytes());
            return self.note_sent(now, connection);
        }
        // Taken, not drained: an idle connection holds no buffer.
        let frames = std::mem::take(&mut link.frames);
        batch.bytes().extend_from_slice(&frames);
        for &session_key in &link.sessions {
            let Some(session) = self.sessions.get(session_key) else { continue };
            let Some(turn) = turn_of(session) else { continue };
            self.counters.updates_out += session.copy_turn(session_key, turn, batch.bytes());
        }
        if batch.bytes().len() == at {
            return;
        }
        match link.target {
            Target::Socket(connection) => {
                batch.give(connection, at);
                self.note_sent(now, connection);
            }
            Target::Shard { shard, connection } => {
                let mail = Mail { connection, body: MailBody::Deliver { frames: batch.take(at) } };
                self.effects.push_back(Effect::Mail { to: shard, mail });
            }
        }
    }

    fn note_sent(&mut self, now: Now, connection: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(connection) {
            connection.sent_at = now.monotonic.into();
        }
    }

    /// Checks a token, from the verified-token cache where it is there.
    ///
    /// # Errors
    /// [`TokenError`] names the check that failed.
    pub fn verify(&mut self, now: Now, token: &str) -> Result<Arc<Grant>, TokenError> {
        self.verifier.verify(now.unix_s, token)
    }

    #[must_use]
    pub const fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Replaces what can change while running; it applies from the next event on.
    pub fn replace_settings(&mut self, settings: Settings, policy: Policy) {
        self.settings = settings;
        if *self.verifier.policy() != policy {
            self.verifier.set_policy(policy);
        }
    }

    /// Whether a connection is here: not closed, not moved.
    #[must_use]
    pub fn knows(&self, connection: ConnectionId) -> bool {
        self.connections.get(connection).is_some()
    }

    /// A ticket that no question of this engine has or had.
    pub const fn next_ticket(&mut self) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        ticket
    }

    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let shrunk = self.rooms.iter().filter(|(_, room)| !room.document.is_live()).count();
        Gauges {
            connections: self.connections.len(),
            sessions: self.sessions.len(),
            documents: self.rooms.len(),
            documents_shrunk: shrunk,
            unstored_bytes: self.keeping.waiting_bytes(),
        }
    }

    /// Nobody is left.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.draining && self.connections.is_empty() && self.sessions.is_empty()
    }

    /// A number below `bound`, from the seed.
    pub const fn jitter(&mut self, bound: u64) -> u64 {
        splitmix::next(&mut self.seed) % bound
    }

    /// Lists a link as having something to send.
    fn mark_dirty(&mut self, key: Key) {
        if let Some(link) = self.links.get_mut(key) {
            link.list(key, &mut self.dirty);
        }
    }

    /// The link's own frames, to append to; it is listed for sending.
    fn frames(&mut self, key: Key) -> Option<&mut Vec<u8>> {
        self.mark_dirty(key);
        self.links.get_mut(key).map(|link| &mut link.frames)
    }
}

#[cfg(test)]
pub(crate) mod simulation;
#[cfg(test)]
mod tests;
