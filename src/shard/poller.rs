//! Readiness: the one file that knows how a shard waits.
//!
//! A shard has one epoll set with everything in it. While there is work the loop asks the set without waiting; when
//! there is none it sleeps *in glommio* on the set's own descriptor, so that glommio's reactor runs too.
//!
//! How it sleeps leans on internals of glommio 0.9.0 (hence the exact version in Cargo.toml): a `UnixStream` made from
//! a descriptor arms an io_uring poll on it at once; its first `poll_read` stays pending until that poll completes, and
//! then fails with ENOTSOCK, because an epoll set is no socket. That failure means "readable". The stream is forgotten,
//! since dropping it would close the set; a new one is made for each sleep. `tests::a_sleep_ends_...` below fails
//! loudly if this changes.
//!
//! A ticker in the set bounds every sleep ([`TICK`]): the engine's timers need no precision beyond it. It does not help
//! against glommio parking with our task ready; `shard::NEVER_PREEMPT` says how that is kept from happening.
#![allow(unsafe_code)] // epoll and timerfd have no safe interface in std

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_io::AsyncRead;
use glommio::net::UnixStream;

use crate::engine::slab::Key;

/// How long a shard sleeps at most.
pub const TICK: Duration = Duration::from_millis(50);

/// Events taken from the kernel at a time.
const EVENTS_MAX: usize = 512;

const TICKER: u64 = u64::MAX;
const MAILBOX: u64 = u64::MAX - 1;
const LISTENER: u64 = u64::MAX - 2;

/// What became ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Listener,
    Mailbox,
    Socket { key: Key, readable: bool, writable: bool, hung_up: bool },
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
    ticker: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    /// # Errors
    /// When the kernel gives no epoll set or timer (descriptors used up).
    pub fn new() -> io::Result<Self> {
        // SAFETY: both calls return a descriptor that nobody else has, or -1.
        let epoll = unsafe { owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))? };
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        let ticker = unsafe { owned(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags))? };
        let every = libc::timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) };
        let spec = libc::itimerspec { it_interval: every, it_value: every };
        // SAFETY: `spec` lives through the call; no old value is asked for.
        check(unsafe {
            libc::timerfd_settime(ticker.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut())
        })?;
        let poller = Self { epoll, ticker, events: Vec::with_capacity(EVENTS_MAX) };
        poller.control(libc::EPOLL_CTL_ADD, poller.ticker.as_raw_fd(), Interest::READ.bits(), TICKER)?;
        Ok(poller)
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
    pub fn add_listener(&self, fd: &impl AsRawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), Interest::READ.bits(), LISTENER)
    }

    /// # Errors
    /// As [`Poller::add`].
    pub fn add_mailbox(&self, fd: &impl AsRawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), Interest::READ.bits(), MAILBOX)
    }

    /// What is ready now, without waiting.
    ///
    /// # Errors
    /// Only for a broken set; an interruption counts as "nothing".
    pub fn poll(&mut self, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        // SAFETY: the kernel writes at most EVENTS_MAX events into memory of that capacity and says how many.
        let count = unsafe {
            let events = self.events.as_mut_ptr();
            libc::epoll_wait(self.epoll.as_raw_fd(), events, EVENTS_MAX as i32, 0)
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
                TICKER => self.drain_ticker(),
                MAILBOX => ready.push(Ready::Mailbox),
                LISTENER => ready.push(Ready::Listener),
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

    /// Sleeps until something is ready, at most for a [`TICK`].
    pub async fn sleep(&self) {
        // SAFETY: the descriptor is open; the stream never gets to close it, because it is forgotten below.
        let mut stream = unsafe { UnixStream::from_raw_fd(self.epoll.as_raw_fd()) };
        let mut byte = [0u8];
        let woken = poll_fn(|context| match Pin::new(&mut stream).poll_read(context, &mut byte) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => Poll::Ready(result.err()),
        })
        .await;
        debug_assert_eq!(woken.and_then(|error| error.raw_os_error()), Some(libc::ENOTSOCK));
        std::mem::forget(stream);
    }

    fn drain_ticker(&self) {
        let mut ticks = [0u8; 8];
        // SAFETY: eight bytes of room for the eight that a timer gives; that there were none is no error.
        unsafe { libc::read(self.ticker.as_raw_fd(), ticks.as_mut_ptr().cast(), ticks.len()) };
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
    use std::time::Instant;

    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;
    use crate::engine::slab::Slab;

    fn in_glommio<T: Send + 'static>(test: impl AsyncFnOnce() -> T + Send + 'static) -> T {
        LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(64 << 10)
            .spawn(move || async move { test().await })
            .expect("the executor starts")
            .join()
            .expect("the test does not panic")
    }

    #[test]
    fn a_sleep_ends_when_a_socket_becomes_readable_and_the_set_stays_open() {
        in_glommio(async || {
            let mut slab = Slab::default();
            let mut poller = Poller::new().unwrap();
            let (mut near, mut far) = Pair::pair().unwrap();
            let key = slab.insert(());
            poller.add(&near, key, Interest::READ).unwrap();
            let mut ready = Vec::new();
            // Many rounds: each sleep makes and forgets a stream on the same set.
            for round in 0..200u8 {
                far.write_all(&[round]).unwrap();
                poller.sleep().await;
                poller.poll(&mut ready).unwrap();
                let readable = ready
                    .iter()
                    .any(|r| matches!(r, Ready::Socket { key: k, readable: true, .. } if *k == key));
                if !readable {
                    // only the ticker may have woken us
                    poller.sleep().await;
                }
                let mut byte = [0];
                near.read_exact(&mut byte).unwrap();
                assert_eq!(byte, [round]);
            }
        });
    }

    #[test]
    fn a_sleep_in_which_nothing_happens_ends_with_the_ticker() {
        in_glommio(async || {
            let mut poller = Poller::new().unwrap();
            let mut ready = Vec::new();
            let started = Instant::now();
            poller.sleep().await;
            poller.poll(&mut ready).unwrap();
            assert!(ready.is_empty());
            // Not an assertion of speed: without the ticker this would never return.
            assert!(started.elapsed() >= Duration::from_millis(1));
        });
    }
}
