//! The rows of docs/reliability.md that one node can show and no other test does, each with its figure.
//!
//! What is printed as `figure:` stands in that table: `make figures`.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

#[path = "../fuzz/cost.rs"]
mod cost;
mod floods;
mod frames;
mod histories;
mod origins;
mod poison;
mod revocation;
#[path = "../support/mod.rs"]
mod support;
mod tenants;
mod token_matrix;
#[allow(dead_code)] // the other trace is not read here
#[path = "../trace/mod.rs"]
mod trace;

use std::time::Duration;

use support::Server;

const MIB: u64 = 1 << 20;

fn figure(row: &str, figure: std::fmt::Arguments<'_>) {
    println!("figure: {row}: {figure}");
}

/// The most memory that the process has had at once, in bytes.
fn peak_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

/// How much more the process had at once since it had `before`, in MiB.
fn grown_mib(server: &Server, before: u64) -> f64 {
    peak_bytes(server).saturating_sub(before) as f64 / MIB as f64
}

/// The value that 99 of 100 don't pass, and the greatest.
fn p99_and_max(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    let last = times.len() - 1;
    (times[last - times.len() / 100], times[last])
}
