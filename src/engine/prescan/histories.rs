//! Genuine updates, made with real yrs documents: the material of the tests.

use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;
use yrs::types::Attrs;
use yrs::undo::UndoManager;
use yrs::updates::decoder::Decode;
use yrs::{
    Any, Array, ArrayPrelim, Doc, Map, MapPrelim, Options, ReadTxn, StateVector, Text, TextPrelim, Transact,
    Update, Xml, XmlElementPrelim, XmlFragment, XmlTextPrelim,
};

/// One edit, its numbers taken modulo whatever there is to choose from.
pub(super) type Edit = (u8, u8, u16, u16);

pub(super) fn edits(most: usize) -> impl Strategy<Value = Vec<Edit>> {
    proptest::collection::vec((any::<u8>(), any::<u8>(), any::<u16>(), any::<u16>()), 1..most)
}

/// Two to three documents that edit apart and sync now and then.
pub(super) struct History {
    pub(super) peers: Vec<Peer>,
    /// Every update of every peer, in an order that respects their causes.
    pub(super) updates: Vec<Vec<u8>>,
}

pub(super) struct Peer {
    pub(super) doc: Doc,
    undo: UndoManager<()>,
    /// What the document emitted since it was last asked.
    emitted: Rc<RefCell<Vec<Vec<u8>>>>,
}

/// A document that counts as Yjs does. yrs' default, UTF-8 bytes, makes it subtract below zero when it deletes one
/// half of a surrogate pair that an insertion split: each half becomes three bytes, together more than the four.
pub(super) fn document(client: u64, skip_gc: bool) -> Doc {
    let mut options = Options::with_client_id(yrs::block::ClientID::new(client));
    options.skip_gc = skip_gc;
    options.offset_kind = yrs::OffsetKind::Utf16;
    Doc::with_options(options)
}

const CLIENTS: [u64; 3] = [1, 70_000, (1 << 53) - 2];

impl Peer {
    fn new(client: u64, skip_gc: bool) -> Self {
        let doc = document(client, skip_gc);
        let mut undo = UndoManager::new();
        undo.expand_scope(&doc, &doc.get_or_insert_text("text"));
        undo.expand_scope(&doc, &doc.get_or_insert_map("map"));
        let emitted = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&emitted);
        doc.observe_update_v1("log", move |_, event| sink.borrow_mut().push(event.update.clone())).unwrap();
        Self { doc, undo, emitted }
    }

    pub(super) fn apply(&self, update: &[u8]) {
        self.doc.transact_mut().apply_update(Update::decode_v1(update).unwrap()).unwrap();
        self.emitted.borrow_mut().clear();
    }

    fn take_emitted(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.emitted.borrow_mut())
    }

    fn edit(&mut self, (_, kind, a, b): Edit) {
        match kind % 16 {
            0..=4 => self.edit_text(kind % 16, a, b),
            5..=8 => self.edit_map(kind % 16, a, b),
            9..=11 => self.edit_array(kind % 16, a, b),
            12..=14 => self.edit_xml(kind % 16, a, b),
            _ if a % 3 == 0 => drop(self.undo.redo_blocking()),
            _ => drop(self.undo.undo_blocking()),
        }
    }

    fn edit_text(&self, kind: u8, a: u16, b: u16) {
        let text = self.doc.get_or_insert_text("text");
        let mut txn = self.doc.transact_mut();
        let len = text.len(&txn);
        let at = u32::from(a) % (len + 1);
        let count = (u32::from(b) % 5).min(len - at);
        let word = ["a", "hello ", "é", "😀", "日本", "\n"][usize::from(b) % 6];
        match kind {
            0 | 1 => text.insert(&mut txn, at, word),
            2 => text.remove_range(&mut txn, at, count),
            3 => text.format(&mut txn, at, count, Attrs::from([("b".into(), value(b, 0))])),
            _ => drop(text.insert_embed(&mut txn, at, value(b, 0))),
        }
    }

    fn edit_map(&self, kind: u8, a: u16, b: u16) {
        let map = self.doc.get_or_insert_map("map");
        let mut txn = self.doc.transact_mut();
        let key = ["k", "key", "", "ключ"][usize::from(a) % 4];
        match (kind, b % 5) {
            (5 | 6, _) => drop(map.insert(&mut txn, key, value(b, 3))),
            (7, _) => drop(map.remove(&mut txn, key)),
            (_, 0) => drop(map.insert(&mut txn, key, MapPrelim::from([("inner", value(a, 1))]))),
            (_, 1) => drop(map.insert(&mut txn, key, TextPrelim::new("nested"))),
            (_, 2) => drop(map.insert(&mut txn, key, Doc::new())),
            (_, 3) => drop(map.insert(&mut txn, key, ArrayPrelim::from([value(a, 2), value(b, 0)]))),
            _ => {
                if let Some(yrs::Out::YMap(inner)) = map.get(&txn, key) {
                    inner.insert(&mut txn, "deep", MapPrelim::default());
                }
            }
        }
    }

    fn edit_array(&self, kind: u8, a: u16, b: u16) {
        let array = self.doc.get_or_insert_array("array");
        let mut txn = self.doc.transact_mut();
        let len = array.len(&txn);
        let at = u32::from(a) % (len + 1);
        match kind {
            9 => array.insert_range(&mut txn, at, [value(a, 0), value(b, 2), value(a ^ b, 1)]),
            10 => array.remove_range(&mut txn, at, (u32::from(b) % 4).min(len - at)),
            _ => drop(array.insert(&mut txn, at, ArrayPrelim::from([value(b, 1)]))),
        }
    }

    fn edit_xml(&self, kind: u8, a: u16, b: u16) {
        let xml = self.doc.get_or_insert_xml_fragment("xml");
        let mut txn = self.doc.transact_mut();
        let len = xml.len(&txn);
        let at = u32::from(a) % (len + 1);
        match kind {
            12 => drop(xml.insert(&mut txn, at, XmlElementPrelim::empty("p"))),
            13 => xml.remove_range(&mut txn, at, (u32::from(b) % 3).min(len - at)),
            _ => match xml.get(&txn, at) {
                Some(yrs::XmlOut::Element(element)) if b.is_multiple_of(2) => {
                    element.insert_attribute(&mut txn, "class", "x");
                }
                Some(yrs::XmlOut::Element(element)) => {
                    _ = element.push_back(&mut txn, XmlTextPrelim::new("t"))
                }
                _ => drop(xml.insert(&mut txn, at, XmlTextPrelim::new("text"))),
            },
        }
    }
}

/// A value of any kind, arrays and maps up to `depth` deep.
fn value(seed: u16, depth: u8) -> Any {
    let inner = || value(seed.rotate_left(5) ^ 0x5a5a, depth.saturating_sub(1));
    match seed % 12 {
        0 => Any::Null,
        1 => Any::Bool(seed % 8 < 4),
        2 => Any::from(i64::from(seed) - 30_000),
        3 => Any::from(f64::from(seed) / 3.0),
        4 => Any::from(i64::MIN + i64::from(seed)),
        5 => Any::from(9_007_199_254_740_991.0),
        6 => Any::from("текст"),
        7 | 8 if depth > 0 => Any::from(vec![inner(), Any::Null, inner()]),
        9 | 10 if depth > 0 => Any::Map(std::sync::Arc::new([("k".to_owned(), inner())].into())),
        11 if depth > 0 => Any::from(vec![1u8, 2, seed as u8]),
        _ => Any::from("s"),
    }
}

impl History {
    pub(super) fn play(edits: &[Edit], skip_gc: bool) -> Self {
        let mut peers = CLIENTS.map(|client| Peer::new(client, skip_gc)).into_iter().collect::<Vec<_>>();
        let mut updates = Vec::new();
        for &edit in edits {
            let at = usize::from(edit.0) % peers.len();
            if edit.0 < 30 {
                let other = usize::from(edit.1) % peers.len();
                let update = peers[at].diff_for(&peers[other]);
                peers[other].apply(&update);
            } else {
                peers[at].edit(edit);
                updates.extend(peers[at].take_emitted());
            }
        }
        Self { peers, updates }
    }

    /// All that travels: what peers emitted, their whole states, diffs, and updates merged by yrs.
    pub(super) fn wire(&self) -> Vec<Vec<u8>> {
        let mut wire = self.updates.clone();
        for peer in &self.peers {
            wire.push(peer.state());
            wire.extend(self.peers.iter().map(|other| peer.diff_for(other)));
        }
        if !self.updates.is_empty() {
            wire.push(yrs::merge_updates_v1(&self.updates).unwrap());
            let every_second = self.updates.iter().step_by(2).collect::<Vec<_>>();
            wire.push(yrs::merge_updates_v1(every_second).unwrap());
        }
        wire
    }
}

impl Peer {
    pub(super) fn state(&self) -> Vec<u8> {
        self.doc.transact().encode_state_as_update_v1(&StateVector::default())
    }

    fn diff_for(&self, other: &Self) -> Vec<u8> {
        let known = other.doc.transact().state_vector();
        self.doc.transact().encode_state_as_update_v1(&known)
    }
}

pub(super) fn next_clock(doc: &Doc) -> impl Fn(u64) -> u32 + use<> {
    let state = doc.transact().state_vector();
    move |client| state.get(&yrs::block::ClientID::new(client))
}
