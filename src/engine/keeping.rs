//! What the journal is told, and who is told when it has it.
//!
//! A turn's updates go to the journal as one batch ([`Effect::Append`]). An acknowledgement waits in line until the batch
//! that was being gathered when it was due is stored, also if its update changed nothing: what it repeats may not be
//! stored yet. So acknowledgements come in order, for every connection of the shard.
//!
//! Bounded: what waits for the journal, by [`super::Settings::journal_backlog_bytes_max`]. Past it, whoever sends an update
//! is told to come back later (1013); nothing that was taken is dropped.
//!
//! Without a journal ([`super::Settings::retention`] is none) an update is acknowledged when it is applied, and nothing is
//! gathered here.

use std::collections::VecDeque;
use std::time::Duration;

use super::Engine;
use super::document::Document;
use super::event::Effect;
use super::legacy::Legacy;
use super::room::Room;
use super::slab::Key;
use super::timers::Timer;
use crate::journal::{Contents, Reply, Retention, Unreadable, record};
use crate::protocol::close::Refusal;
use crate::protocol::document::DocumentId;
use crate::protocol::message::Wire;
use crate::time::Now;

/// What the journal has of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// Nothing.
    Unkept,
    /// It may have it: that is being found out. Nobody is answered meanwhile.
    Loading,
    /// What is here, or will have it.
    Kept,
    /// Nobody is here, and the journal is being given all of it.
    Resting,
}

/// Documents that are put to rest at once: each is in memory twice meanwhile.
const RESTING_MAX: usize = 64;

/// When to look again whether there is room for one more.
const RESTS_LATER: Duration = Duration::from_millis(50);

/// An acknowledgement in line takes about this much memory.
const ACKNOWLEDGEMENT_BYTES: usize = 32;

/// What is on its way to the journal.
#[derive(Debug)]
pub struct Keeping {
    /// Of the batch that is being gathered.
    records: Vec<u8>,
    number: u64,
    /// The newest batch that the journal knows somebody waits for.
    awaited: u64,
    /// Somebody waits for a batch that went without saying so.
    asks: bool,
    /// Every batch up to this one is stored.
    stored: u64,
    /// Batches on their way, with their sizes.
    unstored: VecDeque<(u64, usize)>,
    unstored_bytes: usize,
    /// Who is acknowledged one update once a batch is stored.
    line: VecDeque<(u64, Key)>,
    /// The journal takes nothing any more.
    failed: bool,
    /// What clients sent who left while their document was being loaded.
    left: Vec<Legacy>,
    /// States given to the journal of rooms that nobody was in, and not confirmed yet.
    resting: rustc_hash::FxHashMap<Key, u32>,
}

impl Default for Keeping {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            number: 1,
            awaited: 0,
            asks: false,
            stored: 0,
            unstored: VecDeque::new(),
            unstored_bytes: 0,
            line: VecDeque::new(),
            failed: false,
            left: Vec::new(),
            resting: rustc_hash::FxHashMap::default(),
        }
    }
}

impl Keeping {
    /// Closes the batch that is being gathered. An empty one asks to hear of those before it.
    pub fn take_batch(&mut self) -> Option<Effect> {
        if self.records.is_empty() && !self.asks {
            return None;
        }
        self.asks = false;
        let awaited = !self.line.is_empty();
        // The next turn will have about as much to say.
        let next = Vec::with_capacity(self.records.len().min(64 << 10));
        let records = std::mem::replace(&mut self.records, next);
        let number = self.number;
        self.number += 1;
        self.unstored.push_back((number, records.len()));
        self.unstored_bytes += records.len();
        if awaited {
            self.awaited = number;
        }
        Some(Effect::Append { number, records, awaited })
    }

    /// Keeps what a client sent that left while its document was being loaded, within a bound.
    pub fn leave(&mut self, legacy: Legacy, bytes_max: usize) {
        let bytes: usize = self.left.iter().map(Legacy::bytes).sum();
        if bytes + legacy.bytes() <= bytes_max {
            self.left.push(legacy);
        }
    }

    /// The batch that must be stored for all that was said so far to be safe.
    const fn newest(&self) -> u64 {
        if self.records.is_empty() { self.number - 1 } else { self.number }
    }

    #[cfg(test)]
    pub fn resting_count(&self) -> usize {
        self.resting.len()
    }

    /// Bytes that wait for the journal, and for them whoever is to be acknowledged.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.records.len() + self.unstored_bytes + self.line.len() * ACKNOWLEDGEMENT_BYTES
    }
}

impl Engine {
    pub(super) fn journal_said(&mut self, now: Now, reply: Reply) {
        match reply {
            Reply::Stored { through, .. } => self.stored(through),
            Reply::Failed => self.journal_failed(),
            Reply::Wanted { document } => self.state_wanted(&document),
            Reply::Rested { document } => self.rested(now, &document),
            Reply::Loaded { document, contents } => self.loaded(now, &document, contents),
        }
    }

    fn keeps(&self) -> bool {
        self.settings.retention.is_some() && !self.keeping.failed
    }

    /// Whether so much waits for the journal that no more is taken.
    pub(super) fn journal_is_behind(&self) -> bool {
        self.settings.retention.is_some()
            && self.keeping.waiting_bytes() > self.settings.journal_backlog_bytes_max
    }

    /// An update was applied.
    pub(super) fn keep_update(&mut self, room_key: Key, update: &[u8]) {
        if self.keeps()
            && let Some(room) = self.rooms.get_mut(room_key)
        {
            record::write_update(&mut self.keeping.records, &room.id, update);
            room.stand = Stand::Kept;
        }
    }

    /// Tells a client that one of its updates counts as stored, once it does. Clients that know no acknowledgement and
    /// didn't ask for it get none.
    pub(super) fn acknowledge(&mut self, key: Key) {
        if !self.sessions.get(key).is_some_and(|session| session.acknowledges) {
            return;
        }
        if self.settings.retention.is_none() {
            return self.say_stored(key);
        }
        if self.keeping.failed {
            return;
        }
        let newest = self.keeping.newest();
        if self.keeping.stored >= newest && self.keeping.line.is_empty() {
            return self.say_stored(key);
        }
        self.keeping.line.push_back((newest, key));
        self.keeping.asks |= self.keeping.records.is_empty() && newest > self.keeping.awaited;
    }

    fn say_stored(&mut self, key: Key) {
        self.counters.acknowledged += 1;
        self.reply(key, |framing, out| framing.sync_status(out, true));
    }

    /// The journal has every batch up to this one.
    fn stored(&mut self, through: u64) {
        let keeping = &mut self.keeping;
        keeping.stored = keeping.stored.max(through);
        while let Some(&(number, bytes)) = keeping.unstored.front()
            && number <= through
        {
            keeping.unstored.pop_front();
            keeping.unstored_bytes -= bytes;
        }
        while let Some(&(number, key)) = self.keeping.line.front()
            && number <= through
        {
            self.keeping.line.pop_front();
            self.say_stored(key);
        }
    }

    /// The journal takes nothing any more: nobody is told again that an update is stored.
    fn journal_failed(&mut self) {
        self.keeping = Keeping { failed: true, number: self.keeping.number, ..Keeping::default() };
    }

    /// A document that the journal has, from before this process began. It waits for its clients as if they had left now.
    pub(super) fn document_recovered(&mut self, now: Now, id: DocumentId, document: Document) {
        let key = self.rooms.open(id, now.monotonic);
        let Some(room) = self.rooms.get_mut(key) else { return };
        room.document = document;
        room.stand = Stand::Kept;
        room.changes += 1;
        room.empty_since = Some(now.monotonic.into());
        self.timers.set(now.monotonic + self.settings.grace_period, Timer::Grace(key));
    }

    /// Whether a document that is not here may be in the journal.
    pub(super) fn may_be_kept(&self) -> bool {
        matches!(self.settings.retention, Some(Retention::For(_) | Retention::ForEver))
    }

    /// A document that is opened and not here: the journal is asked for it.
    pub(super) fn load(&mut self, room_key: Key) {
        if let Some(room) = self.rooms.get_mut(room_key) {
            room.stand = Stand::Loading;
            self.effects.push_back(Effect::Load { document: room.id.clone() });
        }
    }

    /// The journal's answer.
    fn loaded(&mut self, now: Now, id: &DocumentId, contents: Result<Option<Contents>, Unreadable>) {
        let found = self.rooms.find(id).and_then(|key| Some((key, self.rooms.get_mut(key)?)));
        let Some((room_key, room)) = found else {
            // Everybody has left again.
            if matches!(contents, Ok(Some(_))) && self.keeps() {
                record::write_rests(&mut self.keeping.records, id, now.unix_s.max(1));
            }
            return;
        };
        if room.stand != Stand::Loading {
            return;
        }
        match contents {
            Ok(None) => room.stand = Stand::Unkept,
            Ok(Some(contents)) => {
                room.document = Document::restored(contents);
                room.stand = Stand::Kept;
            }
            Err(Unreadable) => {
                let sessions = room.sessions.clone();
                for key in sessions {
                    let why = "The server can't read this document; ask its operator".into();
                    self.end_session(now, key, Refusal::Internal(why));
                }
                self.keeping.left.retain(|legacy| legacy.room != room_key);
                self.rooms.remove(room_key);
                return;
            }
        }
        self.counters.crdt_panics += room.document.take_panics();
        let app = room.id.app;
        let left: Vec<Legacy> = self.keeping.left.extract_if(.., |legacy| legacy.room == room_key).collect();
        if !left.is_empty() {
            let bytes_max = self.settings.message_bytes_max;
            left.into_iter().for_each(|legacy| self.meter(app).inherit(legacy, bytes_max));
            self.apply_legacies(now, app);
        }
        let Some(room) = self.rooms.get(room_key) else { return };
        for key in room.sessions.clone() {
            if self.sessions.get(key).is_some_and(|session| session.wire == Wire::YWebsocket) {
                self.greet(key, false);
            }
            self.release_held(now, key);
        }
    }

    /// Old records of a document are in the way of the journal's: it gets all there is.
    fn state_wanted(&mut self, id: &DocumentId) {
        let room = self.rooms.find(id).and_then(|key| self.rooms.get(key));
        if let Some(room) = room.filter(|room| room.stand == Stand::Kept) {
            let effect =
                Effect::Keep { document: room.id.clone(), contents: room.document.contents(), rests: None };
            self.effects.push_back(effect);
        }
    }

    /// Nobody came back to a document: its session ends, its memory goes, and what is kept of it is as configured.
    pub(super) fn leave_room(&mut self, now: Now, room_key: Key) {
        let Some(room) = self.rooms.get_mut(room_key) else { return };
        let since = now.unix_s.max(1);
        match (room.stand, self.settings.retention) {
            (Stand::Kept | Stand::Resting, Some(Retention::For(_) | Retention::ForEver))
                if self.keeping.failed =>
            {
                return; // there is no other copy, and no room is made any more
            }
            (Stand::Kept, Some(retention)) if !self.keeping.failed => match retention {
                Retention::Session => record::write_forgotten(&mut self.keeping.records, &room.id),
                // It was loaded, and nobody wrote to it.
                _ if room.changes == 0 => record::write_rests(&mut self.keeping.records, &room.id, since),
                _ if self.keeping.resting.len() >= RESTING_MAX => {
                    return self.timers.set(now.monotonic + RESTS_LATER, Timer::Grace(room_key));
                }
                _ => {
                    room.stand = Stand::Resting;
                    *self.keeping.resting.entry(room_key).or_default() += 1;
                    let (document, contents) = (room.id.clone(), room.document.contents());
                    return self.effects.push_back(Effect::Keep { document, contents, rests: Some(since) });
                }
            },
            (Stand::Resting, Some(_)) if !self.keeping.failed => return,
            (Stand::Loading, _) => self.keeping.left.retain(|legacy| legacy.room != room_key),
            _ => {}
        }
        self.rooms.remove(room_key);
    }

    /// The journal has all of a document that nobody was in.
    fn rested(&mut self, now: Now, id: &DocumentId) {
        let Some(room_key) = self.rooms.find(id) else { return };
        let waiting = self.keeping.resting.get_mut(&room_key).map(|count| {
            *count -= 1;
            *count
        });
        if waiting == Some(0) {
            self.keeping.resting.remove(&room_key);
        }
        let stand = self.rooms.get(room_key).map(|room: &Room| room.stand);
        match stand {
            Some(Stand::Resting) if waiting == Some(0) => drop(self.rooms.remove(room_key)),
            // Somebody came meanwhile.
            Some(Stand::Kept) if self.keeps() => {
                record::write_awake(&mut self.keeping.records, id);
                // Where the disk was slower than the retention is long, or the clock was set, the journal has dropped it
                // by now: it is given all of it again.
                self.state_wanted(id);
                // Or only what somebody had left behind, who had waited for ops: it is still nobody's.
                if self.rooms.get(room_key).is_some_and(|room| room.sessions.is_empty()) {
                    self.timers.set(now.monotonic, Timer::Grace(room_key));
                }
            }
            _ => {}
        }
    }
}
