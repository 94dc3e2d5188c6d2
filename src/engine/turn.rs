//! What one document has to say to all its sessions in one loop turn, encoded once per framing.
//!
//! A turn gathers: the frames of every update and awareness change of the turn stand one behind the other in a
//! segment, and each session takes the segment less what came from itself, as one copy into its connection's write.
//! Load makes segments longer, not writes more frequent.

use super::slab::Key;
use crate::protocol::message::Wire;

/// Where one frame ends in its segment, and the session that must not get it back.
#[derive(Debug, Clone, Copy)]
struct Entry {
    end: u32,
    author: Option<Key>,
}

/// The frames of one turn in one framing.
#[derive(Debug, Default)]
pub struct Segment {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl Segment {
    /// Appends the frame that `write` writes; `author` doesn't get it back.
    pub fn push(&mut self, author: Option<Key>, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        let end = u32::try_from(self.bytes.len()).expect("a turn reads less than 4 GiB");
        self.entries.push(Entry { end, author });
    }

    /// Appends to `out` everything from `begin` on that `session` did not write itself, and says how many frames that was.
    pub fn copy_for(&self, session: Key, begin: usize, out: &mut Vec<u8>) -> u64 {
        let mut frames = 0;
        let (mut start, mut end) = (begin, begin);
        for entry in self.entries.iter().filter(|entry| entry.end as usize > begin) {
            if entry.author == Some(session) {
                out.extend_from_slice(&self.bytes[start..end]);
                start = entry.end as usize;
            } else {
                frames += 1;
            }
            end = entry.end as usize;
        }
        out.extend_from_slice(&self.bytes[start..end.max(start)]);
        frames
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

/// Both framings of one document's turn.
#[derive(Debug, Default)]
pub struct Turn {
    pub y_websocket: Segment,
    pub hocuspocus: Segment,
    /// Sessions that joined in the midst of it, each with the lengths of both segments then. What is before that is
    /// not for them: they would take who had left by then for somebody who is here.
    newcomers: Vec<(Key, usize, usize)>,
}

impl Turn {
    /// A session joins; it gets what comes from now on.
    pub fn join(&mut self, session: Key) {
        self.newcomers.push((session, self.y_websocket.bytes.len(), self.hocuspocus.bytes.len()));
    }

    /// Appends to `out` what a session on this wire gets of the turn, and says how many frames that was.
    pub fn copy_for(&self, session: Key, wire: Wire, out: &mut Vec<u8>) -> u64 {
        let joined = self.newcomers.iter().find(|newcomer| newcomer.0 == session);
        let &(_, y_websocket, hocuspocus) = joined.unwrap_or(&(session, 0, 0));
        match wire {
            Wire::YWebsocket => self.y_websocket.copy_for(session, y_websocket, out),
            Wire::Hocuspocus => self.hocuspocus.copy_for(session, hocuspocus, out),
        }
    }

    fn clear(&mut self) {
        self.y_websocket.clear();
        self.hocuspocus.clear();
        self.newcomers.clear();
    }
}

/// Empty turns kept for reuse, so that a busy shard allocates none and an idle document holds none.
#[derive(Debug, Default)]
pub struct TurnPool {
    #[allow(clippy::vec_box)] // rooms hold boxes, so that an idle room is small
    free: Vec<Box<Turn>>,
}

impl TurnPool {
    const FREE_MAX: usize = 64;
    /// A turn that grew beyond this in a burst is given back to the allocator.
    const CAPACITY_MAX: usize = 256 << 10;

    pub fn take(&mut self) -> Box<Turn> {
        self.free.pop().unwrap_or_default()
    }

    pub fn give_back(&mut self, mut turn: Box<Turn>) {
        let capacity = turn.y_websocket.capacity().max(turn.hocuspocus.capacity());
        if self.free.len() < Self::FREE_MAX && capacity <= Self::CAPACITY_MAX {
            turn.clear();
            self.free.push(turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::slab::Slab;
    use super::*;

    #[test]
    fn everybody_gets_all_but_their_own_in_order() {
        let mut slab = Slab::default();
        let (a, b, c) = (slab.insert(()), slab.insert(()), slab.insert(()));
        let mut segment = Segment::default();
        for (author, text) in
            [(Some(a), "1"), (Some(a), "2"), (Some(b), "3"), (None, "4"), (Some(a), "5"), (Some(b), "6")]
        {
            segment.push(author, |out| out.extend_from_slice(text.as_bytes()));
        }
        let copy = |session| {
            let mut out = Vec::new();
            let frames = segment.copy_for(session, 0, &mut out);
            (String::from_utf8(out).unwrap(), frames)
        };
        assert_eq!(copy(a), ("346".to_owned(), 3));
        assert_eq!(copy(b), ("1245".to_owned(), 4));
        assert_eq!(copy(c), ("123456".to_owned(), 6));
    }

    #[test]
    fn who_joins_in_the_midst_gets_what_comes_then() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert(()), slab.insert(()));
        let mut turn = Turn::default();
        turn.y_websocket.push(None, |out| out.push(b'1'));
        turn.join(b);
        turn.y_websocket.push(Some(a), |out| out.push(b'2'));
        turn.y_websocket.push(Some(b), |out| out.push(b'3'));
        turn.y_websocket.push(None, |out| out.push(b'4'));
        for (session, expected) in [(a, ("134", 3)), (b, ("24", 2))] {
            let mut out = Vec::new();
            let frames = turn.copy_for(session, Wire::YWebsocket, &mut out);
            assert_eq!((std::str::from_utf8(&out).unwrap(), frames), expected);
        }
    }
}
