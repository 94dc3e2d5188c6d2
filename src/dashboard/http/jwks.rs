//! `GET /{tenantId}/.well-known/jwks`: cacheable, with a strong entity tag (RFC 9110 section 13.1.2).

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use super::{Client, Problem};
use crate::dashboard::{Dashboard, keys};

pub(super) async fn endpoint(
    State(dashboard): State<Arc<Dashboard>>,
    Client(address): Client,
    Path(tenant): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    dashboard.admit_jwks(address).map_err(Problem::too_many_requests)?;
    let missing = || Problem::not_found("there is no tenant with this id that has keys");
    let tenant: Uuid = tenant.parse().map_err(|_| missing())?;
    let document = keys::jwks(&dashboard, tenant).await?.ok_or_else(missing)?;
    let cached = format!("public, max-age={}", dashboard.config.keys.jwks_max_age_s);
    let caching = [(header::CACHE_CONTROL, cached), (header::ETAG, document.etag.clone())];
    if matches(&headers, &document.etag) {
        return Ok((StatusCode::NOT_MODIFIED, caching).into_response());
    }
    let kind = [(header::CONTENT_TYPE, "application/jwk-set+json")];
    Ok((caching, kind, document.body).into_response())
}

/// Whether the client has this already: weak comparison, as If-None-Match wants it.
fn matches(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|candidate| candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == etag)
}
