//! The way of an update: pre-scan, ops, apply, keep, relay, acknowledge; and of one that came before what it depends on.

use std::borrow::Cow;

use super::Engine;
use super::document::{Applied, ApplyError, Parked};
use super::event::Terms;
use super::keeping::OVERDUE_MAX;
use super::ops::Verdict;
use super::prescan;
use super::slab::Key;
use super::turn::About;
use crate::protocol::close::Refusal;
use crate::protocol::document::AppId;
use crate::protocol::message::Wire;
use crate::time::Now;

/// What a y-websocket client's console shows.
const READ_ONLY: &str = "The token is read-only: changes made here are not saved and reach nobody";

const TOO_MANY_PARKED: Refusal =
    Refusal::TooBig(Cow::Borrowed("Too many updates wait for changes that the document lacks"));

/// What became of an update.
pub(super) enum Outcome {
    Done,
    /// It waits for ops.
    Wait,
}

impl Engine {
    /// A step 2 (`answer`) or an update: pre-scan, ops, apply, relay, acknowledge.
    pub(super) fn update_received(
        &mut self,
        now: Now,
        key: Key,
        update: &[u8],
        answer: bool,
    ) -> Result<Outcome, Refusal> {
        let Some(session) = self.sessions.get(key) else { return Ok(Outcome::Done) };
        let (room_key, Terms { ops_per_minute, read_only }) = (session.room, session.terms);
        let Some(room) = self.rooms.get(room_key) else { return Ok(Outcome::Done) };
        let app = room.id.app;
        prescan::scan(update, &prescan::ScanLimits::default(), &mut self.scan)
            .map_err(|error| Refusal::InvalidPayload(format!("Malformed update: {error}").into()))?;
        if session.overdue.as_ref().is_some_and(|overdue| overdue.len() > OVERDUE_MAX) {
            return Err(TOO_MANY_PARKED);
        }
        if self.journal_is_behind() {
            self.counters.journal_refusals += 1;
            return Err(self.overloaded_refusal());
        }
        let state = room.document.state();
        if self.scan.is_known(|client| state.get(client)) && self.scan.deletes().is_empty() {
            self.counters.updates_in += 1;
            self.acknowledge(key);
            return Ok(Outcome::Done);
        }
        if read_only {
            self.refuse_to_write(room_key, key);
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

    /// An update of who may only read. Providers send all that they have when they join: what is known anyway is no
    /// attempt to write. y-websocket has no word for one refused update; that of y-protocols for a refused connection is
    /// a warning on its console, said once.
    fn refuse_to_write(&mut self, room_key: Key, key: Key) {
        if self.is_known(room_key) {
            self.counters.updates_in += 1;
            return self.acknowledge(key);
        }
        self.counters.updates_refused += 1;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let first = !std::mem::replace(&mut session.told_read_only, true);
        let wire = session.wire;
        self.deny(key);
        if wire == Wire::YWebsocket && first {
            self.reply(key, |framing, out| framing.permission_denied(out, READ_ONLY));
        }
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
        room.updated_at = now.monotonic.into();
        room.changes += 1;
        self.keep_update(room_key, update);
        self.watch_for_shrinking(room_key);
        if let Some(meter) = self.meters.get_mut(&app) {
            meter.spend();
        }
        self.relay(room_key, author, About::Document, |framing, out| framing.update(out, update));
        Ok(true)
    }

    /// An update came before what it depends on: keep it, and ask its sender for the rest.
    fn park(&mut self, room_key: Key, key: Key, update: &[u8], answer: bool) -> Result<(), Refusal> {
        let number = self.note_parked(key);
        let Some(room) = self.rooms.get_mut(room_key) else { return Ok(()) };
        let parked = Parked { update: update.into(), session: key, number };
        if room.document.park(parked, self.settings.parked_bytes_max).is_err() {
            return Err(TOO_MANY_PARKED);
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
    pub(super) fn retry_parked(&mut self, now: Now, room_key: Key, app: AppId, ops_per_minute: u32) {
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
                        self.acknowledge_parked(parked.session, parked.number);
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
}

pub(super) fn refusal_of(error: ApplyError) -> Refusal {
    match error {
        ApplyError::TooBig { .. } | ApplyError::TooDeep { .. } => Refusal::TooBig(error.to_string().into()),
        ApplyError::Malformed | ApplyError::Poisonous | ApplyError::Missing | ApplyError::TooDear => {
            Refusal::InvalidPayload(error.to_string().into())
        }
    }
}
