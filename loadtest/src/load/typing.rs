//! Writers type on a fixed schedule, everybody reads, every item is accounted for.
//!
//! Connection `document * clients + place`; the first `writers` places of a document type. Yjs client
//! ids count up over all documents, so a received id says whose item it is by a subtraction, and the
//! schedule says when that item was due: nothing is stored per update.

use super::connector::{Connecting, Connector, connect_all};
use super::{Failures, LoadError, ServerCost, Session, seconds_ns, used};
use crate::client::{Client, Event, Handler};
use crate::event_loop::EventLoop;
use crate::lib0::Malformed;
use crate::measure::process::Cpu;
use crate::measure::series::Counted;
use crate::measure::{Latency, LatencySummary};
use crate::progress::{Progress, TURN_MAX};
use crate::scenario::Typing;
use crate::schedule::Schedule;
use crate::update::EMPTY;
use crate::update::scan::{ClockRange, scan, scan_state_vector};
use crate::update::typist::Typist;
use crate::verification::{Carrier, Findings, Verification};
use serde::Serialize;
use std::ops::Range;

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
}

#[derive(Debug)]
struct Room {
    documents: u32,
    clients: u32,
    writers: u32,
    first_client_id: u64,
    connector: Connector,
    typists: Vec<Typist>, // [document * writers + place]
    schedule: Option<Schedule>,
    window_ns: Range<u64>,
    verification: Verification,
    delivered: u64,
    delivered_in_window: u64,
    items: u64, // own echoes included
    item_messages: u64,
    latency: Latency,
    ack_latency: Latency,
    send_lag: Latency,
    failures: Failures,
    update: Vec<u8>,
}

impl Room {
    fn new(session: &Session<'_>, typing: &Typing) -> Self {
        let scenario = session.scenario;
        let first_client_id = session.first_client_id();
        let writers = u64::from(scenario.documents) * u64::from(typing.writers);
        Self {
            documents: scenario.documents,
            clients: scenario.clients,
            writers: typing.writers,
            first_client_id,
            connector: Connector::new(session),
            typists: (0..writers)
                .map(|writer| Typist::new(first_client_id + writer, typing.positions))
                .collect(),
            schedule: None,
            window_ns: 0..0,
            verification: Verification::new(scenario.connections(), typing.writers),
            delivered: 0,
            delivered_in_window: 0,
            items: 0,
            item_messages: 0,
            latency: Latency::default(),
            ack_latency: Latency::default(),
            send_lag: Latency::default(),
            failures: Failures::default(),
            update: Vec::new(),
        }
    }

    fn counted(&self) -> Counted<'_> {
        Counted { deliveries: self.delivered, latency: &self.latency, failures: self.failures.count() }
    }

    /// The typist of a connection, if it is a writer.
    fn typist_of(&self, connection: u32) -> Option<usize> {
        let (document, place) = (connection / self.clients, connection % self.clients);
        (place < self.writers).then(|| (document * self.writers + place) as usize)
    }

    /// Types update `number` of the schedule.
    fn type_update(&mut self, schedule: &Schedule, number: u64, now_ns: u64, event_loop: &mut EventLoop) {
        // Documents take turns before the writers of one document do.
        let writer = schedule.writer(number);
        let (document, place) = (writer % self.documents, writer / self.documents);
        let due_ns = schedule.due_ns(number);
        self.typists[(document * self.writers + place) as usize].type_one(&mut self.update);
        if let Some(client) = event_loop.client(document * self.clients + place) {
            client.send_update(&self.update, due_ns);
        }
        if self.window_ns.contains(&due_ns) {
            self.send_lag.record_ns(now_ns.saturating_sub(due_ns));
        }
    }

    #[inline]
    fn items(&mut self, client: &Client, now_ns: u64, update: &[u8], carrier: Carrier) {
        let before = self.items;
        if let Err(malformed) = self.try_items(client.number, now_ns, update, carrier) {
            self.failures
                .add(|| format!("connection {} got an unreadable update: {malformed}", client.number));
        }
        self.item_messages += u64::from(self.items > before);
    }

    #[inline]
    fn try_items(
        &mut self,
        reader: u32,
        now_ns: u64,
        update: &[u8],
        carrier: Carrier,
    ) -> Result<(), Malformed> {
        let document = reader / self.clients;
        let own = self.typist_of(reader);
        let first_writer = document * self.writers;
        let in_window = self.window_ns.contains(&now_ns);
        scan(update, |ClockRange { client, clock, len }| {
            let typist = client.wrapping_sub(self.first_client_id);
            let place = typist.wrapping_sub(u64::from(first_writer));
            if place >= u64::from(self.writers) || clock.checked_add(len).is_none() {
                self.verification.receive_foreign(len);
                return;
            }
            self.items += u64::from(len);
            if own == Some(typist as usize) {
                return; // an echo
            }
            let place = place as u32;
            let writer = place * self.documents + document; // in the schedule's order
            let (schedule, window_ns, latency) = (&self.schedule, &self.window_ns, &mut self.latency);
            let mut fresh = 0;
            self.verification.receive(reader, place, clock..clock + len, carrier, |clocks| {
                fresh += clocks.len() as u64;
                let Some(schedule) = schedule else { return };
                for clock in clocks {
                    let due_ns = schedule.due_of(writer, clock);
                    if window_ns.contains(&due_ns) {
                        latency.record_ns(now_ns.saturating_sub(due_ns));
                    }
                }
            });
            self.delivered += fresh;
            self.delivered_in_window += if in_window { fresh } else { 0 };
        })?;
        Ok(())
    }

    /// Judges what arrived, and sums up.
    fn into_result(
        mut self,
        typing: &Typing,
        schedule: &Schedule,
        updates: u64,
        settle_s: f64,
        server: Option<ServerCost>,
        generator_cpu: Cpu,
    ) -> TypingResult {
        let (clients, writers, documents) = (self.clients, self.writers, self.documents);
        let found = self.verification.finish(|reader, place| {
            let (document, own) = (reader / clients, reader % clients == place);
            (!own).then(|| schedule.clocks_of(place * documents + document, updates))
        });
        if !found.is_right() {
            self.failures.add(|| describe(&found));
        }
        let deliveries = self.delivered_in_window;
        let per_delivery = |cost: ServerCost| cost.cpu.total_s * 1e6 / deliveries as f64;
        TypingResult {
            measure_s: typing.measure_s,
            offered_deliveries_per_s: typing.rate * f64::from(documents * writers) * f64::from(clients - 1),
            deliveries,
            deliveries_per_s: deliveries as f64 / typing.measure_s,
            updates_sent: updates,
            latency: self.latency.summary(),
            ack_latency: self.ack_latency.summary(),
            send_lag: self.send_lag.summary(),
            connect: self.connector.latency.summary(),
            items_per_message: self.items as f64 / self.item_messages.max(1) as f64,
            settle_s,
            verification: found,
            cpu_per_delivery_us: server.filter(|_| deliveries > 0).map(per_delivery),
            server,
            generator_cpu,
            generator_cpu_percent: 100.0 * generator_cpu.total_s / typing.measure_s,
            histogram: self.latency,
            histograms: Histograms {
                ack_latency: self.ack_latency,
                send_lag: self.send_lag,
                connect: self.connector.latency,
            },
            failures: self.failures,
        }
    }

    fn answer(&mut self, client: &mut Client, state_vector: &[u8]) {
        let Some(typist) = self.typist_of(client.number) else {
            client.send_step_2(&EMPTY);
            return;
        };
        let typist = &self.typists[typist];
        let mut known = 0;
        let scanned = scan_state_vector(state_vector, |id, clock| {
            if id == typist.client() {
                known = clock;
            }
        });
        if let Err(malformed) = scanned {
            self.failures
                .add(|| format!("connection {} got an unreadable state vector: {malformed}", client.number));
        }
        typist.missing(known, &mut self.update);
        client.send_step_2(&self.update);
    }
}

impl Connecting for Room {
    fn connector(&mut self) -> &mut Connector {
        &mut self.connector
    }
}

impl Handler for Room {
    #[inline]
    fn event(&mut self, client: &mut Client, now_ns: u64, event: Event<'_>) {
        match event {
            Event::Update(update) => self.items(client, now_ns, update, Carrier::Update),
            Event::State(update) => self.items(client, now_ns, update, Carrier::State),
            Event::Synced(update) => {
                self.connector.synced(client.number, now_ns);
                self.items(client, now_ns, update, Carrier::State);
            }
            Event::StateAsked(state_vector) => self.answer(client, state_vector),
            Event::Ack { accepted: true, due_ns } => {
                if let Some(due_ns) = due_ns
                    && self.window_ns.contains(&due_ns)
                {
                    self.ack_latency.record_ns(now_ns.saturating_sub(due_ns));
                }
            }
            Event::Ack { accepted: false, .. } => {
                self.failures.add(|| format!("connection {}: an update was refused", client.number));
            }
            Event::Ended(ended) if client.was_live() => {
                self.failures.add(|| format!("connection {} ended: {ended}", client.number));
            }
            Event::Ended(ended) => self.connector.ended(client.number, ended),
        }
    }
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

pub fn run(
    session: &Session<'_>,
    typing: &Typing,
    progress: &mut Progress,
) -> Result<TypingResult, LoadError> {
    let memory_before = session.memory()?;
    let mut event_loop = session.event_loop()?;
    let mut room = Room::new(session, typing);
    connect_all(session, &mut event_loop, &mut room, progress)?;

    let start_ns = session.begin(&mut event_loop, &mut room, PAUSE_NS)?;
    let schedule = Schedule::new(start_ns, room.documents * room.writers, typing.rate);
    let window_start_ns = start_ns + seconds_ns(typing.warmup_s);
    room.window_ns = window_start_ns..window_start_ns + seconds_ns(typing.measure_s);
    room.schedule = Some(schedule);
    let updates = schedule.count_before(room.window_ns.end);

    let mut sent = 0;
    type_until(session, &mut event_loop, &mut room, &schedule, &mut sent, window_start_ns, progress)?;
    let before = Edge::sample(session)?;
    let window_end_ns = room.window_ns.end;
    type_until(session, &mut event_loop, &mut room, &schedule, &mut sent, window_end_ns, progress)?;
    let after = Edge::sample(session)?;
    let expected = updates * u64::from(room.clients - 1);
    let settle_s = settle(session, &mut event_loop, &mut room, expected, typing.settle_s, progress)?;
    session.leave(&mut event_loop, &mut room)?;
    let memory_after = session.memory()?;

    let cost =
        ServerCost::of(used(after.server, before.server), typing.measure_s, memory_before, memory_after);
    let generator_cpu = after.own - before.own;
    Ok(room.into_result(typing, &schedule, updates, settle_s, cost, generator_cpu))
}

/// Types everything that is due before `end_ns`, and returns at that instant.
fn type_until(
    session: &Session<'_>,
    event_loop: &mut EventLoop,
    room: &mut Room,
    schedule: &Schedule,
    sent: &mut u64,
    end_ns: u64,
    progress: &mut Progress,
) -> Result<(), LoadError> {
    let last = schedule.count_before(end_ns);
    let all = schedule.count_before(room.window_ns.end);
    loop {
        let now_ns = session.clock.now_ns();
        let mut burst = 0;
        while *sent < last && burst < BURST_MAX && schedule.due_ns(*sent) <= now_ns {
            room.type_update(schedule, *sent, now_ns, event_loop);
            *sent += 1;
            burst += 1;
        }
        if now_ns >= end_ns && *sent == last {
            return event_loop.flush(room).map_err(LoadError::EventLoop);
        }
        progress.observe(now_ns, room.counted());
        progress.show_part(now_ns, *sent, all, || {
            format!("typing: {sent} updates sent, {} deliveries", room.delivered)
        });
        let next_ns = if *sent < last { schedule.due_ns(*sent) } else { end_ns };
        let until_ns = next_ns.min(now_ns + TURN_MAX.as_nanos() as u64);
        event_loop.turn(until_ns, room).map_err(LoadError::EventLoop)?;
    }
}

/// Waits until everything has arrived and is acknowledged, at most `settle_s`; how long it took. Then
/// looks on for a moment: what comes after the last item is a duplicate.
fn settle(
    session: &Session<'_>,
    event_loop: &mut EventLoop,
    room: &mut Room,
    expected: u64,
    settle_s: f64,
    progress: &mut Progress,
) -> Result<f64, LoadError> {
    let start_ns = session.clock.now_ns();
    let deadline_ns = start_ns + seconds_ns(settle_s);
    let mut complete_ns = None;
    loop {
        let now_ns = session.clock.now_ns();
        let unacknowledged: usize = event_loop.clients().map(Client::unacknowledged).sum();
        if room.delivered >= expected && unacknowledged == 0 {
            complete_ns.get_or_insert(now_ns);
        }
        let end_ns = complete_ns.map_or(deadline_ns, |complete_ns| complete_ns + LINGER_NS);
        if now_ns >= end_ns {
            if unacknowledged > 0 {
                room.failures.add(|| format!("{unacknowledged} messages were never acknowledged"));
            }
            return Ok((complete_ns.unwrap_or(now_ns) - start_ns) as f64 / 1e9);
        }
        progress.observe(now_ns, room.counted());
        progress.show_part(now_ns, room.delivered, expected, || {
            format!("settling: {} of {expected} deliveries", room.delivered)
        });
        let until_ns = end_ns.min(now_ns + TURN_MAX.as_nanos() as u64);
        event_loop.turn(until_ns, room).map_err(LoadError::EventLoop)?;
    }
}

fn describe(found: &Findings) -> String {
    format!(
        "the server's deliveries are wrong: {} lost, {} duplicated, {} reordered, {} that nobody typed",
        found.lost, found.duplicated, found.reordered, found.foreign
    )
}
