//! The journal's thread: takes commands off its queue, paces the commits, and carries the replies to the shards.
//!
//! Load makes the groups bigger, not the commits more frequent: between the beginnings of two of them lies at least
//! [`JournalSettings::commit_interval`]. A single update on an idle node waits for nothing but the disk.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;

use super::disk::{Directory, DirectoryError};
use super::log::{Log, LogFigures, LogSettings, OpenError};
use super::recovery::Recovered;
use super::{Command, Durability, JournalSettings, Reply};

/// Commands that wait for the journal. What finds no place stays with its shard.
const COMMANDS_MAX: usize = 4096;

/// A group is written when it has so much, whatever still waits.
const GROUP_BYTES: usize = 8 << 20;

/// How often the journal looks what is over, and says how it is.
const TICK: Duration = Duration::from_secs(1);

/// How soon a shard whose mailbox was full is tried again.
const RETRY: Duration = Duration::from_millis(2);

/// Puts a reply into a shard's mailbox and wakes the shard, unless the reply has time; gives it back if there is no room. Must not block.
pub type ShardMailbox = Arc<dyn Fn(Reply) -> Result<(), Reply> + Send + Sync>;

/// Hears how the journal is: once a second, and when it fails. Must not block.
pub type Reporter = Box<dyn FnMut(JournalFigures) + Send>;

/// How the journal is.
#[derive(Debug, Clone)]
pub struct JournalFigures {
    pub log: LogFigures,
    /// How long a commit took, in microseconds.
    pub commit_us: Histogram<u64>,
}

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("could not start the journal's thread")]
    Thread(#[source] io::Error),
}

/// A journal that was read and does not run yet.
#[derive(Debug)]
pub struct Opened {
    log: Log<Directory>,
    commit_interval: Duration,
    sender: SyncSender<Command>,
    receiver: Receiver<Command>,
}

/// A shard's way to the journal.
#[derive(Debug, Clone)]
pub struct Sender(SyncSender<Command>);

impl Sender {
    /// # Errors
    /// Gives the command back when there is no room for it. If the journal is gone it is dropped: the process ends then.
    pub fn send(&self, command: Command) -> Result<(), Command> {
        match self.0.try_send(command) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(command)) => Err(command),
        }
    }
}

/// A running journal. It ends when every [`Sender`] is gone.
#[derive(Debug)]
pub struct Journal {
    thread: JoinHandle<()>,
}

impl Journal {
    /// Whether it has ended, which it doesn't do by itself.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Opens the journal and reads what is in it. `None` at [`Durability::Memory`]. `seed` is hard to guess.
///
/// # Errors
/// [`JournalError`] says what is wrong and where.
pub fn open(
    settings: &JournalSettings,
    shards: u16,
    seed: u64,
) -> Result<Option<(Opened, Recovered)>, JournalError> {
    let syncs = match settings.durability {
        Durability::Memory => return Ok(None),
        Durability::Process => false,
        Durability::Disk => true,
    };
    let directory = Directory::open(&settings.directory)?;
    let log_settings = LogSettings {
        syncs,
        segment_bytes: settings.segment_bytes,
        retention: settings.retention,
        shards,
        seed,
    };
    let (log, recovered) = Log::open(directory, log_settings)?;
    let (sender, receiver) = sync_channel(COMMANDS_MAX);
    let opened = Opened { log, commit_interval: settings.commit_interval, sender, receiver };
    Ok(Some((opened, recovered)))
}

impl Opened {
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender(self.sender.clone())
    }

    /// Starts the thread. `shards` are the mailboxes by index.
    ///
    /// # Errors
    /// [`JournalError::Thread`].
    pub fn run(self, shards: Vec<ShardMailbox>, report: Reporter) -> Result<Journal, JournalError> {
        let Self { log, commit_interval, sender, receiver } = self;
        drop(sender);
        let backlog = shards.iter().map(|_| VecDeque::new()).collect();
        let commit_us = Histogram::new_with_bounds(1, 60_000_000, 2).expect("constant bounds are valid");
        let began = Instant::now();
        let runner = Runner {
            log,
            commit_interval,
            receiver,
            shards,
            backlog,
            report,
            commit_us,
            committed_at: began,
            ticked_at: began,
            failure_said: false,
        };
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || runner.run());
        Ok(Journal { thread: thread.map_err(JournalError::Thread)? })
    }
}

struct Runner {
    log: Log<Directory>,
    commit_interval: Duration,
    receiver: Receiver<Command>,
    shards: Vec<ShardMailbox>,
    /// Replies that did not fit into a shard's mailbox yet.
    backlog: Vec<VecDeque<Reply>>,
    report: Reporter,
    commit_us: Histogram<u64>,
    /// When the latest commit began.
    committed_at: Instant,
    ticked_at: Instant,
    failure_said: bool,
}

impl Runner {
    fn run(mut self) {
        loop {
            let ended = self.gather();
            if self.log.has_work() {
                self.committed_at = Instant::now();
                self.log.commit();
                self.commit_us.saturating_record(self.committed_at.elapsed().as_micros() as u64);
            }
            self.deliver();
            self.log.maintain(unix_s());
            self.deliver();
            self.tick();
            if ended && !self.log.has_work() {
                return;
            }
        }
    }

    /// Waits for commands, and takes all there are until it is time for the next commit; says whether the shards are gone.
    fn gather(&mut self) -> bool {
        let is_behind = self.backlog.iter().any(|replies| !replies.is_empty());
        let mut until = self.ticked_at + TICK;
        if is_behind {
            until = until.min(Instant::now() + RETRY);
        }
        if self.log.has_work() {
            until = Instant::now();
        }
        match self.receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(command) => self.log.handle(command),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return true,
        }
        let due = self.committed_at + self.commit_interval;
        loop {
            while self.log.gathered_bytes() < GROUP_BYTES
                && let Ok(command) = self.receiver.try_recv()
            {
                self.log.handle(command);
            }
            let now = Instant::now();
            if now >= due || !self.log.has_work() || self.log.gathered_bytes() >= GROUP_BYTES {
                return false;
            }
            // Asleep, not woken by every batch that comes.
            std::thread::sleep(due - now);
        }
    }

    fn deliver(&mut self) {
        while let Some((shard, reply)) = self.log.poll_reply() {
            let Some(backlog) = self.backlog.get_mut(usize::from(shard)) else { continue };
            match (backlog.back_mut(), reply) {
                // The newest says it all.
                (Some(Reply::Stored { through, awaited }), Reply::Stored { through: newer, awaited: is }) => {
                    *through = newer;
                    *awaited |= is;
                }
                (_, reply) => backlog.push_back(reply),
            }
        }
        for (backlog, mailbox) in self.backlog.iter_mut().zip(&self.shards) {
            while let Some(reply) = backlog.pop_front() {
                if let Err(reply) = mailbox(reply) {
                    backlog.push_front(reply);
                    break;
                }
            }
        }
    }

    fn tick(&mut self) {
        if let Some(why) = self.log.take_unreadable() {
            tracing::error!("a document that is kept can't be read, and whoever opens it is refused: {why}");
        }
        let fails = self.log.failure().is_some() && !self.failure_said;
        if let (Some(why), true) = (self.log.failure(), fails) {
            self.failure_said = true;
            tracing::error!(
                "the journal has failed: {why}. From now on no update is acknowledged, /health says degraded and new \
                 sessions are refused; see to the disk, then restart the node: clients send again what was not \
                 acknowledged"
            );
        }
        if fails || self.ticked_at.elapsed() >= TICK {
            self.ticked_at = Instant::now();
            (self.report)(JournalFigures { log: self.log.figures(), commit_us: self.commit_us.clone() });
        }
    }
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
