//! Who asks, and whether he may ask so often.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

use super::super::{Client, Problem};
use super::entity::not_modified;
use crate::dashboard::access::{Actor, Principal};
use crate::dashboard::api_keys::{self, ApiKeyError};
use crate::dashboard::throttle::Subject;
use crate::dashboard::web::{cookie, is_ours};
use crate::dashboard::{Dashboard, random, sessions};

/// Who failed, when wrong API keys are counted.
const API_KEY: &str = "api key";

/// The header in which a change by a session shows what its page's forms hold.
pub(super) const FORM_TOKEN: &str = "x-form-token";

/// Why a session that there is does not count for this request.
#[derive(Clone)]
struct Unproved(Problem);

/// On whose behalf a request is made: an API key's (`Authorization: Bearer wsk_…`), else nobody's so far.
///
/// # Errors
/// 401 for a credential that is not good, 429 after too many of them.
async fn actor_of_key(
    dashboard: &Dashboard,
    headers: &HeaderMap,
    address: Option<IpAddr>,
) -> Result<Option<Actor>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let (scheme, secret) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") || !secret.trim().starts_with(api_keys::PREFIX) {
        let detail = "send an API key: Authorization: Bearer wsk_…; access tokens are for nodes";
        return Err(Problem::unauthorized(detail));
    }
    dashboard.may_try(address, API_KEY).map_err(Problem::too_many_requests)?;
    match api_keys::authenticate(dashboard, secret.trim()).await {
        Ok(key) => Ok(Some(Actor { principal: Principal::ApiKey(key.id), address })),
        Err(error) => {
            if matches!(error, ApiKeyError::Invalid) {
                dashboard.count_failure(address, API_KEY);
            }
            Err(error.into())
        }
    }
}

/// The account that is logged in with the request's cookie; `None` if there is no cookie, or none that is good.
///
/// A browser sends the cookie whoever has made it ask. So the session counts only for requests of our own pages, and for a
/// change only with what these pages hold and no other site can read.
///
/// # Errors
/// 403 for a request of another origin, a change without the form's token, and for who must choose a password first.
async fn account_of_session(
    dashboard: &Dashboard,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Option<Uuid>, Problem> {
    let Some(id) = cookie::read(headers, &dashboard.config.issuer) else { return Ok(None) };
    let session = sessions::find(dashboard, &id, true).await?.filter(|session| !session.is_half);
    let Some(session) = session else { return Ok(None) };
    let is_change = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let is_same_site = match site {
        None => !is_change || headers.contains_key(header::ORIGIN),
        // An address that was typed in, or a bookmark.
        Some(b"none") => !is_change,
        Some(site) => site == b"same-origin",
    };
    if !is_same_site || !is_ours(headers, dashboard.config.issuer.as_str()) {
        let detail = "a session counts for requests of the dashboard's own pages alone; from elsewhere, send an API key";
        return Err(Problem::forbidden(detail));
    }
    let given = headers.get(FORM_TOKEN).and_then(|token| token.to_str().ok()).unwrap_or_default();
    if is_change && !random::is_same(given, &cookie::form_token(&id)) {
        let detail = "with a session a change needs the X-Form-Token header, with the form_token of a page of this \
                      session; load the page again";
        return Err(Problem::forbidden(detail));
    }
    if session.account.must_change_password {
        let detail = "this account has a one-time password; choose one of your own in the dashboard first";
        return Err(Problem::forbidden(detail));
    }
    Ok(Some(session.account.id))
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
    let actor = match actor_of_key(&dashboard, request.headers(), address).await? {
        Some(actor) => actor,
        None => match account_of_session(&dashboard, request.method(), request.headers()).await {
            Ok(Some(account)) => Actor::account(account, address),
            Ok(None) => Actor::anonymous(address),
            // What anybody may is open to this request as well.
            Err(problem) if problem.status == StatusCode::FORBIDDEN => {
                request.extensions_mut().insert(Unproved(problem));
                Actor::anonymous(address)
            }
            Err(problem) => return Err(problem),
        },
    };
    let is_exempt = address.is_some() && limited.is_none();
    if let (Principal::ApiKey(id) | Principal::Account(id), false) = (&actor.principal, is_exempt) {
        dashboard.admit_to_api(Subject::ApiBy(*id)).map_err(Problem::too_many_requests)?;
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
        // A route that `identify` is not around: nobody is known there.
        let Ok(Client(address)) = Client::from_request_parts(parts, dashboard).await;
        Ok(Self(Actor::anonymous(address)))
    }
}

impl FromRequestParts<Arc<Dashboard>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Arc<Dashboard>) -> Result<Self, Problem> {
        let Anybody(actor) = Anybody::from_request_parts(parts, dashboard).await?;
        if actor.principal != Principal::Anonymous {
            return Ok(Self(actor));
        }
        Err(match parts.extensions.get::<Unproved>() {
            Some(Unproved(problem)) => problem.clone(),
            None => Problem::unauthorized("send an API key (Authorization: Bearer wsk_…), or log in"),
        })
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
