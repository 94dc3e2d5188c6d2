//! Cursors: awareness states that move on a schedule of their own, and whether everyone saw the last.
//!
//! The `k`-th move of a cursor has the awareness clock `(k + 1) * CLOCK_STEP`, so that a clock says when
//! its move was due; the clocks between are for those who announce themselves again when they return.
//! A server may leave out moves that are out of date. It may not keep back anyone's last state, nor send
//! one that nobody had, nor drop someone who is there.

use crate::client::Client;
use crate::event_loop::EventLoop;
use crate::lib0::Malformed;
use crate::load::Failures;
use crate::measure::{Latency, LatencySummary};
use crate::scenario::{self, Whose};
use crate::schedule::Schedule;
use crate::update::awareness::{GONE, is_same_state, scan, write, write_state};
use serde::{Deserialize, Serialize};
use std::ops::{AddAssign, Range};

/// From one move to the next.
const CLOCK_STEP: u32 = 64;
/// From a state to the same one announced again: a server may have used the clock in between to say
/// that its owner is gone.
const ANNOUNCE_STEP: u32 = 2;

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CursorResult {
    pub moves_sent: u64,
    /// Moves that reached another client; fewer than sent times readers where a server coalesces.
    pub moves_seen: u64,
    pub moves_skipped: u64,
    /// From the instant a move was due; of all due in the window.
    pub latency: Option<LatencySummary>,
    /// Last states that never reached someone who was there.
    pub lost: u64,
    /// States that nobody had, or not in this document.
    pub foreign: u64,
    /// Said to be gone though they were there.
    pub dropped: u64,
}

/// Counts add up; latency is a matter of the histograms.
impl AddAssign for CursorResult {
    fn add_assign(&mut self, other: Self) {
        let Self { moves_sent, moves_seen, moves_skipped, latency: _, lost, foreign, dropped } = other;
        self.moves_sent += moves_sent;
        self.moves_seen += moves_seen;
        self.moves_skipped += moves_skipped;
        self.lost += lost;
        self.foreign += foreign;
        self.dropped += dropped;
    }
}

/// What one reader knows of one cursor.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    clock: u32,
    is_gone: bool,
    /// What it hears first after a return may be long out of date.
    is_new_here: bool,
}

#[derive(Debug)]
pub struct Cursors {
    documents: u32,
    clients: u32,
    per_document: u32,
    first_id: u64,
    rate: f64,
    schedule: Option<Schedule>,
    moved: u64,
    last_sent: Vec<u32>, // by cursor: document * per_document + place
    seen: Vec<Seen>,     // [seat * per_document + place]
    latency: Latency,
    result: CursorResult,
    update: Vec<u8>,
    state: Vec<u8>,
}

impl Cursors {
    pub fn new(
        cursors: &scenario::Cursors,
        documents: u32,
        clients: u32,
        writers: u32,
        first_client_id: u64,
    ) -> Self {
        // A writer's cursor has the id of its Yjs client, as in life; readers have no other.
        let (per_document, first_id) = match cursors.of {
            Whose::Writers => (writers, first_client_id),
            Whose::Clients => (clients, first_client_id + u64::from(documents) * u64::from(writers)),
        };
        Self {
            documents,
            clients,
            per_document,
            first_id,
            rate: cursors.rate,
            schedule: None,
            moved: 0,
            last_sent: vec![0; documents as usize * per_document as usize],
            seen: vec![Seen::default(); (documents * clients) as usize * per_document as usize],
            latency: Latency::default(),
            result: CursorResult::default(),
            update: Vec::new(),
            state: Vec::new(),
        }
    }

    pub fn start(&mut self, start_ns: u64) {
        self.schedule = Some(Schedule::new(start_ns, self.documents * self.per_document, self.rate));
    }

    /// When the next move is due.
    pub fn next_ns(&self) -> u64 {
        self.schedule.map_or(u64::MAX, |schedule| schedule.due_ns(self.moved))
    }

    /// Makes the next move, if its owner is there.
    pub fn move_next(&mut self, event_loop: &mut EventLoop, is_here: impl Fn(u32) -> bool) {
        let Some(schedule) = self.schedule else { return };
        let (order, number) = (schedule.writer(self.moved), self.moved);
        self.moved += 1;
        let (document, place) = (order % self.documents, order / self.documents);
        let seat = document * self.clients + place;
        if !is_here(seat) {
            return;
        }
        let nth = number / u64::from(self.documents * self.per_document);
        let clock = (nth as u32 + 1) * CLOCK_STEP;
        if let Some(client) = event_loop.client(seat) {
            self.send(client, document * self.per_document + place, clock);
            self.result.moves_sent += 1;
        }
    }

    /// Whoever returned announces itself again.
    pub fn returned(&mut self, client: &mut Client) {
        let (document, place) = (client.number / self.clients, client.number % self.clients);
        if place >= self.per_document {
            return;
        }
        let cursor = document * self.per_document + place;
        let last = self.last_sent[cursor as usize];
        if last > 0 {
            self.send(client, cursor, last + ANNOUNCE_STEP);
        }
    }

    fn send(&mut self, client: &mut Client, cursor: u32, clock: u32) {
        let id = self.first_id + u64::from(cursor);
        write_state(&mut self.state, id, clock);
        write(&mut self.update, id, clock, &self.state);
        client.send_awareness(&self.update);
        self.last_sent[cursor as usize] = clock;
    }

    /// A seat that leaves forgets what it has seen.
    pub fn leave(&mut self, seat: u32) {
        let first = (seat * self.per_document) as usize;
        self.seen[first..first + self.per_document as usize]
            .fill(Seen { is_new_here: true, ..Seen::default() });
    }

    /// Takes an awareness update that arrived at `seat`; moves that were due in the window are measured.
    pub fn receive(
        &mut self,
        seat: u32,
        now_ns: u64,
        update: &[u8],
        window_ns: &Range<u64>,
        is_here: impl Fn(u32) -> bool,
    ) -> Result<(), Malformed> {
        let document = seat / self.clients;
        let first_cursor = document * self.per_document;
        scan(update, |id, clock, state| {
            let place = id.wrapping_sub(self.first_id + u64::from(first_cursor));
            if place >= u64::from(self.per_document) {
                self.result.foreign += u64::from(state != GONE);
                return;
            }
            let place = place as u32;
            let owner = document * self.clients + place;
            if owner == seat {
                return; // an echo
            }
            let arrived = Arrived { place, clock, state, owner_is_here: is_here(owner) };
            self.see(seat, now_ns, &arrived, window_ns);
        })
    }

    fn see(&mut self, seat: u32, now_ns: u64, arrived: &Arrived<'_>, window_ns: &Range<u64>) {
        let document = seat / self.clients;
        let cursor = document * self.per_document + arrived.place;
        let cell = (seat * self.per_document + arrived.place) as usize;
        let before = self.seen[cell];
        if arrived.clock < before.clock {
            return; // out of date: clients ignore it
        }
        if arrived.state == GONE {
            self.seen[cell] = Seen { clock: arrived.clock, is_gone: true, is_new_here: false };
            // What is said of a former connection may come after the return.
            let is_latest = arrived.clock >= self.last_sent[cursor as usize];
            self.result.dropped += u64::from(arrived.owner_is_here && is_latest);
            return;
        }
        write_state(&mut self.state, self.first_id + u64::from(cursor), arrived.clock);
        if arrived.clock > self.last_sent[cursor as usize] || !is_same_state(arrived.state, &self.state) {
            self.result.foreign += 1;
            return;
        }
        self.seen[cell] = Seen { clock: arrived.clock, is_gone: false, is_new_here: false };
        let nth = arrived.clock / CLOCK_STEP;
        if arrived.clock == before.clock || !arrived.clock.is_multiple_of(CLOCK_STEP) || before.is_new_here {
            return;
        }
        self.result.moves_seen += 1;
        self.result.moves_skipped += u64::from((nth - before.clock / CLOCK_STEP).saturating_sub(1));
        let Some(schedule) = self.schedule else { return };
        let due_ns = schedule.due_of(arrived.place * self.documents + document, nth - 1);
        if window_ns.contains(&due_ns) {
            self.latency.record_ns(now_ns.saturating_sub(due_ns));
        }
    }

    /// Pairs of a reader and a cursor, both there, where the reader hasn't the last state.
    pub fn lacking(&self, is_here: impl Fn(u32) -> bool) -> u64 {
        let seats = self.documents * self.clients;
        let lacking = (0..seats).filter(|seat| is_here(*seat)).map(|seat| {
            let document = seat / self.clients;
            (0..self.per_document)
                .filter(|place| {
                    let owner = document * self.clients + place;
                    let seen = self.seen[(seat * self.per_document + place) as usize];
                    let last = self.last_sent[(document * self.per_document + place) as usize];
                    owner != seat && is_here(owner) && (seen.clock != last || seen.is_gone)
                })
                .count() as u64
        });
        lacking.sum()
    }

    /// Judges at the end, and sums up; with the latencies that the summary was made from.
    pub fn into_result(
        mut self,
        is_here: impl Fn(u32) -> bool,
        failures: &mut Failures,
    ) -> (CursorResult, Latency) {
        self.result.lost = self.lacking(is_here);
        self.result.latency = self.latency.summary();
        let result = self.result;
        if result.lost + result.foreign + result.dropped > 0 {
            failures.add(|| {
                format!(
                    "the server's cursors are wrong: {} last states lost, {} that nobody had, {} dropped",
                    result.lost, result.foreign, result.dropped
                )
            });
        }
        (result, self.latency)
    }
}

/// One state, as it arrived.
#[derive(Debug)]
struct Arrived<'a> {
    place: u32,
    clock: u32,
    state: &'a [u8],
    owner_is_here: bool,
}
