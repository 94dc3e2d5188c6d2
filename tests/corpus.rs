//! The fuzzer's corpora, on any toolchain: what was ever found worth keeping goes through its target again.
//!
//! The targets are those of tests/fuzz (see the README there); here they are linked with the whole server. Each test
//! says what the dearest of its inputs cost. `cargo test --test corpus -- --ignored` writes the seeds anew.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

#[path = "fuzz/cost.rs"]
mod cost;
#[path = "fuzz/seeds.rs"]
mod seeds;
#[path = "fuzz/targets/mod.rs"]
mod targets;
#[allow(dead_code)] // the other trace is not read here
mod trace;

use std::path::PathBuf;
use std::sync::Mutex;

use cost::{Cost, measured};

/// No input of a few kilobytes may make the server hold more than this.
const BYTES_MAX: usize = 16 << 20;

/// Memory is counted for the whole process: one target at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

fn replay(target: &str) {
    let _alone = ALONE.lock();
    let (_, run) = targets::ALL.iter().find(|(name, _)| *name == target).expect("a target of this name");
    let folder = folder(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("it can be listed").path()).collect();
    paths.sort();
    assert!(paths.len() >= 5, "{} files in {}", paths.len(), folder.display());
    run(&std::fs::read(&paths[0]).expect("it can be read")); // what is made once is not to be measured
    let (mut slowest, mut largest) = ((Cost::default(), None), (Cost::default(), None));
    for path in &paths {
        let input = std::fs::read(path).expect("it can be read");
        let cost = measured(|| run(&input));
        assert!(cost.bytes <= BYTES_MAX, "{}: {} MiB are held", path.display(), cost.bytes >> 20);
        if cost.time > slowest.0.time {
            slowest = (cost, path.file_name());
        }
        if cost.bytes > largest.0.bytes {
            largest = (cost, path.file_name());
        }
    }
    println!(
        "{target}: {} inputs; slowest {:.2} ms ({}), largest {} KiB ({})",
        paths.len(),
        slowest.0.time.as_secs_f64() * 1e3,
        slowest.1.unwrap_or_default().display(),
        largest.0.bytes >> 10,
        largest.1.unwrap_or_default().display(),
    );
}

#[test]
fn heads_are_parsed_or_refused() {
    replay("head");
}

#[test]
fn what_proxies_say_is_read_or_refused() {
    replay("proxy");
}

#[test]
fn frames_are_read_or_refused_however_they_arrive() {
    replay("frames");
}

#[test]
fn y_websocket_messages_harm_no_other_client() {
    replay("sync");
}

#[test]
fn hocuspocus_messages_harm_no_other_client() {
    replay("hocuspocus");
}

#[test]
fn awareness_stays_readable_and_bounded() {
    replay("awareness");
}

#[test]
fn documents_survive_every_update() {
    replay("document");
}

#[test]
fn tokens_grant_what_was_signed() {
    replay("token");
}

#[test]
fn configurations_are_read_or_refused() {
    replay("config");
}

#[test]
#[ignore = "writes tests/fuzz/corpus"]
fn seeds_are_written() {
    for (target, seeds) in seeds::all() {
        let folder = folder(target);
        std::fs::create_dir_all(&folder).expect("the corpus can be written");
        for (name, bytes) in seeds {
            std::fs::write(folder.join(format!("seed-{name}")), bytes).expect("the seed can be written");
        }
    }
}
