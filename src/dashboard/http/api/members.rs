//! Members of a tenant and their roles. Who is to become one is invited.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::entity::{Entity, IfMatch};
use super::identity::Caller;
use super::input::{Asked, At, Payload};
use super::page::{Page, Paging};
use super::tenants::known;
use super::{Here, Problem};
use crate::dashboard::Dashboard;
use crate::dashboard::access::{Actor, Role};
use crate::dashboard::members::{self, MemberError};

pub(super) fn routes() -> OpenApiRouter<std::sync::Arc<Dashboard>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read, update, remove))
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum MemberRole {
    Owner,
    Admin,
    Developer,
    Billing,
}

impl From<MemberRole> for Role {
    fn from(role: MemberRole) -> Self {
        match role {
            MemberRole::Owner => Self::Owner,
            MemberRole::Admin => Self::Admin,
            MemberRole::Developer => Self::Developer,
            MemberRole::Billing => Self::Billing,
        }
    }
}

/// Somebody who works for a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "accountId": "0d0a5a0c-38f4-4a0e-8b7c-52c3b2f0a3a1", "email": "ada@example.com",
    "name": "Ada Lovelace", "role": "owner" }))]
struct Member {
    account_id: Uuid,
    email: String,
    name: String,
    #[schema(value_type = MemberRole)]
    role: &'static str,
}

impl From<members::Member> for Member {
    fn from(member: members::Member) -> Self {
        let members::Member { account, email, name, role } = member;
        Self { account_id: account, email, name, role: role.as_str() }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct MembersQuery {
    /// At most so many, 50 if it is left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only members with this role.
    role: Option<MemberRole>,
}

/// List a tenant's members
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/members", tag = "members", operation_id = "listMembers",
    params(MembersQuery), responses((status = 200, description = "A page of members", body = Page<Member>)))]
async fn list(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(tenant): At<Uuid>,
    Asked(query): Asked<MembersQuery>,
    uri: Uri,
) -> Result<Response, Problem> {
    let paging = Paging::new("members", &uri, query.limit, query.cursor.as_deref())?;
    known(&dashboard, &actor, tenant).await?;
    let found = members::list(&dashboard, &actor, tenant).await?;
    let wanted = query.role.map(Role::from);
    let found = found.into_iter().filter(|member| wanted.is_none_or(|role| role == member.role));
    Ok(paging.render_part(found.map(Member::from).collect(), |member| member.email.clone()))
}

/// Read a member
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/members/{account}", tag = "members",
    operation_id = "readMember", responses((status = 200, description = "The member", body = Member)))]
async fn read(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, account)): At<(Uuid, Uuid)>,
) -> Result<Response, Problem> {
    Ok(Entity(Member::from(find(&dashboard, &actor, tenant, account).await?)).into_response())
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "role": "developer" }))]
struct MemberChange {
    role: MemberRole,
}

/// Give a member another role
///
/// Only owners make and unmake owners; a tenant never loses its last one.
#[utoipa::path(patch, path = "/api/v1/tenants/{tenant}/members/{account}", tag = "members",
    operation_id = "updateMember", request_body = MemberChange,
    responses((status = 200, description = "Changed", body = Member)))]
async fn update(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, account)): At<(Uuid, Uuid)>,
    if_match: IfMatch,
    Payload(change): Payload<MemberChange>,
) -> Result<Response, Problem> {
    let member = find(&dashboard, &actor, tenant, account).await?;
    let seen = member.role;
    if_match.check(&Member::from(member))?;
    let role = Some(change.role.into());
    members::change_from(&dashboard, &actor, tenant, account, Some(seen), role).await?;
    Ok(Entity(Member::from(find(&dashboard, &actor, tenant, account).await?)).into_response())
}

/// End a membership
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/members/{account}", tag = "members",
    operation_id = "removeMember", responses((status = 204, description = "No member any more")))]
async fn remove(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, account)): At<(Uuid, Uuid)>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let member = find(&dashboard, &actor, tenant, account).await?;
    let seen = member.role;
    if_match.check(&Member::from(member))?;
    members::change_from(&dashboard, &actor, tenant, account, Some(seen), None).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    account: Uuid,
) -> Result<members::Member, Problem> {
    let found = members::list(dashboard, actor, tenant).await?;
    Ok(found.into_iter().find(|member| member.account == account).ok_or(MemberError::Missing)?)
}
