//! What nodes call: enrolment, heartbeats, reports of usage, and the feed.
//!
//! | request | bearer | answer |
//! | --- | --- | --- |
//! | `POST /api/v1/nodes/enrol` | enrolment secret | 201 `{"nodeId","credential"}` |
//! | `POST /api/v1/nodes/self/heartbeat` | credential | `{"state","heartbeatS"}`: what the operator wants the node to be |
//! | `POST /api/v1/nodes/self/usage` | credential | `{"taken"}`: whether the report counts (`usage`) |
//! | `GET /api/v1/nodes/self/keys` | credential | `text/event-stream`, from `Last-Event-ID` on (`feed`) |

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
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

pub(super) fn router() -> Router<Arc<Dashboard>> {
    Router::new()
        .route("/api/v1/nodes/enrol", post(enrol))
        .route("/api/v1/nodes/self/heartbeat", post(heartbeat))
        .route("/api/v1/nodes/self/keys", get(keys))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .route("/api/v1/nodes/self/usage", post(usage_report).layer(DefaultBodyLimit::max(USAGE_BYTES_MAX)))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EnrolRequest {
    name: String,
    region: String,
    cluster: String,
    public_url: String,
    capacity: i64,
    version: String,
}

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
    let body = Json(json!({ "nodeId": enrolled.node, "credential": enrolled.credential }));
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], body).into_response())
}

fn wrong<E: std::error::Error>(field: &'static str) -> impl Fn(E) -> Problem {
    move |error| Problem::bad_request(format!("{field}: {error}"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeartbeatRequest {
    version: String,
    connections: i64,
    documents: i64,
    draining: bool,
    #[serde(default)]
    boot: i64,
    public_url: Option<String>,
    capacity: Option<i64>,
}

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
    let body = Json(json!({ "state": state.as_str(), "heartbeatS": HEARTBEAT_EVERY_S }));
    Ok(([(header::CACHE_CONTROL, "no-store")], body).into_response())
}

#[derive(Deserialize)]
struct UsageRequest {
    boot: i64,
    sequence: i64,
    apps: Vec<AppRequest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AppRequest {
    app_id: Uuid,
    connections: i64,
    documents: i64,
    ops: i64,
}

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
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(json!({ "taken": taken }))).into_response())
}

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
