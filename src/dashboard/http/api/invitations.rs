//! Invitations to a tenant: made and withdrawn by its members, accepted by whoever got the mail.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::entity::{Entity, created, uncached};
use super::identity::{Anybody, Caller};
use super::input::{Asked, At, Payload};
use super::members::MemberRole;
use super::page::{Page, Paging};
use super::tenants::known;
use super::{Here, Problem};
use crate::dashboard::Dashboard;
use crate::dashboard::access::Actor;
use crate::dashboard::invitations::{self, InvitationError, Newcomer};

/// Who failed, when wrong invitation tokens are counted.
const INVITATION: &str = "invitation";

pub(super) fn routes() -> OpenApiRouter<std::sync::Arc<Dashboard>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, withdraw))
        .routes(routes!(look))
        .routes(routes!(accept))
}

/// Somebody who was asked to join a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "id": "2b1c64b1-0f4c-4f33-9f0e-1d8a3f1f7c55", "email": "grace@example.com",
    "role": "developer", "state": "open", "invitedBy": "account:0d0a5a0c-38f4-4a0e-8b7c-52c3b2f0a3a1",
    "createdAt": 1_800_000_000, "expiresAt": 1_800_604_800 }))]
struct Invitation {
    id: Uuid,
    email: String,
    #[schema(value_type = MemberRole)]
    role: &'static str,
    #[schema(value_type = InvitationState)]
    state: &'static str,
    /// As the audit log names whoever invited.
    invited_by: String,
    /// Unix seconds.
    created_at: i64,
    /// Unix seconds.
    expires_at: i64,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum InvitationState {
    Open,
    Accepted,
    Withdrawn,
    Expired,
}

impl From<InvitationState> for invitations::InvitationState {
    fn from(state: InvitationState) -> Self {
        match state {
            InvitationState::Open => Self::Open,
            InvitationState::Accepted => Self::Accepted,
            InvitationState::Withdrawn => Self::Withdrawn,
            InvitationState::Expired => Self::Expired,
        }
    }
}

impl From<invitations::Invitation> for Invitation {
    fn from(from: invitations::Invitation) -> Self {
        let invitations::Invitation { id, email, role, invited_by, state, created_at, expires_at, .. } = from;
        Self { id, email, role: role.as_str(), state: state.as_str(), invited_by, created_at, expires_at }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct InvitationsQuery {
    /// At most so many, 50 if it is left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only invitations in this state.
    state: Option<InvitationState>,
}

/// List a tenant's invitations
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/invitations", tag = "invitations",
    operation_id = "listInvitations", params(InvitationsQuery),
    responses((status = 200, description = "A page of invitations", body = Page<Invitation>)))]
async fn list(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(tenant): At<Uuid>,
    Asked(query): Asked<InvitationsQuery>,
    uri: Uri,
) -> Result<Response, Problem> {
    let paging = Paging::new("invitations", &uri, query.limit, query.cursor.as_deref())?;
    known(&dashboard, &actor, tenant).await?;
    let (state, after) = (query.state.map(Into::into), paging.after_as()?);
    let found = invitations::list(&dashboard, &actor, tenant, state, after, paging.to_read()).await?;
    Ok(paging.render(found.into_iter().map(Invitation::from).collect(), |found| found.id.to_string()))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "email": "grace@example.com", "role": "developer" }))]
struct NewInvitation {
    email: String,
    role: MemberRole,
}

/// Invite somebody by e-mail
///
/// The mail has a link that is good once, for seven days.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/invitations", tag = "invitations",
    operation_id = "createInvitation", request_body = NewInvitation,
    responses((status = 201, description = "Invited; the mail is out", body = Invitation)))]
async fn create(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(tenant): At<Uuid>,
    Payload(new): Payload<NewInvitation>,
) -> Result<Response, Problem> {
    known(&dashboard, &actor, tenant).await?;
    let made = invitations::create(&dashboard, &actor, tenant, &new.email, new.role.into()).await?;
    let location = format!("/api/v1/tenants/{tenant}/invitations/{}", made.id);
    Ok(created(&Invitation::from(made), &location))
}

/// Read an invitation
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/invitations/{invitation}", tag = "invitations",
    operation_id = "readInvitation", responses((status = 200, description = "The invitation", body = Invitation)))]
async fn read(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, id)): At<(Uuid, Uuid)>,
) -> Result<Response, Problem> {
    let found = invitations::read(&dashboard, &actor, tenant, id).await?;
    Ok(Entity(Invitation::from(found)).into_response())
}

/// Withdraw an open invitation
///
/// Its link is dead at once. Needs no `If-Match`: an invitation is never edited.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/invitations/{invitation}", tag = "invitations",
    operation_id = "withdrawInvitation", responses((status = 204, description = "Withdrawn")))]
async fn withdraw(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, id)): At<(Uuid, Uuid)>,
) -> Result<StatusCode, Problem> {
    invitations::withdraw(&dashboard, &actor, tenant, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "token": "wsi_…" }))]
struct InvitationToken {
    /// What the link has behind its `#`.
    token: String,
}

/// What an invitation is about.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct InvitationPreview {
    #[schema(example = "Acme")]
    tenant_name: String,
    #[schema(example = "grace@example.com")]
    email: String,
    #[schema(value_type = MemberRole)]
    role: &'static str,
    /// Whether there is an account with this address; if not, accepting makes one.
    has_account: bool,
    /// Unix seconds.
    expires_at: i64,
}

/// Look at an invitation
///
/// For whoever has the link; changes nothing. It is a POST because a secret belongs in no URL.
#[utoipa::path(post, path = "/api/v1/invitations/look", tag = "invitations", operation_id = "lookAtInvitation",
    request_body = InvitationToken, security(()),
    responses((status = 200, description = "The invitation is good", body = InvitationPreview)))]
async fn look(
    State(dashboard): Here,
    Anybody(actor): Anybody,
    Payload(body): Payload<InvitationToken>,
) -> Result<Response, Problem> {
    dashboard.may_try(actor.address, INVITATION).map_err(Problem::too_many_requests)?;
    let found = invitations::look(&dashboard, &body.token).await;
    let found = counted(&dashboard, &actor, found)?;
    let preview = InvitationPreview {
        tenant_name: found.tenant_name,
        email: found.invitation.email,
        role: found.invitation.role.as_str(),
        has_account: found.has_account,
        expires_at: found.invitation.expires_at,
    };
    Ok(uncached(StatusCode::OK, &preview))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "token": "wsi_…", "name": "Grace Hopper", "password": "correct horse battery" }))]
struct Acceptance {
    /// What the link has behind its `#`.
    token: String,
    /// Only if there is no account with the invited address yet.
    name: Option<String>,
    /// Goes with `name`: 12 characters or more.
    #[schema(min_length = 12, format = Password)]
    password: Option<String>,
}

/// A membership that has begun.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Accepted {
    tenant_id: Uuid,
    account_id: Uuid,
    #[schema(value_type = MemberRole)]
    role: &'static str,
    is_new_account: bool,
}

/// Accept an invitation
///
/// The account with the invited address joins; if there is none, `name` and `password` make it.
#[utoipa::path(post, path = "/api/v1/invitations/accept", tag = "invitations", operation_id = "acceptInvitation",
    request_body = Acceptance, security(()),
    responses((status = 200, description = "Joined", body = Accepted)))]
async fn accept(
    State(dashboard): Here,
    Anybody(actor): Anybody,
    Payload(body): Payload<Acceptance>,
) -> Result<Response, Problem> {
    dashboard.may_try(actor.address, INVITATION).map_err(Problem::too_many_requests)?;
    let newcomer = match (&body.name, &body.password) {
        (Some(name), Some(password)) => Some(Newcomer { name, password }),
        (None, None) => None,
        (Some(_), None) => return Err(Problem::invalid("/password", "name and password go together")),
        (None, Some(_)) => return Err(Problem::invalid("/name", "name and password go together")),
    };
    let accepted = invitations::accept(&dashboard, &actor, &body.token, newcomer).await;
    let accepted = counted(&dashboard, &actor, accepted)?;
    let body = Accepted {
        tenant_id: accepted.tenant,
        account_id: accepted.account,
        role: accepted.role.as_str(),
        is_new_account: accepted.is_new_account,
    };
    Ok(uncached(StatusCode::OK, &body))
}

/// Counts a wrong token against the address that tried it.
fn counted<T>(
    dashboard: &Dashboard,
    actor: &Actor,
    result: Result<T, InvitationError>,
) -> Result<T, InvitationError> {
    if matches!(result, Err(InvitationError::Token)) {
        dashboard.count_failure(actor.address, INVITATION);
    }
    result
}
