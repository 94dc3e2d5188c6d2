//! Which app is on which plan: looked at, tried out, picked, cancelled.
//!
//! What a pick costs is agreed on with a quote: a preview gives one, and a pick that is handed it does exactly what the
//! preview showed, or is refused. So nothing here needs `If-Match`.

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
use super::input::{Asked, At, Payload};
use super::invoices::{Line, Period};
use super::page::{Page, Paging};
use super::plans::Plan;
use super::tenants::known;
use super::{Here, Problem};
use crate::dashboard::access::Actor;
use crate::dashboard::subscriptions::{self, AppId, AppPlan, QUOTE_LIFE_S, Quote};
use crate::dashboard::{Dashboard, apps};

pub(super) fn routes() -> OpenApiRouter<std::sync::Arc<Dashboard>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(read, pick))
        .routes(routes!(preview))
        .routes(routes!(cancel))
        .routes(routes!(uncancel))
        .routes(routes!(end))
}

/// An app's plan. Times are Unix seconds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Subscription {
    id: Uuid,
    app: Uuid,
    /// In the version that the subscription was made with, which may be an older one than is on offer.
    plan: Plan,
    #[schema(value_type = SubscriptionState)]
    state: &'static str,
    period_start: i64,
    /// When it is renewed; for a cancelled one, when it ends.
    period_end: i64,
    #[schema(required)]
    cancelled_at: Option<i64>,
    /// Since when an invoice of it is overdue.
    #[schema(required)]
    past_due_at: Option<i64>,
    /// Since when the app gets no tokens, because nobody has paid in the grace.
    #[schema(required)]
    disabled_at: Option<i64>,
}

/// `past_due` is a payment's grace, `cancelled` runs to its period's end.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "names what Subscription's `state` can be, for the document")]
enum SubscriptionState {
    Active,
    PastDue,
    Cancelled,
}

impl From<subscriptions::Subscription> for Subscription {
    fn from(found: subscriptions::Subscription) -> Self {
        Self {
            id: found.id,
            app: found.app,
            state: found.state.as_str(),
            period_start: found.period_start,
            period_end: found.period_end,
            cancelled_at: found.cancelled_at,
            past_due_at: found.past_due_at,
            disabled_at: found.disabled_at,
            plan: found.plan.into(),
        }
    }
}

/// An app with its plan, for everybody in the tenant.
#[derive(Debug, Serialize, ToSchema)]
struct AppSubscription {
    app: Uuid,
    #[schema(example = "Notes")]
    name: String,
    #[schema(example = "aws-eu-west-1")]
    region: &'static str,
    /// Null: the app has no plan, and gets no tokens.
    #[schema(required)]
    subscription: Option<Subscription>,
}

impl From<AppPlan> for AppSubscription {
    fn from(found: AppPlan) -> Self {
        let AppPlan { app, name, region, subscription } = found;
        Self { app, name, region: region.code(), subscription: subscription.map(Subscription::from) }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SubscriptionsQuery {
    /// At most so many, 50 if it is left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// List a tenant's apps with their plans
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/subscriptions", tag = "subscriptions",
    operation_id = "listSubscriptions", params(SubscriptionsQuery),
    responses((status = 200, description = "A page of apps with their plans, by app", body = Page<AppSubscription>)))]
async fn list(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(tenant): At<Uuid>,
    Asked(query): Asked<SubscriptionsQuery>,
    uri: Uri,
) -> Result<Response, Problem> {
    let paging = Paging::new("subscriptions", &uri, query.limit, query.cursor.as_deref())?;
    known(&dashboard, &actor, tenant).await?;
    let found = subscriptions::list(&dashboard, &actor, tenant).await?;
    let found = found.into_iter().map(AppSubscription::from).collect();
    Ok(paging.render_part(found, |app| app.app.to_string()))
}

/// Read an app's subscription
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/apps/{app}/subscription", tag = "subscriptions",
    operation_id = "readSubscription",
    responses((status = 200, description = "The subscription", body = Subscription)))]
async fn read(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, app)): At<(Uuid, Uuid)>,
) -> Result<Response, Problem> {
    let app = locate(&dashboard, &actor, tenant, app).await?;
    Ok(Entity(find(&dashboard, &actor, app).await?).into_response())
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "plan": "pro" }))]
struct PlanChoice {
    /// The plan's id.
    plan: String,
}

/// An invoice that is not issued.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct InvoicePreview {
    /// When it would be issued, Unix seconds.
    at: i64,
    lines: Vec<Line>,
    total_cents: i64,
    #[schema(example = "USD")]
    currency: String,
}

impl From<subscriptions::InvoicePreview> for InvoicePreview {
    fn from(shown: subscriptions::InvoicePreview) -> Self {
        let subscriptions::InvoicePreview { at, lines, total_cents, currency } = shown;
        Self { at, lines: lines.into_iter().map(Line::from).collect(), total_cents, currency }
    }
}

/// What picking a plan would do, to the second.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PlanPreview {
    /// Hand it in with the pick to get exactly this.
    #[schema(example = "1800000000.7.2")]
    quote: String,
    /// Until when it can be handed in, Unix seconds; any change of the tenant's billing ends it earlier.
    valid_until: i64,
    /// The plan that the app has now.
    #[schema(required)]
    current: Option<Plan>,
    plan: Plan,
    /// The period that runs afterwards.
    period: Period,
    /// What the change itself charges, and credits (negative).
    lines: Vec<Line>,
    /// The invoice that is issued at once; null: the lines are on the next one.
    #[schema(required)]
    invoice_now: Option<InvoicePreview>,
    /// Credit of the change that pays invoices which are open.
    credit_spent_cents: i64,
    /// The invoice at the period's end, if nothing else happens until then; null on a free plan.
    #[schema(required)]
    next_invoice: Option<InvoicePreview>,
}

/// Look at what picking a plan would cost
///
/// Changes nothing. Proration is to the second, in cents; the quote lasts 15 minutes.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/apps/{app}/subscription/preview", tag = "subscriptions",
    operation_id = "previewSubscription", request_body = PlanChoice,
    responses((status = 200, description = "What would happen", body = PlanPreview)))]
async fn preview(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, app)): At<(Uuid, Uuid)>,
    Payload(choice): Payload<PlanChoice>,
) -> Result<Response, Problem> {
    let app = locate(&dashboard, &actor, tenant, app).await?;
    let shown = subscriptions::preview(&dashboard, &actor, app, &choice.plan).await?;
    let body = PlanPreview {
        quote: shown.quote.to_string(),
        valid_until: shown.quote.at + QUOTE_LIFE_S,
        current: shown.current.map(Plan::from),
        plan: shown.plan.into(),
        period: shown.period.into(),
        lines: shown.lines.into_iter().map(Line::from).collect(),
        invoice_now: shown.invoice_now.map(InvoicePreview::from),
        credit_spent_cents: shown.credit_spent_cents,
        next_invoice: shown.next_invoice.map(InvoicePreview::from),
    };
    Ok(uncached(StatusCode::OK, &body))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "plan": "pro", "quote": "1800000000.7.2" }))]
struct PlanPick {
    /// The plan's id.
    plan: String,
    /// Of a preview: it costs what that showed, or the pick is refused (409). Left out: what it costs now.
    quote: Option<String>,
}

/// A plan has been picked.
#[derive(Debug, Serialize, ToSchema)]
struct PickedPlan {
    subscription: Subscription,
    /// The invoice that was issued at once.
    #[schema(required)]
    invoice: Option<Uuid>,
}

/// Put an app on a plan
///
/// Its first one, or another than it has; a cancellation is taken back by it. The app's next token has the new limits,
/// and nodes hear of them at once.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/apps/{app}/subscription", tag = "subscriptions",
    operation_id = "pickPlan", request_body = PlanPick,
    responses((status = 200, description = "Picked", body = PickedPlan)))]
async fn pick(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, app)): At<(Uuid, Uuid)>,
    Payload(choice): Payload<PlanPick>,
) -> Result<Response, Problem> {
    let app = locate(&dashboard, &actor, tenant, app).await?;
    let quote = choice.quote.as_deref().map(str::parse::<Quote>).transpose();
    let quote = quote.map_err(|error| Problem::invalid("/quote", error.to_string()))?;
    let picked = subscriptions::pick(&dashboard, &actor, app, &choice.plan, quote).await?;
    let subscription = find(&dashboard, &actor, app).await?;
    Ok(uncached(StatusCode::OK, &PickedPlan { subscription, invoice: picked.invoice }))
}

/// Cancel an app's subscription
///
/// It runs to its period's end, and is not renewed.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/apps/{app}/subscription/cancel", tag = "subscriptions",
    operation_id = "cancelSubscription",
    responses((status = 200, description = "Cancelled", body = Subscription)))]
async fn cancel(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, app)): At<(Uuid, Uuid)>,
) -> Result<Response, Problem> {
    let app = locate(&dashboard, &actor, tenant, app).await?;
    subscriptions::cancel(&dashboard, &actor, app).await?;
    Ok(Entity(find(&dashboard, &actor, app).await?).into_response())
}

/// Take a cancellation back
///
/// As long as the period runs.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/apps/{app}/subscription/uncancel", tag = "subscriptions",
    operation_id = "uncancelSubscription",
    responses((status = 200, description = "It is renewed again", body = Subscription)))]
async fn uncancel(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, app)): At<(Uuid, Uuid)>,
) -> Result<Response, Problem> {
    let app = locate(&dashboard, &actor, tenant, app).await?;
    subscriptions::uncancel(&dashboard, &actor, app).await?;
    Ok(Entity(find(&dashboard, &actor, app).await?).into_response())
}

/// End an app's subscription at once
///
/// For operators. What is left of a paid period is credited, and the app gets no more tokens.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/apps/{app}/subscription/end", tag = "subscriptions",
    operation_id = "endSubscription", responses((status = 204, description = "Ended")))]
async fn end(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, app)): At<(Uuid, Uuid)>,
) -> Result<StatusCode, Problem> {
    let app = locate(&dashboard, &actor, tenant, app).await?;
    subscriptions::end_now(&dashboard, &actor, app).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The app, for whoever may know of its tenant: those who pay may not read apps.
pub(super) async fn locate(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    app: Uuid,
) -> Result<AppId, Problem> {
    known(dashboard, actor, tenant).await?;
    let found = apps::find(dashboard, tenant, app).await?;
    let found = found.ok_or_else(|| Problem::not_found("there is no such app"))?;
    Ok(AppId::from(&found))
}

async fn find(dashboard: &Dashboard, actor: &Actor, app: AppId) -> Result<Subscription, Problem> {
    let found = subscriptions::read(dashboard, actor, app).await?;
    let found = found.ok_or_else(|| Problem::not_found("this app has no plan; pick one"))?;
    Ok(found.into())
}
