//! Real histories in a few large updates, as people bring them who were offline for long: none of the bounds on one update is for
//! them.

use wiresocket::engine::document::{Applied, Document};
use wiresocket::engine::prescan::{Scan, ScanLimits, scan};
use yrs::block::ClientID;
use yrs::{Doc, OffsetKind, Options, ReadTxn, StateVector, Text, Transact};

use crate::cost::measured;
use crate::figure;
use crate::trace::{Edit, Sequential, joined};

/// What a writer's edits since the last time make of an update, for each of `parts` parts of the history.
fn parts(edits: &[Edit], parts: usize) -> Vec<Vec<u8>> {
    let mut options = Options::with_client_id(ClientID::new(1));
    options.offset_kind = OffsetKind::Utf16;
    let doc = Doc::with_options(options);
    let text = doc.get_or_insert_text("content");
    let mut updates = Vec::new();
    for part in edits.chunks(edits.len().div_ceil(parts)) {
        let before = doc.transact().state_vector();
        let mut transaction = doc.transact_mut();
        for edit in part {
            if edit.deleted > 0 {
                text.remove_range(&mut transaction, edit.position, edit.deleted);
            }
            if !edit.inserted.is_empty() {
                text.insert(&mut transaction, edit.position, &edit.inserted);
            }
        }
        drop(transaction);
        updates.push(doc.transact().encode_state_as_update_v1(&before));
    }
    updates.push(doc.transact().encode_state_as_update_v1(&StateVector::default()));
    updates
}

fn apply(document: &mut Document, update: &[u8]) -> Applied {
    let mut buffer = Scan::new();
    scan(update, &ScanLimits::default(), &mut buffer).expect("it is well-formed");
    document.apply(update, &buffer, usize::MAX).expect("genuine edits are taken")
}

#[test]
fn a_long_history_may_come_in_a_few_updates() {
    let trace = Sequential::load();
    let edits = joined(&trace.edits);
    let mut dearest = std::time::Duration::ZERO;
    for count in [1, 2, 20] {
        let mut document = Document::default();
        let mut updates = parts(&edits, count);
        let whole = updates.pop().expect("the whole of it");
        for update in &updates {
            let cost = measured(|| assert_eq!(apply(&mut document, update), Applied::Changed));
            dearest = dearest.max(cost.time);
        }
        // And to who joins with all of it, nothing is new.
        assert_eq!(apply(&mut document, &whole), Applied::Unchanged);
    }
    figure(
        "a long history in one update",
        format_args!(
            "{}: {} runs of edits in one, two or twenty updates: taken, {dearest:.0?} at most",
            trace.source,
            edits.len()
        ),
    );
}
