//! The report as a table for people.

use super::{Outcome, Report};
use crate::load::ServerCost;
use crate::load::day::{DayResult, OneDay};
use crate::load::idle::IdleResult;
use crate::load::join::JoinResult;
use crate::load::storm::StormResult;
use crate::load::typing::TypingResult;
use crate::load::typing::attendance::ReturnResult;
use crate::load::typing::convergence::Convergence;
use crate::load::typing::slices::Slice;
use crate::load::typing::slow_readers::SlowReaderResult;
use crate::measure::LatencySummary;
use crate::ramp::RampResult;
use crate::verification::Findings;
use std::fmt::{self, Display};

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} on {}", self.label, self.scenario.description, self.url)?;
        for (label, value) in rows(self) {
            writeln!(f, "  {label:<26} {value}")?;
        }
        if let Some(tokens) = &self.tokens {
            let text = format!(
                "{} issued, renewed {} times ({} failed); handed over in band {}, accepted {}",
                tokens.issued,
                tokens.renewals,
                tokens.renewals_failed,
                tokens.handed_over_in_band,
                tokens.accepted_in_band
            );
            writeln!(f, "  {:<26} {text}", "tokens")?;
        }
        for failure in &self.failures {
            writeln!(f, "  FAILED: {failure}")?;
        }
        let verdict = match (self.interrupted, self.failures.is_empty()) {
            (true, true) => "interrupted: what there was until then is right",
            (true, false) => "INTERRUPTED, and WRONG until then",
            (false, true) => "right",
            (false, false) => "WRONG",
        };
        write!(f, "  {:<26} {verdict}", "result")?;
        if let Some(at_s) = self.ended_early_s {
            write!(f, " (partial: the run ended after {at_s:.1} s)")?;
        }
        Ok(())
    }
}

/// What the table says, line by line.
fn rows(report: &Report) -> Rows {
    match &report.result {
        Outcome::Typing(result) => typing_rows(result),
        Outcome::Idle(result) => idle_rows(result, report.connections),
        Outcome::Storm(result) => storm_rows(result, report.connections),
        Outcome::Join(result) => join_rows(result),
        Outcome::Day(result) => day_rows(result),
        Outcome::Ramp(result) => ramp_rows(result),
        Outcome::Nothing(_) => vec![("nothing measured", "the run ended too early".to_owned())],
    }
}

type Rows = Vec<(&'static str, String)>;

fn typing_rows(result: &TypingResult) -> Rows {
    let mut rows = vec![
        (
            "deliveries/s",
            format!("{:.0} (offered {:.0})", result.deliveries_per_s, result.offered_deliveries_per_s),
        ),
        (
            if result.slow_readers.is_some() { "latency of live readers" } else { "latency" },
            latency(result.latency.as_ref()),
        ),
    ];
    if result.ack_latency.is_some() {
        rows.push(("acknowledged", latency(result.ack_latency.as_ref())));
    }
    if let Some(us) = result.cpu_per_delivery_us {
        rows.push(("server CPU per delivery", format!("{us:.2} µs")));
    }
    server_rows(&mut rows, result.server.as_ref());
    disturbance_rows(&mut rows, result);
    rows.extend(result.slices.iter().map(slice_row));
    rows.extend([
        ("items per message", format!("{:.2}", result.items_per_message)),
        (
            "updates sent",
            format!("{}, all arrived {:.2} s after the window", result.updates_sent, result.settle_s),
        ),
        ("lost / duplicated", findings(&result.verification)),
    ]);
    rows.extend(result.convergence.as_ref().map(|found| ("convergence", convergence(found))));
    rows.extend([
        ("generator CPU", format!("{:.1} %", result.generator_cpu_percent)),
        ("generator sent late by", latency(result.send_lag.as_ref())),
        ("connecting", latency(result.connect.as_ref())),
    ]);
    rows
}

/// What is there only if the scenario has it.
fn disturbance_rows(rows: &mut Rows, result: &TypingResult) {
    let returns = |what: &ReturnResult| format!("{}: {}", what.returns, latency(what.rejoin.as_ref()));
    if let Some(cursors) = &result.cursors {
        rows.push(("cursor latency", latency(cursors.latency.as_ref())));
        rows.push((
            "cursors",
            format!(
                "{} moves sent, {} seen, {} skipped; last states lost {}, foreign {}, dropped {}",
                cursors.moves_sent,
                cursors.moves_seen,
                cursors.moves_skipped,
                cursors.lost,
                cursors.foreign,
                cursors.dropped
            ),
        ));
    }
    if let Some(slow) = &result.slow_readers {
        slow_reader_rows(rows, slow);
    }
    rows.extend(result.storm.as_ref().map(|storm| ("back after the storm", returns(storm))));
    rows.extend(result.churn.as_ref().map(|churn| ("left and returned", returns(churn))));
    if let Some(trace) = &result.trace {
        let verdict = if trace.text_is_right { "as typed" } else { "WRONG" };
        let text = format!("{} edits, {} characters: {verdict}", trace.edits, trace.characters);
        rows.push(("text for a newcomer", text));
    }
}

fn convergence(found: &Convergence) -> String {
    match &found.not_checked {
        Some(why) => format!("not checked ({why})"),
        None => format!(
            "{} document{} read back, {}; {} characters; {} compared with all that a reader was sent",
            found.documents,
            if found.documents == 1 { "" } else { "s" },
            if found.unequal == 0 { "texts equal".to_owned() } else { format!("{} DIFFER", found.unequal) },
            found.characters,
            found.readers
        ),
    }
}

fn slow_reader_rows(rows: &mut Rows, slow: &SlowReaderResult) {
    rows.push(("live readers, stall", latency(slow.live_latency.as_ref())));
    let back = match &slow.rejoin {
        Some(_) => format!("; back in {}", latency(slow.rejoin.as_ref())),
        None => String::new(),
    };
    rows.push((
        "slow readers",
        format!(
            "{}: closed with 1013 {}, otherwise {}, cut {}{back}",
            slow.slow_readers, slow.closed_1013, slow.closed_otherwise, slow.cut
        ),
    ));
    if let Some((peak, before)) = slow.resident_peak_bytes.zip(slow.resident_before_bytes) {
        let text = format!("{:.1} MB at most, {:.1} MB before", megabytes(peak), megabytes(before));
        rows.push(("server memory, stalled", text));
    }
}

fn slice_row(slice: &Slice) -> (&'static str, String) {
    let mut text = format!(
        "to {} updates ({:.1}–{:.1} s): {} deliveries",
        slice.updates, slice.from_s, slice.to_s, slice.deliveries
    );
    let more = [
        slice.cpu_per_delivery_us.map(|us| format!(", {us:.2} µs a delivery")),
        slice.p99_ms.map(|ms| format!(", p99 {ms:.2} ms")),
        slice.resident_bytes.map(|bytes| format!(", {:.1} MB", megabytes(bytes))),
    ];
    text.extend(more.into_iter().flatten());
    ("slice", text)
}

fn idle_rows(result: &IdleResult, connections: u32) -> Rows {
    let kilobytes = |bytes: Option<f64>| {
        bytes.map_or("not measured: give --pid".to_owned(), |bytes| format!("{:.2} KB", bytes / 1024.0))
    };
    let mut rows = vec![
        ("connections", connections.to_string()),
        ("RSS per connection", kilobytes(result.resident_bytes_per_connection)),
        ("PSS per connection", kilobytes(result.proportional_bytes_per_connection)),
    ];
    server_rows(&mut rows, result.server.as_ref());
    rows.push(("connecting", latency(result.connect.as_ref())));
    rows
}

fn storm_rows(result: &StormResult, connections: u32) -> Rows {
    let mut rows = vec![
        (
            "connections",
            format!("{connections} in {:.2} s, {:.0}/s", result.storm_s, result.connections_per_s),
        ),
        ("until step 2", latency(result.connect.as_ref())),
    ];
    if let Some(us) = result.cpu_per_connection_us {
        rows.push(("server CPU per connection", format!("{us:.1} µs")));
    }
    server_rows(&mut rows, result.server.as_ref());
    rows
}

fn join_rows(result: &JoinResult) -> Rows {
    let mut rows = vec![
        ("trace", format!("{} edits, {}", result.edits, result.trace)),
        ("step 2", format!("{} bytes (the writer's update: {})", result.step_2_bytes, result.state_bytes)),
        (
            "joins",
            match result.joins_asked {
                asked if asked > result.joins => {
                    format!("{} in {:.2} s, of {asked}: the time was up", result.joins, result.joins_s)
                }
                _ => format!("{} in {:.2} s", result.joins, result.joins_s),
            },
        ),
        ("until step 2", latency(result.join.as_ref())),
    ];
    if let Some(ms) = result.cpu_per_join_ms {
        rows.push(("server CPU per join", format!("{ms:.3} ms")));
    }
    server_rows(&mut rows, result.server.as_ref());
    rows.push(("generator CPU", format!("{:.1} %", result.generator_cpu_percent)));
    rows
}

fn day_rows(result: &DayResult) -> Rows {
    let cursors = &result.cursors;
    let mut rows = vec![("seed", result.seed.to_string())];
    rows.extend(result.days.iter().map(day_row));
    rows.extend([
        ("latency", latency(result.latency.as_ref())),
        ("cursor latency", latency(result.cursor_latency.as_ref())),
        ("joining", latency(result.join.as_ref())),
        ("returning", latency(result.returned.as_ref())),
    ]);
    if let Some(us) = result.cpu_per_delivery_us {
        rows.push(("server CPU per delivery", format!("{us:.2} µs")));
    }
    server_rows(&mut rows, result.server.as_ref());
    if let Some(most) = result.memory.iter().map(|(_, bytes)| *bytes).max() {
        rows.push(("server memory at most", format!("{:.1} MB", megabytes(most))));
    }
    rows.extend([
        ("lost / duplicated", findings(&result.verification)),
        (
            "cursors",
            format!("lost {}, foreign {}, lingering {}", cursors.lost, cursors.foreign, cursors.lingering),
        ),
        ("generator was late by", latency(result.send_lag.as_ref())),
    ]);
    rows
}

fn day_row(day: &OneDay) -> (&'static str, String) {
    let mut text = format!(
        "{} people, {} at most, {} updates, {} deliveries",
        day.people, day.peak, day.updates, day.deliveries
    );
    let more = [
        day.p99_ms.map(|ms| format!(", p99 {ms:.2} ms")),
        day.resident_after_bytes.map(|bytes| format!(", {:.1} MB after", megabytes(bytes))),
    ];
    text.extend(more.into_iter().flatten());
    ("day", text)
}

fn ramp_rows(result: &RampResult) -> Rows {
    let mut rows: Rows = result.steps.iter().map(|step| ("step", step.to_string())).collect();
    rows.push(("most within the bound", result.summary.clone()));
    rows.extend(result.best.as_ref().map(typing_rows).into_iter().flatten());
    rows
}

fn server_rows(rows: &mut Rows, server: Option<&ServerCost>) {
    let Some(cost) = server else { return };
    rows.push((
        "server CPU",
        format!(
            "{:.1} % of a core ({:.3} s: user {:.2}, system {:.2})",
            cost.cpu_percent, cost.cpu.total_s, cost.cpu.user_s, cost.cpu.system_s
        ),
    ));
    rows.push((
        "server memory",
        format!(
            "{:.1} MB, {:.1} MB before the run (PSS {:.1}, {:.1})",
            megabytes(cost.memory_after.resident_bytes),
            megabytes(cost.memory_before.resident_bytes),
            megabytes(cost.memory_after.proportional_bytes),
            megabytes(cost.memory_before.proportional_bytes)
        ),
    ));
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

fn findings(found: &Findings) -> String {
    format!(
        "{} / {}, reordered {}, foreign {}, sent again in a step 2 {}, after it {}",
        found.lost, found.duplicated, found.reordered, found.foreign, found.resent, found.overlapping
    )
}

fn latency(summary: Option<&LatencySummary>) -> String {
    let Some(summary) = summary else {
        return "nothing measured".to_owned();
    };
    format!(
        "p50 {:.2}  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.2} ms ({})",
        summary.p50_ms, summary.p90_ms, summary.p99_ms, summary.p999_ms, summary.max_ms, summary.count
    )
}
