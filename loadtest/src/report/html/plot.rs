//! One plot as inline SVG: axes, lines and marks. Colours come from the page's style sheet.

use super::axis::Axis;
use std::fmt::{self, Display};

#[derive(Debug)]
pub struct Plot {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
    /// A limit to be seen against: its value and its name.
    pub bound: Option<(f64, String)>,
}

#[derive(Debug, Default)]
pub struct Line {
    pub label: String,
    /// Which of the page's colours, counted from zero.
    pub color: usize,
    pub is_dashed: bool,
    pub points: Vec<Point>,
}

#[derive(Debug, Clone)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    pub mark: Mark,
    /// Shown where the pointer rests on the mark.
    pub note: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    None,
    Full,
    Hollow,
}

impl Point {
    pub fn new(x: f64, y: f64) -> Self {
        Self { x, y, mark: Mark::None, note: String::new() }
    }
}

/// Colours there are in the style sheet.
pub const COLORS: usize = 6;
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 40.0;

impl Plot {
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (
            LEFT + self.x.position(x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - self.y.position(y) * (HEIGHT - TOP - BOTTOM),
        )
    }

    fn write_axes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, name) in &self.y.ticks {
            let y = HEIGHT - BOTTOM - self.y.position(*value) * (HEIGHT - TOP - BOTTOM);
            write!(f, r#"<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/>"#)?;
            write!(f, r#"<text class="y" x="{}" y="{:.1}">{name}</text>"#, LEFT - 6.0, y + 4.0)?;
        }
        for (value, name) in &self.x.ticks {
            let x = LEFT + self.x.position(*value) * (right - LEFT);
            write!(f, r#"<line class="tick" x1="{x:.1}" x2="{x:.1}" y1="{bottom}" y2="{}"/>"#, bottom + 4.0)?;
            // The last name would leave the picture if it were centred.
            let class = if x > right - 30.0 { "x end" } else { "x" };
            let x = if x > right - 30.0 { right + 8.0 } else { x };
            write!(f, r#"<text class="{class}" x="{x:.1}" y="{}">{name}</text>"#, bottom + 16.0)?;
        }
        write!(f, r#"<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>"#)?;
        write!(f, r#"<text class="title" x="4" y="13">{}</text>"#, escape(&self.y.title))?;
        let middle = (LEFT + right) / 2.0;
        write!(
            f,
            r#"<text class="x title" x="{middle}" y="{}">{}</text>"#,
            HEIGHT - 5.0,
            escape(&self.x.title)
        )
    }

    fn write_line(&self, f: &mut fmt::Formatter<'_>, line: &Line) -> fmt::Result {
        let color = line.color % COLORS;
        let dash = if line.is_dashed { " dashed" } else { "" };
        write!(f, r#"<polyline class="line c{color}{dash}" points=""#)?;
        for point in line.points.iter().filter(|point| point.mark != Mark::Hollow) {
            let (x, y) = self.at(point.x, point.y);
            write!(f, "{x:.1},{y:.1} ")?;
        }
        write!(f, r#""/>"#)?;
        for point in line.points.iter().filter(|point| point.mark != Mark::None) {
            let (x, y) = self.at(point.x, point.y);
            let class = if point.mark == Mark::Full { "full" } else { "hollow" };
            let note = escape(&point.note);
            write!(
                f,
                r#"<circle class="{class} c{color}" cx="{x:.1}" cy="{y:.1}" r="4"><title>{note}</title></circle>"#
            )?;
        }
        Ok(())
    }

    fn write_legend(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#"<p class="legend">"#)?;
        for line in &self.lines {
            let dash = if line.is_dashed { " dashed" } else { "" };
            let color = line.color % COLORS;
            write!(f, r#"<span><i class="c{color}{dash}"></i>{}</span>"#, escape(&line.label))?;
        }
        write!(f, "</p>")
    }
}

impl Display for Plot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = escape(&self.title);
        write!(f, r#"<figure><figcaption>{title}</figcaption>"#)?;
        if self.lines.len() > 1 {
            self.write_legend(f)?;
        }
        write!(f, r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">"#)?;
        self.write_axes(f)?;
        if let Some((value, name)) = &self.bound {
            let ((left, y), right) = (self.at(0.0, *value), WIDTH - RIGHT);
            let left = left.max(LEFT);
            write!(f, r#"<line class="bound" x1="{left}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/>"#)?;
            write!(
                f,
                r#"<text class="bound" x="{}" y="{:.1}">{}</text>"#,
                left + 4.0,
                y - 4.0,
                escape(name)
            )?;
        }
        // The first line is drawn last: on top.
        for line in self.lines.iter().rev() {
            self.write_line(f, line)?;
        }
        write!(f, "</svg></figure>")
    }
}

/// Text as it may stand in HTML, inside attributes too.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_inside_and_names_are_escaped() {
        let line = Line {
            label: "a<b".to_owned(),
            points: vec![
                Point::new(0.0, 5.0),
                Point { mark: Mark::Hollow, note: "\"1\"".to_owned(), ..Point::new(2.0, 99.0) },
            ],
            ..Line::default()
        };
        let plot = Plot {
            title: "T & U".to_owned(),
            x: Axis::span("s", 1.0),
            y: Axis::linear("ms", [5.0].into_iter()),
            lines: vec![line, Line::default()],
            bound: None,
        };
        let svg = plot.to_string();
        assert!(svg.contains("T &amp; U") && svg.contains("a&lt;b") && svg.contains("&quot;1&quot;"));
        assert!(svg.contains(r#"points="48.0,26.0 ""#), "{svg}"); // a failed step is no part of the line
        assert!(svg.contains(r#"cx="428.0" cy="26.0""#), "{svg}"); // and what is outside goes to the edge
    }
}
