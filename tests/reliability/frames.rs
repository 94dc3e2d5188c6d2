//! What the dearest well-formed frames cost that we know to write: CPU time, and memory held at once beyond the frame's own.
//! In process, since a socket would only blur it.

use wiresocket::engine::document::Document;
use wiresocket::engine::prescan::{Scan, ScanLimits, scan};
use wiresocket::engine::state_vector::StateVector;
use wiresocket::protocol::lib0::write_var_u64;

use crate::cost::{Cost, measured};
use crate::{MIB, figure};

/// As large as each frame may get.
const FRAME_BYTES: usize = 64 << 10;

/// Structs of as many clients as fit, each by `of`.
fn clients(mut of: impl FnMut(u64, &mut Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::new();
    let mut count = 0;
    while body.len() + 64 < FRAME_BYTES {
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
fn structs(first: &[u8], next: impl Fn(u64, &mut Vec<u8>)) -> Vec<u8> {
    let mut body = first.to_vec();
    let mut count = 1;
    while body.len() + 64 < FRAME_BYTES {
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

fn shapes() -> Vec<(&'static str, Vec<u8>)> {
    let letter = [4, 1, 1, b't', 1, b'x'];
    vec![
        (
            "many clients at one place",
            clients(|client, out| {
                out.push(1);
                write_var_u64(out, client);
                out.push(0);
                out.extend(letter);
            }),
        ),
        (
            "many clients under one key",
            clients(|client, out| {
                out.push(1);
                write_var_u64(out, client);
                out.extend([0, 0x24, 1, 1, b't', 1, b'k', 1, b'x']);
            }),
        ),
        (
            "one client, each letter before the last",
            structs(&letter, |clock, out| {
                out.extend([0x44, 1]);
                write_var_u64(out, clock - 1);
                out.extend([1, b'x']);
            }),
        ),
        (
            "one client, each letter behind the first",
            structs(&letter, |_, out| {
                out.extend([0x84, 1, 0, 1, b'x']);
            }),
        ),
        (
            "one key, written over and over",
            structs(&[0x24, 1, 1, b't', 1, b'k', 1, b'x'], |clock, out| {
                out.extend([0xa4, 1]);
                write_var_u64(out, clock - 1);
                out.extend([1, b'x']);
            }),
        ),
        (
            "rivals for a key that name a right neighbour",
            structs(&[0x24, 1, 1, b't', 1, b'k', 1, b'x'], |_, out| {
                out.extend([0x44, 1, 0, 1, b'x']);
            }),
        ),
        (
            "values that continue one another",
            structs(&[8, 1, 1, b't', 1, 126], |clock, out| {
                out.extend([0x88, 1]);
                write_var_u64(out, clock - 1);
                out.extend([1, 126]);
            }),
        ),
        ("collected ranges", structs(&[0, 1], |_, out| out.extend([0, 1]))),
        (
            "shared types beside one another",
            structs(&[7, 1, 1, b't', 0], |_, out| {
                out.extend([7, 1, 1, b't', 0]);
            }),
        ),
        ("one string", {
            let mut update = vec![1, 1, 1, 0, 4, 1, 1, b't'];
            write_var_u64(&mut update, (FRAME_BYTES - 64) as u64);
            update.resize(update.len() + FRAME_BYTES - 64, b'x');
            update.push(0);
            update
        }),
    ]
}

#[test]
fn the_dearest_frames_that_we_know() {
    let (mut slowest, mut largest) = ((Cost::default(), ""), (Cost::default(), ""));
    for (what, update) in shapes() {
        assert!(update.len() <= FRAME_BYTES, "{what}");
        let mut document = Document::default();
        let mut buffer = Scan::new();
        let mut accepted = false;
        let cost = measured(|| {
            if scan(&update, &ScanLimits::default(), &mut buffer).is_ok() {
                accepted = document.apply(&update, &buffer, usize::MAX).is_ok();
                drop(document.encode());
            }
        });
        assert_eq!(document.take_panics(), 0, "{what}");
        println!(
            "{what}: {} KiB, {}, {:.1?}, {:.1} MiB",
            update.len() >> 10,
            if accepted { "taken" } else { "refused" },
            cost.time,
            cost.bytes as f64 / MIB as f64
        );
        let bound = ScanLimits::default().squash_bytes_max as usize + 64 * update.len();
        assert!(cost.bytes < bound, "{what}: {} MiB", cost.bytes as u64 / MIB);
        if cost.time > slowest.0.time {
            slowest = (cost, what);
        }
        if cost.bytes > largest.0.bytes {
            largest = (cost, what);
        }
    }
    let mut state = Vec::new();
    write_var_u64(&mut state, (FRAME_BYTES / 8) as u64);
    (0..FRAME_BYTES as u64 / 8).for_each(|client| {
        write_var_u64(&mut state, client << 20);
        write_var_u64(&mut state, 1);
    });
    let cost = measured(|| drop(StateVector::decode(&state)));
    println!(
        "a state vector: {} KiB, {:.1?}, {:.1} MiB",
        state.len() >> 10,
        cost.time,
        cost.bytes as f64 / MIB as f64
    );
    figure(
        "the dearest frames of 64 KiB",
        format_args!(
            "{:.0?} of CPU ({}), {:.1} MiB ({})",
            slowest.0.time,
            slowest.1,
            largest.0.bytes as f64 / MIB as f64,
            largest.1
        ),
    );
}
