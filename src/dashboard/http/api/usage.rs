//! What an app uses: now, and as a history for graphs.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::entity::uncached;
use super::identity::Caller;
use super::input::{Asked, At};
use super::plans::Limits;
use super::tenants::known;
use super::{Here, Problem};
use crate::dashboard::access::Actor;
use crate::dashboard::apps::{self, App};
use crate::dashboard::usage::{self, HOUR_S, Resolution};
use crate::dashboard::{Dashboard, plans};

/// What one answer holds of a history: a day's minutes, or two months' hours.
const POINTS_MAX: i64 = 1500;
/// The hours that are shown if nobody says which.
const HOURS_DEFAULT: i64 = 7 * 24;

pub(super) fn routes() -> OpenApiRouter<std::sync::Arc<Dashboard>> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(history))
}

/// What an app uses now, on all nodes together. Times are Unix seconds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "connections": 120, "documents": 31, "opsThisMinute": 804, "nodes": 2,
    "limits": { "maxConnections": 1000, "maxDocuments": 1000, "maxUsersPerDoc": 50, "opsPerMinute": 60_000 },
    "asOf": 1_800_000_000, "isStale": false }))]
struct LiveUsage {
    connections: i64,
    documents: i64,
    /// Ops in the minute that runs.
    ops_this_minute: i64,
    /// Nodes that have some of it.
    nodes: i64,
    /// Of the app's plan; null if it has none.
    #[schema(required)]
    limits: Option<Limits>,
    /// When the node that was heard of least recently, of those that count, was heard of.
    as_of: i64,
    /// That is too long ago for figures that are called live.
    is_stale: bool,
}

/// Read what an app uses now
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/apps/{app}/usage", tag = "usage", operation_id = "readUsage",
    responses((status = 200, description = "Figures and limits", body = LiveUsage)))]
async fn live(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, app)): At<(Uuid, Uuid)>,
) -> Result<Response, Problem> {
    let app = find(&dashboard, &actor, tenant, app).await?;
    let live = usage::live(&dashboard, &actor, &app).await?;
    let body = LiveUsage {
        connections: live.connections,
        documents: live.documents,
        ops_this_minute: live.ops_this_minute,
        nodes: live.nodes,
        limits: live.plan.as_ref().map(|plan: &plans::Plan| Limits::from(plan)),
        as_of: live.as_of,
        is_stale: live.is_stale,
    };
    Ok(uncached(StatusCode::OK, &body))
}

/// How fine a history is: `minute` is kept for a day, `hour` for a year.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Step {
    Minute,
    Hour,
}

impl From<Step> for Resolution {
    fn from(step: Step) -> Self {
        match step {
            Step::Minute => Self::Minutes,
            Step::Hour => Self::Hours,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct HistoryQuery {
    /// How fine; `minute` if it is left out.
    step: Option<Step>,
    /// From this time on, Unix seconds. Left out: the day that minutes are kept, or a week of hours.
    from: Option<i64>,
    /// Up to this time, not included. Left out: now.
    to: Option<i64>,
}

/// One minute or hour.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "at": 1_799_999_940, "connections": 120, "documents": 31, "ops": 804, "isReported": true }))]
struct Point {
    /// When it began, Unix seconds.
    at: i64,
    /// The most at once.
    connections: i64,
    documents: i64,
    /// The sum.
    ops: i64,
    /// Whether a node said anything of it. If not, the figures are zero: nothing was there, or nobody could tell.
    is_reported: bool,
}

/// What an app used: a point for every minute or hour, zeroes where nothing was reported.
#[derive(Debug, Serialize, ToSchema)]
struct UsageHistory {
    step: Step,
    /// Oldest first.
    points: Vec<Point>,
}

/// Read what an app used
///
/// At most 1500 points; ask again for what is older. What is kept no longer is left out.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/apps/{app}/usage/history", tag = "usage",
    operation_id = "readUsageHistory", params(HistoryQuery),
    responses((status = 200, description = "The history", body = UsageHistory)))]
async fn history(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, app)): At<(Uuid, Uuid)>,
    Asked(query): Asked<HistoryQuery>,
) -> Result<Response, Problem> {
    let step = query.step.unwrap_or(Step::Minute);
    let (resolution, now) = (Resolution::from(step), dashboard.now());
    let to = query.to.unwrap_or(now + 1).min(now + 1);
    let default_s = match step {
        Step::Minute => resolution.kept_s(),
        Step::Hour => HOURS_DEFAULT * HOUR_S,
    };
    let oldest = now - resolution.kept_s();
    let from = query.from.unwrap_or(to.saturating_sub(default_s)).max(oldest);
    if to.saturating_sub(from) > POINTS_MAX * resolution.step_s() {
        let longest_s = POINTS_MAX * resolution.step_s();
        let detail = format!("from and to must be at most {longest_s} seconds apart ({POINTS_MAX} points)");
        return Err(Problem::bad_request(detail));
    }
    let app = find(&dashboard, &actor, tenant, app).await?;
    let points = usage::history(&dashboard, &actor, &app, resolution, from, to).await?;
    let point = |point: usage::Point| {
        let usage::Point { at, connections, documents, ops, is_reported } = point;
        Point { at, connections, documents, ops, is_reported }
    };
    let body = UsageHistory { step, points: points.into_iter().map(point).collect() };
    Ok(uncached(StatusCode::OK, &body))
}

/// For whoever may know of its tenant: those who pay may see usage, and not read apps.
async fn find(dashboard: &Dashboard, actor: &Actor, tenant: Uuid, app: Uuid) -> Result<App, Problem> {
    known(dashboard, actor, tenant).await?;
    let found = apps::find(dashboard, tenant, app).await?;
    found.ok_or_else(|| Problem::not_found("there is no such app"))
}
