//! Numbers and times as people read them.

use crate::dashboard::billing::date;
use crate::time::calendar::{civil_of, days_in, days_of};

const MINUTE_S: i64 = 60;
const HOUR_S: i64 = 3600;
const DAY_S: i64 = 86_400;

/// A moment: `<time>` shows it, in UTC, and a script turns it into the reader's own zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(pub i64);

impl Moment {
    /// RFC 3339, for the `datetime` attribute.
    pub fn iso(&self) -> String {
        let (year, month, day) = civil_of(self.0.div_euclid(DAY_S));
        let second = self.0.rem_euclid(DAY_S);
        let (hour, minute, second) = (second / HOUR_S, second / MINUTE_S % 60, second % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    pub fn shown(&self) -> String {
        let iso = self.iso();
        format!("{} {} UTC", &iso[..10], &iso[11..16])
    }

    /// With its seconds, where each is paid for.
    pub fn exact(&self) -> String {
        let iso = self.iso();
        format!("{} {} UTC", &iso[..10], &iso[11..19])
    }

    /// The day in UTC, as invoices and their lines name it; it is not turned into the reader's zone.
    pub fn day(&self) -> String {
        date(self.0)
    }
}

/// `90` is `1 minute`; always the largest unit that fits.
pub(super) fn span(seconds: i64) -> String {
    let (number, unit) = match seconds.max(0) {
        s if s < MINUTE_S => (s, "second"),
        s if s < HOUR_S => (s / MINUTE_S, "minute"),
        s if s < 2 * DAY_S => (s / HOUR_S, "hour"),
        s => (s / DAY_S, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural}")
}

/// The second that a date (`2026-11-22`, UTC) begins with.
pub(super) fn day_start(date: &str) -> Option<i64> {
    let mut parts = date.splitn(3, '-').map(str::parse::<i64>);
    let (Some(Ok(year)), Some(Ok(month)), Some(Ok(day))) = (parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let is_date =
        (0..=9999).contains(&year) && (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    is_date.then(|| days_of(year, month, day) * DAY_S)
}

/// `1234567` is `1,234,567`.
pub(super) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// A price in cents: `$29`, `12.50 EUR`.
pub(super) fn money(cents: i64, currency: &str) -> String {
    let text = amount(cents, currency);
    if cents % 100 == 0 { text.replacen(".00", "", 1) } else { text }
}

/// An amount as invoices have it: `$29.00`, `−12.50 EUR`.
pub(super) fn amount(cents: i64, currency: &str) -> String {
    let sign = if cents < 0 { "−" } else { "" };
    let (cents, unsigned) = (cents.unsigned_abs(), |whole: u64| i64::try_from(whole).unwrap_or(i64::MAX));
    let number = format!("{}.{:02}", grouped(unsigned(cents / 100)), cents % 100);
    if currency == "USD" { format!("{sign}${number}") } else { format!("{sign}{number} {currency}") }
}

/// The cents of an amount that was typed, such as `29` or `1234.50`. Commas are refused: they are thousands here and
/// decimals there.
pub(super) fn cents(typed: &str) -> Option<i64> {
    let (whole, rest) = typed.split_once('.').unwrap_or((typed, "00"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(rest) || rest.len() > 2 {
        return None;
    }
    let rest: i64 = format!("{rest:0<2}").parse().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(100)?.checked_add(rest)
}

/// `1450` of `2900` is `50.0 %`.
pub(super) fn percent(part: i64, whole: i64) -> String {
    let tenths = i128::from(part) * 1000 / i128::from(whole.max(1));
    format!("{}.{} %", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_dates_are_those_of_the_calendar() {
        assert_eq!(Moment(0).iso(), "1970-01-01T00:00:00Z");
        assert_eq!(Moment(1_709_210_096).iso(), "2024-02-29T12:34:56Z");
        assert_eq!(Moment(1_709_210_096).shown(), "2024-02-29 12:34 UTC");
        assert_eq!(day_start("2024-02-29"), Some(1_709_164_800));
        for wrong in [
            "",
            "2023-02-29",
            "2024-13-01",
            "2024-2",
            "x-y-z",
            "2024-02-00",
            "9223372036854775807-01-01",
            "2024-9223372036854775807-01",
        ] {
            assert_eq!(day_start(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn numbers_are_short_and_grouped() {
        assert_eq!(
            [span(1), span(59), span(90), span(7200), span(3 * DAY_S)].join(", "),
            "1 second, 59 seconds, 1 minute, 2 hours, 3 days"
        );
        assert_eq!(
            [grouped(0), grouped(999), grouped(1000), grouped(-1_234_567)].join(" "),
            "0 999 1,000 -1,234,567"
        );
        assert_eq!([money(2900, "USD"), money(1250, "EUR")].join(" "), "$29 12.50 EUR");
        assert_eq!([percent(1450, 2900), percent(1, 3), percent(0, 0)].join(", "), "50.0 %, 33.3 %, 0.0 %");
    }

    #[test]
    fn amounts_have_their_sign_and_their_cents() {
        let amounts = [(0, "USD"), (2900, "USD"), (-5, "USD"), (-123_456, "EUR"), (100_000_000, "USD")];
        assert_eq!(
            amounts.map(|(cents, currency)| amount(cents, currency)).join(" "),
            "$0.00 $29.00 −$0.05 −1,234.56 EUR $1,000,000.00"
        );
    }

    #[test]
    fn an_amount_that_was_typed_is_exact_or_refused() {
        for (typed, wanted) in [("29", 2900), ("29.5", 2950), ("0.05", 5), ("1234.50", 123_450)] {
            assert_eq!(cents(typed), Some(wanted), "{typed}");
        }
        for wrong in ["", ".5", "29.", "29.123", "-1", "1,50", "1e3", " 1", "$29", "99999999999999999999"] {
            assert_eq!(cents(wrong), None, "{wrong}");
        }
    }
}
