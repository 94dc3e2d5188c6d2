//! What passes the scan goes through yrs without a panic: genuine updates, mutated at random.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use yrs::updates::decoder::Decode;
use yrs::{Doc, ReadTxn, StateVector, Transact, Update};

use super::histories::{History, document, edits, next_clock};
use super::*;

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

fn server_doc() -> Doc {
    document(0, false)
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
    crate::protocol::lib0::write_var_u64(&mut deletes, whole.len() as u64);
    for (client, clock) in whole.iter() {
        crate::protocol::lib0::write_var_u64(&mut deletes, client.get());
        deletes.extend([1, 0]);
        crate::protocol::lib0::write_var_u64(&mut deletes, u64::from(*clock));
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
            Ok(Err(error)) => *tally.refused.entry(error).or_default() += 1,
            Err(panic) => {
                std::mem::forget(doc);
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                let key = text.unwrap_or_default().chars().take(120).collect();
                let case = (history.updates[..before].to_vec(), update);
                let kept = tally.panics.entry(key).or_insert_with(|| case.clone());
                if case.0.concat().len() + case.1.len() < kept.0.concat().len() + kept.1.len() {
                    *kept = case;
                }
            }
        }
    }
}

fn on_a_shards_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).unwrap().join().unwrap()
}

#[test]
fn mutated_updates_that_pass_the_scan_do_not_make_yrs_panic() {
    let tally = on_a_shards_stack(|| {
        let mut tally = Tally::default();
        (1..=20).for_each(|seed| hunt(seed, 500, &mut tally));
        tally
    });
    assert!(tally.panics.is_empty(), "{:#02x?}", tally.panics);
    assert!(tally.complete > tally.mutations / 20, "mutations hardly reach yrs: {tally:?}");
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
        (first..first + 100).for_each(|seed| hunt(seed, 3000, &mut tally));
        tally
    });
    println!("{} mutations, {} passed, {} complete", tally.mutations, tally.passed, tally.complete);
    println!("refused by yrs: {:#?}", tally.refused);
    for (panic, (before, update)) in &tally.panics {
        println!("{panic}\n  after {before:02x?}\n  {update:02x?}");
    }
    assert!(tally.panics.is_empty());
}
