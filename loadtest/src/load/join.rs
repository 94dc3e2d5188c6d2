//! Newcomers load a document with a long history: what does a join cost?
//!
//! One writer brings the document's state in a single update and stays. Then newcomers connect with
//! nothing, wait for the server's step 2, check it, and go. The first to find everything is not measured
//! (its text is compared, character by character); the window ends with the last step 2, or with that of the
//! last who was let in before the time was up.

use super::connector::{Connecting, Connector, connect_all};
use super::{Failures, LoadError, ServerCost, Session, seconds_ns, used};
use crate::client::{Client, Event, Handler};
use crate::event_loop::EventLoop;
use crate::measure::{Latency, LatencySummary};
use crate::progress::{Progress, TURN_MAX};
use crate::scenario::Join;
use crate::trace::{History, Trace, text_of};
use crate::update::EMPTY;
use crate::update::scan::scan;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct JoinResult {
    pub trace: String,
    pub edits: usize,
    /// Of the update the writer brought.
    pub state_bytes: usize,
    /// Of the server's step 2.
    pub step_2_bytes: usize,
    /// Those that were measured; fewer than were asked for if the time was up before.
    pub joins: u32,
    pub joins_asked: u32,
    pub joins_s: f64,
    /// From opening the socket to the whole step 2.
    pub join: Option<LatencySummary>,
    pub cpu_per_join_ms: Option<f64>,
    pub server: Option<ServerCost>,
    pub generator_cpu_percent: f64,
    #[serde(skip)]
    pub latency: Latency,
    #[serde(skip)]
    pub failures: Failures,
}

#[derive(Debug)]
struct Newcomers {
    connector: Connector,
    history: History,
    started_ns: Vec<u64>, // by connection; the writer is number 0
    arrived: Vec<u32>,    // whose step 2 came since the loop last looked
    /// Has the writer sent its document?
    handed_over: bool,
    /// Is what arrives to be complete, and counted?
    measuring: bool,
    is_complete: bool,
    step_2_bytes: usize,
    latency: Latency,
    failures: Failures,
}

impl Newcomers {
    fn joined(&mut self, number: u32, now_ns: u64, state: &[u8]) {
        self.arrived.push(number);
        self.step_2_bytes = state.len();
        let mut clocks = 0;
        let deleted = scan(state, |range| clocks += u64::from(range.len));
        let is_whole = clocks == self.history.clocks && deleted == Ok(self.history.deleted);
        if self.measuring {
            self.latency.record_ns(now_ns - self.started_ns[number as usize]);
            if !is_whole {
                self.failures.add(|| format!("join {number} got {clocks} of {} items", self.history.clocks));
            }
        } else if is_whole {
            self.is_complete = true;
            if text_of(state).as_deref() != Some(&self.history.text) {
                self.failures.add(|| "the document's text differs from what was typed".to_owned());
            }
        }
    }
}

impl Connecting for Newcomers {
    fn connector(&mut self) -> &mut Connector {
        &mut self.connector
    }
}

impl Handler for Newcomers {
    fn event(&mut self, client: &mut Client, now_ns: u64, event: Event<'_>) {
        match event {
            Event::Synced(_) if client.number == 0 => self.connector.synced(0, now_ns),
            Event::Synced(state) => self.joined(client.number, now_ns, state),
            Event::StateAsked(_) if client.number == 0 && self.handed_over => {
                client.send_step_2(&self.history.update)
            }
            Event::StateAsked(_) => client.send_step_2(&EMPTY),
            Event::Ack { accepted: false, .. } => {
                self.failures.add(|| "the document's update was refused".to_owned())
            }
            Event::Ended(ended) if client.number == 0 && !client.was_live() => self.connector.ended(0, ended),
            Event::Ended(ended) => {
                if !client.was_live() {
                    self.arrived.push(client.number);
                }
                self.failures.add(|| format!("connection {} ended: {ended}", client.number));
            }
            Event::Update(_) | Event::State(_) | Event::Awareness(_) | Event::Ack { .. } => {}
        }
    }
}

pub fn run(session: &Session<'_>, join: &Join, progress: &mut Progress) -> Result<JoinResult, LoadError> {
    progress.show(session.clock.now_ns(), || format!("typing {} into a document of our own", join.trace));
    let trace = Trace::load(&join.trace, session.traces.as_deref())?;
    let history = trace.history(session.first_client_id(), || session.go_on())?;
    let state_bytes = history.update.len();
    let memory_before = session.memory()?;
    let mut event_loop = session.event_loop()?;
    let mut load = Newcomers {
        connector: Connector::new(session),
        history,
        started_ns: vec![0],
        arrived: Vec::new(),
        handed_over: false,
        measuring: false,
        is_complete: false,
        step_2_bytes: 0,
        latency: Latency::default(),
        failures: Failures::default(),
    };
    connect_all(session, &mut event_loop, &mut load, progress)?;
    store(session, &mut event_loop, &mut load, join.timeout_s, progress)?;

    load.measuring = true;
    let (cpu_before, own_before) = (session.cpu()?, session.own.cpu()?);
    let start_ns = session.clock.now_ns();
    join_all(session, &mut event_loop, &mut load, join, progress)?;
    let joins_s = (session.clock.now_ns() - start_ns) as f64 / 1e9;
    let joins = load.latency.count() as u32;
    let cpu = used(session.cpu()?, cpu_before);
    let own = session.own.cpu()? - own_before;
    let server = ServerCost::of(cpu, joins_s, memory_before, session.memory()?);
    Ok(JoinResult {
        trace: trace.source.clone(),
        edits: trace.edits(),
        state_bytes,
        step_2_bytes: load.step_2_bytes,
        joins,
        joins_asked: join.joins,
        joins_s,
        join: load.latency.summary(),
        cpu_per_join_ms: server.filter(|_| joins > 0).map(|cost| cost.cpu.total_s * 1e3 / f64::from(joins)),
        server,
        generator_cpu_percent: 100.0 * own.total_s / joins_s,
        latency: load.latency,
        failures: load.failures,
    })
}

/// Hands the document over, and joins until a newcomer gets all of it.
fn store(
    session: &Session<'_>,
    event_loop: &mut EventLoop,
    load: &mut Newcomers,
    timeout_s: f64,
    progress: &mut Progress,
) -> Result<(), LoadError> {
    let deadline_ns = session.clock.now_ns() + seconds_ns(timeout_s);
    if let Some(writer) = event_loop.client(0) {
        writer.send_update(&load.history.update, session.clock.now_ns());
        load.handed_over = true;
    }
    while !load.is_complete {
        let now_ns = session.clock.now_ns();
        if now_ns >= deadline_ns || !load.failures.is_empty() {
            return Err(not_stored(load, timeout_s));
        }
        session.go_on()?;
        progress.show(now_ns, || "waiting for the server to have the document".to_owned());
        open(session, event_loop, load)?;
        wait_for_arrivals(session, event_loop, load, deadline_ns)?;
    }
    Ok(())
}

fn not_stored(load: &mut Newcomers, timeout_s: f64) -> LoadError {
    let reason = std::mem::take(&mut load.failures).into_sentences().into_iter().next();
    LoadError::NotStored {
        reason: reason.unwrap_or_else(|| format!("no newcomer got all of it within {timeout_s} s")),
    }
}

/// Lets newcomers in until there were enough, or the time is up.
fn join_all(
    session: &Session<'_>,
    event_loop: &mut EventLoop,
    load: &mut Newcomers,
    join: &Join,
    progress: &mut Progress,
) -> Result<(), LoadError> {
    let end_ns = join.seconds_max.map_or(u64::MAX, |s| session.clock.now_ns().saturating_add(seconds_ns(s)));
    let (mut opened, mut done) = (0, 0);
    loop {
        let now_ns = session.clock.now_ns();
        while now_ns < end_ns && opened < join.joins.min(done + join.at_once) {
            open(session, event_loop, load)?;
            opened += 1;
        }
        if done == opened || session.is_halted() {
            return Ok(());
        }
        progress.show_part(now_ns, u64::from(done), u64::from(join.joins), || {
            format!("joining: {done} of {}", join.joins)
        });
        let arrived = wait_for_arrivals(session, event_loop, load, now_ns + seconds_ns(join.timeout_s))?;
        if arrived == 0 && !session.is_halted() {
            load.failures.add(|| format!("join {done} took longer than {} s", join.timeout_s));
            return Ok(());
        }
        done += arrived;
    }
}

fn open(session: &Session<'_>, event_loop: &mut EventLoop, load: &mut Newcomers) -> Result<(), LoadError> {
    let number = load.started_ns.len() as u32;
    load.started_ns.push(session.clock.now_ns());
    event_loop.connect(session.document(0)).map_err(|source| LoadError::Connect { number, source })?;
    Ok(())
}

/// Waits for at least one newcomer to have its state, closes those that do; how many.
fn wait_for_arrivals(
    session: &Session<'_>,
    event_loop: &mut EventLoop,
    load: &mut Newcomers,
    deadline_ns: u64,
) -> Result<u32, LoadError> {
    while load.arrived.is_empty() && !session.is_halted() && session.clock.now_ns() < deadline_ns {
        let until_ns = deadline_ns.min(session.clock.now_ns() + TURN_MAX.as_nanos() as u64);
        event_loop.turn(until_ns, load).map_err(LoadError::EventLoop)?;
    }
    let arrived = std::mem::take(&mut load.arrived);
    arrived.iter().for_each(|number| event_loop.close(*number));
    Ok(arrived.len() as u32)
}
