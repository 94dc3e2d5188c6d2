//! Someone typing: one new character per update, encoded by hand.
//!
//! A typist owns one Yjs client id and edits only between its own characters, so it knows the
//! neighbours of every insertion without holding the document: exactly what a real client would
//! have written, at the price of a few stores. It remembers where each character went (only if that
//! can't be computed), so that a server which asks for missing items gets them.

use super::{CONTENT_STRING, HAS_ORIGIN, HAS_RIGHT_ORIGIN, ROOT};
use crate::lib0::{write_var_bytes, write_varuint};

/// Where a typist puts its next character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Positions {
    /// Behind the previous one: what typing a sentence makes.
    Append,
    /// Behind any earlier one of its own, chosen evenly.
    Random,
}

/// No neighbour.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Place {
    origin: u32,
    right_origin: u32,
}

#[derive(Debug)]
pub struct Typist {
    client: u64,
    next_clock: u32,
    positions: Positions,
    places: Vec<Place>, // by clock; empty when appending
    right_of: Vec<u32>, // by clock: the character now to the right of it
    random: u64,
}

impl Typist {
    /// `client` seeds the positions: the same typist types the same text every time.
    pub fn new(client: u64, positions: Positions) -> Self {
        Self {
            client,
            next_clock: 0,
            positions,
            places: Vec::new(),
            right_of: Vec::new(),
            random: client.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    pub fn client(&self) -> u64 {
        self.client
    }

    /// How many characters were typed; the clock of the next one.
    pub fn next_clock(&self) -> u32 {
        self.next_clock
    }

    /// Types one character: replaces `update` by the update that inserts it.
    #[inline]
    pub fn type_one(&mut self, update: &mut Vec<u8>) {
        let clock = self.next_clock;
        let place = self.choose_place(clock);
        self.next_clock += 1;
        update.clear();
        update.extend_from_slice(&[1, 1]); // one client, one struct
        write_varuint(update, self.client);
        write_varuint(update, u64::from(clock));
        self.write_item(update, place, clock, 1);
        update.push(0); // nothing deleted
    }

    /// The update that brings someone who lacks this typist's clocks from `from` on up to date.
    pub fn missing(&self, from: u32, update: &mut Vec<u8>) {
        update.clear();
        let len = self.next_clock.saturating_sub(from);
        if len == 0 {
            update.extend_from_slice(&super::EMPTY);
            return;
        }
        write_varuint(update, 1);
        let structs = if self.positions == Positions::Append { 1 } else { len };
        write_varuint(update, u64::from(structs));
        write_varuint(update, self.client);
        write_varuint(update, u64::from(from));
        if self.positions == Positions::Append {
            self.write_item(update, appended(from), from, len);
        } else {
            for clock in from..self.next_clock {
                self.write_item(update, self.places[clock as usize], clock, 1);
            }
        }
        update.push(0);
    }

    #[inline]
    fn choose_place(&mut self, clock: u32) -> Place {
        if self.positions == Positions::Append {
            return appended(clock);
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
        self.right_of.push(place.right_origin);
        self.places.push(place);
        place
    }

    #[inline]
    fn write_item(&self, update: &mut Vec<u8>, place: Place, clock: u32, len: u32) {
        let mut info = CONTENT_STRING;
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
        write_varuint(update, u64::from(len));
        update.extend((clock..clock + len).map(|clock| b'a' + (clock % 26) as u8));
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

#[inline]
fn appended(clock: u32) -> Place {
    Place { origin: clock.wrapping_sub(1), right_origin: NONE } // the first has no neighbour: NONE
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let mut typist = Typist::new(0x4123_4567, Positions::Append);
        let mut update = Vec::new();
        for _ in 0..30 {
            typist.type_one(&mut update);
            apply(&doc, &update);
        }
        assert_eq!(text(&doc), "abcdefghijklmnopqrstuvwxyzabcd");
    }

    #[test]
    fn updates_are_byte_for_byte_what_the_library_writes() {
        let mut typist = Typist::new(77, Positions::Append);
        let doc = Doc::with_client_id(77);
        let mut update = Vec::new();
        for letter in ["a", "b", "c"] {
            typist.type_one(&mut update);
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
        let mut typist = Typist::new(900, Positions::Random);
        let mut order: Vec<u32> = Vec::new();
        let mut update = Vec::new();
        for clock in 0..400u32 {
            typist.type_one(&mut update);
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
            let mut typist = Typist::new(client, Positions::Random);
            for _ in 0..50 {
                let mut update = Vec::new();
                typist.type_one(&mut update);
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
            let mut typist = Typist::new(5, positions);
            let mut update = Vec::new();
            for clock in 0..40 {
                typist.type_one(&mut update);
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
            let _ = StateVector::default();
        }
    }
}
