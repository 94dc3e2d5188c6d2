//! Reading a log again: what it says of each document, and which of it still counts.

use rustc_hash::FxHashMap;

use super::Contents;
use super::index::{Index, Position, Positions};
use super::record::{self, Key, Part, Record, Said};
use super::segment::{self, Damage, End};
use super::storage::Storage;
use crate::protocol::document::DocumentId;
use crate::protocol::lib0;

/// Why a journal can't be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the journal is damaged: {file}, byte {offset}: {what}. Updates that were acknowledged are in there, so the node \
         does not start without them. Restore the file, or move the journal's directory away to start empty: clients \
         that are still open bring back what they have"
    )]
    Damaged { file: String, offset: u64, what: &'static str },
    #[error("cannot {doing} {file}: {source}")]
    Storage { doing: &'static str, file: String, source: std::io::Error },
}

/// A document somebody was in, as the journal has it.
#[derive(Debug)]
pub struct RecoveredDocument {
    pub id: DocumentId,
    pub contents: Contents,
}

/// What was in a journal.
#[derive(Debug, Default)]
pub struct Recovered {
    pub documents: Vec<RecoveredDocument>,
    pub segments: usize,
    pub records: u64,
    pub bytes: u64,
    /// Documents that nobody was in, which stay where they are.
    pub resting: usize,
    /// What a crash left of the last write: where it began, and how many bytes were cut off.
    pub torn: Option<Torn>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    pub file: String,
    pub offset: u64,
    pub bytes: u64,
}

/// A state whose parts are coming in.
#[derive(Debug)]
struct Gathering {
    covers: u64,
    parts: u32,
    bytes: Vec<u8>,
    positions: Positions,
}

/// What was read of one document so far.
#[derive(Debug, Default)]
struct Replayed {
    contents: Contents,
    /// How much of the tail is the last state's own.
    own: usize,
    /// Where each update of the tail behind that ends, with its sequence.
    updates: Vec<(u64, usize)>,
    gathering: Option<Gathering>,
    /// When somebody last came back to it.
    awake_at: Option<u64>,
    /// Its state is to be read again if it is wanted: nobody was in it.
    left_on_disk: bool,
}

impl Replayed {
    /// Its last state is all there is, and nobody is in it: it takes no memory.
    fn leave_on_disk(&mut self) {
        (self.contents, self.own, self.updates) = (Contents::default(), 0, Vec::new());
        self.left_on_disk = true;
    }

    fn update(&mut self, sequence: u64, update: &[u8]) {
        lib0::write_var_bytes(&mut self.contents.tail, update);
        self.updates.push((sequence, self.contents.tail.len()));
    }

    /// A whole state is there: it stands for everything before `covers`.
    fn replace(&mut self, covers: u64, state: Contents) {
        let before = self.updates.partition_point(|(sequence, _)| *sequence < covers);
        let cut = before.checked_sub(1).map_or(self.own, |last| self.updates[last].1);
        let kept = self.contents.tail.split_off(cut);
        self.updates.drain(..before);
        let shift = state.tail.len();
        (self.contents, self.own) = (state, shift);
        self.contents.tail.extend_from_slice(&kept);
        for (_, end) in &mut self.updates {
            *end = *end - cut + shift;
        }
    }
}

/// A log as it was found.
pub(super) struct Replay {
    pub index: Index,
    documents: FxHashMap<Box<[u8]>, Replayed>,
    pub recovered: Recovered,
    /// Of the next record.
    pub sequence: u64,
    /// Of the next segment.
    pub number: u64,
}

impl Replay {
    /// Reads everything, and cuts off what a crash left of the last write.
    pub fn run(storage: &mut dyn Storage) -> Result<Self, OpenError> {
        let listed = storage.segments();
        let numbers = listed.map_err(|source| OpenError::Storage {
            doing: "list the segments of the journal, such as",
            file: storage.name(1),
            source,
        })?;
        let mut replay = Self {
            index: Index::default(),
            documents: FxHashMap::default(),
            recovered: Recovered::default(),
            sequence: 0,
            number: numbers.last().map_or(1, |last| last + 1),
        };
        for (at, &number) in numbers.iter().enumerate() {
            let is_last = at + 1 == numbers.len();
            if at > 0 && numbers[at - 1] + 1 != number {
                let file = storage.name(numbers[at - 1] + 1);
                return Err(OpenError::Damaged { file, offset: 0, what: "this segment is missing" });
            }
            replay.segment(storage, number, at == 0, is_last)?;
        }
        replay.finish(storage)?;
        Ok(replay)
    }

    fn segment(
        &mut self,
        storage: &mut dyn Storage,
        number: u64,
        is_first: bool,
        is_last: bool,
    ) -> Result<(), OpenError> {
        let file = storage.name(number);
        let failed = |doing, source| OpenError::Storage { doing, file: file.clone(), source };
        let damaged = |Damage { offset, what }| OpenError::Damaged { file: file.clone(), offset, what };
        let bytes = storage.read(number).map_err(|source| failed("read", source))?;
        let length = bytes.len() as u64;
        let sequence = segment::header_of(&bytes, number).map_or(self.sequence, |header| header.sequence);
        self.index.begin_segment(number, sequence);
        let expected = (!is_first).then_some(self.sequence);
        let read = segment::read(&bytes, number, expected, |offset, sequence, length, record| {
            self.record(number, offset, sequence, length, record);
        });
        let (end, kept) = match read.map_err(damaged)? {
            End::Whole { sequence } => (Some(sequence), length),
            End::Torn { sequence, offset } if is_last => (Some(sequence), offset),
            End::Unbegun if is_last => (None, 0),
            End::Torn { offset, .. } => {
                return Err(damaged(Damage {
                    offset,
                    what: "a record is not whole, and later segments were stored",
                }));
            }
            End::Unbegun => {
                return Err(damaged(Damage {
                    offset: 0,
                    what: "the header is not whole, and later segments were stored",
                }));
            }
        };
        if kept < length {
            self.recovered.torn = Some(Torn { file: file.clone(), offset: kept, bytes: length - kept });
        }
        self.sequence = end.unwrap_or(self.sequence);
        if is_last && kept <= segment::HEADER_BYTES as u64 {
            // Nothing is in it. Its number is used again, or a node that ends at each start would leave a file each time.
            storage.remove(number).map_err(|source| failed("remove what a crash left in", source))?;
            self.index.remove_newest();
            self.number = number;
            return Ok(());
        }
        if is_last {
            // Also if nothing is cut off: what only the kernel has of it must be on disk before another comes behind it.
            let cut = storage.truncate(number, kept);
            cut.map_err(|source| failed("cut off what a crash left in", source))?;
        }
        self.recovered.segments += 1;
        self.recovered.bytes += kept;
        self.index.grow(kept);
        Ok(())
    }

    fn record(&mut self, segment: u64, offset: u64, sequence: u64, length: usize, record: Record<'_>) {
        let Record::Document { key, said } = record else { return };
        self.recovered.records += 1;
        let name = key.as_bytes();
        match said {
            Said::Update(update) => {
                self.index.updated(name);
                self.of(&key).update(sequence, update);
            }
            Said::Forgotten => {
                self.index.forgotten(name);
                self.documents.remove(name);
            }
            Said::Awake => {
                self.index.awake(name);
                self.of(&key).awake_at = Some(sequence);
            }
            Said::Rests(since) => {
                self.index.rests(name, since);
                if let Some(replayed) = self.documents.get_mut(name)
                    && self.index.is_resting(name).is_some()
                {
                    replayed.leave_on_disk();
                }
            }
            Said::State(part) => {
                let position = Position { segment, offset, length: length as u32 };
                self.part(&key, &part, position);
            }
        }
    }

    fn of(&mut self, key: &Key<'_>) -> &mut Replayed {
        if !self.documents.contains_key(key.as_bytes()) {
            self.documents.insert(key.as_bytes().into(), Replayed::default());
        }
        self.documents.get_mut(key.as_bytes()).expect("it is there or was put there")
    }

    fn part(&mut self, key: &Key<'_>, part: &Part<'_>, position: Position) {
        let replayed = self.of(key);
        if part.part == 0 {
            let (bytes, positions) = (Vec::new(), Positions::new());
            replayed.gathering = Some(Gathering { covers: part.covers, parts: 0, bytes, positions });
        }
        let Some(gathering) = &mut replayed.gathering else { return };
        if (gathering.covers, gathering.parts) != (part.covers, part.part) {
            return; // of a state that was given up
        }
        gathering.bytes.extend_from_slice(part.bytes);
        gathering.positions.push(position);
        gathering.parts += 1;
        if gathering.parts < part.parts {
            return;
        }
        let Some(Gathering { covers, bytes, positions, .. }) = replayed.gathering.take() else { return };
        let Some(state) = Contents::decode(&bytes) else { return };
        replayed.replace(covers, state);
        let behind = replayed.updates.len();
        let rests = part.rests.filter(|_| replayed.awake_at.is_none_or(|at| at < covers));
        replayed.left_on_disk = false;
        if rests.is_some() && behind == 0 {
            replayed.leave_on_disk();
        }
        let covered = self.index.began_state(key.as_bytes(), covers, behind as u64);
        self.index.end_state(key.as_bytes(), &covered, positions, rests);
    }

    /// Sorts out who is handed to the shards: everybody but those that rest.
    fn finish(&mut self, storage: &mut dyn Storage) -> Result<(), OpenError> {
        for (key, replayed) in std::mem::take(&mut self.documents) {
            if self.index.is_resting(&key).is_some() {
                self.recovered.resting += 1;
                continue;
            }
            let mut contents = replayed.contents;
            if let Some(state) = self.index.state_of(&key).filter(|_| replayed.left_on_disk) {
                let mut state = read_state(storage, state)?;
                state.tail.append(&mut contents.tail);
                contents = state;
            }
            match record::document_of(&key).filter(|_| !contents.is_empty()) {
                Some(id) => self.recovered.documents.push(RecoveredDocument { id, contents }),
                None => self.index.forgotten(&key),
            }
        }
        Ok(())
    }
}

/// Reads a state's parts again.
pub(super) fn read_state(storage: &mut dyn Storage, positions: &Positions) -> Result<Contents, OpenError> {
    let mut state = Vec::new();
    for &Position { segment, offset, length } in positions {
        let file = storage.name(segment);
        let frame = storage.read_at(segment, offset, length as usize);
        let frame =
            frame.map_err(|source| OpenError::Storage { doing: "read", file: file.clone(), source })?;
        let Some((_, Record::Document { said: Said::State(part), .. })) = record::first(&frame, segment)
        else {
            return Err(OpenError::Damaged {
                file,
                offset,
                what: "a record is not whole, and it was stored once",
            });
        };
        state.extend_from_slice(part.bytes);
    }
    let Position { segment, offset, .. } = positions[0];
    let damaged =
        || OpenError::Damaged { file: storage.name(segment), offset, what: "this is no document's state" };
    Contents::decode(&state).ok_or_else(damaged)
}
