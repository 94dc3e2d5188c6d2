//! What the journal is told, and who is told when it has it.
//!
//! A turn's updates go to the journal as one batch ([`Effect::Append`]). An acknowledgement waits in line until the batch
//! that was being gathered when it was due is stored, also if its update changed nothing: what it repeats may not be
//! stored yet. So acknowledgements come in order, for every connection of the shard. An update that waits for what it
//! depends on holds up those behind it ([`Overdue`]): a client counts.
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
    /// Nobody is here, and the journal is being given all of it. Until it has that, the document stays.
    Resting,
}

/// Documents that are put to rest at once: each is in memory twice meanwhile.
const RESTING_MAX: usize = 64;

/// When to look again whether there is room for one more.
const RESTS_LATER: Duration = Duration::from_millis(50);

/// An acknowledgement in line takes about this much memory.
const ACKNOWLEDGEMENT_BYTES: usize = 32;

/// How long a recovered document waits for its tenant's keys; of a tenant that is no more they never come.
const KEYS_WAIT_MAX: Duration = Duration::from_secs(3600);

/// Statuses that may wait for an update before them.
pub(super) const OVERDUE_MAX: usize = 64 << 10;

/// What a session is not told yet, from the first of its updates on that waits for what it depends on.
#[derive(Debug, Default)]
pub struct Overdue(VecDeque<Word>);

/// What is to be said of one update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Applied,
    Refused,
    /// It waits, under this number.
    Waits(u64),
}

impl Overdue {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

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
    /// Who hears of one update once a batch is stored: that it is, or that it was refused, which waits for its turn.
    line: VecDeque<(u64, Key, bool)>,
    /// The journal takes nothing any more.
    failed: bool,
    /// The latest number of an update that waits for what it depends on.
    parked: u64,
    /// When this process took over what the journal had.
    recovered_at: Duration,
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
            parked: 0,
            recovered_at: Duration::ZERO,
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
        if !self.holds_back(key, Word::Applied) {
            self.tell_stored(key);
        }
    }

    fn tell_stored(&mut self, key: Key) {
        if self.settings.retention.is_none() {
            return self.say_status(key, true);
        }
        if self.keeping.failed {
            return;
        }
        let newest = self.keeping.newest();
        if self.keeping.stored >= newest && self.keeping.line.is_empty() {
            return self.say_status(key, true);
        }
        self.keeping.line.push_back((newest, key, true));
        self.keeping.asks |= self.keeping.records.is_empty() && newest > self.keeping.awaited;
    }

    /// Tells a client that one of its updates was refused, behind what it is still to hear of those before.
    pub(super) fn deny(&mut self, key: Key) {
        if !self.holds_back(key, Word::Refused) {
            self.tell_refused(key);
        }
    }

    fn tell_refused(&mut self, key: Key) {
        match self.keeping.line.back() {
            Some(&(number, ..)) => self.keeping.line.push_back((number, key, false)),
            None => self.say_status(key, false),
        }
    }

    /// Whether this client hears nothing of an update, or not yet.
    fn holds_back(&mut self, key: Key, word: Word) -> bool {
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.acknowledges) else {
            return true;
        };
        match &mut session.overdue {
            Some(overdue) => overdue.0.push_back(word),
            None => return false,
        }
        true
    }

    /// An update waits for what it depends on: the number under which it does.
    pub(super) fn note_parked(&mut self, key: Key) -> u64 {
        self.keeping.parked += 1;
        if let Some(session) = self.sessions.get_mut(key).filter(|session| session.acknowledges) {
            session.overdue.get_or_insert_default().0.push_back(Word::Waits(self.keeping.parked));
        }
        self.keeping.parked
    }

    /// It has been applied.
    pub(super) fn acknowledge_parked(&mut self, key: Key, number: u64) {
        self.settle_parked(key, Word::Applied, |waits| waits == number);
    }

    /// A client that may not write any more can't bring what its updates wait for.
    pub(super) fn give_up_parked(&mut self, key: Key) {
        self.settle_parked(key, Word::Refused, |_| true);
    }

    /// Says what is to be said up to the first update that still waits.
    fn settle_parked(&mut self, key: Key, word: Word, is_it: impl Fn(u64) -> bool) {
        let Some(overdue) = self.sessions.get_mut(key).and_then(|session| session.overdue.as_mut()) else {
            return;
        };
        for one in &mut overdue.0 {
            if let Word::Waits(number) = *one
                && is_it(number)
            {
                *one = word;
            }
        }
        let waits = overdue.0.iter().position(|word| matches!(word, Word::Waits(_)));
        let due: Vec<Word> = overdue.0.drain(..waits.unwrap_or(overdue.0.len())).collect();
        if waits.is_none()
            && let Some(session) = self.sessions.get_mut(key)
        {
            session.overdue = None;
        }
        for word in due {
            if word == Word::Applied { self.tell_stored(key) } else { self.tell_refused(key) }
        }
    }

    fn say_status(&mut self, key: Key, stored: bool) {
        self.counters.acknowledged += u64::from(stored);
        self.reply(key, |framing, out| framing.sync_status(out, stored));
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
        while let Some(&(number, key, stored)) = self.keeping.line.front()
            && number <= through
        {
            self.keeping.line.pop_front();
            self.say_status(key, stored);
        }
    }

    /// The journal takes nothing any more: nobody is told again that an update is stored.
    fn journal_failed(&mut self) {
        let Keeping { number, parked, recovered_at, .. } = self.keeping;
        let failed = Keeping { failed: true, number, parked, recovered_at, ..Keeping::default() };
        for (_, key, stored) in std::mem::replace(&mut self.keeping, failed).line {
            if !stored {
                self.say_status(key, false);
            }
        }
    }

    /// Whether nothing that is written from now on would be stored, though it should be.
    pub(super) const fn has_journal_failed(&self) -> bool {
        self.keeping.failed
    }

    /// A document that the journal has, from before this process began. It waits for its clients as if they had left now.
    pub(super) fn document_recovered(&mut self, now: Now, id: DocumentId, document: Document) {
        self.keeping.recovered_at = now.monotonic;
        let key = self.rooms.open(id, now.monotonic);
        let Some(room) = self.rooms.get_mut(key) else { return };
        room.document = document;
        room.recovered = true;
        room.stand = Stand::Kept;
        room.changes += 1;
        room.empty_since = Some(now.monotonic.into());
        self.timers.set(now.monotonic + self.settings.grace_period, Timer::Grace(key));
    }

    /// Whether a document from before this process began is still to wait: without its tenant's keys nobody has been able
    /// to come. Its grace period begins when they are there.
    pub(super) fn waits_for_keys(&mut self, now: Now, room_key: Key) -> bool {
        let Some(room) = self.rooms.get_mut(room_key) else { return false };
        let waits = room.recovered
            && room.empty_since.is_some()
            && now.monotonic < self.keeping.recovered_at + KEYS_WAIT_MAX
            && self.verifier.keys().keys(room.id.app.tenant).is_empty();
        if waits {
            room.empty_since = Some(now.monotonic.into());
        }
        waits
    }

    /// Whether a document that is not here may be in the journal.
    pub(super) fn may_be_kept(&self) -> bool {
        matches!(self.settings.retention, Some(Retention::For(_) | Retention::ForEver))
    }

    /// A document that is opened and not here: the journal is asked for it. What this turn has told the journal so far
    /// goes first: that the document rests may be among it.
    pub(super) fn load(&mut self, room_key: Key) {
        self.effects.extend(self.keeping.take_batch());
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
                Effect::Keep { document: room.id.clone(), contents: room.document.contents(), rests: false };
            self.effects.push_back(effect);
        }
    }

    /// Nobody came back to a document: its session ends, its memory goes, and what is kept of it is as configured.
    pub(super) fn leave_room(&mut self, now: Now, room_key: Key) {
        let Some(room) = self.rooms.get_mut(room_key) else { return };
        let since = now.unix_s.max(1);
        match (room.stand, self.settings.retention) {
            (Stand::Kept | Stand::Resting, Some(Retention::For(_) | Retention::ForEver))
                if self.keeping.failed && room.changes > 0 =>
            {
                return; // there is no other copy; nobody opens another one any more
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
                    return self.effects.push_back(Effect::Keep { document, contents, rests: true });
                }
            },
            (Stand::Resting, Some(_)) if !self.keeping.failed => return,
            (Stand::Loading, _) => self.keeping.left.retain(|legacy| legacy.room != room_key),
            _ => {}
        }
        self.rooms.remove(room_key);
    }

    /// The journal has all of a document that nobody was in. It rests from now on, if nobody came meanwhile.
    fn rested(&mut self, now: Now, id: &DocumentId) {
        let Some(room_key) = self.rooms.find(id) else { return };
        let waiting = self.keeping.resting.get_mut(&room_key).map(|count| {
            *count -= 1;
            *count
        });
        if waiting != Some(0) {
            return;
        }
        self.keeping.resting.remove(&room_key);
        let Some(room) = self.rooms.get(room_key) else { return };
        match room.stand {
            Stand::Resting => {
                record::write_rests(&mut self.keeping.records, id, now.unix_s.max(1));
                self.rooms.remove(room_key);
            }
            // Changed by what had waited for its app's ops: there is more to store.
            _ if room.sessions.is_empty() => self.timers.set(now.monotonic, Timer::Grace(room_key)),
            _ => {}
        }
    }
}
