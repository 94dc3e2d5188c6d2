//! CPU time and memory of a process, from outside.
//!
//! CPU is user and system time of all its threads, also of those that have ended: the kernel's own
//! account, by the nanosecond, from the process's CPU clock. How it divides into user and system is
//! known only from `/proc/PID/stat`, by the hundredth of a second.
#![allow(unsafe_code)] // the CPU clock of another process has no safe interface

use serde::{Deserialize, Serialize};
use std::io;
use std::ops::{AddAssign, Sub};
use std::path::PathBuf;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ProcessError {
    #[error("cannot read what process {pid} costs: {source} (does it run, and is it yours?)")]
    Process { pid: u32, source: io::Error },
    #[error(
        "cannot read {}: {source} (is it a group of cgroup version 2 with the cpu and memory controllers?)",
        file.display()
    )]
    Cgroup { file: PathBuf, source: io::Error },
}

/// Linux reports times to user space in hundredths of a second whatever the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug, Clone, Copy)]
pub struct Process {
    pid: u32,
    clock: libc::clockid_t,
}

/// CPU time used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    pub total_s: f64,
    pub user_s: f64,
    pub system_s: f64,
}

impl AddAssign for Cpu {
    fn add_assign(&mut self, other: Self) {
        self.total_s += other.total_s;
        self.user_s += other.user_s;
        self.system_s += other.system_s;
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            total_s: self.total_s - earlier.total_s,
            user_s: self.user_s - earlier.user_s,
            system_s: self.system_s - earlier.system_s,
        }
    }
}

/// Memory held, in bytes; `proportional` divides pages shared with other processes (PSS).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    pub resident_bytes: u64,
    pub proportional_bytes: u64,
}

impl Process {
    pub fn open(pid: u32) -> Result<Self, ProcessError> {
        let mut clock = 0;
        // SAFETY: `clock` is written before the call returns 0.
        let error = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) };
        if error != 0 {
            return Err(ProcessError::Process { pid, source: io::Error::from_raw_os_error(error) });
        }
        let process = Self { pid, clock };
        process.cpu()?;
        Ok(process)
    }

    /// The load tester itself.
    pub fn own() -> Result<Self, ProcessError> {
        Self::open(std::process::id())
    }

    pub fn cpu(&self) -> Result<Cpu, ProcessError> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` outlives the call, which fails if the process is gone.
        if unsafe { libc::clock_gettime(self.clock, &raw mut time) } != 0 {
            return Err(self.error(io::Error::last_os_error()));
        }
        let stat = self.read("stat")?;
        // The name, in parentheses, may hold anything: the fields start behind the last one.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|value| value.parse::<f64>().ok());
        if fields.first().is_some_and(|state| matches!(*state, "Z" | "X")) {
            return Err(self.error(io::ErrorKind::NotFound.into()));
        }
        let (user, system) =
            ticks(11).zip(ticks(12)).ok_or_else(|| self.error(io::ErrorKind::InvalidData.into()))?;
        Ok(Cpu {
            total_s: time.tv_sec as f64 + time.tv_nsec as f64 / 1e9,
            user_s: user / TICKS_PER_SECOND,
            system_s: system / TICKS_PER_SECOND,
        })
    }

    /// Is it gone, or waits only for its parent to notice?
    pub fn has_ended(&self) -> bool {
        let Ok(stat) = self.read("stat") else { return true };
        // Its memory goes first.
        self.resident_bytes().is_err()
            || stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with(['Z', 'X'])
    }

    /// Takes the kernel a few milliseconds for a large process: not for the middle of a window.
    pub fn memory(&self) -> Result<Memory, ProcessError> {
        let rollup = self.read("smaps_rollup")?;
        let bytes = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kb| kb * 1024)
        };
        let (resident, proportional) =
            bytes("Rss:").zip(bytes("Pss:")).ok_or_else(|| self.error(io::ErrorKind::InvalidData.into()))?;
        if resident == 0 {
            return Err(self.error(io::ErrorKind::NotFound.into()));
        }
        Ok(Memory { resident_bytes: resident, proportional_bytes: proportional })
    }

    /// The resident memory as the kernel counts it along the way: quick, a few pages off.
    pub fn resident_bytes(&self) -> Result<u64, ProcessError> {
        let statm = self.read("statm")?;
        let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
        let pages = pages.filter(|pages| *pages > 0);
        let pages = pages.ok_or_else(|| self.error(io::ErrorKind::InvalidData.into()))?;
        // SAFETY: no pointers.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        Ok(pages * u64::try_from(page_bytes).unwrap_or(4096))
    }

    fn read(&self, file: &str) -> Result<String, ProcessError> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.pid)).map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> ProcessError {
        ProcessError::Process { pid: self.pid, source }
    }
}

/// What the host's monotonic clock says: the same clock that `Instant` reads.
pub(super) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call, which can't fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_of_all_threads_are_seen() {
        let own = Process::own().expect("our own process");
        let (cpu, memory) = (own.cpu().expect("cpu"), own.memory().expect("memory"));
        let held = std::thread::spawn(|| {
            let mut held = vec![1u8; 64 << 20];
            for round in 0..20u8 {
                held.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(round));
            }
            held
        })
        .join()
        .expect("the thread ends");
        let quick = own.resident_bytes().expect("memory");
        let used = own.cpu().expect("cpu") - cpu;
        assert!(used.total_s > 0.0, "{used:?}");
        let grown = own.memory().expect("memory").resident_bytes - memory.resident_bytes;
        assert!(grown > 32 << 20, "{grown} of {}", held.len());
        assert!(quick > memory.resident_bytes + (32 << 20), "{quick}");
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(Process::open(u32::MAX >> 2).is_err());
    }
}
