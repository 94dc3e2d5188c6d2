//! Tenants: operators list, approve, suspend and resume them; members read and rename their own.

use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::entity::{Entity, IfMatch, created};
use super::identity::Caller;
use super::input::{Asked, At, Payload};
use super::page::{Page, Paging};
use super::{Here, Problem};
use crate::dashboard::access::{Actor, Principal};
use crate::dashboard::{Dashboard, accounts, tenants};

pub(super) fn routes() -> OpenApiRouter<std::sync::Arc<Dashboard>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, update))
        .routes(routes!(approve))
        .routes(routes!(suspend))
        .routes(routes!(resume))
}

/// A customer of the platform.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "id": "5f0c3a52-6c0e-4f5c-8a53-0f3a8b0f5a11", "name": "Acme", "state": "active",
    "createdAt": 1_800_000_000, "approvedAt": 1_800_000_600 }))]
struct Tenant {
    id: Uuid,
    name: String,
    state: TenantState,
    /// Unix seconds.
    created_at: i64,
    /// Unix seconds.
    #[schema(required)]
    approved_at: Option<i64>,
}

/// `pending` until an operator approves; `suspended` gets no tokens.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum TenantState {
    Pending,
    Active,
    Suspended,
}

impl From<tenants::TenantState> for TenantState {
    fn from(state: tenants::TenantState) -> Self {
        match state {
            tenants::TenantState::Pending => Self::Pending,
            tenants::TenantState::Active => Self::Active,
            tenants::TenantState::Suspended => Self::Suspended,
        }
    }
}

impl From<TenantState> for tenants::TenantState {
    fn from(state: TenantState) -> Self {
        match state {
            TenantState::Pending => Self::Pending,
            TenantState::Active => Self::Active,
            TenantState::Suspended => Self::Suspended,
        }
    }
}

impl From<tenants::Tenant> for Tenant {
    fn from(tenant: tenants::Tenant) -> Self {
        let tenants::Tenant { id, name, state, created_at, approved_at, .. } = tenant;
        Self { id, name, state: state.into(), created_at, approved_at }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TenantsQuery {
    /// At most so many, 50 if it is left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only tenants in this state.
    state: Option<TenantState>,
}

/// List all tenants
///
/// For operators. Whoever is a member somewhere finds his tenants in `/api/v1/me`.
#[utoipa::path(get, path = "/api/v1/tenants", tag = "tenants", operation_id = "listTenants", params(TenantsQuery),
    responses((status = 200, description = "A page of tenants", body = Page<Tenant>)))]
async fn list(
    State(dashboard): Here,
    Caller(actor): Caller,
    Asked(query): Asked<TenantsQuery>,
    uri: Uri,
) -> Result<Response, Problem> {
    let paging = Paging::new("tenants", &uri, query.limit, query.cursor.as_deref())?;
    let (state, after) = (query.state.map(Into::into), paging.after_as()?);
    let found = tenants::list(&dashboard, &actor, state, after, paging.to_read()).await?;
    Ok(paging.render(found.into_iter().map(Tenant::from).collect(), |tenant| tenant.id.to_string()))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "name": "Acme", "ownerEmail": "ada@example.com" }))]
struct NewTenant {
    /// 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// The account that is to own it. Left out: the caller's own; only operators name another.
    owner_email: Option<String>,
}

/// Make a tenant
///
/// It is `pending` until an operator approves it. Who has no account yet signs up instead.
#[utoipa::path(post, path = "/api/v1/tenants", tag = "tenants", operation_id = "createTenant",
    request_body = NewTenant, responses((status = 201, description = "Made", body = Tenant)))]
async fn create(
    State(dashboard): Here,
    Caller(actor): Caller,
    Payload(new): Payload<NewTenant>,
) -> Result<Response, Problem> {
    let owner = match (&new.owner_email, &actor.principal) {
        (None, Principal::Account(id)) => *id,
        (None, _) => return Err(Problem::invalid("/ownerEmail", "name the owner's e-mail address")),
        (Some(email), _) => {
            tenants::may_create_for_others(&dashboard, &actor).await?;
            let missing = || {
                Problem::invalid(
                    "/ownerEmail",
                    "there is no account with this address; its owner signs up first",
                )
            };
            accounts::by_email(&dashboard, email).await?.ok_or_else(missing)?.id
        }
    };
    let id = tenants::create(&dashboard, &actor, &new.name, owner).await?;
    let tenant = tenants::find(&dashboard, id).await?.ok_or(tenants::TenantError::Missing(id))?;
    Ok(created(&Tenant::from(tenant), &format!("/api/v1/tenants/{id}")))
}

/// Read a tenant
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}", tag = "tenants", operation_id = "readTenant",
    responses((status = 200, description = "The tenant", body = Tenant)))]
async fn read(State(dashboard): Here, Caller(actor): Caller, At(id): At<Uuid>) -> Result<Response, Problem> {
    show(&dashboard, &actor, id).await
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "name": "Acme Corporation" }))]
struct TenantChange {
    /// 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
}

/// Rename a tenant
#[utoipa::path(patch, path = "/api/v1/tenants/{tenant}", tag = "tenants", operation_id = "updateTenant",
    request_body = TenantChange, responses((status = 200, description = "Renamed", body = Tenant)))]
async fn update(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(id): At<Uuid>,
    if_match: IfMatch,
    Payload(change): Payload<TenantChange>,
) -> Result<Response, Problem> {
    let tenant = tenants::read(&dashboard, &actor, id).await?;
    let version = tenant.version;
    if_match.check(&Tenant::from(tenant))?;
    tenants::rename(&dashboard, &actor, id, version, &change.name).await?;
    show(&dashboard, &actor, id).await
}

/// Approve a pending tenant
///
/// For operators. The tenant gets its signing key and becomes `active`.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/approve", tag = "tenants", operation_id = "approveTenant",
    responses((status = 200, description = "Active", body = Tenant)))]
async fn approve(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(id): At<Uuid>,
) -> Result<Response, Problem> {
    known(&dashboard, &actor, id).await?;
    tenants::approve(&dashboard, &actor, id).await?;
    show(&dashboard, &actor, id).await
}

/// Suspend an active tenant
///
/// For operators. It gets no more tokens; live sessions run until theirs expire.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/suspend", tag = "tenants", operation_id = "suspendTenant",
    responses((status = 200, description = "Suspended", body = Tenant)))]
async fn suspend(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(id): At<Uuid>,
) -> Result<Response, Problem> {
    known(&dashboard, &actor, id).await?;
    tenants::suspend(&dashboard, &actor, id).await?;
    show(&dashboard, &actor, id).await
}

/// Make a suspended tenant active again
///
/// For operators.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/resume", tag = "tenants", operation_id = "resumeTenant",
    responses((status = 200, description = "Active", body = Tenant)))]
async fn resume(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(id): At<Uuid>,
) -> Result<Response, Problem> {
    known(&dashboard, &actor, id).await?;
    tenants::resume(&dashboard, &actor, id).await?;
    show(&dashboard, &actor, id).await
}

async fn show(dashboard: &Dashboard, actor: &Actor, id: Uuid) -> Result<Response, Problem> {
    let tenant = tenants::read(dashboard, actor, id).await?;
    Ok(Entity(Tenant::from(tenant)).into_response())
}

/// That the caller may know of this tenant: to others it does not exist, whatever they ask of it.
pub(super) async fn known(dashboard: &Dashboard, actor: &Actor, tenant: Uuid) -> Result<(), Problem> {
    tenants::read(dashboard, actor, tenant).await?;
    Ok(())
}
