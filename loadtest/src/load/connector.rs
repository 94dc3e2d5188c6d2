//! Sets up connections, so many at a time, and measures how long each takes to be synced.

use super::{LoadError, Session, seconds_ns};
use crate::client::{Ended, Handler};
use crate::event_loop::EventLoop;
use crate::measure::Latency;
use crate::progress::{Progress, TURN_MAX};
use std::rc::Rc;

#[derive(Debug)]
pub struct Connector {
    connections: u32,
    clients_per_document: u32,
    at_once: u32,
    started_ns: Vec<u64>,
    synced: u32,
    ended: Option<(u32, Ended)>,
    /// From opening the socket to the server's step 2.
    pub latency: Latency,
}

/// A load that begins by connecting everybody.
pub trait Connecting: Handler {
    fn connector(&mut self) -> &mut Connector;
}

impl Connector {
    pub fn new(session: &Session<'_>) -> Self {
        let scenario = session.scenario;
        Self {
            connections: scenario.connections(),
            clients_per_document: scenario.clients,
            at_once: scenario.connect_at_once,
            started_ns: Vec::with_capacity(scenario.connections() as usize),
            synced: 0,
            ended: None,
            latency: Latency::default(),
        }
    }

    /// To be called with every `Synced`.
    pub fn synced(&mut self, number: u32, now_ns: u64) {
        self.synced += 1;
        self.latency.record_ns(now_ns - self.started_ns[number as usize]);
    }

    /// To be called with every `Ended` of a client that wasn't live yet.
    pub fn ended(&mut self, number: u32, ended: Ended) {
        self.ended.get_or_insert((number, ended));
    }

    /// How many have their state.
    pub fn synced_count(&self) -> u32 {
        self.synced
    }

    fn fill(&mut self, session: &Session<'_>, event_loop: &mut EventLoop) -> Result<(), LoadError> {
        while (self.started_ns.len() as u32) < self.connections.min(self.synced + self.at_once) {
            let number = self.started_ns.len() as u32;
            let document: Rc<str> = session.document(number / self.clients_per_document);
            self.started_ns.push(session.clock.now_ns());
            event_loop.set_receive_buffer(receive_buffer_bytes(session, number));
            event_loop.connect(document).map_err(|source| LoadError::Connect { number, source })?;
        }
        Ok(())
    }
}

/// Readers who will be slow shall not hide it in a large buffer of the kernel's.
fn receive_buffer_bytes(session: &Session<'_>, number: u32) -> Option<usize> {
    let (clients, typing) = (session.scenario.clients, session.scenario.typing.as_ref()?);
    let slow = typing.slow_readers.as_ref()?;
    (number % clients >= clients - slow.per_document).then_some(slow.receive_buffer_bytes as usize)
}

/// Turns the loop until every connection of the scenario is synced.
pub fn connect_all(
    session: &Session<'_>,
    event_loop: &mut EventLoop,
    load: &mut impl Connecting,
    progress: &mut Progress,
) -> Result<(), LoadError> {
    let timeout_s = session.scenario.connect_timeout_s;
    let deadline_ns = session.clock.now_ns() + seconds_ns(timeout_s);
    loop {
        let connector = load.connector();
        if let Some((number, ended)) = connector.ended.take() {
            return Err(LoadError::NotSynced { number, ended });
        }
        let (synced, connections) = (connector.synced, connector.connections);
        if synced == connections {
            event_loop.set_receive_buffer(None);
            return Ok(());
        }
        session.go_on()?;
        load.connector().fill(session, event_loop)?;
        let now_ns = session.clock.now_ns();
        if now_ns >= deadline_ns {
            return Err(LoadError::Timeout { synced, connections, timeout_s });
        }
        progress.show_part(now_ns, u64::from(synced), u64::from(connections), || {
            format!("connecting: {synced} of {connections} synced")
        });
        let until_ns = deadline_ns.min(now_ns + TURN_MAX.as_nanos() as u64);
        event_loop.turn(until_ns, load).map_err(LoadError::EventLoop)?;
    }
}
