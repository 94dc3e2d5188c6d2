//! What the host gives this process: cores, open files, locked memory, memory.
//!
//! Read from `/proc` and `/sys`, once, when a node starts. Nothing is raised here: what there is gets reported and
//! planned by.

use std::path::Path;

use super::{CoreList, OverloadSettings};

/// Open files that are not connections: listeners, rings, epoll sets, logs, key fetches.
const FILES_RESERVED: u64 = 512;

/// What a node can plan with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    /// The cores this process may run on.
    pub cpus: CoreList,
    /// How many cores' worth of time it may use: a quota may be smaller than the number of cores.
    pub parallelism: usize,
    /// Soft limit on open files; `None` is unlimited.
    pub open_files_max: Option<u64>,
    /// Soft limit on locked memory, which io_uring's registered buffers need; `None` is unlimited.
    pub locked_bytes_max: Option<u64>,
    /// The host's memory, or what the process's cgroup may have of it.
    pub memory_bytes: u64,
}

/// What the host said can't be understood.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("cannot find out what this host has: reading {path} failed: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("cannot find out what this host has: {path} does not hold {what}")]
    Missing { path: &'static str, what: &'static str },
}

impl Host {
    /// Asks the kernel.
    ///
    /// # Errors
    /// If `/proc` is not there or not Linux's.
    pub fn detect() -> Result<Self, HostError> {
        let status = read("/proc/self/status")?;
        let limits = read("/proc/self/limits")?;
        let memory = read("/proc/meminfo")?;
        let missing = |path, what| HostError::Missing { path, what };
        let cpus = field(&status, "Cpus_allowed_list:").and_then(|list| list.parse().ok());
        let ram = field(&memory, "MemTotal:").and_then(kilobytes);
        let ram = ram.ok_or_else(|| missing("/proc/meminfo", "MemTotal"))?;
        let soft = |name, what| soft_limit(&limits, name).ok_or_else(|| missing("/proc/self/limits", what));
        Ok(Self {
            name: read("/proc/sys/kernel/hostname")?.trim().to_owned(),
            cpus: cpus.ok_or_else(|| missing("/proc/self/status", "Cpus_allowed_list"))?,
            parallelism: std::thread::available_parallelism().map_or(1, usize::from),
            open_files_max: soft("Max open files", "the limit on open files")?,
            locked_bytes_max: soft("Max locked memory", "the limit on locked memory")?,
            memory_bytes: ram.min(cgroup_memory_bytes_max().unwrap_or(u64::MAX)),
        })
    }

    /// How many connections the node plans for: the configured number, but never more than there can be files.
    #[must_use]
    pub fn connections_max(&self, overload: &OverloadSettings) -> u64 {
        let files = self.open_files_max.map_or(u64::MAX, |max| max.saturating_sub(FILES_RESERVED).max(1));
        // without any limit, what one host's memory could carry is far below this
        overload.connections_max.unwrap_or(10_000_000).min(files)
    }

    /// The memory mark that shedding goes by.
    #[must_use]
    pub fn memory_bytes_max(&self, overload: &OverloadSettings) -> u64 {
        overload.memory_bytes_max.unwrap_or(self.memory_bytes)
    }
}

fn read(path: &str) -> Result<String, HostError> {
    std::fs::read_to_string(path).map_err(|source| HostError::Read { path: path.to_owned(), source })
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// "16318480 kB" in bytes.
fn kilobytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The soft limit of a line of `/proc/self/limits`; the inner `None` is unlimited.
#[allow(clippy::option_option)] // not there, unlimited, limited
fn soft_limit(limits: &str, name: &str) -> Option<Option<u64>> {
    match field(limits, name)?.split_whitespace().next()? {
        "unlimited" => Some(None),
        digits => digits.parse().ok().map(Some),
    }
}

/// The smallest limit of this process's cgroup and those above it (cgroup v2), or v1's.
fn cgroup_memory_bytes_max() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let limit = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let v2 = own.lines().find_map(|line| line.strip_prefix("0::/")).map(|path| {
        let group = Path::new("/sys/fs/cgroup").join(path);
        group.ancestors().take_while(|dir| dir.starts_with("/sys/fs/cgroup")).map(Path::to_owned).collect()
    });
    let groups: Vec<_> = v2.unwrap_or_default();
    let limits = groups.iter().filter_map(|group| limit(&group.join("memory.max")));
    limits.chain(limit(Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes"))).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodeConfig;

    #[test]
    fn this_host_can_be_described() {
        let host = Host::detect().unwrap();
        assert!(!host.cpus.is_empty() && host.parallelism >= 1 && host.memory_bytes > 1 << 20, "{host:?}");
        assert!(host.parallelism <= host.cpus.as_slice().len(), "{host:?}");
    }

    #[test]
    fn limits_are_read_as_the_kernel_prints_them() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max locked memory         unlimited            unlimited            bytes     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit(limits, "Max open files"), Some(Some(1024)));
        assert_eq!(soft_limit(limits, "Max locked memory"), Some(None));
        assert_eq!(soft_limit(limits, "Max nonsense"), None);
        assert_eq!(kilobytes("16 kB"), Some(16_384));
    }

    #[test]
    fn connections_never_outnumber_files() {
        let mut overload = NodeConfig::dev("127.0.0.1:0".parse().unwrap(), None).overload;
        let host = Host {
            name: "h".into(),
            cpus: "0".parse().unwrap(),
            parallelism: 1,
            open_files_max: Some(2048),
            locked_bytes_max: None,
            memory_bytes: 1 << 30,
        };
        assert_eq!(host.connections_max(&overload), 1536);
        overload.connections_max = Some(100);
        assert_eq!(host.connections_max(&overload), 100);
        overload.connections_max = Some(100_000);
        assert_eq!(host.connections_max(&overload), 1536);
        assert_eq!(host.memory_bytes_max(&overload), 1 << 30);
    }
}
