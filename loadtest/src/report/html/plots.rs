//! Which plots there are of one run, or of several over each other.

use super::axis::Axis;
use super::plot::{Line, Mark, Plot, Point};
use crate::measure::series::Sample;
use crate::report::figures::show_number;
use crate::report::run_file::RunFile;

/// More samples than this can't be told apart in a plot: the worst of several stands for them.
const POINTS_MAX: usize = 600;

/// One of the lines over time of a single run: its name, whether it is dashed, and its value.
type Course = (&'static str, bool, fn(&Sample) -> Option<f64>);

/// All that the runs have data for.
pub fn plots(runs: &[RunFile]) -> Vec<Plot> {
    let latency: &[Course] = &[
        ("p99", false, |sample| sample.p99_ms),
        ("p50", false, |sample| sample.p50_ms),
        ("max", true, |sample| sample.max_ms),
    ];
    let cpu: &[Course] = &[
        ("server", false, |sample| sample.server_cpu_percent),
        ("generator", true, |sample| sample.generator_cpu_percent),
    ];
    let deliveries: &[Course] =
        &[("deliveries", false, |sample| Some(sample.deliveries_per_s).filter(|rate| *rate > 0.0))];
    let memory: &[Course] =
        &[("memory", false, |sample| sample.server_memory_bytes.map(|bytes| bytes as f64 / 1_048_576.0))];
    [
        by_percentile(runs),
        throughput_against_latency(runs),
        cost_by_length(runs),
        over_time(runs, "Latency over time", "ms", latency, Axis::adaptive),
        over_time(runs, "Deliveries over time", "deliveries per second", deliveries, Axis::linear),
        over_time(runs, "CPU over time", "% of a core", cpu, Axis::linear),
        over_time(runs, "Server memory over time", "MB", memory, Axis::linear),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Latency by percentile, stretched towards 100 % as HdrHistogram's plotter does.
fn by_percentile(runs: &[RunFile]) -> Option<Plot> {
    let count = runs.iter().flat_map(|run| run.percentiles.last()).map(|step| step.count).max()?;
    let x = Axis::quantiles("share of the updates that arrived no later", count);
    let lines: Vec<Line> = runs
        .iter()
        .enumerate()
        .filter(|(_, run)| !run.percentiles.is_empty())
        .map(|(color, run)| Line {
            label: run.label.clone(),
            color,
            points: run
                .percentiles
                .iter()
                .map(|step| Point::new(x.quantile(step.quantile), step.ms))
                .collect(),
            ..Line::default()
        })
        .collect();
    let y = Axis::adaptive("ms", heights(&lines).collect::<Vec<_>>().into_iter());
    Some(Plot { title: "Latency by percentile".to_owned(), x, y, lines, bound: None })
}

/// The steps of ramps.
fn throughput_against_latency(runs: &[RunFile]) -> Option<Plot> {
    let mut bound = None;
    let mut lines = Vec::new();
    for (color, run) in runs.iter().enumerate() {
        let Some((mut steps, bound_ms)) = run.ramp() else { continue };
        bound = Some((bound_ms, format!("bound {bound_ms} ms")));
        steps.sort_by(|one, other| one.offered_deliveries_per_s.total_cmp(&other.offered_deliveries_per_s));
        let point = |step: &crate::ramp::RampStep| {
            let mark = if step.passed { Mark::Full } else { Mark::Hollow };
            let note = format!("{}: {step}", run.label);
            Some(Point { mark, note, ..Point::new(step.deliveries_per_s, step.p99_ms?) })
        };
        let points = steps.iter().filter_map(point).collect();
        lines.push(Line { label: run.label.clone(), color, points, ..Line::default() });
    }
    let bound_ms = bound.as_ref().map(|(bound_ms, _)| *bound_ms)?;
    let latencies: Vec<f64> = heights(&lines).chain([bound_ms]).collect();
    let rates: Vec<f64> = lines.iter().flat_map(|line| &line.points).map(|point| point.x).collect();
    Some(Plot {
        title: "Throughput against latency (hollow: failed steps)".to_owned(),
        x: Axis::adaptive("deliveries per second", rates.into_iter()),
        y: Axis::adaptive("p99, ms", latencies.into_iter()),
        lines,
        bound,
    })
}

/// What a delivery costs the server as documents grow: each slice stands where it ended.
fn cost_by_length(runs: &[RunFile]) -> Option<Plot> {
    let line = |(color, run): (usize, &RunFile)| {
        let slices = run.slices().into_iter();
        let points: Vec<Point> = slices
            .filter_map(|slice| {
                let us = slice.cpu_per_delivery_us?;
                let note = format!("{} µs up to {} updates", show_number(us), slice.updates);
                Some(Point { mark: Mark::Full, note, ..Point::new(slice.updates as f64, us) })
            })
            .collect();
        (points.len() > 1).then(|| Line { label: run.label.clone(), color, points, ..Line::default() })
    };
    let lines: Vec<Line> = runs.iter().enumerate().filter_map(line).collect();
    if lines.is_empty() {
        return None;
    }
    let lengths: Vec<f64> = lines.iter().flat_map(|line| &line.points).map(|point| point.x).collect();
    Some(Plot {
        title: "Server CPU per delivery as the document grows".to_owned(),
        x: Axis::adaptive("updates typed into each document", lengths.into_iter()),
        y: Axis::linear("µs", heights(&lines).collect::<Vec<_>>().into_iter()),
        lines,
        bound: None,
    })
}

/// All courses of a single run; of several runs, the first course of each.
fn over_time(
    runs: &[RunFile],
    title: &str,
    unit: &str,
    courses: &[Course],
    axis: fn(&str, std::vec::IntoIter<f64>) -> Axis,
) -> Option<Plot> {
    let drawn: Vec<(usize, &RunFile, &Course)> = match runs {
        [run] => courses.iter().enumerate().map(|(color, course)| (color, run, course)).collect(),
        _ => runs.iter().enumerate().map(|(color, run)| (color, run, &courses[0])).collect(),
    };
    let mut lines = Vec::new();
    for (color, run, (name, is_dashed, value)) in drawn {
        let points = thinned(&run.series, value);
        if points.len() < 2 {
            continue;
        }
        let (label, is_dashed) =
            if runs.len() == 1 { ((*name).to_owned(), *is_dashed) } else { (run.label.clone(), false) };
        lines.push(Line { label, color, is_dashed, points });
    }
    let end_s = lines.iter().flat_map(|line| line.points.last()).map(|point| point.x).reduce(f64::max)?;
    let y = axis(unit, heights(&lines).collect::<Vec<_>>().into_iter());
    let of = if runs.len() > 1 && courses.len() > 1 { format!(", {}", courses[0].0) } else { String::new() };
    Some(Plot {
        title: format!("{title}{of}"),
        x: Axis::span("seconds since the run began", end_s),
        y,
        lines,
        bound: None,
    })
}

/// The course of a value; where samples are many, the highest of several stands for them.
fn thinned(series: &[Sample], value: &impl Fn(&Sample) -> Option<f64>) -> Vec<Point> {
    let points: Vec<Point> =
        series.iter().filter_map(|sample| Some(Point::new(sample.t_s, value(sample)?))).collect();
    let several = points.len().div_ceil(POINTS_MAX).max(1);
    let worst = |points: &[Point]| points.iter().max_by(|one, other| one.y.total_cmp(&other.y)).cloned();
    points
        .chunks(several)
        .filter_map(worst)
        .map(|point| Point { note: show_number(point.y), ..point })
        .collect()
}

fn heights(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines.iter().flat_map(|line| &line.points).map(|point| point.y)
}
