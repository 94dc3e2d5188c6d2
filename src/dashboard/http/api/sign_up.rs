//! Sign-up: an account and its pending tenant, both or neither.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::entity::uncached;
use super::identity::Anybody;
use super::input::Payload;
use super::{Here, Problem};
use crate::dashboard::Dashboard;
use crate::dashboard::sign_up::{self, Newcomer};

pub(super) fn routes() -> OpenApiRouter<std::sync::Arc<Dashboard>> {
    OpenApiRouter::new().routes(routes!(create))
}

/// Who signs up.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "email": "ada@example.com", "name": "Ada Lovelace",
    "password": "correct horse battery", "tenantName": "Acme" }))]
struct SignUp {
    email: String,
    name: String,
    /// 12 characters or more.
    #[schema(min_length = 12, format = Password)]
    password: String,
    tenant_name: String,
}

/// What was made.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SignedUp {
    account_id: Uuid,
    /// It waits for an operator's approval.
    tenant_id: Uuid,
    #[schema(example = "pending")]
    state: &'static str,
}

/// Sign up
///
/// Makes an account and a tenant that it owns; the tenant is `pending` until an operator approves it.
#[utoipa::path(post, path = "/api/v1/sign-up", tag = "tenants", operation_id = "signUp", request_body = SignUp,
    responses((status = 201, description = "Signed up", body = SignedUp)), security(()))]
async fn create(
    State(dashboard): Here,
    Anybody(actor): Anybody,
    Payload(body): Payload<SignUp>,
) -> Result<Response, Problem> {
    // Each costs a password's hash and a row, and tells whether an address has an account.
    dashboard.admit_sign_up(actor.address).map_err(Problem::too_many_requests)?;
    let SignUp { email, name, password, tenant_name } = &body;
    let newcomer = Newcomer { email, name, password, tenant_name };
    let signed_up = sign_up::sign_up(&dashboard, &actor, newcomer).await?;
    let body = SignedUp { account_id: signed_up.account, tenant_id: signed_up.tenant, state: "pending" };
    Ok(uncached(StatusCode::CREATED, &body))
}
