//! Did every reader get every item of every writer of its document: once, in order, and no others?
//!
//! One number per (reader, writer): the next clock expected. What arrives ahead of it opens a gap,
//! kept aside; what fills a gap later was reordered; a gap that stays is lost. That costs one compare
//! per delivery as long as the server is right.
//!
//! A repeated item is a duplicate only in an update: in a step 2 the server may include what the
//! reader already has (it can't know), so that is counted apart and is not wrong. Neither is an update
//! that repeats what the reader's last step 2 brought (it may have been on its way), but it is waste.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};

/// How an item came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    Update,
    State,
}

/// What was found wrong, in items. All zero but `resent` and `overlapping` for a right server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Findings {
    /// Never arrived.
    pub lost: u64,
    /// Arrived again in an update.
    pub duplicated: u64,
    /// Arrived after a later item of the same writer.
    pub reordered: u64,
    /// Arrived though nobody of this document typed it, or before it was typed.
    pub foreign: u64,
    /// Arrived again inside a step 2: allowed.
    pub resent: u64,
    /// Arrived again in an update, after a step 2 had brought it: allowed, and waste.
    pub overlapping: u64,
}

impl std::ops::AddAssign for Findings {
    fn add_assign(&mut self, other: Self) {
        let Self { lost, duplicated, reordered, foreign, resent, overlapping } = other;
        self.lost += lost;
        self.duplicated += duplicated;
        self.reordered += reordered;
        self.foreign += foreign;
        self.resent += resent;
        self.overlapping += overlapping;
    }
}

impl Findings {
    pub fn is_right(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.foreign == 0
    }
}

#[derive(Debug)]
pub struct Verification {
    writers: u32,
    next: Vec<u32>, // [reader * writers + writer]
    gaps: HashMap<usize, Vec<Range<u32>>>,
    states: HashMap<usize, Range<u32>>, // what the last step 2 brought
    findings: Findings,
}

impl Verification {
    /// `readers` connections in all, each of a document with `writers` writers.
    pub fn new(readers: u32, writers: u32) -> Self {
        Self {
            writers,
            next: vec![0; readers as usize * writers as usize],
            gaps: HashMap::new(),
            states: HashMap::new(),
            findings: Findings::default(),
        }
    }

    /// Notes `clocks` of `writer` (its place in the document) at `reader`, and calls `fresh` with
    /// those seen for the first time.
    #[inline]
    pub fn receive(
        &mut self,
        reader: u32,
        writer: u32,
        clocks: Range<u32>,
        carrier: Carrier,
        mut fresh: impl FnMut(Range<u32>),
    ) {
        let cell = reader as usize * self.writers as usize + writer as usize;
        let next = self.next[cell];
        if clocks.start == next && carrier == Carrier::Update {
            self.next[cell] = clocks.end;
            fresh(clocks);
        } else {
            self.receive_out_of_turn(cell, clocks, carrier, fresh);
        }
    }

    /// Notes items that no writer of the reader's document has typed.
    pub fn receive_foreign(&mut self, items: u32) {
        self.findings.foreign += u64::from(items);
    }

    #[cold]
    fn receive_out_of_turn(
        &mut self,
        cell: usize,
        clocks: Range<u32>,
        carrier: Carrier,
        mut fresh: impl FnMut(Range<u32>),
    ) {
        let next = self.next[cell];
        if carrier == Carrier::State {
            let state = self.states.entry(cell).or_insert_with(|| clocks.clone());
            // One step 2 may bring several ranges, one behind the other.
            *state = if state.end == clocks.start { state.start..clocks.end } else { clocks.clone() };
        }
        let ahead = clocks.start.max(next)..clocks.end.max(next);
        if clocks.start > next {
            self.gaps.entry(cell).or_default().push(next..clocks.start);
        }
        if !ahead.is_empty() {
            self.next[cell] = ahead.end;
            fresh(ahead);
        }
        let behind = clocks.start..clocks.end.min(next);
        if behind.is_empty() {
            return;
        }
        let mut filled = 0;
        if let Some(gaps) = self.gaps.get_mut(&cell) {
            let mut left = Vec::with_capacity(gaps.len() + 1);
            for gap in gaps.drain(..) {
                let overlap = gap.start.max(behind.start)..gap.end.min(behind.end);
                if overlap.is_empty() {
                    left.push(gap);
                    continue;
                }
                filled += overlap.len() as u64;
                left.extend(
                    [gap.start..overlap.start, overlap.end..gap.end]
                        .into_iter()
                        .filter(|rest| !rest.is_empty()),
                );
                fresh(overlap);
            }
            *gaps = left;
        }
        let again = behind.len() as u64 - filled;
        match carrier {
            Carrier::Update => {
                let state = self.states.get(&cell).cloned().unwrap_or(0..0);
                let brought = behind.start.max(state.start)..behind.end.min(state.end);
                let overlapping = (brought.len() as u64).min(again);
                self.findings.reordered += filled;
                self.findings.overlapping += overlapping;
                self.findings.duplicated += again - overlapping;
            }
            Carrier::State => self.findings.resent += again, // a gap filled by a resync is no reordering
        }
    }

    /// Notes that the connection ended of a reader who had its step 2. What is still missing then, though
    /// later items came, won't come any more: it is lost, even if a step 2 brings it after the reader's
    /// return. (Before its step 2 a reader may well get updates that come after what it lacks.)
    pub fn leave(&mut self, reader: u32) {
        let cells = self.cells(reader);
        for cell in cells {
            let missing = self.gaps.remove(&cell).unwrap_or_default();
            self.findings.lost += missing.iter().map(|gap| gap.len() as u64).sum::<u64>();
        }
    }

    /// How many items of each writer the reader has without a gap: what it offers when it returns.
    pub fn known(&self, reader: u32) -> impl Iterator<Item = u32> {
        self.cells(reader).map(|cell| {
            let first_gap = self.gaps.get(&cell).into_iter().flatten().map(|gap| gap.start).min();
            first_gap.unwrap_or(self.next[cell])
        })
    }

    fn cells(&self, reader: u32) -> Range<usize> {
        let first = reader as usize * self.writers as usize;
        first..first + self.writers as usize
    }

    /// Judges at the end: `typed(reader, writer)` is how many items the reader must have of that
    /// writer, or `None` if it needs none (its own).
    pub fn finish(self, typed: impl Fn(u32, u32) -> Option<u32>) -> Findings {
        self.finish_between(|reader, writer| typed(reader, writer).map(|typed| typed..=typed))
    }

    /// The same where a reader may have left before it had everything: at least, and at most, so many.
    pub fn finish_between(mut self, typed: impl Fn(u32, u32) -> Option<RangeInclusive<u32>>) -> Findings {
        let gaps = std::mem::take(&mut self.gaps);
        for (cell, &next) in self.next.iter().enumerate() {
            let (reader, writer) = (cell as u32 / self.writers, cell as u32 % self.writers);
            let Some(typed) = typed(reader, writer) else {
                continue;
            };
            self.findings.lost += u64::from(typed.start().saturating_sub(next));
            self.findings.foreign += u64::from(next.saturating_sub(*typed.end()));
            let missing = gaps.get(&cell).into_iter().flatten();
            self.findings.lost += missing.map(|gap| gap.len() as u64).sum::<u64>();
        }
        self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn receive(verification: &mut Verification, clocks: Range<u32>) -> u64 {
        let mut fresh = 0;
        verification.receive(0, 0, clocks, Carrier::Update, |range| fresh += range.len() as u64);
        fresh
    }

    fn findings(arrivals: &[Range<u32>], typed: u32) -> Findings {
        let mut verification = Verification::new(1, 1);
        for clocks in arrivals {
            receive(&mut verification, clocks.clone());
        }
        verification.finish(|_, _| Some(typed))
    }

    #[test]
    fn everything_once_and_in_order_is_right() {
        assert_eq!(findings(&[0..1, 1..4, 4..5], 5), Findings::default());
    }

    #[test]
    fn a_lost_item_is_found_in_the_middle_and_at_the_end() {
        assert_eq!(findings(&[0..1, 2..5], 5), Findings { lost: 1, ..Findings::default() });
        assert_eq!(findings(&[0..1, 1..3], 5), Findings { lost: 2, ..Findings::default() });
        assert_eq!(findings(&[], 5), Findings { lost: 5, ..Findings::default() });
    }

    #[test]
    fn a_duplicated_item_is_found() {
        assert_eq!(findings(&[0..2, 1..2, 2..3], 3), Findings { duplicated: 1, ..Findings::default() });
        assert_eq!(findings(&[0..2, 1..3], 3), Findings { duplicated: 1, ..Findings::default() });
    }

    #[test]
    fn a_reordered_item_is_found_and_not_lost() {
        assert_eq!(findings(&[0..1, 2..3, 1..2, 3..4], 4), Findings { reordered: 1, ..Findings::default() });
    }

    #[test]
    fn an_item_nobody_typed_is_found() {
        assert_eq!(findings(&[0..1, 1..7], 5), Findings { foreign: 2, ..Findings::default() });
        let mut verification = Verification::new(1, 1);
        verification.receive_foreign(3);
        assert!(!verification.finish(|_, _| Some(0)).is_right());
    }

    #[test]
    fn a_step_2_may_repeat_and_may_fill_gaps() {
        let mut verification = Verification::new(1, 1);
        receive(&mut verification, 0..2);
        receive(&mut verification, 4..6);
        let mut fresh = Vec::new();
        verification.receive(0, 0, 0..8, Carrier::State, |range| fresh.push(range));
        assert_eq!(fresh, [6..8, 2..4]);
        assert_eq!(verification.finish(|_, _| Some(8)), Findings { resent: 4, ..Findings::default() });
    }

    #[test]
    fn readers_and_writers_are_kept_apart() {
        let mut verification = Verification::new(2, 2);
        verification.receive(1, 0, 0..3, Carrier::Update, |_| {});
        let found = verification.finish(|reader, writer| (reader == 1 && writer == 0).then_some(3));
        assert_eq!(found, Findings::default());
    }

    #[test]
    fn an_update_may_repeat_what_the_last_step_2_brought_but_nothing_else() {
        let mut verification = Verification::new(1, 1);
        receive(&mut verification, 0..4);
        verification.receive(0, 0, 4..6, Carrier::State, |_| {});
        verification.receive(0, 0, 6..9, Carrier::State, |_| {});
        receive(&mut verification, 2..12);
        receive(&mut verification, 9..12);
        let found = verification.finish(|_, _| Some(12));
        assert_eq!(found, Findings { duplicated: 2 + 3, overlapping: 5, ..Findings::default() });
    }

    #[test]
    fn a_gap_that_a_return_heals_was_still_lost() {
        let mut verification = Verification::new(1, 2);
        receive(&mut verification, 0..2);
        receive(&mut verification, 4..6);
        assert_eq!(verification.known(0).collect::<Vec<_>>(), [2, 0]);
        verification.leave(0);
        verification.receive(0, 0, 2..7, Carrier::State, |_| {});
        let found = verification.finish(|_, writer| (writer == 0).then_some(7));
        assert_eq!(found, Findings { lost: 2, resent: 4, ..Findings::default() });
    }

    proptest! {
        /// Against a model that keeps every clock in a set.
        #[test]
        fn agrees_with_a_set_of_clocks(arrivals in prop::collection::vec((0u32..40, 1u32..6), 0..40)) {
            let mut verification = Verification::new(1, 1);
            let mut seen = std::collections::BTreeSet::new();
            let (mut again, mut fresh) = (0, 0);
            for (start, len) in arrivals {
                fresh += receive(&mut verification, start..start + len);
                again += (start..start + len).filter(|clock| !seen.insert(*clock)).count() as u64;
            }
            let found = verification.finish(|_, _| Some(50));
            prop_assert_eq!(fresh, seen.len() as u64);
            prop_assert_eq!(found.lost, 50 - seen.len() as u64);
            prop_assert_eq!(found.duplicated, again);
        }
    }
}
