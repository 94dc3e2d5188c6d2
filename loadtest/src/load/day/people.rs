//! The people of a day as they are: who is there, what each has typed and seen.
//!
//! Every person is a Yjs client of their own, reads everything in their document from joining on, and is
//! judged: what was typed before must be in their step 2, what is typed after must come as an update, all
//! of it before they leave (but for what was typed in the last `settle_s`).

use super::plan::{Person, Plan};
use super::visit::{Presence, Visit, available_before};
use crate::client::{Client, Ended, Event, Handler};
use crate::event_loop::EventLoop;
use crate::lib0::Malformed;
use crate::load::{Failures, LoadError};
use crate::measure::Latency;
use crate::measure::series::Counted;
use crate::update::awareness::{self, GONE, is_same_state};
use crate::update::scan::{ClockRange, scan, scan_state_vector};
use crate::update::{EMPTY, state_vector};
use crate::verification::{Carrier, Findings, Verification};
use std::collections::HashMap;
use std::rc::Rc;

/// The clock that a server may use to say that someone is gone: who returns takes the one after it.
const ANNOUNCE_STEP: usize = 2;

/// One document.
#[derive(Debug)]
struct Page {
    name: Rc<str>,
    people: Vec<u32>, // by place
    verification: Verification,
    seen: HashMap<(u32, u32), (u32, bool)>, // by reader's and mover's place: clock, gone?
}

/// What became of the cursors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CursorFindings {
    /// Last states that never reached someone who was there at the end of the day.
    pub lost: u64,
    /// States that nobody had.
    pub foreign: u64,
    /// Still shown at the end of the day though their owner had left: not counted as wrong.
    pub lingering: u64,
}

#[derive(Debug)]
pub(super) struct People {
    plan: Vec<Person>,
    first_client_id: u64,
    visits: Vec<Visit>,
    pages: Vec<Page>,
    occupants: Vec<Option<u32>>, // by connection: the person
    free: Vec<u32>,              // connections
    pub start_ns: u64,
    settle_ns: u64,
    /// What came to those who were there: the history that greets them, and what was typed offline, is none.
    pub delivered: u64,
    pub latency: Latency,
    pub cursor_latency: Latency,
    pub join: Latency,
    pub returned: Latency,
    pub cursors: CursorFindings,
    /// Came as an update though typed long before its reader joined: it was to be in the step 2.
    pub late_state: u64,
    pub failures: Failures,
    is_judged: bool,
    update: Vec<u8>,
    state: Vec<u8>,
}

impl People {
    pub fn counted(&self) -> Counted<'_> {
        Counted { deliveries: self.delivered, latency: &self.latency, failures: self.failures.count() }
    }

    pub fn new(plan: &Plan, names: Vec<Rc<str>>, first_client_id: u64, settle_ns: u64) -> Self {
        let mut people_of: Vec<Vec<u32>> = vec![Vec::new(); names.len()];
        let mut visits = Vec::with_capacity(plan.people.len());
        for (number, person) in plan.people.iter().enumerate() {
            let people = &mut people_of[person.document as usize];
            visits.push(Visit::new(person, first_client_id + number as u64, people.len() as u32));
            people.push(number as u32);
        }
        let pages = names.into_iter().zip(people_of).map(|(name, people)| Page {
            name,
            verification: Verification::new(people.len() as u32, people.len() as u32),
            people,
            seen: HashMap::new(),
        });
        Self {
            plan: plan.people.clone(),
            first_client_id,
            visits,
            pages: pages.collect(),
            occupants: Vec::new(),
            free: Vec::new(),
            start_ns: 0,
            settle_ns,
            delivered: 0,
            latency: Latency::default(),
            cursor_latency: Latency::default(),
            join: Latency::default(),
            returned: Latency::default(),
            cursors: CursorFindings::default(),
            late_state: 0,
            failures: Failures::default(),
            is_judged: false,
            update: Vec::new(),
            state: Vec::new(),
        }
    }

    pub fn is_here(&self, person: u32) -> bool {
        self.visits[person as usize].presence == Presence::Here
    }

    /// How many have a connection of any kind.
    pub fn connected(&self) -> usize {
        self.visits.iter().filter(|visit| visit.number.is_some()).count()
    }

    /// An owner types the first text, to hand it over when asked.
    pub fn type_first_text(&mut self, owner: u32) {
        let edits = self.plan[owner as usize].edits.len();
        if let Some(typist) = &mut self.visits[owner as usize].typist {
            (0..edits).for_each(|_| typist.type_next(&mut self.update));
        }
    }

    pub fn join(&mut self, person: u32, due_ns: u64, event_loop: &mut EventLoop) -> Result<(), LoadError> {
        let returns = self.visits[person as usize].presence == Presence::Offline;
        if !returns && self.visits[person as usize].presence != Presence::NotYet {
            return Ok(()); // their connection failed, which is said already
        }
        let number = self.free.pop().unwrap_or_else(|| event_loop.add_seat());
        if self.occupants.len() <= number as usize {
            self.occupants.resize(number as usize + 1, None);
        }
        self.occupants[number as usize] = Some(person);
        let state_vector = self.state_vector(person);
        let visit = &mut self.visits[person as usize];
        visit.presence = Presence::Joining { due_ns, returns };
        visit.number = Some(number);
        visit.owes_state = true;
        let document = self.pages[visit.page as usize].name.clone();
        event_loop
            .connect_again(number, document, state_vector)
            .map_err(|source| LoadError::Connect { number, source })
    }

    fn state_vector(&self, person: u32) -> Box<[u8]> {
        let visit = &self.visits[person as usize];
        let page = &self.pages[visit.page as usize];
        let known = page.people.iter().zip(page.verification.known(visit.place));
        state_vector(known.map(|(writer, known)| {
            let own = (*writer == person).then(|| visit.next_clock());
            (self.first_client_id + u64::from(*writer), own.unwrap_or(known))
        }))
    }

    /// The person's next update; who is offline types too.
    pub fn type_next(&mut self, person: u32, due_ns: u64, event_loop: &mut EventLoop) {
        let visit = &mut self.visits[person as usize];
        if let Some(typist) = visit.typist.as_mut().filter(|_| visit.presence != Presence::Gone) {
            typist.type_next(&mut self.update);
            if let Some(client) = visit.number.filter(|_| !visit.owes_state)
                && let Some(client) = event_loop.client(client)
            {
                client.send_update(&self.update, due_ns);
            }
        }
    }

    pub fn move_cursor(&mut self, person: u32, due_ns: u64, event_loop: &mut EventLoop) {
        if self.is_here(person)
            && let Some(number) = self.visits[person as usize].number
            && let Some(client) = event_loop.client(number)
        {
            self.visits[person as usize].moves_ns.push(Some(due_ns));
            self.show_cursor(person, client);
        }
    }

    fn show_cursor(&mut self, person: u32, client: &mut Client) {
        let id = self.first_client_id + u64::from(person);
        let clock = self.visits[person as usize].moves_ns.len() as u32;
        awareness::write_state(&mut self.state, id, clock);
        awareness::write(&mut self.update, id, clock, &self.state);
        client.send_awareness(&self.update);
    }

    /// The connection breaks.
    pub fn drop_out(&mut self, person: u32, event_loop: &mut EventLoop) {
        let visit = &mut self.visits[person as usize];
        if let Some(number) = visit.number.take() {
            let was_here = visit.presence == Presence::Here;
            visit.presence = Presence::Offline;
            visit.owes_state = true;
            event_loop.reset(number);
            self.vacate(person, number, was_here);
        }
    }

    /// Says goodbye; the server closes.
    pub fn leave(&mut self, person: u32, now_ns: u64, event_loop: &mut EventLoop) {
        let visit = &mut self.visits[person as usize];
        match visit.number.and_then(|number| event_loop.client(number)) {
            Some(client) => {
                client.send_close();
                visit.left_ns = (visit.presence == Presence::Here).then_some(now_ns);
                visit.presence = Presence::Leaving;
            }
            None => visit.presence = Presence::Gone,
        }
    }

    pub fn leave_all(&mut self, now_ns: u64, event_loop: &mut EventLoop) {
        for person in 0..self.visits.len() as u32 {
            self.leave(person, now_ns, event_loop);
        }
    }

    /// Closes whatever is still open.
    pub fn close_all(&mut self, event_loop: &mut EventLoop) {
        for person in 0..self.visits.len() as u32 {
            if let Some(number) = self.visits[person as usize].number.take() {
                event_loop.close(number);
                let was_here = self.visits[person as usize].left_ns.is_some();
                self.vacate(person, number, was_here);
            }
        }
    }

    fn vacate(&mut self, person: u32, number: u32, was_here: bool) {
        self.occupants[number as usize] = None;
        self.free.push(number);
        let visit = &self.visits[person as usize];
        let page = &mut self.pages[visit.page as usize];
        if was_here {
            page.verification.leave(visit.place);
        }
        page.seen.retain(|(reader, _), _| *reader != visit.place);
    }

    /// Updates (of people who are there) that have not arrived everywhere, and last cursors.
    pub fn lacking(&self) -> u64 {
        let items = self.pages.iter().map(|page| {
            let readers = page.people.iter().filter(|reader| self.is_here(**reader));
            let missing = |reader: &u32| {
                let place = self.visits[*reader as usize].place;
                let known = page.people.iter().zip(page.verification.known(place));
                known
                    .filter(|(writer, known)| {
                        *writer != reader && *known < self.visits[**writer as usize].sent()
                    })
                    .count() as u64
            };
            readers.map(missing).sum::<u64>()
        });
        items.sum::<u64>() + self.cursors_at_the_end().lost
    }

    /// What those who are there show, and have been shown.
    fn cursors_at_the_end(&self) -> CursorFindings {
        let mut found = self.cursors;
        for page in &self.pages {
            for (&reader, &mover) in
                page.people.iter().flat_map(|reader| page.people.iter().map(move |mover| (reader, mover)))
            {
                if reader == mover || !self.is_here(reader) {
                    continue;
                }
                let places = (self.visits[reader as usize].place, self.visits[mover as usize].place);
                let seen = page.seen.get(&places);
                let is_shown = seen.is_some_and(|(_, is_gone)| !is_gone);
                let last = self.visits[mover as usize].moves_ns.len() as u32;
                if self.is_here(mover) && last > 0 {
                    let has_last = is_shown && seen.is_some_and(|(clock, _)| *clock == last);
                    found.lost += u64::from(!has_last);
                } else if self.visits[mover as usize].presence == Presence::Gone {
                    found.lingering += u64::from(is_shown);
                }
            }
        }
        found
    }

    /// Judges at the end of the day, while those who stayed are still there. On a day that was cut short much is
    /// still on its way: nothing is lost that isn't there.
    pub fn judge(&mut self, is_cut_short: bool) -> Findings {
        self.is_judged = true;
        if !is_cut_short {
            self.cursors = self.cursors_at_the_end();
        }
        let mut total = Findings::default();
        for page in &mut self.pages {
            let verification = std::mem::replace(&mut page.verification, Verification::new(0, 0));
            let (people, visits, plan) = (&page.people, &self.visits, &self.plan);
            let (start_ns, settle_ns) = (self.start_ns, self.settle_ns);
            let found = verification.finish_between(|reader, writer| {
                let (reader, writer) = (people[reader as usize], people[writer as usize]);
                let (reader_visit, writer_visit) = (&visits[reader as usize], &visits[writer as usize]);
                let all = writer_visit.sent();
                if reader == writer {
                    return None;
                }
                let at_least = match (reader_visit.presence, reader_visit.left_ns) {
                    (Presence::Here, _) => all,
                    (_, Some(left_ns)) => {
                        let limit_ns = left_ns.saturating_sub(start_ns + settle_ns);
                        let updates = available_before(&plan[writer as usize], limit_ns);
                        writer_visit.clocks.before(updates).min(all)
                    }
                    _ => return None, // not there to the last: the server was slow to take them back
                };
                let at_least = if is_cut_short { 0 } else { at_least };
                Some(at_least..=writer_visit.next_clock())
            });
            total += found;
        }
        total
    }

    fn items(&mut self, person: u32, now_ns: u64, update: &[u8], carrier: Carrier) {
        if let Err(malformed) = self.try_items(person, now_ns, update, carrier) {
            self.failures.add(|| format!("person {person} got an unreadable update: {malformed}"));
        }
    }

    fn try_items(
        &mut self,
        reader: u32,
        now_ns: u64,
        update: &[u8],
        carrier: Carrier,
    ) -> Result<(), Malformed> {
        let (place, synced_ns) = (self.visits[reader as usize].place, self.visits[reader as usize].synced_ns);
        let page = self.visits[reader as usize].page;
        // What greets whoever comes was typed before: no delivery. A later step 2 is measured like an update.
        let is_greeted = self.is_here(reader) || self.visits[reader as usize].left_ns.is_some();
        let verification = &mut self.pages[page as usize].verification;
        scan(update, |ClockRange { client, clock, len }| {
            let writer = client.wrapping_sub(self.first_client_id);
            let visit = usize::try_from(writer).ok().and_then(|writer| self.visits.get(writer));
            let Some(visit) = visit.filter(|visit| visit.page == page && clock.checked_add(len).is_some())
            else {
                verification.receive_foreign(len);
                return;
            };
            if writer == u64::from(reader) {
                return; // an echo
            }
            let typed_ns = &self.plan[writer as usize].typed_ns;
            let is_measured = is_greeted && !visit.handed_over.contains(&clock);
            verification.receive(place, visit.place, clock..clock + len, carrier, |clocks| {
                visit.clocks.completed(clocks, |nth| {
                    // An owner's first text is from before midnight.
                    let Some(due_ns) = typed_ns.get(nth as usize) else { return };
                    if is_measured {
                        self.delivered += 1;
                        let due_ns = self.start_ns + due_ns;
                        self.latency.record_ns(now_ns.saturating_sub(due_ns));
                        self.late_state += u64::from(due_ns + self.settle_ns < synced_ns);
                    }
                });
            });
        })?;
        Ok(())
    }

    fn awareness(&mut self, reader: u32, now_ns: u64, update: &[u8]) {
        let (page, reader_place) = (self.visits[reader as usize].page, self.visits[reader as usize].place);
        let seen = &mut self.pages[page as usize].seen;
        let scanned = awareness::scan(update, |id, clock, state| {
            let mover = id.wrapping_sub(self.first_client_id);
            if mover == u64::from(reader) {
                return; // an echo
            }
            let visit = usize::try_from(mover).ok().and_then(|mover| self.visits.get(mover));
            let Some(visit) = visit.filter(|visit| visit.page == page) else {
                self.cursors.foreign += u64::from(state != GONE);
                return;
            };
            let before = seen.get(&(reader_place, visit.place)).copied();
            if before.is_some_and(|(before, _)| clock < before) {
                return; // out of date: clients ignore it
            }
            if state == GONE {
                seen.insert((reader_place, visit.place), (clock, true));
                return;
            }
            awareness::write_state(&mut self.state, id, clock);
            let sent = (clock as usize).checked_sub(1).and_then(|at| visit.moves_ns.get(at));
            let Some(due_ns) = sent.filter(|_| is_same_state(state, &self.state)) else {
                self.cursors.foreign += 1;
                return;
            };
            seen.insert((reader_place, visit.place), (clock, false));
            // What one hears first may be long out of date.
            if let (Some(due_ns), Some((before, _))) = (due_ns, before)
                && clock > before
            {
                self.cursor_latency.record_ns(now_ns.saturating_sub(*due_ns));
            }
        });
        if let Err(malformed) = scanned {
            self.failures.add(|| format!("person {reader} got an unreadable awareness update: {malformed}"));
        }
    }

    fn synced(&mut self, person: u32, client: &mut Client, now_ns: u64, state: &[u8]) {
        if !self.is_judged {
            self.items(person, now_ns, state, Carrier::State);
        }
        let visit = &mut self.visits[person as usize];
        let Presence::Joining { due_ns, returns } = visit.presence else { return };
        visit.presence = Presence::Here;
        visit.synced_ns = now_ns;
        let took = if returns { &mut self.returned } else { &mut self.join };
        took.record_ns(now_ns.saturating_sub(due_ns));
        if returns && !visit.moves_ns.is_empty() {
            let announced = visit.moves_ns.len() + ANNOUNCE_STEP;
            visit.moves_ns.resize(announced, None);
            self.show_cursor(person, client);
        }
    }

    fn answer(&mut self, person: u32, client: &mut Client, state_vector: &[u8]) {
        let visit = &mut self.visits[person as usize];
        if visit.presence == Presence::Leaving {
            return; // nothing goes after a goodbye
        }
        let owes_state = std::mem::take(&mut visit.owes_state);
        let Some(typist) = &visit.typist else {
            client.send_step_2(&EMPTY);
            return;
        };
        let mut known = 0;
        let scanned = scan_state_vector(state_vector, |id, clock| {
            if id == typist.client() {
                known = clock;
            }
        });
        if let Err(malformed) = scanned {
            self.failures.add(|| format!("person {person} got an unreadable state vector: {malformed}"));
        }
        visit.server_knew = known;
        if owes_state {
            visit.handed_over = known..typist.next_clock();
        }
        typist.missing(known, &mut self.update);
        client.send_step_2(&self.update);
    }

    fn ended(&mut self, person: u32, number: u32, ended: &Ended) {
        let visit = &mut self.visits[person as usize];
        if visit.presence != Presence::Leaving {
            let presence = visit.presence;
            self.failures.add(|| format!("person {person} ({presence:?}): the connection ended: {ended}"));
        }
        let was_here = visit.presence == Presence::Here || visit.left_ns.is_some();
        visit.presence = Presence::Gone;
        visit.number = None;
        self.vacate(person, number, was_here);
    }
}

impl Handler for People {
    fn event(&mut self, client: &mut Client, now_ns: u64, event: Event<'_>) {
        let Some(person) = self.occupants[client.number as usize] else { return };
        match event {
            // What still comes while everybody leaves was judged already, or nobody needs it.
            Event::Update(_) | Event::State(_) | Event::Awareness(_) if self.is_judged => {}
            Event::Update(update) => self.items(person, now_ns, update, Carrier::Update),
            Event::State(update) => self.items(person, now_ns, update, Carrier::State),
            Event::Synced(update) => self.synced(person, client, now_ns, update),
            Event::Awareness(update) => self.awareness(person, now_ns, update),
            Event::StateAsked(state_vector) => self.answer(person, client, state_vector),
            Event::Ack { accepted: true, .. } => {}
            Event::Ack { accepted: false, .. } => {
                self.failures.add(|| format!("person {person}: an update was refused"));
            }
            Event::Ended(ended) => self.ended(person, client.number, &ended),
        }
    }
}
