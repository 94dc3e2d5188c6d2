//! The journal's core: commands in, replies out. It has no thread and reads no clock; the disk is handed in.
//!
//! [`Log::handle`] gathers a group, [`Log::commit`] makes it as safe as the level says and lets the replies out,
//! [`Log::maintain`] closes a segment that is full, asks for states of documents that hold the oldest one, and removes it.

use std::collections::VecDeque;

use super::index::{Covered, Index, Position, Positions};
use super::record::{self, Marker, Part, Record, Said};
pub use super::recovery::OpenError;
use super::recovery::{self, Recovered, Replay};
use super::segment::{self, Header};
use super::storage::Storage;
use super::{Command, Contents, Reply, Retention, Unreadable};
use crate::protocol::document::DocumentId;
use crate::splitmix;

/// A document's state is written in pieces, so that a big one doesn't hold up everybody's updates.
pub const PART_BYTES: usize = 1 << 20;

/// How much of such states a group holds besides its updates.
const STATES_BYTES_PER_GROUP: usize = 1 << 20;

/// How many segments' worth of garbage is left alone.
const GARBAGE_SEGMENTS: u64 = 4;

/// States asked for at once.
const WANTED_MAX: usize = 32;

/// A log in which nothing counts is begun anew when it has more than this.
const LEFTOVER_BYTES: u64 = 64 << 10;

/// How the log is kept.
#[derive(Debug, Clone, Copy)]
pub struct LogSettings {
    /// Whether a group is safe only when it is synced.
    pub syncs: bool,
    pub segment_bytes: u64,
    pub retention: Retention,
    pub shards: u16,
    /// Hard to guess, for the segments' marks.
    pub seed: u64,
}

impl LogSettings {
    /// What a segment begins with: another mark for each.
    fn header(&self, number: u64, sequence: u64) -> Header {
        let mark = splitmix::mix(self.seed.wrapping_add(number.wrapping_mul(splitmix::GAMMA)));
        Header { number, sequence, mark }
    }
}

/// What the log counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogFigures {
    pub failed: bool,
    pub documents: u64,
    pub segments: u64,
    pub bytes: u64,
    /// Of what counts: the documents' states.
    pub state_bytes: u64,
    pub records_total: u64,
    pub bytes_total: u64,
    pub commits_total: u64,
    pub states_total: u64,
    pub segments_removed_total: u64,
    pub unreadable_total: u64,
}

/// Who hears when a state is written.
#[derive(Debug)]
struct Answer {
    shard: u16,
    document: DocumentId,
}

/// A document's state that is being written, or will be.
#[derive(Debug)]
struct Keeping {
    key: Box<[u8]>,
    covers: u64,
    covered: Covered,
    rests: Option<u64>,
    contents: Contents,
    /// The contents as one piece, once it is its turn.
    bytes: Vec<u8>,
    written: usize,
    positions: Positions,
    answer: Option<Answer>,
}

/// The log.
#[derive(Debug)]
pub struct Log<S> {
    storage: S,
    settings: LogSettings,
    index: Index,
    number: u64,
    /// The newest segment's.
    mark: u64,
    /// Of the newest segment, without the group.
    length: u64,
    /// Of the next record.
    sequence: u64,
    /// Every record before this one is on disk.
    durable: u64,
    group: Vec<u8>,
    keeping: VecDeque<Keeping>,
    /// Replies that wait for the group, by shard: the newest batch of it, and whether anybody waits for that.
    stored: Vec<Option<(u64, bool)>>,
    rested: Vec<Answer>,
    replies: VecDeque<(u16, Reply)>,
    /// Documents of the oldest segment whose states are still to be asked for.
    cleaning: Vec<Box<[u8]>>,
    failure: Option<String>,
    /// Why a document could not be read, of the newest one.
    unreadable: Option<OpenError>,
    figures: LogFigures,
}

impl<S: Storage> Log<S> {
    /// Reads what is there, and begins a new segment behind it.
    ///
    /// # Errors
    /// [`OpenError`] names the file and the place.
    pub fn open(mut storage: S, settings: LogSettings) -> Result<(Self, Recovered), OpenError> {
        let Replay { mut index, recovered, sequence, number, .. } = Replay::run(&mut storage)?;
        let header = settings.header(number, sequence);
        let made = storage
            .create(number)
            .and_then(|()| storage.append(&segment::header(header)))
            .and_then(|()| storage.sync());
        let file = storage.name(number);
        made.map_err(|source| OpenError::Storage { doing: "begin", file, source })?;
        index.begin_segment(number, sequence);
        index.grow(segment::HEADER_BYTES as u64);
        let log = Self {
            storage,
            settings,
            index,
            number,
            mark: header.mark,
            length: segment::HEADER_BYTES as u64,
            sequence,
            durable: sequence,
            group: Vec::new(),
            keeping: VecDeque::new(),
            stored: vec![None; usize::from(settings.shards)],
            rested: Vec::new(),
            replies: VecDeque::new(),
            cleaning: Vec::new(),
            failure: None,
            unreadable: None,
            figures: LogFigures::default(),
        };
        Ok((log, recovered))
    }

    /// Takes a command in. What must be written of it is gathered for the next commit.
    pub fn handle(&mut self, command: Command) {
        match command {
            Command::Load { shard, document } => self.load(shard, document),
            _ if self.failure.is_some() => {}
            Command::Append { shard, number, records, awaited } => {
                self.append(records);
                if let Some(stored) = self.stored.get_mut(usize::from(shard)) {
                    *stored = Some((number, awaited || stored.is_some_and(|(_, awaited)| awaited)));
                }
            }
            Command::Keep { shard, document, contents, rests } => {
                let key = record::key_of(&document);
                let answer = rests.then_some(Answer { shard, document });
                self.keep(key, contents, None, answer);
            }
        }
    }

    /// There is something to commit.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let owes = |stored: &Option<_>| stored.is_some();
        self.failure.is_none()
            && (!self.group.is_empty() || !self.keeping.is_empty() || self.stored.iter().any(owes))
    }

    /// Somebody waits for the next commit.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.failure.is_none() && self.stored.iter().any(|stored| matches!(stored, Some((_, true))))
    }

    /// Documents are being opened or put away: each holds up something of its shard.
    #[must_use]
    pub fn hurries(&self) -> bool {
        !self.replies.is_empty() || (self.failure.is_none() && !self.keeping.is_empty())
    }

    /// Bytes that wait for the commit.
    #[must_use]
    pub const fn gathered_bytes(&self) -> usize {
        self.group.len()
    }

    /// Why nothing is stored any more, if it is so.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Why a document could not be read, if that was so since the last call.
    pub fn take_unreadable(&mut self) -> Option<OpenError> {
        self.unreadable.take()
    }

    fn note_unreadable(&mut self, why: OpenError) -> Unreadable {
        self.figures.unreadable_total += 1;
        self.unreadable = Some(why);
        Unreadable
    }

    /// The disk, for tests and simulations that take it over after a crash.
    #[must_use]
    pub const fn storage(&self) -> &S {
        &self.storage
    }

    #[cfg(test)]
    pub const fn index(&self) -> &Index {
        &self.index
    }

    #[cfg(test)]
    pub const fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    #[must_use]
    pub fn poll_reply(&mut self) -> Option<(u16, Reply)> {
        self.replies.pop_front()
    }

    #[must_use]
    pub fn figures(&self) -> LogFigures {
        LogFigures {
            failed: self.failure.is_some(),
            documents: self.index.documents() as u64,
            segments: self.index.segments() as u64,
            bytes: self.index.bytes(),
            state_bytes: self.index.state_bytes(),
            ..self.figures
        }
    }

    /// Every group begins with a marker: what was on disk by then.
    fn begin_group(&mut self) {
        if self.group.is_empty() {
            let marker = Marker { mark: self.mark, sequence: self.sequence, durable: self.durable };
            record::write_marker(&mut self.group, self.number, &marker);
            record::seal(&mut self.group, self.number);
            self.sequence += 1;
        }
    }

    fn append(&mut self, records: Vec<u8>) {
        if records.is_empty() {
            return;
        }
        self.begin_group();
        let mut at = self.group.len();
        self.group.extend_from_slice(&records);
        while let Some(length) = record::frame_len(&self.group[at..]) {
            let frame = &mut self.group[at..at + length];
            record::seal(frame, self.number);
            if let Some(Record::Document { key, said }) = record::parse(frame, self.number) {
                match said {
                    Said::Update(_) => self.index.updated(key.as_bytes()),
                    Said::Forgotten => self.index.forgotten(key.as_bytes()),
                    Said::Awake => self.index.awake(key.as_bytes()),
                    Said::Rests(since) => self.index.rests(key.as_bytes(), since),
                    Said::State(_) => {}
                }
            }
            self.sequence += 1;
            self.figures.records_total += 1;
            at += length;
        }
        debug_assert_eq!(at, self.group.len(), "a shard sends whole frames");
    }

    fn keep(&mut self, key: Box<[u8]>, contents: Contents, rests: Option<u64>, answer: Option<Answer>) {
        let covered = self.index.begin_state(&key);
        self.keeping.push_back(Keeping {
            key,
            covers: self.sequence,
            covered,
            rests,
            contents,
            bytes: Vec::new(),
            written: 0,
            positions: Positions::new(),
            answer,
        });
    }

    /// Puts the next pieces of states into the group.
    fn write_states(&mut self) {
        let mut room = STATES_BYTES_PER_GROUP;
        while room > 0
            && let Some(mut keeping) = self.keeping.pop_front()
        {
            if !self.index.is_of(&keeping.key, &keeping.covered) {
                continue; // the document is gone meanwhile
            }
            self.begin_group();
            if keeping.written == 0 {
                keeping.bytes = std::mem::take(&mut keeping.contents).encode();
            }
            while room > 0 && keeping.written < keeping.bytes.len() {
                room = room.saturating_sub(self.write_part(&mut keeping));
            }
            if keeping.written < keeping.bytes.len() {
                self.keeping.push_front(keeping);
            } else {
                let Keeping { key, covered, positions, rests, answer, .. } = keeping;
                self.index.end_state(&key, &covered, positions, rests);
                self.rested.extend(answer);
                self.figures.states_total += 1;
            }
        }
    }

    fn write_part(&mut self, keeping: &mut Keeping) -> usize {
        let bytes = &keeping.bytes[keeping.written..];
        let bytes = &bytes[..bytes.len().min(PART_BYTES)];
        let part = Part {
            covers: keeping.covers,
            part: keeping.positions.len() as u32,
            parts: keeping.bytes.len().div_ceil(PART_BYTES) as u32,
            rests: keeping.rests,
            bytes,
        };
        let at = self.group.len();
        record::write_part(&mut self.group, &keeping.key, &part);
        record::seal(&mut self.group[at..], self.number);
        keeping.written += bytes.len();
        let (offset, length) = (self.length + at as u64, (self.group.len() - at) as u32);
        keeping.positions.push(Position { segment: self.number, offset, length });
        self.sequence += 1;
        self.figures.records_total += 1;
        length as usize
    }

    /// Writes the group, and makes it safe.
    pub fn commit(&mut self) {
        if self.failure.is_some() {
            return;
        }
        self.write_states();
        if !self.group.is_empty() {
            let written = self.storage.append(&self.group);
            let safe = match written {
                Ok(()) if self.settings.syncs => self.storage.sync().map_err(|error| ("sync", error)),
                Ok(()) => Ok(()),
                Err(error) => Err(("write to", error)),
            };
            if let Err((doing, error)) = safe {
                return self.fail(doing, &error);
            }
            if self.settings.syncs {
                self.durable = self.sequence;
            }
            let bytes = self.group.len() as u64;
            self.length += bytes;
            self.index.grow(bytes);
            self.figures.bytes_total += bytes;
            self.figures.commits_total += 1;
            self.group.clear();
            if self.group.capacity() > 4 * STATES_BYTES_PER_GROUP {
                self.group = Vec::new();
            }
        }
        for (shard, stored) in (0..).zip(&mut self.stored) {
            if let Some((through, awaited)) = stored.take() {
                self.replies.push_back((shard, Reply::Stored { through, awaited }));
            }
        }
        for Answer { shard, document } in self.rested.drain(..) {
            self.replies.push_back((shard, Reply::Rested { document }));
        }
    }

    /// From here on nothing is stored, and nobody is told that anything was: what a disk has after an error is
    /// unknown, and asking it again can't tell.
    fn fail(&mut self, doing: &str, error: &std::io::Error) {
        self.failure = Some(format!("cannot {doing} {}: {error}", self.storage.name(self.number)));
        self.group = Vec::new();
        self.keeping = VecDeque::new();
        self.rested = Vec::new();
        self.cleaning = Vec::new();
        for shard in 0..self.settings.shards {
            self.replies.push_back((shard, Reply::Failed));
        }
    }

    /// Between two commits: closes a full segment, and sees to it that old ones can go.
    pub fn maintain(&mut self, unix_s: u64) {
        if self.failure.is_some() || !self.group.is_empty() {
            return;
        }
        let is_leftover = self.index.documents() == 0 && self.length > LEFTOVER_BYTES;
        if (self.length >= self.settings.segment_bytes || is_leftover)
            && let Err(error) = self.begin_segment()
        {
            return self.fail("begin a segment behind", &error);
        }
        while let Some(garbage) = self.index.garbage_segment() {
            if let Err(error) = self.storage.remove(garbage) {
                return self.fail("remove the oldest segment before", &error);
            }
            self.index.remove_oldest();
            self.cleaning.clear();
            self.figures.segments_removed_total += 1;
        }
        self.expire(unix_s);
        self.clean();
    }

    fn begin_segment(&mut self) -> std::io::Result<()> {
        if !self.settings.syncs {
            // A segment that has another behind it is never torn.
            self.storage.sync()?;
        }
        let number = self.number + 1;
        let header = self.settings.header(number, self.sequence);
        self.storage.create(number)?;
        self.storage.append(&segment::header(header))?;
        self.storage.sync()?;
        (self.number, self.mark) = (number, header.mark);
        self.durable = self.sequence;
        self.length = segment::HEADER_BYTES as u64;
        self.index.begin_segment(number, self.sequence);
        self.index.grow(self.length);
        Ok(())
    }

    /// Forgets documents whose time is over.
    fn expire(&mut self, unix_s: u64) {
        let until = match self.settings.retention {
            Retention::Session => u64::MAX,
            Retention::For(time) => unix_s.saturating_sub(time.as_secs()),
            Retention::ForEver => return,
        };
        let over: Vec<DocumentId> = self.index.resting_until(until).filter_map(record::document_of).collect();
        let mut records = Vec::new();
        for document in &over {
            record::write_forgotten(&mut records, document);
        }
        self.append(records);
    }

    /// Asks for the states of documents that begin in the oldest segment, a few at a time, while too much is garbage.
    fn clean(&mut self) {
        let floor = GARBAGE_SEGMENTS * self.settings.segment_bytes;
        if !self.index.has_too_much(floor) {
            return;
        }
        if self.cleaning.is_empty() {
            self.cleaning = self.index.in_oldest();
        }
        while self.index.wanted() < WANTED_MAX
            && let Some(key) = self.cleaning.pop()
        {
            let Some(document) = record::document_of(&key) else { continue };
            if !self.index.want(&key) {
                continue;
            }
            let Some(since) = self.index.is_resting(&key) else {
                let shard = document.shard(self.settings.shards);
                self.replies.push_back((shard, Reply::Wanted { document }));
                continue;
            };
            // Nobody has it: it is copied as it is.
            match self.index.state_of(&key).map(|state| recovery::read_state(&mut self.storage, state)) {
                Some(Ok(contents)) => self.keep(key, contents, Some(since), None),
                // Its segment stays, and with it all behind that.
                Some(Err(why)) => _ = self.note_unreadable(why),
                None => {}
            }
        }
    }

    fn load(&mut self, shard: u16, document: DocumentId) {
        let key = record::key_of(&document);
        let contents = match self.index.state_of(&key) {
            None => Ok(None),
            Some(state) => match recovery::read_state(&mut self.storage, state) {
                Ok(contents) => Ok(Some(contents)),
                Err(why) => Err(self.note_unreadable(why)),
            },
        };
        if matches!(contents, Ok(Some(_))) && self.failure.is_none() {
            let mut awake = Vec::new();
            record::write_awake(&mut awake, &document);
            self.append(awake);
        }
        self.replies.push_back((shard, Reply::Loaded { document, contents }));
    }
}
