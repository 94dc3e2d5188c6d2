//! The journal's thread: takes commands off its queue, paces the commits, and carries the replies to the shards.
//!
//! Load makes the groups bigger, not the commits more frequent: between the beginnings of two of them lies at least
//! [`JournalSettings::commit_interval`]. A commit costs the same for one update as for a hundred; so a small group may
//! gather [`PATIENCE_FOR_FEW`] times as long, and one that nobody waits for [`PATIENCE`] times. A single update on an idle
//! node waits for nothing but the disk.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
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

/// A group that nobody waits for may gather so many times as long.
const PATIENCE: u32 = 10;

/// A small group that somebody waits for may gather so many times as long.
const PATIENCE_FOR_FEW: u32 = 3;

/// A group is small up to so much: some 80 updates of one keystroke.
const FEW_BYTES: usize = 8 << 10;

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
    sender: Sender,
    receiver: Receiver<Command>,
}

/// A shard's way to the journal.
#[derive(Debug, Clone)]
pub struct Sender {
    commands: SyncSender<Command>,
    nap: Arc<Nap>,
}

impl Sender {
    /// # Errors
    /// Gives the command back when there is no room for it. If the journal is gone it is dropped: the process ends then.
    pub fn send(&self, command: Command) -> Result<(), Command> {
        let has_time = matches!(command, Command::Append { awaited: false, .. });
        let (result, has_time) = match self.commands.try_send(command) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => (Ok(()), has_time),
            Err(TrySendError::Full(command)) => (Err(command), false),
        };
        if !has_time {
            self.nap.end();
        }
        result
    }
}

/// The journal sleeps while it gathers what nobody waits for; whoever doesn't have the time wakes it.
#[derive(Debug, Default)]
struct Nap {
    naps: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Nap {
    /// What is sent before this the journal finds when it looks once more, what comes later wakes it.
    fn begin(&self) {
        self.naps.store(true, Ordering::SeqCst);
    }

    fn end(&self) {
        if self.naps.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

/// What the thread does next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Commit,
    /// Wait for a command.
    Receive,
    /// Sleep for so long, whatever comes.
    Sleep(Duration),
    /// Sleep for so long, or until somebody hurries.
    Nap(Duration),
}

/// What is gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gathered {
    Nothing,
    /// Nobody waits for it.
    Unawaited,
    /// Somebody does, but it is little.
    Few,
    Many,
    /// As much as a group should have.
    Full,
}

/// What to do so long after the latest commit began.
fn step(gathered: Gathered, since_commit: Duration, commit_interval: Duration) -> Step {
    let until =
        |patience: u32| (commit_interval * patience).checked_sub(since_commit).filter(|left| !left.is_zero());
    if gathered == Gathered::Full {
        return Step::Commit;
    }
    if let Some(left) = until(1) {
        return Step::Sleep(left);
    }
    match gathered {
        Gathered::Nothing => Step::Receive,
        Gathered::Unawaited => until(PATIENCE).map_or(Step::Commit, Step::Nap),
        Gathered::Few => until(PATIENCE_FOR_FEW).map_or(Step::Commit, Step::Sleep),
        Gathered::Many | Gathered::Full => Step::Commit,
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
    let (commands, receiver) = sync_channel(COMMANDS_MAX);
    let sender = Sender { commands, nap: Arc::default() };
    let opened = Opened { log, commit_interval: settings.commit_interval, sender, receiver };
    Ok(Some((opened, recovered)))
}

impl Opened {
    #[must_use]
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Starts the thread. `shards` are the mailboxes by index.
    ///
    /// # Errors
    /// [`JournalError::Thread`].
    pub fn run(self, shards: Vec<ShardMailbox>, report: Reporter) -> Result<Journal, JournalError> {
        let Self { log, commit_interval, sender, receiver } = self;
        let nap = Arc::clone(&sender.nap);
        drop(sender);
        let backlog = shards.iter().map(|_| VecDeque::new()).collect();
        let commit_us = Histogram::new_with_bounds(1, 60_000_000, 2).expect("constant bounds are valid");
        let began = Instant::now();
        let runner = Runner {
            log,
            commit_interval,
            receiver,
            nap,
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
    nap: Arc<Nap>,
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
        self.nap.thread.get_or_init(std::thread::current);
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

    /// Takes commands until it is time for a commit, or for something else; says whether the shards are gone.
    fn gather(&mut self) -> bool {
        let is_behind = self.backlog.iter().any(|replies| !replies.is_empty());
        let mut until = self.ticked_at + TICK;
        if is_behind {
            until = until.min(Instant::now() + RETRY);
        }
        loop {
            if self.take_all() {
                return true;
            }
            let now = Instant::now();
            let left = until.saturating_duration_since(now);
            match step(self.gathered(), now - self.committed_at, self.commit_interval) {
                Step::Commit => return false,
                _ if left.is_zero() => return false,
                Step::Sleep(time) => std::thread::sleep(time.min(left)),
                Step::Receive => match self.receiver.recv_timeout(left) {
                    Ok(command) => self.log.handle(command),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return true,
                },
                Step::Nap(time) => {
                    self.nap.begin();
                    if self.take_all() {
                        return true;
                    }
                    if self.gathered() == Gathered::Unawaited {
                        std::thread::park_timeout(time.min(left));
                    }
                    self.nap.naps.store(false, Ordering::SeqCst);
                }
            }
        }
    }

    /// Takes what is there, up to a group's size; says whether the shards are gone.
    fn take_all(&mut self) -> bool {
        while self.log.gathered_bytes() < GROUP_BYTES {
            match self.receiver.try_recv() {
                Ok(command) => self.log.handle(command),
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
        false
    }

    fn gathered(&self) -> Gathered {
        if self.log.gathered_bytes() >= GROUP_BYTES {
            Gathered::Full
        } else if self.log.hurries() {
            Gathered::Many
        } else if self.log.is_awaited() {
            if self.log.gathered_bytes() < FEW_BYTES { Gathered::Few } else { Gathered::Many }
        } else if self.log.has_work() {
            Gathered::Unawaited
        } else {
            Gathered::Nothing
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

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(5);

    fn after(gathered: Gathered, ms: u64) -> Step {
        step(gathered, Duration::from_millis(ms), INTERVAL)
    }

    #[test]
    fn what_is_awaited_is_committed_at_the_interval_and_all_else_in_its_own_time() {
        assert_eq!(after(Gathered::Many, 2), Step::Sleep(Duration::from_millis(3)));
        assert_eq!(after(Gathered::Many, 5), Step::Commit);
        assert_eq!(after(Gathered::Few, 2), Step::Sleep(Duration::from_millis(3)));
        assert_eq!(after(Gathered::Few, 5), Step::Sleep(Duration::from_millis(10)));
        assert_eq!(after(Gathered::Few, 15), Step::Commit);
        assert_eq!(after(Gathered::Unawaited, 2), Step::Sleep(Duration::from_millis(3)));
        assert_eq!(after(Gathered::Unawaited, 5), Step::Nap(Duration::from_millis(45)));
        assert_eq!(after(Gathered::Unawaited, 50), Step::Commit);
    }

    #[test]
    fn an_idle_journal_waits_for_commands_and_a_full_group_for_nothing() {
        assert_eq!(after(Gathered::Nothing, 5), Step::Receive);
        assert_eq!(after(Gathered::Full, 0), Step::Commit);
        assert_eq!(step(Gathered::Unawaited, Duration::ZERO, Duration::ZERO), Step::Commit);
    }

    #[test]
    fn only_what_has_time_lets_the_journal_sleep() {
        let (commands, receiver) = sync_channel(2);
        let sender = Sender { commands, nap: Arc::default() };
        let append = |awaited| Command::Append { shard: 0, number: 1, records: Vec::new(), awaited };
        let naps = || sender.nap.naps.load(Ordering::SeqCst);
        sender.nap.begin();
        sender.send(append(false)).unwrap();
        assert!(naps());
        sender.send(append(true)).unwrap();
        assert!(!naps());
        sender.nap.begin();
        assert!(sender.send(append(false)).is_err());
        assert!(!naps(), "there is no room: the journal must look");
        drop(receiver);
    }
}
