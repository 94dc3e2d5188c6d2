//! Messages to a shard: a bounded queue and an eventfd that wakes the shard when it sleeps.
//!
//! Any thread may put messages in; only the shard takes them out. Nobody waits: what does not fit comes back to the
//! sender, who keeps it and tries again.
#![allow(unsafe_code)] // eventfd has no safe interface in std

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;

use crate::control::messages::{ShardIndex, ToShard};
use crate::engine::event::{Mail, Opening};
use crate::journal::Reply;
use crate::tls::Session;

/// Messages that fit into a mailbox.
const CAPACITY: usize = 16 << 10;

/// A connection on its way to the shard of its document.
#[derive(Debug)]
pub struct HandOver {
    pub socket: OwnedFd,
    pub tls: Option<Box<Session>>,
    pub peer: IpAddr,
    /// Bytes that were read and not yet understood.
    pub unread: Vec<u8>,
    pub opening: Opening,
}

/// Whatever reaches a shard from another thread.
#[derive(Debug)]
pub enum Letter {
    Control(ToShard),
    Engine { from: ShardIndex, mail: Mail },
    HandOver(Box<HandOver>),
    Journal(Reply),
}

#[derive(Debug)]
struct Shared {
    queue: ArrayQueue<Letter>,
    wake: OwnedFd,
    /// The shard sleeps, or is about to: a letter must wake it.
    asleep: AtomicBool,
}

/// The end that puts letters in.
#[derive(Debug, Clone)]
pub struct Sender(Arc<Shared>);

/// The shard's end.
#[derive(Debug)]
pub struct Mailbox(Arc<Shared>);

/// # Errors
/// When the kernel gives no eventfd (descriptors used up).
pub fn mailbox() -> io::Result<(Sender, Mailbox)> {
    // SAFETY: the call returns a descriptor that nobody else has, or -1.
    let wake = unsafe {
        let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let shared = Shared { queue: ArrayQueue::new(CAPACITY), wake, asleep: AtomicBool::new(false) };
    let shared = Arc::new(shared);
    Ok((Sender(Arc::clone(&shared)), Mailbox(shared)))
}

impl Sender {
    /// Puts one letter in, waking the shard if it sleeps.
    ///
    /// # Errors
    /// Gives the letter back when the mailbox is full.
    pub fn send(&self, letter: Letter) -> Result<(), Letter> {
        let result = self.0.queue.push(letter);
        // Full or not, a sleeping shard has something to read.
        if self.0.asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
        result
    }

    /// Puts one letter in that the shard finds when it wakes for something else.
    ///
    /// # Errors
    /// Gives the letter back when the mailbox is full.
    pub fn leave(&self, letter: Letter) -> Result<(), Letter> {
        self.0.queue.push(letter)
    }

    fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes are read from `one`. A full counter means that the shard is awake anyway.
        unsafe { libc::write(self.0.wake.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

impl Mailbox {
    pub fn take(&self) -> Option<Letter> {
        self.0.queue.pop()
    }

    /// Announces that the shard is about to sleep. False if there is something to read first.
    pub fn may_sleep(&self) -> bool {
        self.0.asleep.store(true, Ordering::SeqCst);
        if self.0.queue.is_empty() {
            return true;
        }
        self.0.asleep.store(false, Ordering::SeqCst);
        false
    }

    /// The shard is awake: letters need not wake it, and the wake-up that came is used up.
    pub fn awake(&self) {
        self.0.asleep.store(false, Ordering::SeqCst);
    }

    /// Uses up the wake-ups that came.
    pub fn drain_wake_ups(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight bytes of room for the counter; that it is zero is no error.
        unsafe { libc::read(self.0.wake.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsRawFd for Mailbox {
    fn as_raw_fd(&self) -> RawFd {
        self.0.wake.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_gives_the_letter_back() {
        let (sender, mailbox) = mailbox().unwrap();
        for _ in 0..CAPACITY {
            sender.send(Letter::Control(ToShard::Report)).unwrap();
        }
        assert!(sender.send(Letter::Control(ToShard::Stop)).is_err());
        assert!(matches!(mailbox.take(), Some(Letter::Control(ToShard::Report))));
        sender.send(Letter::Control(ToShard::Stop)).unwrap();
    }

    #[test]
    fn a_shard_does_not_fall_asleep_over_a_letter() {
        let (sender, mailbox) = mailbox().unwrap();
        assert!(mailbox.may_sleep());
        mailbox.awake();
        sender.send(Letter::Control(ToShard::Report)).unwrap();
        assert!(!mailbox.may_sleep());
    }
}
