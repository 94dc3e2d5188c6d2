//! A load tester for Yjs servers.
//!
//! ```text
//! scenario ──► load::{typing, idle, storm, join, day} ──► report
//!                │  schedule: when each update is due     (pure)
//!                │  verification: what arrived, once?     (pure)
//!                │  update: typist writes, scan reads     (pure)
//!                ▼
//!             event_loop ──► client ──► wire              one thread, one epoll set
//!             measure: clock, latencies, the server's CPU and memory, second by second
//! tokens: made, fetched, renewed     processes: one scenario in several     report: tables, pages, comparisons
//! ```
//!
//! Open loop: updates are due on a fixed schedule and latency counts from the instant each was due.
//! What arrives is identified by (client, clock), so a server may merge messages as it likes; every run
//! ends by checking that every reader has every item, and a wrong result fails it.
//!
//! Deliberately absent: an async runtime, threads that drive load, TLS towards the server under test, and the
//! server's own code. A load tester must be cheap (one core of it has to saturate one core of any server) and
//! must not share the server's mistakes. (Tokens are renewed, and orders of a parent read, by threads that
//! sleep nearly always.)

pub mod client;
pub mod event_loop;
pub mod lib0;
pub mod load;
pub mod measure;
pub mod processes;
pub mod progress;
pub mod ramp;
pub mod redaction;
pub mod relay;
pub mod report;
pub mod scenario;
pub mod schedule;
pub mod target;
pub mod tokens;
pub mod trace;
pub mod update;
pub mod verification;
pub mod watch;
pub mod wire;
