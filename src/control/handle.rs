//! The rest of the process's grip on the control shard.

use std::error::Error as _;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::keys::source::KeyDirError;
use super::messages::ShardIndex;
use super::settings::Live;

/// Commands that may wait at once; they come from an operator's signals, one at a time.
pub(super) const COMMANDS_MAX: usize = 16;

#[derive(Debug)]
pub(super) enum Command {
    Reload { live: Box<Live>, done: oneshot::Sender<Result<(), ReloadError>> },
    Revoke { tenant: Uuid, key_id: String },
    Drain { over: Duration, done: oneshot::Sender<DrainOutcome> },
    Stop,
}

/// Why a command was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    #[error("the control shard has stopped")]
    Stopped,
    #[error("the control shard has {COMMANDS_MAX} commands waiting; try again")]
    Busy,
    #[error("the control shard has panicked; its log line says where")]
    Panicked,
}

/// What of a reload could not be taken. The other settings apply all the same, and so do the other key files; the tenants
/// of those that can't be used keep the keys they had.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("key files that can't be used, whose tenants keep the keys they had: {}", list(.0))]
    Keys(Vec<KeyDirError>),
    #[error("could not read the key directory: the task that reads it ended early")]
    Interrupted,
    #[error("shards {0:?} do not answer: they take the settings when they do")]
    Unanswered(Vec<ShardIndex>),
}

impl ReloadError {
    /// # Errors
    /// [`ReloadError::Keys`] if there are any.
    pub(super) fn unless_none(unusable: Vec<KeyDirError>) -> Result<(), Self> {
        if unusable.is_empty() { Ok(()) } else { Err(Self::Keys(unusable)) }
    }
}

fn list(unusable: &[KeyDirError]) -> String {
    let with_cause = |error: &KeyDirError| match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    unusable.iter().map(with_cause).collect::<Vec<_>>().join("; ")
}

/// How a drain ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainOutcome {
    /// Shards that had not closed their last session in time; empty when all went well.
    pub stragglers: Vec<ShardIndex>,
}

/// A running control shard. Its methods never block, except [`Self::stop`].
#[derive(Debug)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) thread: JoinHandle<()>,
}

impl Handle {
    fn send(&self, command: Command) -> Result<(), HandleError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => HandleError::Busy,
            mpsc::error::TrySendError::Closed(_) => HandleError::Stopped,
        })
    }

    /// Takes new settings and reads the key directory again. The receiver (`await` or `blocking_recv`) hears the outcome
    /// once every shard has both.
    ///
    /// # Errors
    /// [`HandleError`] when the command could not be handed over.
    pub fn reload(&self, live: Live) -> Result<oneshot::Receiver<Result<(), ReloadError>>, HandleError> {
        let (done, outcome) = oneshot::channel();
        self.send(Command::Reload { live: Box::new(live), done })?;
        Ok(outcome)
    }

    /// Ends every session signed with this key, on every shard, and never accepts it again while this process lives.
    ///
    /// # Errors
    /// [`HandleError`] when the command could not be handed over.
    pub fn revoke(&self, tenant: Uuid, key_id: impl Into<String>) -> Result<(), HandleError> {
        self.send(Command::Revoke { tenant, key_id: key_id.into() })
    }

    /// Refuses new sessions and ends the living ones over this time. The receiver hears when the last one is closed, at
    /// the latest [`super::Bounds::drain_slack`] after that time.
    ///
    /// # Errors
    /// [`HandleError`] when the command could not be handed over.
    pub fn drain(&self, over: Duration) -> Result<oneshot::Receiver<DrainOutcome>, HandleError> {
        let (done, outcome) = oneshot::channel();
        self.send(Command::Drain { over, done })?;
        Ok(outcome)
    }

    /// Whether the control shard has ended, of itself or by a panic: the node can't go on without it.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Tells every shard to leave its loop, then ends the control shard and waits for its thread.
    ///
    /// # Errors
    /// [`HandleError::Panicked`] when it had not ended well.
    pub fn stop(self) -> Result<(), HandleError> {
        // Closed means that it has stopped already; full can't last, and closing the channel stops it too.
        let _ = self.send(Command::Stop);
        drop(self.commands);
        self.thread.join().map_err(|_| HandleError::Panicked)
    }
}
