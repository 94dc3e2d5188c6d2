//! CPU time and memory of a control group (version 2): a container, or a server of several processes.
//!
//! Memory here is all that the kernel charges to the group, page cache and socket buffers included, so it
//! is more than the resident memory of its processes.

use super::process::{Cpu, Memory, ProcessError};
use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel shows its control groups.
const ROOT: &str = "/sys/fs/cgroup";

#[derive(Debug, Clone)]
pub struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// `folder` as `/sys/fs/cgroup/...`, or as `/proc/PID/cgroup` names it.
    pub fn open(folder: &Path) -> Result<Self, ProcessError> {
        let is_whole = folder.join("cpu.stat").exists() || folder.starts_with(ROOT);
        let under_root = || Path::new(ROOT).join(folder.strip_prefix("/").unwrap_or(folder));
        let folder = if is_whole { folder.to_owned() } else { under_root() };
        let cgroup = Self { folder };
        cgroup.cpu()?;
        cgroup.memory()?;
        Ok(cgroup)
    }

    pub fn cpu(&self) -> Result<Cpu, ProcessError> {
        let stat = self.read("cpu.stat")?;
        let seconds = |name: &str| {
            let us = stat.lines().find_map(|line| line.strip_prefix(name))?.trim().parse::<u64>().ok()?;
            Some(us as f64 / 1e6)
        };
        let read = || {
            Some(Cpu {
                total_s: seconds("usage_usec ")?,
                user_s: seconds("user_usec ")?,
                system_s: seconds("system_usec ")?,
            })
        };
        read().ok_or_else(|| self.error("cpu.stat", io::ErrorKind::InvalidData.into()))
    }

    pub fn memory(&self) -> Result<Memory, ProcessError> {
        let bytes = self.read("memory.current")?.trim().parse();
        let bytes = bytes.map_err(|_| self.error("memory.current", io::ErrorKind::InvalidData.into()))?;
        Ok(Memory { resident_bytes: bytes, proportional_bytes: bytes })
    }

    fn read(&self, file: &str) -> Result<String, ProcessError> {
        std::fs::read_to_string(self.folder.join(file)).map_err(|source| self.error(file, source))
    }

    fn error(&self, file: &str, source: io::Error) -> ProcessError {
        ProcessError::Cgroup { file: self.folder.join(file), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_account_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let stat = "usage_usec 3500000\nuser_usec 2000000\nsystem_usec 1500000\nnr_periods 0\n";
        std::fs::write(folder.path().join("cpu.stat"), stat).expect("written");
        assert!(Cgroup::open(folder.path()).is_err());
        std::fs::write(folder.path().join("memory.current"), "4096\n").expect("written");
        let cgroup = Cgroup::open(folder.path()).expect("a group");
        assert_eq!(cgroup.cpu().expect("cpu"), Cpu { total_s: 3.5, user_s: 2.0, system_s: 1.5 });
        assert_eq!(cgroup.memory().expect("memory").resident_bytes, 4096);
    }

    #[test]
    fn a_group_that_is_not_there_is_an_error_that_names_it() {
        for name in ["/no/such/group", "/sys/fs/cgroup/no/such/group"] {
            let error = Cgroup::open(Path::new(name)).expect_err("not there");
            assert!(error.to_string().contains(" /sys/fs/cgroup/no/such/group/cpu.stat"), "{error}");
        }
    }
}
