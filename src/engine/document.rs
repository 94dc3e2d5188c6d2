//! One Yjs document: the only place that knows the CRDT.
//!
//! State is kept three ways, and any of the first two makes the third:
//! - `snapshot`: the encoded state at some moment,
//! - `tail`: the updates accepted since, as they came,
//! - `live`: a `yrs::Doc`, made when it is needed and dropped when the document was quiet for a while.
//!
//! Invariants:
//! - `state` is the state vector of snapshot + tail, always. Nothing is in the tail that was not applied first.
//! - yrs never gets an update that lacks a dependency: those are parked here, within a bound.
//! - A panic inside yrs never leaves this file. It costs the live document, which is made again from snapshot + tail,
//!   and the update that caused it, which its sender must not have acknowledged.
//!
//! Not here: who is connected ([`super::session`]) and relaying ([`super::turn`]).

use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use yrs::block::ClientID;
use yrs::updates::decoder::Decode;
use yrs::{Doc, IdSet, OffsetKind, Options, ReadTxn, Transact, Transaction, TransactionMut, Update};

use super::prescan::work::{Shadow, Work};
use super::prescan::{self, ClockRange, Scan, ScanLimits};
use super::slab::Key;
use super::state_vector::StateVector;
use crate::journal::Contents;
use crate::protocol::lib0::{self, Reader};

/// A tail shorter than this is never folded into the snapshot for its length.
const TAIL_BYTES_MIN: usize = 64 << 10;

/// A snapshot of more clients than this is given to yrs in pieces: what it makes of their order takes quadratic time, and
/// stack for each.
const SNAPSHOT_CLIENTS_MAX: usize = 2048;

/// The encoding of "nothing": no structs, no deletions.
const EMPTY_UPDATE: [u8; 2] = [0, 0];

/// What an update did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    Changed,
    /// The document had all of it.
    Unchanged,
}

/// Why an update was not applied. The document is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("the update depends on changes that the document lacks")]
    Missing,
    #[error("the document would have more than {max} bytes")]
    TooBig { max: usize },
    #[error("the document would nest shared types deeper than {max}")]
    TooDeep { max: u32 },
    #[error("the update takes too long to apply: send it in smaller parts")]
    TooDear,
    #[error("the update is malformed")]
    Malformed,
    /// The CRDT panicked or left the update half done.
    #[error("the update cannot be applied")]
    Poisonous,
}

/// An update that waits for what it depends on.
#[derive(Debug)]
pub struct Parked {
    pub update: Box<[u8]>,
    /// Who is owed an acknowledgement once it is applied, and the number under which it is.
    pub session: Key,
    pub number: u64,
}

/// One document's contents.
#[derive(Debug, Default)]
pub struct Document {
    snapshot: Bytes,
    /// Updates with their length in front.
    tail: Vec<u8>,
    live: Option<Box<Doc>>,
    state: StateVector,
    /// How deep shared types nest in here, at most. yrs deletes by recursion, and each update may add to the depth.
    nesting: u32,
    /// How many pieces the CRDT has, at most.
    pieces: u64,
    /// It has, or had, sub-documents: yrs then never frees its CRDT (docs/upstream.md, 9), so that no second one is made
    /// while the first will do.
    has_documents: bool,
    parked: Vec<Parked>,
    parked_bytes: usize,
    /// Panics of the CRDT that were fenced.
    panics: u64,
}

impl Document {
    /// The document's state vector.
    #[must_use]
    pub const fn state(&self) -> &StateVector {
        &self.state
    }

    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Nothing was ever written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.snapshot.is_empty() && self.tail.is_empty()
    }

    /// How many panics of the CRDT were fenced since the last call.
    pub const fn take_panics(&mut self) -> u64 {
        std::mem::replace(&mut self.panics, 0)
    }

    /// A document with these contents. They were here once, so nothing is applied: a CRDT is made when it is needed.
    #[must_use]
    pub fn restored(contents: Contents) -> Self {
        let Contents { snapshot, tail } = contents;
        let mut document = Self { snapshot, tail, ..Self::default() };
        let mut scan = Scan::default();
        let snapshot = (!document.snapshot.is_empty()).then_some(&document.snapshot[..]);
        for update in snapshot.into_iter().chain(updates_of(&document.tail)) {
            // What was scanned once is well-formed.
            if prescan::scan(update, &ScanLimits::STORED, &mut scan).is_ok() {
                document.nesting += scan.nesting();
                document.pieces += scan.pieces();
                document.has_documents |= scan.has_documents();
                scan.ranges().iter().for_each(|range| document.state.raise(range.client, range.end));
            }
        }
        if document.tail.len() > TAIL_BYTES_MIN.max(document.snapshot.len()) {
            document.shrink();
        }
        document
    }

    /// All there is in it. Nothing is encoded for that.
    #[must_use]
    pub fn contents(&self) -> Contents {
        Contents { snapshot: self.snapshot.clone(), tail: self.tail.clone() }
    }

    /// Applies one update that was scanned (`scan` is its scan).
    ///
    /// # Errors
    /// [`ApplyError`]; the document is then as it was before.
    pub fn apply(&mut self, update: &[u8], scan: &Scan, bytes_max: usize) -> Result<Applied, ApplyError> {
        if scan.missing(|client| self.state.get(client)).is_some() {
            return Err(ApplyError::Missing);
        }
        self.check_size(update.len(), bytes_max)?;
        self.check_nesting(scan.nesting())?;
        self.check_work(update, scan)?;
        let decoded = catch_unwind(|| Update::decode_v1(update));
        let decoded = match decoded {
            Ok(Ok(decoded)) => decoded,
            Ok(Err(_)) => return Err(ApplyError::Malformed),
            Err(_panic) => {
                self.panics += 1;
                return Err(ApplyError::Malformed);
            }
        };
        let doc = match self.live.take() {
            Some(doc) => doc,
            None => self.restore(),
        };
        match catch_unwind(AssertUnwindSafe(|| integrate(&doc, decoded))) {
            Ok(Ok(applied)) => {
                self.live = Some(doc);
                if applied == Applied::Changed {
                    self.nesting += scan.nesting();
                    self.pieces += scan.pieces();
                    self.has_documents |= scan.has_documents();
                    for range in scan.ranges() {
                        self.state.raise(range.client, range.end);
                    }
                    lib0::write_var_bytes(&mut self.tail, update);
                    if self.tail.len() > TAIL_BYTES_MIN.max(self.snapshot.len()) {
                        self.fold();
                    }
                }
                Ok(applied)
            }
            Ok(Err(error)) => {
                discard(doc);
                Err(error)
            }
            Err(_panic) => {
                self.panics += 1;
                mem::forget(doc);
                Err(ApplyError::Poisonous)
            }
        }
    }

    fn check_size(&mut self, added: usize, max: usize) -> Result<(), ApplyError> {
        let size = |document: &Self| document.snapshot.len() + document.tail.len() + added;
        if size(self) > max {
            self.fold();
            if size(self) > max {
                return Err(ApplyError::TooBig { max });
            }
        }
        Ok(())
    }

    /// The bound on the depth is cheap to keep and too high: it is made exact when it is reached.
    fn check_nesting(&mut self, added: u32) -> Result<(), ApplyError> {
        let max = ScanLimits::default().nesting_max;
        if self.nesting + added > max {
            // Exactly: a scan of it would call few types as deep as they are many.
            self.nesting = prescan::nesting(&self.encode()).map_err(|_| ApplyError::Malformed)?;
            if self.nesting + added > max {
                return Err(ApplyError::TooDeep { max });
            }
        }
        Ok(())
    }

    /// The bound on the work is far too high where much was edited, so that it is made exact when it is passed.
    fn check_work(&mut self, update: &[u8], scan: &Scan) -> Result<(), ApplyError> {
        let max = ScanLimits::default().work_max;
        let known = scan.ranges().iter().any(|range| range.start < self.state.get(range.client));
        let bytes = (self.snapshot.len() + self.tail.len() + update.len()) as u64;
        let pieces = self.pieces + scan.pieces();
        let is_cheap = |deletes| scan.work_bound(pieces, bytes, known, deletes).is_within(&max);
        // Who joins says all that was ever deleted, and little of it is new.
        if is_cheap(scan.deletes().len() as u64) || is_cheap(self.new_deletes(scan.deletes())) {
            return Ok(());
        }
        let state = self.encode();
        let within = |work: Result<Work, _>, max: &Work| {
            let work = work.map_err(|_| ApplyError::Malformed)?;
            if work.is_within(max) { Ok(()) } else { Err(ApplyError::TooDear) }
        };
        // It follows yrs through whatever a client sends: a panic of its own costs that client its update, as one of yrs does.
        let told = catch_unwind(|| {
            let mut shadow = Shadow::default();
            // Many cheap updates may have made a document in which no place is found quickly any more.
            let max_of_all = max.times(16);
            within(shadow.integrate(&state, &max_of_all), &max_of_all)?;
            Ok((shadow.pieces(), within(shadow.integrate(update, &max), &max)))
        });
        let Ok(told) = told else {
            self.panics += 1;
            return Err(ApplyError::Poisonous);
        };
        let (pieces, verdict) = told?;
        self.pieces = pieces;
        verdict
    }

    /// The whole state as one update.
    pub fn encode(&mut self) -> Bytes {
        self.fold();
        if self.snapshot.is_empty() { Bytes::from_static(&EMPTY_UPDATE) } else { self.snapshot.clone() }
    }

    /// What a replica at `state` lacks, as one update.
    pub fn encode_since(&mut self, state: &StateVector) -> Bytes {
        // A replica that has nothing of what is here gets the state as it lies.
        if self.is_empty() || self.state.iter().all(|(client, _)| state.get(client) == 0) {
            return self.encode();
        }
        let since: yrs::StateVector =
            state.iter().map(|(client, clock)| (ClientID::new(client), clock)).collect();
        let doc = match self.live.take() {
            Some(doc) => doc,
            None => self.restore(),
        };
        match catch_unwind(AssertUnwindSafe(|| reading(&doc).encode_diff_v1(&since))) {
            Ok(update) => {
                self.live = Some(doc);
                update.into()
            }
            Err(_panic) => {
                self.panics += 1;
                discard(doc);
                self.encode()
            }
        }
    }

    /// Whether all of this is deleted already. It walks the whole document: for questions that are rarely asked.
    pub fn has_deleted(&mut self, deletes: &[ClockRange]) -> bool {
        self.new_deletes(deletes) == 0
    }

    /// How many of these are not deleted yet, as a whole. It walks the whole document, too.
    fn new_deletes(&mut self, deletes: &[ClockRange]) -> u64 {
        if deletes.is_empty() {
            return 0;
        }
        let doc = match self.live.take() {
            Some(doc) => doc,
            None => self.restore(),
        };
        match catch_unwind(AssertUnwindSafe(|| reading(&doc).snapshot().delete_set)) {
            Ok(deleted) => {
                self.live = Some(doc);
                let of_clients = deletes.chunk_by(|a, b| a.client == b.client);
                of_clients.map(|deletes| not_in(deletes, &deleted)).sum()
            }
            Err(_panic) => {
                self.panics += 1;
                discard(doc);
                deletes.len() as u64
            }
        }
    }

    /// Keeps encoded state only.
    pub fn shrink(&mut self) {
        self.fold();
        if !self.has_documents
            && let Some(doc) = self.live.take()
        {
            discard(doc);
        }
        self.tail.shrink_to_fit();
    }

    /// Puts an update aside until what it depends on is there. Gives it back if there is no room for it.
    ///
    /// # Errors
    /// The update itself, when `bytes_max` would be passed.
    pub fn park(&mut self, parked: Parked, bytes_max: usize) -> Result<(), Parked> {
        if self.parked_bytes + parked.update.len() > bytes_max {
            return Err(parked);
        }
        self.parked_bytes += parked.update.len();
        self.parked.push(parked);
        Ok(())
    }

    #[cfg(test)]
    pub const fn parked_bytes(&self) -> usize {
        self.parked_bytes
    }

    /// Takes all parked updates, oldest first, to be tried again or parked again.
    pub fn take_parked(&mut self) -> Vec<Parked> {
        self.parked_bytes = 0;
        std::mem::take(&mut self.parked)
    }

    #[must_use]
    pub fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Folds the tail into the snapshot.
    fn fold(&mut self) {
        let mut attempts = 0;
        while !self.tail.is_empty() {
            let doc = match self.live.take() {
                Some(doc) => doc,
                None => self.restore(),
            };
            if let Some(state) = encode(&doc) {
                self.live = Some(doc);
                self.snapshot = state;
                self.tail = Vec::new();
                return;
            }
            // The CRDT took an update that it cannot encode. Nobody else may suffer: find it and leave it out.
            self.panics += 1;
            discard(doc);
            attempts += 1;
            if attempts > Self::POISON_MAX {
                self.tail = Vec::new();
                break;
            }
            self.leave_out_poison();
        }
    }

    /// How many poisonous updates are cut out of one tail before all of it is given up.
    const POISON_MAX: u32 = 16;

    /// Removes the first update of the tail with which the state can no longer be encoded.
    fn leave_out_poison(&mut self) {
        let updates = updates_of(&self.tail);
        let encodable = |count: usize| {
            let tail: Vec<&[u8]> = updates[..count].to_vec();
            catch_unwind(AssertUnwindSafe(|| rebuild(&self.snapshot, tail)))
                .ok()
                .is_some_and(|doc| encode(&doc).is_some())
        };
        // Encoding fails with all of them and works with none: halve down to the one that makes the difference.
        let (mut good, mut bad) = (0, updates.len());
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if encodable(middle) { good = middle } else { bad = middle }
        }
        let mut tail = Vec::with_capacity(self.tail.len());
        for (at, update) in updates.iter().enumerate() {
            if at + 1 != bad {
                lib0::write_var_bytes(&mut tail, update);
            }
        }
        self.tail = tail;
    }

    fn restore(&mut self) -> Box<Doc> {
        for attempt in 0.. {
            let updates = updates_of(&self.tail);
            if let Ok(doc) = catch_unwind(AssertUnwindSafe(|| rebuild(&self.snapshot, updates))) {
                return doc;
            }
            // Each of these updates was applied once without harm; if they don't go together any more, find the one
            // with which they don't.
            self.panics += 1;
            if self.tail.is_empty() {
                self.snapshot = Bytes::new();
            } else if attempt < Self::POISON_MAX {
                self.leave_out_poison();
            } else {
                self.tail = Vec::new();
            }
        }
        unreachable!("an empty document is made without a panic")
    }
}

fn new_doc() -> Doc {
    let mut options = Options::with_client_id(ClientID::new(0));
    // The server never edits: it must not tidy up formatting marks on its own either.
    options.cleanup_formatting = false;
    // What clocks count. With the default (bytes), deleting half of a surrogate pair underflows inside yrs.
    options.offset_kind = OffsetKind::Utf16;
    // yrs 0.28.1 can free a collected type and keep a child of it: any writer could make it read freed memory. The
    // price is that deleted content stays in the state; Yjs clients collect it on their side.
    options.skip_gc = true;
    let doc = Doc::with_options(options);
    #[cfg(test)]
    arm(&doc);
    doc
}

/// An update that contains this makes yrs panic, so that tests see a panic unwind out of it.
#[cfg(test)]
pub(crate) const BOMB: &str = "\u{1}a panic in the CRDT\u{1}";

#[cfg(test)]
fn arm(doc: &Doc) {
    let is_bomb = |update: &[u8]| update.windows(BOMB.len()).any(|bytes| bytes == BOMB.as_bytes());
    let observed = doc.observe_update_v1("bomb", move |_, event| {
        if is_bomb(&event.update) {
            std::panic::resume_unwind(Box::new("the bomb")); // unwinds like a panic, and prints nothing
        }
    });
    observed.expect("nothing else borrows a new document");
}

/// Nobody else has a shard's document, so nobody waits for it: neither do we, which spares what waiting prepares for.
fn reading(doc: &Doc) -> Transaction<'_> {
    doc.try_transact().expect("nobody writes to a document that is read")
}

fn writing(doc: &Doc) -> TransactionMut<'_> {
    doc.try_transact_mut().expect("nobody reads or writes a document that is written to")
}

/// Applies one update in its own transaction. An update that stays pending is as bad as a panic: the scan said that
/// all it needs is there. After an error or a panic the document is not to be used again.
///
/// A transaction commits when it is dropped, also while a panic unwinds, and a second panic there would abort the
/// process. So one that panicked is never dropped.
fn integrate(doc: &Doc, update: Update) -> Result<Applied, ApplyError> {
    let mut transaction = ManuallyDrop::new(writing(doc));
    let applied = transaction.apply_update(update);
    let mut transaction = ManuallyDrop::into_inner(transaction);
    applied.map_err(|_| ApplyError::Poisonous)?;
    if transaction.has_missing_updates() {
        return Err(ApplyError::Poisonous);
    }
    let changed = transaction.has_changes();
    transaction.commit();
    Ok(if changed { Applied::Changed } else { Applied::Unchanged })
}

/// Each update in a transaction of its own: yrs joins what one transaction brought at a cost that grows with the square of
/// its pieces.
fn rebuild(snapshot: &[u8], tail: Vec<&[u8]>) -> Box<Doc> {
    let doc = ManuallyDrop::new(Box::new(new_doc()));
    let pieces = prescan::split(snapshot, SNAPSHOT_CLIENTS_MAX);
    let snapshot = (pieces.is_none() && !snapshot.is_empty()).then_some(snapshot);
    let pieces = pieces.unwrap_or_default();
    for update in pieces.iter().map(Vec::as_slice).chain(snapshot).chain(tail) {
        if let Ok(update) = Update::decode_v1(update) {
            let mut transaction = ManuallyDrop::new(writing(&doc));
            // What was accepted once is accepted again; if not, the rest still is.
            let _ = transaction.apply_update(update);
            drop(ManuallyDrop::into_inner(transaction));
        }
    }
    ManuallyDrop::into_inner(doc)
}

/// How many ranges of one client are not in the set as a whole.
fn not_in(ranges: &[ClockRange], set: &IdSet) -> u64 {
    let of_client = ranges.first().and_then(|range| set.get(&ClientID::new(range.client)));
    let mut known =
        of_client.map_or_else(Vec::new, |known| known.iter().map(|(range, ())| range.clone()).collect());
    known.sort_unstable_by_key(|range| range.start);
    let is_new = |range: &&ClockRange| {
        let after = known.partition_point(|known| known.start <= range.start);
        after.checked_sub(1).is_none_or(|at| known[at].end < range.end)
    };
    ranges.iter().filter(is_new).count() as u64
}

fn encode(doc: &Doc) -> Option<Bytes> {
    let encode = || reading(doc).encode_diff_v1(&yrs::StateVector::default());
    catch_unwind(AssertUnwindSafe(encode)).ok().map(Bytes::from)
}

/// Drops a document that may be in any state: even its destructor stays behind the fence.
fn discard(doc: Box<Doc>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(doc)));
}

fn updates_of(tail: &[u8]) -> Vec<&[u8]> {
    let mut reader = Reader::new(tail);
    let mut updates = Vec::new();
    while let Ok(update) = reader.var_bytes() {
        updates.push(update);
    }
    updates
}
