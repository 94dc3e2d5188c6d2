//! Numbers with their units: counts, byte sizes, durations.

use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::domain::{Domain, Wrong};
use super::literal::Literal;

/// The integer types that fields have.
pub(super) trait Whole: Copy + TryFrom<u64> + TryInto<u64> + Send + Sync + 'static {}
impl<T: Copy + TryFrom<u64> + TryInto<u64> + Send + Sync + 'static> Whole for T {}

/// A whole number with a unit.
pub(super) struct Count<T> {
    range: RangeInclusive<u64>,
    unit: &'static str,
    field: PhantomData<fn() -> T>,
}

/// A whole number of `unit` ("" where the key's name says it all).
pub(super) fn count<T: Whole>(range: RangeInclusive<u64>, unit: &'static str) -> Count<T> {
    Count { range, unit, field: PhantomData }
}

/// `value` as the field's type, if it is in range.
fn fit<T: Whole>(value: i128, range: &RangeInclusive<u64>) -> Option<T> {
    u64::try_from(value).ok().filter(|value| range.contains(value)).and_then(|value| T::try_from(value).ok())
}

fn widened<T: Whole>(value: T) -> u64 {
    value.try_into().unwrap_or(u64::MAX)
}

impl<T: Whole> Domain for Count<T> {
    type Value = T;

    fn read(&self, literal: &Literal) -> Result<T, Vec<Wrong>> {
        literal.as_integer().and_then(|value| fit(value, &self.range)).ok_or_else(|| Wrong::whole(literal))
    }

    fn write(&self, value: &T) -> Option<String> {
        Some(widened(*value).to_string())
    }

    fn allowed(&self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) };
        format!("a whole number from {} to {}{unit}", self.range.start(), self.range.end())
    }
}

/// A byte size: an integer, or text such as "16 MiB".
pub(super) struct Bytes<T> {
    range: RangeInclusive<u64>,
    field: PhantomData<fn() -> T>,
}

pub(super) fn bytes<T: Whole>(range: RangeInclusive<u64>) -> Bytes<T> {
    Bytes { range, field: PhantomData }
}

const BINARY_UNITS: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const DECIMAL_UNITS: [(&str, u64); 5] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000), ("B", 1)];

/// "16 MiB", "64KiB", "2 GB", "1024".
fn parse_bytes(text: &str) -> Option<i128> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let number: u64 = text[..digits_end].replace('_', "").parse().ok()?;
    let unit = text[digits_end..].trim();
    let factor = if unit.is_empty() {
        1
    } else {
        let known = BINARY_UNITS.iter().chain(&DECIMAL_UNITS);
        known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1
    };
    Some(i128::from(number) * i128::from(factor))
}

/// In the largest binary unit that leaves a whole number.
fn shown_bytes(value: u64) -> String {
    match BINARY_UNITS.iter().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{} {unit}", value / factor),
        None => format!("{value} B"),
    }
}

impl<T: Whole> Domain for Bytes<T> {
    type Value = T;

    fn read(&self, literal: &Literal) -> Result<T, Vec<Wrong>> {
        let value = literal.as_integer().or_else(|| literal.as_text().and_then(parse_bytes));
        value.and_then(|value| fit(value, &self.range)).ok_or_else(|| Wrong::whole(literal))
    }

    fn write(&self, value: &T) -> Option<String> {
        let value = widened(*value);
        Some(if value < 1024 { value.to_string() } else { format!("\"{}\"", shown_bytes(value)) })
    }

    fn allowed(&self) -> String {
        format!(
            "a size from {} to {}, as a number of bytes or text such as \"16 MiB\"",
            shown_bytes(*self.range.start()),
            shown_bytes(*self.range.end())
        )
    }
}

/// Seconds, whole or with a fraction.
pub(super) struct Seconds {
    range: RangeInclusive<f64>,
}

pub(super) fn seconds(range: RangeInclusive<f64>) -> Seconds {
    Seconds { range }
}

impl Domain for Seconds {
    type Value = Duration;

    fn read(&self, literal: &Literal) -> Result<Duration, Vec<Wrong>> {
        literal
            .as_number()
            .filter(|seconds| self.range.contains(seconds))
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| Wrong::whole(literal))
    }

    fn write(&self, value: &Duration) -> Option<String> {
        Some(if value.subsec_nanos() == 0 {
            value.as_secs().to_string()
        } else {
            format!("{:?}", value.as_secs_f64())
        })
    }

    fn allowed(&self) -> String {
        format!("a time from {} to {} seconds", self.range.start(), self.range.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        let domain = bytes::<usize>(1..=u64::MAX);
        let read = |literal| domain.read(&literal).ok();
        assert_eq!(read(Literal::Integer(32_768)), Some(32_768));
        assert_eq!(read(Literal::Text("16 MiB".into())), Some(16 << 20));
        assert_eq!(read(Literal::Text("64kib".into())), Some(64 << 10));
        assert_eq!(read(Literal::Bare("2 GB".into())), Some(2_000_000_000));
        for wrong in ["16 M", "MiB", "", "-1 B", "1.5 MiB", "99999999999999999999 B", "16 MiB 2"] {
            assert_eq!(read(Literal::Text(wrong.into())), None, "{wrong}");
        }
        assert_eq!(read(Literal::Float(1.0)), None);
    }

    #[test]
    fn sizes_are_printed_as_they_are_read() {
        let domain = bytes::<u64>(0..=u64::MAX);
        for size in [0, 100, 1000, 1024, 1025, 65_536, 16 << 20, 3 << 30] {
            let printed = domain.write(&size).unwrap();
            let literal = printed
                .parse()
                .map_or_else(|_| Literal::Text(printed.trim_matches('"').to_owned()), Literal::Integer);
            assert_eq!(domain.read(&literal), Ok(size), "{printed}");
        }
    }

    #[test]
    fn durations_are_seconds_with_or_without_a_fraction() {
        let domain = seconds(0.1..=60.0);
        assert_eq!(domain.read(&Literal::Integer(10)), Ok(Duration::from_secs(10)));
        assert_eq!(domain.read(&Literal::Float(0.25)), Ok(Duration::from_millis(250)));
        assert_eq!(domain.read(&Literal::Bare("1.5".into())), Ok(Duration::from_millis(1500)));
        for wrong in [Literal::Float(f64::NAN), Literal::Float(f64::INFINITY), Literal::Integer(-1)] {
            assert!(domain.read(&wrong).is_err(), "{wrong:?}");
        }
        assert!(domain.read(&Literal::Text("10 s".into())).is_err());
        assert_eq!(domain.write(&Duration::from_millis(250)).as_deref(), Some("0.25"));
    }

    #[test]
    fn a_count_that_its_field_cannot_hold_is_refused() {
        let domain = count::<u16>(0..=100_000, "");
        assert!(domain.read(&Literal::Integer(70_000)).is_err());
        assert_eq!(domain.read(&Literal::Integer(7)), Ok(7));
        assert!(domain.read(&Literal::Integer(-1)).is_err() && domain.read(&Literal::Float(7.0)).is_err());
    }
}
