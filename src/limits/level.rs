//! How close a figure is to its limit, in a word: the same on nodes and in the dashboard.

/// Healthy below 75 % of the limit, critical from 90 % on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Healthy,
    Warning,
    Critical,
}

impl Level {
    /// Decided on the exact figures, not on a rounded share of them.
    #[must_use]
    pub const fn of(current: u64, limit: u64) -> Self {
        let (used, whole) = (current as u128 * 100, limit as u128);
        match used {
            used if used < whole * 75 => Self::Healthy,
            used if used < whole * 90 => Self::Warning,
            _ => Self::Critical,
        }
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_are_at_75_and_90_percent_exactly() {
        let levels = [(0, 4), (2, 4), (3, 4), (899, 1000), (900, 1000), (2000, 1000), (0, 0)];
        let words = levels.map(|(current, limit)| Level::of(current, limit).as_str());
        assert_eq!(
            words,
            ["healthy", "healthy", "warning", "warning", "critical", "critical", "critical"],
            "without a limit of more than none, nothing fits"
        );
        assert_eq!(Level::of(u64::MAX, u64::MAX), Level::Critical);
    }
}
