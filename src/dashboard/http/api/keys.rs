//! A tenant's signing keys: listed, rotated, revoked.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::entity::{Entity, uncached};
use super::identity::Caller;
use super::input::{Asked, At};
use super::page::{Page, Paging};
use super::tenants::known;
use super::{Here, Problem};
use crate::dashboard::Dashboard;
use crate::dashboard::access::Actor;
use crate::dashboard::keys::{self, KeyStatus};

pub(super) fn routes() -> OpenApiRouter<std::sync::Arc<Dashboard>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(rotate))
        .routes(routes!(read))
        .routes(routes!(revoke))
}

/// A key pair that signs a tenant's tokens. Times are Unix seconds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "kid": "q2Wn0Zy9n2y3kq8l0cXk7m5v1b4t6r8e0w2u4i6o8p0", "state": "active",
    "createdAt": 1_800_000_000, "signsAt": 1_800_000_000, "retiredAt": null, "goneAt": null, "revokedAt": null }))]
struct SigningKey {
    kid: String,
    #[schema(value_type = KeyState)]
    state: String,
    created_at: i64,
    /// When a `next` key takes over, at the earliest.
    signs_at: i64,
    #[schema(required)]
    retired_at: Option<i64>,
    /// When no verifier needs a retired key any more.
    #[schema(required)]
    gone_at: Option<i64>,
    #[schema(required)]
    revoked_at: Option<i64>,
}

/// `next` is published and does not sign yet; `retired` verifies and signs no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum KeyState {
    Next,
    Active,
    Retired,
    Revoked,
    Gone,
}

impl KeyState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
            Self::Gone => "gone",
        }
    }
}

impl From<KeyStatus> for SigningKey {
    fn from(key: KeyStatus) -> Self {
        let KeyStatus { kid, state, created_at, signs_at, retired_at, gone_at, revoked_at } = key;
        Self { kid, state, created_at, signs_at, retired_at, gone_at, revoked_at }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct KeysQuery {
    /// At most so many, 50 if it is left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only keys in this state.
    state: Option<KeyState>,
}

/// List a tenant's signing keys
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/keys", tag = "keys", operation_id = "listKeys",
    params(KeysQuery), responses((status = 200, description = "A page of keys, oldest first", body = Page<SigningKey>)))]
async fn list(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(tenant): At<Uuid>,
    Asked(query): Asked<KeysQuery>,
    uri: Uri,
) -> Result<Response, Problem> {
    let paging = Paging::new("keys", &uri, query.limit, query.cursor.as_deref())?;
    known(&dashboard, &actor, tenant).await?;
    let found = keys::list(&dashboard, &actor, tenant).await?.into_iter();
    let found = found.filter(|key| query.state.is_none_or(|state| state.as_str() == key.state));
    let found = found.map(SigningKey::from).collect();
    Ok(paging.render_part(found, |key| format!("{:020} {}", key.created_at, key.kid)))
}

/// Read a signing key
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/keys/{kid}", tag = "keys", operation_id = "readKey",
    responses((status = 200, description = "The key", body = SigningKey)))]
async fn read(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, kid)): At<(Uuid, String)>,
) -> Result<Response, Problem> {
    show(&dashboard, &actor, tenant, &kid).await
}

/// A rotation that has begun.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Rotation {
    /// The new key.
    #[schema(example = "q2Wn0Zy9n2y3kq8l0cXk7m5v1b4t6r8e0w2u4i6o8p0")]
    kid: String,
    /// Unix seconds: when it takes over.
    #[schema(example = 1_800_000_900)]
    signs_at: i64,
}

/// Rotate a tenant's signing key
///
/// Publishes the next key; it takes over when every verifier has it, and nobody is dropped.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/keys/rotate", tag = "keys", operation_id = "rotateKey",
    responses((status = 202, description = "Begun", body = Rotation)))]
async fn rotate(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(tenant): At<Uuid>,
) -> Result<Response, Problem> {
    known(&dashboard, &actor, tenant).await?;
    let keys::Rotation { kid, signs_at } = keys::rotate(&dashboard, &actor, tenant).await?;
    Ok(uncached(StatusCode::ACCEPTED, &Rotation { kid, signs_at }))
}

/// Revoke a signing key
///
/// Every token and every live session signed with it ends at once. An active key is replaced in the same step.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/keys/{kid}/revoke", tag = "keys", operation_id = "revokeKey",
    responses((status = 200, description = "Revoked", body = SigningKey)))]
async fn revoke(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, kid)): At<(Uuid, String)>,
) -> Result<Response, Problem> {
    known(&dashboard, &actor, tenant).await?;
    keys::revoke(&dashboard, &actor, tenant, &kid).await?;
    show(&dashboard, &actor, tenant, &kid).await
}

async fn show(dashboard: &Dashboard, actor: &Actor, tenant: Uuid, kid: &str) -> Result<Response, Problem> {
    let found = keys::list(dashboard, actor, tenant).await?.into_iter().find(|key| key.kid == kid);
    let key = found.ok_or_else(|| Problem::not_found("there is no such key"))?;
    Ok(Entity(SigningKey::from(key)).into_response())
}
