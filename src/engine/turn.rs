//! What one document has to say to all its sessions in one loop turn, encoded once per framing.
//!
//! A turn gathers: the frames of every update and awareness change of the turn stand one behind the other in a
//! segment, and each session takes the segment less what came from itself, as one copy into its connection's write.
//! Load makes segments longer, not writes more frequent.

use super::slab::Key;

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

    /// Appends to `out` everything that `session` did not write itself, and says how many frames that was.
    pub fn copy_for(&self, session: Key, out: &mut Vec<u8>) -> u64 {
        let mut frames = 0;
        let (mut start, mut end) = (0, 0);
        for entry in &self.entries {
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
            turn.y_websocket.clear();
            turn.hocuspocus.clear();
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
            let frames = segment.copy_for(session, &mut out);
            (String::from_utf8(out).unwrap(), frames)
        };
        assert_eq!(copy(a), ("346".to_owned(), 3));
        assert_eq!(copy(b), ("1245".to_owned(), 4));
        assert_eq!(copy(c), ("123456".to_owned(), 6));
    }
}
