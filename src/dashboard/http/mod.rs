//! What the dashboard serves, and the limits on who asks.

pub(super) mod api;
mod billing;
mod jwks;
mod nodes;
mod problem;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::config::HttpSettings;
use super::store::query;
use super::throttle::{Subject, counted};
use super::{Dashboard, oauth, web};
use crate::limits::client_address;
use crate::limits::network::is_in;
pub(super) use problem::Problem;

/// Sign-ups from one address in ten minutes.
const SIGN_UPS_MAX: u32 = 20;

/// Every route. Serve it with `into_make_service_with_connect_info::<SocketAddr>()`: without the peer's address no limit
/// by address counts.
pub fn router(dashboard: Arc<Dashboard>) -> Router {
    // Refreshing needs no secret and key sets are public, so pages of any origin may ask; no cookie counts there.
    let (for_browsers, for_clients) = oauth::routes().merge(jwks::routes()).split_for_parts();
    let for_browsers = for_browsers
        .method_not_allowed_fallback(web::wrong_method)
        .layer(middleware::from_fn(allow_any_origin));
    let (of_nodes, for_nodes) = nodes::routes().split_for_parts();
    Router::new()
        .route("/health", get(health))
        .merge(of_nodes)
        .merge(billing::router())
        .merge(api::router(&dashboard, [for_clients, for_nodes]))
        .merge(web::router())
        .method_not_allowed_fallback(web::wrong_method)
        .fallback(web::not_found)
        // Last: a fallback set after it would take the place of the layer's, which answers OPTIONS.
        .merge(for_browsers)
        .layer(middleware::from_fn(without_zero_bytes))
        .with_state(dashboard)
}

/// No id and no text of ours holds a zero byte, and PostgreSQL's can't: nothing is at an address with one.
async fn without_zero_bytes(request: Request, next: Next) -> Response {
    match request.uri().to_string().contains("%00") {
        true => web::not_found(request.headers().clone()).await,
        false => next.run(request).await,
    }
}

async fn health(State(dashboard): State<Arc<Dashboard>>) -> Response {
    let uncached = [(header::CACHE_CONTROL, "no-store")];
    match query("SELECT 1").fetch_one(dashboard.home.reader()).await {
        Ok(_) => (uncached, Json(json!({ "status": "healthy" }))).into_response(),
        Err(error) => {
            tracing::error!(%error, "the home database does not answer");
            let body = Json(json!({ "status": "degraded" }));
            (StatusCode::SERVICE_UNAVAILABLE, uncached, body).into_response()
        }
    }
}

async fn allow_any_origin(request: Request, next: Next) -> Response {
    let mut response = match *request.method() {
        Method::OPTIONS => {
            let allowed = [
                (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
                (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, If-None-Match"),
                (header::ACCESS_CONTROL_MAX_AGE, "86400"),
            ];
            (StatusCode::NO_CONTENT, allowed).into_response()
        }
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("ETag, Retry-After"));
    response
}

/// The address a request came from, through trusted proxies; `None` when the server was not told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client(pub Option<IpAddr>);

impl FromRequestParts<Arc<Dashboard>> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Arc<Dashboard>) -> Result<Self, Infallible> {
        let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() else {
            return Ok(Self(None));
        };
        let values = parts.headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
        let trusted = &dashboard.config.http.trusted_proxies;
        Ok(Self(Some(client_address(peer.ip(), values, trusted))))
    }
}

/// A password or a code that is being checked.
#[must_use]
#[derive(Debug)]
pub struct Attempt<'a> {
    dashboard: &'a Dashboard,
    /// As which it counts; `None` from an address that is exempt.
    subjects: Option<[Subject; 2]>,
}

impl Attempt<'_> {
    /// It was right, or was not made: it counts no more.
    pub fn succeeded(self) {
        for subject in self.subjects.iter().flatten() {
            self.dashboard.throttle.uncount(self.dashboard.now(), subject);
        }
    }
}

impl HttpSettings {
    /// So many failures from an address and of an account.
    fn are_too_many(&self, from: u32, of: u32) -> bool {
        (self.failures_per_address > 0 && from >= self.failures_per_address)
            || (self.failures_per_account > 0 && of >= self.failures_per_account && from > 0)
    }
}

/// What is longer than any account is none, and not worth its memory.
fn failures_of(account: &str) -> Subject {
    Subject::FailuresOf(account.trim().chars().take(254).flat_map(char::to_lowercase).collect())
}

impl Dashboard {
    /// May this address try to authenticate as this account (an e-mail address or a `client_id`)? If not, after how many
    /// seconds. Nobody can lock an account's owner out: too many failures of an account stop only addresses that have
    /// failed themselves.
    ///
    /// For secrets that nobody guesses; for passwords and codes there is [`Dashboard::begin_attempt`].
    ///
    /// # Errors
    /// The seconds to wait.
    pub fn may_try(&self, address: Option<IpAddr>, account: &str) -> Result<(), i64> {
        let Some(address) = self.limited(address) else { return Ok(()) };
        let (now, http) = (self.now(), &self.config.http);
        let (from, wait) = self.throttle.look(now, &Subject::FailuresFrom(address));
        let (of, _) = self.throttle.look(now, &failures_of(account));
        if http.are_too_many(from, of) { Err(wait) } else { Ok(()) }
    }

    /// Counts an attempt that failed.
    pub fn count_failure(&self, address: Option<IpAddr>, account: &str) {
        if let Some(address) = self.limited(address) {
            self.throttle.count(self.now(), Subject::FailuresFrom(address));
            self.throttle.count(self.now(), failures_of(account));
        }
    }

    /// The same for what can be guessed, a password or a code. It counts as failed from now until it has succeeded: whoever
    /// tries many at once gets no more of them than one after the other.
    ///
    /// # Errors
    /// The seconds to wait.
    pub fn begin_attempt(&self, address: Option<IpAddr>, account: &str) -> Result<Attempt<'_>, i64> {
        let Some(address) = self.limited(address) else {
            return Ok(Attempt { dashboard: self, subjects: None });
        };
        let now = self.now();
        let subjects = [Subject::FailuresFrom(address), failures_of(account)];
        let (from, wait) = self.throttle.count(now, subjects[0].clone());
        let (of, _) = self.throttle.count(now, subjects[1].clone());
        let attempt = Attempt { dashboard: self, subjects: Some(subjects) };
        if self.config.http.are_too_many(from - 1, of - 1) {
            attempt.succeeded();
            return Err(wait);
        }
        Ok(attempt)
    }

    /// One more sign-up; the seconds to wait if it is one too many.
    pub(super) fn admit_sign_up(&self, address: Option<IpAddr>) -> Result<(), i64> {
        let Some(address) = self.limited(address) else { return Ok(()) };
        let (count, wait) = self.throttle.count(self.now(), Subject::SignUpFrom(address));
        if count > SIGN_UPS_MAX { Err(wait) } else { Ok(()) }
    }

    /// One more request for a key set; the seconds to wait if it is one too many.
    fn admit_jwks(&self, address: Option<IpAddr>) -> Result<(), i64> {
        let rate = self.config.http.jwks_per_10_minutes;
        let Some(address) = self.limited(address).filter(|_| rate > 0) else { return Ok(()) };
        let (count, wait) = self.throttle.count(self.now(), Subject::JwksOf(address));
        if count > rate { Err(wait) } else { Ok(()) }
    }

    /// The address as it is counted, unless it is exempt.
    fn limited(&self, address: Option<IpAddr>) -> Option<IpAddr> {
        let exempt = &self.config.http.exempt_networks;
        address.filter(|&ip| !is_in(ip, exempt)).map(counted)
    }
}
