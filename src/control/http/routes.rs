//! The endpoints of a node: `/health`, `/metrics`, `/discovery`, `/usage`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::Peer;
use super::problem::Problem;
use crate::auth::Grant;
use crate::control::metrics;
use crate::control::settings::Live;
use crate::control::state::{Health, Question};
use crate::control::timestamp::iso8601;
use crate::limits::{Bucket, Level, Network, client_address};
use crate::protocol::close::Refusal;
use crate::protocol::document::DocumentName;

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PROMETHEUS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Where questions to the owner of all state are handed in.
#[derive(Debug, Clone)]
pub(in crate::control) struct Desk {
    questions: mpsc::Sender<Question>,
}

impl Desk {
    pub fn new(questions: mpsc::Sender<Question>) -> Self {
        Self { questions }
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, Problem> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(question(answer)).await.map_err(|_| Problem::stopping())?;
        answered.await.map_err(|_| Problem::stopping())
    }
}

/// What the endpoints know without asking.
#[derive(Debug, Clone)]
pub(in crate::control) struct Facts {
    pub trusted_proxies: Vec<Network>,
    pub cors_origins: Vec<Box<str>>,
    pub retry_after_s: u32,
    pub body_bytes_max: usize,
}

impl Facts {
    pub fn of(live: &Live, body_bytes_max: usize) -> Self {
        Self {
            trusted_proxies: live.trusted_proxies.clone(),
            cors_origins: live.cors_origins.clone(),
            retry_after_s: u32::try_from(live.retry_after.as_secs()).unwrap_or(u32::MAX / 2).max(1),
            body_bytes_max,
        }
    }
}

#[derive(Debug, Clone)]
struct Node {
    desk: Desk,
    facts: Arc<Facts>,
}

/// The node's routes, and behind them the extra ones.
pub(in crate::control) fn router(desk: Desk, facts: Facts, extra: Option<Router>) -> Router {
    let body_limit = DefaultBodyLimit::max(facts.body_bytes_max);
    let node = Node { desk, facts: Arc::new(facts) };
    let for_browsers: Router<Node> = Router::new()
        .route("/discovery", get(discovery).options(preflight))
        .route("/usage", get(usage).options(preflight))
        .layer(middleware::from_fn_with_state(node.clone(), allow_origin));
    let own = Router::new()
        .route("/", get(health))
        .route("/health", get(health))
        .route("/metrics", get(metrics_page))
        .merge(for_browsers)
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .with_state(node.clone());
    let missing = Router::new().fallback(not_found).with_state(node);
    let router = match extra {
        Some(extra) => own.fallback_service(extra.fallback_service(missing)),
        None => own.fallback_service(missing),
    };
    router.layer(body_limit)
}

impl Node {
    /// Counts the request in its address's bucket.
    async fn admit(&self, bucket: Bucket, request: &Parts) -> Result<(), Problem> {
        let Some(ip) = self.client(request) else {
            return Ok(()); // a limiter that cannot decide lets the request in
        };
        match self.desk.ask(|answer| Question::Admit { bucket, ip, answer }).await? {
            true => Ok(()),
            false => Err(Problem::too_many_requests()),
        }
    }

    fn client(&self, request: &Parts) -> Option<IpAddr> {
        let Peer(peer) = request.extensions.get()?;
        let values = request.headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
        Some(client_address(*peer, values, &self.facts.trusted_proxies))
    }

    async fn check(&self, parameters: &Parameters, headers: &HeaderMap) -> Result<Arc<Grant>, Problem> {
        let token = bearer(headers)
            .or_else(|| parameters.get("token"))
            .or_else(|| parameters.get("access_token"))
            .filter(|token| !token.is_empty())
            .ok_or(Refusal::MissingToken)?
            .to_owned();
        Ok(self.desk.ask(|answer| Question::Check { token, answer }).await??)
    }
}

/// The query, decoded; of a name that comes twice the first counts.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn of(uri: &Uri) -> Self {
        // What can't be decoded holds no parameter that we know.
        Self(Query::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// RFC 6750 section 2.1; the scheme's case doesn't matter.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

async fn health(State(node): State<Node>, request: Parts) -> Result<Response, Problem> {
    node.admit(Bucket::Health, &request).await?;
    let (health, reason) = node.desk.ask(|answer| Question::Health { answer }).await?;
    let mut body = json!({ "status": health.name(), "timestamp": iso8601(SystemTime::now()) });
    if let Some(reason) = reason {
        body["reason"] = reason.into();
    }
    let body = Json(body);
    let fresh = [(header::CACHE_CONTROL, "no-store")];
    if health == Health::Healthy {
        return Ok((StatusCode::OK, fresh, body).into_response());
    }
    let retry_after = [(header::RETRY_AFTER, jittered(node.facts.retry_after_s))];
    Ok((StatusCode::SERVICE_UNAVAILABLE, fresh, retry_after, body).into_response())
}

/// Between `seconds` and twice that, so that clients don't return all at once.
fn jittered(seconds: u32) -> HeaderValue {
    // Keyed afresh for each call by the standard library: randomness enough to spread clients out.
    let random = RandomState::new().build_hasher().finish();
    HeaderValue::from(u64::from(seconds) + random % (u64::from(seconds) + 1))
}

async fn metrics_page(State(node): State<Node>, request: Parts) -> Result<Response, Problem> {
    node.admit(Bucket::Health, &request).await?;
    let page = node.desk.ask(|answer| Question::Metrics { answer }).await?;
    let accept = request.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
        return Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], page).into_response());
    }
    let page = metrics::to_prometheus_text(&page);
    Ok(([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], page).into_response())
}

async fn discovery(State(node): State<Node>, request: Parts) -> Result<Json<Value>, Problem> {
    node.admit(Bucket::Discovery, &request).await?;
    let parameters = Parameters::of(&request.uri);
    let grant = node.check(&parameters, &request.headers).await?;
    let name = parameters.get("documentName").unwrap_or_default();
    let name = DocumentName::parse(name).map_err(|why| Refusal::InvalidName(why.to_string().into()))?;
    grant.permissions.check(&name).map_err(Refusal::from)?;
    let found = node.desk.ask(|answer| Question::Discover { grant, name: name.clone(), answer }).await?;
    let url = format!("{}/{name}", found.place.url);
    Ok(Json(json!({ "region": found.place.region, "url": url, "isNew": found.is_new })))
}

async fn usage(State(node): State<Node>, request: Parts) -> Result<Json<Value>, Problem> {
    node.admit(Bucket::Usage, &request).await?;
    let grant = node.check(&Parameters::of(&request.uri), &request.headers).await?;
    let app = grant.app;
    let (usage, limits) = node.desk.ask(|answer| Question::Usage { grant, answer }).await?;
    Ok(Json(json!({
        "tenantId": app.tenant,
        "appId": app.app,
        "usage": {
            "connections": share(usage.connections, limits.connections_max),
            "documents": share(usage.documents, limits.documents_max),
        },
        "timestamp": iso8601(SystemTime::now()),
    })))
}

/// One line of `/usage`: `percent` has one decimal, the status is decided on the exact figure.
pub(super) fn share(current: u32, limit: u32) -> Value {
    let status = Level::of(current.into(), limit.into()).as_str();
    let percent = (f64::from(current) * 1000.0 / f64::from(limit.max(1))).round() / 10.0;
    json!({ "current": current, "limit": limit, "percent": percent, "status": status })
}

/// CORS (Fetch standard, section 3.2). `*` is safe here: the token is in the request itself and no cookie counts.
async fn allow_origin(State(node): State<Node>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let listed = &node.facts.cors_origins;
    if listed.iter().any(|allowed| &**allowed == "*") {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    } else {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin.filter(|origin| listed.iter().any(|allowed| origin == &**allowed)) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
    }
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn preflight() -> impl IntoResponse {
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, allowed)
}

async fn not_found(State(node): State<Node>, request: Parts) -> Problem {
    match node.admit(Bucket::Health, &request).await {
        Ok(()) => Problem::not_found(request.uri.path()),
        Err(limited) => limited,
    }
}
