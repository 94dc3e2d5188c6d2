//! `POST /connect/introspect` (RFC 7662): what a token is worth now. For operators, who authenticate with HTTP Basic.
//!
//! An access token is judged by the node's own verifier against the tenant's key set as it is published.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::error::OAuthError;
use super::form::{Fields, FormBody, basic};
use super::revocation::TokenInHand;
use super::{OAuthRefusal, refresh};
use crate::auth::keys::parse_jwks;
use crate::auth::{KeySets, Policy, Verifier};
use crate::dashboard::http::Client;
use crate::dashboard::store::StoreError;
use crate::dashboard::{Dashboard, accounts, keys};

const TOKEN_BYTES_MAX: usize = 16 << 10;

/// What a token is worth now, with its claims if it is worth anything.
#[derive(ToSchema)]
#[allow(dead_code, reason = "names what the answer is made of, for the document")]
#[schema(example = json!({ "active": true, "token_type": "Bearer", "scope": "WireSocket.API", "exp": 1_800_000_900,
    "client_id": "euw1-7k2m9qpxw4c8v3n5t6h1" }))]
struct Introspection {
    active: bool,
    token_type: Option<String>,
    scope: Option<String>,
    exp: Option<i64>,
    client_id: Option<String>,
}

/// Ask what a token is worth
///
/// RFC 7662. For operators, with their e-mail address and password as HTTP Basic.
#[utoipa::path(post, path = "/connect/introspect", tag = super::TAG, operation_id = "introspectToken",
    request_body(content = TokenInHand, content_type = "application/x-www-form-urlencoded"),
    security(("operator" = [])), responses(
        (status = 200, description = "What it is worth", body = Introspection),
        (status = 400, description = "No token", body = OAuthRefusal),
        (status = 401, description = "Not an operator", body = OAuthRefusal),
        (status = 429, description = "Too many failures; Retry-After says how long to wait", body = OAuthRefusal)))]
pub(super) async fn endpoint(
    State(dashboard): State<Arc<Dashboard>>,
    Client(address): Client,
    headers: HeaderMap,
    body: FormBody,
) -> Result<Json<Value>, OAuthError> {
    let fields = Fields::of(body)?;
    check_operator(&dashboard, address, &headers).await?;
    let token = fields.required("token")?;
    let found = match refresh::is_refresh_token(token) {
        true => of_refresh_token(&dashboard, token).await?,
        false => of_access_token(&dashboard, token).await?,
    };
    Ok(Json(found.unwrap_or_else(|| json!({ "active": false }))))
}

async fn check_operator(
    dashboard: &Dashboard,
    address: Option<IpAddr>,
    headers: &HeaderMap,
) -> Result<(), OAuthError> {
    let (email, password) = basic(headers)?.ok_or_else(OAuthError::operators_only)?;
    let attempt = dashboard.begin_attempt(address, &email).map_err(OAuthError::too_many_failures)?;
    let account = accounts::authenticate(dashboard, &email, &password).await?;
    if account.is_some_and(|account| account.is_operator && !account.must_change_password) {
        attempt.succeeded();
        return Ok(());
    }
    Err(OAuthError::operators_only())
}

async fn of_refresh_token(dashboard: &Dashboard, token: &str) -> Result<Option<Value>, StoreError> {
    let Some(database) = refresh::database_of_token(dashboard, token) else { return Ok(None) };
    let Some(found) = refresh::look(dashboard, database, token).await? else { return Ok(None) };
    if refresh::is_spent(database, &found).await? {
        return Ok(None);
    }
    Ok(Some(json!({
        "active": true,
        "token_type": "refresh_token",
        "scope": found.access.scope,
        "exp": found.expires_at,
        "appId": found.app,
        "iss": dashboard.config.issuer.as_str(),
    })))
}

async fn of_access_token(dashboard: &Dashboard, token: &str) -> Result<Option<Value>, StoreError> {
    let Some(mut claims) = payload(token) else { return Ok(None) };
    let tenant = claims["tenantid"].as_str().and_then(|text| text.parse::<Uuid>().ok());
    let Some(tenant) = tenant else { return Ok(None) };
    let Some(document) = keys::jwks(dashboard, tenant).await? else { return Ok(None) };
    let Ok(published) = parse_jwks(document.body.as_bytes()) else { return Ok(None) };
    let policy = Policy {
        issuer: dashboard.config.issuer.as_str().to_owned(),
        leeway_s: 0,
        token_bytes_max: TOKEN_BYTES_MAX,
    };
    let sets = Arc::new(KeySets::default().with_tenant(tenant, published));
    let now = u64::try_from(dashboard.now()).unwrap_or(0);
    if Verifier::new(policy, sets, 0, 0).verify(now, token).is_err() {
        return Ok(None);
    }
    claims["active"] = true.into();
    claims["token_type"] = "Bearer".into();
    claims["client_id"] = claims["sub"].clone();
    Ok(Some(claims))
}

/// What a token says of itself, unverified.
fn payload(token: &str) -> Option<Value> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Value>(&payload).ok().filter(Value::is_object)
}
