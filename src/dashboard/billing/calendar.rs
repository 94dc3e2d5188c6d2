//! Months and years, as people count them: the same day and time of day in UTC, or a shorter month's last day.
//!
//! Periods are counted from where the first one began, so that one that began on the 31st ends on the 28th of February
//! and on the 31st of March.

use std::fmt;
use std::str::FromStr;

use crate::time::calendar::{civil_of, days_in, days_of};

const DAY_S: i64 = 86_400;

/// How often a plan's price is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cadence {
    Month,
    Year,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no period {0:?}; there are month and year")]
pub struct UnknownCadence(pub String);

impl Cadence {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The time `periods` periods after `anchor`.
    #[must_use]
    pub fn after(self, anchor: i64, periods: i64) -> i64 {
        let months = match self {
            Self::Month => periods,
            Self::Year => periods * 12,
        };
        let (days, second) = (anchor.div_euclid(DAY_S), anchor.rem_euclid(DAY_S));
        let (year, month, day) = civil_of(days);
        let month = year * 12 + (month - 1) + months;
        let (year, month) = (month.div_euclid(12), month.rem_euclid(12) + 1);
        days_of(year, month, day.min(days_in(year, month))) * DAY_S + second
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Cadence {
    type Err = UnknownCadence;

    fn from_str(text: &str) -> Result<Self, UnknownCadence> {
        [Self::Month, Self::Year]
            .into_iter()
            .find(|cadence| cadence.as_str() == text)
            .ok_or_else(|| UnknownCadence(text.to_owned()))
    }
}

/// `2027-01-15`, in UTC.
#[must_use]
pub fn date(unix_s: i64) -> String {
    let (year, month, day) = civil_of(unix_s.div_euclid(DAY_S));
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(year: i64, month: i64, day: i64) -> i64 {
        days_of(year, month, day) * DAY_S + 8 * 3600
    }

    #[test]
    fn known_days_have_their_dates() {
        for (unix_s, shown) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_800_000_000, "2027-01-15"),
            (4_107_542_399, "2100-02-28"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(date(unix_s), shown);
        }
    }

    #[test]
    fn a_month_ends_on_the_same_day_or_the_last_one() {
        let anchor = at(2027, 1, 31);
        let ends: Vec<_> = (1..=4).map(|n| date(Cadence::Month.after(anchor, n))).collect();
        assert_eq!(ends, ["2027-02-28", "2027-03-31", "2027-04-30", "2027-05-31"]);
        assert_eq!(date(Cadence::Month.after(at(2027, 12, 15), 1)), "2028-01-15");
        assert_eq!(date(Cadence::Year.after(at(2028, 2, 29), 1)), "2029-02-28");
        assert_eq!(date(Cadence::Year.after(at(2028, 2, 29), 4)), "2032-02-29");
    }

    proptest! {
        #[test]
        fn periods_follow_one_another(anchor in 0_i64..4_000_000_000, n in 0_i64..100) {
            for (cadence, shortest, longest) in [(Cadence::Month, 28, 31), (Cadence::Year, 365, 366)] {
                let length = cadence.after(anchor, n + 1) - cadence.after(anchor, n);
                prop_assert!((shortest * DAY_S..=longest * DAY_S).contains(&length));
                prop_assert_eq!(cadence.after(anchor, n) % DAY_S, anchor % DAY_S);
            }
        }
    }
}
