//! What docs/upstream.md reports of yrs, one finding a run: its least input, and what yrs makes of it.
//!
//! tests/upstream.rs runs them. The two that read freed memory show it under the address sanitizer only: there this file
//! is a program, `upstream freed-hole`, which is built along with the fuzz targets.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

#[path = "cost.rs"]
mod cost;

use cost::measured;
use yrs::updates::decoder::Decode;
use yrs::{Doc, ReadTxn, StateVector, Transact, Update};

type Finding = fn();

const FINDINGS: [(&str, Finding); 15] = [
    ("any-depth", any_depth),
    ("state-vector-count", || reserves("state vector", |bytes| drop(StateVector::decode_v1(bytes)), &COUNT)),
    ("update-count", || {
        reserves("update", |bytes| drop(Update::decode_v1(bytes)), &[&[1][..], &COUNT, &[1, 0]].concat())
    }),
    ("array-length", || reserves("update", |bytes| drop(Update::decode_v1(bytes)), &ARRAY)),
    ("divide", || apply(&[DIVIDE])),
    ("listed-twice", || apply(&[LISTED_TWICE])),
    ("unreachable", || {
        apply(&[
            &[1, 1, 1, 2, 0, 1, 1, 2, 1, 3, 1],
            &[2, 1, 1, 0, 1, 1, 1, 116, 1, 1, 1, 3, 68, 1, 3, 1, 120, 0],
        ])
    }),
    ("poison", || apply(&[POISON])),
    ("squash", || costs(&[], &pushes(3000))),
    ("rivals", || costs(&[], &rivals(3000))),
    ("between", || costs(&item(4, b'a', 20_000), &between(1000))),
    ("cut", || costs(&item(8, 126, 20_000), &every_second(3000))),
    ("sub-document", never_freed),
    ("freed-collector", || apply(&FREED_COLLECTOR)),
    ("freed-hole", || apply(&FREED_HOLE)),
];

/// Some 4 million. With `ff ff ff 7a`, 256 million, it is 64 times as much.
const COUNT: [u8; 4] = [0xff, 0xff, 0xff, 0x01];

/// One `Any`: an array that says it has millions of entries and has none.
const ARRAY: [u8; 17] = [1, 1, 9, 0, 0x28, 1, 1, b'm', 1, b'k', 1, 117, 0xff, 0xff, 0xff, 0x01, 0];

/// Client 1's only block has no length: what looks for a clock in it divides by its last one.
const DIVIDE: &[u8] = &[2, 1, 2, 0, 0, 1, 1, 2, 0, 0, 2, 1, 2, 2, 4, 1, 0, 0];

/// Client 2 stands in it twice.
const LISTED_TWICE: &[u8] =
    &[2, 2, 2, 1, 4, 1, 1, 116, 1, 120, 10, 1, 2, 2, 0, 4, 1, 1, 116, 3, 97, 98, 99, 3, 1, 1, 116, 1, 7, 0];

/// Accepted, kept as pending, and then in the way of every encoding.
const POISON: &[u8] =
    &[2, 2, 2, 2, 0, 2, 0, 1, 2, 2, 0, 1, 1, 1, 116, 3, 0, 1, 2, 2, 2, 3, 0, 1, 0, 1, 1, 4, 1];

/// An array; "abc" under a key of it, three clocks; then the last of these and the array are deleted. The array is
/// collected while the first two of the entry stay and point to it.
const FREED_COLLECTOR: [&[u8]; 3] = [
    &[1, 1, 1, 0, 7, 1, 1, 116, 0, 0],
    &[1, 1, 1, 1, 36, 0, 1, 0, 1, 107, 3, 97, 98, 99, 0],
    &[0, 1, 1, 2, 3, 1, 0, 1],
];

/// Clock 1 alone, then 0 to 2 as one text: of its three pieces the middle one is known and freed, the first points to it.
const FREED_HOLE: [&[u8]; 2] = [&[1, 1, 1, 1, 0, 1, 0], &[1, 1, 1, 0, 4, 1, 1, 116, 3, 97, 98, 99, 0]];

fn main() {
    run(&std::env::args().nth(1).unwrap_or_default());
}

pub fn run(name: &str) {
    match FINDINGS.iter().find(|(known, _)| *known == name) {
        Some((_, finding)) => finding(),
        None => {
            let names: Vec<&str> = FINDINGS.iter().map(|(name, _)| *name).collect();
            eprintln!("name one of: {}", names.join(" "));
            std::process::exit(2);
        }
    }
}

/// 5,000 arrays within one another, 10 KB: decoding them overflows the stack, which ends the process.
fn any_depth() {
    let head = [1, 1, 9, 0, 0x28, 1, 1, b'm', 1, b'k', 1];
    let update = [&head[..], &[117, 1].repeat(5000), &[126, 0]].concat();
    // What the Rust runtime gives a thread.
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    let decoded = thread.spawn(move || Update::decode_v1(&update).is_ok()).expect("a thread").join();
    println!("decoded: {decoded:?}");
}

fn reserves(what: &str, decode: fn(&[u8]), bytes: &[u8]) {
    let cost = measured(|| decode(bytes));
    println!("{what} of {} bytes: {} MiB held, {:.1?}", bytes.len(), cost.bytes >> 20, cost.time);
}

fn write_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// One client's pushes to an array, each a struct of its own.
fn pushes(count: usize) -> Vec<u8> {
    let mut update = vec![1];
    write_varint(&mut update, count);
    update.extend([1, 0, 8, 1, 1, b't', 1, 126]);
    for clock in 1..count {
        update.extend([0x88, 1]);
        write_varint(&mut update, clock - 1);
        update.extend([1, 126]);
    }
    update.push(0);
    update
}

/// Clients that write one key of a map, none of whom knows another.
fn rivals(count: usize) -> Vec<u8> {
    let mut update = Vec::new();
    write_varint(&mut update, count);
    for client in 1..=count {
        update.push(1);
        write_varint(&mut update, client);
        update.extend([0, 0x24, 1, 1, b't', 1, b'k', 1, b'x']);
    }
    update.push(0);
    update
}

/// One item of client 1 with so many elements.
fn item(kind: u8, element: u8, elements: usize) -> Vec<u8> {
    let mut update = vec![1, 1, 1, 0, kind, 1, 1, b't'];
    write_varint(&mut update, elements);
    update.resize(update.len() + elements, element);
    update.push(0);
    update
}

/// Letters of client 2, each before another element of client 1, all of which are behind where it looks for its place.
fn between(count: usize) -> Vec<u8> {
    let mut update = vec![1];
    write_varint(&mut update, count);
    update.extend([2, 0]);
    for at in 1..=count {
        update.extend([0x44, 1]);
        write_varint(&mut update, 20 * at - 1);
        update.extend([1, b'x']);
    }
    update.push(0);
    update
}

/// Deletes every second element of client 1.
fn every_second(count: usize) -> Vec<u8> {
    let mut update = vec![0, 1, 1];
    write_varint(&mut update, count);
    for at in 0..count {
        write_varint(&mut update, 2 * at + 1);
        update.push(1);
    }
    update
}

/// Documents that are made and dropped one after the other, each with a text of 20 KB and a sub-document.
fn never_freed() {
    let mut update = vec![1, 2, 1, 0, 9, 1, 1, b'd', 1, b'g', 118, 0, 4, 1, 1, b't'];
    write_varint(&mut update, 20_000);
    update.resize(update.len() + 20_000, b'a');
    update.push(0);
    let cost = measured(|| {
        for _ in 0..5000 {
            let decoded = Update::decode_v1(&update).expect("an update");
            Doc::new().transact_mut().apply_update(decoded).expect("it applies");
        }
    });
    println!("update of {} bytes: {} MiB held, {:.1?}", update.len(), cost.bytes >> 20, cost.time);
}

/// Applies an update to a document that has another, the end of the transaction included.
fn costs(before: &[u8], update: &[u8]) {
    let doc = Doc::new();
    if !before.is_empty() {
        doc.transact_mut().apply_update(Update::decode_v1(before).expect("an update")).expect("it applies");
    }
    let decoded = Update::decode_v1(update).expect("an update");
    let cost = measured(|| doc.transact_mut().apply_update(decoded).expect("it applies"));
    println!("update of {} bytes: {} MiB held, {:.1?}", update.len(), cost.bytes >> 20, cost.time);
}

fn apply(updates: &[&[u8]]) {
    let doc = Doc::new();
    for update in updates {
        let decoded = Update::decode_v1(update);
        println!("{} bytes: {}", update.len(), decoded.as_ref().map_or("refused", |_| "decoded"));
        let Ok(decoded) = decoded else { return };
        let applied = doc.transact_mut().apply_update(decoded);
        println!("applied: {applied:?}");
    }
    for _ in 0..2 {
        let state = doc.transact().encode_state_as_update_v1(&StateVector::default());
        println!("encoded: {} bytes", state.len());
    }
}
