//! A day of simulated people, or several: [`plan`] says who does what and when, [`people`] keeps what
//! each has typed and seen, this module lets time pass.
//!
//! Open loop: every deed is due at an instant fixed before the day begins, and latency counts from it.
//! After each day everyone leaves; a soak fails if the server's memory doesn't come back then.

mod people;
mod plan;
mod visit;

use super::{Failures, LoadError, ServerCost, Session, seconds_ns, used};
use crate::event_loop::EventLoop;
use crate::measure::{Latency, LatencySummary};
use crate::progress::{Progress, TURN_MAX};
use crate::scenario::{Day, Soak};
use crate::verification::Findings;
use crate::wire::Protocol;
use people::{CursorFindings, People};
use plan::{Action, Deed, Plan};
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// Between the owners' first texts and midnight.
const PAUSE_NS: u64 = 500_000_000;
/// How often to look whether everything has arrived.
const LOOK_NS: u64 = 50_000_000;
/// How long to look for duplicates when everything has arrived.
const LINGER_NS: u64 = 100_000_000;
/// How long a server may take to answer a goodbye.
const GOODBYE_NS: u64 = 3_000_000_000;
/// Samples of the server's memory over the whole run.
const MEMORY_SAMPLES: f64 = 1_000.0;
const MEMORY_INTERVAL_S_MIN: f64 = 0.5;
/// Deeds done before the loop looks at its sockets again, however late they are.
const BURST_MAX: usize = 512;

#[derive(Debug, Serialize)]
pub struct DayResult {
    /// Give it as `seed` to have the same days again.
    pub seed: u64,
    pub days: Vec<OneDay>,
    /// From the instant an update was due to the instant a reader had it, on live connections.
    pub latency: Option<LatencySummary>,
    pub cursor_latency: Option<LatencySummary>,
    /// From the instant someone was to join (or return) to the step 2.
    pub join: Option<LatencySummary>,
    pub returned: Option<LatencySummary>,
    /// How late the load tester itself was.
    pub send_lag: Option<LatencySummary>,
    pub verification: Findings,
    pub cursors: CursorFindings,
    pub cpu_per_delivery_us: Option<f64>,
    pub server: Option<ServerCost>,
    /// The server's resident memory: seconds since the start, bytes.
    pub memory: Vec<(f64, u64)>,
    #[serde(skip)]
    pub histogram: Latency,
    #[serde(skip)]
    pub failures: Failures,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct OneDay {
    pub people: u32,
    pub peak: u32,
    pub turned_away: u32,
    pub updates: u64,
    pub deliveries: u64,
    pub p99_ms: Option<f64>,
    /// Until everything had arrived after the end of the day.
    pub settle_s: f64,
    /// When everybody was gone, and the server had had time to put things away.
    pub resident_after_bytes: Option<u64>,
}

/// Everything that goes on from day to day.
struct Run<'a> {
    session: &'a Session<'a>,
    day: &'a Day,
    event_loop: EventLoop,
    start_ns: u64,
    memory_ns: u64,
    memory_interval_ns: u64,
    next_client_id: u64,
    send_lag: Latency,
    result: DayResult,
    latencies: [Latency; 3], // of cursors, joins, returns
    progress: &'a mut Progress,
}

pub fn run(session: &Session<'_>, day: &Day, progress: &mut Progress) -> Result<DayResult, LoadError> {
    if session.target.protocol == Protocol::Relay {
        return Err(LoadError::NeedsDocuments("day"));
    }
    if day.soak.is_some() && !session.watch.has_server() {
        return Err(LoadError::NeedsServer("day.soak"));
    }
    let memory_before = session.memory()?;
    let cpu_before = session.cpu()?;
    let seed = if day.seed == 0 { fresh_seed() } else { day.seed };
    let start_ns = session.clock.now_ns();
    let total_s = day.soak.as_ref().map_or(day.day_s, |soak| soak.total_s);
    let mut run = Run {
        session,
        day,
        event_loop: session.event_loop()?,
        start_ns,
        memory_ns: start_ns,
        memory_interval_ns: seconds_ns((total_s / MEMORY_SAMPLES).max(MEMORY_INTERVAL_S_MIN)),
        next_client_id: session.first_client_id(),
        send_lag: Latency::default(),
        result: DayResult::new(seed),
        latencies: Default::default(),
        progress,
    };
    for number in 0..day.days() {
        run.one_day(number, seed.wrapping_add(u64::from(number)))?;
        if session.is_halted() {
            break;
        }
    }
    let span_s = (session.clock.now_ns() - start_ns) as f64 / 1e9;
    let cpu = used(session.cpu()?, cpu_before);
    let mut result = run.result;
    result.server = ServerCost::of(cpu, span_s, memory_before, session.memory()?);
    let deliveries: u64 = result.days.iter().map(|day| day.deliveries).sum();
    let per_delivery = |cost: ServerCost| cost.cpu.total_s * 1e6 / deliveries as f64;
    result.cpu_per_delivery_us = result.server.filter(|_| deliveries > 0).map(per_delivery);
    result.latency = result.histogram.summary();
    [result.cursor_latency, result.join, result.returned] = run.latencies.each_ref().map(Latency::summary);
    result.send_lag = run.send_lag.summary();
    if !result.verification.is_right() {
        let found = result.verification;
        result.failures.add(|| format!("the server's deliveries are wrong: {found:?}"));
    }
    if result.cursors.lost + result.cursors.foreign > 0 {
        let found = result.cursors;
        result.failures.add(|| format!("the server's cursors are wrong: {found:?}"));
    }
    if let Some(soak) = &day.soak {
        judge_memory(soak, &mut result);
    }
    Ok(result)
}

impl DayResult {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            days: Vec::new(),
            latency: None,
            cursor_latency: None,
            join: None,
            returned: None,
            send_lag: None,
            verification: Findings::default(),
            cursors: CursorFindings::default(),
            cpu_per_delivery_us: None,
            server: None,
            memory: Vec::new(),
            histogram: Latency::default(),
            failures: Failures::default(),
        }
    }
}

/// Not 0, and short enough for any program that reads JSON.
fn fresh_seed() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_epoch.as_nanos() as u64 % 1_000_000_007 + 1
}

/// Does the server hold more after the last day than after the first?
fn judge_memory(soak: &Soak, result: &mut DayResult) {
    let after = |day: Option<&OneDay>| day.and_then(|day| day.resident_after_bytes);
    let Some((first, last)) = after(result.days.first()).zip(after(result.days.last())) else {
        return;
    };
    let allowed = (first as f64 * soak.memory_tolerance).max(soak.memory_slack_mb * 1_048_576.0);
    if last as f64 > first as f64 + allowed {
        let days = result.days.len();
        result.failures.add(|| {
            format!(
                "the server holds {last} bytes after day {days}, {first} after the first: {:.0} more were allowed",
                allowed
            )
        });
    }
}

impl Run<'_> {
    fn one_day(&mut self, number: u32, seed: u64) -> Result<(), LoadError> {
        let scenario = self.session.scenario;
        let documents = scenario.documents;
        let plan = Plan::new(self.day, documents, scenario.clients, seed);
        let names = (0..documents).map(|index| self.session.document(number * documents + index)).collect();
        let settle_ns = seconds_ns(self.day.settle_s);
        let mut people = People::new(&plan, names, self.next_client_id, settle_ns);
        self.next_client_id += plan.people.len() as u64;
        self.progress.restart(); // every day counts from nothing
        let settle_s = match self.pass(&plan, &mut people) {
            // A day that is cut short is reported as far as it came.
            Err(LoadError::Halted) if people.delivered > 0 => 0.0,
            result => result?,
        };
        let found = people.judge(self.session.is_halted());
        match self.send_home(&mut people) {
            Err(LoadError::Halted) => {}
            result => result?,
        }
        let one_day = OneDay {
            people: plan.people.len() as u32 - documents,
            peak: plan.peak,
            turned_away: plan.turned_away,
            updates: plan.updates(),
            deliveries: people.delivered,
            p99_ms: people.latency.summary().map(|latency| latency.p99_ms),
            settle_s,
            resident_after_bytes: self.session.resident_bytes()?,
        };
        self.sum_up(one_day, people, &found);
        Ok(())
    }

    /// From the owners' first texts to when everything has arrived; how long that took at the end.
    fn pass(&mut self, plan: &Plan, people: &mut People) -> Result<f64, LoadError> {
        self.let_owners_in(people)?;
        people.start_ns = self.session.clock.now_ns() + PAUSE_NS;
        self.live(&plan.actions, people)?;
        self.settle(people)
    }

    fn sum_up(&mut self, one_day: OneDay, people: People, found: &Findings) {
        let result = &mut self.result;
        result.days.push(one_day);
        result.verification += *found;
        result.histogram.add(&people.latency);
        let latencies = [&people.cursor_latency, &people.join, &people.returned];
        self.latencies.iter_mut().zip(latencies).for_each(|(sum, latency)| sum.add(latency));
        result.cursors.lost += people.cursors.lost;
        result.cursors.foreign += people.cursors.foreign;
        result.cursors.lingering += people.cursors.lingering;
        if people.late_state > 0 {
            let late = people.late_state;
            result.failures.add(|| format!("{late} updates were missing in a step 2 and came later"));
        }
        result.failures.append(people.failures);
    }

    /// Owners type their first text, and hand it over.
    fn let_owners_in(&mut self, people: &mut People) -> Result<(), LoadError> {
        let scenario = self.session.scenario;
        let (owners, mut opened) = (scenario.documents, 0);
        let deadline_ns = self.session.clock.now_ns() + seconds_ns(scenario.connect_timeout_s);
        loop {
            let here = (0..opened).filter(|owner| people.is_here(*owner)).count() as u32;
            if here == owners {
                return Ok(());
            }
            while opened < owners.min(here + scenario.connect_at_once) {
                people.type_first_text(opened);
                people.join(opened, self.session.clock.now_ns(), &mut self.event_loop)?;
                opened += 1;
            }
            if self.session.clock.now_ns() >= deadline_ns || !people.failures.is_empty() {
                let timeout_s = scenario.connect_timeout_s;
                let reason = std::mem::take(&mut people.failures).into_sentences().into_iter().next();
                return Err(reason.map_or(
                    LoadError::Timeout { synced: here, connections: owners, timeout_s },
                    |reason| LoadError::NotStored { reason },
                ));
            }
            self.turn(people, deadline_ns, "the owners come")?;
        }
    }

    /// Lets everybody do what they planned, when they planned it.
    fn live(&mut self, actions: &[Action], people: &mut People) -> Result<(), LoadError> {
        let midnight_ns = people.start_ns + seconds_ns(self.day.day_s);
        let mut left = actions;
        loop {
            let now_ns = self.session.clock.now_ns();
            let due = left.iter().take(BURST_MAX);
            let count = due.take_while(|action| people.start_ns + action.due_ns <= now_ns).count();
            let (now_due, later) = left.split_at(count);
            left = later;
            for action in now_due {
                self.act(action, now_ns, people)?;
            }
            let next_ns = left.first().map_or(midnight_ns, |action| people.start_ns + action.due_ns);
            if left.is_empty() && now_ns >= midnight_ns {
                return Ok(());
            }
            self.turn(people, next_ns, "the day goes by")?;
        }
    }

    fn act(&mut self, action: &Action, now_ns: u64, people: &mut People) -> Result<(), LoadError> {
        let due_ns = people.start_ns + action.due_ns;
        let event_loop = &mut self.event_loop;
        match action.deed {
            Deed::Join | Deed::Return => people.join(action.person, due_ns, event_loop)?,
            Deed::Type => {
                people.type_next(action.person, due_ns, event_loop);
                self.send_lag.record_ns(now_ns.saturating_sub(due_ns));
            }
            Deed::MoveCursor => people.move_cursor(action.person, due_ns, event_loop),
            Deed::Drop => people.drop_out(action.person, event_loop),
            Deed::Leave => people.leave(action.person, now_ns, event_loop),
        }
        Ok(())
    }

    /// Waits until everything has arrived where it is to, at most `settle_s`; how long it took.
    fn settle(&mut self, people: &mut People) -> Result<f64, LoadError> {
        let start_ns = self.session.clock.now_ns();
        let deadline_ns = start_ns + seconds_ns(self.day.settle_s);
        let mut now_ns = start_ns;
        while people.lacking() > 0 && now_ns < deadline_ns {
            now_ns = self.wait(people, LOOK_NS)?;
        }
        // What comes after the last item is a duplicate.
        self.wait(people, LINGER_NS)?;
        Ok((now_ns - start_ns) as f64 / 1e9)
    }

    /// Lets so much time pass; what time it is then.
    fn wait(&mut self, people: &mut People, length_ns: u64) -> Result<u64, LoadError> {
        let until_ns = self.session.clock.now_ns() + length_ns;
        loop {
            let now_ns = self.session.clock.now_ns();
            if now_ns >= until_ns {
                return Ok(now_ns);
            }
            self.turn(people, until_ns, "settling")?;
        }
    }

    /// Everybody leaves; the server may put away what nobody uses.
    fn send_home(&mut self, people: &mut People) -> Result<(), LoadError> {
        let now_ns = self.session.clock.now_ns();
        people.leave_all(now_ns, &mut self.event_loop);
        while people.connected() > 0 && self.session.clock.now_ns() < now_ns + GOODBYE_NS {
            self.turn(people, now_ns + GOODBYE_NS, "everybody leaves")?;
        }
        people.close_all(&mut self.event_loop);
        let calm_s = self.day.soak.as_ref().map_or(0.0, |soak| soak.calm_s);
        let calm_ns = self.session.clock.now_ns() + seconds_ns(calm_s);
        while self.session.clock.now_ns() < calm_ns {
            self.turn(people, calm_ns, "calming down")?;
        }
        Ok(())
    }

    fn turn(&mut self, people: &mut People, until_ns: u64, phase: &str) -> Result<(), LoadError> {
        self.session.go_on()?;
        let now_ns = self.session.clock.now_ns();
        if now_ns >= self.memory_ns {
            self.memory_ns = now_ns + self.memory_interval_ns;
            let at_s = (now_ns - self.start_ns) as f64 / 1e9;
            self.result.memory.extend(self.session.resident_bytes()?.map(|bytes| (at_s, bytes)));
        }
        self.progress.observe(now_ns, people.counted());
        self.progress.show(now_ns, || {
            let day = self.result.days.len() + 1;
            format!("day {day}: {phase}: {} people, {} deliveries", people.connected(), people.delivered)
        });
        let until_ns = until_ns.min(now_ns + TURN_MAX.as_nanos() as u64);
        self.event_loop.turn(until_ns, people).map_err(LoadError::EventLoop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(bytes: [u64; 3]) -> DayResult {
        let mut result = DayResult::new(1);
        result.days.extend(bytes.map(|bytes| OneDay {
            people: 0,
            peak: 0,
            turned_away: 0,
            updates: 0,
            deliveries: 0,
            p99_ms: None,
            settle_s: 0.0,
            resident_after_bytes: Some(bytes),
        }));
        result
    }

    #[test]
    fn a_soak_fails_only_if_memory_stays_above_that_after_the_first_day() {
        let soak = Soak { total_s: 3.0, calm_s: 0.0, memory_tolerance: 0.25, memory_slack_mb: 1.0 };
        let fails = |bytes| {
            let mut result = after(bytes);
            judge_memory(&soak, &mut result);
            !result.failures.is_empty()
        };
        assert!(!fails([100 << 20, 300 << 20, 124 << 20]));
        assert!(fails([100 << 20, 100 << 20, 126 << 20]));
        assert!(!fails([1 << 20, 1 << 20, (2 << 20) - 1]));
    }
}
