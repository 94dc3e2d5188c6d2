//! What the journal's core needs of a disk. The real one is [`super::disk::Directory`]; tests and simulations hand in
//! one that fails, tears writes and forgets what was not synced.

use std::fmt::Debug;
use std::io;

/// An ordered set of append-only files, of which the newest is written.
pub trait Storage: Debug {
    /// The numbers of the segments there are, ascending.
    ///
    /// # Errors
    /// When they can't be listed.
    fn segments(&mut self) -> io::Result<Vec<u64>>;

    /// Makes an empty segment, to which [`Storage::append`] writes from now on. That it is there is durable after the
    /// next [`Storage::sync`].
    ///
    /// # Errors
    /// When it can't be made.
    fn create(&mut self, segment: u64) -> io::Result<()>;

    /// Writes at the end of the newest segment. After an error any part of it may have been written.
    ///
    /// # Errors
    /// When not all of it could be written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Returns when all that was appended to the newest segment would survive a loss of power. After an error nobody
    /// knows what would, and a second sync can't tell.
    ///
    /// # Errors
    /// When it isn't sure.
    fn sync(&mut self) -> io::Result<()>;

    /// A whole segment.
    ///
    /// # Errors
    /// When it can't be read.
    fn read(&mut self, segment: u64) -> io::Result<Vec<u8>>;

    /// A piece of a segment.
    ///
    /// # Errors
    /// When it can't be read, or ends before that.
    fn read_at(&mut self, segment: u64, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// Cuts a segment off here; what is before that is durable then, whoever wrote it.
    ///
    /// # Errors
    /// When it can't be cut.
    fn truncate(&mut self, segment: u64, length: u64) -> io::Result<()>;

    /// # Errors
    /// When it can't be removed.
    fn remove(&mut self, segment: u64) -> io::Result<()>;

    /// What a person calls this segment: its file.
    fn name(&self, segment: u64) -> String;
}
