//! What an app uses: now, against its limits, and over up to a year as graphs and as a table.
//!
//! The page is whole without JavaScript. With it, a script draws the graphs from `points`, and keeps them and the
//! figures of the moment new. Minutes and hours of which no node reported anything are gaps, not zeros.

use askama::Template;
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::assets;
use super::failure::Failure;
use super::gauge::Gauge;
use super::page::{Place, Shell, page};
use super::text::{self, Moment, grouped};
use super::visit::{Member, Path, Query};
use crate::dashboard::access::Action;
use crate::dashboard::apps::{self, App};
use crate::dashboard::usage::{self, HOUR_S, Live, MINUTE_S, Point, Resolution};

const DAY_S: i64 = 86_400;

/// How far back a page looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Span {
    Hour,
    Day,
    Month,
    Year,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    span: String,
    /// Only points that begin then or later: the others are there already.
    since: Option<i64>,
}

#[derive(Template)]
#[template(path = "usage.html")]
struct UsagePage {
    shell: Shell,
    place: Place,
    app: App,
    span: Span,
    gauges: [Gauge; 3],
    on_nodes: String,
    /// For how long nothing was heard of a node that holds some of it, if that is too long.
    silent_for: Option<String>,
    rows: Vec<Row>,
    style: &'static str,
    script: &'static str,
}

/// Some minutes, hours or days of the table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    at: i64,
    /// The most at once, and the sum of the changes; nothing where nothing was reported.
    figures: Option<(i64, i64, i64)>,
}

impl Span {
    const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Month, Self::Year];

    fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|span| span.word() == word).unwrap_or(Self::Hour)
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Hour => "Last hour",
            Self::Day => "Day",
            Self::Month => "Month",
            Self::Year => "Year",
        }
    }

    const fn seconds(self) -> i64 {
        match self {
            Self::Hour => HOUR_S,
            Self::Day => DAY_S,
            Self::Month => 30 * DAY_S,
            Self::Year => 365 * DAY_S,
        }
    }

    const fn resolution(self) -> Resolution {
        match self {
            Self::Hour | Self::Day => Resolution::Minutes,
            Self::Month | Self::Year => Resolution::Hours,
        }
    }

    /// What a row of the table holds.
    const fn row_s(self) -> i64 {
        match self {
            Self::Hour => 5 * MINUTE_S,
            Self::Day => HOUR_S,
            Self::Month => DAY_S,
            Self::Year => 7 * DAY_S,
        }
    }

    const fn row_is(self) -> &'static str {
        match self {
            Self::Hour => "Five minutes from",
            Self::Day => "Hour from",
            Self::Month => "Day from",
            Self::Year => "Week from",
        }
    }
}

impl Row {
    fn shown(&self, which: fn(&(i64, i64, i64)) -> i64) -> String {
        self.figures.as_ref().map_or_else(|| "–".to_owned(), |figures| grouped(which(figures)))
    }

    fn connections(&self) -> String {
        self.shown(|figures| figures.0)
    }

    fn documents(&self) -> String {
        self.shown(|figures| figures.1)
    }

    fn ops(&self) -> String {
        self.shown(|figures| figures.2)
    }

    fn begins(&self) -> Moment {
        Moment(self.at)
    }
}

impl UsagePage {
    fn here(&self) -> String {
        self.place.at(&format!("apps/{}/usage", self.app.id))
    }

    /// Where each span is, what it is called, and whether it is this one.
    fn spans(&self) -> [(String, &'static str, bool); 4] {
        Span::ALL
            .map(|span| (format!("{}?span={}", self.here(), span.word()), span.label(), span == self.span))
    }

    fn may_see_app(&self) -> bool {
        self.place.may(&Action::ReadApps)
    }
}

/// The app, for everybody who may see what it uses: book-keepers too, who may not see the app itself.
async fn place_and_app(member: &Member, tenant: &str, app: Uuid) -> Result<(Place, App), Failure> {
    let place = member.place(tenant).await?;
    let app = apps::find(member.dashboard(), place.tenant.id, app).await?;
    Ok((place, app.ok_or_else(|| Failure::missing("There is no such app."))?))
}

async fn history(member: &Member, app: &App, span: Span, since: i64) -> Result<Vec<Point>, Failure> {
    let (dashboard, now) = (member.dashboard(), member.dashboard().now());
    let from = since.max(now - span.seconds());
    Ok(usage::history(dashboard, &member.actor(), app, span.resolution(), from, now + 1).await?)
}

pub(super) async fn show(
    member: Member,
    Path((tenant, app)): Path<(String, Uuid)>,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let (place, app) = place_and_app(&member, &tenant, app).await?;
    let span = Span::of(&asked.span);
    let live = usage::live(member.dashboard(), &member.actor(), &app).await?;
    let points = history(&member, &app, span, 0).await?;
    Ok(page(&UsagePage {
        shell: member.shell("apps").within(&place),
        gauges: Gauge::all(&live),
        on_nodes: on_nodes(&live),
        silent_for: silent_for(&live, member.dashboard().now()),
        rows: rows(&points, span.row_s()),
        style: assets::address("usage.css"),
        script: assets::address("usage.js"),
        place,
        app,
        span,
    }))
}

fn on_nodes(live: &Live) -> String {
    match live.nodes {
        0 => String::new(),
        1 => "on 1 node".to_owned(),
        nodes => format!("on {nodes} nodes"),
    }
}

fn silent_for(live: &Live, now: i64) -> Option<String> {
    live.is_stale.then(|| text::span(now - live.as_of))
}

/// What the page's script asks for: figures of the moment, and the points that were reported, oldest first.
pub(super) async fn points(
    member: Member,
    Path((tenant, app)): Path<(String, Uuid)>,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let (_, app) = place_and_app(&member, &tenant, app).await?;
    let (span, now) = (Span::of(&asked.span), member.dashboard().now());
    let live = usage::live(member.dashboard(), &member.actor(), &app).await?;
    let points = history(&member, &app, span, asked.since.unwrap_or(0)).await?;
    let points: Vec<_> = points
        .iter()
        .filter(|point| point.is_reported)
        .map(|point| [point.at, point.connections, point.documents, point.ops])
        .collect();
    let gauges = Gauge::all(&live).map(|gauge| {
        json!({
            "name": gauge.name, "figure": gauge.figure(), "of": gauge.of(), "level": gauge.level(),
            "warning": gauge.warning(), "percent": gauge.percent(),
        })
    });
    let limits = live.plan.as_ref().map(|plan| {
        json!({ "connections": plan.max_connections, "documents": plan.max_documents, "ops": plan.ops_per_minute })
    });
    Ok(Json(json!({
        "now": now,
        "stepS": span.resolution().step_s(),
        "spanS": span.seconds(),
        "onNodes": on_nodes(&live),
        "silentFor": silent_for(&live, now),
        "gauges": gauges,
        "limits": limits,
        "points": points,
    }))
    .into_response())
}

/// The points in rows of so many seconds, newest first.
fn rows(points: &[Point], row_s: i64) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for point in points {
        let at = point.at - point.at.rem_euclid(row_s);
        if rows.last().is_none_or(|row| row.at != at) {
            rows.push(Row { at, figures: None });
        }
        if let Some(row) = rows.last_mut().filter(|_| point.is_reported) {
            let (connections, documents, ops) = row.figures.unwrap_or_default();
            row.figures =
                Some((connections.max(point.connections), documents.max(point.documents), ops + point.ops));
        }
    }
    rows.reverse();
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hold_the_most_at_once_and_the_sum_and_gaps_stay_gaps() {
        let point = |at, connections, ops| Point { at, connections, documents: 1, ops, is_reported: true };
        let gap = |at| Point { at, connections: 0, documents: 0, ops: 0, is_reported: false };
        let points = [point(240, 5, 1), point(300, 2, 7), point(360, 4, 2), gap(600), point(900, 0, 0)];
        let row = |at, figures| Row { at, figures };
        let expected =
            [row(900, Some((0, 1, 0))), row(600, None), row(300, Some((4, 1, 9))), row(0, Some((5, 1, 1)))];
        assert_eq!(rows(&points, 300), expected);
        assert_eq!((expected[1].ops(), expected[2].ops()), ("–".to_owned(), "9".to_owned()));
    }

    #[test]
    fn a_span_that_is_none_is_the_last_hour() {
        assert_eq!(Span::of("year"), Span::Year);
        assert_eq!((Span::of(""), Span::of("century")), (Span::Hour, Span::Hour));
        for span in Span::ALL {
            assert!(span.seconds() <= span.resolution().kept_s(), "{span:?} is kept");
        }
    }
}
