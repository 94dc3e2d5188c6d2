//! Writers type on a fixed schedule, everybody reads, every item is accounted for.
//!
//! Seat `document * clients + place`; the first `writers` places of a document type. Yjs client
//! ids count up over all documents, so a received id says whose item it is by a subtraction, and the
//! schedule says when that item was due: nothing is stored per update.
//!
//! Meanwhile cursors may move ([`cursors`]), readers stop reading ([`slow_readers`]), connections be cut,
//! come and go ([`disturbances`], [`attendance`]); whoever returns offers what it has, and is verified
//! like everyone else. Latency is that of live connections: what a returning reader's step 2 brings, and
//! what a returning writer hands over, was typed while they were away, and is counted, but not measured.
//! (A step 2 in between, by which a server catches up with itself, is measured like an update.)
//!
//! At the end newcomers read some of the documents back ([`convergence`]).

pub mod attendance;
pub mod convergence;
pub mod cursors;
mod disturbances;
mod room;
pub mod slices;
pub mod slow_readers;

use super::connector::connect_all;
use super::{Failures, LoadError, ServerCost, Session, seconds_ns, used};
use crate::client::Client;
use crate::event_loop::EventLoop;
use crate::measure::process::Cpu;
use crate::measure::{Latency, LatencySummary};
use crate::progress::{Progress, TURN_MAX};
use crate::scenario::Typing;
use crate::schedule::Schedule;
use crate::verification::Findings;
use crate::wire::Protocol;
use attendance::{Cause, ReturnResult};
use convergence::{Convergence, TraceResult};
use cursors::CursorResult;
use disturbances::Disturbances;
use room::Room;
use serde::Serialize;
use slices::{Slice, Slicer};
use slow_readers::SlowReaderResult;

/// A load tester that is later than this at the window's end gives up.
const LATE_NS_MAX: u64 = 500_000_000;
/// Updates typed before the loop looks at its sockets again, however late they are.
const BURST_MAX: u32 = 512;
/// How long to look for duplicates when everything has arrived.
const LINGER_NS: u64 = 100_000_000;
/// Between the last connection and the first update.
const PAUSE_NS: u64 = 100_000_000;

#[derive(Debug, Default, Serialize)]
pub struct TypingResult {
    pub measure_s: f64,
    /// What the schedule asked for, per second.
    pub offered_deliveries_per_s: f64,
    /// Items that reached another client within the window.
    pub deliveries: u64,
    pub deliveries_per_s: f64,
    /// Over the whole run.
    pub updates_sent: u64,
    /// From the instant an update was due to the instant a reader had it; of all updates due in the window.
    pub latency: Option<LatencySummary>,
    /// The same until the server acknowledged, where it does.
    pub ack_latency: Option<LatencySummary>,
    /// How late the load tester itself sent. Large values mean that it, not the server, is the limit.
    pub send_lag: Option<LatencySummary>,
    pub connect: Option<LatencySummary>,
    /// Items per protocol message that brought any, acknowledgements aside: above 1, the server merges.
    pub items_per_message: f64,
    /// Until the last update had arrived everywhere (or the wait was given up).
    pub settle_s: f64,
    pub verification: Findings,
    pub cpu_per_delivery_us: Option<f64>,
    pub server: Option<ServerCost>,
    pub generator_cpu: Cpu,
    pub generator_cpu_percent: f64,
    /// Was the load tester so late that it gave up? Then the figures are its own.
    pub fell_behind: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursors: Option<CursorResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_readers: Option<SlowReaderResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storm: Option<ReturnResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub churn: Option<ReturnResult>,
    /// Do newcomers find what was written? Absent in a ramp's short steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub convergence: Option<Convergence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceResult>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<Slice>,
    #[serde(skip)]
    pub histogram: Latency,
    #[serde(skip)]
    pub histograms: Histograms,
    #[serde(skip)]
    pub failures: Failures,
}

/// What the summaries were made from.
#[derive(Debug, Default)]
pub struct Histograms {
    pub ack_latency: Latency,
    pub send_lag: Latency,
    pub connect: Latency,
    pub cursors: Latency,
    pub storm: Latency,
    pub churn: Latency,
}

/// What was sampled at the edges of the window.
#[derive(Debug, Clone, Copy)]
struct Edge {
    server: Option<Cpu>,
    own: Cpu,
}

impl Edge {
    fn sample(session: &Session<'_>) -> Result<Self, LoadError> {
        Ok(Self { server: session.cpu()?, own: session.own.cpu()? })
    }
}

/// A run under way.
struct Run<'a> {
    session: &'a Session<'a>,
    event_loop: EventLoop,
    room: Room,
    schedule: Schedule,
    disturbances: Disturbances,
    slicer: Option<Slicer>,
    sent: u64,
    fell_behind: bool,
    /// Did the run have to end before its time?
    is_cut_short: bool,
    progress: &'a mut Progress,
}

pub fn run(
    session: &Session<'_>,
    typing: &Typing,
    progress: &mut Progress,
) -> Result<TypingResult, LoadError> {
    refuse_relay(session, typing)?;
    let memory_before = session.memory()?;
    let mut event_loop = session.event_loop()?;
    let mut room = Room::new(session, typing)?;
    connect_all(session, &mut event_loop, &mut room, progress)?;

    let start_ns = session.begin(&mut event_loop, &mut room, PAUSE_NS)?;
    let schedule = Schedule::new(start_ns, room.documents * room.writers, typing.rate);
    let window_start_ns = start_ns + seconds_ns(typing.warmup_s);
    room.window_ns = window_start_ns..window_start_ns + seconds_ns(typing.measure_s);
    room.schedule = Some(schedule);
    let updates = schedule.count_before(room.window_ns.end);
    check_trace(&room, &schedule, updates)?;
    if let Some(cursors) = &mut room.cursors {
        cursors.start(start_ns);
    }
    let disturbances = Disturbances::new(typing, &room);
    room.stall_ns = disturbances.stall_ns();
    let new_slicer = |every| Slicer::new(session, every, room.documents, start_ns);
    let slicer = typing.slice_updates.map(new_slicer).transpose()?;
    let mut run = Run {
        session,
        event_loop,
        room,
        schedule,
        disturbances,
        slicer,
        sent: 0,
        fell_behind: false,
        is_cut_short: false,
        progress,
    };

    run.type_until(window_start_ns)?;
    let before = Edge::sample(session)?;
    run.type_until(run.room.window_ns.end)?;
    let after = Edge::sample(session)?;
    let updates = if run.is_cut_short { run.sent } else { run.type_the_late()? };
    if let Some(slicer) = &mut run.slicer {
        slicer.look(session, run.sent, true, &run.room)?;
    }
    let settle_s = if run.is_cut_short { 0.0 } else { run.settle(updates, typing.settle_s)? };
    let memory_after = session.memory()?;
    session.leave(&mut run.event_loop, &mut run.room)?;
    // Only now, when nothing is measured any more.
    let found = if run.is_cut_short { (None, None) } else { run.read_back(updates, typing.settle_s)? };
    let cost = ServerCost::of(
        used(after.server, before.server),
        run.measured_s(typing),
        memory_before,
        memory_after,
    );
    Ok(run.into_result(typing, updates, settle_s, found, cost, after.own - before.own))
}

/// Whoever returns to a relay gets nothing of what it missed.
fn refuse_relay(session: &Session<'_>, typing: &Typing) -> Result<(), LoadError> {
    let needs = [
        (typing.storm.is_some(), "typing.storm"),
        (typing.churn.is_some(), "typing.churn"),
        (typing.trace.is_some(), "typing.trace"),
    ];
    match needs.iter().find(|(there, _)| *there && session.target.protocol == Protocol::Relay) {
        Some((_, what)) => Err(LoadError::NeedsDocuments(what)),
        None => Ok(()),
    }
}

fn check_trace(room: &Room, schedule: &Schedule, updates: u64) -> Result<(), LoadError> {
    let wanted = schedule.updates_of(0, updates);
    match room.script() {
        Some(script) if script.len() < wanted => {
            Err(LoadError::TraceTooShort { edits: script.len(), updates: wanted })
        }
        _ => Ok(()),
    }
}

impl Run<'_> {
    /// Types what is due before `end_ns`, and returns at that instant, even if it is behind.
    fn type_until(&mut self, end_ns: u64) -> Result<(), LoadError> {
        let last = self.schedule.count_before(end_ns);
        let all = self.schedule.count_before(self.room.window_ns.end);
        loop {
            let now_ns = self.session.clock.now_ns();
            self.type_due(last, now_ns);
            self.disturb(now_ns)?;
            let cursors_ns = self.move_cursors(now_ns.min(end_ns - 1));
            if let Some(slicer) = &mut self.slicer {
                slicer.look(self.session, self.sent, false, &self.room)?;
            }
            if self.session.is_halted() {
                self.cut_short(now_ns)?;
            }
            if now_ns >= end_ns || self.is_cut_short {
                return self.event_loop.flush(&mut self.room).map_err(LoadError::EventLoop);
            }
            self.progress.observe(now_ns, self.room.counted());
            self.progress.show_part(now_ns, self.sent, all, || {
                format!("typing: {} updates sent, {} deliveries", self.sent, self.room.delivered)
            });
            let next_ns = if self.sent < last { self.schedule.due_ns(self.sent) } else { end_ns };
            self.turn(now_ns, next_ns.min(cursors_ns))?;
        }
    }

    /// The window ends here and now.
    fn cut_short(&mut self, now_ns: u64) -> Result<(), LoadError> {
        let window_ns = &mut self.room.window_ns;
        if now_ns <= window_ns.start {
            return Err(LoadError::Halted);
        }
        window_ns.end = window_ns.end.min(now_ns);
        self.is_cut_short = true;
        Ok(())
    }

    /// How long the window was.
    fn measured_s(&self, typing: &Typing) -> f64 {
        if self.is_cut_short {
            let window_ns = &self.room.window_ns;
            typing.measure_s.min((window_ns.end - window_ns.start) as f64 / 1e9)
        } else {
            typing.measure_s
        }
    }

    /// Types what is due of the first `last` updates, as far as one burst goes.
    fn type_due(&mut self, last: u64, now_ns: u64) {
        let mut burst = 0;
        while self.sent < last && burst < BURST_MAX && self.schedule.due_ns(self.sent) <= now_ns {
            self.room.type_update(&self.schedule, self.sent, now_ns, &mut self.event_loop);
            self.sent += 1;
            burst += 1;
        }
    }

    /// Types what was due in the window and is late, unless it is so late that the load tester can't keep up at all: then
    /// the figures are its own, not the server's, and the run says so. How many updates the run had.
    fn type_the_late(&mut self) -> Result<u64, LoadError> {
        let all = self.schedule.count_before(self.room.window_ns.end);
        while self.sent < all {
            let now_ns = self.session.clock.now_ns();
            let late_ns = now_ns.saturating_sub(self.schedule.due_ns(self.sent));
            if late_ns > LATE_NS_MAX {
                let unsent = all - self.sent;
                self.fell_behind = true;
                self.room.failures.add(|| {
                    format!(
                        "the load tester couldn't keep up: it was {:.1} s late at the window's end, and {unsent} updates \
                         were never sent; lower the rate, or divide the load with --processes",
                        late_ns as f64 / 1e9
                    )
                });
                break;
            }
            self.type_due(all, now_ns);
            self.turn(now_ns, now_ns)?;
        }
        self.event_loop.flush(&mut self.room).map_err(LoadError::EventLoop)?;
        Ok(self.sent)
    }

    fn turn(&mut self, now_ns: u64, until_ns: u64) -> Result<(), LoadError> {
        let until_ns = until_ns.min(self.disturbances.next_ns()).min(now_ns + TURN_MAX.as_nanos() as u64);
        self.event_loop.turn(until_ns, &mut self.room).map_err(LoadError::EventLoop)
    }

    fn disturb(&mut self, now_ns: u64) -> Result<(), LoadError> {
        if now_ns < self.disturbances.next_ns() && self.room.attendance.are_all_here() {
            return Ok(());
        }
        self.disturbances.run(now_ns, self.session, &mut self.event_loop, &mut self.room)
    }

    /// Makes the moves that are due; when the next one is.
    fn move_cursors(&mut self, now_ns: u64) -> u64 {
        let attendance = &self.room.attendance;
        let Some(cursors) = &mut self.room.cursors else {
            return u64::MAX;
        };
        while cursors.next_ns() <= now_ns {
            cursors.move_next(&mut self.event_loop, |seat| attendance.is_here(seat));
        }
        cursors.next_ns()
    }

    /// Waits until everyone is back and everything has arrived and is acknowledged, at most `settle_s`
    /// from when the last disturbance was to end; how long it took. Then looks on for a moment: what
    /// comes after the last item is a duplicate.
    fn settle(&mut self, updates: u64, settle_s: f64) -> Result<f64, LoadError> {
        let expected = self.expected(updates);
        let start_ns = self.session.clock.now_ns();
        let deadline_ns = start_ns.max(self.disturbances.end_ns()) + seconds_ns(settle_s);
        let mut complete_ns = None;
        loop {
            let now_ns = self.session.clock.now_ns();
            if self.session.is_halted() {
                self.cut_short(now_ns)?;
                return Ok((now_ns - start_ns) as f64 / 1e9);
            }
            self.disturb(now_ns)?;
            let room = &mut self.room;
            let unacknowledged: usize = self.event_loop.clients().map(Client::unacknowledged).sum();
            let is_calm = self.disturbances.are_over() && room.attendance.are_all_here();
            if is_calm && room.delivered >= expected && unacknowledged == 0 && room.cursors_lacking() == 0 {
                complete_ns.get_or_insert(now_ns);
            }
            let end_ns = complete_ns.map_or(deadline_ns, |complete_ns| complete_ns + LINGER_NS);
            if now_ns >= end_ns {
                if unacknowledged > 0 {
                    room.failures.add(|| format!("{unacknowledged} messages were never acknowledged"));
                }
                let away = room.attendance.not_here();
                if away > 0 {
                    room.failures.add(|| format!("{away} connections never came back"));
                }
                return Ok((complete_ns.unwrap_or(now_ns) - start_ns) as f64 / 1e9);
            }
            self.progress.observe(now_ns, room.counted());
            self.progress.show_part(now_ns, room.delivered, expected, || {
                format!("settling: {} of {expected} deliveries", room.delivered)
            });
            self.turn(now_ns, end_ns)?;
        }
    }

    /// Deliveries of the first `updates` updates.
    fn expected(&self, updates: u64) -> u64 {
        let writers = 0..self.room.documents * self.room.writers;
        let measurable = |writer| self.room.clocks.measurable(self.schedule.updates_of(writer, updates));
        writers.map(|writer| u64::from(measurable(writer))).sum::<u64>() * u64::from(self.room.clients - 1)
    }

    /// Judges what arrived, and sums up.
    fn into_result(
        self,
        typing: &Typing,
        updates: u64,
        settle_s: f64,
        (convergence, trace): (Option<Convergence>, Option<TraceResult>),
        server: Option<ServerCost>,
        generator_cpu: Cpu,
    ) -> TypingResult {
        let expected = self.expected(updates);
        let (measure_s, is_cut_short) = (self.measured_s(typing), self.is_cut_short);
        let (mut room, schedule, disturbances) = (self.room, self.schedule, &self.disturbances);
        let (clients, documents) = (room.clients, room.documents);
        let offered_updates_per_s = typing.rate * f64::from(documents * room.writers);
        let measurable_share = expected as f64 / (updates * u64::from(clients - 1)).max(1) as f64;
        let found = room.verification.finish_between(|reader, place| {
            let (document, own) = (reader / clients, reader % clients == place);
            let typed = || room.clocks.before(schedule.updates_of(place * documents + document, updates));
            // Of a run that was cut short much is still on its way.
            (!own).then(|| if is_cut_short { 0..=typed() } else { typed()..=typed() })
        });
        if !found.is_right() {
            room.failures.add(|| describe(&found));
        }
        let present = &room.attendance;
        let (cursors, cursor_latency) = room
            .cursors
            .map(|cursors| {
                let is_judged = |seat| !is_cut_short && present.is_here(seat);
                cursors.into_result(is_judged, &mut room.failures)
            })
            .unzip();
        let rejoin = |cause| present.rejoin(cause).clone();
        let histograms = Histograms {
            ack_latency: room.ack_latency,
            send_lag: room.send_lag,
            connect: room.connector.latency,
            cursors: cursor_latency.unwrap_or_default(),
            storm: rejoin(Cause::Storm),
            churn: rejoin(Cause::Churn),
        };
        let slow_readers = typing.slow_readers.as_ref().map(|slow| SlowReaderResult {
            slow_readers: slow.per_document * documents,
            live_latency: room.stalled_latency.summary(),
            closed_1013: room.slow.closed_1013,
            closed_otherwise: room.slow.closed_otherwise,
            cut: room.slow.cut,
            rejoin: present.rejoin(Cause::Stall).summary(),
            resident_before_bytes: disturbances.resident_before_bytes,
            resident_peak_bytes: disturbances.resident_peak_bytes,
        });
        let deliveries = room.delivered_in_window;
        let per_delivery = |cost: ServerCost| cost.cpu.total_s * 1e6 / deliveries as f64;
        TypingResult {
            measure_s,
            offered_deliveries_per_s: offered_updates_per_s * f64::from(clients - 1) * measurable_share,
            deliveries,
            deliveries_per_s: deliveries as f64 / measure_s,
            updates_sent: updates,
            latency: room.latency.summary(),
            ack_latency: histograms.ack_latency.summary(),
            send_lag: histograms.send_lag.summary(),
            connect: histograms.connect.summary(),
            items_per_message: room.items as f64 / room.item_messages.max(1) as f64,
            settle_s,
            verification: found,
            cpu_per_delivery_us: server.filter(|_| deliveries > 0).map(per_delivery),
            server,
            generator_cpu,
            generator_cpu_percent: 100.0 * generator_cpu.total_s / measure_s,
            fell_behind: self.fell_behind,
            cursors,
            slow_readers,
            storm: typing.storm.as_ref().map(|_| (&histograms.storm).into()),
            churn: typing.churn.as_ref().map(|_| (&histograms.churn).into()),
            convergence,
            trace,
            slices: self.slicer.map(Slicer::into_slices).unwrap_or_default(),
            histogram: room.latency,
            histograms,
            failures: room.failures,
        }
    }
}

fn describe(found: &Findings) -> String {
    format!(
        "the server's deliveries are wrong: {} lost (or not there yet when the wait was over), {} duplicated, {} reordered, {} that nobody typed",
        found.lost, found.duplicated, found.reordered, found.foreign
    )
}
