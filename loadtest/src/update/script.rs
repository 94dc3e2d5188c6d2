//! The edits of a trace, ready to be written by anyone: who types them needs no document.
//!
//! One author alone in a document: a gap buffer of its characters, with those deleted, says between
//! which two each insertion goes and which clocks each deletion takes away. That is worked out once;
//! writing an update is then a few stores, whoever's client id it carries.

use super::{CONTENT_STRING, HAS_ORIGIN, HAS_RIGHT_ORIGIN, ROOT};
use crate::lib0::{write_var_bytes, write_varuint};
use crate::schedule::{Clocks, Period};
use crate::trace::Trace;
use std::rc::Rc;

/// No neighbour.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone)]
struct Step {
    clock: u32,
    origin: u32,
    right_origin: u32,
    inserted: String,
    deleted: Vec<(u32, u32)>, // clock and length, in order
}

#[derive(Debug)]
pub struct Script {
    pub source: String,
    steps: Vec<Step>,
    trace: Trace,
}

/// A character of the document: its clock, how many clocks it takes, whether it is still there.
#[derive(Debug, Clone, Copy)]
struct Character {
    clock: u32,
    units: u32,
    is_deleted: bool,
}

/// The document as its author has it, with the cursor in the gap.
#[derive(Debug, Default)]
struct Page {
    before: Vec<Character>,
    after: Vec<Character>, // reversed
    visible_before: u32,
}

impl Page {
    /// Puts the gap behind so many visible characters.
    fn go_to(&mut self, position: u32) {
        while self.visible_before > position {
            let Some(character) = self.before.pop() else { break };
            self.visible_before -= u32::from(!character.is_deleted);
            self.after.push(character);
        }
        while self.visible_before < position {
            let Some(character) = self.after.pop() else { break };
            self.visible_before += u32::from(!character.is_deleted);
            self.before.push(character);
        }
    }

    /// Puts the gap behind what is deleted there: Yjs inserts only in front of what can be seen.
    fn pass_deleted(&mut self) {
        while let Some(character) = self.after.pop_if(|character| character.is_deleted) {
            self.before.push(character);
        }
    }

    /// Deletes `count` visible characters behind the gap; their clocks, in order.
    fn delete(&mut self, count: u32) -> Vec<(u32, u32)> {
        let mut deleted = Vec::new();
        let visible = self.after.iter_mut().rev().filter(|character| !character.is_deleted);
        for character in visible.take(count as usize) {
            character.is_deleted = true;
            deleted.push((character.clock, character.units));
        }
        squash(deleted)
    }
}

impl Script {
    pub fn new(trace: Trace) -> Self {
        let mut page = Page::default();
        let mut next_clock = 0;
        let steps = trace
            .patches()
            .map(|(position, deleted, inserted)| {
                page.go_to(position);
                let deleted = if deleted > 0 { page.delete(deleted) } else { Vec::new() };
                page.pass_deleted();
                let step = Step {
                    clock: next_clock,
                    origin: page.before.last().map_or(NONE, |left| left.clock + left.units - 1),
                    right_origin: page.after.last().map_or(NONE, |right| right.clock),
                    inserted: inserted.to_owned(),
                    deleted,
                };
                for character in inserted.chars() {
                    let units = character.len_utf16() as u32;
                    page.before.push(Character { clock: next_clock, units, is_deleted: false });
                    page.visible_before += 1;
                    next_clock += units;
                }
                step
            })
            .collect();
        Self { source: trace.source.clone(), steps, trace }
    }

    pub fn len(&self) -> u32 {
        self.steps.len() as u32
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Which clocks each edit takes; deletions take none.
    pub fn clocks(&self) -> Clocks {
        Clocks::Periodic(Rc::new(Period::new(self.steps.iter().map(|step| utf16_len(&step.inserted)))))
    }

    /// Clocks taken by the first `edits` edits.
    pub fn clocks_before(&self, edits: u32) -> u32 {
        match self.steps.get(edits as usize) {
            Some(step) => step.clock,
            None => self.steps.last().map_or(0, |last| last.clock + utf16_len(&last.inserted)),
        }
    }

    /// The text after so many edits.
    pub fn text_after(&self, edits: u32) -> String {
        self.trace.text_after(edits as usize)
    }

    /// Replaces `update` by edit `nth` as `client` writes it.
    pub fn write(&self, client: u64, nth: u32, update: &mut Vec<u8>) {
        let step = &self.steps[nth as usize];
        update.clear();
        if step.inserted.is_empty() {
            update.push(0);
        } else {
            update.extend_from_slice(&[1, 1]); // one client, one struct
            write_varuint(update, client);
            write_varuint(update, u64::from(step.clock));
            write_item(update, client, step.origin, step.right_origin, &step.inserted);
        }
        write_deletions(update, client, &step.deleted);
    }

    /// The update that brings someone who lacks the clocks from `from` on up to date, after `edits` edits.
    /// Deletions go along from the first on: a state vector doesn't say which of them are known.
    pub fn missing(&self, client: u64, from: u32, edits: u32, update: &mut Vec<u8>) {
        let done = &self.steps[..edits as usize];
        let behind =
            |step: &&Step| !step.inserted.is_empty() && step.clock + utf16_len(&step.inserted) > from;
        let structs = done.iter().filter(behind).count();
        update.clear();
        write_varuint(update, u64::from(structs > 0));
        if structs > 0 {
            write_varuint(update, structs as u64);
            write_varuint(update, client);
            write_varuint(update, u64::from(from));
        }
        for step in done.iter().filter(behind) {
            let known = from.saturating_sub(step.clock);
            if known == 0 {
                write_item(update, client, step.origin, step.right_origin, &step.inserted);
            } else {
                let rest = behind_units(&step.inserted, known);
                write_item(update, client, from - 1, step.right_origin, rest);
            }
        }
        let deleted = done.iter().flat_map(|step| step.deleted.iter().copied()).collect();
        write_deletions(update, client, &squash(deleted));
    }
}

fn write_item(update: &mut Vec<u8>, client: u64, origin: u32, right_origin: u32, text: &str) {
    let flag = |neighbour, flag| if neighbour == NONE { 0 } else { flag };
    update.push(CONTENT_STRING | flag(origin, HAS_ORIGIN) | flag(right_origin, HAS_RIGHT_ORIGIN));
    for neighbour in [origin, right_origin] {
        if neighbour != NONE {
            write_varuint(update, client);
            write_varuint(update, u64::from(neighbour));
        }
    }
    if origin == NONE && right_origin == NONE {
        update.push(1); // the parent is a root type, by name
        write_var_bytes(update, ROOT.as_bytes());
    }
    write_var_bytes(update, text.as_bytes());
}

fn write_deletions(update: &mut Vec<u8>, client: u64, deleted: &[(u32, u32)]) {
    write_varuint(update, u64::from(!deleted.is_empty()));
    if deleted.is_empty() {
        return;
    }
    write_varuint(update, client);
    write_varuint(update, deleted.len() as u64);
    for (clock, len) in deleted {
        write_varuint(update, u64::from(*clock));
        write_varuint(update, u64::from(*len));
    }
}

/// Sorts ranges and joins those that touch.
fn squash(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let touches = kept.0 + kept.1 == next.0;
        if touches {
            kept.1 += next.1;
        }
        touches
    });
    ranges
}

fn utf16_len(text: &str) -> u32 {
    text.chars().map(|character| character.len_utf16() as u32).sum()
}

/// `text` without its first `units` UTF-16 units.
fn behind_units(text: &str, units: u32) -> &str {
    let mut passed = 0;
    for (at, character) in text.char_indices() {
        if passed >= units {
            return &text[at..];
        }
        passed += character.len_utf16() as u32;
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::{Arc, Mutex};
    use yrs::updates::decoder::Decode;
    use yrs::{ClientID, Doc, GetString, OffsetKind, Options, Text, Transact, Update, WriteTxn};

    fn apply(doc: &Doc, update: &[u8]) {
        let update = Update::decode_v1(update).expect("yrs reads what a script writes");
        doc.transact_mut().apply_update(update).expect("yrs applies what a script writes");
    }

    fn text(doc: &Doc) -> String {
        let mut txn = doc.transact_mut();
        let text = txn.get_or_insert_text(ROOT);
        text.get_string(&txn)
    }

    /// Edits in range of a text that is `len` long.
    fn legal(edits: &[(u32, u32, String)]) -> Trace {
        let mut len = 0;
        let legal = edits.iter().filter_map(|(at, deleted, inserted)| {
            let at = at % (len + 1);
            let deleted = (*deleted).min(len - at);
            len = len - deleted + inserted.chars().count() as u32;
            (deleted > 0 || !inserted.is_empty()).then(|| (at, deleted, inserted.clone()))
        });
        Trace::of(legal.collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn updates_are_byte_for_byte_what_the_library_writes(
            edits in prop::collection::vec((any::<u32>(), 0u32..4, "[a-zß]{0,3}"), 1..60),
            known in 0u32..40,
        ) {
            let trace = legal(&edits);
            prop_assume!(trace.patches().any(|(_, _, inserted)| !inserted.is_empty()));
            let script = Script::new(trace);
            let mut options = Options::with_client_id(ClientID::new(900));
            options.offset_kind = OffsetKind::Utf16;
            let judge = Doc::with_options(options);
            let written: Arc<Mutex<Vec<u8>>> = Arc::default();
            let seen = written.clone();
            judge
                .observe_update_v1("the test", move |_, event| {
                    seen.lock().expect("one thread").clone_from(&event.update);
                })
                .expect("observed");
            let (typed, patched) = (Doc::new(), Doc::new());
            let mut update = Vec::new();
            for nth in 0..script.len() {
                let (at, deleted, inserted) = script.trace.patches().nth(nth as usize).expect("an edit");
                let mut txn = judge.transact_mut();
                let root = txn.get_or_insert_text(ROOT);
                if deleted > 0 {
                    root.remove_range(&mut txn, at, deleted);
                }
                if !inserted.is_empty() {
                    root.insert(&mut txn, at, inserted);
                }
                drop(txn);
                script.write(900, nth, &mut update);
                prop_assert_eq!(&update, &*written.lock().expect("one thread"), "edit {}", nth);
                apply(&typed, &update);
                if script.clocks().before(nth + 1) <= known {
                    apply(&patched, &update);
                }
            }
            prop_assert_eq!(text(&typed), script.text_after(script.len()));
            let clocks = script.clocks();
            let from = (0..=script.len()).map(|nth| clocks.before(nth)).take_while(|at| *at <= known).last();
            script.missing(900, from.unwrap_or(0), script.len(), &mut update);
            apply(&patched, &update);
            prop_assert_eq!(text(&patched), text(&typed));
        }
    }

    #[test]
    fn a_long_trace_becomes_its_text() {
        let script = Script::new(Trace::generate(3_000, 2_100));
        let doc = Doc::new();
        let mut update = Vec::new();
        for nth in 0..script.len() {
            script.write(7, nth, &mut update);
            apply(&doc, &update);
        }
        assert_eq!(text(&doc), script.text_after(3_000));
        let joined = Doc::new();
        script.missing(7, 0, 3_000, &mut update);
        apply(&joined, &update);
        assert_eq!(text(&joined), text(&doc));
    }
}
