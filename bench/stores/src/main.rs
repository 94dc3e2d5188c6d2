//! Updates a second, and the time until each is acknowledged, at "durable": as the journal gets them, from two shards
//! that each send a batch every millisecond, to one thread with one group commit.
//!
//!     cargo run --release -- DIRECTORY [UPDATES_PER_S] [SECONDS]

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

const SHARDS: u64 = 2;
const DOCUMENTS: u64 = 1000;
/// What a key stroke of a Yjs client has.
const UPDATE: [u8; 28] = [7; 28];

trait Store {
    fn append(&mut self, document: u64, sequence: u64);
    fn commit(&mut self);
}

struct Segment {
    file: File,
    group: Vec<u8>,
}

impl Segment {
    fn new(dir: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(dir.join("segment")).expect("a file");
        Self { file, group: Vec::new() }
    }
}

impl Store for Segment {
    fn append(&mut self, document: u64, _: u64) {
        let at = self.group.len();
        self.group.extend_from_slice(&[0; 8]);
        self.group.extend_from_slice(&[9; 32]); // tenant and app
        self.group.extend_from_slice(&document.to_be_bytes());
        self.group.extend_from_slice(&UPDATE);
        let length = (self.group.len() - at - 8) as u32;
        let crc = crc32c::crc32c(&self.group[at + 8..]);
        self.group[at..at + 4].copy_from_slice(&length.to_le_bytes());
        self.group[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    }

    fn commit(&mut self) {
        self.file.write_all(&self.group).expect("it is written");
        self.file.sync_data().expect("it is on disk");
        self.group.clear();
    }
}

struct Fjall {
    database: fjall::Database,
    updates: fjall::Keyspace,
    batch: Option<fjall::OwnedWriteBatch>,
}

impl Fjall {
    fn new(dir: &Path) -> Self {
        let database = fjall::Database::builder(dir).open().expect("a database");
        let updates =
            database.keyspace("updates", fjall::KeyspaceCreateOptions::default).expect("a keyspace");
        Self { database, updates, batch: None }
    }
}

impl Store for Fjall {
    fn append(&mut self, document: u64, sequence: u64) {
        let mut key = [9; 48];
        key[32..40].copy_from_slice(&document.to_be_bytes());
        key[40..].copy_from_slice(&sequence.to_be_bytes());
        let batch = self.batch.get_or_insert_with(|| self.database.batch());
        batch.insert(&self.updates, key, UPDATE);
    }

    fn commit(&mut self) {
        if let Some(batch) = self.batch.take() {
            batch.durability(Some(fjall::PersistMode::SyncData)).commit().expect("it is on disk");
        }
    }
}

/// User and system time of this process, in seconds.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("it is Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a line").split_whitespace().collect();
    (fields[11].parse::<f64>().expect("a number") + fields[12].parse::<f64>().expect("a number")) / 100.0
}

fn bytes_in(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a directory").flatten();
    entries.map(|e| if e.path().is_dir() { bytes_in(&e.path()) } else { e.metadata().map_or(0, |m| m.len()) }).sum()
}

fn measure(name: &str, dir: &Path, store: &mut dyn Store, per_s: u64, seconds: u64, gather: Duration) {
    let (send, receive) = mpsc::sync_channel::<(Instant, u64)>(65_536);
    let (began, cpu) = (Instant::now(), cpu_s());
    let shards: Vec<_> = (0..SHARDS)
        .map(|_| {
            let send = send.clone();
            std::thread::spawn(move || {
                for turn in 0..seconds * 1000 {
                    let due = began + Duration::from_millis(turn + 1);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    // Counted from when it was due: a store that is too slow must not slow the measurement down.
                    send.send((due, per_s / SHARDS / 1000)).expect("the store takes it");
                }
            })
        })
        .collect();
    drop(send);
    let mut latency_us = Histogram::<u64>::new(3).expect("bounds");
    let (mut sequence, mut commits) = (0, 0u64);
    let mut group = Vec::new();
    while let Ok(first) = receive.recv() {
        std::thread::sleep(gather);
        group.push(first);
        group.extend(receive.try_iter());
        for (_, count) in &group {
            for _ in 0..*count {
                store.append(sequence % DOCUMENTS, sequence);
                sequence += 1;
            }
        }
        store.commit();
        commits += 1;
        for (due, count) in group.drain(..) {
            latency_us.record_n(due.elapsed().as_micros() as u64, count).expect("in bounds");
        }
    }
    shards.into_iter().for_each(|shard| shard.join().expect("a shard"));
    let took = began.elapsed().as_secs_f64();
    let ms = |quantile| latency_us.value_at_quantile(quantile) as f64 / 1000.0;
    println!(
        "| {name} | {} | {:.0} | {:.1} | {:.1} | {:.1} | {:.0} | {:.0} % | {:.0} |",
        per_s,
        sequence as f64 / took,
        ms(0.5),
        ms(0.99),
        ms(0.999),
        commits as f64 / took,
        (cpu_s() - cpu) / took * 100.0,
        bytes_in(dir) as f64 / 1e6,
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let root = PathBuf::from(arguments.next().expect("usage: DIRECTORY [UPDATES_PER_S] [SECONDS]"));
    let per_s = arguments.next().map_or(50_000, |n| n.parse().expect("updates a second"));
    let seconds = arguments.next().map_or(8, |n| n.parse().expect("seconds"));
    println!("| store | offered/s | acknowledged/s | p50 ms | p99 ms | p99.9 ms | commits/s | CPU | MB on disk |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let run = |name: &str, make: &dyn Fn(&Path) -> Box<dyn Store>, gather_ms: u64| {
        let dir = root.join(name.replace(' ', "-"));
        std::fs::create_dir_all(&dir).expect("a directory");
        let mut store = make(&dir);
        measure(name, &dir, &mut *store, per_s, seconds, Duration::from_millis(gather_ms));
        drop(store);
        std::fs::remove_dir_all(&dir).expect("it goes");
    };
    for gather_ms in [0, 2, 5] {
        run(&format!("own file, gathers {gather_ms} ms"), &|dir| Box::new(Segment::new(dir)), gather_ms);
        run(&format!("fjall, gathers {gather_ms} ms"), &|dir| Box::new(Fjall::new(dir)), gather_ms);
    }
}
