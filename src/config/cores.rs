//! Which cores the shards and the control shard run on.

use std::fmt;
use std::str::FromStr;

use super::NodeSettings;

/// The highest core number that is taken for one (Linux's own bound is 8192 at most).
const CORE_MAX: u16 = 8191;

/// Core numbers in the order they were given, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CoreList(Vec<u16>);

/// Why a text is no core list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoreListError {
    #[error("`{0}` is neither a core number nor a range such as \"4-7\"")]
    NotACore(String),
    #[error("core {0} is named twice")]
    Twice(u16),
    #[error("core {0} is above {CORE_MAX}, the highest there can be")]
    TooHigh(u32),
}

impl CoreList {
    #[must_use]
    pub fn as_slice(&self) -> &[u16] {
        &self.0
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a core ("3") or a range ("4-7").
    pub(super) fn add(&mut self, text: &str) -> Result<(), CoreListError> {
        let not_a_core = || CoreListError::NotACore(text.to_owned());
        let number = |digits: &str| digits.trim().parse::<u32>().map_err(|_| not_a_core());
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if first > last {
            return Err(not_a_core());
        }
        if last > u32::from(CORE_MAX) {
            return Err(CoreListError::TooHigh(last));
        }
        for core in first..=last {
            let core = u16::try_from(core).map_err(|_| CoreListError::TooHigh(core))?;
            if self.0.contains(&core) {
                return Err(CoreListError::Twice(core));
            }
            self.0.push(core);
        }
        Ok(())
    }

    /// Runs of consecutive cores, first and last of each.
    pub(super) fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for &core in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == core => *last = core,
                _ => ranges.push((core, core)),
            }
        }
        ranges
    }
}

/// The form of taskset and `/proc`: `0,2,4-7`.
impl FromStr for CoreList {
    type Err = CoreListError;

    fn from_str(text: &str) -> Result<Self, CoreListError> {
        let mut cores = Self::default();
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .try_for_each(|part| cores.add(part))?;
        Ok(cores)
    }
}

impl fmt::Display for CoreList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges().into_iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

impl FromIterator<u16> for CoreList {
    fn from_iter<I: IntoIterator<Item = u16>>(cores: I) -> Self {
        let mut list = Self::default();
        for core in cores {
            if !list.0.contains(&core) {
                list.0.push(core);
            }
        }
        list
    }
}

/// Which core each shard is pinned to, and the control shard's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreLayout {
    /// By shard index; never empty. A core stands in it more than once only if more shards were asked for than there
    /// are cores.
    pub shards: Vec<u16>,
    /// `None`: the control shard runs wherever the scheduler puts it.
    pub control: Option<u16>,
}

/// Why a node's core settings don't fit this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error(
        "cannot pin to core {core} ({key}): this process may run on cores {allowed}; \
         change {key}, or the CPU set that the process was started with"
    )]
    NotAllowed { key: &'static str, core: u16, allowed: CoreList },
    #[error("cannot lay out shards: the system reports no core that this process may run on")]
    NoCores,
}

impl CoreLayout {
    /// Lays shards out over `cpus`, or over the `allowed` cores that are left beside the control core.
    ///
    /// `parallelism` is how many cores' worth of time the process may use: a container may be allowed on all cores of
    /// its host, but for the time of two. It bounds the number of shards unless that was given.
    pub fn new(node: &NodeSettings, allowed: &CoreList, parallelism: usize) -> Result<Self, LayoutError> {
        if allowed.is_empty() {
            return Err(LayoutError::NoCores);
        }
        let pinned =
            |key: &'static str, cores: &[u16]| match cores.iter().find(|core| !allowed.0.contains(core)) {
                Some(&core) => Err(LayoutError::NotAllowed { key, core, allowed: allowed.clone() }),
                None => Ok(()),
            };
        pinned("node.cpus", &node.cpus.0)?;
        pinned("node.control_cpu", node.control_cpu.as_slice())?;

        if !node.cpus.is_empty() {
            let count = node.shards.map_or(node.cpus.0.len(), usize::from);
            return Ok(Self { shards: dealt(&node.cpus.0, count), control: node.control_cpu });
        }
        let control = node.control_cpu.or_else(|| (allowed.0.len() > 1).then(|| allowed.0[0]));
        let free: Vec<u16> = allowed.0.iter().copied().filter(|core| Some(*core) != control).collect();
        let room = free.len().min(parallelism.saturating_sub(1)).max(1);
        let count = node.shards.map_or(room, usize::from);
        if count <= free.len() {
            return Ok(Self { shards: dealt(&free, count), control });
        }
        // more shards than cores: share all of them, and leave the control shard to the scheduler
        Ok(Self { shards: dealt(&allowed.0, count), control: node.control_cpu })
    }
}

/// `count` cores, starting again from the first when they run out.
fn dealt(cores: &[u16], count: usize) -> Vec<u16> {
    cores.iter().copied().cycle().take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodeConfig;

    fn node(shards: Option<u16>, cpus: &str, control_cpu: Option<u16>) -> NodeSettings {
        let config = NodeConfig::dev("127.0.0.1:0".parse().unwrap(), shards);
        NodeSettings { cpus: cpus.parse().unwrap(), control_cpu, ..config.node }
    }

    fn layout(node: &NodeSettings, allowed: &str) -> (Vec<u16>, Option<u16>) {
        let allowed: CoreList = allowed.parse().unwrap();
        let layout = CoreLayout::new(node, &allowed, allowed.as_slice().len()).unwrap();
        (layout.shards, layout.control)
    }

    #[test]
    fn by_default_control_takes_the_first_core_and_shards_the_rest() {
        assert_eq!(layout(&node(None, "", None), "0-3"), (vec![1, 2, 3], Some(0)));
        assert_eq!(layout(&node(None, "", Some(2)), "0-3"), (vec![0, 1, 3], Some(2)));
    }

    #[test]
    fn a_single_core_is_shared() {
        assert_eq!(layout(&node(None, "", None), "5"), (vec![5], None));
    }

    #[test]
    fn more_shards_than_cores_share_all_of_them() {
        assert_eq!(layout(&node(Some(4), "", None), "0-1"), (vec![0, 1, 0, 1], None));
    }

    #[test]
    fn named_cores_are_taken_as_named() {
        assert_eq!(layout(&node(None, "3,1", Some(0)), "0-3"), (vec![3, 1], Some(0)));
        assert_eq!(layout(&node(Some(1), "3,1", None), "0-3"), (vec![3], None));
    }

    #[test]
    fn a_cpu_quota_bounds_the_shards_that_nobody_counted() {
        let allowed: CoreList = "0-63".parse().unwrap();
        let shards = |node: &NodeSettings| CoreLayout::new(node, &allowed, 4).unwrap().shards.len();
        assert_eq!(shards(&node(None, "", None)), 3);
        assert_eq!(shards(&node(Some(8), "", None)), 8);
    }

    #[test]
    fn a_core_outside_the_allowed_ones_is_named() {
        let allowed: CoreList = "0-1".parse().unwrap();
        let error = CoreLayout::new(&node(None, "1,9", None), &allowed, 2).unwrap_err();
        assert!(error.to_string().contains("core 9 (node.cpus)") && error.to_string().contains("cores 0-1"));
        assert_eq!(
            CoreLayout::new(&node(None, "", None), &CoreList::default(), 1),
            Err(LayoutError::NoCores)
        );
    }

    #[test]
    fn core_lists_print_as_they_parse() {
        for text in ["", "0", "0-3", "0,2,4-7", "63,1-2"] {
            assert_eq!(text.parse::<CoreList>().unwrap().to_string(), text);
        }
        for wrong in ["a", "3-1", "1-", "-1", "1,1", "0-9000", "4294967296"] {
            assert!(wrong.parse::<CoreList>().is_err(), "{wrong}");
        }
    }
}
