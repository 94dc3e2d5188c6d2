//! The plan catalogue: read by everybody who is known, changed by operators.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::entity::{Entity, IfMatch, created};
use super::identity::Caller;
use super::input::{Asked, At, Payload};
use super::page::{Page, Paging};
use super::{Here, Problem};
use crate::dashboard::access::Actor;
use crate::dashboard::billing::Cadence;
use crate::dashboard::plans::PlanTerms;
use crate::dashboard::{Dashboard, plans};

pub(super) fn routes() -> OpenApiRouter<Arc<Dashboard>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, change))
        .routes(routes!(offer))
        .routes(routes!(retire))
}

/// Four limits and a price. A plan's versions never change: a subscription keeps the one that it was made with.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "id": "starter", "version": 1, "name": "Starter", "limits": { "maxConnections": 1000,
    "maxDocuments": 1000, "maxUsersPerDoc": 50, "opsPerMinute": 60_000 }, "priceCents": 2900, "currency": "USD",
    "period": "month", "isOffered": true }))]
pub(super) struct Plan {
    id: String,
    version: i64,
    name: String,
    limits: Limits,
    /// For one period.
    price_cents: i64,
    currency: String,
    period: Period,
    /// Whether it can be newly subscribed to.
    is_offered: bool,
}

/// As tokens carry them.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Limits {
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    max_connections: i64,
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    max_documents: i64,
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    max_users_per_doc: i64,
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    ops_per_minute: i64,
}

/// How often the price is due.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PlanPeriod)]
enum Period {
    Month,
    Year,
}

impl From<Cadence> for Period {
    fn from(cadence: Cadence) -> Self {
        match cadence {
            Cadence::Month => Self::Month,
            Cadence::Year => Self::Year,
        }
    }
}

impl From<Period> for Cadence {
    fn from(period: Period) -> Self {
        match period {
            Period::Month => Self::Month,
            Period::Year => Self::Year,
        }
    }
}

impl From<&plans::Plan> for Limits {
    fn from(plan: &plans::Plan) -> Self {
        Self {
            max_connections: plan.max_connections,
            max_documents: plan.max_documents,
            max_users_per_doc: plan.max_users_per_doc,
            ops_per_minute: plan.ops_per_minute,
        }
    }
}

impl From<plans::Plan> for Plan {
    fn from(plan: plans::Plan) -> Self {
        Self {
            limits: Limits::from(&plan),
            id: plan.id,
            version: plan.version,
            name: plan.name,
            price_cents: plan.price_cents,
            currency: plan.currency,
            period: plan.period.into(),
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
///
/// In its newest version.
#[utoipa::path(get, path = "/api/v1/plans/{plan}", tag = "plans", operation_id = "readPlan",
    responses((status = 200, description = "The plan", body = Plan)))]
async fn read(State(dashboard): Here, Caller(_): Caller, At(id): At<String>) -> Result<Response, Problem> {
    Ok(Entity(Plan::from(find(&dashboard, &id).await?)).into_response())
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewPlan, example = json!({ "id": "team", "name": "Team", "limits": { "maxConnections": 5000,
    "maxDocuments": 5000, "maxUsersPerDoc": 100, "opsPerMinute": 300_000 }, "priceCents": 9900, "currency": "USD",
    "period": "month" }))]
struct NewPlanBody {
    /// 1 to 40 of a-z, 0-9 and hyphens; it stays.
    #[schema(min_length = 1, max_length = 40, pattern = "^[a-z0-9-]+$")]
    id: String,
    /// 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    limits: Limits,
    /// 0: free.
    #[schema(minimum = 0, maximum = 100_000_000)]
    price_cents: i64,
    /// ISO 4217.
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: String,
    period: Period,
}

/// Add a plan to the catalogue
///
/// For operators. It is on offer at once.
#[utoipa::path(post, path = "/api/v1/plans", tag = "plans", operation_id = "createPlan", request_body = NewPlanBody,
    responses((status = 201, description = "Made", body = Plan)))]
async fn create(
    State(dashboard): Here,
    Caller(actor): Caller,
    Payload(body): Payload<NewPlanBody>,
) -> Result<Response, Problem> {
    let NewPlanBody { id, name, limits, price_cents, currency, period } = body;
    let terms = PlanChange { name, limits, price_cents, currency, period }.into();
    let plan = plans::create(&dashboard, &actor, &id, terms).await?;
    let location = format!("/api/v1/plans/{}", plan.id);
    Ok(created(&Plan::from(plan), &location))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "name": "Team", "limits": { "maxConnections": 10_000, "maxDocuments": 10_000,
    "maxUsersPerDoc": 100, "opsPerMinute": 300_000 }, "priceCents": 9900, "currency": "USD", "period": "month" }))]
struct PlanChange {
    /// 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    limits: Limits,
    /// 0: free.
    #[schema(minimum = 0, maximum = 100_000_000)]
    price_cents: i64,
    /// ISO 4217.
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: String,
    period: Period,
}

impl From<PlanChange> for PlanTerms {
    fn from(change: PlanChange) -> Self {
        let PlanChange { name, limits, price_cents, currency, period } = change;
        Self {
            name,
            max_connections: limits.max_connections,
            max_documents: limits.max_documents,
            max_users_per_doc: limits.max_users_per_doc,
            ops_per_minute: limits.ops_per_minute,
            price_cents,
            currency,
            period: period.into(),
        }
    }
}

/// Give a plan new terms
///
/// For operators. Makes a new version, for those who pick the plan from now on; who has it keeps the version that he has.
#[utoipa::path(put, path = "/api/v1/plans/{plan}", tag = "plans", operation_id = "changePlan",
    request_body = PlanChange, responses((status = 200, description = "The new version", body = Plan)))]
async fn change(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(id): At<String>,
    if_match: IfMatch,
    Payload(body): Payload<PlanChange>,
) -> Result<Response, Problem> {
    let plan = find(&dashboard, &id).await?;
    let version = plan.version;
    if_match.check(&Plan::from(plan))?;
    let plan = plans::change(&dashboard, &actor, &id, version, body.into()).await?;
    Ok(Entity(Plan::from(plan)).into_response())
}

/// Put a plan on offer again
///
/// For operators.
#[utoipa::path(post, path = "/api/v1/plans/{plan}/offer", tag = "plans", operation_id = "offerPlan",
    responses((status = 200, description = "It can be picked", body = Plan)))]
async fn offer(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(id): At<String>,
) -> Result<Response, Problem> {
    set_offered(&dashboard, &actor, &id, true).await
}

/// Take a plan off the offer
///
/// For operators. Who has it keeps it, and is renewed.
#[utoipa::path(post, path = "/api/v1/plans/{plan}/retire", tag = "plans", operation_id = "retirePlan",
    responses((status = 200, description = "It can't be picked any more", body = Plan)))]
async fn retire(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(id): At<String>,
) -> Result<Response, Problem> {
    set_offered(&dashboard, &actor, &id, false).await
}

async fn set_offered(
    dashboard: &Dashboard,
    actor: &Actor,
    id: &str,
    is_offered: bool,
) -> Result<Response, Problem> {
    plans::offer(dashboard, actor, id, is_offered).await?;
    Ok(Entity(Plan::from(find(dashboard, id).await?)).into_response())
}

async fn find(dashboard: &Dashboard, id: &str) -> Result<plans::Plan, Problem> {
    plans::find(dashboard, id).await?.ok_or_else(|| Problem::not_found("there is no such plan"))
}
