//! How long a journal takes to be read, by what is in it: `cargo run --release -p wiresocket-bench --bin recovery DIRECTORY`.
//!
//! Each case is written with the journal's own core, and read as a node does at its start: every record checked, what counts
//! of each document gathered, and the documents made, on as many threads as there are shards.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use uuid::Uuid;
use wiresocket::engine::document::Document;
use wiresocket::journal::disk::Directory;
use wiresocket::journal::log::{Log, LogSettings};
use wiresocket::journal::recovery::RecoveredDocument;
use wiresocket::journal::{Command, Contents, Retention, record};
use wiresocket::protocol::document::{AppId, DocumentId, DocumentName};
use wiresocket_bench::{TENANT, paste, typing};

const SHARDS: u16 = 2;
const SETTINGS: LogSettings = LogSettings {
    syncs: false,
    segment_bytes: 16 << 20,
    retention: Retention::Session,
    shards: SHARDS,
    seed: 1,
};

/// So many documents, each with a state of so many characters and so many key strokes behind it.
struct Case {
    documents: u32,
    characters: usize,
    strokes: u32,
}

const CASES: [Case; 4] = [
    Case { documents: 10_000, characters: 0, strokes: 100 },
    Case { documents: 10_000, characters: 10_000, strokes: 20 },
    Case { documents: 1_000, characters: 1_000_000, strokes: 0 },
    Case { documents: 10_000, characters: 66_000, strokes: 370 },
];

fn id(number: u32) -> DocumentId {
    let app = AppId { tenant: TENANT, app: Uuid::from_u128(2) };
    DocumentId { app, name: DocumentName::parse(&format!("document-{number}")).expect("a good name") }
}

fn write(path: &Path, case: &Case) {
    let directory = Directory::open(path).expect("a directory");
    let (mut log, _) = Log::open(directory, SETTINGS).expect("an empty journal");
    let state = Bytes::from(if case.characters > 0 { paste(case.characters) } else { Vec::new() });
    let commit = |log: &mut Log<Directory>| {
        while log.has_work() {
            log.commit();
            log.maintain(0);
        }
        while log.poll_reply().is_some() {}
    };
    for number in (0..case.documents).filter(|_| case.characters > 0) {
        let contents = Contents { snapshot: state.clone(), tail: Vec::new() };
        log.handle(Command::Keep { shard: 0, document: id(number), contents, rests: false });
        commit(&mut log);
    }
    for (stroke, update) in (1..).zip(typing(case.strokes)) {
        let mut records = Vec::new();
        for number in 0..case.documents {
            record::write_update(&mut records, &id(number), &update);
        }
        log.handle(Command::Append { shard: 0, number: stroke, records, awaited: false });
        commit(&mut log);
    }
    assert_eq!(log.failure(), None);
}

fn rss_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1000
}

fn read(path: &Path, case: &Case) {
    let before = rss_mb();
    let began = Instant::now();
    let directory = Directory::open(path).expect("a directory");
    let (log, recovered) = Log::open(directory, SETTINGS).expect("a whole journal");
    let read_s = began.elapsed().as_secs_f64();
    let (bytes, records) = (recovered.bytes, recovered.records);
    let mut by_shard: Vec<Vec<RecoveredDocument>> = (0..SHARDS).map(|_| Vec::new()).collect();
    for document in recovered.documents {
        by_shard[usize::from(document.id.shard(SHARDS))].push(document);
    }
    let documents: Vec<Vec<Document>> = std::thread::scope(|scope| {
        let make = |documents: Vec<RecoveredDocument>| {
            documents.into_iter().map(|one| Document::restored(one.contents)).collect()
        };
        let makers: Vec<_> =
            by_shard.into_iter().map(|documents| scope.spawn(move || make(documents))).collect();
        makers.into_iter().map(|maker| maker.join().expect("it does not panic")).collect()
    });
    let all_s = began.elapsed().as_secs_f64();
    let count: usize = documents.iter().map(Vec::len).sum();
    assert_eq!(count, case.documents as usize);
    println!(
        "| {} | {} | {} | {:.0} | {records} | {read_s:.2} | {all_s:.2} | {} |",
        case.documents,
        case.characters,
        case.strokes,
        bytes as f64 / 1e6,
        rss_mb() - before,
    );
    drop((log, documents));
}

fn main() {
    let root = PathBuf::from(std::env::args().nth(1).expect("usage: recovery DIRECTORY"));
    println!(
        "| documents | characters | key strokes | MB on disk | records | s to read | s in all | MB of memory |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (number, case) in CASES.iter().enumerate() {
        let path = root.join(format!("recovery-{number}"));
        write(&path, case);
        read(&path, case);
        std::fs::remove_dir_all(&path).expect("it goes");
    }
}
