//! The journal of a node: what it had is handed to the shards before they begin, and its thread to whom it speaks.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::messages::ToControl;
use crate::engine::document::Document;
use crate::journal::recovery::{Recovered, RecoveredDocument};
use crate::journal::thread::{self, Journal, JournalError, Opened, ShardMailbox};
use crate::journal::{JournalSettings, Reply};
use crate::protocol::document::DocumentId;
use crate::shard::ToControlSender;
use crate::shard::mailbox::{Letter, Sender};

/// How long a stop waits for the journal's last commit.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// The journal, and by shard the documents it had.
pub(super) struct Kept {
    pub opened: Option<Opened>,
    pub documents: Vec<Vec<(DocumentId, Document)>>,
}

/// Opens the journal and makes its documents, all shards' at once. `seed` is hard to guess.
pub(super) fn open(settings: &JournalSettings, shards: usize, seed: u64) -> Result<Kept, JournalError> {
    let count = u16::try_from(shards).unwrap_or(u16::MAX);
    let began = Instant::now();
    let Some((opened, recovered)) = thread::open(settings, count, seed)? else {
        return Ok(Kept { opened: None, documents: (0..shards).map(|_| Vec::new()).collect() });
    };
    let Recovered { documents, segments, records, bytes, resting, torn } = recovered;
    if let Some(torn) = torn {
        let (file, offset, bytes) = (torn.file, torn.offset, torn.bytes);
        tracing::warn!(file, offset, bytes, "the journal's last write was torn by a crash: it was cut off");
    }
    let mut by_shard: Vec<Vec<RecoveredDocument>> = (0..shards).map(|_| Vec::new()).collect();
    let open = documents.len();
    for document in documents {
        by_shard[usize::from(document.id.shard(count))].push(document);
    }
    let make = |documents: Vec<RecoveredDocument>| -> Vec<(DocumentId, Document)> {
        documents.into_iter().map(|one| (one.id, Document::restored(one.contents))).collect()
    };
    let documents = std::thread::scope(|scope| {
        let makers: Vec<_> =
            by_shard.into_iter().map(|documents| scope.spawn(move || make(documents))).collect();
        makers.into_iter().map(|maker| maker.join().expect("making a document does not panic")).collect()
    });
    let took_ms = began.elapsed().as_millis() as u64;
    tracing::info!(documents = open, resting, segments, records, bytes, took_ms, "the journal was read");
    Ok(Kept { opened: Some(opened), documents })
}

/// Starts the journal's thread.
pub(super) fn run(
    opened: Option<Opened>,
    shards: &[Sender],
    control: &ToControlSender,
) -> Result<Option<Journal>, JournalError> {
    let Some(opened) = opened else { return Ok(None) };
    let mailbox = |sender: &Sender| -> ShardMailbox {
        let sender = sender.clone();
        Arc::new(move |reply| {
            let put = match reply {
                Reply::Stored { awaited: false, .. } => Sender::leave,
                _ => Sender::send,
            };
            put(&sender, Letter::Journal(reply)).map_err(|letter| match letter {
                Letter::Journal(reply) => reply,
                Letter::Control(_) | Letter::Engine { .. } | Letter::HandOver(_) => {
                    unreachable!("a mailbox gives back what it was given")
                }
            })
        })
    };
    // A control shard that is gone, or has no room for this, hears the next one. It does not keep the journal alive: the
    // shards' ends do.
    let control = control.downgrade();
    let report = Box::new(move |figures| {
        if let Some(control) = control.upgrade() {
            let _ = control.try_send(vec![ToControl::Journal { figures: Box::new(figures) }]);
        }
    });
    opened.run(shards.iter().map(mailbox).collect(), report).map(Some)
}

/// Waits for the journal's end, which comes when the shards have ended.
pub(super) fn wait(journal: &Journal) {
    let began = Instant::now();
    while !journal.is_finished() {
        if began.elapsed() > STOP_WAIT {
            return tracing::warn!("the journal did not end in time: its disk may hang");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
