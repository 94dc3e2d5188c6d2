//! Why a run may have to end before its time: somebody interrupts it, or the server is gone.
//!
//! Loads ask [`Watch::halt`] in every turn of their loops, which costs two comparisons unless it is time to look
//! at the server. What the server had cost when it was last seen is kept: that much was measured.
#![allow(unsafe_code)] // signal handlers

use crate::measure::process::{Cpu, Memory, ProcessError};
use crate::measure::server::Server;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const LOOK_NS: u64 = 100_000_000;
/// What a shell reports of a program that was interrupted.
pub const INTERRUPTED_EXIT_CODE: u8 = 130;

/// A second signal so soon is the same interruption: `timeout` tells its child and then the whole group.
const SAME_NS: u64 = 250_000_000;

static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);
static FIRST_SIGNAL_NS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    Interrupted,
    ServerEnded,
}

/// Copies share what they have seen.
#[derive(Debug, Clone)]
pub struct Watch {
    seen: Rc<Seen>,
}

#[derive(Debug)]
struct Seen {
    server: Option<Server>,
    start: Instant,
    next_look_ns: Cell<u64>,
    halt: Cell<Option<(Halt, f64)>>,
    cpu: Cell<Option<Cpu>>,
    resident_bytes: Cell<Option<u64>>,
}

impl Watch {
    pub fn new(server: Option<Server>) -> Self {
        Self {
            seen: Rc::new(Seen {
                server,
                start: Instant::now(),
                next_look_ns: Cell::new(0),
                halt: Cell::new(None),
                cpu: Cell::new(None),
                resident_bytes: Cell::new(None),
            }),
        }
    }

    pub fn has_server(&self) -> bool {
        self.seen.server.is_some()
    }

    /// Is the run to end? `now_ns` is of any one clock.
    #[inline]
    pub fn halt(&self, now_ns: u64) -> Option<Halt> {
        if now_ns >= self.seen.next_look_ns.get() || IS_INTERRUPTED.load(Ordering::Relaxed) {
            self.seen.next_look_ns.set(now_ns + LOOK_NS);
            self.look();
        }
        self.seen.halt.get().map(|(halt, _)| halt)
    }

    /// Why the run ended, and how many seconds after its beginning.
    pub fn halted(&self) -> Option<(Halt, f64)> {
        self.seen.halt.get()
    }

    /// Looks now.
    #[cold]
    pub fn look(&self) -> Option<Halt> {
        if IS_INTERRUPTED.load(Ordering::Relaxed) {
            self.note(Halt::Interrupted);
        }
        // What can't be read for another reason is an error to whoever asks for it.
        let _ = self.cpu();
        let _ = self.resident_bytes();
        self.seen.halt.get().map(|(halt, _)| halt)
    }

    fn note(&self, halt: Halt) {
        if self.seen.halt.get().is_none() {
            self.seen.halt.set(Some((halt, self.seen.start.elapsed().as_secs_f64())));
        }
    }

    /// What the server has cost, if it is measured.
    pub fn cpu(&self) -> Result<Option<Cpu>, ProcessError> {
        self.last_of(&self.seen.cpu, Server::cpu)
    }

    /// The server's resident memory, quickly.
    pub fn resident_bytes(&self) -> Result<Option<u64>, ProcessError> {
        self.last_of(&self.seen.resident_bytes, Server::resident_bytes)
    }

    pub fn memory(&self) -> Result<Option<Memory>, ProcessError> {
        match self.seen.server.as_ref().map(Server::memory).transpose() {
            Ok(memory) => Ok(memory),
            // How its pages were shared can't be known any more: no more than all of them.
            Err(_) if self.has_ended() => Ok(self
                .seen
                .resident_bytes
                .get()
                .map(|bytes| Memory { resident_bytes: bytes, proportional_bytes: bytes })),
            Err(error) => Err(error),
        }
    }

    /// What can be read now, or what was read last of a server that has ended.
    fn last_of<T: Copy>(
        &self,
        last: &Cell<Option<T>>,
        read: impl Fn(&Server) -> Result<T, ProcessError>,
    ) -> Result<Option<T>, ProcessError> {
        if let Some((Halt::ServerEnded, _)) = self.seen.halt.get() {
            return Ok(last.get()); // a dead process has no memory, which says nothing
        }
        match self.seen.server.as_ref().map(read).transpose() {
            Ok(value) => {
                last.set(value);
                Ok(value)
            }
            Err(_) if self.has_ended() => Ok(last.get()),
            Err(error) => Err(error),
        }
    }

    fn has_ended(&self) -> bool {
        let has_ended = self.seen.server.as_ref().is_some_and(Server::has_ended);
        if has_ended {
            self.note(Halt::ServerEnded);
        }
        has_ended
    }

    /// Sleeps, unless the run is to end.
    pub fn sleep(&self, length: Duration) {
        const NAP: Duration = Duration::from_millis(50);
        let start = Instant::now();
        while let Some(left) = length.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            if self.look().is_some() {
                return;
            }
            std::thread::sleep(left.min(NAP));
        }
    }
}

/// From now on the first interruption (SIGINT or SIGTERM) is noted, and the second, unless it comes right after it,
/// ends the process at once.
pub fn catch_interruptions() {
    extern "C" fn interrupted(_signal: libc::c_int) {
        IS_INTERRUPTED.store(true, Ordering::Relaxed);
        if is_second(&FIRST_SIGNAL_NS, monotonic_ns()) {
            // SAFETY: one of the few calls that a handler may make.
            unsafe { libc::_exit(i32::from(INTERRUPTED_EXIT_CODE)) }
        }
    }
    let handler: extern "C" fn(libc::c_int) = interrupted;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only touches an atomic, or ends the process.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Is this signal another interruption than the first? `first_ns` remembers that one; 0 is none yet.
fn is_second(first_ns: &AtomicU64, now_ns: u64) -> bool {
    let first_ns = first_ns.compare_exchange(0, now_ns, Ordering::Relaxed, Ordering::Relaxed);
    first_ns.is_err_and(|first_ns| now_ns.saturating_sub(first_ns) >= SAME_NS)
}

/// The clock as a signal handler may read it.
fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is ours, and handlers may call this. Should it fail, every signal is the first one's like.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    (now.tv_sec as u64) * 1_000_000_000 + now.tv_nsec as u64
}

/// Interrupts another process of ours.
pub fn interrupt(pid: u32) {
    // SAFETY: no pointers. Who is gone already needs no telling.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGINT) };
}

/// This process ends when the one that started it does, however that ends.
pub fn end_with_parent() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::process::Process;
    use std::process::Command;

    #[test]
    fn a_server_that_ends_is_noticed_and_what_it_had_cost_is_known() {
        let mut server = Command::new("sleep").arg("1000").spawn().expect("it starts");
        let process = Process::open(server.id()).expect("it runs");
        let watch = Watch::new(Some(Server::Process(process)));
        assert_eq!(watch.halt(1), None);
        let (cpu, memory) = (watch.cpu().expect("cpu"), watch.resident_bytes().expect("memory"));
        assert!(cpu.is_some() && memory.is_some());
        server.kill().expect("killed");
        while watch.look().is_none() {
            std::hint::spin_loop(); // it is a zombie until somebody waits for it
        }
        assert_eq!(watch.halted().map(|(halt, _)| halt), Some(Halt::ServerEnded));
        server.wait().expect("it ended");
        assert_eq!(watch.halt(2), Some(Halt::ServerEnded));
        let last = (watch.cpu().expect("the last"), watch.memory().expect("the last"));
        assert!(last.0.map(|cpu| cpu.total_s) >= cpu.map(|cpu| cpu.total_s));
        assert!(last.1.is_some_and(|memory| memory.resident_bytes > 0), "{last:?}");
    }

    #[test]
    fn signals_close_together_are_one_interruption() {
        let first_ns = AtomicU64::new(0);
        let now_ns = 7_000_000_000;
        assert!(!is_second(&first_ns, now_ns));
        assert!(!is_second(&first_ns, now_ns + 1));
        assert!(!is_second(&first_ns, now_ns + SAME_NS - 1));
        assert!(is_second(&first_ns, now_ns + SAME_NS));
    }

    #[test]
    fn without_a_server_nothing_ends() {
        let watch = Watch::new(None);
        assert_eq!((watch.halt(u64::MAX >> 1), watch.cpu().expect("none")), (None, None));
    }
}
