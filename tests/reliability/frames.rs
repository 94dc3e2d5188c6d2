//! What the dearest well-formed frames cost that we know to write: CPU time, and memory held at once beyond the frame's own.
//! In process, since a socket would only blur it.

use wiresocket::engine::document::Document;
use wiresocket::engine::prescan::{Scan, ScanLimits, scan};
use wiresocket::engine::state_vector::StateVector;
use wiresocket::protocol::lib0::write_var_u64;

use crate::cost::{Cost, measured};
use crate::{MIB, figure};

/// Structs of as many clients as fit, each by `of`.
fn clients(bytes: usize, mut of: impl FnMut(u64, &mut Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::new();
    let mut count = 0;
    while body.len() + 64 < bytes {
        count += 1;
        of(count, &mut body);
    }
    let mut update = Vec::new();
    write_var_u64(&mut update, count);
    update.extend(body);
    update.push(0);
    update
}

/// One client's structs, as many as fit.
fn structs(bytes: usize, first: &[u8], next: impl Fn(u64, &mut Vec<u8>)) -> Vec<u8> {
    let mut body = first.to_vec();
    let mut count = 1;
    while body.len() + 64 < bytes {
        next(count, &mut body);
        count += 1;
    }
    let mut update = vec![1];
    write_var_u64(&mut update, count);
    update.extend([1, 0]);
    update.extend(body);
    update.push(0);
    update
}

/// Letters of a second client, as many as fit: each between the elements of the first that `between` says.
fn letters(bytes: usize, between: impl Fn(u64) -> (Option<u64>, u64)) -> Vec<u8> {
    let mut body = Vec::new();
    let mut count = 0;
    while body.len() + 64 < bytes {
        let (origin, right) = between(count);
        body.push(if origin.is_some() { 0xc4 } else { 0x44 });
        for clock in origin.into_iter().chain([right]) {
            body.push(1);
            write_var_u64(&mut body, clock);
        }
        body.extend([1, b'x']);
        count += 1;
    }
    let mut update = vec![1];
    write_var_u64(&mut update, count);
    update.extend([2, 0]);
    update.extend(body);
    update.push(0);
    update
}

/// Every second element of the first client is deleted, as far as fits.
fn holes(bytes: usize) -> Vec<u8> {
    let mut ranges = Vec::new();
    let mut count = 0;
    while ranges.len() + 64 < bytes {
        write_var_u64(&mut ranges, 2 * count + 1);
        ranges.push(1);
        count += 1;
    }
    let mut update = vec![0, 1, 1];
    write_var_u64(&mut update, count);
    update.extend(ranges);
    update
}

/// One item of as many elements as fit.
fn one_item(bytes: usize, kind: u8, element: u8) -> Vec<u8> {
    let mut update = vec![1, 1, 1, 0, kind, 1, 1, b't'];
    write_var_u64(&mut update, (bytes - 64) as u64);
    update.resize(update.len() + bytes - 64, element);
    update.push(0);
    update
}

/// What a document has, and what comes to it.
type Shape = (&'static str, Vec<u8>, Vec<u8>);

/// What is dear for what the document has, both as large as a frame may get.
fn shapes_in_a_document(bytes: usize) -> Vec<Shape> {
    let text = one_item(bytes, 4, b'a');
    let values = one_item(bytes, 8, 126);
    let end = bytes as u64 - 64;
    // As many places as fit, all over it.
    let step = 12;
    let keyed = vec![1, 1, 1, 0, 0x24, 1, 1, b't', 1, b'k', 1, b'x', 0];
    vec![
        ("rivals for a key, each before the one that is there", keyed, letters(bytes, |_| (None, 0))),
        (
            "letters from the front to all over a text",
            text.clone(),
            letters(bytes, |at| (None, at * step % (end - 1) + 1)),
        ),
        (
            "letters from the first to all over a text",
            text.clone(),
            letters(bytes, |at| (Some(0), at * step % (end - 1) + 1)),
        ),
        (
            "letters all over a text, from its end",
            text.clone(),
            letters(bytes, |at| {
                let at = end - 2 - at * step % (end - 2);
                (Some(at), at + 1)
            }),
        ),
        ("a text of which every second letter is deleted", text, holes(bytes)),
        (
            "letters all over values, from their end",
            values.clone(),
            letters(bytes, |at| {
                let at = end - 2 - at * step % (end - 2);
                (Some(at), at + 1)
            }),
        ),
        ("values of which every second is deleted", values, holes(bytes)),
    ]
}

fn shapes(bytes: usize) -> Vec<Shape> {
    let alone = shapes_of_an_update(bytes).into_iter().map(|(what, update)| (what, Vec::new(), update));
    alone.chain(shapes_in_a_document(bytes)).collect()
}

fn shapes_of_an_update(bytes: usize) -> Vec<(&'static str, Vec<u8>)> {
    let letter = [4, 1, 1, b't', 1, b'x'];
    vec![
        (
            "many clients at one place",
            clients(bytes, |client, out| {
                out.push(1);
                write_var_u64(out, client);
                out.push(0);
                out.extend(letter);
            }),
        ),
        (
            "many clients under one key",
            clients(bytes, |client, out| {
                out.push(1);
                write_var_u64(out, client);
                out.extend([0, 0x24, 1, 1, b't', 1, b'k', 1, b'x']);
            }),
        ),
        (
            "one client, each letter before the last",
            structs(bytes, &letter, |clock, out| {
                out.extend([0x44, 1]);
                write_var_u64(out, clock - 1);
                out.extend([1, b'x']);
            }),
        ),
        (
            "one client, each letter behind the first",
            structs(bytes, &letter, |_, out| {
                out.extend([0x84, 1, 0, 1, b'x']);
            }),
        ),
        (
            "one key, written over and over",
            structs(bytes, &[0x24, 1, 1, b't', 1, b'k', 1, b'x'], |clock, out| {
                out.extend([0xa4, 1]);
                write_var_u64(out, clock - 1);
                out.extend([1, b'x']);
            }),
        ),
        (
            "rivals for a key that name a right neighbour",
            structs(bytes, &[0x24, 1, 1, b't', 1, b'k', 1, b'x'], |_, out| {
                out.extend([0x44, 1, 0, 1, b'x']);
            }),
        ),
        (
            "values that continue one another",
            structs(bytes, &[8, 1, 1, b't', 1, 126], |clock, out| {
                out.extend([0x88, 1]);
                write_var_u64(out, clock - 1);
                out.extend([1, 126]);
            }),
        ),
        (
            "entries of a key, each before the last",
            structs(bytes, &[0x24, 1, 1, b't', 1, b'k', 1, b'x'], |clock, out| {
                out.extend([0x44, 1]);
                write_var_u64(out, clock - 1);
                out.extend([1, b'x']);
            }),
        ),
        ("collected ranges", structs(bytes, &[0, 1], |_, out| out.extend([0, 1]))),
        (
            "shared types beside one another",
            structs(bytes, &[7, 1, 1, b't', 0], |_, out| {
                out.extend([7, 1, 1, b't', 0]);
            }),
        ),
        ("one string", one_item(bytes, 4, b'x')),
    ]
}

/// Takes what a frame brings as the engine does, and tells what it costs.
fn costs(before: &[u8], update: &[u8]) -> (Cost, &'static str) {
    let mut document = Document::default();
    let mut buffer = Scan::new();
    if !before.is_empty() {
        scan(before, &ScanLimits::default(), &mut buffer).expect("it is well-formed");
        document.apply(before, &buffer, usize::MAX).expect("it applies");
    }
    let mut became = "refused";
    let cost = measured(|| {
        if scan(update, &ScanLimits::default(), &mut buffer).is_ok() {
            if document.apply(update, &buffer, usize::MAX).is_ok() {
                became = "taken";
            }
            drop(document.encode());
        }
    });
    assert_eq!(document.take_panics(), 0);
    (cost, became)
}

/// The dearest frames of a size, in time and in memory.
fn dearest(bytes: usize) {
    let (mut slowest, mut largest) = ((Cost::default(), ""), (Cost::default(), ""));
    for (what, before, update) in shapes(bytes) {
        assert!(before.len() <= bytes && update.len() <= bytes, "{what}");
        let (cost, became) = costs(&before, &update);
        let mib = cost.bytes as f64 / MIB as f64;
        println!("{what}: {} KiB, {became}, {:.1?}, {mib:.1} MiB", update.len() >> 10, cost.time);
        let bound = ScanLimits::default().squash_bytes_max as usize + 128 * (before.len() + update.len());
        assert!(cost.bytes < bound, "{what}: {mib} MiB");
        if cost.time > slowest.0.time {
            slowest = (cost, what);
        }
        if cost.bytes > largest.0.bytes {
            largest = (cost, what);
        }
    }
    let (slowest, largest) = ((slowest.0.time, slowest.1), (largest.0.bytes as f64 / MIB as f64, largest.1));
    figure(
        &format!("the dearest frames of {} KiB", bytes >> 10),
        format_args!("{:.0?} of CPU ({}), {:.1} MiB ({})", slowest.0, slowest.1, largest.0, largest.1),
    );
}

#[test]
fn the_dearest_frames_that_we_know() {
    dearest(64 << 10);
}

/// `limits.message_bytes_max` may let larger ones in: what one costs doesn't grow with the square of its size.
#[test]
fn the_dearest_frames_of_a_megabyte() {
    dearest(1 << 20);
}

#[test]
fn a_state_vector_of_as_many_clients_as_fit() {
    const BYTES: usize = 64 << 10;
    let mut state = Vec::new();
    write_var_u64(&mut state, (BYTES / 8) as u64);
    (0..BYTES as u64 / 8).for_each(|client| {
        write_var_u64(&mut state, client << 20);
        write_var_u64(&mut state, 1);
    });
    let cost = measured(|| drop(StateVector::decode(&state)));
    let mib = cost.bytes as f64 / MIB as f64;
    assert!(cost.bytes < 8 * state.len(), "{mib} MiB");
    figure(
        &format!("a state vector of {} KiB", state.len() >> 10),
        format_args!("{:.1?} of CPU, {mib:.1} MiB", cost.time),
    );
}
