//! What of the log still counts: by document, the segment with which it begins and the state it may begin with; by
//! segment, how many documents begin there.
//!
//! Invariant: nothing that counts of a document is in a segment before the one it begins in. So the oldest segment in
//! which no document begins can go.

use std::collections::{BTreeSet, VecDeque};

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// Where a part of a state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub segment: u64,
    pub offset: u64,
    /// Of the frame.
    pub length: u32,
}

pub type Positions = SmallVec<[Position; 1]>;

#[derive(Debug)]
struct Entry {
    /// Another one for each life of a document: what was begun for one must not end in the next.
    life: u64,
    begins: u64,
    /// Its newest whole state, and how many updates came behind that.
    state: Positions,
    state_bytes: u64,
    tail: u64,
    rests: Option<u64>,
    /// How often somebody came back.
    wakes: u64,
    wanted: bool,
}

/// A state that is being written: what it will stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covered {
    life: u64,
    begins: u64,
    tail: u64,
    wakes: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    /// Of its first record.
    sequence: u64,
    bytes: u64,
    documents: usize,
}

#[derive(Debug, Default)]
pub struct Index {
    documents: FxHashMap<Box<[u8]>, Entry>,
    segments: VecDeque<Segment>,
    /// Documents that nobody is in, by since when.
    resting: BTreeSet<(u64, Box<[u8]>)>,
    lives: u64,
    state_bytes: u64,
    bytes: u64,
    wanted: usize,
}

impl Index {
    pub fn begin_segment(&mut self, number: u64, sequence: u64) {
        self.segments.push_back(Segment { number, sequence, bytes: 0, documents: 0 });
    }

    /// The newest segment has so many bytes more.
    pub fn grow(&mut self, bytes: u64) {
        self.bytes += bytes;
        if let Some(newest) = self.segments.back_mut() {
            newest.bytes += bytes;
        }
    }

    fn newest(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.number)
    }

    fn at(segments: &mut VecDeque<Segment>, number: u64) -> Option<&mut Segment> {
        let first = segments.front()?.number;
        segments.get_mut(usize::try_from(number.checked_sub(first)?).ok()?)
    }

    fn entry(&mut self, key: &[u8]) -> &mut Entry {
        if !self.documents.contains_key(key) {
            let begins = self.newest();
            self.lives += 1;
            let entry = Entry {
                life: self.lives,
                begins,
                state: Positions::new(),
                state_bytes: 0,
                tail: 0,
                rests: None,
                wakes: 0,
                wanted: false,
            };
            if let Some(segment) = Self::at(&mut self.segments, begins) {
                segment.documents += 1;
            }
            self.documents.insert(key.into(), entry);
        }
        self.documents.get_mut(key).expect("it is there or was put there")
    }

    /// An update of a document in the newest segment.
    pub fn updated(&mut self, key: &[u8]) {
        let entry = self.entry(key);
        entry.tail += 1;
        if let Some(since) = entry.rests.take() {
            self.resting.remove(&(since, key.into()));
        }
    }

    pub fn forgotten(&mut self, key: &[u8]) {
        let Some(entry) = self.documents.remove(key) else { return };
        self.state_bytes -= entry.state_bytes;
        self.wanted -= usize::from(entry.wanted);
        if let Some(since) = entry.rests {
            self.resting.remove(&(since, key.into()));
        }
        if let Some(segment) = Self::at(&mut self.segments, entry.begins) {
            segment.documents -= 1;
        }
    }

    pub fn awake(&mut self, key: &[u8]) {
        let Some(entry) = self.documents.get_mut(key) else { return };
        entry.wakes += 1;
        if let Some(since) = entry.rests.take() {
            self.resting.remove(&(since, key.into()));
        }
    }

    /// Nobody is in it, and its state is all there is. If somebody was asked for one, nobody is there any more to give it.
    pub fn rests(&mut self, key: &[u8], since: u64) {
        let Some(entry) = self.documents.get_mut(key).filter(|entry| !entry.state.is_empty()) else { return };
        self.wanted -= usize::from(std::mem::take(&mut entry.wanted));
        if let Some(before) = entry.rests.replace(since) {
            self.resting.remove(&(before, key.into()));
        }
        self.resting.insert((since, key.into()));
    }

    /// A document's whole state was handed in: it will stand for every record so far.
    pub fn begin_state(&mut self, key: &[u8]) -> Covered {
        let begins = self.newest();
        let entry = self.entry(key);
        Covered { life: entry.life, begins, tail: entry.tail, wakes: entry.wakes }
    }

    /// As [`Self::begin_state`], but it was handed in when the log had `covers` records, and `behind` updates came since.
    pub fn began_state(&mut self, key: &[u8], covers: u64, behind: u64) -> Covered {
        let since = self.segments.partition_point(|segment| segment.sequence <= covers);
        let begins = since.checked_sub(1).map_or(0, |at| self.segments[at].number);
        let entry = self.entry(key);
        Covered { life: entry.life, begins, tail: entry.tail.saturating_sub(behind), wakes: entry.wakes }
    }

    /// Whether this is the document that the state was handed in for, not another life of it.
    #[must_use]
    pub fn is_of(&self, key: &[u8], covered: &Covered) -> bool {
        self.documents.get(key).is_some_and(|entry| entry.life == covered.life)
    }

    /// The state is written. What it stands for no longer counts.
    pub fn end_state(&mut self, key: &[u8], covered: &Covered, state: Positions, rests: Option<u64>) {
        let bytes: u64 = state.iter().map(|position| u64::from(position.length)).sum();
        let Some(entry) = self.documents.get_mut(key).filter(|entry| entry.life == covered.life) else {
            return;
        };
        self.state_bytes = self.state_bytes - entry.state_bytes + bytes;
        entry.state = state;
        entry.state_bytes = bytes;
        entry.tail -= covered.tail.min(entry.tail);
        self.wanted -= usize::from(std::mem::take(&mut entry.wanted));
        let (before, now) = (std::mem::replace(&mut entry.begins, covered.begins), covered.begins);
        let alone = entry.tail == 0 && entry.wakes == covered.wakes;
        if let Some(segment) = Self::at(&mut self.segments, before) {
            segment.documents -= 1;
        }
        if let Some(segment) = Self::at(&mut self.segments, now) {
            segment.documents += 1;
        }
        if let (Some(since), true) = (rests, alone) {
            self.rests(key, since);
        }
    }

    /// Where the state of a document is.
    #[must_use]
    pub fn state_of(&self, key: &[u8]) -> Option<&Positions> {
        self.documents.get(key).map(|entry| &entry.state).filter(|state| !state.is_empty())
    }

    /// Documents that have rested since `until` or longer.
    pub fn resting_until(&self, until: u64) -> impl Iterator<Item = &[u8]> {
        self.resting.iter().take_while(move |(since, _)| *since <= until).map(|(_, key)| &**key)
    }

    #[must_use]
    pub fn is_resting(&self, key: &[u8]) -> Option<u64> {
        self.documents.get(key)?.rests
    }

    /// The oldest segment, if it isn't the newest and nothing in it counts.
    #[must_use]
    pub fn garbage_segment(&self) -> Option<u64> {
        let oldest = self.segments.front()?;
        (self.segments.len() > 1 && oldest.documents == 0).then_some(oldest.number)
    }

    /// The newest segment was never begun.
    pub fn remove_newest(&mut self) {
        self.segments.pop_back();
    }

    pub fn remove_oldest(&mut self) {
        if let Some(oldest) = self.segments.pop_front() {
            self.bytes -= oldest.bytes;
        }
    }

    /// More of the log is garbage than should be: `floor`, and what the documents' states take twice.
    #[must_use]
    pub fn has_too_much(&self, floor: u64) -> bool {
        self.segments.len() > 1 && self.bytes > floor.saturating_add(self.state_bytes.saturating_mul(2))
    }

    /// The documents that begin in the oldest segment.
    #[must_use]
    pub fn in_oldest(&self) -> Vec<Box<[u8]>> {
        let Some(oldest) = self.segments.front() else { return Vec::new() };
        let begins_there = self.documents.iter().filter(|(_, entry)| entry.begins == oldest.number);
        begins_there.map(|(key, _)| key.clone()).collect()
    }

    /// Notes that a document's state is wanted, if it begins in the oldest segment and isn't wanted yet.
    pub fn want(&mut self, key: &[u8]) -> bool {
        let oldest = self.segments.front().map_or(0, |segment| segment.number);
        let entry = self.documents.get_mut(key).filter(|entry| !entry.wanted && entry.begins == oldest);
        let Some(entry) = entry else { return false };
        entry.wanted = true;
        self.wanted += 1;
        true
    }

    /// Documents that somebody is in.
    #[cfg(test)]
    pub fn awake_documents(&self) -> usize {
        self.documents.len() - self.resting.len()
    }

    /// How many states are wanted and not there yet.
    #[must_use]
    pub const fn wanted(&self) -> usize {
        self.wanted
    }

    #[must_use]
    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    #[must_use]
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    #[must_use]
    pub const fn state_bytes(&self) -> u64 {
        self.state_bytes
    }
}
