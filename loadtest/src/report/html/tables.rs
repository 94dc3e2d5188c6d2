//! Tables of what a single run has many of: slices, days.

use crate::load::day::OneDay;
use crate::load::typing::slices::Slice;
use crate::report::figures::show_number;
use std::fmt::Write;

pub fn write_slices(out: &mut String, slices: &[Slice]) {
    let head = ["updates typed", "seconds", "deliveries", "CPU per delivery, µs", "p99, ms", "memory, MB"];
    let row = |slice: &Slice| {
        [
            show_number(slice.updates as f64),
            format!("{:.1}–{:.1}", slice.from_s, slice.to_s),
            show_number(slice.deliveries as f64),
            show(slice.cpu_per_delivery_us),
            show(slice.p99_ms),
            show(slice.resident_bytes.map(megabytes)),
        ]
    };
    write_table(out, "Slices", head, slices.iter().map(row));
}

pub fn write_days(out: &mut String, days: &[OneDay]) {
    let head = [
        "day",
        "people",
        "at most",
        "turned away",
        "updates",
        "deliveries",
        "p99, ms",
        "settled in, s",
        "memory after, MB",
    ];
    let row = |(number, day): (usize, &OneDay)| {
        [
            (number + 1).to_string(),
            day.people.to_string(),
            day.peak.to_string(),
            day.turned_away.to_string(),
            show_number(day.updates as f64),
            show_number(day.deliveries as f64),
            show(day.p99_ms),
            show(Some(day.settle_s)),
            show(day.resident_after_bytes.map(megabytes)),
        ]
    };
    write_table(out, "Days", head, days.iter().enumerate().map(row));
}

/// Nothing if there are no rows.
fn write_table<const N: usize>(
    out: &mut String,
    title: &str,
    head: [&str; N],
    rows: impl ExactSizeIterator<Item = [String; N]>,
) {
    if rows.len() == 0 {
        return;
    }
    let _ = write!(out, "<section><h2>{title}</h2><div class=\"scroll\"><table><thead><tr>");
    head.iter().for_each(|name| {
        let _ = write!(out, "<th>{name}</th>");
    });
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for (place, cell) in row.iter().enumerate() {
            let tag = if place == 0 { "th" } else { "td" };
            let _ = write!(out, "<{tag}>{cell}</{tag}>");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div></section>\n");
}

fn show(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), show_number)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_listed_and_what_was_not_measured_is_a_dash() {
        let mut out = String::new();
        write_slices(&mut out, &[]);
        assert!(out.is_empty());
        let slice = Slice {
            from_s: 0.0,
            to_s: 2.04,
            updates: 10_000,
            deliveries: 9_000,
            cpu_per_delivery_us: Some(12.34),
            resident_bytes: None,
            p99_ms: Some(0.5),
        };
        write_slices(&mut out, &[slice]);
        let row =
            "<tr><th>10,000</th><td>0.0–2.0</td><td>9,000</td><td>12.3</td><td>0.50</td><td>–</td></tr>";
        assert!(out.contains(row), "{out}");
    }
}
