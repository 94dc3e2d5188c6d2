//! The plan catalogue, for everybody who is known.

use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::entity::Entity;
use super::identity::Caller;
use super::input::{Asked, At};
use super::page::{Page, Paging};
use super::{Here, Problem};
use crate::dashboard::{Dashboard, plans};

pub(super) fn routes() -> OpenApiRouter<std::sync::Arc<Dashboard>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read))
}

/// Four limits and a price.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "id": "starter", "name": "Starter", "limits": { "maxConnections": 1000,
    "maxDocuments": 1000, "maxUsersPerDoc": 50, "opsPerMinute": 60_000 }, "priceCents": 2900, "currency": "USD",
    "period": "month", "isOffered": true }))]
struct Plan {
    id: String,
    name: String,
    limits: Limits,
    /// For one period.
    price_cents: i64,
    currency: String,
    /// `month` or `year`.
    period: &'static str,
    /// Whether it can be newly subscribed to.
    is_offered: bool,
}

/// As tokens carry them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Limits {
    max_connections: i64,
    max_documents: i64,
    max_users_per_doc: i64,
    ops_per_minute: i64,
}

impl From<plans::Plan> for Plan {
    fn from(plan: plans::Plan) -> Self {
        Self {
            id: plan.id,
            name: plan.name,
            limits: Limits {
                max_connections: plan.max_connections,
                max_documents: plan.max_documents,
                max_users_per_doc: plan.max_users_per_doc,
                ops_per_minute: plan.ops_per_minute,
            },
            price_cents: plan.price_cents,
            currency: plan.currency,
            period: plan.period.as_str(),
            is_offered: plan.is_offered,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PlansQuery {
    /// At most so many, 50 if it is left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// List the plans
#[utoipa::path(get, path = "/api/v1/plans", tag = "plans", operation_id = "listPlans", params(PlansQuery),
    responses((status = 200, description = "A page of plans, cheapest first", body = Page<Plan>)))]
async fn list(
    State(dashboard): Here,
    Caller(_): Caller,
    Asked(query): Asked<PlansQuery>,
    uri: Uri,
) -> Result<Response, Problem> {
    let paging = Paging::new("plans", &uri, query.limit, query.cursor.as_deref())?;
    let found = plans::list(&dashboard).await?.into_iter().map(Plan::from).collect();
    Ok(paging.render_part(found, |plan| format!("{:020} {}", plan.price_cents, plan.id)))
}

/// Read a plan
#[utoipa::path(get, path = "/api/v1/plans/{plan}", tag = "plans", operation_id = "readPlan",
    responses((status = 200, description = "The plan", body = Plan)))]
async fn read(State(dashboard): Here, Caller(_): Caller, At(id): At<String>) -> Result<Response, Problem> {
    let found = plans::find(&dashboard, &id).await?;
    let plan = found.ok_or_else(|| Problem::not_found("there is no such plan"))?;
    Ok(Entity(Plan::from(plan)).into_response())
}
