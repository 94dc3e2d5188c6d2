//! One client's place in a document: the room, what comes in, what goes round.
//!
//! A room is a document with everybody who is in it, their awareness, and the turn that is being gathered for them.

use std::time::Duration;

use smallvec::SmallVec;

use super::Engine;
use super::awareness::{Awareness, AwarenessError, AwarenessLimits, Entries};
use super::behind::Behind;
use super::document::{Applied, ApplyError, Document, Parked};
use super::event::{ConnectionId, Effect, Mail, MailBody, OpenSession, ShardIndex};
use super::legacy::Legacy;
use super::link::{Link, Target};
use super::ops::{ANSWER_TIMEOUT, OpsMeter, Verdict};
use super::prescan;
use super::slab::Key;
use super::state_vector::StateVector;
use super::timers::Timer;
use super::turn::Turn;
use crate::protocol::close::Refusal;
use crate::protocol::document::{AppId, DocumentId};
use crate::protocol::message::{Framing, Message, Wire};
use crate::time::Now;

/// How often awareness is looked through for states that nobody renewed.
const AWARENESS_CHECK: Duration = Duration::from_secs(5);

/// A document and everybody in it.
#[derive(Debug)]
pub struct Room {
    pub(super) id: DocumentId,
    pub(super) document: Document,
    pub(super) awareness: Awareness,
    sessions: Vec<Key>,
    pub(super) turn: Option<Box<Turn>>,
    /// Sessions that share each of the turn's framings, and those with a framing of their own.
    y_websocket: u32,
    hocuspocus: u32,
    own_key: u32,
    pub(super) updated_at: Duration,
    /// How often the document has changed: a session that missed something knows by this.
    pub(super) changes: u64,
    /// Since when nobody is here.
    empty_since: Option<Duration>,
    shrink_set: bool,
    awareness_set: bool,
}

/// One client in one room.
#[derive(Debug)]
pub struct Session {
    pub(super) room: Key,
    pub(super) link: Key,
    channel: u32,
    wire: Wire,
    /// The routing key, where it isn't the document's name.
    key: Option<Box<str>>,
    /// Awareness ids it introduced.
    owned: SmallVec<[u64; 1]>,
    /// How often awareness had changed when it began.
    began: u64,
    /// Set while it is cut from the stream: it gets the difference later, in one message.
    pub(super) behind: Option<Box<Behind>>,
    ops_per_minute: u32,
    /// It was told who is here.
    pub(super) greeted: bool,
    /// It was asked for what an update of its lacked, and nothing of it was applied since.
    asked_missing: bool,
    /// Messages that wait for a lease of ops, in order.
    pub(super) held: Vec<Box<[u8]>>,
}

/// What became of an update.
enum Outcome {
    Done,
    /// It waits for ops.
    Wait,
}

impl Session {
    /// Appends what this session gets of a turn, and says how many frames that was.
    pub(super) fn copy_turn(&self, key: Key, turn: &Turn, out: &mut Vec<u8>) -> u64 {
        if self.behind.is_some() || self.key.is_some() {
            return 0;
        }
        turn.copy_for(key, self.wire, out)
    }

    fn framing<'a>(&'a self, name: &'a str) -> Framing<'a> {
        match self.wire {
            Wire::YWebsocket => Framing::YWebsocket,
            Wire::Hocuspocus => Framing::Hocuspocus { key: self.key.as_deref().unwrap_or(name) },
        }
    }
}

impl Room {
    fn new(id: DocumentId, now: Duration) -> Self {
        Self {
            id,
            document: Document::default(),
            awareness: Awareness::default(),
            sessions: Vec::new(),
            turn: None,
            y_websocket: 0,
            hocuspocus: 0,
            own_key: 0,
            updated_at: now,
            changes: 0,
            empty_since: None,
            shrink_set: false,
            awareness_set: false,
        }
    }

    fn count(&mut self, session: &Session) -> &mut u32 {
        match (session.wire, &session.key) {
            (_, Some(_)) => &mut self.own_key,
            (Wire::YWebsocket, None) => &mut self.y_websocket,
            (Wire::Hocuspocus, None) => &mut self.hocuspocus,
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
        let room_key = match self.rooms_by_id.get(&id) {
            Some(&key) => key,
            None => {
                let key = self.rooms.insert(Room::new(id.clone(), now.monotonic));
                self.rooms_by_id.insert(id, key);
                key
            }
        };
        let room = self.rooms.get_mut(room_key).expect("the index names only rooms that are");
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
            ops_per_minute: open.ops_per_minute,
            greeted: false,
            asked_missing: false,
            held: Vec::new(),
        };
        *room.count(&session) += 1;
        room.empty_since = None;
        let key = self.sessions.insert(session);
        room.sessions.push(key);
        if let Some(turn) = &mut room.turn {
            turn.join(key);
        }
        if let Some(link) = self.links.get_mut(link) {
            link.sessions.push(key);
        }
        if self.links.get(link).is_some_and(|link| link.stalled_at.is_some()) {
            self.cut_off(key);
        }
        self.counters.sessions += 1;
        self.ask_for_ops(now, app, open.ops_per_minute);
        self.greet(key, open.authenticate);
        Ok(key)
    }

    /// The first words to a client. A Hocuspocus client is told the rest when it sends its step 1.
    fn greet(&mut self, key: Key, authenticate: bool) {
        let wire = self.sessions.get(key).map(|session| session.wire);
        match wire {
            Some(Wire::YWebsocket) => {
                self.send_step_one(key);
                self.send_awareness(key, false);
            }
            Some(Wire::Hocuspocus) if authenticate => {
                self.reply(key, |framing, out| framing.authenticated(out, "read-write"));
            }
            _ => {}
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

    fn send_step_one(&mut self, key: Key) {
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
        if !session.held.is_empty() {
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
        self.counters.crdt_panics += room.document.take_panics();
        self.watch_for_shrinking(room_key);
        self.reply(key, |framing, out| framing.step_two(out, &update));
    }

    /// A step 2 (`answer`) or an update: pre-scan, ops, apply, relay, acknowledge.
    fn update_received(
        &mut self,
        now: Now,
        key: Key,
        update: &[u8],
        answer: bool,
    ) -> Result<Outcome, Refusal> {
        let Some(session) = self.sessions.get(key) else { return Ok(Outcome::Done) };
        let (room_key, ops_per_minute) = (session.room, session.ops_per_minute);
        let Some(room) = self.rooms.get(room_key) else { return Ok(Outcome::Done) };
        let app = room.id.app;
        prescan::scan(update, &prescan::ScanLimits::default(), &mut self.scan)
            .map_err(|error| Refusal::InvalidPayload(format!("Malformed update: {error}").into()))?;
        let state = room.document.state();
        if self.scan.is_known(|client| state.get(client)) && self.scan.deletes().is_empty() {
            self.counters.updates_in += 1;
            self.acknowledge(key);
            return Ok(Outcome::Done);
        }
        match self.ops_verdict(now, app, ops_per_minute, key) {
            Verdict::Pass => {}
            Verdict::Wait => return Ok(Outcome::Wait),
            // A client that only joins says what it has, deletions included: no op, if all of it is known.
            Verdict::Exceeded if self.is_known(room_key) => {
                self.counters.updates_in += 1;
                self.acknowledge(key);
                return Ok(Outcome::Done);
            }
            Verdict::Exceeded => return Err(Refusal::RateLimit { limit: ops_per_minute }),
        }
        self.counters.updates_in += 1;
        match self.apply(now, room_key, app, Some(key), update) {
            Ok(changed) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.asked_missing = false;
                }
                self.acknowledge(key);
                if changed {
                    self.retry_parked(now, room_key, app, ops_per_minute);
                }
            }
            Err(ApplyError::Missing) => self.park(room_key, key, update, answer)?,
            Err(error) => return Err(refusal_of(error)),
        }
        self.ask_for_ops(now, app, ops_per_minute);
        Ok(Outcome::Done)
    }

    /// Whether what `self.scan` describes changes nothing, its deletions included.
    fn is_known(&mut self, room_key: Key) -> bool {
        let Some(room) = self.rooms.get_mut(room_key) else { return false };
        let known = self.scan.is_known(|client| room.document.state().get(client))
            && room.document.has_deleted(self.scan.deletes());
        self.counters.crdt_panics += room.document.take_panics();
        self.watch_for_shrinking(room_key);
        known
    }

    /// Applies what `self.scan` describes, and relays it if it changed the document.
    pub(super) fn apply(
        &mut self,
        now: Now,
        room_key: Key,
        app: AppId,
        author: Option<Key>,
        update: &[u8],
    ) -> Result<bool, ApplyError> {
        let Some(room) = self.rooms.get_mut(room_key) else { return Ok(false) };
        let applied = room.document.apply(update, &self.scan, self.settings.document_bytes_max);
        self.counters.crdt_panics += room.document.take_panics();
        if applied? == Applied::Unchanged {
            return Ok(false);
        }
        room.updated_at = now.monotonic;
        room.changes += 1;
        self.watch_for_shrinking(room_key);
        if let Some(meter) = self.meters.get_mut(&app) {
            meter.spend();
        }
        self.relay(room_key, author, |framing, out| framing.update(out, update));
        Ok(true)
    }

    /// Puts a frame into the room's turn: once per framing, whoever many read it.
    fn relay(&mut self, room_key: Key, author: Option<Key>, write: impl Fn(Framing<'_>, &mut Vec<u8>)) {
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
            turn.y_websocket.push(author, |out| write(Framing::YWebsocket, out));
        }
        if *hocuspocus > 0 {
            let framing = Framing::Hocuspocus { key: id.name.as_str() };
            turn.hocuspocus.push(author, |out| write(framing, out));
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

    /// Tells a Hocuspocus client that its update counts as stored. y-websocket knows no acknowledgement.
    fn acknowledge(&mut self, key: Key) {
        if self.sessions.get(key).is_some_and(|session| session.wire == Wire::Hocuspocus) {
            self.reply(key, |framing, out| framing.sync_status(out, true));
        }
    }

    /// An update came before what it depends on: keep it, and ask its sender for the rest.
    fn park(&mut self, room_key: Key, key: Key, update: &[u8], answer: bool) -> Result<(), Refusal> {
        let Some(room) = self.rooms.get_mut(room_key) else { return Ok(()) };
        let parked = Parked { update: update.into(), session: key };
        if room.document.park(parked, self.settings.parked_bytes_max).is_err() {
            return Err(Refusal::TooBig("Too many updates wait for changes that the document lacks".into()));
        }
        self.counters.updates_parked += 1;
        let Some(session) = self.sessions.get_mut(key) else { return Ok(()) };
        // An answer that still lacks something would only be asked for again.
        if !answer && !session.asked_missing {
            session.asked_missing = true;
            self.send_step_one(key);
        }
        Ok(())
    }

    /// The document advanced: what waited for that may fit now.
    fn retry_parked(&mut self, now: Now, room_key: Key, app: AppId, ops_per_minute: u32) {
        loop {
            let Some(room) = self.rooms.get_mut(room_key) else { return };
            if !room.document.has_parked() {
                return;
            }
            let mut advanced = false;
            for parked in room.document.take_parked() {
                // It was scanned when it came; the scan of it is needed again, not the check.
                if prescan::scan(&parked.update, &prescan::ScanLimits::default(), &mut self.scan).is_err() {
                    continue;
                }
                let result = match self.meter(app).verdict(now.monotonic) {
                    Verdict::Pass => self.apply(now, room_key, app, Some(parked.session), &parked.update),
                    Verdict::Wait => {
                        self.meter(app).wait_with_parked(room_key);
                        Err(ApplyError::Missing)
                    }
                    Verdict::Exceeded if self.sessions.get(parked.session).is_some() => {
                        let refusal = Refusal::RateLimit { limit: ops_per_minute };
                        self.end_session(now, parked.session, refusal);
                        continue;
                    }
                    Verdict::Exceeded => Err(ApplyError::Missing),
                };
                match result {
                    Ok(changed) => {
                        advanced |= changed;
                        self.acknowledge(parked.session);
                    }
                    Err(ApplyError::Missing) => {
                        if let Some(room) = self.rooms.get_mut(room_key) {
                            let _ = room.document.park(parked, usize::MAX);
                        }
                    }
                    Err(error) => self.end_session(now, parked.session, refusal_of(error)),
                }
                self.ask_for_ops(now, app, ops_per_minute);
            }
            if !advanced {
                return;
            }
        }
    }

    fn awareness_received(&mut self, now: Now, key: Key, update: &[u8]) -> Result<(), Refusal> {
        self.counters.awareness_in += 1;
        let limits = AwarenessLimits {
            state_bytes_max: self.settings.awareness_bytes_max,
            clients_max: self.settings.awareness_clients_max,
        };
        let Some(session) = self.sessions.get_mut(key) else { return Ok(()) };
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
    fn relay_awareness(&mut self, room_key: Key, changed: &Entries) {
        if !changed.is_empty() {
            let entries = changed.finish();
            self.relay(room_key, None, |framing, out| framing.awareness(out, &entries));
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

    /// A session ends for a reason of the server's; its socket's shard is told.
    fn end_session(&mut self, now: Now, key: Key, refusal: Refusal) {
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
        if !session.held.is_empty() {
            let (app, messages) = (room.id.app, std::mem::take(&mut session.held));
            let legacy = Legacy { room: session.room, ops_per_minute: session.ops_per_minute, messages };
            self.meters.entry(app).or_default().inherit(legacy, self.settings.message_bytes_max);
        }
        let gone = room.awareness.leave(now.monotonic, key, &std::mem::take(&mut session.owned));
        if room.sessions.is_empty() {
            room.empty_since = Some(now.monotonic);
            self.timers.set(now.monotonic + self.settings.grace_period, Timer::Grace(session.room));
        }
        self.relay_awareness(session.room, &gone);
    }

    /// Nobody came back: the document's session ends, its memory goes.
    pub(super) fn grace_ended(&mut self, now: Now, room_key: Key) {
        let Some(room) = self.rooms.get(room_key) else { return };
        let over = room.empty_since.is_some_and(|since| now.monotonic >= since + self.settings.grace_period);
        if over && let Some(room) = self.rooms.remove(room_key) {
            self.rooms_by_id.remove(&room.id);
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

    pub(super) fn meter(&mut self, app: AppId) -> &mut OpsMeter {
        self.meters.entry(app).or_default()
    }

    /// May one more op pass? A session that must wait is noted with the meter.
    fn ops_verdict(&mut self, now: Now, app: AppId, ops_per_minute: u32, key: Key) -> Verdict {
        let verdict = self.meter(app).verdict(now.monotonic);
        if verdict == Verdict::Wait {
            self.meter(app).waiting.push(key);
            self.ask_for_ops(now, app, ops_per_minute);
        }
        verdict
    }

    /// Leases ops ahead of need.
    pub(super) fn ask_for_ops(&mut self, now: Now, app: AppId, ops_per_minute: u32) {
        let wanted = OpsMeter::lot(ops_per_minute, self.shards);
        if self.meter(app).ask(now.monotonic, ops_per_minute, wanted) {
            self.effects.push_back(Effect::LeaseOps { app, ops_per_minute, wanted });
            self.timers.set(now.monotonic + ANSWER_TIMEOUT, Timer::OpsWindow);
        }
    }

    /// Windows end, and questions for ops may have stayed unanswered.
    pub(super) fn check_meters(&mut self, now: Now) {
        let mut again: SmallVec<[(AppId, u32); 4]> = SmallVec::new();
        self.meters.retain(|&app, meter| {
            if meter.is_unanswered(now.monotonic) {
                again.push((app, meter.ops_per_minute()));
            }
            !meter.is_idle(now.monotonic)
        });
        for (app, ops_per_minute) in again {
            self.ask_for_ops(now, app, ops_per_minute);
        }
    }

    pub(super) fn ops_leased(&mut self, now: Now, app: AppId, granted: u32, window_ends: Duration) {
        let meter = self.meter(app);
        let is_new = window_ends > meter.window_ends();
        let (waiting, rooms) = meter.leased(granted, window_ends);
        let ops_per_minute = meter.ops_per_minute();
        if is_new {
            self.timers.set(window_ends, Timer::OpsWindow);
        }
        for room in rooms {
            self.retry_parked(now, room, app, ops_per_minute);
        }
        for key in waiting {
            let Some(session) = self.sessions.get_mut(key) else { continue };
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
        self.apply_legacies(now, app);
    }

    pub(super) fn session_ops_per_minute(&mut self, key: Key, ops_per_minute: u32) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.ops_per_minute = ops_per_minute;
        }
    }

    /// Mail from the shard of a Hocuspocus socket that has a document here.
    pub(super) fn remote_request(
        &mut self,
        now: Now,
        from: ShardIndex,
        connection: ConnectionId,
        body: MailBody,
    ) {
        if let MailBody::Open { channel, session } = body {
            return self.remote_opens(now, from, connection, channel, session);
        }
        let Some(&link) = self.remote_links.get(&(from, connection)) else { return };
        let sessions = self.links.get(link).map(|link| link.sessions.clone()).unwrap_or_default();
        let find = |engine: &Self, channel: u32| {
            let of_channel = |key: &Key| engine.sessions.get(*key).is_some_and(|s| s.channel == channel);
            sessions.iter().copied().find(of_channel)
        };
        match body {
            MailBody::Message { channel, body } => {
                if let (Some(session), Ok(message)) = (find(self, channel), Message::parse(&body)) {
                    self.session_received(now, session, message, &body);
                }
            }
            MailBody::Leave { channel } => {
                if let Some(session) = find(self, channel) {
                    self.session_left(now, session);
                }
            }
            MailBody::End { channel, refusal } => {
                if let Some(session) = find(self, channel) {
                    self.end_session(now, session, refusal);
                }
            }
            MailBody::OpsPerMinute { channel, ops_per_minute } => {
                if let Some(session) = find(self, channel) {
                    self.session_ops_per_minute(session, ops_per_minute);
                }
            }
            MailBody::Stalled => self.link_stalled(now, link),
            MailBody::Resumed => self.link_resumed(now, link),
            MailBody::Open { .. } | MailBody::Deliver { .. } | MailBody::Ended { .. } => {}
        }
    }

    fn remote_opens(
        &mut self,
        now: Now,
        from: ShardIndex,
        connection: ConnectionId,
        channel: u32,
        open: OpenSession,
    ) {
        let target = Target::Shard { shard: from, connection };
        let links = &mut self.links;
        let link =
            *self.remote_links.entry((from, connection)).or_insert_with(|| links.insert(Link::new(target)));
        if let Err(refusal) = self.open_session(now, link, channel, open) {
            if self.links.get(link).is_some_and(|link| link.sessions.is_empty()) {
                self.links.remove(link);
                self.remote_links.remove(&(from, connection));
            }
            let mail = Mail { connection, body: MailBody::Ended { channel, refusal } };
            self.effects.push_back(Effect::Mail { to: from, mail });
        }
    }
}

fn refusal_of(error: ApplyError) -> Refusal {
    match error {
        ApplyError::TooBig { .. } | ApplyError::TooDeep { .. } => Refusal::TooBig(error.to_string().into()),
        ApplyError::Malformed | ApplyError::Poisonous | ApplyError::Missing => {
            Refusal::InvalidPayload(error.to_string().into())
        }
    }
}
