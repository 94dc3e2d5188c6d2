//! The server's pure modules, from the server's own files, without its runtimes, databases and web pages: what is fuzzed
//! is built in a minute, and the fuzzer's counters are of nothing else.
#![allow(dead_code, clippy::all)]

#[path = "../../src/auth/mod.rs"]
pub mod auth;
#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/engine/mod.rs"]
pub mod engine;
#[path = "../../src/limits/mod.rs"]
pub mod limits;
#[path = "../../src/protocol/mod.rs"]
pub mod protocol;
#[path = "../../src/time/mod.rs"]
pub mod time;
