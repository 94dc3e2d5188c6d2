//! Loss of power, some dozen times.
//!
//! Three file systems, each in a file of the next one:
//!
//! ```text
//! disk    ext4 with the node's journal. Its pages in memory are what a crash of the system loses.
//! cache   ext4 with the file of `disk`. Its pages in memory are the disk's volatile cache: a flush empties it.
//! medium  ext4 with the file of `cache`. It is frozen and that file copied: what the medium had at one instant.
//! ```
//!
//! A cut is that copy, mounted: both journals of ext4 are replayed, as after a real one, and the node starts on it.
//!
//! The control runs at `durability = "process"`, which promises nothing here: it must lose, or this proves nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::loops::{self, Ext4};
use super::recorder::{self, Recorder};
use super::schedule::{self, Schedule};
use super::support::{NodeSetup, Tenant};
use super::writers::{self, Part};

const DISK_MIB: u64 = 24;
const CACHE_MIB: u64 = 40;
const MEDIUM_MIB: u64 = 160;

/// A disk that forgets, when the power goes, what was not flushed.
#[derive(Debug)]
struct Disk {
    // Dropped, and unmounted, in this order.
    disk: Ext4,
    cache: Ext4,
    medium: Ext4,
    dir: TempDir,
}

impl Disk {
    #[track_caller]
    fn make() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| dir.path().join(name);
        let medium = Ext4::make(at("medium.img"), at("medium"), MEDIUM_MIB);
        let cache = Ext4::make(medium.mount.join("cache.img"), at("cache"), CACHE_MIB);
        let disk = Ext4::make(cache.mount.join("disk.img"), at("disk"), DISK_MIB);
        Self { disk, cache, medium, dir }
    }

    fn journal(&self) -> PathBuf {
        self.disk.mount.join("journal")
    }

    /// The medium at one instant; `at_that_instant` runs while nothing can be stored.
    #[track_caller]
    fn copy<T>(&self, at_that_instant: impl FnOnce() -> T) -> (PathBuf, T) {
        let copy = self.dir.path().join("copy.img");
        let frozen = self.medium.freeze();
        loops::run("cp", &["--sparse=always", loops::text(&self.cache.file), loops::text(&copy)]);
        let seen = at_that_instant();
        drop(frozen);
        (copy, seen)
    }

    /// Becomes what the copy is. Nobody may have a file of it open.
    #[track_caller]
    fn power_returns(&mut self, copy: &Path) {
        self.disk.unmount();
        self.cache.unmount();
        loops::run("cp", &["--sparse=always", loops::text(copy), loops::text(&self.cache.file)]);
        self.cache.mount();
        self.disk.mount();
    }
}

/// What came of some cuts.
#[derive(Debug, Default)]
struct Outcome {
    acknowledged: usize,
    lost: usize,
    cuts_that_lost: u64,
}

fn cut_the_power(seed: u64, cuts: u64, durability: &str) -> Outcome {
    let mut schedule = Schedule::new(seed);
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let mut disk = Disk::make();
    let recorder = Recorder::default();
    let setup = |schedule: &mut Schedule, disk: &Disk| {
        NodeSetup::new(&tenant)
            .set("node.shards", schedule.between(1, 3) as i64)
            .set("journal.directory", loops::text(&disk.journal()))
            .set("journal.durability", durability)
            // Each new segment is synced at every level: the control gets none.
            .set(
                "journal.segment_bytes",
                if durability == "disk" { schedule.pick(&[64 << 10, 1 << 20]) } else { 64 << 20 },
            )
            .set("sessions.grace_period_s", 300)
    };
    let mut server = setup(&mut schedule, &disk).start();
    let (mut outcome, mut kept_before) = (Outcome::default(), 0);
    for cut in 0..cuts {
        let is_over = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..schedule.between(2, 4))
            .map(|n| {
                // Others from time to time, so that they don't grow for ever.
                let document = format!("document-{}-{}", cut / 5, schedule.below(3));
                let part = Part::new(&mut schedule, document, format!("{cut}.{n}"));
                writers::start(&server, &token, part, &recorder, &is_over)
            })
            .collect();
        std::thread::sleep(schedule.micros(20_000, 600_000));
        let (copy, noted) = disk.copy(|| recorder.so_far());
        is_over.store(true, Ordering::Relaxed);
        let dir = server.kill();
        writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
        disk.power_returns(&copy);
        server = setup(&mut schedule, &disk).start_in(dir);
        let lost = recorder::lost(&server, &token, &mut schedule, &noted);
        outcome.acknowledged += noted.values().map(Vec::len).sum::<usize>() - kept_before;
        outcome.lost += lost.len();
        outcome.cuts_that_lost += u64::from(!lost.is_empty());
        if durability == "disk" {
            assert!(lost.is_empty(), "cut {cut}, CRASH_SEED={seed}: {} are lost: {lost:?}", lost.len());
        }
        // From here on the time goes on that the copy belongs to.
        let mut kept = noted;
        kept.values_mut().for_each(|marks| marks.retain(|mark| !lost.contains(mark)));
        recorder.reset_to(kept);
        kept_before = recorder.total();
    }
    server.kill();
    outcome
}

#[test]
fn what_was_acknowledged_at_level_disk_outlives_a_loss_of_power_and_at_level_process_it_does_not() {
    let (seed, cuts) = (schedule::seed(), schedule::count("CRASH_CUTS", 3));
    if let Some(why) = loops::unavailable() {
        return eprintln!("cuts: SKIPPED, nothing was tested: {why}");
    }
    eprintln!("cuts: CRASH_SEED={seed} CRASH_CUTS={cuts}");
    let disk = cut_the_power(seed, cuts, "disk");
    eprintln!("cuts: 0 lost of {} acknowledged in {cuts} cuts at level disk, seed {seed}", disk.acknowledged);
    let controls = cuts.min(5);
    let control = cut_the_power(seed, controls, "process");
    let Outcome { acknowledged, lost, cuts_that_lost } = control;
    eprintln!(
        "cuts: the control, at level process: {lost} lost of {acknowledged} acknowledged, in {cuts_that_lost} of {controls} cuts"
    );
    assert!(lost > 0, "the control loses nothing: these cuts are none");
}
