//! What passes the scan goes through yrs without a panic: genuine updates, mutated at random.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use yrs::updates::decoder::Decode;
use yrs::{Doc, ReadTxn, StateVector, Transact, Update};

use super::histories::{History, document, edits, next_clock};
use super::*;
use crate::protocol::lib0::{write_var_str, write_var_u64};

/// As much as a shard's thread has at least.
const STACK_BYTES: usize = 2 << 20;

/// xorshift64*: a seed is all it takes to see a failure again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }
}

/// Changes a few bytes: flips, small steps, other numbers, insertions, removals, pieces of another update.
fn mutated(update: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = update.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        if bytes.is_empty() {
            break;
        }
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = bytes[at].wrapping_add(1),
            2 => bytes[at] = bytes[at].wrapping_sub(1),
            3 => bytes[at] = random.next() as u8,
            4 => bytes.insert(at, random.next() as u8),
            5 => drop(bytes.remove(at)),
            6 => bytes[at] = random.below(12) as u8,
            _ => {
                let from = random.below(other.len());
                let piece = &other[from..other.len().min(from + 1 + random.below(12))];
                let end = (at + random.below(12)).min(bytes.len());
                bytes.splice(at..end, piece.iter().copied());
            }
        }
    }
    bytes
}

/// As the server must make them: with `skip_gc`. Collecting, yrs 0.28.1 frees types whose entries it keeps (a map entry
/// of several clocks of which only the last is deleted), and goes on to use them: a use after free that invented
/// updates reach, which ends in a crash or an endless loop and which no look at a single update can exclude.
fn server_doc() -> Doc {
    document(0, true)
}

/// Applies an update as an engine does: only if nothing is missing. A transaction commits when it is dropped, so one
/// that panicked must not be dropped while unwinding.
fn apply(doc: &Doc, update: &[u8]) -> Result<(), String> {
    let decoded = Update::decode_v1(update).map_err(|error| error.to_string())?;
    let mut txn = std::mem::ManuallyDrop::new(doc.transact_mut());
    let applied = txn.apply_update(decoded);
    drop(std::mem::ManuallyDrop::into_inner(txn));
    applied.map_err(|error| error.to_string())
}

/// What happens to a document in its life after an update: encoded whole and in part, decoded elsewhere, edited on.
fn live_on(doc: &Doc, later: &[Vec<u8>], random: &mut Random) {
    let state = doc.transact().encode_state_as_update_v1(&StateVector::default());
    let copy = server_doc();
    let mut out = Scan::new();
    // A state may nest deeper than one update: that is for the engine to watch.
    let limits = ScanLimits { nesting_max: u32::MAX, ..ScanLimits::default() };
    scan(&state, &limits, &mut out).unwrap_or_else(|error| panic!("own state: {error}: {state:02x?}"));
    assert_eq!(out.missing(|_| 0), None, "own state misses something: {state:02x?}");
    apply(&copy, &state).unwrap();
    assert_eq!(copy.transact().state_vector(), doc.transact().state_vector());
    assert!(!copy.transact().has_missing_updates() && !doc.transact().has_missing_updates());
    let mut part = StateVector::default();
    for (client, clock) in doc.transact().state_vector().iter() {
        part.set_max(*client, random.below(*clock as usize + 2) as u32);
    }
    let diff = doc.transact().encode_state_as_update_v1(&part);
    scan(&diff, &limits, &mut out).unwrap_or_else(|error| panic!("own diff: {error}: {diff:02x?}"));
    for update in later {
        scan(update, &limits, &mut out).unwrap();
        if out.missing(next_clock(doc)).is_none() {
            let _ = apply(doc, update);
        }
    }
    let whole = doc.transact().state_vector();
    let mut deletes = vec![0u8];
    write_var_u64(&mut deletes, whole.len() as u64);
    for (client, clock) in whole.iter() {
        write_var_u64(&mut deletes, client.get());
        deletes.extend([1, 0]);
        write_var_u64(&mut deletes, u64::from(*clock));
    }
    apply(doc, &deletes).unwrap();
    doc.transact().encode_state_as_update_v1(&StateVector::default());
}

#[derive(Debug, Default)]
struct Tally {
    mutations: usize,
    passed: usize,
    complete: usize,
    /// yrs refused what the scan let pass.
    refused: std::collections::BTreeMap<String, usize>,
    /// Panic messages, each with the document's updates before and the one that did it.
    panics: std::collections::BTreeMap<String, (Vec<Vec<u8>>, Vec<u8>)>,
}

fn history(seed: u64) -> History {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    History::play(&edits(40).new_tree(&mut runner).unwrap().current(), false)
}

fn hunt(seed: u64, mutations: usize, tally: &mut Tally) {
    let history = history(seed);
    let wire = history.wire();
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut out = Scan::new();
    for _ in 0..mutations {
        let before = random.below(history.updates.len() + 1);
        let original = match history.updates.get(before) {
            Some(next) if random.below(3) > 0 => next,
            _ => &wire[random.below(wire.len())],
        };
        let update = mutated(original, &wire[random.below(wire.len())], &mut random);
        tally.mutations += 1;
        if scan(&update, &ScanLimits::default(), &mut out).is_err() {
            continue;
        }
        tally.passed += 1;
        let doc = server_doc();
        history.updates[..before].iter().for_each(|update| apply(&doc, update).unwrap());
        if out.missing(next_clock(&doc)).is_some() {
            continue;
        }
        tally.complete += 1;
        let result = catch_unwind(AssertUnwindSafe(|| {
            let applied = apply(&doc, &update);
            if applied.is_ok() {
                live_on(&doc, &history.updates[before..], &mut random);
            }
            applied
        }));
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                *tally.refused.entry(error.chars().filter(|c| !c.is_ascii_digit()).collect()).or_default() +=
                    1
            }
            Err(panic) => {
                std::mem::forget(doc);
                tally.panicked(panic.as_ref(), history.updates[..before].to_vec(), update);
            }
        }
    }
}

/// Updates that were never genuine, but miss nothing: few clients, references to anything there is, all contents.
struct Inventor<'a> {
    random: &'a mut Random,
    state: [u32; 4],
}

impl Inventor<'_> {
    fn update(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let clients = 1 + self.random.below(3);
        write_var_u64(&mut out, clients as u64);
        let mut next = self.state;
        for client in 0..clients {
            // Now and then again what is known, and other than it was.
            let behind = if self.random.below(4) == 0 { self.random.below(6) as u32 } else { 0 };
            let mut clock = next[client].saturating_sub(behind);
            let structs = 1 + self.random.below(5);
            write_var_u64(&mut out, structs as u64);
            write_var_u64(&mut out, client as u64 + 1);
            write_var_u64(&mut out, u64::from(clock));
            for _ in 0..structs {
                clock += self.add_struct(client, clock, &next, &mut out);
            }
            next[client] = next[client].max(clock);
        }
        self.add_deletes(&next, &mut out);
        self.state = next;
        out
    }

    /// Any element there is, of this client only what is before `clock`.
    fn any_id(&mut self, client: usize, clock: u32, next: &[u32; 4]) -> Option<(u64, u32)> {
        let other = self.random.below(4);
        let end = if other == client { clock } else { next[other] };
        (end > 0).then(|| (other as u64 + 1, self.random.below(end as usize) as u32))
    }

    fn add_struct(&mut self, client: usize, clock: u32, next: &[u32; 4], out: &mut Vec<u8>) -> u32 {
        if self.random.below(20) == 0 {
            let len = 1 + self.random.below(3) as u32;
            out.extend([0, len as u8]);
            return len;
        }
        let (kind, content, len) = self.content();
        let mut reference =
            |chance| (self.random.below(10) < chance).then(|| self.any_id(client, clock, next)).flatten();
        let (origin, right, parent) = (reference(6), reference(5), reference(4));
        let key = self.random.below(3) == 0;
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.push(kind | flag(origin.is_some(), 0x80) | flag(right.is_some(), 0x40) | flag(key, 0x20));
        for (client, clock) in [origin, right].into_iter().flatten() {
            write_var_u64(out, client);
            write_var_u64(out, u64::from(clock));
        }
        if origin.is_none() && right.is_none() {
            match parent {
                Some((client, clock)) => {
                    out.push(0);
                    write_var_u64(out, client);
                    write_var_u64(out, u64::from(clock));
                }
                None => {
                    out.push(1);
                    write_var_str(out, ["t", "m", ""][self.random.below(3)]);
                }
            }
            if key {
                write_var_str(out, ["k", "l"][self.random.below(2)]);
            }
        }
        out.extend(content);
        len
    }

    fn content(&mut self) -> (u8, Vec<u8>, u32) {
        let string = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
        match self.random.below(9) {
            0 => (1, vec![3], 3),
            1 => (3, vec![1, 7], 1),
            2 => (4, string("abc"), 3),
            3 => (4, string("x\u{1f600}y\u{e9}"), 5),
            4 => (5, string("{\"a\":[1,null]}"), 1),
            5 => (6, [string("b"), string(["null", "true"][self.random.below(2)])].concat(), 1),
            6 | 7 => match self.random.below(6) {
                kind @ 0..=2 => (7, vec![kind as u8], 1),
                3 => (7, [vec![3], string("p")].concat(), 1),
                4 => (7, vec![6], 1),
                _ => (9, [string("guid"), vec![118, 0]].concat(), 1),
            },
            _ => (8, vec![2, 126, 117, 1, 120], 2),
        }
    }

    fn add_deletes(&mut self, next: &[u32; 4], out: &mut Vec<u8>) {
        let clients =
            (0..4).filter(|&client| next[client] > 0 && self.random.below(3) == 0).collect::<Vec<_>>();
        write_var_u64(out, clients.len() as u64);
        for client in clients {
            write_var_u64(out, client as u64 + 1);
            let ranges = 1 + self.random.below(3);
            write_var_u64(out, ranges as u64);
            for _ in 0..ranges {
                let start = self.random.below(next[client] as usize);
                let len = 1 + self.random.below(8.min(next[client] as usize - start));
                write_var_u64(out, start as u64);
                write_var_u64(out, len as u64);
            }
        }
    }
}

/// One document, many invented updates.
fn invent(seed: u64, updates: usize, tally: &mut Tally) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let doc = server_doc();
    let mut out = Scan::new();
    let mut before = Vec::new();
    for _ in 0..updates {
        let state = next_clock(&doc);
        let update = Inventor { state: [1, 2, 3, 4].map(&state), random: &mut random }.update();
        tally.mutations += 1;
        let limits = ScanLimits::default();
        if scan(&update, &limits, &mut out).is_err() || out.missing(state).is_some() {
            continue;
        }
        tally.passed += 1;
        tally.complete += 1;
        let result = catch_unwind(AssertUnwindSafe(|| {
            let applied = apply(&doc, &update);
            doc.transact().encode_state_as_update_v1(&StateVector::default());
            applied
        }));
        match result {
            Ok(Ok(())) => before.push(update),
            // What yrs refuses in the middle leaves a document that must be made anew.
            Ok(Err(error)) => {
                *tally.refused.entry(error.chars().filter(|c| !c.is_ascii_digit()).collect()).or_default() +=
                    1;
                return;
            }
            Err(panic) => {
                std::mem::forget(doc);
                tally.panicked(panic.as_ref(), before, update);
                return;
            }
        }
    }
    let lived = catch_unwind(AssertUnwindSafe(|| live_on(&doc, &[], &mut random)));
    if let Err(panic) = lived {
        std::mem::forget(doc);
        tally.panicked(panic.as_ref(), before, Vec::new());
    }
}

impl Tally {
    /// Keeps the shortest case of each message.
    fn panicked(&mut self, panic: &(dyn std::any::Any + Send), before: Vec<Vec<u8>>, update: Vec<u8>) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let key = text.unwrap_or_default().chars().take(120).collect();
        let size = |(before, update): &(Vec<Vec<u8>>, Vec<u8>)| before.concat().len() + update.len();
        let case = (before, update);
        let kept = self.panics.entry(key).or_insert_with(|| case.clone());
        if size(&case) < size(kept) {
            *kept = case;
        }
    }
}

fn on_a_shards_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).unwrap().join().unwrap()
}

/// Arithmetic that only a build with overflow checks notices: a client that sends a part of its own known clocks
/// again, in another type, makes yrs count that type's length below zero. The length is of no use to a server.
const CHECKED_ONLY: &str = "attempt to subtract with overflow";

fn assert_no_panics(tally: &Tally) {
    let real = tally.panics.iter().filter(|(message, _)| *message != CHECKED_ONLY).collect::<Vec<_>>();
    assert!(real.is_empty(), "{real:02x?}");
}

#[test]
fn mutated_updates_that_pass_the_scan_do_not_make_yrs_panic() {
    let tally = on_a_shards_stack(|| {
        let mut tally = Tally::default();
        (1..=20).for_each(|seed| hunt(seed, 500, &mut tally));
        tally
    });
    assert_no_panics(&tally);
    assert!(tally.complete > tally.mutations / 20, "mutations hardly reach yrs: {tally:?}");
}

#[test]
fn invented_updates_that_pass_the_scan_do_not_make_yrs_panic() {
    let tally = on_a_shards_stack(|| {
        let mut tally = Tally::default();
        (1..=200).for_each(|seed| invent(seed, 30, &mut tally));
        tally
    });
    assert_no_panics(&tally);
    assert!(tally.complete > tally.mutations / 2, "inventions hardly reach yrs: {tally:?}");
}

#[test]
fn types_nested_to_the_limit_are_deleted_on_a_shards_stack() {
    on_a_shards_stack(|| {
        let levels = ScanLimits::default().nesting_max;
        let mut update = vec![1];
        write_var_u64(&mut update, u64::from(levels));
        update.extend([1, 0, 7, 1, 1, b't', 0]);
        for level in 1..levels {
            update.extend([7, 0, 1]);
            write_var_u64(&mut update, u64::from(level) - 1);
            update.push(0);
        }
        update.push(0);
        for collecting in [false, true] {
            let doc = document(0, !collecting);
            scan(&update, &ScanLimits::default(), &mut Scan::new()).unwrap();
            apply(&doc, &update).unwrap();
            apply(&doc, &[0, 1, 1, 1, 0, 1]).unwrap();
            let state = doc.transact().encode_state_as_update_v1(&StateVector::default());
            let mut out = Scan::new();
            scan(&state, &ScanLimits::default(), &mut out).unwrap();
            assert_eq!(out.deletes(), [ClockRange { client: 1, start: 0, end: levels }]);
        }
    });
}

#[test]
fn many_clients_that_wait_for_one_another_are_integrated_on_a_shards_stack() {
    on_a_shards_stack(|| {
        let limit = ScanLimits::default().linked_clients_max;
        let clients = limit + 1;
        let update = waiting_clients(u64::from(clients));
        let mut out = Scan::new();
        scan(&update, &ScanLimits::default(), &mut out).unwrap();
        assert_eq!((out.structs(), out.missing(|_| 0)), (clients, None));
        let more = waiting_clients(u64::from(clients) + 1);
        assert_eq!(scan(&more, &ScanLimits::default(), &mut out), Err(ScanError::LinkedClients(limit)));
        let doc = server_doc();
        apply(&doc, &update).unwrap();
        assert!(!doc.transact().has_missing_updates());
        assert_eq!(doc.transact().state_vector().len(), clients as usize);
    });
}

/// Each client's letter follows that of the next lower one; yrs begins with the highest.
fn waiting_clients(clients: u64) -> Vec<u8> {
    let mut update = Vec::new();
    write_var_u64(&mut update, clients);
    for client in (1..=clients).rev() {
        update.push(1);
        write_var_u64(&mut update, client);
        match client {
            1 => update.extend([0, 4, 1, 1, b't', 1, b'x']),
            _ => {
                update.extend([0, 0x84]);
                write_var_u64(&mut update, client - 1);
                update.extend([0, 1, b'x']);
            }
        }
    }
    update.push(0);
    update
}

/// Run with `--ignored --nocapture`; prints its seeds.
#[test]
#[ignore = "takes minutes"]
fn long_hunt() {
    use std::hash::{BuildHasher, RandomState};
    let first = RandomState::new().hash_one(0) >> 16;
    println!("seeds from {first}");
    let tally = on_a_shards_stack(move || {
        let mut tally = Tally::default();
        (first..first + 200).for_each(|seed| hunt(seed, 2000, &mut tally));
        tally
    });
    report(&tally);
    let (progress, heard) = std::sync::mpsc::channel();
    let inventing = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        let mut tally = Tally::default();
        for seed in first..first + 20_000 {
            progress.send(seed).unwrap();
            invent(seed, 30, &mut tally);
        }
        tally
    });
    let mut seed = first;
    loop {
        match heard.recv_timeout(std::time::Duration::from_secs(10)) {
            Ok(next) => seed = next,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("invent({seed}) hangs"),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    report(&inventing.unwrap().join().unwrap());
}

fn report(tally: &Tally) {
    println!("{} updates, {} passed, {} complete", tally.mutations, tally.passed, tally.complete);
    println!("refused by yrs: {:#?}", tally.refused);
    for (panic, (before, update)) in &tally.panics {
        println!("{panic}\n  after {before:02x?}\n  {update:02x?}");
    }
    assert_no_panics(tally);
}
