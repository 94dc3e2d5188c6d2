//! Yjs updates (version 1): writing the ones a typing person makes, and reading what arrives.
//!
//! Neither half holds a document. [`typist`] encodes one edit at a time by hand: a character, or what
//! [`pattern`] (a mix of edits) or [`script`] (a trace) says; [`scan`] finds the clock ranges of any
//! update, merged or not, without building anything. The real CRDT library is
//! used only by the tests, as the judge, and by [`crate::trace`], to build the document of the cold join.

use crate::lib0::write_varuint;

pub mod awareness;
pub mod pattern;
pub mod scan;
pub mod script;
pub mod typist;

/// The type at the root of every document of the load tester.
pub const ROOT: &str = "text";

/// An update (or a step 2) with nothing in it: no structs, no deletions.
pub const EMPTY: [u8; 2] = [0, 0];

/// The state vector of someone who has nothing.
pub const EMPTY_STATE_VECTOR: [u8; 1] = [0];

/// The state vector of someone who has that many clocks of each client; of whom they have none is left out.
pub fn state_vector(known: impl Iterator<Item = (u64, u32)>) -> Box<[u8]> {
    let known: Vec<_> = known.filter(|(_, clock)| *clock > 0).collect();
    let mut out = Vec::with_capacity(2 + known.len() * 8);
    write_varuint(&mut out, known.len() as u64);
    for (client, clock) in known {
        write_varuint(&mut out, client);
        write_varuint(&mut out, u64::from(clock));
    }
    out.into()
}

const HAS_ORIGIN: u8 = 0x80;
const HAS_RIGHT_ORIGIN: u8 = 0x40;
const HAS_PARENT_SUB: u8 = 0x20;
const CONTENT: u8 = 0x1f;

const GC: u8 = 0;
const CONTENT_DELETED: u8 = 1;
const CONTENT_JSON: u8 = 2;
const CONTENT_BINARY: u8 = 3;
const CONTENT_STRING: u8 = 4;
const CONTENT_EMBED: u8 = 5;
const CONTENT_FORMAT: u8 = 6;
const CONTENT_TYPE: u8 = 7;
const CONTENT_ANY: u8 = 8;
const CONTENT_DOC: u8 = 9;
const SKIP: u8 = 10;
