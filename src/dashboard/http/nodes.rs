//! What nodes call: enrolment, heartbeats, reports of usage, and the feed.
//!
//! | request | bearer | answer |
//! | --- | --- | --- |
//! | `POST /api/v1/nodes/enrol` | enrolment secret | 201 `{"nodeId","credential"}` |
//! | `POST /api/v1/nodes/self/heartbeat` | credential | `{"state","heartbeatS"}`: what the operator wants the node to be |
//! | `POST /api/v1/nodes/self/usage` | credential | `{"taken"}`: whether the report counts (`usage`) |
//! | `GET /api/v1/nodes/self/keys` | credential | `text/event-stream`, from `Last-Event-ID` on (`feed`) |
//!
//! They are in the management API's OpenAPI document, under the tag [`TAG`], and nothing of that API is around them:
//! neither its callers, nor its limits, nor its idempotency.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{Client, Problem};
use crate::dashboard::access::Actor;
use crate::dashboard::nodes::{self, HEARTBEAT_EVERY_S, Heartbeat, Introduction, NodeError};
use crate::dashboard::usage::{self, AppReport, Report, UsageError};
use crate::dashboard::{Dashboard, feed};

const BODY_BYTES_MAX: usize = 16 << 10;
/// As many apps as a report may have.
const USAGE_BYTES_MAX: usize = usage::APPS_MAX * 256;

/// Who failed, when wrong enrolment secrets are counted.
const ENROLMENT: &str = "node enrolment";

/// Of these routes in the OpenAPI document.
pub(super) const TAG: &str = "node side";

pub(super) fn routes() -> OpenApiRouter<Arc<Dashboard>> {
    let small = OpenApiRouter::new().routes(routes!(enrol)).routes(routes!(heartbeat)).routes(routes!(keys));
    let large = OpenApiRouter::new().routes(routes!(usage_report));
    small
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .merge(large.layer(DefaultBodyLimit::max(USAGE_BYTES_MAX)))
}

/// A node that introduces itself.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "name": "eu-1", "region": "aws-eu-west-1", "cluster": "blue",
    "publicUrl": "wss://eu-1.example.com", "capacity": 50_000, "version": "0.1.0" }))]
struct EnrolRequest {
    /// Its own in the fleet; who enrols under a name again replaces its credential.
    name: String,
    region: String,
    cluster: String,
    /// What `/discovery` gives to editors.
    public_url: String,
    /// Connections that it takes at most.
    #[schema(minimum = 0)]
    capacity: i64,
    version: String,
}

/// What a node has become.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EnrolledNode {
    node_id: Uuid,
    /// Shown this once; every later request has it as its bearer.
    #[schema(example = "wsn_m3RkYw0n8m2mVv1jJm0t1nq3Yk0b4h5c6d7e8f9g0h1")]
    credential: String,
}

/// Enrol a node
///
/// With an enrolment secret, which an operator has made.
#[utoipa::path(post, path = "/api/v1/nodes/enrol", tag = TAG, operation_id = "enrolNode", request_body = EnrolRequest,
    security(("enrolmentSecret" = [])), responses(
        (status = 201, description = "Enrolled", body = EnrolledNode)))]
async fn enrol(
    State(dashboard): State<Arc<Dashboard>>,
    Client(address): Client,
    headers: HeaderMap,
    body: Result<Json<EnrolRequest>, JsonRejection>,
) -> Result<Response, Problem> {
    let secret = bearer(&headers)?;
    dashboard.may_try(address, ENROLMENT).map_err(Problem::too_many_requests)?;
    let Json(request) = body.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let introduction = Introduction {
        name: request.name,
        region: request.region.parse().map_err(wrong("region"))?,
        cluster: request.cluster,
        public_url: request.public_url.parse().map_err(wrong("publicUrl"))?,
        capacity: request.capacity,
        version: request.version,
    };
    let enrolled = nodes::enrol(&dashboard, &Actor::anonymous(address), secret, introduction).await;
    if matches!(enrolled, Err(NodeError::Enrolment)) {
        dashboard.count_failure(address, ENROLMENT);
    }
    let enrolled = enrolled?;
    let body = Json(EnrolledNode { node_id: enrolled.node, credential: enrolled.credential });
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], body).into_response())
}

fn wrong<E: std::error::Error>(field: &'static str) -> impl Fn(E) -> Problem {
    move |error| Problem::bad_request(format!("{field}: {error}"))
}

/// How a node fares.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "version": "0.1.0", "connections": 1234, "documents": 321, "draining": false,
    "boot": 1_800_000_000_123_456_i64, "publicUrl": "wss://eu-1.example.com", "capacity": 50_000 }))]
struct HeartbeatRequest {
    version: String,
    connections: i64,
    documents: i64,
    /// Whether it lets its sessions go.
    draining: bool,
    /// Names the process: reports of usage count if they are of the one that was heard of last.
    #[serde(default)]
    boot: i64,
    /// Left out: as it was.
    public_url: Option<String>,
    /// Left out: as it was.
    capacity: Option<i64>,
}

/// What a node is told in answer.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HeartbeatTaken {
    /// What the operator wants it to be: `active` or `draining`.
    #[schema(example = "active")]
    state: &'static str,
    /// How often it is to say that it lives, in seconds.
    #[schema(example = 10)]
    heartbeat_s: i64,
}

/// Say that a node lives
#[utoipa::path(post, path = "/api/v1/nodes/self/heartbeat", tag = TAG, operation_id = "beatNode",
    request_body = HeartbeatRequest, security(("nodeCredential" = [])), responses(
        (status = 200, description = "Heard", body = HeartbeatTaken)))]
async fn heartbeat(
    State(dashboard): State<Arc<Dashboard>>,
    headers: HeaderMap,
    body: Result<Json<HeartbeatRequest>, JsonRejection>,
) -> Result<Response, Problem> {
    let credential = bearer(&headers)?;
    let Json(request) = body.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let heartbeat = Heartbeat {
        version: request.version,
        connections: request.connections,
        documents: request.documents,
        is_draining: request.draining,
        boot: request.boot,
        public_url: request.public_url.map(|url| url.parse().map_err(wrong("publicUrl"))).transpose()?,
        capacity: request.capacity,
    };
    let state = nodes::heartbeat(&dashboard, credential, heartbeat).await?;
    let body = Json(HeartbeatTaken { state: state.as_str(), heartbeat_s: HEARTBEAT_EVERY_S });
    Ok(([(header::CACHE_CONTROL, "no-store")], body).into_response())
}

/// What a node's apps use.
#[derive(Deserialize, ToSchema)]
#[schema(as = UsageReport)]
struct UsageRequest {
    /// As in the heartbeat.
    boot: i64,
    /// Rises with each report; one that is sent again counts once.
    sequence: i64,
    #[schema(max_items = 1000)]
    apps: Vec<AppRequest>,
}

/// One app's figures on this node.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AppUsageReport)]
struct AppRequest {
    app_id: Uuid,
    /// Now.
    #[schema(minimum = 0)]
    connections: i64,
    /// Now.
    #[schema(minimum = 0)]
    documents: i64,
    /// Since the report before.
    #[schema(minimum = 0)]
    ops: i64,
}

/// What became of a report.
#[derive(Serialize, ToSchema)]
struct ReportTaken {
    /// Whether it counts; if not, it is of another process than the node's latest heartbeat.
    taken: bool,
}

/// Report what a node's apps use
#[utoipa::path(post, path = "/api/v1/nodes/self/usage", tag = TAG, operation_id = "reportUsage",
    request_body = UsageRequest, security(("nodeCredential" = [])), responses(
        (status = 200, description = "Read", body = ReportTaken)))]
async fn usage_report(
    State(dashboard): State<Arc<Dashboard>>,
    headers: HeaderMap,
    body: Result<Json<UsageRequest>, JsonRejection>,
) -> Result<Response, Problem> {
    let credential = bearer(&headers)?;
    let Json(request) = body.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let app = |app: AppRequest| {
        let AppRequest { app_id, connections, documents, ops } = app;
        AppReport { app: app_id, connections, documents, ops }
    };
    let apps = request.apps.into_iter().map(app).collect();
    let report = Report { boot: request.boot, sequence: request.sequence, apps };
    let taken = usage::report(&dashboard, credential, &report).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(ReportTaken { taken })).into_response())
}

/// Follow what nodes must know
///
/// Server-sent events that never end: `keys` (a tenant's whole key set: `{"tenantId","jwks":{"keys","revoked"}}`),
/// `limits` (an app's new limits: `{"tenantId","appId","limits","holdS"}`), `fleet` (all nodes:
/// `{"self","nodes":[{"id","name","region","cluster","publicUrl","state","wanted"}]}`), and an `id` alone when all up to
/// there was sent, at least every five seconds. It begins with everything, or with what has changed since
/// `Last-Event-ID`.
#[utoipa::path(get, path = "/api/v1/nodes/self/keys", tag = TAG, operation_id = "followFeed",
    security(("nodeCredential" = [])),
    params(("Last-Event-ID" = Option<i64>, Header, description = "The last `id` that was heard")), responses(
        (status = 200, description = "The feed", body = String, content_type = "text/event-stream")))]
async fn keys(State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap) -> Result<Response, Problem> {
    let credential = bearer(&headers)?;
    let node = nodes::authenticate(&dashboard, credential).await?;
    let after = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let events = feed::follow(&dashboard, node, credential.to_owned(), after).ok_or_else(|| {
        Problem::unavailable("too many nodes follow this dashboard already; poll the key sets meanwhile")
    })?;
    let kind = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"), // nginx would hold events back
    ];
    Ok((kind, Body::from_stream(ReceiverStream::new(events).map(Ok::<_, Infallible>))).into_response())
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, token) = value.and_then(|value| value.split_once(' ')).unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() {
        Ok(token.trim())
    } else {
        Err(Problem::unauthorized(
            "send Authorization: Bearer, with the node's credential (or its enrolment secret)",
        ))
    }
}

impl From<NodeError> for Problem {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Enrolment | NodeError::Credential => Self::unauthorized(error.to_string()),
            NodeError::Label(_) | NodeError::Negative(_) | NodeError::Bounds => {
                Self::bad_request(error.to_string())
            }
            NodeError::Missing(_) => Self::not_found(error.to_string()),
            NodeError::Wanted { .. } => Self::conflict(error.to_string()),
            NodeError::Denied(error) => error.into(),
            NodeError::Store(error) => error.into(),
        }
    }
}

impl From<UsageError> for Problem {
    fn from(error: UsageError) -> Self {
        match error {
            UsageError::Report => Self::bad_request(error.to_string()),
            UsageError::Node(error) => error.into(),
            UsageError::Denied(error) => error.into(),
            UsageError::Store(error) => error.into(),
        }
    }
}
