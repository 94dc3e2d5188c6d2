//! The part's side: what it says and hears, and how it waits for the others.

use super::Tally;
use crate::client::Handler;
use crate::event_loop::EventLoop;
use crate::load::{LoadError, Session};
use crate::measure::Latency;
use crate::progress::TURN_MAX;
use crate::scenario::Scenario;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

/// What the parent says: one line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    Prepare(Box<PartScenario>),
    /// Everybody is connected: begin at this instant of the host's clock.
    Begin {
        start_ns: u64,
    },
    /// Everybody has finished: disconnect.
    Leave,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PartScenario {
    pub scenario: Scenario,
    /// From zero.
    pub place: u32,
    pub sample_s: f64,
}

/// What a part says: one line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    Connected,
    /// So far; the latencies are those since the word before.
    Counted {
        tick: u64,
        deliveries: u64,
        failures: usize,
        latency: Latency,
    },
    Finished,
    Tally(Box<Tally>),
    Failed {
        reason: String,
    },
}

/// Says something to the parent.
pub fn say(word: &Word) -> io::Result<()> {
    println!("{}", serde_json::to_string(word)?);
    Ok(())
}

/// The parent's orders, read by a thread of their own: the event loop must go on while a part waits.
#[derive(Debug)]
pub struct Orders {
    orders: Receiver<io::Result<Order>>,
}

impl Orders {
    /// Takes over standard input.
    pub fn listen() -> Self {
        let (sender, orders) = channel();
        std::thread::spawn(move || {
            for line in io::stdin().lock().lines() {
                if sender.send(line.and_then(|line| Ok(serde_json::from_str(&line)?))).is_err() {
                    return;
                }
            }
        });
        Self { orders }
    }

    /// The first order.
    pub fn prepare(&self) -> io::Result<PartScenario> {
        match self.orders.recv().map_err(|_| io::ErrorKind::UnexpectedEof)?? {
            Order::Prepare(scenario) => Ok(*scenario),
            Order::Begin { .. } | Order::Leave => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Says `word` and turns the loop until the next order.
    fn meet(
        &self,
        word: &Word,
        session: &Session<'_>,
        event_loop: &mut EventLoop,
        handler: &mut impl Handler,
    ) -> Result<Order, LoadError> {
        say(word).map_err(LoadError::Meeting)?;
        loop {
            match self.orders.try_recv() {
                Ok(order) => return order.map_err(LoadError::Meeting),
                Err(TryRecvError::Disconnected) => {
                    return Err(LoadError::Meeting(io::ErrorKind::UnexpectedEof.into()));
                }
                Err(TryRecvError::Empty) => {}
            }
            // The order names an instant well ahead, so that looking for it now and then is enough.
            let until_ns = session.clock.now_ns() + TURN_MAX.as_nanos() as u64 / 8;
            event_loop.turn(until_ns, handler).map_err(LoadError::EventLoop)?;
        }
    }

    /// Waits until everybody is connected; when to begin.
    pub fn begin(
        &self,
        session: &Session<'_>,
        event_loop: &mut EventLoop,
        handler: &mut impl Handler,
    ) -> Result<u64, LoadError> {
        match self.meet(&Word::Connected, session, event_loop, handler)? {
            Order::Begin { start_ns } => Ok(start_ns),
            Order::Prepare(_) | Order::Leave => Err(LoadError::Meeting(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Waits until everybody has finished.
    pub fn leave(
        &self,
        session: &Session<'_>,
        event_loop: &mut EventLoop,
        handler: &mut impl Handler,
    ) -> Result<(), LoadError> {
        self.meet(&Word::Finished, session, event_loop, handler).map(drop)
    }
}
