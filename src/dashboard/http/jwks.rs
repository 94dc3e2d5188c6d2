//! `GET /{tenantId}/.well-known/jwks`: cacheable, with a strong entity tag (RFC 9110 section 13.1.2).

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{Client, Problem};
use crate::dashboard::{Dashboard, keys};

pub(super) fn routes() -> OpenApiRouter<Arc<Dashboard>> {
    OpenApiRouter::new().routes(routes!(endpoint))
}

/// A tenant's public keys (RFC 7517).
#[derive(ToSchema)]
#[allow(dead_code, reason = "names what the document is made of")]
#[schema(example = json!({ "keys": [{ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "q2Wn0Zy9n2y3kq8l0cXk7m5v",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc", "e": "AQAB" }] }))]
struct KeySet {
    /// Those that verify: the next one, the active one and the retired ones whose tokens may live.
    #[schema(value_type = Vec<Object>)]
    keys: Vec<serde_json::Value>,
    /// Ids of keys that were revoked: what they have signed is worth nothing, whatever it says.
    #[schema(required = false)]
    revoked: Vec<String>,
}

/// Read a tenant's public keys
///
/// Cacheable, at most 20 requests in ten minutes from one address.
#[utoipa::path(get, path = "/{tenant}/.well-known/jwks", tag = super::super::oauth::TAG, operation_id = "readKeySet",
    security(()), responses(
        (status = 200, description = "The keys", body = KeySet, content_type = "application/jwk-set+json",
            headers(("ETag", description = "What If-None-Match names"), ("Cache-Control", description = "RFC 9111"))),
        (status = 304, description = "As If-None-Match says")))]
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
