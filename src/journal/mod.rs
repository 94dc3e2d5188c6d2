//! The journal: what makes an acknowledged update outlive the process, or the power.
//!
//! One log for all shards, an append-only series of segment files. A group of records is written with one `write` and,
//! at level `disk`, one `fdatasync`; then every shard hears up to where its batches are safe.
//!
//! | part | pure | what it holds |
//! | --- | --- | --- |
//! | [`record`] | yes | records and their frames: length, CRC32C |
//! | [`segment`] | yes | a segment file's header and markers; where one that was not closed ends; what is damage |
//! | [`index`] | yes | by document and by segment, what of the log still counts |
//! | [`log`], [`recovery`] | yes | the core: commands in, replies out, on a [`storage::Storage`] that is handed in |
//! | [`disk`] | no | the storage on a directory |
//! | [`thread`] | no | the thread that drives the core |
//!
//! Invariants:
//! - A batch is answered only when it is as safe as the level says. What failed once is not tried again as if it had
//!   worked: from the first failed write or sync on, nothing is answered any more.
//! - What counts of a document is its newest state and the records behind that; what came before is garbage. A state
//!   is written whole by whoever has the document: logs are never merged.
//! - Segments are removed oldest first, and only when nothing in them counts. So the log is always one piece, and a hole
//!   in it is damage.
//! - The end of a log that was not closed is cut off at the first record that is not whole. Damage before a place that
//!   was once safe is refused, naming file and offset.
//!
//! Not here: who is told what about an update ([`crate::engine`]), and replication.

pub mod disk;
pub mod index;
pub mod log;
#[cfg(test)]
pub(crate) mod memory;
pub mod record;
pub mod recovery;
pub mod segment;
pub mod storage;
#[cfg(test)]
mod tests;
pub mod thread;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::protocol::document::DocumentId;
use crate::protocol::lib0;

/// When an update counts as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it is applied. There is no journal.
    Memory,
    /// When it is written: the kernel has it, so that it survives the process.
    Process,
    /// When it is synced: it survives the kernel and the power, on a disk that keeps its word.
    Disk,
}

/// How long a document is kept after the last client left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// For its grace period.
    Session,
    /// This long after its grace period.
    For(Duration),
    ForEver,
}

/// The journal of a node, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalSettings {
    pub directory: PathBuf,
    pub durability: Durability,
    pub retention: Retention,
    /// A segment that has grown to this is closed, and the next begun.
    pub segment_bytes: u64,
    /// Between the beginnings of two commits lies at least this.
    pub commit_interval: Duration,
}

/// All there is in a document: its encoded state at some moment, and the updates since, each with its length in front.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    pub snapshot: Bytes,
    pub tail: Vec<u8>,
}

impl Contents {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.snapshot.is_empty() && self.tail.is_empty()
    }

    /// As one piece: the snapshot with its length in front, and the tail.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let length = lib0::var_bytes_len(self.snapshot.len()) + self.tail.len();
        let mut out = Vec::with_capacity(length);
        lib0::write_var_bytes(&mut out, &self.snapshot);
        out.extend_from_slice(&self.tail);
        out
    }

    /// Reads [`Contents::encode`]'s piece; `None` if it is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = lib0::Reader::new(bytes);
        let snapshot = Bytes::copy_from_slice(reader.var_bytes().ok()?);
        Some(Self { snapshot, tail: reader.remaining().to_vec() })
    }
}

/// From a shard to the journal. What one shard sends is taken in order.
#[derive(Debug)]
pub enum Command {
    /// Records in frames ([`record`]), without their checksums. Answered by [`Reply::Stored`] of this number.
    /// With `awaited`, somebody waits to hear of it.
    Append { shard: u16, number: u64, records: Vec<u8>, awaited: bool },
    /// All there is in a document; what was appended of it before no longer counts. With `rests`, nobody is in the
    /// document any more: answered by [`Reply::Rested`]. If that is still so then, the shard appends that it rests and
    /// forgets it: what a shard has never rests, so its time can't be over.
    Keep { shard: u16, document: DocumentId, contents: Contents, rests: bool },
    /// Somebody opens a document that the shard doesn't have. Answered by [`Reply::Loaded`].
    Load { shard: u16, document: DocumentId },
}

/// From the journal to a shard.
#[derive(Debug)]
pub enum Reply {
    /// Every batch up to this one is as safe as the level says.
    Stored {
        through: u64,
        /// Whether somebody waits for it; else there is time until the shard wakes for something else.
        awaited: bool,
    },
    /// Nothing more will be stored.
    Failed,
    /// Old records of this document are in the way: send its [`Command::Keep`].
    Wanted { document: DocumentId },
    /// The state of a document in which nobody was is stored.
    Rested { document: DocumentId },
    /// `None`: there is nothing. An error: it can't be read.
    Loaded { document: DocumentId, contents: Result<Option<Contents>, Unreadable> },
}

/// A document is in the journal and can't be read; the log says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the document is in the journal and can't be read")]
pub struct Unreadable;
