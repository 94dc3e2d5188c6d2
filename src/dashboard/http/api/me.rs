//! `/me`: who the dashboard takes the caller for, and where he may work.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::api_keys::ApiKey;
use super::entity::{Entity, uncached};
use super::identity::Caller;
use super::{Here, Problem};
use crate::dashboard::access::{Actor, Principal};
use crate::dashboard::{Dashboard, accounts, api_keys, tenants};

pub(super) fn routes() -> OpenApiRouter<std::sync::Arc<Dashboard>> {
    OpenApiRouter::new().routes(routes!(read))
}

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Me {
    /// As the audit log names the caller.
    #[schema(example = "api-key:4b6e0c6e-6f7b-4d55-9d0c-6b6b2a8d2b0f")]
    actor: String,
    /// Whether the caller operates the platform.
    is_operator: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<Account>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<ApiKey>,
    /// Where the caller is a member; for a key, its tenant.
    tenants: Vec<Membership>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Account {
    id: Uuid,
    #[schema(example = "ada@example.com")]
    email: String,
    #[schema(example = "Ada Lovelace")]
    name: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct Membership {
    tenant: Uuid,
    #[schema(example = "Acme")]
    name: String,
    #[schema(example = "active")]
    state: &'static str,
    #[schema(example = "owner")]
    role: &'static str,
}

/// Who the caller is
#[utoipa::path(get, path = "/api/v1/me", tag = "me", operation_id = "readMe",
    responses((status = 200, description = "The caller", body = Me)))]
async fn read(State(dashboard): Here, Caller(actor): Caller) -> Result<Response, Problem> {
    match actor.principal {
        Principal::ApiKey(id) => Ok(Entity(of_key(&dashboard, &actor, id).await?).into_response()),
        Principal::Account(id) => Ok(Entity(of_account(&dashboard, &actor, id).await?).into_response()),
        _ => {
            let me =
                Me { actor: actor.name(), is_operator: true, account: None, api_key: None, tenants: vec![] };
            Ok(uncached(StatusCode::OK, &me))
        }
    }
}

async fn of_key(dashboard: &Dashboard, actor: &Actor, id: Uuid) -> Result<Me, Problem> {
    let key = api_keys::own(dashboard, id).await?;
    let mut memberships = Vec::new();
    if let Some(tenant) = key.tenant {
        let tenant = tenants::read(dashboard, actor, tenant).await?;
        memberships.push(Membership {
            tenant: tenant.id,
            name: tenant.name,
            state: tenant.state.as_str(),
            role: key.role.as_str(),
        });
    }
    Ok(Me {
        actor: actor.name(),
        is_operator: key.tenant.is_none(),
        account: None,
        api_key: Some(key.into()),
        tenants: memberships,
    })
}

async fn of_account(dashboard: &Dashboard, actor: &Actor, id: Uuid) -> Result<Me, Problem> {
    let missing = || Problem::unauthorized("the account is disabled");
    let account = accounts::find(dashboard, id).await?.ok_or_else(missing)?;
    let memberships = tenants::of_account(dashboard, id).await?;
    let each = |(tenant, role): (tenants::Tenant, crate::dashboard::access::Role)| Membership {
        tenant: tenant.id,
        name: tenant.name,
        state: tenant.state.as_str(),
        role: role.as_str(),
    };
    Ok(Me {
        actor: actor.name(),
        is_operator: account.is_operator,
        account: Some(Account { id: account.id, email: account.email, name: account.name }),
        api_key: None,
        tenants: memberships.into_iter().map(each).collect(),
    })
}
