//! epoll, level-triggered, with waits as fine as nanoseconds.
//!
//! The one place that talks to the kernel about readiness. `epoll_pwait2` is used because a schedule of
//! hundreds of updates a second can't be kept with waits rounded to milliseconds.
#![allow(unsafe_code)] // system calls on descriptors that this type owns or borrows

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// How many ready sockets one wait may report.
const EVENTS_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
}

pub struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl Poller {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor returned is ours alone.
        let epoll = unsafe {
            let fd = check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
            OwnedFd::from_raw_fd(fd)
        };
        // The default slack would let every wait oversleep by 50 µs.
        // SAFETY: no pointers.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000, 0, 0, 0) };
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Watches a socket for input, and for room to write if `writable`. Closing it ends the watch.
    pub fn add(&self, socket: BorrowedFd<'_>, token: u64, writable: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, token, input_and(writable))
    }

    pub fn modify(&self, socket: BorrowedFd<'_>, token: u64, writable: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket, token, input_and(writable))
    }

    /// Watches for room to write only, whatever comes in; a broken connection is still reported.
    pub fn ignore_input(&self, socket: BorrowedFd<'_>, token: u64, writable: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket, token, if writable { libc::EPOLLOUT } else { 0 })
    }

    fn control(&self, operation: i32, socket: BorrowedFd<'_>, token: u64, flags: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: flags as u32, u64: token };
        // SAFETY: both descriptors are open for the call, `event` outlives it.
        unsafe {
            check(libc::epoll_ctl(self.epoll.as_raw_fd(), operation, socket.as_raw_fd(), &raw mut event))?;
        }
        Ok(())
    }

    /// Waits at most `timeout` (zero only looks) and replaces `ready` by what is ready.
    pub fn wait(&mut self, timeout: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
        };
        // SAFETY: `events` has room for EVENTS_MAX; the kernel initialises as many as it reports.
        unsafe {
            let count = libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                EVENTS_MAX as libc::c_int,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            );
            if count < 0 {
                let error = io::Error::last_os_error();
                return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
            }
            self.events.set_len(count as usize);
        }
        ready.extend(self.events.iter().map(|event| {
            let flags = event.events as i32;
            let broken = flags & (libc::EPOLLERR | libc::EPOLLHUP) != 0;
            Ready {
                token: event.u64,
                readable: broken || flags & libc::EPOLLIN != 0,
                writable: flags & libc::EPOLLOUT != 0,
            }
        }));
        Ok(())
    }
}

fn input_and(writable: bool) -> i32 {
    libc::EPOLLIN | if writable { libc::EPOLLOUT } else { 0 }
}

/// Lets this process open as many sockets as the system allows it; how many that is.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives both calls.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
    }
    Ok(limit.rlim_cur)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_descriptor_limit_can_be_raised_to_what_is_allowed() {
        let raised = raise_descriptor_limit().expect("raised");
        assert_eq!(raise_descriptor_limit().expect("raised again"), raised);
        assert!(raised > 0);
    }

    #[test]
    fn reports_what_is_ready_until_it_is_taken() {
        let (mut here, there) = UnixStream::pair().expect("a pair");
        let mut poller = Poller::new().expect("a poller");
        poller.add(there.as_fd(), 9, false).expect("watched");
        let mut ready = Vec::new();
        poller.wait(Duration::ZERO, &mut ready).expect("looked");
        assert_eq!(ready, []);
        here.write_all(b"x").expect("written");
        for _ in 0..2 {
            poller.wait(Duration::from_secs(5), &mut ready).expect("waited");
            assert_eq!(ready, [Ready { token: 9, readable: true, writable: false }]);
        }
        poller.modify(there.as_fd(), 9, true).expect("changed");
        poller.wait(Duration::from_secs(5), &mut ready).expect("waited");
        assert_eq!(ready, [Ready { token: 9, readable: true, writable: true }]);
        poller.ignore_input(there.as_fd(), 9, false).expect("changed");
        poller.wait(Duration::ZERO, &mut ready).expect("looked");
        assert_eq!(ready, []);
        drop(here);
        poller.wait(Duration::from_secs(5), &mut ready).expect("waited");
        assert_eq!(ready, [Ready { token: 9, readable: true, writable: false }]);
    }
}
