//! A room: a document with everybody who is in it, their awareness, and the turn that is being gathered for them. What
//! goes round in it, and the times it must keep.
//!
//! Not here: who comes and goes ([`super::session`]) and what changes the document ([`super::updates`]).

use std::time::Duration;

use smallvec::SmallVec;

use super::Engine;
use super::awareness::{Awareness, AwarenessError, AwarenessLimits, Entries};
use super::document::Document;
use super::keeping::Stand;
use super::session::Session;
use super::slab::Key;
use super::timers::Timer;
use super::turn::{About, Turn};
use crate::protocol::close::Refusal;
use crate::protocol::document::DocumentId;
use crate::protocol::message::{Framing, Wire};
use crate::time::{Moment, Now};

/// How often awareness is looked through for states that nobody renewed.
const AWARENESS_CHECK: Duration = Duration::from_secs(5);

/// How often a recovered document whose tenant has no keys yet is looked at.
const KEYS_CHECK: Duration = Duration::from_secs(1);

/// A document and everybody in it.
#[derive(Debug)]
pub struct Room {
    pub(super) id: DocumentId,
    pub(super) document: Document,
    pub(super) awareness: Awareness,
    pub(super) sessions: SmallVec<[Key; 2]>,
    pub(super) turn: Option<Box<Turn>>,
    /// Sessions that share each of the turn's framings, and those with a framing of their own.
    y_websocket: u32,
    hocuspocus: u32,
    own_key: u32,
    pub(super) updated_at: Moment,
    /// How often the document has changed: a session that missed something knows by this.
    pub(super) changes: u64,
    /// What the journal has of it.
    pub(super) stand: Stand,
    /// Since when nobody is here.
    pub(super) empty_since: Option<Moment>,
    /// It is from before this process began.
    pub(super) recovered: bool,
    shrink_set: bool,
    awareness_set: bool,
}

impl Room {
    pub(super) fn new(id: DocumentId, now: Duration) -> Self {
        Self {
            id,
            document: Document::default(),
            awareness: Awareness::default(),
            sessions: SmallVec::new(),
            turn: None,
            y_websocket: 0,
            hocuspocus: 0,
            own_key: 0,
            updated_at: now.into(),
            changes: 0,
            stand: Stand::Unkept,
            empty_since: None,
            recovered: false,
            shrink_set: false,
            awareness_set: false,
        }
    }

    pub(super) fn count(&mut self, session: &Session) -> &mut u32 {
        match (session.wire, &session.key) {
            (_, Some(_)) => &mut self.own_key,
            (Wire::YWebsocket, None) => &mut self.y_websocket,
            (Wire::Hocuspocus, None) => &mut self.hocuspocus,
        }
    }
}

impl Engine {
    /// Puts a frame into the room's turn: once per framing, whoever many read it.
    pub(super) fn relay(
        &mut self,
        room_key: Key,
        author: Option<Key>,
        about: About,
        write: impl Fn(Framing<'_>, &mut Vec<u8>),
    ) {
        let Some(room) = self.rooms.get_mut(room_key) else { return };
        let Room { id, turn, sessions, y_websocket, hocuspocus, own_key, .. } = room;
        if turn.is_none() {
            self.turn_rooms.push(room_key);
            for session in sessions.iter() {
                let Some(session) = self.sessions.get(*session) else { continue };
                if let Some(link) = self.links.get_mut(session.link) {
                    link.list(session.link, &mut self.dirty);
                }
            }
        }
        let turn = turn.get_or_insert_with(|| self.turns.take());
        if *y_websocket > 0 {
            turn.y_websocket.push(author, about, |out| write(Framing::YWebsocket, out));
        }
        if *hocuspocus > 0 {
            let framing = Framing::Hocuspocus { key: id.name.as_str() };
            turn.hocuspocus.push(author, about, |out| write(framing, out));
        }
        if *own_key > 0 {
            for &other in sessions.iter().filter(|other| Some(**other) != author) {
                let Some(session) = self.sessions.get(other) else { continue };
                let (Some(key), None) = (&session.key, &session.behind) else { continue };
                if let Some(link) = self.links.get_mut(session.link) {
                    write(Framing::Hocuspocus { key }, &mut link.frames);
                    self.counters.updates_out += 1;
                }
            }
        }
    }

    pub(super) fn awareness_received(&mut self, now: Now, key: Key, update: &[u8]) -> Result<(), Refusal> {
        self.counters.awareness_in += 1;
        let limits = AwarenessLimits {
            state_bytes_max: self.settings.awareness_bytes_max,
            clients_max: self.settings.awareness_clients_max,
        };
        let Some(session) = self.sessions.get_mut(key) else { return Ok(()) };
        if session.terms.read_only && !self.settings.read_only_awareness {
            return Ok(());
        }
        let room_key = session.room;
        let Some(room) = self.rooms.get_mut(room_key) else { return Ok(()) };
        let changed = room
            .awareness
            .apply(now.monotonic, key, &mut session.owned, session.began, update, limits)
            .map_err(|error| match error {
                AwarenessError::Encoding(_) | AwarenessError::Json | AwarenessError::Depth => {
                    Refusal::InvalidPayload(format!("Malformed awareness: {error}").into())
                }
                AwarenessError::StateTooBig { .. } | AwarenessError::TooManyClients { .. } => {
                    Refusal::TooBig(error.to_string().into())
                }
            })?;
        if !room.awareness_set && !room.awareness.is_empty() {
            room.awareness_set = true;
            self.timers.set(now.monotonic + AWARENESS_CHECK, Timer::Awareness(room_key));
        }
        self.relay_awareness(room_key, &changed);
        Ok(())
    }

    /// Awareness goes to everybody, its sender too: y-websocket clients take that for a sign of life.
    pub(super) fn relay_awareness(&mut self, room_key: Key, changed: &Entries) {
        if !changed.is_empty() {
            let entries = changed.finish();
            self.relay(room_key, None, About::Awareness, |framing, out| framing.awareness(out, &entries));
        }
    }

    pub(super) fn expire_awareness(&mut self, now: Now, room_key: Key) {
        let Some(room) = self.rooms.get_mut(room_key) else { return };
        let gone = room.awareness.expire(now.monotonic, self.settings.awareness_timeout);
        room.awareness_set = !room.awareness.is_empty();
        if room.awareness_set {
            self.timers.set(now.monotonic + AWARENESS_CHECK, Timer::Awareness(room_key));
        }
        self.relay_awareness(room_key, &gone);
    }

    /// Nobody came back: the document's session ends, its memory goes.
    pub(super) fn grace_ended(&mut self, now: Now, room_key: Key) {
        if self.waits_for_keys(now, room_key) {
            return self.timers.set(now.monotonic + KEYS_CHECK, Timer::Grace(room_key));
        }
        let Some(room) = self.rooms.get(room_key) else { return };
        let Some(since) = room.empty_since else { return };
        let end = since + self.settings.grace_period;
        if now.monotonic >= end {
            self.leave_room(now, room_key);
        } else if room.recovered {
            self.timers.set(end, Timer::Grace(room_key)); // it was held up until a moment ago
        }
    }

    /// Documents that nobody writes to keep encoded state only.
    pub(super) fn shrink_room(&mut self, now: Now, room_key: Key) {
        let Some(room) = self.rooms.get_mut(room_key) else { return };
        let due = room.updated_at + self.settings.shrink_after;
        if now.monotonic < due {
            return self.timers.set(due, Timer::Shrink(room_key));
        }
        room.shrink_set = false;
        room.document.shrink();
        self.counters.crdt_panics += room.document.take_panics();
    }

    /// A document that came to life shrinks again later.
    pub(super) fn watch_for_shrinking(&mut self, room_key: Key) {
        let Some(room) = self.rooms.get_mut(room_key) else { return };
        if room.document.is_live() && !room.shrink_set {
            room.shrink_set = true;
            let at = room.updated_at + self.settings.shrink_after;
            self.timers.set(at, Timer::Shrink(room_key));
        }
    }
}
