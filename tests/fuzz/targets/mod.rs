//! What is fuzzed, and what must hold of it whatever the bytes are. A target panics when something doesn't.
//!
//! Used twice: by cargo-fuzz (`bins/`), and by tests/corpus.rs, which runs the committed corpora on any toolchain.
#![allow(dead_code)]

pub mod awareness;
pub mod config;
pub mod document;
pub mod frames;
pub mod head;
pub mod hocuspocus;
mod inventor;
pub mod proxy;
mod stage;
pub mod steps;
pub mod sync;
pub mod token;

/// Takes any bytes and panics when something does not hold.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its corpus too.
pub const ALL: [(&str, Target); 9] = [
    ("head", head::run),
    ("proxy", proxy::run),
    ("frames", frames::run),
    ("sync", sync::run),
    ("hocuspocus", hocuspocus::run),
    ("awareness", awareness::run),
    ("document", document::run),
    ("token", token::run),
    ("config", config::run),
];
