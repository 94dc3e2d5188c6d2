//! The figures of a run by which it can be compared with others, whatever its kind.

use super::run_file::RunFile;

/// Which of two values is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Less,
    More,
    Neither,
}

#[derive(Debug, Clone, Copy)]
pub struct Figure {
    pub name: &'static str,
    unit: &'static str,
    /// Where it stands in the result.
    pointer: &'static str,
    /// The JSON's unit in ours.
    factor: f64,
    pub better: Better,
    /// One of the few that stand above all.
    pub is_headline: bool,
}

const fn figure(name: &'static str, unit: &'static str, pointer: &'static str, better: Better) -> Figure {
    Figure { name, unit, pointer, factor: 1.0, better, is_headline: false }
}

const fn headline(name: &'static str, unit: &'static str, pointer: &'static str, better: Better) -> Figure {
    Figure { is_headline: true, ..figure(name, unit, pointer, better) }
}

const fn kilobytes(name: &'static str, pointer: &'static str) -> Figure {
    Figure { factor: 1.0 / 1024.0, ..headline(name, "KB", pointer, Better::Less) }
}

const fn megabytes(name: &'static str, pointer: &'static str, is_headline: bool) -> Figure {
    Figure { factor: 1.0 / 1_048_576.0, is_headline, ..figure(name, "MB", pointer, Better::Less) }
}

const DELIVERIES: &str = "/deliveries_per_s";

/// In the order of their importance; a run has those of its kind.
pub const FIGURES: &[Figure] = &[
    headline("deliveries", "/s", DELIVERIES, Better::More),
    headline("connections synced", "/s", "/connections_per_s", Better::More),
    figure("latency p50", "ms", "/latency/p50_ms", Better::Less),
    figure("latency p90", "ms", "/latency/p90_ms", Better::Less),
    headline("latency p99", "ms", "/latency/p99_ms", Better::Less),
    figure("latency p99.9", "ms", "/latency/p999_ms", Better::Less),
    figure("latency max", "ms", "/latency/max_ms", Better::Less),
    figure("cursor latency p50", "ms", "/cursors/latency/p50_ms", Better::Less),
    figure("cursor latency p99", "ms", "/cursors/latency/p99_ms", Better::Less),
    figure("cursor latency p50", "ms", "/cursor_latency/p50_ms", Better::Less), // of a day
    figure("cursor latency p99", "ms", "/cursor_latency/p99_ms", Better::Less),
    figure("cursor moves skipped", "", "/cursors/moves_skipped", Better::Neither),
    figure("back after the storm p50", "ms", "/storm/rejoin/p50_ms", Better::Less),
    headline("back after the storm p99", "ms", "/storm/rejoin/p99_ms", Better::Less),
    figure("left and returned p50", "ms", "/churn/rejoin/p50_ms", Better::Less),
    headline("left and returned p99", "ms", "/churn/rejoin/p99_ms", Better::Less),
    figure("slow readers", "", "/slow_readers/slow_readers", Better::Neither),
    figure("slow readers closed with 1013", "", "/slow_readers/closed_1013", Better::Neither),
    figure("slow readers closed otherwise", "", "/slow_readers/closed_otherwise", Better::Neither),
    figure("slow readers cut", "", "/slow_readers/cut", Better::Neither),
    figure("live readers in the stall p50", "ms", "/slow_readers/live_latency/p50_ms", Better::Less),
    headline("live readers in the stall p99", "ms", "/slow_readers/live_latency/p99_ms", Better::Less),
    figure("slow readers back max", "ms", "/slow_readers/rejoin/max_ms", Better::Less),
    megabytes("server memory before the stall", "/slow_readers/resident_before_bytes", false),
    megabytes("server memory, stalled, at most", "/slow_readers/resident_peak_bytes", true),
    figure("acknowledged p99", "ms", "/ack_latency/p99_ms", Better::Less),
    headline("server CPU per delivery", "µs", "/cpu_per_delivery_us", Better::Less),
    headline("server CPU per connection", "µs", "/cpu_per_connection_us", Better::Less),
    headline("server CPU per join", "ms", "/cpu_per_join_ms", Better::Less),
    figure("join p50", "ms", "/join/p50_ms", Better::Less),
    headline("join p99", "ms", "/join/p99_ms", Better::Less),
    figure("returning p50", "ms", "/returned/p50_ms", Better::Less),
    headline("returning p99", "ms", "/returned/p99_ms", Better::Less),
    kilobytes("RSS per connection", "/resident_bytes_per_connection"),
    kilobytes("PSS per connection", "/proportional_bytes_per_connection"),
    figure("server CPU, of a core", "%", "/server/cpu_percent", Better::Less),
    megabytes("server memory", "/server/memory_after/resident_bytes", true),
    figure("connecting p50", "ms", "/connect/p50_ms", Better::Less),
    figure("connecting p99", "ms", "/connect/p99_ms", Better::Less),
    figure("items per message", "", "/items_per_message", Better::Neither),
    figure("sent late by, p99", "ms", "/send_lag/p99_ms", Better::Neither),
    figure("generator CPU, of a core", "%", "/generator_cpu_percent", Better::Neither),
];

impl Figure {
    pub fn of(&self, run: &RunFile) -> Option<f64> {
        run.number(self.pointer).map(|number| number * self.factor)
    }

    /// The value of that run as people read it; a ramp may have found only a lower bound.
    pub fn show_of(&self, run: &RunFile, value: f64) -> String {
        let is_bound = self.pointer == DELIVERIES && run.is_lower_bound();
        format!("{}{}", if is_bound { "≥ " } else { "" }, self.show(value))
    }

    /// The value as people read it, with three digits, and its unit.
    pub fn show(&self, value: f64) -> String {
        let separator = if self.unit.is_empty() || self.unit.starts_with('/') { "" } else { " " };
        format!("{}{separator}{}", show_number(value), self.unit)
    }
}

/// A number with three digits or all before the point, thousands apart.
pub fn show_number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, whole) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut grouped = String::from(sign);
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_thousands_are_apart() {
        let shown = [0.0, 0.123, 9.999, 12.34, 123.4, 4900.0, 1_234_567.8, -1234.0].map(show_number);
        assert_eq!(shown, ["0", "0.12", "10.00", "12.3", "123", "4,900", "1,234,568", "-1,234"]);
    }
}
