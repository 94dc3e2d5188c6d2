//! The simulator: a whole node under one seed. Engines as shards, the control shard's ledger, windows and keys, and the
//! journal's core are the real ones; network, disk, clocks and clients are made up ([`world`], [`network`], [`client`]).
//! Everything that may happen next is drawn from the seed, so that a run can be repeated.
//!
//! What goes wrong ([`schedule`], [`fate`], [`crash`]): connections break, half of one at times, clients stall, come back with
//! what they have, send twice or with a gap, and mean harm; letters between shards are late; tokens expire, are renewed,
//! allow to read only or some documents; keys come, go and are revoked; the control shard is mute; the disk is slow, full,
//! or fails; the wall clock is set; the node is killed or loses its power at any call to the disk, also while it
//! recovers, and returns with another number of shards.
//!
//! What must hold ([`check`], [`promise`], [`world::World::assert_empty`]): what was said to be stored is there for whoever comes later,
//! while the session lives; replicas converge; nobody gets another app's text, or that of who may only read; limits hold;
//! nobody is in with a token that isn't good; whoever is sent away is told a code, and there is a reason for it; queues
//! are bounded; damage is refused; when all have left nothing is left.
//!
//! `make simulate SEEDS=10000` runs more than the tests do. A failure prints the `WIRESOCKET_SEED` that repeats it.
//!
//! Not here: sockets, threads and files ([`crate::shard`], [`crate::journal::disk`]); `tests/` has them.

mod check;
pub mod client;
mod crash;
mod fate;
mod inspect;
mod network;
mod promise;
mod schedule;
mod turns;
pub mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use self::schedule::Schedule;
use super::Counters;

/// Of an ordinary test run.
const SEEDS: u64 = 300;
const STEPS: u64 = 120;

/// What happened in some runs.
#[derive(Default)]
struct Tally {
    seeds: u64,
    resyncs: u64,
    parked: u64,
    panics: u64,
    stored: u64,
    /// States that the journal wrote, and segments that it removed, since the nodes' last beginnings.
    states: u64,
    segments_removed: u64,
    faults: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.resyncs += other.resyncs;
        self.parked += other.parked;
        self.panics += other.panics;
        self.stored += other.stored;
        self.states += other.states;
        self.segments_removed += other.segments_removed;
        for (fault, times) in other.faults {
            *self.faults.entry(fault).or_default() += times;
        }
    }
}

fn run(seed: u64) -> Tally {
    let mut schedule = Schedule::new(seed);
    let mut tally = Tally { seeds: 1, ..Tally::default() };
    for step in 0..STEPS {
        schedule.step();
        schedule.check_bounds();
        if step % 40 == 39 {
            schedule.sync_all();
            if schedule.world.died {
                schedule.crash();
            } else {
                schedule.check();
            }
        }
    }
    schedule.finish();
    let Counters { resyncs, updates_parked, crdt_panics, .. } = schedule.world.counters();
    (tally.resyncs, tally.parked, tally.panics) = (resyncs, updates_parked, crdt_panics);
    tally.stored = schedule.world.promise.as_ref().map_or(0, |promise| promise.count);
    if let Some(log) = &schedule.world.journal {
        (tally.states, tally.segments_removed) =
            (log.figures().states_total, log.figures().segments_removed_total);
    }
    tally.faults = std::mem::take(&mut schedule.world.faults);
    tally
}

/// Every `stride`th seed from `first` on.
fn run_seeds(first: u64, end: u64, stride: u64) -> Result<Tally, u64> {
    let mut tally = Tally::default();
    for seed in (first..end).step_by(stride as usize) {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(one) => tally.add(one),
            Err(_) => return Err(seed), // the panic has been printed
        }
        if tally.seeds.is_multiple_of(500) {
            eprintln!("{} seeds of every {stride} passed, up to {seed}", tally.seeds);
        }
    }
    Ok(tally)
}

#[test]
#[allow(clippy::disallowed_methods)] // the seed is the developer's to choose
fn whatever_the_order_of_events_the_invariants_hold() {
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let (first, count) = match number("WIRESOCKET_SEED") {
        Some(seed) => (seed, 1),
        None => (number("WIRESOCKET_FIRST_SEED").unwrap_or(1), number("WIRESOCKET_SEEDS").unwrap_or(SEEDS)),
    };
    let threads = number("WIRESOCKET_THREADS").unwrap_or(1).max(1);
    let results: Vec<Result<Tally, u64>> = std::thread::scope(|scope| {
        let run = |nth| scope.spawn(move || run_seeds(first + nth, first + count, threads));
        let running: Vec<_> = (0..threads).map(run).collect();
        running.into_iter().map(|thread| thread.join().expect("panics are caught in there")).collect()
    });
    let mut tally = Tally::default();
    for result in results {
        match result {
            Ok(some) => tally.add(some),
            Err(seed) => panic!("seed {seed} fails (see above); repeat it with WIRESOCKET_SEED={seed}"),
        }
    }
    let Tally { seeds, resyncs, parked, panics, stored, states, segments_removed, faults } = tally;
    let injected: u64 = faults.values().sum();
    eprintln!("{seeds} seeds passed: {stored} updates said to be stored, {injected} faults: {faults:?}");
    // Orders of events that never get to the rare paths would say nothing of them.
    if seeds >= 100 {
        let reached = [resyncs, parked, panics, stored, states, segments_removed]
            .iter()
            .all(|times| *times >= seeds / 50);
        let journal = format!("{states} states written, {segments_removed} segments removed");
        assert!(reached, "{resyncs} resyncs, {parked} parked, {panics} panics, {stored} stored, {journal}");
        assert!(faults.len() >= 20, "{} kinds of faults: {faults:?}", faults.len());
    }
}
