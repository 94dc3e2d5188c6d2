//! Runs side by side: each figure of each run, and how it relates to the first run's.

use super::figures::{Better, FIGURES, Figure};
use super::run_file::RunFile;
use std::fmt::Write;

#[derive(Debug)]
pub struct Row {
    pub figure: Figure,
    pub cells: Vec<Option<Cell>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    pub value: f64,
    /// This value by the first run's, where both are above zero.
    pub ratio: Option<f64>,
    pub standing: Standing,
}

/// Against the first run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    First,
    Better,
    Worse,
    /// Within the noise, or neither is better.
    Same,
}

/// Differences below this are noise on any host.
const NOISE: f64 = 0.03;

/// The figures that at least one of the runs has.
pub fn rows(runs: &[RunFile]) -> Vec<Row> {
    let row = |figure: &Figure| {
        let first = runs.first().and_then(|run| figure.of(run));
        let cell = |(place, run): (usize, &RunFile)| {
            let value = figure.of(run)?;
            let ratio =
                first.filter(|first| place > 0 && *first > 0.0 && value > 0.0).map(|first| value / first);
            let standing = match ratio {
                _ if place == 0 => Standing::First,
                Some(ratio) => standing(figure.better, ratio),
                None => Standing::Same,
            };
            Some(Cell { value, ratio, standing })
        };
        let cells: Vec<_> = runs.iter().enumerate().map(cell).collect();
        cells.iter().any(Option::is_some).then_some(Row { figure: *figure, cells })
    };
    FIGURES.iter().filter_map(row).collect()
}

fn standing(better: Better, ratio: f64) -> Standing {
    match better {
        Better::Neither => Standing::Same,
        _ if (ratio - 1.0).abs() < NOISE => Standing::Same,
        Better::More if ratio > 1.0 => Standing::Better,
        Better::Less if ratio < 1.0 => Standing::Better,
        _ => Standing::Worse,
    }
}

pub fn show_ratio(ratio: f64) -> String {
    match ratio {
        ratio if ratio >= 100.0 => format!("{ratio:.0} ×"),
        ratio if ratio >= 10.0 => format!("{ratio:.1} ×"),
        ratio => format!("{ratio:.2} ×"),
    }
}

/// A label as text of a Markdown table's cell.
fn escaped(label: &str) -> String {
    let mut out = String::with_capacity(label.len());
    for character in label.chars() {
        match character {
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '~' => out.extend(['\\', character]),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            control if control.is_control() => out.push(' '), // a new line would end the table
            other => out.push(other),
        }
    }
    out
}

/// What to say of runs whose figures are of different things.
pub fn warning(runs: &[RunFile]) -> Option<String> {
    let mut names: Vec<&str> = runs.iter().map(|run| run.scenario.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    (names.len() > 1).then(|| {
        format!(
            "these runs are of different scenarios, their figures of different things: {}",
            names.join(", ")
        )
    })
}

/// The comparison as a Markdown table, ratios against the first run in parentheses.
pub fn markdown(runs: &[RunFile]) -> String {
    let mut out = String::from("| |");
    runs.iter().for_each(|run| out.extend([" ", &escaped(&run.label), " |"]));
    out.push_str("\n| --- |");
    runs.iter().for_each(|_| out.push_str(" ---: |"));
    for Row { figure, cells } in rows(runs) {
        let _ = write!(out, "\n| {} |", figure.name);
        for (cell, run) in cells.into_iter().zip(runs) {
            let Some(cell) = cell else {
                out.push_str(" – |");
                continue;
            };
            let _ = write!(out, " {}", figure.show_of(run, cell.value));
            if let Some(ratio) = cell.ratio {
                let _ = write!(out, " ({})", show_ratio(ratio));
            }
            out.push_str(" |");
        }
    }
    out.push_str("\n| verified |");
    runs.iter().for_each(|run| {
        out.push_str(match (run.ok, run.interrupted) {
            (true, _) => " right |",
            (false, true) => " **INTERRUPTED** |",
            (false, false) => " **WRONG** |",
        });
    });
    out.push('\n');
    if let Some(warning) = warning(runs) {
        let _ = writeln!(out, "\n**Warning:** {}", escaped(&warning));
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    /// A run with these deliveries per second and this p99.
    pub fn run(label: &str, deliveries_per_s: f64, p99_ms: f64) -> RunFile {
        let second = |t_s: f64| {
            json!({
                "t_s": t_s, "deliveries_per_s": deliveries_per_s, "p50_ms": 1.0, "p99_ms": p99_ms, "max_ms": p99_ms,
                "server_cpu_percent": 50.0, "server_memory_bytes": 30_000_000, "generator_cpu_percent": 9.0,
            })
        };
        let json = json!({
            "label": label, "url": "ws://x", "wire": "relay", "connections": 5, "ok": p99_ms < 100.0,
            "failures": if p99_ms < 100.0 { vec![] } else { vec!["1 lost <item>"] },
            "scenario": { "name": "a", "description": "d" },
            "result": { "typing": { "deliveries_per_s": deliveries_per_s, "latency": { "p99_ms": p99_ms } } },
            "percentiles": [[0.0, 0.5, 1], [0.5, 1.0, 50], [0.9, 2.0, 90], [1.0, p99_ms, 100]],
            "series": [second(1.0), second(2.0)],
        });
        serde_json::from_value(json).expect("a run")
    }

    #[test]
    fn figures_are_compared_with_the_first_run() {
        let table = markdown(&[run("one", 1000.0, 10.0), run("two", 4000.0, 200.0)]);
        let expected = "| | one | two |\n| --- | ---: | ---: |\n| deliveries | 1,000/s | 4,000/s (4.00 ×) |\n\
                        | latency p99 | 10.0 ms | 200 ms (20.0 ×) |\n| verified | right | **WRONG** |\n";
        assert_eq!(table, expected);
    }

    #[test]
    fn labels_cannot_break_the_table() {
        let table = markdown(&[run("a\\|b\r\n`c` <b>&[d](e)*", 1000.0, 10.0)]);
        let head = table.lines().next().expect("a head");
        assert_eq!(head, "| | a\\\\\\|b  \\`c\\` &lt;b&gt;&amp;\\[d\\](e)\\* |");
        assert_eq!(table.lines().count(), 5);
    }

    #[test]
    fn runs_of_different_scenarios_are_warned_of() {
        let (one, mut two) = (run("one", 1000.0, 10.0), run("two", 1000.0, 10.0));
        let both = |two: &RunFile| vec![one.clone(), two.clone()];
        assert!(!markdown(&both(&two)).contains("Warning"));
        assert!(!crate::report::html::page(&both(&two)).contains("Warning"));
        two.scenario.name = "b<".to_owned();
        let table = markdown(&both(&two));
        assert!(
            table
                .lines()
                .last()
                .is_some_and(|line| line.contains("different scenarios") && line.ends_with("a, b&lt;"))
        );
        assert!(crate::report::html::page(&both(&two)).contains("different things: a, b&lt;"));
    }

    #[test]
    fn a_lower_bound_is_shown_as_one() {
        let json = json!({
            "label": "one", "url": "ws://x", "wire": "relay", "connections": 5, "ok": true,
            "scenario": { "name": "a", "description": "d" },
            "result": { "ramp": {
                "lowerBound": true, "summary": "≥ 5 with <reason>", "best": { "deliveries_per_s": 5000.0 }
            } },
        });
        let run: RunFile = serde_json::from_value(json).expect("a run");
        assert!(markdown(std::slice::from_ref(&run)).contains("| deliveries | ≥ 5,000/s |"));
        let page = crate::report::html::page(&[run]);
        assert!(page.contains("most within the bound: ≥ 5 with &lt;reason&gt;"), "{page}");
        assert!(page.contains("<b>≥ 5,000/s</b>"));
    }

    #[test]
    fn what_is_better_depends_on_the_figure_and_noise_is_neither() {
        let rows = rows(&[run("one", 1000.0, 10.0), run("two", 2000.0, 20.0), run("three", 1010.0, 5.0)]);
        let standings =
            |row: usize| rows[row].cells.iter().flatten().map(|cell| cell.standing).collect::<Vec<_>>();
        assert_eq!(standings(0), [Standing::First, Standing::Better, Standing::Same]);
        assert_eq!(standings(1), [Standing::First, Standing::Worse, Standing::Better]);
    }
}
