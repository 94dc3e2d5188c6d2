use std::collections::BTreeSet;

use proptest::prelude::*;
use yrs::updates::decoder::Decode;
use yrs::{Doc, Map, MapPrelim, ReadTxn, Text, Transact, Update};

use super::histories::{History, document, edits, next_clock};
use super::*;
use crate::engine::state_vector::StateVector;
use crate::protocol::lib0::{write_var_bytes, write_var_str, write_var_u64};

fn scanned(update: &[u8]) -> Result<Scan, ScanError> {
    let mut out = Scan::new();
    scan(update, &ScanLimits::default(), &mut out).map(|()| out)
}

/// Writes updates struct by struct, right or wrong.
#[derive(Default, Clone)]
struct Draft {
    clients: Vec<(u64, u32, Vec<Vec<u8>>)>,
    deletes: Vec<(u64, Vec<(u64, u64)>)>,
}

impl Draft {
    fn client(mut self, client: u64, clock: u32, structs: Vec<Vec<u8>>) -> Self {
        self.clients.push((client, clock, structs));
        self
    }

    fn delete(mut self, client: u64, start: u64, len: u64) -> Self {
        self.deletes.push((client, vec![(start, len)]));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_var_u64(&mut out, self.clients.len() as u64);
        for (client, clock, structs) in &self.clients {
            write_var_u64(&mut out, structs.len() as u64);
            write_var_u64(&mut out, *client);
            write_var_u64(&mut out, u64::from(*clock));
            out.extend(structs.concat());
        }
        write_var_u64(&mut out, self.deletes.len() as u64);
        for (client, ranges) in &self.deletes {
            write_var_u64(&mut out, *client);
            write_var_u64(&mut out, ranges.len() as u64);
            for (start, len) in ranges {
                write_var_u64(&mut out, *start);
                write_var_u64(&mut out, *len);
            }
        }
        out
    }

    fn scan(&self) -> Result<Scan, ScanError> {
        scanned(&self.bytes())
    }
}

fn draft() -> Draft {
    Draft::default()
}

/// An item in the type `t` of the document.
fn item(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 1, 1, b't'], content].concat()
}

fn text(text: &str) -> Vec<u8> {
    let mut content = Vec::new();
    write_var_str(&mut content, text);
    item(4, &content)
}

/// A letter right of another element.
fn text_after(client: u64, clock: u64) -> Vec<u8> {
    let mut out = vec![0x84];
    write_var_u64(&mut out, client);
    write_var_u64(&mut out, clock);
    write_var_str(&mut out, "x");
    out
}

/// An array inside another item's type.
fn array_in(client: u64, clock: u64) -> Vec<u8> {
    let mut out = vec![7, 0];
    write_var_u64(&mut out, client);
    write_var_u64(&mut out, clock);
    out.push(0);
    out
}

fn range(client: u64, start: u32, end: u32) -> ClockRange {
    ClockRange { client, start, end }
}

fn id(client: u64, clock: u32) -> Id {
    Id { client, clock }
}

/// The same as yrs decodes it: ranges of structs and deletes.
fn decoded(update: &[u8]) -> (Vec<ClockRange>, BTreeSet<ClockRange>) {
    let update = Update::decode_v1(update).unwrap();
    let list = |set: &yrs::IdSet| {
        let mut list = Vec::new();
        for (client, ranges) in set.iter() {
            list.extend(ranges.iter().map(|r| range(client.get(), r.start, r.end)));
        }
        list
    };
    let mut structs = list(&update.insertions(true));
    structs.sort_unstable();
    (structs, list(update.delete_set()).into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn genuine_updates_pass_and_are_seen_as_yrs_sees_them(edits in edits(60), skip_gc in any::<bool>()) {
        for update in History::play(&edits, skip_gc).wire() {
            let scan = scanned(&update);
            prop_assert!(scan.is_ok(), "{:?} of {:02x?}", scan, update);
            let scan = scan.unwrap();
            let (structs, deletes) = decoded(&update);
            prop_assert_eq!(scan.ranges(), structs);
            prop_assert_eq!(scan.deletes().iter().copied().collect::<BTreeSet<_>>(), deletes);
            for needed in scan.dependencies() {
                prop_assert!(!scan.brings(*needed));
            }
        }
    }

    #[test]
    fn with_nothing_missing_nothing_is_left_pending(edits in edits(60), order in any::<u64>()) {
        let history = History::play(&edits, false);
        let doc = document(0, false);
        let mut waiting = history.updates.clone();
        // Any order: what misses something waits, and whatever is applied must be complete.
        let mut next = order;
        while !waiting.is_empty() {
            let state = next_clock(&doc);
            let ready = (0..waiting.len())
                .map(|n| (n + next as usize) % waiting.len())
                .find(|&n| scanned(&waiting[n]).unwrap().missing(&state).is_none());
            let update = waiting.remove(ready.expect("the first of the rest misses nothing"));
            next = next.rotate_left(7);
            doc.transact_mut().apply_update(Update::decode_v1(&update).unwrap()).unwrap();
            prop_assert!(!doc.transact().has_missing_updates());
            prop_assert!(scanned(&update).unwrap().is_known(next_clock(&doc)));
        }
    }

    #[test]
    fn an_update_whose_author_was_not_heard_before_misses_something(edits in edits(40)) {
        for update in History::play(&edits, false).updates {
            let scan = scanned(&update).unwrap();
            let begins = scan.ranges().iter().all(|range| range.start == 0) && scan.dependencies().is_empty();
            let deletes_own = scan.deletes().iter().all(|range| range.end <= scan.end(range.client));
            prop_assert_eq!(scan.missing(|_| 0).is_none(), begins && deletes_own);
            prop_assert_eq!(scan.is_known(|_| 0), !scan.has_structs());
            prop_assert!(scan.is_known(|_| CLOCK_MAX) && scan.missing(|_| CLOCK_MAX).is_none());
        }
    }

    #[test]
    fn any_bytes_are_scanned_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = scanned(&bytes);
        let _ = StateVector::decode(&bytes);
    }

    #[test]
    fn state_vectors_are_read(edits in edits(30)) {
        for peer in History::play(&edits, false).peers {
            use yrs::updates::encoder::Encode;
            let state = peer.doc.transact().state_vector();
            let read = StateVector::decode(&state.encode_v1()).unwrap();
            prop_assert_eq!(read.iter().count(), state.len());
            for (client, clock) in read.iter() {
                prop_assert_eq!(state.get(&yrs::block::ClientID::new(client)), clock);
            }
        }
    }
}

#[test]
fn a_gap_an_outside_reference_and_a_delete_are_each_missed() {
    let scan =
        draft().client(7, 3, vec![text("ab"), vec![10, 5], text("c")]).delete(7, 0, 11).scan().unwrap();
    assert_eq!(scan.ranges(), [range(7, 3, 5), range(7, 10, 11)]);
    assert_eq!((scan.structs(), scan.deletes()), (2, &[range(7, 0, 11)][..]));
    assert_eq!(scan.missing(|_| 0), Some(id(7, 0)));
    assert_eq!(scan.missing(|_| 4), Some(id(7, 5)));
    assert_eq!(scan.missing(|_| 10), None);
    assert!(!scan.is_known(|_| 10) && scan.is_known(|_| 11));

    let scan = draft().client(7, 0, vec![text_after(3, 9), text_after(7, 0)]).scan().unwrap();
    assert_eq!(scan.dependencies(), [id(3, 9)]);
    assert_eq!(scan.missing(|client| if client == 3 { 9 } else { 0 }), Some(id(3, 9)));
    assert_eq!(scan.missing(|client| if client == 3 { 10 } else { 0 }), None);

    let scan = draft().client(7, 4, vec![text_after(7, 1)]).scan().unwrap();
    assert_eq!(scan.dependencies(), [id(7, 1)]);

    let scan = draft().delete(5, 2, 3).scan().unwrap();
    assert!(!scan.has_structs() && scan.is_known(|_| 0));
    assert_eq!(scan.missing(|_| 4), Some(id(5, 4)));
    assert_eq!(scan.missing(|_| 5), None);
}

#[test]
fn references_between_clients_need_an_order() {
    let ordered = draft().client(1, 0, vec![text("a"), text_after(2, 1)]).client(
        2,
        0,
        vec![text("b"), text_after(1, 0), text_after(1, 1)],
    );
    assert!(ordered.scan().unwrap().dependencies().is_empty());
    let circular = draft().client(1, 0, vec![text_after(2, 0)]).client(2, 0, vec![text_after(1, 0)]);
    assert!(matches!(circular.scan(), Err(ScanError::Circular { .. })));
    let of_three = draft()
        .client(3, 0, vec![text("c"), text_after(1, 1)])
        .client(1, 0, vec![text("a"), text_after(2, 1)])
        .client(2, 0, vec![text("b"), text_after(3, 1)]);
    assert!(matches!(of_three.scan(), Err(ScanError::Circular { .. })));
    for clock in [5, 6, 100] {
        let itself = draft().client(1, 5, vec![text_after(1, clock)]);
        assert_eq!(itself.scan().unwrap_err(), ScanError::Circular { client: 1, clock: 5 });
    }
}

#[test]
fn wrong_structs_are_refused() {
    let one = |bytes: Vec<u8>| draft().client(1, 0, vec![bytes]).scan().unwrap_err();
    let any = |bytes: &[u8]| one(item(8, &[&[1], bytes].concat()));
    assert_eq!(one(vec![0, 0]), ScanError::Empty);
    assert_eq!(one(vec![10, 0]), ScanError::Empty);
    assert_eq!(one(item(1, &[0])), ScanError::Empty);
    assert_eq!(one(text("")), ScanError::Empty);
    assert_eq!(one(item(8, &[0])), ScanError::Empty);
    assert_eq!(one(item(2, &[1, 1, b'1'])), ScanError::StructKind(2));
    assert_eq!(one(item(0x14, &[1, b'x'])), ScanError::StructKind(0x14));
    assert_eq!(one(item(11, &[0])), ScanError::StructKind(11));
    for kind in [5, 7, 8, 9, 15, 0xff] {
        assert_eq!(one(item(7, &[kind])), ScanError::TypeKind(kind));
    }
    assert_eq!(one(item(9, &[1, b'g', 127])), ScanError::DocumentOptions);
    assert_eq!(one(vec![4, 2, 1, b't', 1, b'x']), Lib0Error::OutOfRange.into());
    assert_eq!(one(item(4, &[1, 0xff])), Lib0Error::Utf8.into());
    assert_eq!(any(&[115]), ScanError::AnyKind(115));
    assert_eq!(
        any(&[125, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        Lib0Error::OutOfRange.into()
    );
    assert_eq!(any(&[117, 0xff, 0xff, 0xff, 0x7a]), Lib0Error::LengthPastEnd.into());
    assert_eq!(draft().client(1, CLOCK_MAX, vec![text("a")]).scan().unwrap_err(), ScanError::Clock);
    assert_eq!(
        draft().client(1, 9, vec![vec![0, 0xff, 0xff, 0xff, 0xff, 7]]).scan().unwrap_err(),
        ScanError::Clock
    );
    assert_eq!(draft().client(1, 0, vec![]).delete(1, 0, 1).scan().unwrap_err(), ScanError::NoStructs(1));
    let twice = draft().client(1, 0, vec![text("a")]).client(1, 1, vec![text("b")]);
    assert_eq!(twice.scan().unwrap_err(), ScanError::Duplicate(1));
    let apart =
        draft().client(1, 0, vec![text("a")]).client(2, 0, vec![text("a")]).client(1, 1, vec![text("b")]);
    assert_eq!(apart.scan().unwrap_err(), ScanError::Duplicate(1));
    assert_eq!(draft().client(1 << 53, 0, vec![text("a")]).scan().unwrap_err(), Lib0Error::OutOfRange.into());
}

#[test]
fn wrong_deletes_and_ends_are_refused() {
    assert_eq!(draft().delete(1, 0, 0).scan().unwrap_err(), ScanError::Empty);
    assert_eq!(draft().delete(1, 5, u64::from(CLOCK_MAX)).scan().unwrap_err(), ScanError::Clock);
    assert_eq!(draft().delete(1, u64::from(u32::MAX), 1).scan().unwrap_err(), ScanError::Clock);
    assert_eq!(draft().delete(1, 0, 1).delete(1, 4, 1).scan().unwrap_err(), ScanError::Duplicate(1));
    assert_eq!(scanned(&[0, 0, 9]).unwrap_err(), ScanError::TrailingBytes(1));
    assert_eq!(scanned(&[]).unwrap_err(), Lib0Error::Truncated.into());
    assert!(scanned(&[0, 0]).is_ok());
}

#[test]
fn announced_counts_must_be_covered_by_bytes() {
    let many = [0xff, 0xff, 0xff, 0x7a];
    let with = |before: &[u8], after: &[u8]| scanned(&[before, &many, after].concat()).unwrap_err();
    let past_end = ScanError::from(Lib0Error::LengthPastEnd);
    assert_eq!(with(&[], &[]), past_end);
    assert_eq!(with(&[1], &[1, 0, 4, 1, 1, b't', 1, b'x', 0]), past_end);
    assert_eq!(with(&[0], &[1]), past_end);
    assert_eq!(with(&[0, 1, 1], &[0]), past_end);
    assert_eq!(StateVector::decode(&many), Err(Lib0Error::LengthPastEnd));
}

#[test]
fn values_may_nest_to_the_limit() {
    let limits = ScanLimits::default();
    let depth = limits.any_depth_max as usize;
    let arrays = |depth: usize| {
        draft().client(1, 0, vec![item(8, &[&[1][..], &[117, 1].repeat(depth), &[126]].concat())])
    };
    let maps = |depth: usize| {
        draft().client(1, 0, vec![item(8, &[&[1][..], &[118, 1, 1, b'k'].repeat(depth), &[126]].concat())])
    };
    let json = |depth: usize| {
        let mut content = Vec::new();
        write_var_bytes(
            &mut content,
            format!("{}\"]\\\"[\"{}", "[".repeat(depth), "]".repeat(depth)).as_bytes(),
        );
        draft().client(1, 0, vec![item(5, &content)])
    };
    for nested in [&arrays as &dyn Fn(usize) -> Draft, &maps, &json] {
        assert!(nested(depth).scan().is_ok());
        Update::decode_v1(&nested(depth).bytes()).unwrap();
        for deeper in [depth + 1, 10_000, 1_000_000] {
            assert_eq!(nested(deeper).scan().unwrap_err(), ScanError::AnyDepth(limits.any_depth_max));
        }
    }
    // Wide is not deep.
    let wide = [&[1, 117, 0xe8, 7][..], &[117, 0].repeat(1000)].concat();
    assert!(draft().client(1, 0, vec![item(8, &wide)]).scan().is_ok());
}

#[test]
fn shared_types_may_nest_to_the_limit() {
    let limit = ScanLimits::default().nesting_max;
    let chain = |types: u32| {
        let inner = (1..types).map(|n| array_in(1, u64::from(n) - 1));
        draft().client(1, 0, [item(7, &[0])].into_iter().chain(inner).collect())
    };
    assert_eq!(chain(limit).scan().unwrap().nesting(), limit);
    assert_eq!(chain(limit + 1).scan().unwrap_err(), ScanError::Nesting(limit));
    assert_eq!(chain(100_000).scan().unwrap_err(), ScanError::Nesting(limit));
    // Many types beside one another are not deep, whether they name their parent or a neighbour.
    let beside = (0..1000)
        .map(|n| if n == 0 { array_in(9, 9) } else { [&[0x87, 1][..], &after(n - 1), &[0]].concat() });
    assert_eq!(draft().client(1, 0, beside.collect()).scan().unwrap().nesting(), 1);
}

/// Each update deepens it by one at most; all of them deepen it by one.
#[test]
fn a_document_may_hold_more_types_beside_one_another_than_within() {
    let mut document = crate::engine::document::Document::default();
    let mut scanned = Scan::new();
    let mut apply = |update: &[u8]| {
        scan(update, &ScanLimits::default(), &mut scanned).unwrap();
        document.apply(update, &scanned, usize::MAX)
    };
    let types = 3 * ScanLimits::default().nesting_max;
    for clock in (0..types).step_by(2) {
        let two = draft().client(1, clock, vec![item(7, &[0]), item(7, &[1])]);
        assert!(apply(&two.bytes()).is_ok(), "with {clock} there");
    }
    // And within: as many as may be.
    for level in 1..ScanLimits::default().nesting_max {
        let deeper = draft().client(1, types + level - 1, vec![array_in(1, u64::from(types + level) - 2)]);
        assert!(apply(&deeper.bytes()).is_ok(), "at level {level}");
    }
    let end = types + ScanLimits::default().nesting_max - 1;
    let deeper = draft().client(1, end, vec![array_in(1, u64::from(end) - 1)]);
    assert!(apply(&deeper.bytes()).is_err());
}

fn after(clock: u64) -> Vec<u8> {
    let mut out = Vec::new();
    write_var_u64(&mut out, clock);
    out
}

#[test]
fn pieces_that_continue_one_another_are_bounded() {
    let chain = |first: Vec<u8>, kind: u8, content: &[u8], pieces: u32| {
        let next = |clock: u32| [&[0x80 | kind, 1][..], &after(u64::from(clock)), content].concat();
        draft().client(1, 0, std::iter::once(first).chain((0..pieces - 1).map(next)).collect())
    };
    let letters = |pieces| chain(text("x"), 4, &[1, b'x'], pieces);
    let values = |pieces| chain(item(8, &[1, 126]), 8, &[1, 126], pieces);
    assert!(letters(10_000).scan().is_ok() && values(4000).scan().is_ok());
    assert_eq!(letters(20_000).scan().unwrap_err(), ScanError::Squash);
    assert_eq!(values(20_000).scan().unwrap_err(), ScanError::Squash);
    // Few but large: the last of them is copied as often as there are others.
    let large = "x".repeat(100_000);
    let mut content = Vec::new();
    write_var_str(&mut content, &large);
    let few = |pieces: u32| {
        let next = |n: u32| [&[0x84, 1][..], &after(u64::from(n) * 100_000 - 1), &content].concat();
        draft().client(1, 0, std::iter::once(text(&large)).chain((1..pieces).map(next)).collect())
    };
    assert!(few(40).scan().is_ok());
    assert_eq!(few(80).scan().unwrap_err(), ScanError::Squash);
    // What doesn't continue is not joined, however much there is of it.
    assert!(draft().client(1, 0, vec![text("x"); 50_000]).scan().is_ok());
}

#[test]
fn rivals_for_a_map_key_are_bounded() {
    let limit = ScanLimits::default().rivals_max;
    let entry =
        |key: &str| [&[0x24, 1, 1, b't'][..], &[key.len() as u8], key.as_bytes(), &[1, b'x']].concat();
    let rivals = |count: u32| {
        (1..=count).fold(draft(), |draft, client| draft.client(u64::from(client), 0, vec![entry("k")]))
    };
    assert!(rivals(limit).scan().is_ok());
    assert_eq!(rivals(limit + 1).scan().unwrap_err(), ScanError::Rivals(limit));
    let apart = (0..3 * limit).map(|n| entry(&n.to_string())).collect();
    assert!(draft().client(1, 0, apart).scan().is_ok(), "other keys are no rivals");
}

#[test]
fn a_deep_document_is_measured_by_its_whole_state() {
    let doc = Doc::new();
    let mut map = doc.get_or_insert_map("m");
    let mut bound = 0;
    for _ in 0..40 {
        let before = doc.transact().state_vector();
        map = map.insert(&mut doc.transact_mut(), "k", MapPrelim::default());
        let update = doc.transact().encode_state_as_update_v1(&before);
        bound += scanned(&update).unwrap().nesting();
    }
    assert_eq!(bound, 40);
    let state = doc.transact().encode_state_as_update_v1(&Default::default());
    let limits = ScanLimits { nesting_max: 39, ..ScanLimits::default() };
    assert_eq!(scan(&state, &limits, &mut Scan::new()), Err(ScanError::Nesting(39)));
}

#[test]
fn a_scan_keeps_no_trace_of_the_one_before() {
    let mut out = Scan::new();
    let limits = ScanLimits::default();
    let first = draft()
        .client(1, 0, vec![text_after(2, 0), text_after(3, 5)])
        .client(2, 0, vec![text("a")])
        .delete(4, 0, 1);
    scan(&first.bytes(), &limits, &mut out).unwrap();
    assert!(scan(&[1, 1], &limits, &mut out).is_err());
    scan(&draft().client(9, 0, vec![text("b")]).bytes(), &limits, &mut out).unwrap();
    assert_eq!((out.ranges(), out.structs()), (&[range(9, 0, 1)][..], 1));
    assert!(out.dependencies().is_empty() && out.deletes().is_empty());
}

/// Prints what a scan costs; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_small_update() {
    let doc = Doc::new();
    let text = doc.get_or_insert_text("t");
    text.insert(&mut doc.transact_mut(), 0, "hello world");
    let before = doc.transact().state_vector();
    text.insert(&mut doc.transact_mut(), 5, "x");
    let update = doc.transact().encode_state_as_update_v1(&before);
    let mut out = Scan::new();
    #[expect(clippy::disallowed_types, reason = "what is measured is time")]
    let started = std::time::Instant::now();
    for _ in 0..1_000_000 {
        scan(std::hint::black_box(&update), &ScanLimits::default(), &mut out).unwrap();
    }
    println!("{} bytes: {:?} for a million", update.len(), started.elapsed());
}
