//! Cutting a state into updates of few clients each, to be applied one after the other.
//!
//! An update of a client that writes has few clients; the state of an old document has all that ever wrote in it, one for
//! each time that somebody opened a page. yrs sorts out what the clients of one update need of one another by recursion and
//! in quadratic time (the table in [`super`]): with 20,000 of them it overflows a shard's stack, which aborts the process.
//!
//! Invariant: what a piece refers to is in it or in those before it. The structs are not changed, only listed in another
//! order; what is deleted comes with the last piece.

use super::{Id, Kind, ScanLimits, content, counted, id};
use crate::protocol::lib0::{Reader, write_var_u64};

/// What one client wrote, and how much of it is in pieces.
struct Writer {
    client: u64,
    /// Its structs: `spans[first..end]`, and where the bytes of the last one end.
    first: usize,
    end: usize,
    bytes_end: usize,
    /// Its references to others that were not followed yet: `edges[edge..edges_end]`.
    edge: usize,
    edges_end: usize,
    /// The first struct that is in no piece, and the first of this piece.
    next: usize,
    from: usize,
    /// The latest piece that it is in.
    piece: usize,
    waits: bool,
}

struct Span {
    clock: u32,
    offset: usize,
}

/// A struct that refers to another client's.
struct Edge {
    span: usize,
    to: Id,
}

struct Split<'a> {
    update: &'a [u8],
    clients_max: usize,
    spans: Vec<Span>,
    edges: Vec<Edge>,
    writers: Vec<Writer>,
    /// Those in the piece that is being gathered.
    gathered: Vec<usize>,
    pieces: Vec<Vec<u8>>,
}

/// Cuts `update` into pieces of at most `clients_max` clients. `None` if there is nothing to cut, or it is nothing that yrs
/// wrote.
#[must_use]
pub fn split(update: &[u8], clients_max: usize) -> Option<Vec<Vec<u8>>> {
    let mut reader = Reader::new(update);
    if reader.var_u64().ok()? <= clients_max as u64 {
        return None;
    }
    let mut split = Split {
        update,
        clients_max,
        spans: Vec::new(),
        edges: Vec::new(),
        writers: Vec::new(),
        gathered: Vec::new(),
        pieces: Vec::new(),
    };
    let deletes = split.read()?;
    split.gather()?;
    split.finish_piece(deletes);
    Some(split.pieces)
}

impl<'a> Split<'a> {
    /// Reads the structs; what comes behind them is what is deleted.
    fn read(&mut self) -> Option<&'a [u8]> {
        let mut reader = Reader::new(self.update);
        let at = |reader: &Reader<'_>| self.update.len() - reader.remaining().len();
        for _ in 0..counted(&mut reader, 5).ok()? {
            let count = counted(&mut reader, 2).ok()?;
            let mut next = id(&mut reader).ok()?;
            let (first, edge) = (self.spans.len(), self.edges.len());
            for _ in 0..count {
                let span = self.spans.len();
                self.spans.push(Span { clock: next.clock, offset: at(&reader) });
                let (len, kind) = content::read_struct(&mut reader, &ScanLimits::STORED).ok()?;
                if let Kind::Item(item) = kind {
                    let others = [item.origin, item.right_origin, item.parent_item()].into_iter().flatten();
                    let others = others.filter(|to| to.client != next.client);
                    self.edges.extend(others.map(|to| Edge { span, to }));
                }
                next.clock = next.clock.checked_add(len)?;
            }
            self.writers.push(Writer {
                client: next.client,
                first,
                end: self.spans.len(),
                bytes_end: at(&reader),
                edge,
                edges_end: self.edges.len(),
                next: first,
                from: first,
                piece: usize::MAX,
                waits: false,
            });
        }
        self.writers.sort_unstable_by_key(|writer| writer.client);
        Some(reader.remaining())
    }

    /// Takes every struct after what it refers to. `None` if some are in a circle.
    fn gather(&mut self) -> Option<()> {
        let mut stack = Vec::new();
        for at in 0..self.writers.len() {
            stack.push((at, self.writers[at].end));
            while let Some(&(top, until)) = stack.last() {
                let writer = &mut self.writers[top];
                writer.waits = false;
                let edge = self.edges[writer.edge..writer.edges_end].first().filter(|edge| edge.span < until);
                let Some(&Edge { span, to }) = edge else {
                    self.take(top, until);
                    stack.pop();
                    continue;
                };
                match self.wanted(to) {
                    Some((target, until)) => {
                        if self.writers[target].waits || target == top {
                            return None;
                        }
                        self.take(top, span);
                        self.writers[top].waits = true;
                        stack.push((target, until));
                    }
                    None => self.writers[top].edge += 1,
                }
            }
        }
        Some(())
    }

    /// Who must come first, and how many of its structs, for this to be there; `None` if it is there.
    fn wanted(&self, to: Id) -> Option<(usize, usize)> {
        let target = self.writers.binary_search_by_key(&to.client, |writer| writer.client).ok()?;
        let writer = &self.writers[target];
        let spans = &self.spans[writer.first..writer.end];
        let until = writer.first + spans.partition_point(|span| span.clock <= to.clock);
        (until > writer.next).then_some((target, until))
    }

    /// Puts a client's next structs into the piece.
    fn take(&mut self, at: usize, until: usize) {
        let piece = self.pieces.len();
        let writer = &mut self.writers[at];
        if writer.next >= until {
            return;
        }
        if writer.piece != piece {
            (writer.piece, writer.from) = (piece, writer.next);
            self.gathered.push(at);
        }
        writer.next = until;
        if self.gathered.len() >= self.clients_max {
            self.finish_piece(&[0]);
        }
    }

    fn finish_piece(&mut self, deletes: &[u8]) {
        let mut piece = Vec::new();
        write_var_u64(&mut piece, self.gathered.len() as u64);
        for at in self.gathered.drain(..) {
            let Writer { client, from, next, end, bytes_end, .. } = self.writers[at];
            write_var_u64(&mut piece, (next - from) as u64);
            write_var_u64(&mut piece, client);
            write_var_u64(&mut piece, u64::from(self.spans[from].clock));
            let bytes_end = if next < end { self.spans[next].offset } else { bytes_end };
            piece.extend_from_slice(&self.update[self.spans[from].offset..bytes_end]);
        }
        piece.extend_from_slice(deletes);
        self.pieces.push(piece);
    }
}

#[cfg(test)]
mod tests {
    use yrs::updates::decoder::Decode;
    use yrs::{Array, Doc, Map, MapPrelim, ReadTxn, StateVector, Text, Transact, Update, WriteTxn};

    use super::*;
    use crate::engine::simulation::client;
    use crate::engine::simulation::world::Random;

    fn apply(doc: &Doc, update: &[u8]) {
        let mut transaction = doc.transact_mut();
        transaction.apply_update(Update::decode_v1(update).unwrap()).unwrap();
        assert!(!transaction.has_missing_updates());
    }

    /// What some clients made of a document, all at once and one after the other.
    fn history(seed: u64) -> Doc {
        let mut random = Random::new(seed);
        let docs: Vec<Doc> = (0..12).map(|_| client::document(1 + random.below(1 << 30))).collect();
        for _ in 0..150 {
            let doc = random.pick(&docs);
            let mut transaction = doc.transact_mut();
            let text = transaction.get_or_insert_text("text");
            let length = text.len(&transaction);
            match random.below(6) {
                0 | 1 => text.insert(&mut transaction, random.below(u64::from(length) + 1) as u32, "some"),
                2 if length > 4 => {
                    text.remove_range(&mut transaction, random.below(u64::from(length) - 3) as u32, 3)
                }
                3 => {
                    let array = transaction.get_or_insert_array("array");
                    let map = MapPrelim::from([("key", random.below(9) as f64)]);
                    array.push_back(&mut transaction, map);
                }
                4 => {
                    _ = transaction.get_or_insert_map("map").insert(
                        &mut transaction,
                        "key",
                        random.below(9) as f64,
                    )
                }
                _ => {
                    let state = transaction.state_vector();
                    drop(transaction);
                    let from = random.pick(&docs).clone();
                    if from.client_id() != doc.client_id() {
                        apply(doc, &from.transact().encode_diff_v1(&state));
                    }
                }
            }
        }
        let all = client::document(1 << 40);
        for doc in &docs {
            apply(&all, &doc.transact().encode_diff_v1(&StateVector::default()));
        }
        all
    }

    #[test]
    fn a_state_in_pieces_is_the_same_state() {
        let mut cut = 0;
        for seed in 0..200 {
            let doc = history(seed);
            let state = doc.transact().encode_diff_v1(&StateVector::default());
            for clients_max in [1, 2, 5] {
                let pieces = split(&state, clients_max).unwrap();
                let again = client::document(1 << 40);
                for piece in &pieces {
                    let clients = Reader::new(piece).var_u64().unwrap();
                    assert!(clients <= clients_max as u64, "seed {seed}");
                    apply(&again, piece);
                }
                assert_eq!(client::content(&again), client::content(&doc), "seed {seed}, {clients_max}");
                assert_eq!(again.transact().state_vector(), doc.transact().state_vector());
                assert_eq!(again.transact().snapshot().delete_set, doc.transact().snapshot().delete_set);
                cut += pieces.len();
            }
        }
        assert!(cut > 3000, "{cut} pieces");
    }

    #[test]
    fn what_is_small_or_no_state_is_left_as_it_is() {
        let state = history(1).transact().encode_diff_v1(&StateVector::default());
        assert_eq!(split(&state, 100), None);
        assert_eq!(split(&[], 0), None);
        for length in 0..state.len() - 1 {
            let _ = split(&state[..length], 1); // whatever comes of it, no panic
        }
        // Two that need one another.
        let circle = [2, 1, 1, 0, 0x84, 2, 0, 1, b'x', 1, 2, 0, 0x84, 1, 0, 1, b'x', 0];
        assert_eq!(split(&circle, 1), None);
    }
}
