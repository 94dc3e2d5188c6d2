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

use super::store::query;
use super::throttle::{Subject, counted};
use super::{Dashboard, oauth, web};
use crate::limits::client_address;
pub(super) use problem::Problem;

/// Sign-ups from one address in ten minutes.
const SIGN_UPS_MAX: u32 = 20;

/// Every route. Serve it with `into_make_service_with_connect_info::<SocketAddr>()`: without the peer's address no limit
/// by address counts.
pub fn router(dashboard: Arc<Dashboard>) -> Router {
    let wrong_method = async || Problem::method_not_allowed();
    // Refreshing needs no secret and key sets are public, so pages of any origin may ask; no cookie counts there.
    let (for_browsers, for_clients) = oauth::routes().merge(jwks::routes()).split_for_parts();
    let for_browsers =
        for_browsers.method_not_allowed_fallback(wrong_method).layer(middleware::from_fn(allow_any_origin));
    let (of_nodes, for_nodes) = nodes::routes().split_for_parts();
    Router::new()
        .route("/health", get(health))
        .merge(of_nodes)
        .merge(billing::router())
        .merge(api::router(&dashboard, [for_clients, for_nodes]))
        .merge(web::router())
        .method_not_allowed_fallback(wrong_method)
        .fallback(web::not_found)
        // Last: a fallback set after it would take the place of the layer's, which answers OPTIONS.
        .merge(for_browsers)
        .with_state(dashboard)
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
        let values = parts.headers.get_all("x-forwarded-for").iter();
        let values: Vec<&str> = values.map(|value| value.to_str().unwrap_or_default()).collect();
        let trusted = &dashboard.config.http.trusted_proxies;
        Ok(Self(Some(client_address(peer.ip(), values.into_iter(), trusted))))
    }
}

impl Dashboard {
    /// May this address try to authenticate as this account (an e-mail address or a `client_id`)? If not, after how many
    /// seconds. Nobody can lock an account's owner out: too many failures of an account stop only addresses that have
    /// failed themselves.
    ///
    /// # Errors
    /// The seconds to wait.
    pub fn may_try(&self, address: Option<IpAddr>, account: &str) -> Result<(), i64> {
        let Some(address) = self.limited(address) else { return Ok(()) };
        let (now, http) = (self.now(), &self.config.http);
        let (from, wait) = self.throttle.look(now, &Subject::FailuresFrom(address));
        if http.failures_per_address > 0 && from >= http.failures_per_address {
            return Err(wait);
        }
        let (of, _) = self.throttle.look(now, &Subject::FailuresOf(account.to_lowercase()));
        if http.failures_per_account > 0 && of >= http.failures_per_account && from > 0 {
            return Err(wait);
        }
        Ok(())
    }

    /// Counts an attempt that failed.
    pub fn count_failure(&self, address: Option<IpAddr>, account: &str) {
        if let Some(address) = self.limited(address) {
            // What is longer than any account is none, and not worth its memory.
            let account: String = account.chars().take(254).flat_map(char::to_lowercase).collect();
            self.throttle.count(self.now(), Subject::FailuresFrom(address));
            self.throttle.count(self.now(), Subject::FailuresOf(account));
        }
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
        address.filter(|&ip| !exempt.iter().any(|network| network.contains(ip))).map(counted)
    }
}
