//! One client's place in a document: how it comes in, what it says, how it goes.
//!
//! Not here: the room it is in ([`super::room`]), what an update does ([`super::updates`]), and its socket
//! ([`super::connection`]).

use smallvec::SmallVec;

use super::Engine;
use super::behind::Behind;
use super::event::{Effect, Mail, MailBody, OpenSession, Terms};
use super::keeping::{Overdue, Stand};
use super::legacy::Legacy;
use super::link::Target;
use super::slab::Key;
use super::state_vector::StateVector;
use super::timers::Timer;
use super::turn::{About, Segment, Turn};
use super::updates::Outcome;
use crate::protocol::close::Refusal;
use crate::protocol::document::DocumentId;
use crate::protocol::message::{Framing, Message, Wire};
use crate::time::Now;

/// One client in one room.
#[derive(Debug)]
pub struct Session {
    pub(super) room: Key,
    pub(super) link: Key,
    pub(super) channel: u32,
    pub(super) wire: Wire,
    /// The routing key, where it isn't the document's name.
    pub(super) key: Option<Box<str>>,
    /// Awareness ids it introduced.
    pub(super) owned: SmallVec<[u64; 1]>,
    /// How often awareness had changed when it began.
    pub(super) began: u64,
    /// Set while it is cut from the stream: it gets the difference later, in one message.
    pub(super) behind: Option<Box<Behind>>,
    pub(super) terms: Terms,
    /// It was told, as far as its protocol can, that it may not write.
    pub(super) told_read_only: bool,
    /// It hears which of its updates are stored.
    pub(super) acknowledges: bool,
    /// Set while an update of its waits for what it depends on.
    pub(super) overdue: Option<Box<Overdue>>,
    /// It was told who is here.
    pub(super) greeted: bool,
    /// It was asked for what an update of its lacked, and nothing of it was applied since.
    pub(super) asked_missing: bool,
    /// Messages that wait for a lease of ops or for the document to be loaded, in order.
    pub(super) held: Vec<Box<[u8]>>,
}

impl Session {
    /// Appends what this session gets of a turn, and says how many frames that was.
    pub(super) fn copy_turn(&self, key: Key, turn: &Turn, out: &mut Vec<u8>) -> u64 {
        if self.behind.is_some() || self.key.is_some() {
            return 0;
        }
        turn.copy_for(key, self.wire, out)
    }

    /// What this session gets of a turn, if that is all there is on its wire.
    pub(super) fn whole_turn<'a>(&self, key: Key, turn: &'a Turn) -> Option<&'a Segment> {
        if self.behind.is_some() || self.key.is_some() {
            return None;
        }
        turn.whole_for(key, self.wire)
    }

    fn framing<'a>(&'a self, name: &'a str) -> Framing<'a> {
        match self.wire {
            Wire::YWebsocket => Framing::YWebsocket,
            Wire::Hocuspocus => Framing::Hocuspocus { key: self.key.as_deref().unwrap_or(name) },
        }
    }
}

impl Engine {
    /// Lets a client into a document's room, which is made if it isn't there.
    pub(super) fn open_session(
        &mut self,
        now: Now,
        link: Key,
        channel: u32,
        open: OpenSession,
    ) -> Result<Key, Refusal> {
        if self.draining {
            return Err(self.draining_refusal());
        }
        let id = DocumentId { app: open.app, name: open.name };
        let is_kept = self.may_be_kept() && self.rooms.find(&id).is_none();
        let room_key = self.rooms.open(id, now.monotonic);
        if is_kept {
            self.load(room_key);
        }
        let room = self.rooms.get_mut(room_key).expect("it was opened just now");
        if room.sessions.len() >= open.users_max as usize {
            return Err(Refusal::UserLimit { limit: open.users_max });
        }
        let app = room.id.app;
        let session = Session {
            room: room_key,
            link,
            channel,
            wire: open.wire,
            key: open.key,
            owned: SmallVec::new(),
            began: room.awareness.changes(),
            behind: None,
            terms: open.terms,
            told_read_only: false,
            acknowledges: open.acknowledges,
            overdue: None,
            greeted: false,
            asked_missing: false,
            held: Vec::new(),
        };
        *room.count(&session) += 1;
        room.empty_since = None;
        let is_loading = match room.stand {
            Stand::Resting => {
                room.stand = Stand::Kept;
                false
            }
            stand => stand == Stand::Loading,
        };
        let key = self.sessions.insert(session);
        room.sessions.push(key);
        if let Some(turn) = &mut room.turn {
            turn.has_all(key);
        }
        if let Some(link) = self.links.get_mut(link) {
            link.sessions.push(key);
        }
        if self.links.get(link).is_some_and(|link| link.stalled_at.is_some()) {
            self.cut_off(key);
        }
        self.counters.sessions += 1;
        self.ask_for_ops(now, app, open.terms.ops_per_minute);
        // What a y-websocket client is told first is what is here: that isn't known yet.
        if !is_loading || open.wire == Wire::Hocuspocus {
            self.greet(key, open.authenticate);
        }
        Ok(key)
    }

    /// The first words to a client. A Hocuspocus client is told the rest when it sends its step 1.
    pub(super) fn greet(&mut self, key: Key, authenticate: bool) {
        let Some(session) = self.sessions.get(key) else { return };
        match session.wire {
            Wire::YWebsocket => {
                self.send_step_one(key);
                self.send_awareness(key, false);
            }
            Wire::Hocuspocus if authenticate => self.tell_scope(key),
            Wire::Hocuspocus => {}
        }
    }

    /// Tells a Hocuspocus client that it is in, and whether it may write.
    fn tell_scope(&mut self, key: Key) {
        let Some(session) = self.sessions.get(key) else { return };
        let scope = if session.terms.read_only { "readonly" } else { "read-write" };
        self.reply(key, |framing, out| framing.authenticated(out, scope));
    }

    /// Its token was renewed, and may say something else than the last.
    pub(super) fn session_renewed(&mut self, key: Key, terms: Terms) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let was_read_only = session.terms.read_only;
        session.terms = terms;
        session.told_read_only &= terms.read_only;
        let wire = session.wire;
        if terms.read_only {
            self.give_up_parked(key);
        }
        if terms.read_only != was_read_only {
            if wire == Wire::Hocuspocus {
                self.tell_scope(key);
            }
            // What it wrote while it might not, it has still.
            if was_read_only {
                self.send_step_one(key);
            }
        }
    }

    /// Queues a frame for one session.
    pub(super) fn reply(&mut self, key: Key, write: impl FnOnce(Framing<'_>, &mut Vec<u8>)) {
        let Some(session) = self.sessions.get(key) else { return };
        let Some(room) = self.rooms.get(session.room) else { return };
        let Some(link) = self.links.get_mut(session.link) else { return };
        link.list(session.link, &mut self.dirty);
        write(session.framing(room.id.name.as_str()), &mut link.frames);
    }

    pub(super) fn send_step_one(&mut self, key: Key) {
        let Some(room) = self.sessions.get(key).and_then(|session| self.rooms.get(session.room)) else {
            return;
        };
        let mut state = Vec::new();
        room.document.state().encode(&mut state);
        self.reply(key, |framing, out| framing.step_one(out, &state));
    }

    /// Tells a session who is here; with `departed` also who left, for one that missed it.
    pub(super) fn send_awareness(&mut self, key: Key, departed: bool) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.greeted = true;
        let Some(room) = self.rooms.get(session.room) else { return };
        let entries = room.awareness.all(departed);
        if !entries.is_empty() {
            self.reply(key, |framing, out| framing.awareness(out, &entries.finish()));
        }
    }

    /// A message of an open session. `body` is the message as it came, to be held if it must wait.
    pub(super) fn session_received(&mut self, now: Now, key: Key, message: Message<'_>, body: &[u8]) {
        let held_max = self.settings.message_bytes_max;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let is_loading = self.rooms.get(session.room).is_some_and(|room| room.stand == Stand::Loading);
        if is_loading || !session.held.is_empty() {
            let held: usize = session.held.iter().map(|body| body.len()).sum();
            if held + body.len() > held_max {
                let refusal = self.overloaded_refusal();
                return self.end_session(now, key, refusal);
            }
            session.held.push(body.into());
            return;
        }
        match self.session_message(now, key, message) {
            Ok(Outcome::Done) => {}
            Ok(Outcome::Wait) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.held.push(body.into());
                }
            }
            Err(refusal) => self.end_session(now, key, refusal),
        }
    }

    /// Takes the messages that waited, as far as they need not wait again.
    pub(super) fn release_held(&mut self, now: Now, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let mut held = std::mem::take(&mut session.held).into_iter();
        for body in held.by_ref() {
            let Ok(message) = Message::parse(&body) else { continue };
            self.session_received(now, key, message, &body);
            if self.sessions.get(key).is_none_or(|session| !session.held.is_empty()) {
                break;
            }
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.held.extend(held);
        }
    }

    fn session_message(&mut self, now: Now, key: Key, message: Message<'_>) -> Result<Outcome, Refusal> {
        match message {
            Message::StepOne(state) => self.step_one_received(now, key, state)?,
            Message::StepTwo(update) => return self.update_received(now, key, update, true),
            Message::Update(update) => return self.update_received(now, key, update, false),
            Message::Awareness(update) => self.awareness_received(now, key, update)?,
            Message::QueryAwareness if !self.may_answer(key) => {
                if let Some(behind) = self.cut_off(key) {
                    behind.shown = u64::MAX;
                }
                self.catch_up_later(now, key);
            }
            Message::QueryAwareness => {
                let Some(room) = self.sessions.get(key).and_then(|s| self.rooms.get(s.room)) else {
                    return Ok(Outcome::Done);
                };
                let entries = room.awareness.all(false).finish();
                self.reply(key, |framing, out| framing.awareness(out, &entries));
            }
            _ => {}
        }
        Ok(Outcome::Done)
    }

    /// "What do you have that I don't?"
    fn step_one_received(&mut self, now: Now, key: Key, state: &[u8]) -> Result<(), Refusal> {
        let state = StateVector::decode(state)
            .map_err(|error| Refusal::InvalidPayload(format!("Malformed state vector: {error}").into()))?;
        if self.may_answer(key) {
            self.answer_step_one(key, &state);
        } else {
            if let Some(behind) = self.cut_off(key) {
                behind.state.lower(&state);
                behind.asked = true;
                behind.shown = u64::MAX;
            }
            self.catch_up_later(now, key);
        }
        Ok(())
    }

    pub(super) fn answer_step_one(&mut self, key: Key, state: &StateVector) {
        let Some(session) = self.sessions.get(key) else { return };
        let (room_key, hocuspocus) = (session.room, session.wire == Wire::Hocuspocus);
        if !session.greeted {
            self.send_awareness(key, false);
        }
        if hocuspocus {
            self.send_step_one(key);
        }
        let Some(room) = self.rooms.get_mut(room_key) else { return };
        let update = room.document.encode_since(state);
        if let Some(turn) = &mut room.turn {
            turn.has(key, About::Document);
        }
        self.counters.crdt_panics += room.document.take_panics();
        self.watch_for_shrinking(room_key);
        self.reply(key, |framing, out| framing.step_two(out, &update));
    }

    /// A session ends for a reason of the server's; its socket's shard is told.
    pub(super) fn end_session(&mut self, now: Now, key: Key, refusal: Refusal) {
        let Some(session) = self.sessions.get(key) else { return };
        let channel = session.channel;
        match self.links.get(session.link).map(|link| link.target) {
            Some(Target::Socket(connection)) => self.channel_ended(now, connection, channel, refusal),
            Some(Target::Shard { shard, connection }) => {
                // What it was told before goes before.
                let frames = self.links.get_mut(session.link).map(|link| std::mem::take(&mut link.frames));
                if let Some(frames) = frames.filter(|frames| !frames.is_empty()) {
                    let mail = Mail { connection, body: MailBody::Deliver { frames } };
                    self.effects.push_back(Effect::Mail { to: shard, mail });
                }
                self.session_left(now, key);
                let mail = Mail { connection, body: MailBody::Ended { channel, refusal } };
                self.effects.push_back(Effect::Mail { to: shard, mail });
            }
            None => self.session_left(now, key),
        }
    }

    /// A session is over: everybody else sees it go at once.
    pub(super) fn session_left(&mut self, now: Now, key: Key) {
        let Some(mut session) = self.sessions.remove(key) else { return };
        if let Some(link) = self.links.get_mut(session.link) {
            link.sessions.retain(|other| *other != key);
            if let (Target::Shard { shard, connection }, true) = (link.target, link.sessions.is_empty()) {
                self.remote_links.remove(&(shard, connection));
                self.links.remove(session.link);
            }
        }
        let Some(room) = self.rooms.get_mut(session.room) else { return };
        if let Some(at) = room.sessions.iter().position(|other| *other == key) {
            room.sessions.swap_remove(at);
        }
        *room.count(&session) -= 1;
        let mut inherited = None;
        // Of who may only read nothing is left to be applied later, when nobody looks at its token any more.
        if !session.held.is_empty() && !session.terms.read_only {
            let (app, messages) = (room.id.app, std::mem::take(&mut session.held));
            let legacy =
                Legacy { room: session.room, ops_per_minute: session.terms.ops_per_minute, messages };
            if room.stand == Stand::Loading {
                self.keeping.leave(legacy, self.settings.message_bytes_max);
            } else {
                self.meters.entry(app).or_default().inherit(legacy, self.settings.message_bytes_max);
                inherited = Some(app);
            }
        }
        let gone = room.awareness.leave(now.monotonic, key, &std::mem::take(&mut session.owned));
        if room.sessions.is_empty() {
            room.empty_since = Some(now.monotonic.into());
            self.timers.set(now.monotonic + self.settings.grace_period, Timer::Grace(session.room));
        }
        self.relay_awareness(session.room, &gone);
        if let Some(app) = inherited {
            // Whatever it waited for, a lease is asked for if there is none.
            self.apply_legacies(now, app);
        }
    }
}
