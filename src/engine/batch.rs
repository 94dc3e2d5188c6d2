//! What a turn has for the sockets of a shard: who gets which bytes.
//!
//! It is gathered first and written afterwards, so that the writes follow one another at once: between two of them a
//! waiting reader on another core would fall asleep, and the next write pay for waking it. What several sockets get alike
//! is there once.

use std::ops::Range;

use super::event::ConnectionId;
use super::slab::Key;
use crate::protocol::message::Wire;

/// Bytes for sockets. Each socket is in it at most once.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    writes: Vec<(ConnectionId, Range<usize>)>,
    /// The segment that came in last as a whole, for the next socket that gets all of it.
    whole: Option<(Key, Wire, Range<usize>)>,
}

impl Batch {
    /// It is to be written when it holds this much; only one socket's share can make it longer.
    const FULL_BYTES: usize = 256 << 10;
    /// A burst must not be paid for in memory for ever.
    const KEPT_BYTES_MAX: usize = 1 << 20;

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(super) const fn is_full(&self) -> bool {
        self.bytes.len() >= Self::FULL_BYTES
    }

    /// Every socket with what it gets.
    pub fn iter(&self) -> impl Iterator<Item = (ConnectionId, &[u8])> {
        self.writes.iter().map(|(connection, range)| (*connection, &self.bytes[range.clone()]))
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.writes.clear();
        self.whole = None;
        if self.bytes.capacity() > Self::KEPT_BYTES_MAX {
            *self = Self::default();
        }
    }

    /// The buffer to append one socket's bytes to. Those behind `at`, where it ended before, go to whom [`Batch::give`] or
    /// [`Batch::take`] says.
    pub(super) const fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(super) fn give(&mut self, connection: ConnectionId, at: usize) {
        self.writes.push((connection, at..self.bytes.len()));
    }

    pub(super) fn take(&mut self, at: usize) -> Vec<u8> {
        self.bytes.split_off(at)
    }

    /// A socket gets the whole segment that a room's turn has for this wire.
    pub(super) fn give_whole(&mut self, connection: ConnectionId, room: Key, wire: Wire, segment: &[u8]) {
        let range = match &self.whole {
            Some((of, on, range)) if (*of, *on) == (room, wire) => range.clone(),
            _ => {
                let at = self.bytes.len();
                self.bytes.extend_from_slice(segment);
                let range = at..self.bytes.len();
                self.whole = Some((room, wire, range.clone()));
                range
            }
        };
        self.writes.push((connection, range));
    }
}

#[cfg(test)]
mod tests {
    use super::super::slab::Slab;
    use super::*;

    #[test]
    fn a_whole_segment_is_there_once_for_all_who_get_it() {
        let mut slab = Slab::default();
        let (a, b, c, room, other) =
            (slab.insert(()), slab.insert(()), slab.insert(()), slab.insert(()), slab.insert(()));
        let mut batch = Batch::default();
        batch.give_whole(a, room, Wire::YWebsocket, b"seg");
        batch.bytes().extend_from_slice(b"own");
        batch.give(b, 3);
        batch.give_whole(c, room, Wire::YWebsocket, b"seg");
        let given: Vec<_> = batch.iter().collect();
        assert_eq!(given, [(a, &b"seg"[..]), (b, b"own"), (c, b"seg")]);
        assert_eq!(batch.bytes.len(), 6);
        batch.give_whole(a, other, Wire::YWebsocket, b"other");
        batch.give_whole(a, other, Wire::Hocuspocus, b"hocus");
        assert_eq!(batch.iter().last(), Some((a, &b"hocus"[..])));
        batch.clear();
        assert!(batch.is_empty());
        batch.give_whole(a, other, Wire::Hocuspocus, b"new");
        assert_eq!(batch.iter().last(), Some((a, &b"new"[..])));
    }
}
