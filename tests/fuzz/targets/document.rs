//! What a writer may do to a document: pre-scan, apply, encode, as the engine does them, `engine::{prescan, document}`.
//!
//! A panic of the CRDT would be fenced; here it is a finding all the same, for the pre-scan to learn.

use wiresocket::engine::document::{Applied, ApplyError, Document};
use wiresocket::engine::prescan::work::{Shadow, Work};
use wiresocket::engine::prescan::{Scan, ScanLimits, scan};
use wiresocket::engine::state_vector::StateVector;

use super::inventor;
use super::steps::Steps;

/// How large a document may get.
const BYTES_MAX: usize = 256 << 10;

pub fn run(data: &[u8]) {
    let mut document = Document::default();
    let mut waiting: Vec<Vec<u8>> = Vec::new();
    let mut buffer = Scan::new();
    let mut applied: Vec<Vec<u8>> = Vec::new();
    for (operation, payload) in Steps(data) {
        match operation % 8 {
            kind @ 0..=4 => {
                let update = match kind {
                    0..=2 => payload.to_vec(),
                    _ => inventor::update(payload, document.state()),
                };
                if receive(&mut document, update, &mut buffer, &mut waiting, &mut applied) {
                    // What waited is tried again, once round.
                    for update in std::mem::take(&mut waiting) {
                        receive(&mut document, update, &mut buffer, &mut waiting, &mut applied);
                    }
                }
            }
            5 => {
                if let Ok(state) = StateVector::decode(payload) {
                    let update = document.encode_since(&state);
                    check(&update, &mut buffer);
                }
            }
            6 => document.shrink(),
            _ => {
                if scan(payload, &ScanLimits::default(), &mut buffer).is_ok() {
                    document.has_deleted(buffer.deletes());
                }
            }
        }
        assert_eq!(document.take_panics(), 0, "the CRDT panicked");
    }
    let state = document.encode();
    check(&state, &mut buffer);
    for history in [&applied[..], &[state.to_vec()]] {
        let mut shadow = Shadow::default();
        for update in history {
            shadow.integrate(update, &Work::MAX).expect("it was scanned");
        }
        for (client, clock) in document.state().iter() {
            assert_eq!(shadow.clock(client), clock, "the shadow of {history:02x?}");
        }
    }
    assert_eq!(document.take_panics(), 0, "the CRDT panicked");
    if buffer.nesting() <= ScanLimits::default().nesting_max {
        let mut copy = Document::default();
        copy.apply(&state, &buffer, usize::MAX).expect("a document's own state is an update");
        assert_eq!(copy.state(), document.state());
    }
}

/// Whether the document changed.
fn receive(
    document: &mut Document,
    update: Vec<u8>,
    buffer: &mut Scan,
    waiting: &mut Vec<Vec<u8>>,
    applied: &mut Vec<Vec<u8>>,
) -> bool {
    if scan(&update, &ScanLimits::default(), buffer).is_err() {
        return false;
    }
    match document.apply(&update, buffer, BYTES_MAX) {
        Ok(Applied::Changed) => {
            applied.push(update);
            true
        }
        Ok(Applied::Unchanged) => false,
        Err(ApplyError::Missing) => {
            waiting.push(update);
            false
        }
        Err(_) => false,
    }
}

/// What a document says of itself passes the scan that it makes others pass, and lacks nothing. `buffer` is its scan.
fn check(update: &[u8], buffer: &mut Scan) {
    // A state may nest deeper than one update may: that is watched elsewhere.
    let limits = ScanLimits { nesting_max: u32::MAX, ..ScanLimits::default() };
    if let Err(error) = scan(update, &limits, buffer) {
        panic!("{error} in the document's own {update:02x?}");
    }
}
