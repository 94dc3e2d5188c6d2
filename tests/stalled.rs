//! Readers that stop reading while others write tens of megabytes: nobody else notices, the server's memory stays
//! bounded, and whoever reads again has everything.
//!
//! Writers keep their pace to the readers that do read, as people keep theirs to what they see: so what the server
//! queues is queued for the stalled ones.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};

use support::wire::{self, Wire};
use support::{Client, NodeSetup, Replica, Server, Tenant, wait_until};
use yrs::{Map, Out, ReadTxn, Transact, WriteTxn};

const WRITERS: usize = 2;
const NAME: &str = "busy";
const FILLER_BYTES: usize = 8 << 10;
/// How far a writer may be ahead of the slowest reader that reads, in updates.
const AHEAD_MAX: u64 = 16;

/// 16 stalled readers, 40 MiB of updates for each. Unbounded queues would take over 500 MiB; the document itself, which
/// keeps what is overwritten, and keeps it live and encoded, may take three times what was written.
#[test]
fn stalled_readers_cost_a_bounded_queue_each_and_converge_once_they_read() {
    const STALLED: usize = 16;
    const UPDATES: u64 = 2560;
    const OUTBOX_BYTES_MAX: u64 = 256 << 10;
    const WRITTEN_BYTES: u64 = WRITERS as u64 * UPDATES * FILLER_BYTES as u64;
    const GROWTH_BYTES_MAX: u64 = 3 * WRITTEN_BYTES + STALLED as u64 * 2 * OUTBOX_BYTES_MAX;
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant)
        .set("limits.outbox_bytes_max", OUTBOX_BYTES_MAX as i64)
        .set("limits.stall_timeout_s", 600)
        .set("sessions.idle_timeout_s", 600)
        .start();
    let token = tenant.token().build();
    let mut crowd = Crowd::gather(&server, &token);
    let mut stalled: Vec<Replica> = (1..STALLED).map(|_| Replica::join(&server, NAME, &token)).collect();
    stalled.push(Replica::join_hocuspocus(&server, NAME, &token));
    let before = server.rss_bytes();

    let highest = crowd.write(&server, UPDATES, || false);
    let metrics = server.metrics();
    println!("RSS {} KiB, at most {} KiB while they wrote", before >> 10, highest >> 10);
    let queued = metrics.get("wiresocket_outbox_high_water_bytes");
    // The bound, and what the writers could send in the turn that passed it.
    let turn_bytes = AHEAD_MAX * WRITERS as u64 * (FILLER_BYTES as u64 + 64);
    assert!(queued > OUTBOX_BYTES_MAX as f64 && queued < (OUTBOX_BYTES_MAX + turn_bytes) as f64, "{queued}");
    assert_eq!(metrics.get("wiresocket_stalled_connections"), STALLED as f64);
    assert_eq!(metrics.get("wiresocket_resyncs_total"), 0.0);
    assert!(highest < before + GROWTH_BYTES_MAX, "{before} bytes grew to {highest}");
    for replica in &mut stalled {
        replica.wait_for("everything", |replica| numbers(replica) == [UPDATES; WRITERS]);
        // It missed updates on the way: one state stood for them.
        assert!((replica.updates_received as u64) < UPDATES * WRITERS as u64);
    }
    server.wait_for_metric("wiresocket_stalled_connections", 0.0);
    // From here on they are readers like the others.
    // More than one each is right: the state itself can be more than the bound.
    assert!(server.metrics().get("wiresocket_resyncs_total") >= STALLED as f64);
    crowd.readers.append(&mut stalled);
    crowd.write(&server, UPDATES + 50, || false);
    let metrics = server.metrics();
    assert_eq!(metrics.get("wiresocket_ledger_connections"), (WRITERS + 3 + STALLED) as f64);
    let rss = server.rss_bytes();
    println!("RSS {} KiB after everybody has everything", rss >> 10);
    assert!(rss < before + GROWTH_BYTES_MAX, "{before} bytes grew to {rss}");
}

#[test]
fn a_reader_that_never_reads_again_is_closed_and_nobody_else() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant)
        .set("limits.outbox_bytes_max", "64 KiB")
        .set("limits.stall_timeout_s", 1)
        .set("sessions.idle_timeout_s", 600)
        .start();
    let token = tenant.token().build();
    let mut crowd = Crowd::gather(&server, &token);
    let mut stalled = Client::join(&server, NAME, &token);
    stalled.send(&wire::step_one(&[0]));
    let connections = (WRITERS + 3) as f64;
    server.wait_for_metric("wiresocket_ledger_connections", connections + 1.0);

    // Endless, if it weren't closed: then its end does not come before the deadline.
    crowd.write(&server, 100_000, || server.metrics().closes(1013) > 0.0);
    let metrics = server.metrics();
    assert_eq!(metrics.closes(1013), 1.0);
    server.wait_for_metric("wiresocket_ledger_connections", connections);
    server.wait_for_metric("wiresocket_stalled_connections", 0.0);
    let (code, _) = stalled.closed();
    assert!(code == 1013 || code == 1006, "closed with {code}");
    let sent = crowd.sent;
    crowd.write(&server, sent + 50, || false);
    assert_eq!(server.metrics().closes(1013), 1.0);
}

/// Those who write and those who read.
struct Crowd {
    writers: Vec<Replica>,
    readers: Vec<Replica>,
    /// How many updates each writer has sent.
    sent: u64,
}

impl Crowd {
    fn gather(server: &Server, token: &str) -> Self {
        let writers = (0..WRITERS).map(|_| Replica::join(server, NAME, token)).collect();
        let mut readers: Vec<Replica> = (0..2).map(|_| Replica::join(server, NAME, token)).collect();
        readers.push(Replica::join_hocuspocus(server, NAME, token));
        Self { writers, readers, sent: 0 }
    }

    /// Each writer goes on to its update number `last`, or until it is `enough`. Readers must get every single update
    /// of each writer, in order. Returns the server's highest resident memory meanwhile.
    fn write(&mut self, server: &Server, last: u64, enough: impl Fn() -> bool + Sync) -> u64 {
        let (first, highest) = (self.sent + 1, AtomicU64::new(0));
        let until = std::time::Instant::now() + support::DEADLINE * 3;
        let mut seen: Vec<Vec<AtomicU64>> = Vec::new();
        for _ in &self.readers {
            seen.push((0..WRITERS).map(|_| AtomicU64::new(first - 1)).collect());
        }
        let seen = &seen;
        let mut at = first;
        // In rounds, so that all writers end at the same number.
        while at <= last && !enough() {
            assert!(std::time::Instant::now() < until, "it is not enough yet, at update {at}");
            let round_end = last.min(at + 127);
            std::thread::scope(|scope| {
                for (reader, seen) in self.readers.iter_mut().zip(seen) {
                    scope.spawn(move || follow(reader, seen, round_end));
                }
                for (writer, replica) in self.writers.iter_mut().enumerate() {
                    scope.spawn(move || {
                        for number in at..=round_end {
                            keep_pace(seen, writer, number);
                            send(replica, writer, number);
                        }
                        replica.flush();
                    });
                }
            });
            highest.fetch_max(server.rss_bytes(), Ordering::Relaxed);
            at = round_end + 1;
        }
        self.sent = at - 1;
        highest.into_inner()
    }
}

fn keep_pace(seen: &[Vec<AtomicU64>], writer: usize, number: u64) {
    wait_until("the readers keep up", || {
        seen.iter().all(|seen| number - seen[writer].load(Ordering::Acquire) <= AHEAD_MAX)
    });
}

/// Overwrites the writer's entry: much to send, little to keep.
fn send(replica: &mut Replica, writer: usize, number: u64) {
    let update = {
        let mut transaction = replica.doc.transact_mut();
        let map = transaction.get_or_insert_map("writers");
        let value = format!("{number}:{}", "x".repeat(FILLER_BYTES));
        map.insert(&mut transaction, writer.to_string(), value);
        transaction.encode_update_v1()
    };
    replica.send(&wire::update(&update));
    if number.is_multiple_of(8) {
        replica.flush();
    }
}

/// Reads up to this number of every writer. Each message must bring the next update of one of them.
fn follow(reader: &mut Replica, seen: &[AtomicU64], last: u64) {
    let mut known = numbers(reader);
    while known != [last; WRITERS] {
        let count = reader.updates_received;
        reader.wait_for("the next update", |reader| reader.updates_received > count);
        let now = numbers(reader);
        let steps: Vec<u64> = now.iter().zip(&known).map(|(now, known)| now - known).collect();
        assert_eq!(steps.iter().sum::<u64>(), 1, "from {known:?} to {now:?} in one update");
        known = now;
        for (seen, &number) in seen.iter().zip(&known) {
            seen.store(number, Ordering::Release);
        }
    }
    if let Wire::Hocuspocus(_) = reader.wire {
        assert_eq!(reader.refused, 0);
    }
}

/// Which update of each writer a replica has.
fn numbers(replica: &Replica) -> [u64; WRITERS] {
    let transaction = replica.doc.transact();
    let Some(map) = transaction.get_map("writers") else { return [0; WRITERS] };
    std::array::from_fn(|writer| match map.get(&transaction, &writer.to_string()) {
        Some(Out::Any(value)) => {
            let value = value.to_string();
            value.split(':').next().and_then(|number| number.parse().ok()).expect("a number")
        }
        None => 0,
        Some(other) => panic!("no value: {other:?}"),
    })
}
