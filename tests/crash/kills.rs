//! `kill -9`, some hundred times.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::recorder::{self, Recorder};
use super::schedule::{self, Schedule};
use super::support::{NodeSetup, Server, Tenant, wait_until};
use super::writers::{self, Part};

/// The smallest there is: a new one every few milliseconds.
const SEGMENT_BYTES: i64 = 64 << 10;

/// When the kill comes, counted from when everybody writes.
#[derive(Debug, Clone, Copy)]
enum Moment {
    After(Duration),
    /// As soon as so many acknowledgements have arrived: what the last one stands for is as new as it can be.
    Acknowledged(usize),
    /// So long after a segment was begun.
    Rotation(Duration),
    /// So long after a segment was removed: what counted in it had been written anew.
    Compaction(Duration),
}

/// What rotations and compactions wait for before they take any moment.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
struct Kills {
    writing: u64,
    acknowledged: u64,
    rotation: u64,
    compaction: u64,
    starting: u64,
}

impl Kills {
    fn total(&self) -> u64 {
        self.writing + self.acknowledged + self.rotation + self.compaction + self.starting
    }
}

/// One journal's settings, from its beginning to the end.
#[derive(Debug, Clone)]
struct Life {
    durability: &'static str,
    retention: &'static str,
    /// Documents whose writers leave are written down and forgotten by their shard at once, or stay.
    grace_period_s: f64,
}

impl Life {
    fn new(schedule: &mut Schedule) -> Self {
        let (retention, grace_period_s) = schedule.pick(&[("session", 300.0), ("forever", 0.05)]);
        let durability = schedule.pick(&["disk", "disk", "process"]);
        Self { durability, retention, grace_period_s }
    }

    fn setup(&self, schedule: &mut Schedule, tenant: &Tenant) -> NodeSetup {
        NodeSetup::new(tenant)
            .set("node.shards", schedule.between(1, 3) as i64)
            .set("journal.durability", self.durability)
            .set("journal.retention", self.retention)
            .set("journal.segment_bytes", SEGMENT_BYTES)
            .set("sessions.grace_period_s", self.grace_period_s)
    }
}

#[test]
fn what_was_acknowledged_outlives_kill_9_at_any_moment() {
    let (seed, wanted) = (schedule::seed(), schedule::count("CRASH_KILLS", 10));
    eprintln!("kills: CRASH_SEED={seed} CRASH_KILLS={wanted}");
    let mut schedule = Schedule::new(seed);
    let tenant = Tenant::new(1);
    let began = Instant::now();
    let (mut kills, mut acknowledged, mut lives) = (Kills::default(), 0, 0);
    while kills.total() < wanted {
        acknowledged += life(&mut schedule.fork(), &tenant, &mut kills, wanted, seed);
        lives += 1;
    }
    let Kills { writing, acknowledged: just, rotation, compaction, starting } = kills;
    eprintln!(
        "kills: 0 lost of {acknowledged} acknowledged in {} kills ({writing} while writing, {just} at an acknowledgement, {rotation} at a rotation, \
         {compaction} at a compaction, {starting} while starting), {lives} journals, seed {seed}, {} s",
        kills.total(),
        began.elapsed().as_secs()
    );
}

/// Without a journal this very test must find that things are lost.
#[test]
fn the_control_without_a_journal_loses() {
    let seed = schedule::seed();
    eprintln!("the control of kills: CRASH_SEED={seed}");
    let mut schedule = Schedule::new(seed);
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let setup = || NodeSetup::new(&tenant).set("journal.durability", "memory");
    let (server, recorder) = (setup().start(), Recorder::default());
    let part = Part::new(&mut schedule, "document-0".to_owned(), "0".to_owned());
    let writer = writers::start(&server, &token, part, &recorder, &Arc::default());
    wait_until("something is acknowledged", || recorder.total() > 40);
    let dir = server.kill();
    writer.join().expect("a writer");
    let server = setup().start_in(dir);
    let lost = recorder::lost(&server, &token, &mut schedule, &recorder.so_far());
    assert_eq!(lost.len(), recorder.total());
}

/// A journal through up to a dozen crashes; how much was acknowledged.
fn life(schedule: &mut Schedule, tenant: &Tenant, kills: &mut Kills, wanted: u64, seed: u64) -> usize {
    let life = Life::new(schedule);
    let token = tenant.token().build();
    let recorder = Recorder::default();
    let mut server = life.setup(schedule, tenant).start();
    let documents = schedule.between(2, 5);
    for round in 0..schedule.between(4, 12) {
        let parts: Vec<Part> = (0..schedule.between(2, 5))
            .map(|n| {
                let document = format!("document-{}", schedule.below(documents));
                Part::new(schedule, document, format!("{round}.{n}"))
            })
            .collect();
        let is_over = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = parts
            .into_iter()
            .map(|part| writers::start(&server, &token, part, &recorder, &is_over))
            .collect();
        let moment = match schedule.below(4) {
            0 => Moment::After(schedule.micros(1_000, 250_000)),
            1 => Moment::Acknowledged(schedule.between(1, 200) as usize),
            2 => Moment::Rotation(schedule.micros(0, 3_000)),
            _ => Moment::Compaction(schedule.micros(0, 3_000)),
        };
        let mut dir = kill_at(server, moment, kills, &recorder);
        writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
        for _ in 0..schedule.below(3) {
            dir = life.setup(schedule, tenant).kill_while_starting(schedule.micros(500, 60_000), dir);
            kills.starting += 1;
        }
        server = life.setup(schedule, tenant).start_in(dir);
        assert_eq!(server.get("/health").status, 200);
        let noted = recorder.so_far();
        let lost = recorder::lost(&server, &token, schedule, &noted);
        assert!(
            lost.is_empty(),
            "{} of {} acknowledged marks are lost after {moment:?} in round {round} of {life:?} (kill {}, \
             CRASH_SEED={seed}): {lost:?}",
            lost.len(),
            recorder.total(),
            kills.total()
        );
        if kills.total() >= wanted {
            break;
        }
    }
    recorder.total()
}

fn kill_at(server: Server, moment: Moment, kills: &mut Kills, recorder: &Recorder) -> TempDir {
    let journal = server.key_dir().with_file_name("journal");
    let after = match moment {
        Moment::After(time) => {
            kills.writing += 1;
            time
        }
        Moment::Acknowledged(count) => {
            kills.acknowledged += 1;
            let enough = recorder.total() + count;
            let began = Instant::now();
            while recorder.total() < enough && began.elapsed() < PATIENCE {
                std::thread::yield_now();
            }
            Duration::ZERO
        }
        Moment::Rotation(time) if happens(|| ends(&journal).1) => {
            kills.rotation += 1;
            time
        }
        Moment::Compaction(time) if happens(|| ends(&journal).0) => {
            kills.compaction += 1;
            time
        }
        Moment::Rotation(time) | Moment::Compaction(time) => {
            kills.writing += 1;
            time
        }
    };
    std::thread::sleep(after);
    server.kill()
}

/// Watches a number until it is another one; false if it stays.
fn happens(number: impl Fn() -> u64) -> bool {
    let (before, began) = (number(), Instant::now());
    while number() == before {
        if began.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    true
}

/// The oldest and the newest segment.
fn ends(journal: &Path) -> (u64, u64) {
    let entries = std::fs::read_dir(journal).expect("the journal's directory");
    let number = |entry: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
        entry.ok()?.file_name().to_str()?.strip_prefix("journal-")?.parse().ok()
    };
    let numbers: Vec<u64> = entries.filter_map(number).collect();
    (numbers.iter().copied().min().unwrap_or(0), numbers.iter().copied().max().unwrap_or(0))
}
