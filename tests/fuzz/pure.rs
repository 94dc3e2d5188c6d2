//! The server's pure modules, from the server's own files, without its runtimes, databases and web pages: what is fuzzed
//! is built in a minute, and the fuzzer's counters are of nothing else. `journal` and `tls` are here for what the engine and
//! the configuration take of them.
#![allow(dead_code, clippy::all)]

#[path = "../../src/auth/mod.rs"]
pub mod auth;
#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/engine/mod.rs"]
pub mod engine;
#[path = "../../src/journal/mod.rs"]
pub mod journal;
#[path = "../../src/limits/mod.rs"]
pub mod limits;
#[path = "../../src/protocol/mod.rs"]
pub mod protocol;
#[path = "../../src/secret_file.rs"]
pub mod secret_file;
#[path = "../../src/splitmix.rs"]
pub mod splitmix;
#[path = "../../src/time/mod.rs"]
pub mod time;
#[path = "../../src/tls/mod.rs"]
pub mod tls;
