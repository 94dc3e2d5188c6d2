//! Someone typing: one edit per update, encoded by hand.
//!
//! A typist owns one Yjs client id and edits only between its own characters, so it knows the
//! neighbours of every insertion without holding the document: exactly what a real client would
//! have written, at the price of a few stores. It remembers where each character went (only if that
//! can't be computed), so that a server which asks for missing items gets them.

use super::pattern::{Edit, Pattern};
use super::script::Script;
use super::{CONTENT_FORMAT, CONTENT_STRING, HAS_ORIGIN, HAS_RIGHT_ORIGIN, ROOT};
use crate::lib0::{write_var_bytes, write_varuint};
use crate::schedule::Clocks;
use std::rc::Rc;

/// Where a typist puts its next character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Positions {
    /// Behind the previous one: what typing a sentence makes.
    Append,
    /// Behind any earlier one of its own, chosen evenly.
    Random,
}

/// What a typist's updates are.
#[derive(Debug, Clone)]
pub enum Payload {
    /// One character each.
    Characters,
    /// Characters, pastes, formatting; the last only where everything is appended.
    Pattern(Rc<Pattern>),
    /// The edits of a trace, wherever they are.
    Script(Rc<Script>),
}

impl Payload {
    pub fn clocks(&self) -> Clocks {
        match self {
            Self::Characters => Clocks::One,
            Self::Pattern(pattern) => pattern.clocks(),
            Self::Script(script) => script.clocks(),
        }
    }
}

/// No neighbour.
const NONE: u32 = u32::MAX;
const FORMAT_KEY: &[u8] = b"bold";

#[derive(Debug, Clone, Copy)]
struct Place {
    origin: u32,
    right_origin: u32,
}

/// One item as it is written.
#[derive(Debug, Clone, Copy)]
enum Item {
    Text { clock: u32, len: u32, place: Place },
    Format { value: &'static [u8], place: Place },
}

#[derive(Debug)]
pub struct Typist {
    client: u64,
    payload: Payload,
    updates: u32,
    next_clock: u32,
    plain_from: u32, // the clock behind the last format
    positions: Positions,
    places: Vec<Place>, // by clock; empty when appending
    right_of: Vec<u32>, // by clock: the character now to the right of it
    random: u64,
}

impl Typist {
    /// `client` seeds the positions: the same typist types the same text every time.
    pub fn new(client: u64, positions: Positions, payload: Payload) -> Self {
        Self {
            client,
            payload,
            updates: 0,
            next_clock: 0,
            plain_from: 0,
            positions,
            places: Vec::new(),
            right_of: Vec::new(),
            random: client.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    pub fn client(&self) -> u64 {
        self.client
    }

    /// The clock of the next item.
    pub fn next_clock(&self) -> u32 {
        self.next_clock
    }

    /// Types what comes next: replaces `update` by the update that does it.
    #[inline]
    pub fn type_next(&mut self, update: &mut Vec<u8>) {
        if let Payload::Characters = self.payload {
            self.updates += 1;
            self.insert(1, update);
        } else {
            self.type_rarer(update);
        }
    }

    fn type_rarer(&mut self, update: &mut Vec<u8>) {
        let nth = self.updates;
        self.updates += 1;
        let edit = match &self.payload {
            Payload::Characters => Edit::Insert(1),
            Payload::Pattern(pattern) => pattern.edit(nth),
            Payload::Script(script) => {
                script.write(self.client, nth, update);
                self.next_clock = script.clocks_before(nth + 1);
                return;
            }
        };
        match edit {
            Edit::Insert(len) => self.insert(len, update),
            Edit::Format => self.format(update),
        }
    }

    /// Inserts `len` characters behind one another.
    #[inline]
    pub fn insert(&mut self, len: u32, update: &mut Vec<u8>) {
        let clock = self.next_clock;
        let place = self.choose_place(clock, len);
        self.next_clock += len;
        self.start_update(update, 1, clock);
        self.write_item(update, Item::Text { clock, len, place });
        update.push(0); // nothing deleted
    }

    /// Makes bold what was appended since the last format, but for the last character: what follows
    /// is plain again.
    pub fn format(&mut self, update: &mut Vec<u8>) {
        let clock = self.next_clock;
        let formats = formats(self.plain_from, clock);
        self.next_clock += 2;
        self.plain_from = self.next_clock;
        self.start_update(update, 2, clock);
        formats.into_iter().for_each(|item| self.write_item(update, item));
        update.push(0);
    }

    #[inline]
    fn start_update(&self, update: &mut Vec<u8>, structs: u32, clock: u32) {
        update.clear();
        update.push(1); // one client
        write_varuint(update, u64::from(structs));
        write_varuint(update, self.client);
        write_varuint(update, u64::from(clock));
    }

    /// The update that brings someone who lacks this typist's clocks from `from` on up to date.
    pub fn missing(&self, from: u32, update: &mut Vec<u8>) {
        if let Payload::Script(script) = &self.payload {
            script.missing(self.client, from, self.updates, update);
            return;
        }
        if from >= self.next_clock {
            update.clear();
            update.extend_from_slice(&super::EMPTY);
            return;
        }
        let items = self.items_from(from);
        self.start_update(update, items.len() as u32, from);
        items.into_iter().for_each(|item| self.write_item(update, item));
        update.push(0);
    }

    fn items_from(&self, from: u32) -> Vec<Item> {
        let mut items = Vec::new();
        let (mut clock, mut plain_from) = (0, 0);
        let mut run_from = None; // of appended text not yet in `items`
        for nth in 0..self.updates {
            let edit = match &self.payload {
                Payload::Pattern(pattern) => pattern.edit(nth),
                _ => Edit::Insert(1),
            };
            let end = clock + edit.clocks();
            let wanted = end > from;
            match edit {
                Edit::Insert(_) if wanted && self.positions == Positions::Append => {
                    run_from.get_or_insert(clock.max(from));
                }
                Edit::Insert(_) if wanted => {
                    let clock = clock.max(from);
                    items.push(Item::Text { clock, len: end - clock, place: self.places[clock as usize] });
                }
                Edit::Insert(_) => {}
                Edit::Format => {
                    items.extend(run_from.take().map(|run| run_of_text(run, clock, plain_from)));
                    let known = from.saturating_sub(clock) as usize;
                    items.extend(formats(plain_from, clock).into_iter().skip(known));
                    plain_from = end;
                }
            }
            clock = end;
        }
        items.extend(run_from.map(|run| run_of_text(run, clock, plain_from)));
        items
    }

    #[inline]
    fn choose_place(&mut self, clock: u32, len: u32) -> Place {
        if self.positions == Positions::Append {
            return appended(clock, self.plain_from);
        }
        let place = if clock == 0 {
            Place { origin: NONE, right_origin: NONE }
        } else {
            let origin = (self.next_random() % u64::from(clock)) as u32;
            Place { origin, right_origin: self.right_of[origin as usize] }
        };
        if place.origin != NONE {
            self.right_of[place.origin as usize] = clock;
        }
        for clock in clock + 1..clock + len {
            self.right_of.push(clock);
        }
        self.right_of.push(place.right_origin);
        self.places.push(place);
        for clock in clock + 1..clock + len {
            self.places.push(Place { origin: clock - 1, right_origin: place.right_origin });
        }
        place
    }

    #[inline]
    fn write_item(&self, update: &mut Vec<u8>, item: Item) {
        let (kind, place) = match item {
            Item::Text { place, .. } => (CONTENT_STRING, place),
            Item::Format { place, .. } => (CONTENT_FORMAT, place),
        };
        let mut info = kind;
        if place.origin != NONE {
            info |= HAS_ORIGIN;
        }
        if place.right_origin != NONE {
            info |= HAS_RIGHT_ORIGIN;
        }
        update.push(info);
        for neighbour in [place.origin, place.right_origin] {
            if neighbour != NONE {
                write_varuint(update, self.client);
                write_varuint(update, u64::from(neighbour));
            }
        }
        if place.origin == NONE && place.right_origin == NONE {
            update.push(1); // the parent is a root type, by name
            write_var_bytes(update, ROOT.as_bytes());
        }
        match item {
            Item::Text { clock, len, .. } => {
                write_varuint(update, u64::from(len));
                update.extend((clock..clock + len).map(|clock| b'a' + (clock % 26) as u8));
            }
            Item::Format { value, .. } => {
                write_var_bytes(update, FORMAT_KEY);
                write_var_bytes(update, value);
            }
        }
    }

    /// xorshift64*: the quality of the dice doesn't matter, their price does.
    #[inline]
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }
}

/// Where an appended character goes, if the last format ended before clock `plain_from`.
#[inline]
fn appended(clock: u32, plain_from: u32) -> Place {
    let left = if clock == plain_from && clock > 0 {
        last_plain(plain_from)
    } else {
        clock.wrapping_sub(1) // the first has no neighbour: NONE
    };
    Place { origin: left, right_origin: NONE }
}

/// The last character before a format that ended before clock `plain_from`: its two items come between.
#[inline]
fn last_plain(plain_from: u32) -> u32 {
    plain_from.wrapping_sub(3)
}

fn run_of_text(from: u32, end: u32, plain_from: u32) -> Item {
    Item::Text { clock: from, len: end - from, place: appended(from, plain_from) }
}

/// The start and the end of a format around the characters `plain_from .. clock - 1`.
fn formats(plain_from: u32, clock: u32) -> [Item; 2] {
    let left = if plain_from == 0 { NONE } else { last_plain(plain_from) };
    [
        Item::Format { value: b"true", place: Place { origin: left, right_origin: plain_from } },
        Item::Format { value: b"null", place: Place { origin: clock - 2, right_origin: clock - 1 } },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::pattern::Mix;
    use crate::update::scan::{ClockRange, scan};
    use yrs::updates::decoder::Decode;
    use yrs::updates::encoder::Encode;
    use yrs::{Doc, GetString, ReadTxn, StateVector, Transact, Update, WriteTxn};

    fn apply(doc: &Doc, update: &[u8]) {
        let update = Update::decode_v1(update).expect("yrs reads what a typist writes");
        doc.transact_mut().apply_update(update).expect("yrs applies what a typist writes");
    }

    fn text(doc: &Doc) -> String {
        let mut txn = doc.transact_mut();
        let text = txn.get_or_insert_text(ROOT);
        text.get_string(&txn)
    }

    #[test]
    fn appended_characters_read_in_the_order_typed() {
        let doc = Doc::new();
        let mut typist = Typist::new(0x4123_4567, Positions::Append, Payload::Characters);
        let mut update = Vec::new();
        for _ in 0..30 {
            typist.type_next(&mut update);
            apply(&doc, &update);
        }
        assert_eq!(text(&doc), "abcdefghijklmnopqrstuvwxyzabcd");
    }

    #[test]
    fn updates_are_byte_for_byte_what_the_library_writes() {
        let mut typist = Typist::new(77, Positions::Append, Payload::Characters);
        let doc = Doc::with_client_id(77);
        let mut update = Vec::new();
        for letter in ["a", "b", "c"] {
            typist.type_next(&mut update);
            let before = doc.transact().state_vector();
            let mut txn = doc.transact_mut();
            let root = txn.get_or_insert_text(ROOT);
            yrs::Text::push(&root, &mut txn, letter);
            drop(txn);
            assert_eq!(update, doc.transact().encode_diff_v1(&before));
        }
    }

    #[test]
    fn random_positions_are_the_ones_a_real_document_would_choose() {
        let typed = Doc::new();
        let edited = Doc::with_client_id(900);
        let mut typist = Typist::new(900, Positions::Random, Payload::Characters);
        let mut order: Vec<u32> = Vec::new();
        let mut update = Vec::new();
        for clock in 0..400u32 {
            typist.type_next(&mut update);
            apply(&typed, &update);
            // The judge inserts the same letter at the same index, and must write the same bytes.
            let origin = typist.places[clock as usize].origin;
            let index = order.iter().position(|&other| other == origin).map_or(0, |at| at + 1);
            order.insert(index, clock);
            let before = edited.transact().state_vector();
            let mut txn = edited.transact_mut();
            let root = txn.get_or_insert_text(ROOT);
            let letter = char::from(b'a' + (clock % 26) as u8).to_string();
            yrs::Text::insert(&root, &mut txn, index as u32, &letter);
            drop(txn);
            assert_eq!(update, edited.transact().encode_diff_v1(&before), "clock {clock}");
        }
        assert_eq!(text(&typed), text(&edited));
    }

    #[test]
    fn several_typists_converge_whatever_the_order_of_arrival() {
        let (here, there) = (Doc::new(), Doc::new());
        let mut updates = Vec::new();
        for client in [3, 2, 9] {
            let mut typist = Typist::new(client, Positions::Random, Payload::Characters);
            for _ in 0..50 {
                let mut update = Vec::new();
                typist.type_next(&mut update);
                updates.push(update);
            }
        }
        updates.iter().for_each(|update| apply(&here, update));
        for client in (0..3).rev() {
            updates[client * 50..(client + 1) * 50].iter().for_each(|update| apply(&there, update));
        }
        assert_eq!(text(&here).len(), 150);
        assert_eq!(text(&here), text(&there));
        assert_eq!(
            here.transact().state_vector().encode_v1().len(),
            there.transact().state_vector().encode_v1().len()
        );
    }

    #[test]
    fn what_is_missing_is_exactly_what_was_typed_since() {
        for positions in [Positions::Append, Positions::Random] {
            let (whole, patched) = (Doc::new(), Doc::new());
            let mut typist = Typist::new(5, positions, Payload::Characters);
            let mut update = Vec::new();
            for clock in 0..40 {
                typist.type_next(&mut update);
                apply(&whole, &update);
                if clock < 15 {
                    apply(&patched, &update);
                }
            }
            typist.missing(15, &mut update);
            let mut ranges: Vec<ClockRange> = Vec::new();
            scan(&update, |range| ranges.push(range)).expect("legal");
            assert_eq!(ranges[0].clock, 15);
            assert_eq!(ranges.iter().map(|range| range.len).sum::<u32>(), 25);
            apply(&patched, &update);
            assert_eq!(text(&patched), text(&whole));
            typist.missing(40, &mut update);
            assert_eq!(update, crate::update::EMPTY);
            assert_eq!(patched.transact().state_vector(), whole.transact().state_vector());
        }
    }

    fn mixed(formatting: u32) -> Payload {
        let mix = Mix { characters: 9, pastes: 2, paste_length: 12, formatting };
        Payload::Pattern(Rc::new(Pattern::new(&mix).expect("enough text between formats")))
    }

    #[test]
    fn pastes_and_formatting_are_byte_for_byte_what_the_library_writes() {
        let Payload::Pattern(pattern) = mixed(2) else { panic!("a pattern") };
        let mut typist = Typist::new(900, Positions::Append, Payload::Pattern(pattern.clone()));
        let doc = Doc::with_client_id(900);
        let (mut update, mut len, mut formatted) = (Vec::new(), 0u32, 0u32);
        for nth in 0..200 {
            let clock = typist.next_clock();
            typist.type_next(&mut update);
            let before = doc.transact().state_vector();
            let mut txn = doc.transact_mut();
            let root = txn.get_or_insert_text(ROOT);
            match pattern.edit(nth) {
                Edit::Insert(count) => {
                    let text: String =
                        (clock..clock + count).map(|clock| char::from(b'a' + (clock % 26) as u8)).collect();
                    yrs::Text::push(&root, &mut txn, &text);
                    len += count;
                }
                Edit::Format => {
                    let bold = [("bold".into(), yrs::Any::from(true))].into();
                    yrs::Text::format(&root, &mut txn, formatted, len - 1 - formatted, bold);
                    formatted = len;
                }
            }
            drop(txn);
            assert_eq!(update, doc.transact().encode_diff_v1(&before), "update {nth}");
        }
        assert!(formatted > 400);
    }

    #[test]
    fn whatever_of_a_mix_is_missing_is_handed_over() {
        for (positions, formatting) in [(Positions::Append, 2), (Positions::Random, 0)] {
            let mut typist = Typist::new(900, positions, mixed(formatting));
            let mut updates = vec![Vec::new(); 40];
            updates.iter_mut().for_each(|update| typist.type_next(update));
            let whole = Doc::new();
            updates.iter().for_each(|update| apply(&whole, update));
            let state_of = |doc: &Doc| doc.transact().encode_state_as_update_v1(&StateVector::default());
            for from in 0..=typist.next_clock() {
                // Someone who has exactly the clocks before `from`, also in the middle of a paste.
                let patched = Doc::new();
                let mut held = Vec::new();
                let mut upto = Typist::new(900, positions, mixed(formatting));
                while upto.next_clock() < from {
                    upto.type_next(&mut held);
                    apply(&patched, &held);
                }
                typist.missing(from, &mut held);
                let mut clocks = from;
                scan(&held, |range| {
                    assert_eq!(range.clock, clocks);
                    clocks += range.len;
                })
                .expect("legal");
                assert_eq!(clocks, typist.next_clock());
                apply(&patched, &held);
                assert_eq!(text(&patched), text(&whole), "from {from}");
                assert_eq!(state_of(&patched), state_of(&whole), "from {from}");
            }
        }
    }

    #[test]
    fn what_is_pasted_at_random_is_where_a_real_document_would_put_it() {
        let (typed, edited) = (Doc::new(), Doc::with_client_id(900));
        let mut typist = Typist::new(900, Positions::Random, mixed(0));
        let mut order: Vec<u32> = Vec::new();
        let mut update = Vec::new();
        for nth in 0..200 {
            let clock = typist.next_clock();
            typist.type_next(&mut update);
            apply(&typed, &update);
            let origin = typist.places[clock as usize].origin;
            let index = order.iter().position(|&other| other == origin).map_or(0, |at| at + 1);
            let inserted = clock..typist.next_clock();
            order.splice(index..index, inserted.clone());
            let before = edited.transact().state_vector();
            let mut txn = edited.transact_mut();
            let root = txn.get_or_insert_text(ROOT);
            let letters: String = inserted.map(|clock| char::from(b'a' + (clock % 26) as u8)).collect();
            yrs::Text::insert(&root, &mut txn, index as u32, &letters);
            drop(txn);
            assert_eq!(update, edited.transact().encode_diff_v1(&before), "update {nth}");
        }
        assert_eq!(text(&typed), text(&edited));
    }
}
