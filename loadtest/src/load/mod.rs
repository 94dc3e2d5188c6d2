//! What is done to the server: one module per kind of scenario.
//!
//! Each load is a [`Handler`](crate::client::Handler) that keeps its own count of what happens, and a
//! plain procedure that turns the event loop through the phases of the run.

pub mod connector;
pub mod day;
pub mod idle;
pub mod join;
pub mod storm;
pub mod typing;

use crate::client::{Ended, Handler};
use crate::event_loop::EventLoop;
use crate::measure::Clock;
use crate::measure::process::{Cpu, Memory, Process, ProcessError};
use crate::measure::server::Server;
use crate::processes::part::Orders;
use crate::scenario::Scenario;
use crate::target::Target;
use crate::trace::TraceError;
use crate::watch::Watch;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// Failures named in the report before the rest is only counted.
const FAILURES_NAMED_MAX: usize = 10;

/// What keeps a run from giving a result at all. (A wrong result is a failure in the report.)
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("the event loop failed: {0}")]
    EventLoop(#[source] io::Error),
    #[error(
        "cannot open connection {number}: {source} (is the server up? are there ports and descriptors left: ulimit -n, source_addresses?)"
    )]
    Connect { number: u32, source: io::Error },
    #[error("connection {number} ended before it was synced: {ended}")]
    NotSynced { number: u32, ended: Ended },
    #[error(
        "only {synced} of {connections} connections were synced within {timeout_s} s: raise connect_timeout_s or look at the server"
    )]
    Timeout { synced: u32, connections: u32, timeout_s: f64 },
    #[error("[{0}] is judged by the server's memory: give --pid or --cgroup")]
    NeedsServer(&'static str),
    #[error("the trace has {edits} edits, but {updates} are due: lower rate, warmup_s or measure_s")]
    TraceTooShort { edits: u32, updates: u32 },
    #[error("the server didn't take the document of the cold joins: {reason}")]
    NotStored { reason: String },
    #[error("lost the process that tells this part of the load tester when to begin and to leave: {0}")]
    Meeting(#[source] io::Error),
    #[error("the run ended before anything was measured")]
    Halted,
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error("a relay holds no documents: [{0}] needs a Yjs server")]
    NeedsDocuments(&'static str),
}

/// Everything a load needs to know.
#[derive(Debug)]
pub struct Session<'a> {
    pub clock: Clock,
    pub scenario: &'a Scenario,
    pub target: &'a Target,
    /// Looks at the server, if it is measured, and says when the run is to end before its time.
    pub watch: Watch,
    pub own: Process,
    /// Who says when to begin, if this process is one of several.
    pub orders: Option<Orders>,
    /// Do newcomers read documents back at the end?
    pub reads_back: bool,
    /// The folder that traces are in.
    pub traces: Option<PathBuf>,
    /// Tells this run's documents and Yjs clients from those of every other run.
    run: u64,
}

impl<'a> Session<'a> {
    pub fn new(
        scenario: &'a Scenario,
        target: &'a Target,
        server: Option<Server>,
    ) -> Result<Self, ProcessError> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mixed = (since_epoch.as_nanos() as u64 ^ u64::from(std::process::id()) << 40)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Ok(Self {
            clock: Clock::start(),
            scenario,
            target,
            watch: Watch::new(server),
            own: Process::own()?,
            orders: None,
            reads_back: true,
            traces: None,
            run: mixed >> 16,
        })
    }

    pub fn event_loop(&self) -> Result<EventLoop, LoadError> {
        EventLoop::new(
            self.clock,
            self.target.clone(),
            self.scenario.source_addresses,
            Duration::from_secs_f64(self.scenario.keep_alive_s),
        )
        .map_err(LoadError::EventLoop)
    }

    /// Everybody is connected: when the schedule begins, `pause_ns` from now unless others have a say.
    pub fn begin(
        &self,
        event_loop: &mut EventLoop,
        handler: &mut impl Handler,
        pause_ns: u64,
    ) -> Result<u64, LoadError> {
        match &self.orders {
            Some(orders) => orders.begin(self, event_loop, handler),
            None => Ok(self.clock.now_ns() + pause_ns),
        }
    }

    /// Everything is done: stays connected until all others are done too.
    pub fn leave(&self, event_loop: &mut EventLoop, handler: &mut impl Handler) -> Result<(), LoadError> {
        self.orders.as_ref().map_or(Ok(()), |orders| orders.leave(self, event_loop, handler))
    }

    pub fn document(&self, index: u32) -> Rc<str> {
        format!("lt-{:x}-{index}", self.run).into()
    }

    /// The first of this run's Yjs client ids, which take five bytes as most real ones do.
    pub fn first_client_id(&self) -> u64 {
        0x4000_0000 + (self.run & 0x3fff_ffff)
    }

    pub fn cpu(&self) -> Result<Option<Cpu>, ProcessError> {
        self.watch.cpu()
    }

    /// The server's resident memory, quickly.
    pub fn resident_bytes(&self) -> Result<Option<u64>, ProcessError> {
        self.watch.resident_bytes()
    }

    pub fn memory(&self) -> Result<Option<Memory>, ProcessError> {
        self.watch.memory()
    }

    /// Is the run to end at once?
    pub fn is_halted(&self) -> bool {
        self.watch.halt(self.clock.now_ns()).is_some()
    }

    /// An error if the run is to end at once.
    pub fn go_on(&self) -> Result<(), LoadError> {
        if self.is_halted() { Err(LoadError::Halted) } else { Ok(()) }
    }
}

pub fn seconds_ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// What went wrong, each in a sentence.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Failures {
    named: Vec<String>,
    count: usize,
}

impl Failures {
    pub fn add(&mut self, failure: impl FnOnce() -> String) {
        self.count += 1;
        if self.named.len() < FAILURES_NAMED_MAX {
            self.named.push(failure());
        }
    }

    /// Takes over those of a part of the run.
    pub fn append(&mut self, other: Self) {
        self.count += other.count;
        let room = FAILURES_NAMED_MAX - self.named.len();
        self.named.extend(other.named.into_iter().take(room));
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn into_sentences(self) -> Vec<String> {
        let unnamed = self.count - self.named.len();
        let rest = (unnamed > 0).then(|| format!("… and {unnamed} more"));
        self.named.into_iter().chain(rest).collect()
    }
}

/// What the server's process used over a window.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ServerCost {
    pub cpu: Cpu,
    /// Of one core.
    pub cpu_percent: f64,
    /// Before the first connection.
    pub memory_before: Memory,
    /// After the window.
    pub memory_after: Memory,
}

impl ServerCost {
    /// `None` unless the server is measured.
    pub fn of(
        cpu: Option<Cpu>,
        window_s: f64,
        before: Option<Memory>,
        after: Option<Memory>,
    ) -> Option<Self> {
        let cpu = cpu?;
        Some(Self {
            cpu,
            cpu_percent: 100.0 * cpu.total_s / window_s,
            memory_before: before?,
            memory_after: after?,
        })
    }

    pub fn resident_growth_bytes(&self) -> f64 {
        self.memory_after.resident_bytes as f64 - self.memory_before.resident_bytes as f64
    }

    pub fn proportional_growth_bytes(&self) -> f64 {
        self.memory_after.proportional_bytes as f64 - self.memory_before.proportional_bytes as f64
    }
}

/// The difference of two optional samples.
pub fn used(after: Option<Cpu>, before: Option<Cpu>) -> Option<Cpu> {
    after.zip(before).map(|(after, before)| after - before)
}
