//! Everybody connects, so many at a time: what does a connection cost until it has its state?

use super::connector::connect_all;
use super::idle::Waiting;
use super::{Failures, LoadError, ServerCost, Session, seconds_ns, used};
use crate::measure::{Latency, LatencySummary};
use crate::progress::Progress;
use crate::scenario::Storm;
use serde::Serialize;
use std::time::Duration;

#[derive(Debug, Serialize)]
pub struct StormResult {
    /// From the first socket to the last step 2.
    pub storm_s: f64,
    pub connections_per_s: f64,
    /// From opening a socket to its step 2.
    pub connect: Option<LatencySummary>,
    pub cpu_per_connection_us: Option<f64>,
    pub server: Option<ServerCost>,
    #[serde(skip)]
    pub latency: Latency,
    #[serde(skip)]
    pub failures: Failures,
}

pub fn run(session: &Session<'_>, storm: &Storm, progress: &mut Progress) -> Result<StormResult, LoadError> {
    session.watch.sleep(Duration::from_nanos(seconds_ns(storm.settle_s)));
    let memory_before = session.memory()?;
    let mut event_loop = session.event_loop()?;
    let mut load = Waiting::new(session);

    let start_ns = session.begin(&mut event_loop, &mut load, 0)?;
    while session.clock.now_ns() < start_ns {
        event_loop.turn(start_ns, &mut load).map_err(LoadError::EventLoop)?;
    }
    let cpu_before = session.cpu()?;
    match connect_all(session, &mut event_loop, &mut load, progress) {
        // A storm that was cut short is reported as far as it came.
        Err(_) if load.connector.synced_count() > 0 && session.watch.look().is_some() => {}
        result => result?,
    }
    let storm_s = (session.clock.now_ns() - start_ns) as f64 / 1e9;
    let cpu = used(session.cpu()?, cpu_before);
    session.leave(&mut event_loop, &mut load)?;

    let server = ServerCost::of(cpu, storm_s, memory_before, session.memory()?);
    let connections = f64::from(load.connector.synced_count());
    Ok(StormResult {
        storm_s,
        connections_per_s: connections / storm_s,
        connect: load.connector.latency.summary(),
        cpu_per_connection_us: server.map(|cost| cost.cpu.total_s * 1e6 / connections),
        server,
        latency: load.connector.latency,
        failures: load.failures,
    })
}
