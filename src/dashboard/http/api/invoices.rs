//! Invoices: read by those who pay, settled by operators.

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
use super::page::{Page, Paging};
use super::tenants::known;
use super::{Here, Problem};
use crate::dashboard::Dashboard;
use crate::dashboard::access::Actor;
use crate::dashboard::billing::invoices::{self, InvoiceDetail, InvoiceError, PaymentRecord};
use crate::dashboard::billing::providers::Collection;
use crate::dashboard::billing::{self, Span};

const RETURN_TO_BYTES_MAX: usize = 2000;

pub(super) fn routes() -> OpenApiRouter<std::sync::Arc<Dashboard>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(list_open))
        .routes(routes!(read))
        .routes(routes!(mark_paid))
        .routes(routes!(write_off))
        .routes(routes!(checkout))
}

/// What a subscription costs. Its lines and its total never change; what became of it stands beside them. Times are Unix
/// seconds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "id": "0b7c2a54-7d2e-4f0b-9a60-2f6b0f7f3c11", "number": 12,
    "tenantId": "6c4a2f5e-5b1f-4a7c-9c39-0d2d5a6a7b11", "appId": "9a8d2f64-1f3b-4b5e-8f11-6f6a8c1d2e3f",
    "subscriptionId": "4b6e0c6e-6f7b-4d55-9d0c-6b6b2a8d2b0f", "currency": "USD", "state": "open",
    "totalCents": 2900, "creditedCents": 400, "paidCents": 0, "refundedCents": 0, "dueCents": 2500,
    "issuedAt": 1_800_000_000, "dueAt": 1_800_604_800, "settledAt": null }))]
struct Invoice {
    id: Uuid,
    /// From 1 on, without gaps, over all tenants.
    number: i64,
    tenant_id: Uuid,
    app_id: Uuid,
    subscription_id: Uuid,
    currency: String,
    #[schema(value_type = InvoiceState)]
    state: &'static str,
    /// The sum of its lines.
    total_cents: i64,
    /// Settled with credit that arose after it was issued.
    credited_cents: i64,
    paid_cents: i64,
    refunded_cents: i64,
    /// What is still to be paid.
    due_cents: i64,
    issued_at: i64,
    due_at: i64,
    #[schema(required)]
    settled_at: Option<i64>,
}

/// `void`: written off.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "names what Invoice's `state` can be, for the document")]
enum InvoiceState {
    Open,
    Paid,
    Void,
    Refunded,
}

impl From<invoices::Invoice> for Invoice {
    fn from(invoice: invoices::Invoice) -> Self {
        Self {
            id: invoice.id,
            number: invoice.number,
            tenant_id: invoice.tenant,
            app_id: invoice.app,
            subscription_id: invoice.subscription,
            state: invoice.state.as_str(),
            total_cents: invoice.total_cents,
            credited_cents: invoice.credited_cents,
            paid_cents: invoice.paid_cents,
            refunded_cents: invoice.refunded_cents,
            due_cents: invoice.due_cents(),
            issued_at: invoice.issued_at,
            due_at: invoice.due_at,
            settled_at: invoice.settled_at,
            currency: invoice.currency,
        }
    }
}

/// A stretch of time, its end excluded; Unix seconds.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Period {
    start: i64,
    end: i64,
}

impl From<Span> for Period {
    fn from(Span { start, end }: Span) -> Self {
        Self { start, end }
    }
}

/// A charge, or a credit if it is negative.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "kind": "period", "description": "Starter, 2027-01-15 to 2027-02-15", "amountCents": 2900,
    "period": { "start": 1_800_000_000, "end": 1_802_678_400 } }))]
pub(super) struct Line {
    #[schema(value_type = LineKind)]
    kind: &'static str,
    description: String,
    amount_cents: i64,
    /// What it is charged for.
    #[schema(required)]
    period: Option<Period>,
}

/// `period` is a whole one's price, `unused` and `remaining` are what a change of plan gives back and charges; the others
/// are credits on their way.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "names what Line's `kind` can be, for the document")]
enum LineKind {
    Period,
    Unused,
    Remaining,
    CarriedOver,
    Credit,
    CreditSpent,
}

impl From<billing::Line> for Line {
    fn from(line: billing::Line) -> Self {
        let billing::Line { kind, description, amount_cents, span } = line;
        Self { kind: kind.as_str(), description, amount_cents, period: span.map(Period::from) }
    }
}

/// Money that came in, or went back.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "kind": "payment", "provider": "manual", "amountCents": 2500,
    "reference": "transfer of 2027-01-20", "at": 1_800_432_000 }))]
struct Payment {
    /// `payment` or `refund`.
    kind: &'static str,
    provider: String,
    amount_cents: i64,
    reference: String,
    /// Unix seconds.
    at: i64,
}

impl From<PaymentRecord> for Payment {
    fn from(record: PaymentRecord) -> Self {
        let PaymentRecord { kind, provider, amount_cents, reference, at } = record;
        Self { kind: kind.as_str(), provider, amount_cents, reference, at }
    }
}

/// An invoice with its lines and payments.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WholeInvoice {
    #[serde(flatten)]
    invoice: Invoice,
    lines: Vec<Line>,
    payments: Vec<Payment>,
}

impl From<InvoiceDetail> for WholeInvoice {
    fn from(detail: InvoiceDetail) -> Self {
        Self {
            invoice: detail.invoice.into(),
            lines: detail.lines.into_iter().map(Line::from).collect(),
            payments: detail.payments.into_iter().map(Payment::from).collect(),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct InvoicesQuery {
    /// At most so many, 50 if it is left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// List a tenant's invoices
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/invoices", tag = "invoices", operation_id = "listInvoices",
    params(InvoicesQuery), responses((status = 200, description = "A page of invoices, newest first", body = Page<Invoice>)))]
async fn list(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(tenant): At<Uuid>,
    Asked(query): Asked<InvoicesQuery>,
    uri: Uri,
) -> Result<Response, Problem> {
    let paging = Paging::new("invoices", &uri, query.limit, query.cursor.as_deref())?;
    let before = paging.after_as()?;
    known(&dashboard, &actor, tenant).await?;
    let found = invoices::list(&dashboard, &actor, tenant, before, paging.to_read()).await?;
    let found = found.into_iter().map(Invoice::from).collect();
    Ok(paging.render(found, |invoice: &Invoice| invoice.number.to_string()))
}

/// List every tenant's open invoices
///
/// For operators.
#[utoipa::path(get, path = "/api/v1/invoices", tag = "invoices", operation_id = "listOpenInvoices",
    params(InvoicesQuery), responses((status = 200, description = "A page of invoices, oldest first", body = Page<Invoice>)))]
async fn list_open(
    State(dashboard): Here,
    Caller(actor): Caller,
    Asked(query): Asked<InvoicesQuery>,
    uri: Uri,
) -> Result<Response, Problem> {
    let paging = Paging::new("open invoices", &uri, query.limit, query.cursor.as_deref())?;
    let after = paging.after_as()?.unwrap_or(0);
    let found = invoices::list_open(&dashboard, &actor, after, paging.to_read()).await?;
    let found = found.into_iter().map(Invoice::from).collect();
    Ok(paging.render(found, |invoice: &Invoice| invoice.number.to_string()))
}

/// Read an invoice
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/invoices/{invoice}", tag = "invoices",
    operation_id = "readInvoice",
    responses((status = 200, description = "The invoice, its lines and payments", body = WholeInvoice)))]
async fn read(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, invoice)): At<(Uuid, Uuid)>,
) -> Result<Response, Problem> {
    show(&dashboard, &actor, tenant, invoice).await
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "reference": "transfer of 2027-01-20" }))]
struct ManualPayment {
    /// Left out: all that is due. Less leaves the invoice open, more is the tenant's credit.
    #[schema(minimum = 1)]
    amount_cents: Option<i64>,
    /// What tells the payment from others.
    #[serde(default)]
    #[schema(max_length = 200)]
    reference: String,
}

/// Mark an invoice as paid
///
/// For operators who have seen the money.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/invoices/{invoice}/mark-paid", tag = "invoices",
    operation_id = "markInvoicePaid", request_body = ManualPayment,
    responses((status = 200, description = "The payment counts", body = WholeInvoice)))]
async fn mark_paid(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, invoice)): At<(Uuid, Uuid)>,
    Payload(body): Payload<ManualPayment>,
) -> Result<Response, Problem> {
    known(&dashboard, &actor, tenant).await?;
    let ManualPayment { amount_cents, reference } = &body;
    invoices::mark_paid(&dashboard, &actor, tenant, invoice, *amount_cents, reference).await?;
    show(&dashboard, &actor, tenant, invoice).await
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "reason": "a courtesy after the outage" }))]
struct WriteOff {
    /// For the audit log.
    #[serde(default)]
    #[schema(max_length = 200)]
    reason: String,
}

/// Write an invoice off
///
/// For operators. Nothing is due any more, and its subscription goes on if that was all that kept it.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/invoices/{invoice}/write-off", tag = "invoices",
    operation_id = "writeInvoiceOff", request_body = WriteOff,
    responses((status = 200, description = "Written off", body = WholeInvoice)))]
async fn write_off(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, invoice)): At<(Uuid, Uuid)>,
    Payload(body): Payload<WriteOff>,
) -> Result<Response, Problem> {
    known(&dashboard, &actor, tenant).await?;
    let written_off = invoices::write_off(&dashboard, &actor, tenant, invoice, &body.reason).await;
    written_off.map_err(|error| match error {
        InvoiceError::Reference => Problem::invalid("/reason", error.to_string()),
        error => error.into(),
    })?;
    show(&dashboard, &actor, tenant, invoice).await
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "returnTo": "https://app.example.com/billing" }))]
struct CheckoutRequest {
    /// Where the checkout sends the browser back to. Left out: to the dashboard.
    #[schema(format = "uri", max_length = 2000)]
    return_to: Option<String>,
}

/// How an open invoice is paid: one of the two.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "url": "https://pay.example.com/0b7c2a54-7d2e-4f0b-9a60-2f6b0f7f3c11", "instructions": null }))]
struct Checkout {
    /// Send the browser there.
    #[schema(required)]
    url: Option<String>,
    /// Show this: an operator marks the invoice as paid when the money is there.
    #[schema(required)]
    instructions: Option<String>,
}

/// Find out how to pay an invoice
///
/// Changes nothing: what counts is the provider's word, or an operator's.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/invoices/{invoice}/checkout", tag = "invoices",
    operation_id = "checkOutInvoice", request_body = CheckoutRequest,
    responses((status = 200, description = "Where to go, or what to do", body = Checkout)))]
async fn checkout(
    State(dashboard): Here,
    Caller(actor): Caller,
    At((tenant, invoice)): At<(Uuid, Uuid)>,
    Payload(body): Payload<CheckoutRequest>,
) -> Result<Response, Problem> {
    known(&dashboard, &actor, tenant).await?;
    let return_to = match &body.return_to {
        Some(url) if is_web_address(url) => url.as_str(),
        Some(_) => {
            let detail =
                "returnTo must be a whole address, https:// (or http://) and a host, of at most 2000 bytes";
            return Err(Problem::invalid("/returnTo", detail));
        }
        None => dashboard.config.issuer.as_str(),
    };
    let shown = match invoices::checkout(&dashboard, &actor, tenant, invoice, return_to).await? {
        Collection::Checkout { url } => Checkout { url: Some(url), instructions: None },
        Collection::Instructions(text) => Checkout { url: None, instructions: Some(text) },
    };
    Ok(uncached(StatusCode::OK, &shown))
}

/// Not `javascript:` or the like, which whoever shows it as a link would run.
fn is_web_address(text: &str) -> bool {
    let is_web = text.parse::<axum::http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("https" | "http")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    is_web && text.len() <= RETURN_TO_BYTES_MAX
}

async fn show(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    invoice: Uuid,
) -> Result<Response, Problem> {
    known(dashboard, actor, tenant).await?;
    let detail = invoices::read(dashboard, actor, tenant, invoice).await?;
    Ok(Entity(WholeInvoice::from(detail)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_webs_addresses_are_returned_to() {
        for good in ["https://a.example", "https://a.example/b?c=d", "http://localhost:3000/"] {
            assert!(is_web_address(good), "{good}");
        }
        let long = format!("https://a.example/{}", "x".repeat(RETURN_TO_BYTES_MAX));
        for bad in
            ["", "/billing", "//a.example", "javascript:alert(1)", "https://", "ftp://a.example", &long]
        {
            assert!(!is_web_address(bad), "{bad}");
        }
    }
}
