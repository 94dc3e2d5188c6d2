//! Do all find the same text? Clocks say that every item arrived, not what was in it, nor whether the server
//! itself has put everything together.
//!
//! At the end a newcomer joins some of the documents. Its state must have every writer's last clock and
//! nothing pending, and its text must be what the writers wrote, and what one reader of that document was sent
//! from the first update to the last. How many documents, and how much is kept of what a reader was sent, is
//! bounded. The documents that are compared are built by the real library.

use super::Run;
use crate::load::{LoadError, Session, seconds_ns};
use crate::progress::TURN_MAX;
use crate::scenario::Typing;
use crate::update::{EMPTY_STATE_VECTOR, ROOT};
use crate::wire::Protocol;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use yrs::updates::decoder::Decode;
use yrs::{Doc, GetString, ReadTxn, Transact, TransactionMut, Update, WriteTxn};

/// Documents that are read back.
const DOCUMENTS_MAX: u32 = 4;
/// Kept of what readers were sent, over all documents.
const KEPT_BYTES_MAX: usize = 48 * 1024 * 1024;
/// A document of more items is not read back: building it would take longer than the run.
const CLOCKS_MAX: u64 = 64 * 1024 * 1024;
/// A server may need a moment from telling everybody to knowing it itself.
const RETRY_NS: u64 = 1_000_000_000;
/// The library tidies up after every transaction; one for each update would be slow, one for all slower.
const UPDATES_PER_TRANSACTION: usize = 1_000;
/// Shown around the place where texts differ.
const EXCERPT_CHARACTERS: usize = 12;

/// What newcomers found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Convergence {
    /// Documents read back.
    pub documents: u32,
    /// How many of them were also compared with all that one of their readers was sent.
    pub readers: u32,
    /// Characters in them.
    pub characters: u64,
    /// Documents where something differed.
    pub unequal: u32,
    /// Why nothing was read back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_checked: Option<String>,
}

impl Convergence {
    fn not_checked(why: &str) -> Self {
        Self { not_checked: Some(why.to_owned()), ..Self::default() }
    }

    /// What another process found.
    pub fn add(&mut self, other: Self) {
        self.documents += other.documents;
        self.readers += other.readers;
        self.characters += other.characters;
        self.unequal += other.unequal;
        self.not_checked = self.not_checked.take().or(other.not_checked);
    }
}

/// What became of a trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceResult {
    pub source: String,
    /// Edits typed into each document.
    pub edits: u32,
    /// Characters of the text that a newcomer finds.
    pub characters: usize,
    pub text_is_right: bool,
}

/// One reader of each sampled document: all it was sent, one behind the other.
#[derive(Debug)]
pub(super) struct Witnesses {
    is_witness: Vec<bool>, // by seat; empty if there are none
    kept: BTreeMap<u32, Kept>,
    bytes_left: usize,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Kept {
    fn updates(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

impl Witnesses {
    /// The last reader of each sampled document who isn't slow; a writer where all write.
    pub fn new(session: &Session<'_>, typing: &Typing) -> Self {
        let scenario = session.scenario;
        let mut witnesses =
            Self { is_witness: Vec::new(), kept: BTreeMap::new(), bytes_left: KEPT_BYTES_MAX };
        // Deletions of a trace have no clocks: nobody knows when a reader has the last of them.
        if !session.reads_back || session.target.protocol == Protocol::Relay || typing.trace.is_some() {
            return witnesses;
        }
        witnesses.is_witness.resize(scenario.connections() as usize, false);
        let slow = typing.slow_readers.as_ref().map_or(0, |slow| slow.per_document);
        for document in sample(scenario.documents) {
            let seat = document * scenario.clients + scenario.clients - 1 - slow;
            witnesses.is_witness[seat as usize] = true;
            witnesses.kept.insert(seat, Kept::default());
        }
        witnesses
    }

    /// Keeps an update for a seat if it is a witness's.
    #[inline]
    pub fn note(&mut self, seat: u32, update: &[u8]) {
        if self.is_witness.get(seat as usize).is_some_and(|is_witness| *is_witness) {
            self.keep(seat, update);
        }
    }

    fn keep(&mut self, seat: u32, update: &[u8]) {
        let Some(kept) = self.kept.get_mut(&seat) else { return };
        let bytes_left = self.bytes_left.checked_sub(update.len() + size_of::<usize>());
        let Some(bytes_left) = bytes_left else {
            // What isn't whole is worth nothing.
            self.is_witness[seat as usize] = false;
            self.kept.remove(&seat);
            return;
        };
        self.bytes_left = bytes_left;
        kept.bytes.extend_from_slice(update);
        kept.ends.push(kept.bytes.len());
    }
}

/// Documents to read back, evenly spread.
fn sample(documents: u32) -> impl Iterator<Item = u32> {
    let count = documents.min(DOCUMENTS_MAX);
    (0..count).map(move |nth| (u64::from(nth) * u64::from(documents) / u64::from(count)) as u32)
}

/// A document as someone sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sight {
    clocks: BTreeMap<u64, u32>,
    text: String,
    is_pending: bool,
}

impl Sight {
    /// `None` if the library can't read one of the updates.
    fn of<'a>(updates: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let doc = Doc::new();
        let mut updates = updates.peekable();
        while updates.peek().is_some() {
            let mut transaction = doc.transact_mut();
            for update in updates.by_ref().take(UPDATES_PER_TRANSACTION) {
                apply(&mut transaction, update)?;
            }
        }
        let mut transaction = doc.transact_mut();
        let text = transaction.get_or_insert_text(ROOT);
        let clocks = transaction.state_vector().iter().map(|(id, clock)| (id.get(), *clock)).collect();
        Some(Self {
            clocks,
            text: text.get_string(&transaction),
            is_pending: transaction.has_missing_updates(),
        })
    }

    /// How another sight (whose?) differs from this one, if it does.
    fn difference(&self, other: Option<&Self>, whose: &str) -> Option<String> {
        let Some(other) = other else {
            return Some(format!("{whose} can't be read"));
        };
        if other.is_pending {
            return Some(format!("{whose} lacks what other items in it depend on"));
        }
        let clocks = |sight: &Self, client| sight.clocks.get(&client).copied().unwrap_or_default();
        let clients = self.clocks.keys().chain(other.clocks.keys());
        for client in clients.copied() {
            let (expected, found) = (clocks(self, client), clocks(other, client));
            if expected != found {
                return Some(format!("{whose} has {found} items of client {client}, who wrote {expected}"));
            }
        }
        (self.text != other.text).then(|| {
            let (at, expected, found) = first_difference(&self.text, &other.text);
            format!(
                "the text of {whose} differs from what was written at character {at}: {found:?} instead of {expected:?}"
            )
        })
    }
}

fn apply(transaction: &mut TransactionMut<'_>, update: &[u8]) -> Option<()> {
    transaction.apply_update(Update::decode_v1(update).ok()?).ok()
}

/// The first character where two texts differ, and both from a little before it on.
fn first_difference(one: &str, other: &str) -> (usize, String, String) {
    let at = one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    let excerpt = |text: &str| {
        text.chars().skip(at.saturating_sub(EXCERPT_CHARACTERS)).take(2 * EXCERPT_CHARACTERS).collect()
    };
    (at, excerpt(one), excerpt(other))
}

impl Run<'_> {
    /// Newcomers read documents back: all that hold a trace, else a sample.
    pub(super) fn read_back(
        &mut self,
        updates: u64,
        settle_s: f64,
    ) -> Result<(Option<Convergence>, Option<TraceResult>), LoadError> {
        if self.room.script().is_some() {
            let trace = self.read_traces(updates, settle_s)?;
            return Ok((None, trace));
        }
        if !self.session.reads_back {
            return Ok((None, None));
        }
        if self.session.target.protocol == Protocol::Relay {
            return Ok((Some(Convergence::not_checked("relay")), None));
        }
        let mut result = Convergence::default();
        for document in sample(self.room.documents) {
            let clocks: u64 =
                self.room.typists_of(document).iter().map(|it| u64::from(it.next_clock())).sum();
            if clocks <= CLOCKS_MAX {
                self.read_document(document, settle_s, &mut result)?;
            }
        }
        if self.session.is_halted() {
            result = Convergence::not_checked("the run was ended");
        } else if result.documents == 0 {
            result = Convergence::not_checked("the documents are too long");
        }
        Ok((Some(result), None))
    }

    fn read_document(
        &mut self,
        document: u32,
        settle_s: f64,
        result: &mut Convergence,
    ) -> Result<(), LoadError> {
        self.progress.show(self.session.clock.now_ns(), || format!("reading document {document} back"));
        let written: Vec<Vec<u8>> = self.room.typists_of(document).iter().map(whole).collect();
        let Some(expected) = Sight::of(written.iter().map(Vec::as_slice)) else {
            return Ok(()); // the library reads all that a typist writes: its tests say so
        };
        result.documents += 1;
        result.characters += expected.text.chars().count() as u64;
        let name = self.session.document(document);
        let mut differences: Vec<String> = Vec::new();
        let newcomer = self.newcomer_finds(document, settle_s, |state| {
            let Some(state) = state else {
                return Some(format!("a newcomer got no step 2 within {settle_s} s"));
            };
            expected.difference(Sight::of([state].into_iter()).as_ref(), "a newcomer")
        })?;
        differences.extend(newcomer);
        if let Some((seat, kept)) = self.witness(document) {
            let own = self.room.typist_of(seat).map(|typist| &written[typist % written.len()]);
            let updates = kept.updates().chain(own.map(Vec::as_slice));
            let reader = format!("the reader on connection {seat}");
            differences.extend(expected.difference(Sight::of(updates).as_ref(), &reader));
            result.readers += 1;
        }
        result.unequal += u32::from(!differences.is_empty());
        for difference in differences {
            self.room.failures.add(|| format!("document {document} ({name}) doesn't converge: {difference}"));
        }
        Ok(())
    }

    /// The reader of a document of whom everything was kept.
    fn witness(&self, document: u32) -> Option<(u32, &Kept)> {
        let first = document * self.room.clients;
        let mut kept = self.room.witnesses.kept.range(first..first + self.room.clients);
        kept.next().map(|(seat, kept)| (*seat, kept))
    }

    /// One newcomer to each document reads what its writer left.
    fn read_traces(&mut self, updates: u64, settle_s: f64) -> Result<Option<TraceResult>, LoadError> {
        let Some(script) = self.room.script().cloned() else {
            return Ok(None);
        };
        let mut result = TraceResult {
            source: script.source.clone(),
            edits: self.schedule.updates_of(0, updates),
            characters: 0,
            text_is_right: true,
        };
        for document in 0..self.room.documents {
            let text = script.text_after(self.schedule.updates_of(document, updates));
            result.characters = text.chars().count();
            // Deletions have no clocks: the last may be on their way to the server for as long as anything may.
            let deadline_ns = self.session.clock.now_ns() + seconds_ns(settle_s);
            let difference = loop {
                let difference = self.newcomer_finds(document, settle_s, |state| {
                    let found = state.and_then(crate::trace::text_of).unwrap_or_default();
                    (found != text).then(|| {
                        let (at, expected, found) = first_difference(&text, &found);
                        format!("at character {at}: {found:?} instead of {expected:?}")
                    })
                })?;
                if difference.is_none()
                    || self.session.is_halted()
                    || self.session.clock.now_ns() >= deadline_ns
                {
                    break difference;
                }
            };
            if let Some(difference) = difference {
                result.text_is_right = false;
                self.room.failures.add(|| {
                    format!(
                        "document {document}: a newcomer doesn't find the text that was typed, {difference}"
                    )
                });
            }
        }
        Ok(Some(result))
    }

    /// Newcomers join until one finds nothing wrong, for a moment; what is wrong then. Its state is `None` if the
    /// server sent none in time.
    fn newcomer_finds(
        &mut self,
        document: u32,
        settle_s: f64,
        wrong: impl Fn(Option<&[u8]>) -> Option<String>,
    ) -> Result<Option<String>, LoadError> {
        let start_ns = self.session.clock.now_ns();
        let deadline_ns = start_ns + seconds_ns(settle_s);
        let number = self.event_loop.add_seat();
        let mut last = None;
        loop {
            self.room.visitor_state = None;
            self.event_loop
                .connect_again(number, self.session.document(document), EMPTY_STATE_VECTOR.into())
                .map_err(|source| LoadError::Connect { number, source })?;
            while self.room.visitor_state.is_none()
                && !self.session.is_halted()
                && self.session.clock.now_ns() < deadline_ns
            {
                let until_ns = deadline_ns.min(self.session.clock.now_ns() + TURN_MAX.as_nanos() as u64);
                self.event_loop.turn(until_ns, &mut self.room).map_err(LoadError::EventLoop)?;
            }
            self.event_loop.leave(number);
            let state = self.room.visitor_state.take();
            if self.session.is_halted() {
                return Ok(None);
            }
            let now_ns = self.session.clock.now_ns();
            if state.is_none() && last.is_some() {
                return Ok(last); // there was no time left for another one
            }
            last = wrong(state.as_deref());
            if last.is_none() || now_ns >= deadline_ns.min(start_ns + RETRY_NS) {
                return Ok(last);
            }
        }
    }
}

/// Everything that somebody typed, as one update.
fn whole(typist: &crate::update::typist::Typist) -> Vec<u8> {
    let mut update = Vec::new();
    typist.missing(0, &mut update);
    update
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::typist::{Payload, Positions, Typist};

    /// What two typists wrote, update by update.
    fn typed() -> Vec<Vec<u8>> {
        let mut typists = [3, 7].map(|client| Typist::new(client, Positions::Append, Payload::Characters));
        (0..40)
            .map(|nth| {
                let mut update = Vec::new();
                typists[nth % 2].type_next(&mut update);
                update
            })
            .collect()
    }

    fn sight(updates: &[Vec<u8>]) -> Option<Sight> {
        Sight::of(updates.iter().map(Vec::as_slice))
    }

    #[test]
    fn the_same_updates_in_another_order_are_the_same_document() {
        let mut updates = typed();
        let written = sight(&updates).expect("readable");
        assert_eq!(written.text.len(), 40);
        updates.reverse();
        assert_eq!(written.difference(sight(&updates).as_ref(), "x"), None);
    }

    #[test]
    fn what_is_missing_pending_garbled_or_unreadable_is_a_difference() {
        let updates = typed();
        let written = sight(&updates).expect("readable");
        let difference = |updates: &[Vec<u8>]| {
            written.difference(sight(updates).as_ref(), "somebody").expect("a difference")
        };
        assert_eq!(difference(&updates[..39]), "somebody has 19 items of client 7, who wrote 20");
        let without_the_first: Vec<Vec<u8>> = updates[1..].to_vec();
        assert!(difference(&without_the_first).contains("lacks what other items"));
        let mut garbled = updates.clone();
        let letter = garbled[6].len() - 2;
        garbled[6][letter] = b'#';
        assert_eq!(
            difference(&garbled),
            "the text of somebody differs from what was written at character 3: \"abc#efghijklmnopqrstabcd\" instead of \"abcdefghijklmnopqrstabcd\""
        );
        assert_eq!(difference(&[vec![7]]), "somebody can't be read");
    }

    #[test]
    fn the_sample_is_spread_over_all_documents() {
        assert_eq!(sample(3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(sample(500).collect::<Vec<_>>(), [0, 125, 250, 375]);
        assert_eq!(sample(4_000_000_000).last(), Some(3_000_000_000));
    }

    #[test]
    fn what_is_kept_of_a_reader_is_bounded_and_whole_or_nothing() {
        let mut witnesses =
            Witnesses { is_witness: vec![false, true], kept: [(1, Kept::default())].into(), bytes_left: 30 };
        witnesses.note(0, &[1; 9]);
        witnesses.note(1, b"abc");
        witnesses.note(1, b"de");
        let kept: Vec<&[u8]> = witnesses.kept[&1].updates().collect();
        assert_eq!(kept, [b"abc".as_slice(), b"de"]);
        witnesses.note(1, b"too long");
        witnesses.note(1, b"f");
        assert!(witnesses.kept.is_empty());
    }
}
