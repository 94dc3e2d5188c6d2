//! Everything known during a run: who types what, who has what, who is there.

use super::attendance::{Attendance, Cause};
use super::convergence::Witnesses;
use super::cursors::Cursors;
use super::slow_readers::SlowSeats;
use crate::client::{Client, Ended, Event, Handler};
use crate::event_loop::EventLoop;
use crate::lib0::Malformed;
use crate::load::connector::{Connecting, Connector};
use crate::load::{Failures, LoadError, Session};
use crate::measure::Latency;
use crate::measure::series::Counted;
use crate::scenario::Typing;
use crate::schedule::{Clocks, Schedule};
use crate::trace::Trace;
use crate::update::pattern::Pattern;
use crate::update::scan::{ClockRange, scan, scan_state_vector};
use crate::update::script::Script;
use crate::update::typist::{Payload, Typist};
use crate::update::{EMPTY, state_vector};
use crate::verification::{Carrier, Verification};
use std::ops::Range;
use std::rc::Rc;

#[derive(Debug)]
pub(super) struct Room {
    pub documents: u32,
    pub clients: u32,
    pub writers: u32,
    first_client_id: u64,
    pub connector: Connector,
    typists: Vec<Typist>, // [document * writers + place]
    payload: Payload,
    pub clocks: Clocks,
    pub schedule: Option<Schedule>,
    pub window_ns: Range<u64>,
    pub verification: Verification,
    pub attendance: Attendance,
    pub cursors: Option<Cursors>,
    pub slow: SlowSeats,
    /// By typist: what was handed over by its last step 2 was due long before it could be sent.
    handed_over: Vec<Range<u32>>,
    /// By typist: connected, but the server hasn't yet asked for what it lacks.
    owes_state: Vec<bool>,
    pub witnesses: Witnesses,
    /// What came for connections beyond the seats: the last state of each.
    pub visitor_state: Option<Vec<u8>>,
    /// Slow readers whose connection ended since the loop last looked.
    pub fallen: Vec<u32>,
    pub delivered: u64,
    pub delivered_in_window: u64,
    pub items: u64, // own echoes included
    pub item_messages: u64,
    pub latency: Latency,
    /// When readers are stalled, and the latencies of the others of what was due then.
    pub stall_ns: Range<u64>,
    pub stalled_latency: Latency,
    pub ack_latency: Latency,
    pub send_lag: Latency,
    pub failures: Failures,
    update: Vec<u8>,
}

impl Room {
    pub fn new(session: &Session<'_>, typing: &Typing) -> Result<Self, LoadError> {
        let scenario = session.scenario;
        let (documents, clients) = (scenario.documents, scenario.clients);
        let first_client_id = session.first_client_id();
        let writers = u64::from(documents) * u64::from(typing.writers);
        let payload = payload(session, typing)?;
        let new_typist = |writer| Typist::new(first_client_id + writer, typing.positions, payload.clone());
        Ok(Self {
            documents,
            clients,
            writers: typing.writers,
            first_client_id,
            connector: Connector::new(session),
            typists: (0..writers).map(new_typist).collect(),
            clocks: payload.clocks(),
            payload,
            schedule: None,
            window_ns: 0..0,
            verification: Verification::new(scenario.connections(), typing.writers),
            attendance: Attendance::new(scenario.connections(), scenario.connect_at_once),
            cursors: typing
                .cursors
                .as_ref()
                .map(|cursors| Cursors::new(cursors, documents, clients, typing.writers, first_client_id)),
            slow: SlowSeats::new(typing.slow_readers.as_ref(), clients),
            handed_over: vec![0..0; writers as usize],
            owes_state: vec![false; writers as usize],
            witnesses: Witnesses::new(session, typing),
            visitor_state: None,
            fallen: Vec::new(),
            delivered: 0,
            delivered_in_window: 0,
            items: 0,
            item_messages: 0,
            latency: Latency::default(),
            stall_ns: 0..0,
            stalled_latency: Latency::default(),
            ack_latency: Latency::default(),
            send_lag: Latency::default(),
            failures: Failures::default(),
            update: Vec::new(),
        })
    }

    pub fn seats(&self) -> u32 {
        self.documents * self.clients
    }

    pub fn counted(&self) -> Counted<'_> {
        Counted { deliveries: self.delivered, latency: &self.latency, failures: self.failures.count() }
    }

    /// The edits typed, if they are those of a trace.
    pub fn script(&self) -> Option<&Rc<Script>> {
        match &self.payload {
            Payload::Script(script) => Some(script),
            Payload::Characters | Payload::Pattern(_) => None,
        }
    }

    /// Who types in a document.
    pub fn typists_of(&self, document: u32) -> &[Typist] {
        let first = document as usize * self.writers as usize;
        &self.typists[first..first + self.writers as usize]
    }

    /// The typist of a seat, if it is a writer's.
    pub fn typist_of(&self, seat: u32) -> Option<usize> {
        let (document, place) = (seat / self.clients, seat % self.clients);
        (place < self.writers).then(|| (document * self.writers + place) as usize)
    }

    /// Types update `number` of the schedule. Who is away types too, for later.
    #[inline]
    pub fn type_update(&mut self, schedule: &Schedule, number: u64, now_ns: u64, event_loop: &mut EventLoop) {
        // Documents take turns before the writers of one document do.
        let writer = schedule.writer(number);
        let (document, place) = (writer % self.documents, writer / self.documents);
        let due_ns = schedule.due_ns(number);
        let typist = (document * self.writers + place) as usize;
        self.typists[typist].type_next(&mut self.update);
        if let Some(client) = event_loop.client(document * self.clients + place)
            && !self.owes_state[typist]
        {
            client.send_update(&self.update, due_ns);
        }
        if self.window_ns.contains(&due_ns) {
            self.send_lag.record_ns(now_ns.saturating_sub(due_ns));
        }
    }

    /// Ends a seat's connection; it can come back.
    pub fn leave(&mut self, seat: u32, reset: bool, event_loop: &mut EventLoop) {
        if reset {
            event_loop.reset(seat);
        } else {
            event_loop.leave(seat);
        }
        self.left(seat);
    }

    /// Notes that a seat has no connection any more.
    fn left(&mut self, seat: u32) {
        if self.attendance.is_here(seat) {
            self.verification.leave(seat);
        }
        self.attendance.leave(seat);
        if let Some(cursors) = &mut self.cursors {
            cursors.leave(seat);
        }
        if let Some(typist) = self.typist_of(seat) {
            self.owes_state[typist] = true;
        }
    }

    /// Connects those whose turn it is to come back.
    pub fn connect_returning(
        &mut self,
        session: &Session<'_>,
        event_loop: &mut EventLoop,
    ) -> Result<(), LoadError> {
        while let Some(seat) = self.attendance.next_to_connect() {
            let document = session.document(seat / self.clients);
            event_loop
                .connect_again(seat, document, self.state_vector(seat))
                .map_err(|source| LoadError::Connect { number: seat, source })?;
        }
        Ok(())
    }

    /// What a seat has, as it tells the server.
    fn state_vector(&self, seat: u32) -> Box<[u8]> {
        let first_typist = seat / self.clients * self.writers;
        let own = self.typist_of(seat);
        let known = (first_typist..).zip(self.verification.known(seat));
        state_vector(known.map(|(typist, known)| {
            let typist = typist as usize;
            let clock = if own == Some(typist) { self.typists[typist].next_clock() } else { known };
            (self.typists[typist].client(), clock)
        }))
    }

    #[inline]
    fn items(&mut self, client: &Client, now_ns: u64, update: &[u8], carrier: Carrier) {
        self.witnesses.note(client.number, update);
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
        // What greets whoever returns was typed while they were away; slow readers make themselves late.
        let is_measured = self.attendance.is_here(reader) && !self.slow.contains(reader);
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
            let handed_over = &self.handed_over[typist as usize];
            let is_measured = is_measured && !(clock < handed_over.end && clock >= handed_over.start);
            let (schedule, window_ns, latency) = (&self.schedule, &self.window_ns, &mut self.latency);
            let (stall_ns, stalled_latency) = (&self.stall_ns, &mut self.stalled_latency);
            let clocks_of = &self.clocks;
            let mut fresh = 0;
            self.verification.receive(reader, place, clock..clock + len, carrier, |clocks| {
                clocks_of.completed(clocks, |nth| {
                    fresh += 1;
                    let Some(schedule) = schedule else { return };
                    let due_ns = schedule.due_of(writer, nth);
                    if is_measured && window_ns.contains(&due_ns) {
                        latency.record_ns(now_ns.saturating_sub(due_ns));
                        if stall_ns.contains(&due_ns) {
                            stalled_latency.record_ns(now_ns.saturating_sub(due_ns));
                        }
                    }
                });
            });
            self.delivered += fresh;
            self.delivered_in_window += if in_window { fresh } else { 0 };
        })?;
        Ok(())
    }

    /// Answers the server's step 1.
    fn answer(&mut self, client: &mut Client, state_vector: &[u8]) {
        let typist = if client.number < self.seats() { self.typist_of(client.number) } else { None };
        let Some(typist) = typist else {
            client.send_step_2(&EMPTY);
            return;
        };
        let owes_state = std::mem::take(&mut self.owes_state[typist]);
        let typist_ref = &self.typists[typist];
        let mut known = 0;
        let scanned = scan_state_vector(state_vector, |id, clock| {
            if id == typist_ref.client() {
                known = clock;
            }
        });
        if let Err(malformed) = scanned {
            self.failures
                .add(|| format!("connection {} got an unreadable state vector: {malformed}", client.number));
        }
        if owes_state {
            self.handed_over[typist] = known..typist_ref.next_clock();
        }
        typist_ref.missing(known, &mut self.update);
        client.send_step_2(&self.update);
    }

    fn synced(&mut self, client: &mut Client, now_ns: u64, state: &[u8]) {
        let seat = client.number;
        if seat >= self.seats() {
            self.visitor_state = Some(state.to_owned());
            return;
        }
        self.items(client, now_ns, state, Carrier::State);
        if self.attendance.is_returning(seat) {
            self.attendance.synced(seat, now_ns);
            if let Some(cursors) = &mut self.cursors {
                cursors.returned(client);
            }
        } else {
            self.connector.synced(seat, now_ns);
        }
    }

    fn ended(&mut self, client: &Client, ended: Ended) {
        let seat = client.number;
        if seat >= self.seats() {
            self.failures.add(|| format!("the last newcomer's connection ended: {ended}"));
        } else if self.attendance.is_returning(seat) {
            self.failures.add(|| format!("connection {seat} could not come back: {ended}"));
            self.left(seat);
        } else if client.was_live() && self.slow.may_fall(seat) {
            self.slow.fell(seat, &ended);
            self.fallen.push(seat);
            self.left(seat);
        } else if client.was_live() {
            self.failures.add(|| format!("connection {seat} ended: {ended}"));
        } else {
            self.connector.ended(seat, ended);
        }
    }

    fn awareness(&mut self, seat: u32, now_ns: u64, update: &[u8]) {
        if let Some(cursors) = &mut self.cursors
            && seat < self.documents * self.clients
        {
            let attendance = &self.attendance;
            let window_ns = if self.slow.contains(seat) { 0..0 } else { self.window_ns.clone() };
            let received = cursors.receive(seat, now_ns, update, &window_ns, |seat| attendance.is_here(seat));
            if let Err(malformed) = received {
                self.failures
                    .add(|| format!("connection {seat} got an unreadable awareness update: {malformed}"));
            }
        }
    }

    /// How many of everyone's last cursors haven't arrived.
    pub fn cursors_lacking(&self) -> u64 {
        self.cursors.as_ref().map_or(0, |cursors| cursors.lacking(|seat| self.attendance.is_here(seat)))
    }

    pub fn come_back(&mut self, seat: u32, due_ns: u64, cause: Cause) {
        self.attendance.come_back(seat, due_ns, cause);
    }
}

fn payload(session: &Session<'_>, typing: &Typing) -> Result<Payload, LoadError> {
    if let Some(name) = &typing.trace {
        return Ok(Payload::Script(Rc::new(Script::new(Trace::load(name, session.traces.as_deref())?))));
    }
    // A mix that makes no pattern was refused with the scenario.
    let pattern = typing.mix.as_ref().and_then(Pattern::new);
    Ok(pattern.map_or(Payload::Characters, |pattern| Payload::Pattern(Rc::new(pattern))))
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
            Event::Update(update) | Event::State(update) if client.number >= self.seats() => {
                // Only the state of a newcomer counts, and a later one asks again.
                let _ = update;
            }
            Event::Update(update) => self.items(client, now_ns, update, Carrier::Update),
            Event::State(update) => self.items(client, now_ns, update, Carrier::State),
            Event::Synced(update) => self.synced(client, now_ns, update),
            Event::Awareness(update) => self.awareness(client.number, now_ns, update),
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
            Event::Ended(ended) => self.ended(client, ended),
        }
    }
}
