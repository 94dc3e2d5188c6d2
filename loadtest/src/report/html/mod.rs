//! A page about one run, or about several side by side: one file, nothing is loaded from anywhere, and no
//! script runs in it. Light or dark as the reader's system is, and legible on a phone.

mod axis;
mod plot;
mod plots;
mod tables;

use super::comparison::{Row, Standing, rows, show_ratio, warning};
use super::run_file::RunFile;
use plot::{COLORS, escape};
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");

/// The page. `runs` must not be empty; the first is what the others are compared with.
pub fn page(runs: &[RunFile]) -> String {
    let [first, others @ ..] = runs else { return String::new() };
    let title = if others.is_empty() {
        format!("{}: {}", first.label, first.scenario.description)
    } else {
        let labels: Vec<&str> = runs.iter().map(|run| run.label.as_str()).collect();
        labels.join(" · ")
    };
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n<header><h1>{title}</h1>",
        title = escape(&title),
    );
    for run in runs {
        let _ = write!(
            out,
            "<p>{}: {} connections, {} at {}</p>",
            escape(&run.scenario.name),
            run.connections,
            escape(&run.wire),
            escape(&run.url),
        );
        if let Some(summary) = run.ramp_summary() {
            let _ = write!(out, "<p>{}: most within the bound: {}</p>", escape(&run.label), escape(summary));
        }
    }
    if let Some(warning) = warning(runs) {
        let _ = write!(out, "<p><strong>Warning:</strong> {}</p>", escape(&warning));
    }
    out.push_str("</header>\n");
    write_verdict(&mut out, runs);
    if others.is_empty() {
        write_headlines(&mut out, first);
    }
    out.push_str("<div class=\"plots\">");
    for plot in plots::plots(runs) {
        let _ = writeln!(out, "{plot}");
    }
    out.push_str("</div>\n");
    if others.is_empty() {
        tables::write_slices(&mut out, &first.slices());
        tables::write_days(&mut out, &first.days());
    }
    write_table(&mut out, runs);
    let _ = write!(
        out,
        "<footer>Latency counts from the instant an update was due, whether or not it could be sent then. \
         Made by wiresocket-loadtest {}.</footer>\n</main></body></html>\n",
        env!("CARGO_PKG_VERSION"),
    );
    out
}

fn write_verdict(out: &mut String, runs: &[RunFile]) {
    let all_right = runs.iter().all(|run| run.ok);
    let _ = write!(out, "<section class=\"verdict{}\">", if all_right { "" } else { " wrong" });
    if all_right {
        let all_typed = runs.iter().all(|run| run.number("/verification/lost").is_some());
        out.push_str(if all_typed {
            "<p><strong>Right.</strong> Every reader got every item of every writer: once, in order, and \
             nothing else.</p>"
        } else {
            "<p><strong>Right.</strong> Everything is as it has to be.</p>"
        });
        for (documents, run) in
            runs.iter().filter_map(|run| Some((run.number("/convergence/documents")?, run)))
        {
            if documents > 0.0 {
                let _ = write!(
                    out,
                    "<p>{}: {documents} documents read back, texts equal.</p>",
                    escape(&run.label)
                );
            }
        }
    }
    for run in runs.iter().filter(|run| !run.ok) {
        let verdict = if run.interrupted { "Interrupted, partial" } else { "Wrong" };
        let _ = write!(out, "<p><strong>{verdict}:</strong> {}</p><ul>", escape(&run.label));
        run.failures.iter().for_each(|failure| {
            let _ = write!(out, "<li>{}</li>", escape(failure));
        });
        out.push_str("</ul>");
    }
    out.push_str("</section>\n");
}

fn write_headlines(out: &mut String, run: &RunFile) {
    out.push_str("<ul class=\"headlines\">");
    for Row { figure, cells } in rows(std::slice::from_ref(run)) {
        if let (true, [Some(cell)]) = (figure.is_headline, cells.as_slice()) {
            let value = figure.show_of(run, cell.value);
            let _ = write!(out, "<li><span>{}</span><b>{value}</b></li>", figure.name);
        }
    }
    out.push_str("</ul>\n");
}

fn write_table(out: &mut String, runs: &[RunFile]) {
    out.push_str("<section><h2>All figures</h2><div class=\"scroll\"><table>");
    if runs.len() > 1 {
        out.push_str("<thead><tr><th></th>");
        for (place, run) in runs.iter().enumerate() {
            let _ = write!(out, "<th><i class=\"c{}\"></i>{}</th>", place % COLORS, escape(&run.label));
        }
        out.push_str("</tr></thead>");
    }
    out.push_str("<tbody>");
    for Row { figure, cells } in rows(runs) {
        let _ = write!(out, "<tr><th>{}</th>", figure.name);
        for (cell, run) in cells.into_iter().zip(runs) {
            let Some(cell) = cell else {
                out.push_str("<td>–</td>");
                continue;
            };
            let _ = write!(out, "<td>{}", figure.show_of(run, cell.value));
            if let Some(ratio) = cell.ratio {
                let class = match cell.standing {
                    Standing::Better => " class=\"better\"",
                    Standing::Worse => " class=\"worse\"",
                    Standing::First | Standing::Same => "",
                };
                let _ = write!(out, "<small{class}>{}</small>", show_ratio(ratio));
            }
            out.push_str("</td>");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div></section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::comparison::tests::run;

    #[test]
    fn a_page_needs_nothing_from_elsewhere() {
        for runs in [&[run("one", 1000.0, 10.0)][..], &[run("one", 1000.0, 10.0), run("two", 9.0, 50.0)]] {
            let page = page(runs);
            for outside in ["http://", "https://", "src=", "href=", "<script", "@import", "url("] {
                assert!(!page.contains(outside), "{outside}");
            }
            assert_eq!(page.matches("<figure>").count(), 5);
            assert!(page.contains("Right."));
        }
    }

    #[test]
    fn slices_are_drawn_against_the_documents_length_and_listed() {
        let slice = |updates: u64, us: f64| {
            serde_json::json!({
                "from_s": 0.0, "to_s": 1.0, "updates": updates, "deliveries": 9, "cpu_per_delivery_us": us,
                "resident_bytes": null, "p99_ms": null,
            })
        };
        let json = serde_json::json!({
            "url": "ws://x", "wire": "relay", "connections": 2, "ok": true,
            "scenario": { "name": "f", "description": "d" },
            "result": { "typing": { "slices": [slice(1_000, 5.0), slice(100_000, 6.5)] } },
        });
        let page = page(&[serde_json::from_value(json).expect("a run")]);
        assert!(page.contains("<title>6.50 µs up to 100000 updates</title>"), "{page}");
        assert!(page.contains("<h2>Slices</h2>") && page.contains("<th>100,000</th>"));
    }

    #[test]
    fn a_wrong_result_is_said_first_and_escaped() {
        let page = page(&[run("one", 1000.0, 10.0), run("two", 1000.0, 500.0)]);
        assert!(page.contains("<strong>Wrong:</strong> two</p><ul><li>1 lost &lt;item&gt;</li>"));
        assert!(!page.contains("Right."));
    }
}
