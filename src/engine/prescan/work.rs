//! What an update makes yrs do beyond a fixed price for each struct, told before yrs does it.
//!
//! Two things cost yrs more the more there is: an item is compared with all that others put between its neighbours
//! (`block.rs` `resolve_conflict`; for map entries it also walks to the leftmost one of the key), and an item that a
//! reference or a deletion cuts is copied (`splice`), its client's list moved along. Both are genuine where people edit one
//! place at once, or a long text in many places, and both make a well-formed update of some kilobytes take seconds.
//!
//! Nothing in the bytes of one update tells how much it is: that depends on what lies between two neighbours in the document. So
//! [`Scan::work_bound`] is a bound that costs nothing, and when it is passed, a [`Shadow`] of the document, which knows its order and
//! nothing of its contents, takes the update by yrs' own steps and counts them.
//!
//! Not here: joining what was cut ([`super::ScanLimits::squash_bytes_max`]), and what many updates cost together.

use std::collections::BTreeMap;

use super::content::{Item, Kind, Parent, Struct, TEXT, read_struct};
use super::{Id, Scan, ScanError, ScanLimits, counted, id, read_deletes};
use crate::protocol::lib0::Reader;

/// An estimate of yrs' time, in nanoseconds of a core of today (`estimates_and_what_yrs_takes` compares).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Comparing items with what is in their way. Of that, people make little.
    pub compare_ns: u64,
    /// Cutting items. One who was offline, and deleted here and there in something long, may make much.
    pub cut_ns: u64,
}

impl Work {
    pub const MAX: Self = Self { compare_ns: u64::MAX, cut_ns: u64::MAX };

    #[must_use]
    pub const fn is_within(&self, max: &Self) -> bool {
        self.compare_ns <= max.compare_ns && self.cut_ns <= max.cut_ns
    }

    #[must_use]
    pub const fn times(self, factor: u64) -> Self {
        let compare_ns = self.compare_ns.saturating_mul(factor);
        Self { compare_ns, cut_ns: self.cut_ns.saturating_mul(factor) }
    }
}

/// Comparing an item with one that is in its way: it goes into two sets.
const COMPARE_NS: u64 = 120;
/// A step to the left, from one entry of a map's key to the one before.
const STEP_NS: u64 = 7;
/// Moving one piece of a client's list along, for one that is inserted before it.
const MOVE_NS: u64 = 2;
/// Where a text is cut is found by counting its letters from the left; in picoseconds.
const LETTER_PS: u16 = 2000;
/// Both sides of a cut are copied, bytes of text and values; in picoseconds.
const BYTE_PS: u16 = 50;
const VALUE_PS: u16 = 5000;
/// What a cut costs for each byte of an update, at most: a value is one byte or more, a letter too.
const CUT_NS: u64 = 5;
/// As many items and deletions as one keystroke, paste or command sends are never suspected.
const GESTURE: u64 = 16;

/// How far an update's items reach beyond what it brings itself.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Reach {
    /// Items beside which a document may have others that they are compared with.
    anchored: u32,
    /// Items that may cut others.
    cutting: u32,
    /// The last item's right neighbour.
    right: Option<Id>,
}

impl Reach {
    /// Notes an item; `start` is where the contiguous structs begin that it belongs to.
    pub(super) fn note(&mut self, at: Id, start: u32, item: &Item<'_>) {
        let brought = |id: Option<Id>| {
            id.is_some_and(|id| id.client == at.client && (start..at.clock).contains(&id.clock))
        };
        let alone = item.origin.is_none() && item.right_origin.is_none();
        let is_free = brought(item.origin) || (alone && brought(item.parent_item()));
        let continues =
            |origin: Id| origin.client == at.client && origin.clock + 1 == at.clock && origin.clock >= start;
        let cuts = item.origin.is_some_and(|origin| !continues(origin))
            || item.right_origin.is_some_and(|right| self.right != Some(right));
        self.anchored += u32::from(!is_free);
        self.cutting += u32::from(cuts);
        self.right = item.right_origin;
    }
}

impl Scan {
    /// By how many pieces a document grows with this update, at most: every item and deletion may cut twice.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        u64::from(self.structs) + 2 * (u64::from(self.reach.cutting) + self.deletes.len() as u64)
    }

    /// At most so much work beyond its structs' fixed price is this update, in a document of so many pieces and bytes, its own
    /// included. `known`: the document has a part of its structs. `deletes`: how many of its deletions are new.
    #[must_use]
    pub fn work_bound(&self, pieces: u64, bytes: u64, known: bool, deletes: u64) -> Work {
        let structs = u64::from(self.structs);
        let Reach { anchored, cutting, .. } = self.reach;
        let [anchored, cutting] = if known { [structs; 2] } else { [anchored, cutting].map(u64::from) };
        let compared = |items: u64, with: u64| items.saturating_sub(GESTURE).saturating_mul(with);
        let compared = compared(structs, structs).saturating_add(compared(anchored, pieces));
        let cuts = 2 * (cutting + deletes).saturating_sub(GESTURE);
        let cut = bytes.saturating_mul(CUT_NS).saturating_add(pieces.saturating_mul(MOVE_NS));
        Work { compare_ns: compared.saturating_mul(COMPARE_NS), cut_ns: cuts.saturating_mul(cut) }
    }
}

const NONE: u32 = u32::MAX;

/// An item, or what is left of it on one side of a cut; or a collected range.
#[derive(Debug, Clone, Copy)]
struct Piece {
    id: Id,
    /// The clock after its last.
    end: u32,
    origin: Option<Id>,
    right_origin: Option<Id>,
    left: u32,
    right: u32,
    /// None of a collected range.
    list: u32,
    /// The comparison that passed it last, and whether that one still has it as conflicting.
    passed: u32,
    conflicting: u32,
    /// What cutting it costs for each of its clocks: for those left of the cut, and for all.
    cut_ps: (u16, u16),
    deleted: bool,
}

/// The items of one shared type in their order, or the entries of one key of it.
#[derive(Debug)]
struct List<'a> {
    branch: u32,
    key: Option<&'a str>,
    /// Of a sequence its first piece, of a key its last.
    end: u32,
}

#[derive(Debug, Default)]
struct Client {
    clock: u32,
    /// By clock.
    pieces: Vec<u32>,
}

/// The order of a document's items, as yrs has it.
#[derive(Debug, Default)]
pub struct Shadow<'a> {
    pieces: Vec<Piece>,
    clients: BTreeMap<u64, Client>,
    branches: BTreeMap<Parent<'a>, u32>,
    lists: Vec<List<'a>>,
    places: BTreeMap<(u32, Option<&'a str>), u32>,
    comparisons: u32,
    /// A generation of `Piece::conflicting`.
    conflicts: u32,
    work: Work,
}

/// One client's structs in an update that is being integrated.
struct Queue<'a> {
    head: Option<Struct<'a>>,
    /// How many follow, and where they are.
    left: u64,
    reader: Reader<'a>,
    /// It waits for one above it on the stack.
    waits: bool,
}

impl<'a> Queue<'a> {
    fn advance(&mut self) -> Result<(), ScanError> {
        let Some(next) = self.head.take() else { return Ok(()) };
        if self.left > 0 {
            self.left -= 1;
            let id = Id { clock: next.id.clock + next.len, ..next.id };
            let (len, kind) = read_struct(&mut self.reader, &ScanLimits::STORED)?;
            self.head = Some(Struct { id, len, kind, first: false });
        }
        Ok(())
    }
}

/// An update's clients, and its deletions behind them. It was scanned before: its sums don't overflow.
fn queues<'a>(update: &'a [u8], scan: &mut Scan) -> Result<BTreeMap<u64, Queue<'a>>, ScanError> {
    let mut reader = Reader::new(update);
    let mut queues = BTreeMap::new();
    for _ in 0..counted(&mut reader, 5)? {
        let count = counted(&mut reader, 2)?;
        let start = id(&mut reader)?;
        let (len, kind) = read_struct(&mut reader, &ScanLimits::STORED)?;
        let head = Some(Struct { id: start, len, kind, first: true });
        queues.insert(
            start.client,
            Queue { head, left: count.saturating_sub(1), reader: reader.clone(), waits: false },
        );
        for _ in 1..count {
            read_struct(&mut reader, &ScanLimits::STORED)?;
        }
    }
    read_deletes(&mut reader, scan)?;
    Ok(queues)
}

impl<'a> Shadow<'a> {
    /// How many pieces there are.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        self.pieces.len() as u64
    }

    /// Takes an update that lacks nothing, and tells the work. It stops when there was more than `max`.
    ///
    /// # Errors
    /// The update is malformed: it was not scanned.
    pub fn integrate(&mut self, update: &'a [u8], max: &Work) -> Result<Work, ScanError> {
        self.work = Work::default();
        let mut deletes = Scan::new();
        let mut queues = queues(update, &mut deletes)?;
        // yrs begins with the highest client, and turns to another when an item needs what that one has not brought yet.
        let order = queues.keys().rev().copied().collect::<Vec<_>>();
        let mut stack = Vec::new();
        for client in order {
            stack.push(client);
            while let Some(&top) = stack.last() {
                if !self.work.is_within(max) {
                    return Ok(self.work);
                }
                let Some(queue) = queues.get_mut(&top) else { break };
                queue.waits = false;
                let Some(next) = queue.head else {
                    stack.pop();
                    continue;
                };
                if let Some(lacks) = self.missing(&next) {
                    queue.waits = true;
                    match queues.get(&lacks) {
                        Some(other) if other.head.is_some() && !other.waits => stack.push(lacks),
                        _ => return Ok(self.work), // yrs keeps the rest as pending
                    }
                    continue;
                }
                self.add(next);
                queue.advance()?;
                if stack.len() > 1 {
                    stack.pop();
                }
            }
        }
        for range in deletes.deletes() {
            if !self.work.is_within(max) {
                break;
            }
            self.delete(Id { client: range.client, clock: range.start }, range.end);
        }
        Ok(self.work)
    }

    /// A client's next clock.
    #[must_use]
    pub fn clock(&self, client: u64) -> u32 {
        self.clients.get(&client).map_or(0, |client| client.clock)
    }

    /// The client of the first thing that a struct needs and that is not there.
    fn missing(&self, next: &Struct<'_>) -> Option<u64> {
        let Kind::Item(item) = &next.kind else { return None };
        let needs = [item.origin, item.right_origin, item.parent_item()];
        let lacks = |id: &Id| id.clock >= self.clock(id.client);
        needs.into_iter().flatten().find(lacks).map(|id| id.client)
    }

    fn add(&mut self, next: Struct<'a>) {
        let Struct { id: Id { client, clock }, len, kind, .. } = next;
        let (known, end) = (self.clock(client), clock + len);
        if end <= known {
            return;
        }
        let mut piece = Piece {
            id: Id { client, clock: clock.max(known) },
            end,
            origin: None,
            right_origin: None,
            left: NONE,
            right: NONE,
            list: NONE,
            passed: 0,
            conflicting: 0,
            cut_ps: (0, 0),
            deleted: true,
        };
        match kind {
            Kind::Skip => return,
            Kind::Gc => {}
            Kind::Item(mut item) => {
                if clock < known {
                    item.origin = Some(Id { client, clock: known - 1 });
                }
                piece.origin = item.origin;
                piece.right_origin = item.right_origin;
                piece.deleted = item.is_deleted;
                piece.cut_ps = match item.squashes {
                    // It is counted twice there, and a letter has up to four bytes.
                    Some((TEXT, bytes)) => {
                        (LETTER_PS, BYTE_PS * (bytes / 2).div_ceil(u64::from(len)).min(4) as u16)
                    }
                    Some(_) => (0, VALUE_PS),
                    None => (0, 0),
                };
                piece.left = item.origin.and_then(|id| self.ending_at(id)).unwrap_or(NONE);
                piece.right = item.right_origin.and_then(|id| self.starting_at(id)).unwrap_or(NONE);
                piece.list = self.list_for(&item, piece.left, piece.right);
            }
        }
        if piece.list == NONE {
            // What it refers to was collected, and so it is itself.
            piece.deleted = true;
        } else {
            self.place(&mut piece);
        }
        let at = self.pieces.len() as u32;
        self.pieces.push(piece);
        let client = self.clients.entry(client).or_default();
        client.pieces.push(at);
        client.clock = end;
    }

    /// The list that an item goes into; none if what it refers to was collected.
    fn list_for(&mut self, item: &Item<'a>, left: u32, right: u32) -> u32 {
        let list_of = |piece: u32| {
            let list = self.pieces.get(piece as usize)?.list;
            self.lists.get(list as usize).map(|list| (list.branch, list.key))
        };
        let (left, right) = (list_of(left), list_of(right));
        let branch = match item.parent {
            Some(Parent::Item(id))
                if self.find(id).is_none_or(|(_, at)| self.pieces[at as usize].list == NONE) =>
            {
                return NONE;
            }
            Some(parent) => {
                let next = self.branches.len() as u32;
                *self.branches.entry(parent).or_insert(next)
            }
            None => match left.or(right) {
                Some((branch, _)) => branch,
                None => return NONE,
            },
        };
        // yrs prefers the neighbours' key.
        let key = left.and_then(|(_, key)| key).or_else(|| right.and_then(|(_, key)| key)).or(item.key);
        let next = self.lists.len() as u32;
        let list = *self.places.entry((branch, key)).or_insert(next);
        if list == next {
            self.lists.push(List { branch, key, end: NONE });
        }
        list
    }

    /// Finds an item's place between its neighbours, and links it there; it becomes the next piece.
    fn place(&mut self, piece: &mut Piece) {
        let at = self.pieces.len() as u32;
        let conflict = match (piece.left, piece.right) {
            (NONE, NONE) => true,
            (NONE, right) => self.pieces[right as usize].left != NONE,
            (left, right) => self.pieces[left as usize].right != right,
        };
        if conflict {
            self.resolve(piece);
        }
        let keyed = self.lists[piece.list as usize].key.is_some();
        if let Some(left) = self.pieces.get_mut(piece.left as usize) {
            piece.right = std::mem::replace(&mut left.right, at);
        } else if keyed {
            piece.right = self.leftmost(piece.list);
        } else {
            piece.right = std::mem::replace(&mut self.lists[piece.list as usize].end, at);
        }
        if let Some(right) = self.pieces.get_mut(piece.right as usize) {
            right.left = at;
            piece.deleted |= keyed;
        } else if keyed {
            self.lists[piece.list as usize].end = at;
            if let Some(left) = self.pieces.get_mut(piece.left as usize) {
                left.deleted = true;
            }
        }
    }

    /// The first entry of a key: yrs walks there from the last.
    fn leftmost(&mut self, list: u32) -> u32 {
        let mut at = self.lists[list as usize].end;
        while let Some(piece) = self.pieces.get(at as usize) {
            self.work.compare_ns += STEP_NS;
            if piece.left == NONE {
                break;
            }
            at = piece.left;
        }
        at
    }

    /// `resolve_conflict`, step by step.
    fn resolve(&mut self, piece: &mut Piece) {
        let List { key, end, .. } = self.lists[piece.list as usize];
        let mut next = match self.pieces.get(piece.left as usize) {
            Some(left) => left.right,
            None if key.is_some() => self.leftmost(piece.list),
            None => end,
        };
        self.comparisons += 1;
        self.conflicts += 1;
        let mut left = piece.left;
        while next != piece.right {
            let Some(other) = self.pieces.get_mut(next as usize) else { break };
            self.work.compare_ns += COMPARE_NS;
            other.passed = self.comparisons;
            other.conflicting = self.conflicts;
            let other = *other;
            if piece.origin == other.origin {
                if other.id.client < piece.id.client {
                    left = next;
                    self.conflicts += 1;
                } else if piece.right_origin == other.right_origin {
                    break;
                }
            } else {
                let origin =
                    other.origin.and_then(|id| self.find(id)).map(|(_, at)| self.pieces[at as usize]);
                match origin.filter(|origin| origin.list != NONE && origin.passed == self.comparisons) {
                    Some(origin) if origin.conflicting != self.conflicts => {
                        left = next;
                        self.conflicts += 1;
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            next = other.right;
        }
        piece.left = left;
    }

    /// The piece that holds an element, and where its client's list has it.
    fn find(&self, id: Id) -> Option<(usize, u32)> {
        let pieces = &self.clients.get(&id.client)?.pieces;
        let starts_by = |at: &u32| self.pieces[*at as usize].id.clock <= id.clock;
        let rank = match pieces.last() {
            Some(last) if starts_by(last) => pieces.len() - 1,
            _ => pieces.partition_point(starts_by).checked_sub(1)?,
        };
        let at = pieces[rank];
        (id.clock < self.pieces[at as usize].end).then_some((rank, at))
    }

    /// The piece that begins with this element, cut off what is before it.
    fn starting_at(&mut self, id: Id) -> Option<u32> {
        let (rank, at) = self.find(id)?;
        let piece = self.pieces[at as usize];
        match piece.list {
            NONE => None,
            _ if piece.id.clock == id.clock => Some(at),
            _ => Some(self.cut(rank, at, id.clock)),
        }
    }

    /// The piece that ends with this element.
    fn ending_at(&mut self, id: Id) -> Option<u32> {
        let (rank, at) = self.find(id)?;
        let piece = self.pieces[at as usize];
        if piece.list == NONE {
            return None;
        }
        if id.clock + 1 < piece.end {
            self.cut(rank, at, id.clock + 1);
        }
        Some(at)
    }

    /// Cuts a piece before `clock`, and yields its right half.
    fn cut(&mut self, rank: usize, at: u32, clock: u32) -> u32 {
        let new = self.pieces.len() as u32;
        let piece = &mut self.pieces[at as usize];
        let mut half = *piece;
        let moved = self.clients.get_mut(&piece.id.client).map_or(0, |client| {
            client.pieces.insert(rank + 1, new);
            client.pieces.len() - rank
        });
        let (left, whole) = (clock - piece.id.clock, piece.end - piece.id.clock);
        let of = |clocks: u32, ps: u16| u64::from(clocks) * u64::from(ps) / 1000;
        self.work.cut_ns += of(left, piece.cut_ps.0) + of(whole, piece.cut_ps.1) + moved as u64 * MOVE_NS;
        half.id.clock = clock;
        half.origin = Some(Id { clock: clock - 1, ..piece.id });
        half.left = at;
        piece.end = clock;
        piece.right = new;
        match self.pieces.get_mut(half.right as usize) {
            Some(right) => right.left = new,
            None => {
                if let Some(list) = self.lists.get_mut(half.list as usize).filter(|list| list.key.is_some()) {
                    list.end = new;
                }
            }
        }
        self.pieces.push(half);
        new
    }

    /// Deletes from one element to before the clock `end`. What is deleted already is not cut.
    fn delete(&mut self, from: Id, end: u32) {
        let Some((mut rank, at)) = self.find(from) else { return };
        let piece = self.pieces[at as usize];
        if !piece.deleted && piece.id.clock < from.clock {
            self.cut(rank, at, from.clock);
            rank += 1;
        }
        while let Some(&at) = self.clients.get(&from.client).and_then(|client| client.pieces.get(rank)) {
            let piece = self.pieces[at as usize];
            if piece.id.clock >= end {
                return;
            }
            if !piece.deleted {
                if piece.end > end {
                    self.cut(rank, at, end);
                }
                self.pieces[at as usize].deleted = true;
            }
            rank += 1;
        }
    }
}

#[cfg(test)]
mod tests;
