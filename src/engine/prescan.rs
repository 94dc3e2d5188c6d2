//! What stands before yrs: reads a Yjs update (lib0 v1) without recursion and without allocating by what it announces,
//! refuses what would make yrs 0.28.1 abort, panic or misread, and notes what the update brings and needs.
//!
//! What is refused, and why (files are those of yrs 0.28.1):
//!
//! | refused | because yrs |
//! | --- | --- |
//! | `Any` or JSON nested deeper than [`ScanLimits::any_depth_max`] | decodes, encodes and drops `Any` by recursion (`any.rs`): a stack overflow aborts the process |
//! | shared types nested deeper than [`ScanLimits::nesting_max`] | deletes and collects them by recursion (`transaction.rs` `delete`, `block.rs` `gc`): the same |
//! | counts and lengths beyond the bytes that follow | reserves what they say (`update.rs`, `any.rs`) |
//! | clocks of 2^31 and more | subtracts them as `i32` and adds without checks (`update.rs` `integrate`, `id_set.rs`) |
//! | client ids, integers above 2^53 - 1 | asserts or shifts out of range (`block.rs` `ClientID::new`, `varint.rs`) |
//! | clients without structs, and more than [`ScanLimits::linked_clients_max`] that others refer to | skips over exhausted clients by recursion (`update.rs` `BlockPicker::next`), and searches those that wait in quadratic time |
//! | a client listed twice | appends the structs and then searches them as if sorted (`update.rs` `find_index`: `unreachable!`); of delete ranges it forgets the first list |
//! | empty structs, empty delete ranges | drops the former, so that clocks mean something else than to Yjs; keeps the latter as ranges without a last clock |
//! | structs that need themselves, in a circle or not | keeps them as pending for ever, and writes them into every encoded state |
//! | texts and values in more pieces than [`ScanLimits::squash_bytes_max`] | joins them from the right, and keeps every intermediate result until all are joined: 100 KB of pushes take 5 GB (`block_store.rs` `squash_left`) |
//! | one map key written by more than [`ScanLimits::rivals_max`] that don't know one another | walks past all others for each (`block.rs` `integrate_item`): 256 KB take seconds |
//! | content 2 (JSON) | reads one string more than there are (`block.rs` `ItemContent::decode`) |
//! | type 5 (XML hook) | doesn't read its name, so it misreads what follows (`types/mod.rs`) |
//! | types 7 (weak link), 9 and 15 | knows them, but Yjs does not: an update relayed with one stops every Yjs client |
//! | info bits and kinds that mean different things to yrs and Yjs | would hold another document than its clients |
//! | bytes after the end | ignores them, Yjs too: nothing genuine has them |
//!
//! An update that passes may still depend on something the document lacks. yrs would keep it as pending, and
//! merging and encoding what is pending is where more of its panics are. [`Scan::missing`] tells, so that such an
//! update waits outside.
//!
//! What no scan of one update can exclude, so that whoever holds the document must know it:
//! - Documents are made with `skip_gc` and `OffsetKind::Utf16`. Collecting, yrs can free a shared type that it still
//!   points to (a use after free); counting in UTF-8, it subtracts below zero when half of a split surrogate pair is
//!   deleted.
//! - `apply_update` may fail half-way (`InvalidParent`: the parent is no shared type). What came before is applied,
//!   what comes after is lost: treat it like a panic, and make the document anew.
//! - A transaction commits when dropped. One that panicked must not be dropped while unwinding: a second panic aborts.
//! - Types nest deeper with every update: sum [`Scan::nesting`], and when the sum passes the limit, scan the whole
//!   state, which measures exactly.
//! - Time: what lies between an item's neighbours is compared with it, and what a reference or a deletion cuts is copied. Both
//!   depend on the document: [`work`] tells for one update.
//!
//! Not here: yrs itself, the document, and what to do with a refused update.

mod content;
mod nesting;
mod order;
mod split;
pub mod work;

use content::{Item, Kind, Struct};
pub use split::split;
use work::Work;

use crate::protocol::close::Refusal;
use crate::protocol::lib0::{INTEGER_MAX, Lib0Error, Reader};

/// The greatest clock a struct or delete range may reach.
pub const CLOCK_MAX: u32 = i32::MAX as u32;

/// What a scan tolerates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanLimits {
    /// Arrays and maps within one another in one `Any` or JSON value.
    pub any_depth_max: u32,
    /// Shared types within one another, as far as this update alone shows it.
    pub nesting_max: u32,
    /// Clients of one update that others of its clients refer to.
    pub linked_clients_max: u32,
    /// What yrs may copy, in bytes, while it joins the pieces of one update that continue one another.
    pub squash_bytes_max: u64,
    /// Writers of one map key in one update that know none of the others.
    pub rivals_max: u32,
    /// Work beyond a fixed price for each struct, which depends on the document.
    pub work_max: Work,
}

impl ScanLimits {
    /// For what is stored: each part of it was within the limits when it came, and all of it together need not be.
    pub const STORED: Self = Self {
        any_depth_max: 64, // of one value
        nesting_max: u32::MAX,
        linked_clients_max: u32::MAX,
        squash_bytes_max: u64::MAX,
        rivals_max: u32::MAX,
        work_max: Work::MAX,
    };
}

impl Default for ScanLimits {
    fn default() -> Self {
        // Each is at most half of what overflows a stack of 2 MiB.
        Self {
            any_depth_max: 64,
            nesting_max: 256,
            linked_clients_max: 8192,
            // 16,000 keystrokes, or 4,700 values, each a struct of its own; genuine encoders join them.
            squash_bytes_max: 256 << 20,
            rivals_max: 4096,
            // 2,000 people who all wrote at one place before any of them heard of another; and 500 values deleted here
            // and there in one row of 200,000, or ten thousand words in a text of a megabyte.
            work_max: Work { compare_ns: 250_000_000, cut_ns: 1_000_000_000 },
        }
    }
}

/// Why an update or state vector is not given to yrs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    #[error("malformed: {0}")]
    Encoding(#[from] Lib0Error),
    #[error("{0} bytes follow the end")]
    TrailingBytes(usize),
    #[error("{0} is not a kind of value")]
    AnyKind(u8),
    #[error("values are nested deeper than {0}")]
    AnyDepth(u32),
    #[error("{0:#04x} is not a kind of struct")]
    StructKind(u8),
    #[error("shared type {0} is not supported")]
    TypeKind(u8),
    #[error("a sub-document's options are not a map")]
    DocumentOptions,
    #[error("shared types are nested deeper than {0}")]
    Nesting(u32),
    #[error("a struct or delete range is empty")]
    Empty,
    #[error("a clock is above 2^31 - 1")]
    Clock,
    #[error("more than {0} clients are referred to by others in one update")]
    LinkedClients(u32),
    #[error("too many structs that continue one another; merge them into one")]
    Squash,
    #[error("more than {0} write one map key without knowing of one another")]
    Rivals(u32),
    #[error("client {0} is listed without structs")]
    NoStructs(u64),
    #[error("client {0} is listed twice")]
    Duplicate(u64),
    #[error("a struct of client {client} at clock {clock} depends on itself")]
    Circular { client: u64, clock: u32 },
}

impl From<ScanError> for Refusal {
    fn from(error: ScanError) -> Self {
        Self::InvalidPayload(format!("Invalid update: {error}").into())
    }
}

/// One element of a document: the `clock`th that `client` made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    pub client: u64,
    pub clock: u32,
}

/// Clocks `start..end` of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClockRange {
    pub client: u64,
    pub start: u32,
    pub end: u32,
}

/// What an update brings and needs. Meant to be used again: its buffers keep their space.
#[derive(Debug, Default)]
pub struct Scan {
    /// The structs as contiguous ranges, by client and clock. What a Skip stands for is in none of them.
    ranges: Vec<ClockRange>,
    /// What structs refer to outside of `ranges`, sorted, each once.
    dependencies: Vec<Id>,
    deletes: Vec<ClockRange>,
    structs: u32,
    nesting: u32,
    has_documents: bool,
    /// References between clients, while they are being sorted out.
    edges: Vec<Edge>,
    clients: Vec<u64>,
    /// The places of map entries that know no other, by hash.
    rivals: Vec<u64>,
    run: Run,
    squash_bytes: u64,
    reach: work::Reach,
}

/// Structs that continue one another, as far as they were read.
#[derive(Debug, Default, Clone, Copy)]
struct Run {
    /// The last one's kind of content, right origin and last element.
    last: Option<(u8, Option<Id>, Id)>,
    pieces: u64,
}

/// A struct of one client that refers to another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    from: Id,
    to: Id,
}

impl Scan {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The structs as contiguous ranges, ordered by client and clock.
    #[must_use]
    pub fn ranges(&self) -> &[ClockRange] {
        &self.ranges
    }

    /// What the structs refer to that is not among them.
    #[must_use]
    pub fn dependencies(&self) -> &[Id] {
        &self.dependencies
    }

    /// What the update deletes, as it stands there.
    #[must_use]
    pub fn deletes(&self) -> &[ClockRange] {
        &self.deletes
    }

    /// How many items and collected ranges the update has. yrs keeps some 200 bytes for each that it can't merge.
    #[must_use]
    pub const fn structs(&self) -> u32 {
        self.structs
    }

    #[must_use]
    pub const fn has_structs(&self) -> bool {
        self.structs > 0
    }

    /// By how much the update can deepen the nesting of shared types in a document, at most.
    #[must_use]
    pub const fn nesting(&self) -> u32 {
        self.nesting
    }

    /// Whether it brings sub-documents.
    #[must_use]
    pub const fn has_documents(&self) -> bool {
        self.has_documents
    }

    /// The first thing that the update needs and a document lacks; `state` yields a client's next clock there.
    ///
    /// With `None`, yrs integrates all of it and keeps nothing as pending.
    #[must_use]
    pub fn missing(&self, state: impl Fn(u64) -> u32) -> Option<Id> {
        for same in self.ranges.chunk_by(|a, b| a.client == b.client) {
            let client = same[0].client;
            let mut clock = state(client);
            for range in same {
                if range.start > clock {
                    return Some(Id { client, clock });
                }
                clock = clock.max(range.end);
            }
        }
        let lacks = |id: &&Id| id.clock >= state(id.client);
        if let Some(&id) = self.dependencies.iter().find(lacks) {
            return Some(id);
        }
        let reached = |range: &ClockRange| state(range.client).max(self.end(range.client));
        let beyond = self.deletes.iter().find(|range| range.end > reached(range));
        beyond.map(|range| Id { client: range.client, clock: reached(range) })
    }

    /// Whether a document has all the structs already. Its deletes may still be new.
    #[must_use]
    pub fn is_known(&self, state: impl Fn(u64) -> u32) -> bool {
        self.ranges.iter().all(|range| range.end <= state(range.client))
    }

    /// Where the update's structs of a client end; 0 if it has none.
    fn end(&self, client: u64) -> u32 {
        let after = self.ranges.partition_point(|range| range.client <= client);
        let last = after.checked_sub(1).map(|at| self.ranges[at]).filter(|range| range.client == client);
        last.map_or(0, |range| range.end)
    }

    /// Whether one of the update's structs is or contains this element.
    fn brings(&self, id: Id) -> bool {
        let after = self.ranges.partition_point(|range| (range.client, range.start) <= (id.client, id.clock));
        after.checked_sub(1).is_some_and(|at| {
            let range = &self.ranges[at];
            range.client == id.client && id.clock < range.end
        })
    }

    fn clear(&mut self) {
        self.ranges.clear();
        self.dependencies.clear();
        self.deletes.clear();
        self.structs = 0;
        self.nesting = 0;
        self.edges.clear();
        self.clients.clear();
        self.rivals.clear();
        self.has_documents = false;
        self.run = Run::default();
        self.squash_bytes = 0;
        self.reach = work::Reach::default();
    }

    /// Counts what joining this item with those before it will cost: it is copied once for each of them.
    fn note_run(&mut self, id: Id, len: u32, item: &Item<'_>) {
        let last = Id { client: id.client, clock: id.clock + len - 1 };
        let continues = |&(kind, right, last): &(u8, Option<Id>, Id)| {
            item.squashes.is_some_and(|(next, _)| next == kind)
                && right == item.right_origin
                && item.origin == Some(last)
        };
        self.run.pieces = if self.run.last.as_ref().is_some_and(continues) { self.run.pieces + 1 } else { 0 };
        self.run.last = item.squashes.map(|(kind, _)| (kind, item.right_origin, last));
        let bytes = item.squashes.map_or(0, |(_, bytes)| bytes);
        self.squash_bytes = self.squash_bytes.saturating_add(self.run.pieces.saturating_mul(bytes));
    }

    /// The most entries at one place.
    fn rivals(&mut self) -> usize {
        self.rivals.sort_unstable();
        self.rivals.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap_or(0)
    }

    /// Notes one struct. `types` counts those with a shared type.
    fn add(&mut self, next: &Struct<'_>, types: &mut u32) -> Result<(), ScanError> {
        let item = match &next.kind {
            Kind::Skip => return Ok(()),
            Kind::Gc => None,
            Kind::Item(item) => Some(item),
        };
        let Id { client, clock } = next.id;
        self.structs += 1;
        match self.ranges.last_mut() {
            Some(range) if range.client == client && range.end == clock => range.end = clock + next.len,
            _ => self.ranges.push(ClockRange { client, start: clock, end: clock + next.len }),
        }
        let Some(item) = item else { return Ok(()) };
        *types += u32::from(item.is_type);
        self.has_documents |= item.is_document;
        self.rivals.extend(item.place());
        self.note_run(next.id, next.len, item);
        let start = self.ranges.last().map_or(clock, |range| range.start);
        self.reach.note(next.id, start, item);
        for to in [item.origin, item.right_origin, item.parent_item()].into_iter().flatten() {
            if to.client != client {
                self.edges.push(Edge { from: next.id, to });
            } else if to.clock >= clock {
                return Err(ScanError::Circular { client, clock });
            } else if to.clock < start {
                self.dependencies.push(to);
            }
        }
        Ok(())
    }
}

/// Reads an update into `out`, whose former content is lost.
///
/// # Errors
/// [`ScanError`]: the update must not be given to yrs. `out` then holds nothing of use.
pub fn scan(update: &[u8], limits: &ScanLimits, out: &mut Scan) -> Result<(), ScanError> {
    out.clear();
    let mut reader = Reader::new(update);
    let mut types = 0;
    let mut clients = std::mem::take(&mut out.clients);
    let structs = read_structs(&mut reader, limits, |next| {
        if next.first {
            clients.push(next.id.client);
        }
        out.add(next, &mut types)
    });
    out.clients = clients;
    structs?;
    read_deletes(&mut reader, out)?;
    if !reader.is_empty() {
        return Err(ScanError::TrailingBytes(reader.remaining().len()));
    }
    if out.squash_bytes > limits.squash_bytes_max {
        return Err(ScanError::Squash);
    }
    if out.rivals() > limits.rivals_max as usize {
        return Err(ScanError::Rivals(limits.rivals_max));
    }
    out.sort_clients()?;
    out.settle_edges(limits)?;
    out.nesting = types;
    if types > limits.nesting_max {
        // Many types need not be deep: only now is it worth reading a second time.
        out.nesting = nesting::depth(update, limits)?;
        if out.nesting > limits.nesting_max {
            return Err(ScanError::Nesting(limits.nesting_max));
        }
    }
    Ok(())
}

/// How deep an update that was scanned nests shared types.
///
/// # Errors
/// [`ScanError`]: it was not scanned.
pub fn nesting(update: &[u8]) -> Result<u32, ScanError> {
    nesting::depth(update, &ScanLimits::STORED)
}

/// A count of things of which each takes at least `bytes_min` bytes.
fn counted(reader: &mut Reader<'_>, bytes_min: usize) -> Result<u64, ScanError> {
    let count = reader.var_u64()?;
    if count > (reader.remaining().len() / bytes_min) as u64 {
        return Err(Lib0Error::LengthPastEnd.into());
    }
    Ok(count)
}

fn clock(reader: &mut Reader<'_>) -> Result<u32, ScanError> {
    let clock = reader.var_u64()?;
    u32::try_from(clock).ok().filter(|&clock| clock <= CLOCK_MAX).ok_or(ScanError::Clock)
}

fn id(reader: &mut Reader<'_>) -> Result<Id, ScanError> {
    let client = reader.var_u64()?;
    debug_assert!(client <= INTEGER_MAX, "the reader refuses more");
    Ok(Id { client, clock: clock(reader)? })
}

/// The structs of an update, client by client, each handed to `visit`.
fn read_structs<'a>(
    reader: &mut Reader<'a>,
    limits: &ScanLimits,
    mut visit: impl FnMut(&Struct<'a>) -> Result<(), ScanError>,
) -> Result<(), ScanError> {
    // A client takes a count, an id, a clock and a struct of two bytes or more.
    for _ in 0..counted(reader, 5)? {
        let count = counted(reader, 2)?;
        let mut next = id(reader)?;
        if count == 0 {
            return Err(ScanError::NoStructs(next.client));
        }
        for at in 0..count {
            let (len, kind) = content::read_struct(reader, limits)?;
            if len == 0 {
                return Err(ScanError::Empty);
            }
            let end = next.clock.checked_add(len).filter(|&end| end <= CLOCK_MAX).ok_or(ScanError::Clock)?;
            visit(&Struct { id: next, len, kind, first: at == 0 })?;
            next.clock = end;
        }
    }
    Ok(())
}

fn read_deletes(reader: &mut Reader<'_>, out: &mut Scan) -> Result<(), ScanError> {
    let clients_before = out.clients.len();
    for _ in 0..counted(reader, 2)? {
        let client = reader.var_u64()?;
        out.clients.push(client);
        for _ in 0..counted(reader, 2)? {
            let start = clock(reader)?;
            let len = clock(reader)?;
            if len == 0 {
                return Err(ScanError::Empty);
            }
            let end = start.checked_add(len).filter(|&end| end <= CLOCK_MAX).ok_or(ScanError::Clock)?;
            out.deletes.push(ClockRange { client, start, end });
        }
    }
    refuse_duplicates(&mut out.clients[clients_before..])?;
    out.clients.truncate(clients_before);
    Ok(())
}

/// Sorts the clients; two of the same are an error.
fn refuse_duplicates(clients: &mut [u64]) -> Result<(), ScanError> {
    clients.sort_unstable();
    match clients.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(ScanError::Duplicate(pair[0])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
