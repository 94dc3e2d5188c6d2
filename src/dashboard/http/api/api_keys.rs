//! API keys, of a tenant and of the operators: the same routes at two addresses.

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::entity::{Entity, uncached};
use super::identity::Caller;
use super::input::{Asked, At, Payload};
use super::members::MemberRole;
use super::page::{Page, Paging};
use super::tenants::known;
use super::{Here, Problem};
use crate::dashboard::Dashboard;
use crate::dashboard::access::{Actor, Role};
use crate::dashboard::api_keys::{self, Created, NewApiKey};

pub(super) fn routes() -> OpenApiRouter<std::sync::Arc<Dashboard>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, revoke))
        .routes(routes!(list_operators, create_operators))
        .routes(routes!(read_operators, revoke_operators))
}

/// What automation authenticates with. Times are Unix seconds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "id": "4b6e0c6e-6f7b-4d55-9d0c-6b6b2a8d2b0f", "name": "deploy",
    "role": "developer", "prefix": "wsk_m3RkYw0n", "tenantId": "5f0c3a52-6c0e-4f5c-8a53-0f3a8b0f5a11",
    "accountId": "0d0a5a0c-38f4-4a0e-8b7c-52c3b2f0a3a1", "createdAt": 1_800_000_000, "expiresAt": 1_807_776_000,
    "lastUsedAt": null, "revokedAt": null }))]
pub(super) struct ApiKey {
    id: Uuid,
    name: String,
    #[schema(value_type = KeyRole)]
    role: &'static str,
    /// The beginning of the secret, to recognise it.
    prefix: String,
    /// Null: of the platform's operators.
    #[schema(required)]
    tenant_id: Option<Uuid>,
    /// Whose rights the key can't exceed, now or later.
    #[schema(required)]
    account_id: Option<Uuid>,
    created_at: i64,
    #[schema(required)]
    expires_at: Option<i64>,
    /// To the hour.
    #[schema(required)]
    last_used_at: Option<i64>,
    #[schema(required)]
    revoked_at: Option<i64>,
}

/// What a key may do.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "it is the schema of the texts that are sent")]
enum KeyRole {
    Operator,
    Owner,
    Admin,
    Developer,
    Billing,
}

/// A key with its secret, which is shown this once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ApiKeyWithSecret {
    #[serde(flatten)]
    key: ApiKey,
    /// Keep it: only its hash is stored.
    #[schema(example = "wsk_m3RkYw0n8m2mVv1jJm0t1nq3Yk0b4h5c6d7e8f9g0h1")]
    secret: String,
}

impl From<api_keys::ApiKey> for ApiKey {
    fn from(key: api_keys::ApiKey) -> Self {
        Self {
            id: key.id,
            name: key.name,
            role: key.role.as_str(),
            prefix: key.prefix,
            tenant_id: key.tenant,
            account_id: key.account,
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            revoked_at: key.revoked_at,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ApiKeysQuery {
    /// At most so many, 50 if it is left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// List a tenant's API keys
///
/// Revoked ones too.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/api-keys", tag = "api keys", operation_id = "listApiKeys",
    params(ApiKeysQuery), responses((status = 200, description = "A page of keys", body = Page<ApiKey>)))]
async fn list(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(tenant): At<Uuid>,
    Asked(query): Asked<ApiKeysQuery>,
    uri: Uri,
) -> Result<Response, Problem> {
    known(&dashboard, &actor, tenant).await?;
    page_of(&dashboard, &actor, Some(tenant), &query, &uri).await
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "name": "deploy", "role": "developer", "expiresAt": 1_807_776_000 }))]
struct NewTenantKey {
    /// 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// At most the caller's own.
    role: MemberRole,
    /// Unix seconds, at most ten years ahead. Left out: never.
    expires_at: Option<i64>,
}

/// Make an API key
///
/// The answer has it, this once. A key that is made with a key ends with that one.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/api-keys", tag = "api keys", operation_id = "createApiKey",
    request_body = NewTenantKey, responses((status = 201, description = "Made", body = ApiKeyWithSecret)))]
async fn create(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(tenant): At<Uuid>,
    Payload(new): Payload<NewTenantKey>,
) -> Result<Response, Problem> {
    known(&dashboard, &actor, tenant).await?;
    let new = NewApiKey { name: new.name, role: new.role.into(), expires_at: new.expires_at };
    let created = api_keys::create(&dashboard, &actor, Some(tenant), new).await?;
    Ok(shown_once(created, &format!("/api/v1/tenants/{tenant}/api-keys")))
}

/// Read an API key
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/api-keys/{apiKey}", tag = "api keys", operation_id = "readApiKey",
    responses((status = 200, description = "The key", body = ApiKey)))]
async fn read(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, id)): At<(Uuid, Uuid)>,
) -> Result<Response, Problem> {
    let key = api_keys::read(&dashboard, &actor, Some(tenant), id).await?;
    Ok(Entity(ApiKey::from(key)).into_response())
}

/// Revoke an API key
///
/// At once, with the keys that were made with it. Needs no `If-Match`: a key is never edited.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/api-keys/{apiKey}", tag = "api keys",
    operation_id = "revokeApiKey", responses((status = 204, description = "Revoked")))]
async fn revoke(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, id)): At<(Uuid, Uuid)>,
) -> Result<StatusCode, Problem> {
    api_keys::revoke(&dashboard, &actor, Some(tenant), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List the operators' API keys
///
/// For operators.
#[utoipa::path(get, path = "/api/v1/api-keys", tag = "api keys", operation_id = "listOperatorApiKeys",
    params(ApiKeysQuery), responses((status = 200, description = "A page of keys", body = Page<ApiKey>)))]
async fn list_operators(
    State(dashboard): Here,
    Caller(actor): Caller,
    Asked(query): Asked<ApiKeysQuery>,
    uri: Uri,
) -> Result<Response, Problem> {
    page_of(&dashboard, &actor, None, &query, &uri).await
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "name": "fleet", "expiresAt": 1_807_776_000 }))]
struct NewOperatorKey {
    /// 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Unix seconds, at most ten years ahead. Left out: never.
    expires_at: Option<i64>,
}

/// Make an operators' API key
///
/// For operators; it may whatever an operator may. The answer has it, this once.
#[utoipa::path(post, path = "/api/v1/api-keys", tag = "api keys", operation_id = "createOperatorApiKey",
    request_body = NewOperatorKey, responses((status = 201, description = "Made", body = ApiKeyWithSecret)))]
async fn create_operators(
    State(dashboard): Here,
    Caller(actor): Caller,
    Payload(new): Payload<NewOperatorKey>,
) -> Result<Response, Problem> {
    let new = NewApiKey { name: new.name, role: Role::Operator, expires_at: new.expires_at };
    let created = api_keys::create(&dashboard, &actor, None, new).await?;
    Ok(shown_once(created, "/api/v1/api-keys"))
}

/// Read an operators' API key
///
/// For operators.
#[utoipa::path(get, path = "/api/v1/api-keys/{apiKey}", tag = "api keys", operation_id = "readOperatorApiKey",
    responses((status = 200, description = "The key", body = ApiKey)))]
async fn read_operators(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(id): At<Uuid>,
) -> Result<Response, Problem> {
    let key = api_keys::read(&dashboard, &actor, None, id).await?;
    Ok(Entity(ApiKey::from(key)).into_response())
}

/// Revoke an operators' API key
///
/// For operators.
#[utoipa::path(delete, path = "/api/v1/api-keys/{apiKey}", tag = "api keys", operation_id = "revokeOperatorApiKey",
    responses((status = 204, description = "Revoked")))]
async fn revoke_operators(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(id): At<Uuid>,
) -> Result<StatusCode, Problem> {
    api_keys::revoke(&dashboard, &actor, None, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn page_of(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Option<Uuid>,
    query: &ApiKeysQuery,
    uri: &Uri,
) -> Result<Response, Problem> {
    let paging = Paging::new("api-keys", uri, query.limit, query.cursor.as_deref())?;
    let found = api_keys::list(dashboard, actor, tenant, paging.after_as()?, paging.to_read()).await?;
    Ok(paging.render(found.into_iter().map(ApiKey::from).collect(), |key| key.id.to_string()))
}

fn shown_once(created: Created, list: &str) -> Response {
    let location = format!("{list}/{}", created.key.id);
    let body = ApiKeyWithSecret { key: created.key.into(), secret: created.secret };
    ([(header::LOCATION, location)], uncached(StatusCode::CREATED, &body)).into_response()
}
