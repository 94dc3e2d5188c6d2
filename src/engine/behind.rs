//! Sessions that are cut from their document's stream, and how they catch up.
//!
//! A socket whose queue is full gets nothing new, and one that asks for more than [`ANSWERS_BYTES_MAX`] in a turn waits
//! for the rest: whoever floods the server with questions must not make it hold the answers. In both cases nothing is
//! dropped silently: one message per document brings the client up to now.
//!
//! Invariants: what counts as delivered to a session is in its socket's queue; a session that missed nothing is sent
//! nothing, so that catching up ends even if what it sends fills the queue again.

use std::time::Duration;

use super::Engine;
use super::slab::Key;
use super::state_vector::StateVector;
use super::timers::Timer;
use crate::time::Now;

/// Answers that may be queued for one socket in a turn; whatever else it asks for waits until these are on their way.
pub const ANSWERS_BYTES_MAX: usize = 4 << 20;

/// When to look again at a socket that asked for too much: in another turn.
const NEXT_TURN: Duration = Duration::from_millis(1);

/// What a client has whose session is cut off.
#[derive(Debug)]
pub struct Behind {
    pub state: StateVector,
    /// How often the document, and who is in it, had changed when it was cut off.
    pub changes: u64,
    pub shown: u64,
    /// It sent a step 1 that was not answered.
    pub asked: bool,
}

impl Engine {
    /// Whether a session's socket may be sent another answer in this turn.
    pub(super) fn may_answer(&self, key: Key) -> bool {
        let Some(session) = self.sessions.get(key) else { return false };
        let is_short = |link: &super::link::Link| link.frames.len() < ANSWERS_BYTES_MAX;
        session.behind.is_none() && self.links.get(session.link).is_some_and(is_short)
    }

    /// Cuts a session from the stream here, if it isn't yet.
    pub(super) fn cut_off(&mut self, key: Key) -> Option<&mut Behind> {
        let session = self.sessions.get_mut(key)?;
        let room = self.rooms.get(session.room)?;
        if session.behind.is_none() {
            // What this turn has gathered so far is part of the state that counts as delivered.
            if let (Some(turn), Some(link)) = (&room.turn, self.links.get_mut(session.link)) {
                self.counters.updates_out += session.copy_turn(key, turn, &mut link.frames);
            }
            let state = room.document.state().clone();
            let (changes, shown) = (room.changes, room.awareness.changes());
            session.behind = Some(Box::new(Behind { state, changes, shown, asked: false }));
        }
        let link = session.link;
        if self.links.get(link).is_some_and(|link| !link.frames.is_empty()) {
            self.mark_dirty(link);
        }
        self.sessions.get_mut(key)?.behind.as_deref_mut()
    }

    /// A session asked for more than fits into this turn.
    pub(super) fn catch_up_later(&mut self, now: Now, key: Key) {
        let Some(link_key) = self.sessions.get(key).map(|session| session.link) else { return };
        let Some(link) = self.links.get_mut(link_key) else { return };
        if !link.catch_up_set {
            link.catch_up_set = true;
            self.timers.set(now.monotonic + NEXT_TURN, Timer::CatchUp(link_key));
        }
    }

    /// A socket takes nothing: its sessions are cut from the stream and get the difference later.
    pub(super) fn link_stalled(&mut self, now: Now, link_key: Key) {
        let Some(link) = self.links.get_mut(link_key) else { return };
        if link.stalled_at.is_some() {
            return;
        }
        link.stalled_at = Some(now.monotonic.into());
        for key in link.sessions.clone() {
            self.cut_off(key);
        }
    }

    /// The socket takes again.
    pub(super) fn link_resumed(&mut self, now: Now, link_key: Key) {
        let Some(link) = self.links.get_mut(link_key) else { return };
        if link.stalled_at.take().is_some() {
            self.catch_up(now, link_key);
        }
    }

    /// Brings the sessions of a socket up to now, as far as this turn's bound allows.
    pub(super) fn catch_up(&mut self, now: Now, link_key: Key) {
        let Some(link) = self.links.get_mut(link_key) else { return };
        link.catch_up_set = false;
        if link.stalled_at.is_some() {
            return;
        }
        for key in link.sessions.clone() {
            if self.sessions.get(key).is_none_or(|session| session.behind.is_none()) {
                continue;
            }
            if self.links.get(link_key).is_none_or(|link| link.frames.len() >= ANSWERS_BYTES_MAX) {
                return self.catch_up_later(now, key);
            }
            self.catch_up_session(now, key);
        }
    }

    fn catch_up_session(&mut self, now: Now, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(behind) = session.behind.take() else { return };
        let (greeted, room_key) = (session.greeted, session.room);
        let Some(room) = self.rooms.get_mut(room_key) else { return };
        let (changed, shown) = (behind.changes != room.changes, behind.shown != room.awareness.changes());
        if let Some(turn) = &mut room.turn {
            turn.has_all(key);
        }
        room.updated_at =
            room.updated_at.max(now.monotonic.saturating_sub(self.settings.shrink_after).into());
        if behind.asked {
            self.answer_step_one(key, &behind.state);
        } else if changed {
            let update = room.document.encode_since(&behind.state);
            self.counters.crdt_panics += room.document.take_panics();
            self.counters.resyncs += 1;
            self.watch_for_shrinking(room_key);
            self.reply(key, |framing, out| framing.step_two(out, &update));
        }
        // Being answered may have been its greeting, and that says who is here.
        if shown && (greeted || !behind.asked) {
            self.send_awareness(key, true);
        }
    }
}
