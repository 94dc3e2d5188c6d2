//! Everybody connects and then does nothing: what does a connection cost?

use super::connector::{Connecting, Connector, connect_all};
use super::{Failures, LoadError, ServerCost, Session, seconds_ns, used};
use crate::client::{Client, Event, Handler};
use crate::measure::{Latency, LatencySummary};
use crate::progress::{Progress, TURN_MAX};
use crate::scenario::Idle;
use crate::update::EMPTY;
use serde::Serialize;

/// What was measured. Memory per connection counts everything the server grew by since before the
/// first connection: documents included.
#[derive(Debug, Serialize)]
pub struct IdleResult {
    pub measure_s: f64,
    pub connect: Option<LatencySummary>,
    pub resident_bytes_per_connection: Option<f64>,
    pub proportional_bytes_per_connection: Option<f64>,
    pub server: Option<ServerCost>,
    #[serde(skip)]
    pub histogram: Latency,
    #[serde(skip)]
    pub failures: Failures,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub connector: Connector,
    pub failures: Failures,
}

impl Waiting {
    pub fn new(session: &Session<'_>) -> Self {
        Self { connector: Connector::new(session), failures: Failures::default() }
    }
}

impl Connecting for Waiting {
    fn connector(&mut self) -> &mut Connector {
        &mut self.connector
    }
}

impl Handler for Waiting {
    fn event(&mut self, client: &mut Client, now_ns: u64, event: Event<'_>) {
        match event {
            Event::Synced(_) => self.connector.synced(client.number, now_ns),
            Event::StateAsked(_) => client.send_step_2(&EMPTY),
            Event::Update(update) | Event::State(update) if update != EMPTY => {
                self.failures
                    .add(|| format!("connection {} got an update of an empty document", client.number));
            }
            Event::Update(_) | Event::State(_) => {}
            Event::Ack { accepted: true, .. } | Event::Awareness(_) => {}
            Event::Ack { accepted: false, .. } => {
                self.failures.add(|| format!("connection {}: the empty step 2 was refused", client.number));
            }
            Event::Ended(ended) if client.was_live() => {
                self.failures.add(|| format!("connection {} ended: {ended}", client.number));
            }
            Event::Ended(ended) => self.connector.ended(client.number, ended),
        }
    }
}

pub fn run(session: &Session<'_>, idle: &Idle, progress: &mut Progress) -> Result<IdleResult, LoadError> {
    let memory_before = session.memory()?;
    let mut event_loop = session.event_loop()?;
    let mut load = Waiting::new(session);
    connect_all(session, &mut event_loop, &mut load, progress)?;

    let start_ns = session.begin(&mut event_loop, &mut load, 0)? + seconds_ns(idle.settle_s);
    let end_ns = start_ns + seconds_ns(idle.measure_s);
    let mut cpu_before = None;
    for (phase, until_ns) in [("settling", start_ns), ("measuring", end_ns)] {
        if phase == "measuring" {
            cpu_before = session.cpu()?;
        }
        while session.clock.now_ns() < until_ns && !session.is_halted() {
            let now_ns = session.clock.now_ns();
            progress.show(now_ns, || format!("{phase}: {} connections", session.scenario.connections()));
            let turn_ns = until_ns.min(now_ns + TURN_MAX.as_nanos() as u64);
            event_loop.turn(turn_ns, &mut load).map_err(LoadError::EventLoop)?;
        }
    }
    let cpu = used(session.cpu()?, cpu_before);
    let mut measure_s = idle.measure_s;
    if session.is_halted() {
        let now_ns = session.clock.now_ns();
        if now_ns <= start_ns {
            return Err(LoadError::Halted);
        }
        measure_s = measure_s.min((now_ns - start_ns) as f64 / 1e9);
    }
    session.leave(&mut event_loop, &mut load)?;
    let server = ServerCost::of(cpu, measure_s, memory_before, session.memory()?);
    let connections = f64::from(session.scenario.connections());
    Ok(IdleResult {
        measure_s,
        connect: load.connector.latency.summary(),
        resident_bytes_per_connection: server.map(|cost| cost.resident_growth_bytes() / connections),
        proportional_bytes_per_connection: server.map(|cost| cost.proportional_growth_bytes() / connections),
        server,
        histogram: load.connector.latency,
        failures: load.failures,
    })
}
