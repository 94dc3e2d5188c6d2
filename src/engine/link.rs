//! The way to one socket, as the documents of a shard see it: what is queued for it this turn, and which sessions feed
//! it. The socket is on this shard or, for Hocuspocus sockets, on another.

use smallvec::SmallVec;

use super::event::{ConnectionId, ShardIndex};
use super::slab::Key;
use crate::time::Moment;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    Socket(ConnectionId),
    Shard { shard: ShardIndex, connection: ConnectionId },
}

#[derive(Debug)]
pub struct Link {
    pub target: Target,
    /// Frames for this socket alone: answers, acknowledgements, greetings.
    pub frames: Vec<u8>,
    pub sessions: SmallVec<[Key; 1]>,
    /// Listed in the engine's list of links that have something to send.
    pub dirty: bool,
    /// Set while the socket's queue is over its bound: when it last took something of it.
    pub stalled_at: Option<Moment>,
    /// A timer will look at what its sessions are owed.
    pub catch_up_set: bool,
}

impl Link {
    /// Lists this link, whose key is `key`, as having something to send.
    pub fn list(&mut self, key: Key, dirty: &mut Vec<Key>) {
        if !self.dirty {
            self.dirty = true;
            dirty.push(key);
        }
    }

    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            frames: Vec::new(),
            sessions: SmallVec::new(),
            dirty: false,
            stalled_at: None,
            catch_up_set: false,
        }
    }
}
