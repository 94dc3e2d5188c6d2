//! What one document has to say to all its sessions in one loop turn, encoded once per framing.
//!
//! A turn gathers: the frames of every update and awareness change of the turn stand one behind the other in a
//! segment, and each session takes the segment less what came from itself, as one copy into its connection's write.
//! Load makes segments longer, not writes more frequent.

use super::slab::Key;
use crate::protocol::message::Wire;

/// What a frame of a turn is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    Document,
    Awareness,
}

/// Where one frame ends in its segment, and the session that must not get it back.
#[derive(Debug, Clone, Copy)]
struct Entry {
    end: u32,
    about: About,
    author: Option<Key>,
}

/// From where on a segment is for a session: what is before that it has already.
#[derive(Debug, Clone, Copy, Default)]
struct Beginning {
    document: u32,
    awareness: u32,
}

/// The frames of one turn in one framing.
#[derive(Debug, Default)]
pub struct Segment {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl Segment {
    /// Appends the frame that `write` writes; `author` doesn't get it back.
    pub fn push(&mut self, author: Option<Key>, about: About, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        let end = self.end();
        self.entries.push(Entry { end, about, author });
    }

    /// Appends to `out` everything that is for `session` and that it did not write itself, and says how many frames that was.
    fn copy_for(&self, session: Key, begin: Beginning, out: &mut Vec<u8>) -> u64 {
        let mut frames = 0;
        let (mut start, mut end) = (0, 0);
        for entry in &self.entries {
            let begin = match entry.about {
                About::Document => begin.document,
                About::Awareness => begin.awareness,
            };
            if entry.author == Some(session) || entry.end <= begin {
                out.extend_from_slice(&self.bytes[start..end]);
                start = entry.end as usize;
            } else {
                frames += 1;
            }
            end = entry.end as usize;
        }
        out.extend_from_slice(&self.bytes[start..end]);
        frames
    }

    fn is_written_by(&self, session: Key) -> bool {
        self.entries.iter().any(|entry| entry.author == Some(session))
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.entries.len() as u64
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn end(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("a turn reads less than 4 GiB")
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
    /// Sessions that joined, or were told how things stand, in the midst of it, each with where both segments begin for
    /// it. What is before that they would get twice, and they would take who had left by then for somebody who is here.
    newcomers: Vec<(Key, Beginning, Beginning)>,
}

impl Turn {
    /// A session joins, or was told all there is: it gets what comes from now on.
    pub fn has_all(&mut self, session: Key) {
        self.has(session, About::Document);
        self.has(session, About::Awareness);
    }

    /// A session was told how things stand with the one or the other: of that it gets what comes from now on.
    pub fn has(&mut self, session: Key, about: About) {
        let at = self.newcomers.iter().position(|newcomer| newcomer.0 == session).unwrap_or_else(|| {
            self.newcomers.push((session, Beginning::default(), Beginning::default()));
            self.newcomers.len() - 1
        });
        let (_, y_websocket, hocuspocus) = &mut self.newcomers[at];
        for (begin, end) in [(y_websocket, self.y_websocket.end()), (hocuspocus, self.hocuspocus.end())] {
            match about {
                About::Document => begin.document = end,
                About::Awareness => begin.awareness = end,
            }
        }
    }

    /// Appends to `out` what a session on this wire gets of the turn, and says how many frames that was.
    pub fn copy_for(&self, session: Key, wire: Wire, out: &mut Vec<u8>) -> u64 {
        let joined = self.newcomers.iter().find(|newcomer| newcomer.0 == session);
        let (y_websocket, hocuspocus) = joined.map_or_else(Default::default, |&(_, y, h)| (y, h));
        match wire {
            Wire::YWebsocket => self.y_websocket.copy_for(session, y_websocket, out),
            Wire::Hocuspocus => self.hocuspocus.copy_for(session, hocuspocus, out),
        }
    }

    /// The segment of this wire, if the session gets all of it.
    #[must_use]
    pub fn whole_for(&self, session: Key, wire: Wire) -> Option<&Segment> {
        let segment = match wire {
            Wire::YWebsocket => &self.y_websocket,
            Wire::Hocuspocus => &self.hocuspocus,
        };
        let has_some = self.newcomers.iter().any(|newcomer| newcomer.0 == session);
        (!has_some && !segment.is_written_by(session)).then_some(segment)
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
            segment.push(author, About::Document, |out| out.extend_from_slice(text.as_bytes()));
        }
        let copy = |session| {
            let mut out = Vec::new();
            let frames = segment.copy_for(session, Beginning::default(), &mut out);
            (String::from_utf8(out).unwrap(), frames)
        };
        assert_eq!(copy(a), ("346".to_owned(), 3));
        assert_eq!(copy(b), ("1245".to_owned(), 4));
        assert_eq!(copy(c), ("123456".to_owned(), 6));
    }

    fn got(turn: &Turn, session: Key) -> (String, u64) {
        let mut out = Vec::new();
        let frames = turn.copy_for(session, Wire::YWebsocket, &mut out);
        (String::from_utf8(out).unwrap(), frames)
    }

    #[test]
    fn who_joins_in_the_midst_gets_what_comes_then() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert(()), slab.insert(()));
        let mut turn = Turn::default();
        let push = |turn: &mut Turn, author, about, byte: u8| {
            turn.y_websocket.push(author, about, |out| out.push(byte));
        };
        push(&mut turn, None, About::Awareness, b'1');
        turn.has_all(b);
        push(&mut turn, Some(a), About::Document, b'2');
        push(&mut turn, Some(b), About::Document, b'3');
        push(&mut turn, None, About::Awareness, b'4');
        assert_eq!(got(&turn, a), ("134".to_owned(), 3));
        assert_eq!(got(&turn, b), ("24".to_owned(), 2));
        // It asks for the document: of that it has all by now, of awareness not.
        turn.has(b, About::Document);
        push(&mut turn, Some(a), About::Document, b'5');
        assert_eq!(got(&turn, b), ("45".to_owned(), 2));
        turn.has_all(b);
        assert_eq!(got(&turn, b), (String::new(), 0));
        assert_eq!(got(&turn, a), ("134".to_owned(), 3));
    }
}
