//! Did every reader get every item of every writer of its document: once, in order, and no others?
//!
//! One number per (reader, writer): the next clock expected. What arrives ahead of it opens a gap,
//! kept aside; what fills a gap later was reordered; a gap that stays is lost. That costs one compare
//! per delivery as long as the server is right.
//!
//! A repeated item is a duplicate only in an update: in a step 2 the server may include what the
//! reader already has (it can't know), so that is counted apart and is not wrong.

use std::collections::HashMap;
use std::ops::Range;

/// How an item came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    Update,
    State,
}

/// What was found wrong, in items. All zero but `resent` for a right server.
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
}

impl std::ops::AddAssign for Findings {
    fn add_assign(&mut self, other: Self) {
        let Self { lost, duplicated, reordered, foreign, resent } = other;
        self.lost += lost;
        self.duplicated += duplicated;
        self.reordered += reordered;
        self.foreign += foreign;
        self.resent += resent;
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
    findings: Findings,
}

impl Verification {
    /// `readers` connections in all, each of a document with `writers` writers.
    pub fn new(readers: u32, writers: u32) -> Self {
        Self {
            writers,
            next: vec![0; readers as usize * writers as usize],
            gaps: HashMap::new(),
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
        if clocks.start == next {
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
                self.findings.reordered += filled;
                self.findings.duplicated += again;
            }
            Carrier::State => self.findings.resent += again, // a gap filled by a resync is no reordering
        }
    }

    /// Judges at the end: `typed(reader, writer)` is how many items the reader must have of that
    /// writer, or `None` if it needs none (its own).
    pub fn finish(mut self, typed: impl Fn(u32, u32) -> Option<u32>) -> Findings {
        let gaps = std::mem::take(&mut self.gaps);
        for (cell, &next) in self.next.iter().enumerate() {
            let (reader, writer) = (cell as u32 / self.writers, cell as u32 % self.writers);
            let Some(typed) = typed(reader, writer) else {
                continue;
            };
            self.findings.lost += u64::from(typed.saturating_sub(next));
            self.findings.foreign += u64::from(next.saturating_sub(typed));
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
