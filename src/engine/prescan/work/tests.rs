//! The shadow orders as yrs does, counts what yrs does, and lets pass whatever people may have done.

use proptest::prelude::*;
use yrs::updates::decoder::Decode;
use yrs::{
    Array, Doc, GetString, Map, ReadTxn, StateVector, Text, Transact, Update, XmlElementPrelim, XmlFragment,
    XmlTextPrelim,
};

use super::super::histories::{History, document, edits};
use super::super::{ScanLimits, scan};
use super::*;
use crate::engine::document::{Applied, ApplyError, Document};
use crate::protocol::lib0::{write_var_str, write_var_u64};

const MS: u64 = 1_000_000;
const LITTLE: Work = Work { compare_ns: MS, cut_ns: MS };

/// Applies an update as the engine does.
fn apply(document: &mut Document, update: &[u8]) -> Result<Applied, ApplyError> {
    let mut scanned = Scan::new();
    scan(update, &ScanLimits::default(), &mut scanned).unwrap();
    document.apply(update, &scanned, usize::MAX)
}

fn take(doc: &Doc, update: &[u8]) {
    doc.transact_mut().apply_update(Update::decode_v1(update).unwrap()).unwrap();
}

fn state(doc: &Doc) -> Vec<u8> {
    doc.transact().encode_state_as_update_v1(&StateVector::default())
}

/// Makes an edit, and yields its update.
fn edit(doc: &Doc, edit: impl FnOnce(&Doc)) -> Vec<u8> {
    let before = doc.transact().state_vector();
    edit(doc);
    doc.transact().encode_state_as_update_v1(&before)
}

/// What a document with `before` in it is made to do by `update`, as far as it is of interest.
fn work(before: &[&[u8]], update: &[u8]) -> Work {
    let mut shadow = Shadow::default();
    before.iter().for_each(|before| {
        shadow.integrate(before, &Work::MAX).unwrap();
    });
    shadow.integrate(update, &ScanLimits::default().work_max).unwrap()
}

/// One client's structs, from a clock on.
fn section(client: u64, clock: u64, structs: &[Vec<u8>]) -> Vec<u8> {
    let mut update = vec![1];
    write_var_u64(&mut update, structs.len() as u64);
    write_var_u64(&mut update, client);
    write_var_u64(&mut update, clock);
    update.extend(structs.concat());
    update.push(0);
    update
}

fn root(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 1, 1, b't'], content].concat()
}

/// A letter between two elements.
fn letter(origin: Option<(u64, u64)>, right: Option<(u64, u64)>) -> Vec<u8> {
    let flag = |neighbour: Option<_>, bit: u8| neighbour.map_or(0, |_| bit);
    let mut out = vec![4 | flag(origin, 0x80) | flag(right, 0x40)];
    for (client, clock) in [origin, right].into_iter().flatten() {
        write_var_u64(&mut out, client);
        write_var_u64(&mut out, clock);
    }
    out.extend([1, b'x']);
    out
}

fn long_text(letters: usize) -> Vec<u8> {
    let mut content = Vec::new();
    write_var_str(&mut content, &"a".repeat(letters));
    section(1, 0, &[root(4, &content)])
}

// --- what people did

/// Each of many writes without having heard of the others; everything arrives at once, and one by one.
fn all_at_once(people: u64, common: &[u8], write: impl Fn(&Doc)) {
    let updates = (2..people + 2)
        .map(|client| {
            let doc = document(client, false);
            take(&doc, common);
            edit(&doc, &write)
        })
        .collect::<Vec<_>>();
    let merged = yrs::merge_updates_v1(&updates).unwrap();
    for order in [vec![merged], updates.clone(), updates.into_iter().rev().collect()] {
        let mut at_once = Document::default();
        apply(&mut at_once, common).unwrap();
        for update in order {
            assert_eq!(apply(&mut at_once, &update), Ok(Applied::Changed));
        }
        // And all of it is what a newcomer may bring to a server that has nothing.
        assert_eq!(apply(&mut Document::default(), &at_once.encode()), Ok(Applied::Changed));
    }
}

fn insert_text(doc: &Doc) {
    let text = doc.get_or_insert_text("text");
    let mut transaction = doc.transact_mut();
    for _ in 0..3 {
        text.insert(&mut transaction, 0, "front");
    }
}

fn insert_array(doc: &Doc) {
    let array = doc.get_or_insert_array("array");
    for n in 0..3 {
        array.insert(&mut doc.transact_mut(), 0, n);
    }
}

fn insert_map(doc: &Doc) {
    let map = doc.get_or_insert_map("map");
    for n in 0..3 {
        map.insert(&mut doc.transact_mut(), "key", n);
    }
}

fn insert_xml(doc: &Doc) {
    let xml = doc.get_or_insert_xml_fragment("xml");
    let mut transaction = doc.transact_mut();
    let element = xml.insert(&mut transaction, 0, XmlElementPrelim::empty("p"));
    element.insert(&mut transaction, 0, XmlTextPrelim::new("text"));
    xml.insert(&mut transaction, 0, XmlElementPrelim::empty("hr"));
}

#[test]
fn a_thousand_people_write_at_the_front_of_what_is_empty() {
    for write in [insert_text, insert_array, insert_map, insert_xml] {
        all_at_once(1000, &[0, 0], write);
    }
}

#[test]
fn a_thousand_people_write_at_the_front_of_what_is_there() {
    let first = document(1, false);
    for write in [insert_text, insert_array, insert_map, insert_xml] {
        (0..300).for_each(|_| write(&first));
    }
    let common = state(&first);
    for write in [insert_text, insert_array, insert_map, insert_xml] {
        all_at_once(1000, &common, write);
    }
}

#[test]
fn one_writes_a_hundred_thousand_times_at_the_front() {
    let doc = document(1, false);
    let array = doc.get_or_insert_array("array");
    for n in 0..100_000 {
        array.insert(&mut doc.transact_mut(), 0, n);
    }
    let state = state(&doc);
    assert!(work(&[], &state).is_within(&LITTLE));
    assert_eq!(apply(&mut Document::default(), &state), Ok(Applied::Changed));
}

#[test]
fn who_was_offline_cut_a_long_text_in_thousands_of_places() {
    let doc = document(1, false);
    let text = doc.get_or_insert_text("text");
    text.insert(&mut doc.transact_mut(), 0, &"a long text ".repeat(10_000));
    let common = state(&doc);
    let offline = document(2, false);
    take(&offline, &common);
    let update = edit(&offline, |doc| {
        let text = doc.get_or_insert_text("text");
        for n in 0..2000u32 {
            let at = n.wrapping_mul(2_654_435_761) % 110_000;
            text.insert(&mut doc.transact_mut(), at, "x");
            text.remove_range(&mut doc.transact_mut(), at / 2, 3);
        }
    });
    let mut server = Document::default();
    apply(&mut server, &common).unwrap();
    assert_eq!(apply(&mut server, &update), Ok(Applied::Changed));
    // Whoever joins says all that was deleted, and cuts nothing.
    assert_eq!(apply(&mut server, &state(&offline)), Ok(Applied::Unchanged));
    assert!(work(&[&server.encode()], &state(&offline)).is_within(&LITTLE));
}

// --- what nobody did

/// Refused as what it is, and what comes after is taken as ever.
fn refused(before: &[&[u8]], update: &[u8]) {
    let mut document = Document::default();
    before.iter().for_each(|before| assert_eq!(apply(&mut document, before), Ok(Applied::Changed)));
    let contents = document.encode();
    assert!(!work(before, update).is_within(&ScanLimits::default().work_max));
    assert_eq!(apply(&mut document, update), Err(ApplyError::TooDear));
    assert_eq!(document.encode(), contents);
    let next = document.state().get(9);
    assert_eq!(
        apply(&mut document, &section(9, u64::from(next), &[root(4, &[1, b'y'])])),
        Ok(Applied::Changed)
    );
}

/// As many as a message of a megabyte may hold of them.
const MANY: u64 = 100_000;

#[test]
fn rivals_for_a_key_that_name_a_right_neighbour_are_refused() {
    let entry = [0x24, 1, 1, b't', 1, b'k', 1, b'x'].to_vec();
    let first = section(1, 0, std::slice::from_ref(&entry));
    let same = |client, from: u64| {
        section(client, from, &(from..MANY).map(|_| letter(None, Some((1, 0)))).collect::<Vec<_>>())
    };
    let each_the_last =
        section(1, 1, &(1..MANY).map(|clock| letter(None, Some((1, clock - 1)))).collect::<Vec<_>>());
    refused(&[&first], &same(1, 1));
    refused(&[&first], &same(2, 0));
    refused(&[&first], &each_the_last);
    let whole = std::iter::once(entry).chain((1..MANY).map(|clock| letter(None, Some((1, clock - 1)))));
    refused(&[], &section(1, 0, &whole.collect::<Vec<_>>()));
    // The same in a list is how one writes at its front.
    let text = section(1, 0, &[root(4, &[1, b'x'])]);
    assert!(work(&[&text], &each_the_last).is_within(&LITTLE));
}

#[test]
fn items_with_all_of_a_list_between_their_neighbours_are_refused() {
    // Every other letter is a right neighbour: each of these is compared with all that is left of it.
    let before = long_text(20_000);
    let apart = (0..20_000).step_by(2).map(|at| letter(None, Some((1, at + 1)))).collect::<Vec<_>>();
    refused(&[&before], &section(2, 0, &apart));
    let behind = (0..20_000).step_by(2).map(|at| letter(Some((1, 0)), Some((1, at + 1)))).collect::<Vec<_>>();
    refused(&[&before], &section(2, 0, &behind));
}

#[test]
fn deletions_and_references_that_cut_a_long_item_to_pieces_are_refused() {
    let nulls = 200_000;
    let mut content = Vec::new();
    write_var_u64(&mut content, nulls);
    content.resize(content.len() + nulls as usize, 126);
    let values = section(1, 0, &[root(8, &content)]);
    let mut deletes = vec![0, 1, 1];
    write_var_u64(&mut deletes, nulls / 2);
    for at in (0..nulls).step_by(2) {
        write_var_u64(&mut deletes, at);
        deletes.push(1);
    }
    refused(&[&values], &deletes);
    let references = (1..nulls - 1).step_by(4).map(|at| letter(Some((1, at)), Some((1, at + 1))));
    refused(&[&values], &section(2, 0, &references.collect::<Vec<_>>()));
}

#[test]
fn what_is_known_already_hides_nothing() {
    // The update seems to bring all that it refers to; but the document has that, and more in between.
    let before = long_text(20_000);
    let between = (1..19_000u64).map(|at| letter(Some((1, at - 1)), Some((1, at)))).collect::<Vec<_>>();
    let between = section(2, 0, &between);
    let mut again = vec![root(4, &{
        let mut content = Vec::new();
        write_var_str(&mut content, &"a".repeat(20_000));
        content
    })];
    again.extend((0..2000).map(|n| letter(Some((1, 0)), Some((1, 19_000 - 2 * n)))));
    refused(&[&before, &between], &section(1, 0, &again));
}

#[test]
fn a_name_written_in_another_way_is_the_same_name() {
    let limit = ScanLimits::default().rivals_max;
    let rivals = |length: &[u8]| {
        let mut update = Vec::new();
        write_var_u64(&mut update, u64::from(limit) + 1);
        for client in 1..=u64::from(limit) + 1 {
            update.push(1);
            write_var_u64(&mut update, client);
            // Of every second the name's length has a zero in front.
            let length = if client % 2 == 0 { length } else { &[1] };
            update.extend([&[0, 0x24, 1], length, &[b't', 1, b'k', 1, b'x']].concat());
        }
        update.push(0);
        scan(&update, &ScanLimits::default(), &mut Scan::new())
    };
    assert_eq!(rivals(&[1]), Err(ScanError::Rivals(limit)));
    assert_eq!(rivals(&[0x81, 0]), Err(ScanError::Rivals(limit)));
}

// --- as yrs does it

#[test]
fn what_was_collected_takes_with_it_what_refers_to_it() {
    let behind = [&[0x84, 1, 2][..], &[3, b'a', b'b', b'c']].concat();
    let collected = section(1, 0, &[vec![0, 3], behind]);
    let middle = [0, 1, 1, 1, 4, 1];
    let doc = document(0, true);
    take(&doc, &collected);
    take(&doc, &middle);
    let mut shadow = Shadow::default();
    shadow.integrate(&collected, &Work::MAX).unwrap();
    shadow.integrate(&middle, &Work::MAX).unwrap();
    assert_eq!((shadow.pieces(), shadow.clock(1)), (2, 6), "nothing is cut");
    assert_eq!(doc.transact().state_vector().get(&yrs::block::ClientID::new(1)), 6);
}

/// The elements of a root's list from left to right, without what is deleted.
fn elements(shadow: &Shadow<'_>, root: &str) -> Vec<Id> {
    let Some(&branch) = shadow.branches.get(&Parent::Root(root)) else { return Vec::new() };
    let Some(&list) = shadow.places.get(&(branch, None)) else { return Vec::new() };
    let mut elements = Vec::new();
    let mut at = shadow.lists[list as usize].end;
    while let Some(piece) = shadow.pieces.get(at as usize) {
        let clocks = (piece.id.clock..piece.end).filter(|_| !piece.deleted);
        elements.extend(clocks.map(|clock| Id { clock, ..piece.id }));
        at = piece.right;
    }
    elements
}

/// One step of a few people in one text and one map: who, what, where, how much.
type Step = (u8, u8, u16, u8);

/// Plays the steps; yields all updates in an order that respects their causes, the people, and who wrote which letter.
fn play(steps: &[Step]) -> (Vec<Vec<u8>>, Vec<Doc>, BTreeMap<Id, char>) {
    let people = (1..=4).map(|client| document(client, true)).collect::<Vec<_>>();
    let mut updates = Vec::new();
    let mut letters = BTreeMap::new();
    for &(who, what, place, count) in steps {
        let doc = &people[usize::from(who) % people.len()];
        let (text, map) = (doc.get_or_insert_text("text"), doc.get_or_insert_map("map"));
        let len = text.len(&doc.transact());
        // Near the front, where others are too.
        let at = u32::from(place) % (len.min(6) + 1);
        let client = doc.client_id().get();
        match what % 6 {
            0 => {
                let other = &people[usize::from(count) % people.len()];
                take(doc, &state(other));
            }
            1 => {
                let count = u32::from(count % 4).min(len - at);
                updates.push(edit(doc, |doc| text.remove_range(&mut doc.transact_mut(), at, count)));
            }
            2 => updates.push(edit(doc, |doc| {
                map.insert(&mut doc.transact_mut(), ["a", "b"][usize::from(place) % 2], i64::from(place));
            })),
            _ => {
                let clock = doc.transact().state_vector().get(&doc.client_id());
                let word = (0..=u32::from(count % 4))
                    .map(|n| {
                        let letter = char::from_u32(0x4e00 + letters.len() as u32).unwrap();
                        letters.insert(Id { client, clock: clock + n }, letter);
                        letter
                    })
                    .collect::<String>();
                updates.push(edit(doc, |doc| text.insert(&mut doc.transact_mut(), at, &word)));
            }
        }
    }
    (updates, people, letters)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_shadow_has_yrs_order(steps in proptest::collection::vec(any::<Step>(), 1..80)) {
        let (updates, people, letters) = play(&steps);
        let doc = document(0, true);
        let (text, map) = (doc.get_or_insert_text("text"), doc.get_or_insert_map("map"));
        updates.iter().for_each(|update| take(&doc, update));
        let merged = yrs::merge_updates_v1(&updates).unwrap();
        let states = people.iter().map(state).collect::<Vec<_>>();
        for history in [updates, vec![merged], states] {
            let mut shadow = Shadow::default();
            for update in &history {
                shadow.integrate(update, &Work::MAX).unwrap();
            }
            let order = elements(&shadow, "text").iter().map(|id| letters[id]).collect::<String>();
            prop_assert_eq!(order, text.get_string(&doc.transact()));
            let transaction = doc.transact();
            for key in ["a", "b"] {
                let list = shadow.branches.get(&Parent::Root("map"));
                let list = list.and_then(|&branch| shadow.places.get(&(branch, Some(key))));
                let live = list.is_some_and(|&list| {
                    let end = shadow.lists[list as usize].end;
                    !shadow.pieces[end as usize].deleted
                });
                prop_assert_eq!(live, map.get(&transaction, key).is_some());
            }
        }
    }

    /// What is let pass unseen is no more than the bound says.
    #[test]
    fn no_work_is_more_than_its_bound(edits in edits(60)) {
        let history = History::play(&edits, true);
        let wire = history.wire();
        for (at, update) in wire.iter().enumerate() {
            let before = history.peers[at % history.peers.len()].state();
            let mut shadow = Shadow::default();
            shadow.integrate(&before, &Work::MAX).unwrap();
            let (mut of_before, mut of_update) = (Scan::new(), Scan::new());
            scan(&before, &ScanLimits::default(), &mut of_before).unwrap();
            scan(update, &ScanLimits::default(), &mut of_update).unwrap();
            let clock = |client: u64| shadow.clock(client);
            if of_update.missing(clock).is_some() {
                continue;
            }
            let known = of_update.ranges().iter().any(|range| range.start < clock(range.client));
            let pieces = of_before.pieces() + of_update.pieces();
            let bytes = (before.len() + update.len()) as u64;
            let bound = of_update.work_bound(pieces, bytes, known, of_update.deletes().len() as u64);
            // Of gestures the bound says nothing; none of them is more than this.
            let compare_ns = bound.compare_ns + GESTURE * pieces * (COMPARE_NS + 2 * STEP_NS);
            let cut_ns = bound.cut_ns + 2 * GESTURE * (bytes * CUT_NS + pieces * MOVE_NS);
            let work = shadow.integrate(update, &Work::MAX).unwrap();
            prop_assert!(work.is_within(&Work { compare_ns, cut_ns }), "{work:?} of {bound:?}");
            prop_assert!(shadow.pieces() <= pieces);
        }
    }
}

/// Prints what the estimates say and what yrs takes; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn estimates_and_what_yrs_takes() {
    let text = long_text(60_000);
    let entry = section(1, 0, &[[0x24, 1, 1, b't', 1, b'k', 1, b'x'].to_vec()]);
    let nulls = {
        let mut content = Vec::new();
        write_var_u64(&mut content, 60_000);
        content.resize(content.len() + 60_000, 126);
        section(1, 0, &[root(8, &content)])
    };
    let letters = |count: u64, between: &dyn Fn(u64) -> (Option<(u64, u64)>, u64)| {
        let letter = |at| letter(between(at).0, Some((1, between(at).1)));
        section(2, 0, &(0..count).map(letter).collect::<Vec<_>>())
    };
    let mut deletes = vec![0, 1, 1];
    write_var_u64(&mut deletes, 10_000);
    for at in 0..10_000 {
        write_var_u64(&mut deletes, 2 * at);
        deletes.push(1);
    }
    for (what, before, update) in [
        ("rivals for a key", &entry, letters(8000, &|_| (None, 0))),
        ("letters from the front", &text, letters(3000, &|at| (None, 20 * at + 1))),
        ("letters from the first", &text, letters(3000, &|at| (Some((1, 0)), 20 * at + 1))),
        ("text cut from its front", &text, letters(5000, &|at| (Some((1, 10 * at)), 10 * at + 1))),
        (
            "text cut from its end",
            &text,
            letters(5000, &|at| (Some((1, 59_990 - 10 * at)), 59_991 - 10 * at)),
        ),
        ("values cut from their front", &nulls, letters(5000, &|at| (Some((1, 10 * at)), 10 * at + 1))),
        ("text with holes", &text, deletes.clone()),
        ("values with holes", &nulls, deletes.clone()),
    ] {
        let mut shadow = Shadow::default();
        shadow.integrate(before, &Work::MAX).unwrap();
        #[expect(clippy::disallowed_types, reason = "what is measured is time")]
        let began = std::time::Instant::now();
        let work = shadow.integrate(&update, &Work::MAX).unwrap();
        let shadowed = began.elapsed();
        let doc = document(0, true);
        take(&doc, before);
        #[expect(clippy::disallowed_types, reason = "what is measured is time")]
        let began = std::time::Instant::now();
        take(&doc, &update);
        let estimated = (work.compare_ns + work.cut_ns) / MS;
        println!("{what}: {:?}, {estimated} ms estimated; the shadow {shadowed:?}", began.elapsed());
    }
}
