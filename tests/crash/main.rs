//! Crashes of the real binary: what was acknowledged before one is there after it.
//!
//! | file | the crash |
//! | --- | --- |
//! | `kills` | `kill -9` at any instant: while writing, at a rotation, at a compaction, while starting |
//! | `cuts` | a loss of power: the disk as it was, with what its cache had not stored gone |
//! | `disks` | a disk that is full, and one whose `fdatasync` fails |
//!
//! `make test` runs a slice; `make crash` runs `CRASH_KILLS=200` kills and `CRASH_CUTS=50` cuts. Each run prints its
//! seed, and `CRASH_SEED` replays its schedule: who writes where, and at what moment the crash comes.
//!
//! What sleeps here is the schedule: a crash at a moment is what is tested. Nothing sleeps to wait for something.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod cuts;
mod disks;
mod kills;
mod loops;
mod recorder;
mod schedule;
#[path = "../support/mod.rs"]
mod support;
mod writers;
