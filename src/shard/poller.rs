//! Readiness: the one file that knows how a shard waits.
//!
//! A shard has one epoll set with everything in it, and waits in `epoll_wait` itself: one system call for each turn,
//! however many sockets it brings. Sleeping in glommio's reactor instead costs five to ten more (it cancels and re-arms
//! its own polls and timers around every sleep): nearly half as much CPU again per delivery in small rooms. glommio has
//! nothing outstanding that such a wait could hold up; the loop visits it now and then all the same (`shard::WAIT_MAX`).
#![allow(unsafe_code)] // epoll has no safe interface in std

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::engine::slab::Key;

/// Events taken from the kernel at a time.
const EVENTS_MAX: usize = 512;

const MAILBOX: u64 = u64::MAX;
/// The first listener's; the next ones' are below.
const LISTENER: u64 = u64::MAX - 1;
const LISTENERS_MAX: usize = 2;
const LAST_LISTENER: u64 = LISTENER - (LISTENERS_MAX as u64 - 1);

/// What became ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// By its number.
    Listener(usize),
    Mailbox,
    Socket {
        key: Key,
        readable: bool,
        writable: bool,
        hung_up: bool,
    },
}

/// What to wait for on a socket. Errors and hang-ups are always reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    pub read: bool,
    pub write: bool,
}

impl Interest {
    pub const READ: Self = Self { read: true, write: false };

    const fn bits(self) -> u32 {
        let read = if self.read { libc::EPOLLIN | libc::EPOLLRDHUP } else { 0 };
        let write = if self.write { libc::EPOLLOUT } else { 0 };
        (read | write) as u32
    }
}

/// A shard's epoll set.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    /// # Errors
    /// When the kernel gives no epoll set (descriptors used up).
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call returns a descriptor that nobody else has, or -1.
        let epoll = unsafe { owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))? };
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// # Errors
    /// When the set cannot take another descriptor.
    pub fn add(&self, fd: &impl AsRawFd, key: Key, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), interest.bits(), key.to_bits())
    }

    /// # Errors
    /// When the descriptor is not in the set.
    pub fn change(&self, fd: &impl AsRawFd, key: Key, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), interest.bits(), key.to_bits())
    }

    /// Takes a descriptor out before it goes to another thread. A closed one leaves by itself.
    ///
    /// # Errors
    /// When the descriptor is not in the set.
    pub fn remove(&self, fd: &impl AsRawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_raw_fd(), 0, 0)
    }

    /// # Errors
    /// As [`Poller::add`].
    pub fn add_listener(&self, fd: &impl AsRawFd, number: usize) -> io::Result<()> {
        debug_assert!(number < LISTENERS_MAX);
        let data = LISTENER - number as u64;
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), Interest::READ.bits(), data)
    }

    /// # Errors
    /// As [`Poller::add`].
    pub fn add_mailbox(&self, fd: &impl AsRawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), Interest::READ.bits(), MAILBOX)
    }

    /// Waits until something is ready, at most for `timeout` (in whole milliseconds).
    ///
    /// # Errors
    /// Only for a broken set; an interruption counts as "nothing".
    pub fn wait(&mut self, timeout: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the kernel writes at most EVENTS_MAX events into memory of that capacity and says how many.
        let count = unsafe {
            let events = self.events.as_mut_ptr();
            libc::epoll_wait(self.epoll.as_raw_fd(), events, EVENTS_MAX as i32, timeout_ms)
        };
        let count = match check(count) {
            Ok(count) => count as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        // SAFETY: `count` events were written just now.
        unsafe { self.events.set_len(count) };
        for event in &self.events {
            let (bits, data) = (event.events as i32, event.u64);
            match data {
                MAILBOX => ready.push(Ready::Mailbox),
                LAST_LISTENER..=LISTENER => ready.push(Ready::Listener((LISTENER - data) as usize)),
                key => ready.push(Ready::Socket {
                    key: Key::from_bits(key),
                    readable: bits & libc::EPOLLIN != 0,
                    writable: bits & libc::EPOLLOUT != 0,
                    hung_up: bits & (libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLRDHUP) != 0,
                }),
            }
        }
        Ok(())
    }

    fn control(&self, operation: i32, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: data };
        // SAFETY: `event` lives through the call; the kernel copies it.
        check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) })?;
        Ok(())
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// # Safety
/// `fd` must be -1 or a descriptor that nobody else owns.
unsafe fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    check(fd)?;
    // SAFETY: the caller says so, and it is not -1.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as Pair;

    use super::*;
    use crate::engine::slab::Slab;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_wait_ends_when_a_socket_becomes_readable_or_hangs_up() {
        let mut slab = Slab::default();
        let mut poller = Poller::new().unwrap();
        let (mut near, mut far) = Pair::pair().unwrap();
        let key = slab.insert(());
        poller.add(&near, key, Interest::READ).unwrap();
        let mut ready = Vec::new();
        far.write_all(&[7]).unwrap();
        poller.wait(LONG, &mut ready).unwrap();
        let readable = Ready::Socket { key, readable: true, writable: false, hung_up: false };
        assert_eq!(ready, [readable]);
        near.read_exact(&mut [0]).unwrap();
        drop(far);
        poller.wait(LONG, &mut ready).unwrap();
        assert!(matches!(ready[..], [Ready::Socket { hung_up: true, .. }]));
    }

    #[test]
    fn a_wait_ends_though_nothing_happens_and_one_of_zero_at_once() {
        let mut poller = Poller::new().unwrap();
        let mut ready = vec![Ready::Listener(0)];
        poller.wait(Duration::from_millis(1), &mut ready).unwrap();
        assert!(ready.is_empty());
        poller.wait(Duration::ZERO, &mut ready).unwrap();
        assert!(ready.is_empty());
    }
}
