//! Who asks, and whether he may ask so often.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::Response;

use super::super::{Client, Problem};
use super::entity::not_modified;
use crate::dashboard::Dashboard;
use crate::dashboard::access::{Actor, Principal};
use crate::dashboard::api_keys::{self, ApiKeyError};
use crate::dashboard::throttle::Subject;

/// Who failed, when wrong API keys are counted.
const API_KEY: &str = "api key";

/// On whose behalf a request is made: an API key's (`Authorization: Bearer wsk_…`), else nobody's.
///
/// A browser's session is to be asked here too, after the key. A session travels in a cookie, so a request that changes
/// something must then also show that it comes from our own pages.
///
/// # Errors
/// 401 for a credential that is not good, 429 after too many of them.
pub(in crate::dashboard) async fn actor_of(
    dashboard: &Dashboard,
    headers: &HeaderMap,
    address: Option<IpAddr>,
) -> Result<Actor, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(Actor::anonymous(address)) };
    let (scheme, secret) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") || !secret.trim().starts_with(api_keys::PREFIX) {
        let detail = "send an API key: Authorization: Bearer wsk_…; access tokens are for nodes";
        return Err(Problem::unauthorized(detail));
    }
    dashboard.may_try(address, API_KEY).map_err(Problem::too_many_requests)?;
    match api_keys::authenticate(dashboard, secret.trim()).await {
        Ok(key) => Ok(Actor { principal: Principal::ApiKey(key.id), address }),
        Err(error) => {
            if matches!(error, ApiKeyError::Invalid) {
                dashboard.count_failure(address, API_KEY);
            }
            Err(error.into())
        }
    }
}

/// Around every route: finds out who asks, counts the request, and answers 304 if he has the answer already.
pub(super) async fn identify(
    State(dashboard): State<Arc<Dashboard>>,
    Client(address): Client,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let limited = dashboard.limited(address);
    if let Some(address) = limited {
        dashboard.admit_to_api(Subject::ApiFrom(address)).map_err(Problem::too_many_requests)?;
    }
    let actor = actor_of(&dashboard, request.headers(), address).await?;
    let is_exempt = address.is_some() && limited.is_none();
    if let (Principal::ApiKey(key), false) = (&actor.principal, is_exempt) {
        dashboard.admit_to_api(Subject::ApiBy(*key)).map_err(Problem::too_many_requests)?;
    }
    request.extensions_mut().insert(actor);
    let seen = match *request.method() {
        Method::GET | Method::HEAD => request.headers().get(header::IF_NONE_MATCH).cloned(),
        _ => None,
    };
    let response = next.run(request).await;
    Ok(match seen {
        Some(seen) => not_modified(&seen, response),
        None => response,
    })
}

/// Somebody who is known.
pub(super) struct Caller(pub Actor);

/// Anybody.
pub(super) struct Anybody(pub Actor);

impl FromRequestParts<Arc<Dashboard>> for Anybody {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Arc<Dashboard>) -> Result<Self, Problem> {
        if let Some(actor) = parts.extensions.get::<Actor>() {
            return Ok(Self(actor.clone()));
        }
        let Ok(Client(address)) = Client::from_request_parts(parts, dashboard).await;
        actor_of(dashboard, &parts.headers, address).await.map(Self)
    }
}

impl FromRequestParts<Arc<Dashboard>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Arc<Dashboard>) -> Result<Self, Problem> {
        let Anybody(actor) = Anybody::from_request_parts(parts, dashboard).await?;
        if actor.principal == Principal::Anonymous {
            return Err(Problem::unauthorized("send an API key: Authorization: Bearer wsk_…"));
        }
        Ok(Self(actor))
    }
}

impl Dashboard {
    /// One more request of the management API; the seconds to wait if it is one too many.
    fn admit_to_api(&self, subject: Subject) -> Result<(), i64> {
        let rate = self.config.http.api_per_10_minutes;
        if rate == 0 {
            return Ok(());
        }
        let (count, wait) = self.throttle.count(self.now(), subject);
        if count > rate { Err(wait) } else { Ok(()) }
    }
}
