//! The server under test as the kernel accounts for it: a process, or everything in a control group.

use super::cgroup::Cgroup;
use super::process::{Cpu, Memory, Process, ProcessError};

#[derive(Debug, Clone)]
pub enum Server {
    Process(Process),
    Cgroup(Cgroup),
}

impl Server {
    pub fn cpu(&self) -> Result<Cpu, ProcessError> {
        match self {
            Self::Process(process) => process.cpu(),
            Self::Cgroup(cgroup) => cgroup.cpu(),
        }
    }

    /// Exact, and slow for a large process: not for the middle of a window.
    pub fn memory(&self) -> Result<Memory, ProcessError> {
        match self {
            Self::Process(process) => process.memory(),
            Self::Cgroup(cgroup) => cgroup.memory(),
        }
    }

    /// Is there nothing left to measure?
    pub fn has_ended(&self) -> bool {
        match self {
            Self::Process(process) => process.has_ended(),
            Self::Cgroup(cgroup) => cgroup.cpu().is_err(),
        }
    }

    /// The memory held, quickly.
    pub fn resident_bytes(&self) -> Result<u64, ProcessError> {
        match self {
            Self::Process(process) => process.resident_bytes(),
            Self::Cgroup(cgroup) => cgroup.memory().map(|memory| memory.resident_bytes),
        }
    }
}
