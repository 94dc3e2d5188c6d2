//! Money that came in, failed to, or went back: what it does to an invoice. Whoever says so has been believed already:
//! an operator with the right to, or a provider whose signature is good.
//!
//! - A payment counts once, by the provider's id of it, however often and under however many webhooks it is told.
//! - Less than what is due leaves the invoice open; more is the tenant's credit.
//! - A refund of a settled invoice is written down; the subscription goes on until somebody cancels it. A refund of a part
//!   payment makes it due again.

use serde_json::json;
use uuid::Uuid;

use super::invoices::{self, Invoice, InvoiceState};
use super::ledger::{self, Account};
use super::money::{Line, LineKind};
use crate::dashboard::access::Actor;
use crate::dashboard::audit::{self, Event};
use crate::dashboard::store::{StoreError, Tx, query};
use crate::dashboard::{random, subscriptions};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentKind {
    Payment,
    Refund,
}

/// A payment, or a refund, of an invoice.
#[derive(Debug, Clone, Copy)]
pub struct Payment<'a> {
    pub invoice: Uuid,
    pub provider: &'a str,
    /// The provider's id of this payment or refund.
    pub external_id: &'a str,
    pub amount_cents: i64,
    pub currency: &'a str,
    pub reference: &'a str,
}

/// What became of something that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    Applied,
    /// It was known already.
    Repeated,
    /// It is about nothing that matters here.
    Ignored,
}

#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    #[error("there is no invoice {0}")]
    Invoice(Uuid),
    #[error("an amount is a positive number of cents, not {0}")]
    Amount(i64),
    #[error("invoice {number} is in {wanted}, not in {given}")]
    Currency { number: i64, wanted: String, given: String },
    #[error(
        "of invoice {number} only {left_cents} cents can be refunded, not {cents}; has its payment not arrived yet?"
    )]
    Refund { number: i64, left_cents: i64, cents: i64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for PaymentError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl PaymentKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Refund => "refund",
        }
    }
}

/// Takes a payment in.
///
/// # Errors
/// [`PaymentError`]; nothing has changed then.
pub async fn pay_in(
    tx: &mut Tx,
    actor: &Actor,
    now: i64,
    payment: &Payment<'_>,
) -> Result<Received, PaymentError> {
    let invoice = locked(tx, payment).await?;
    if !insert(tx, now, &invoice, PaymentKind::Payment, payment).await? {
        return Ok(Received::Repeated);
    }
    let applied = payment.amount_cents.min(invoice.due_cents());
    let excess = payment.amount_cents - applied;
    let update = query(
        "UPDATE invoices SET paid_cents = paid_cents + $1, overpaid_cents = overpaid_cents + $2 WHERE id = $3",
    );
    update.bind(applied).bind(excess).bind(invoice.id.to_string()).execute(&mut **tx).await?;
    let detail = json!({
        "number": invoice.number,
        "cents": payment.amount_cents,
        "provider": payment.provider,
        "reference": payment.reference,
    });
    let event = Event::new(now, actor, "invoice.pay", invoice.id).of_tenant(invoice.tenant);
    audit::append(tx, &event.with(detail)).await?;
    if excess > 0 {
        let description = format!("Paid too much for invoice {}", invoice.number);
        let credit = Line { kind: LineKind::Credit, description, amount_cents: -excess, span: None };
        ledger::add_for_tenant(tx, &account_of(&invoice, now), &credit).await?;
    }
    if invoice.state == InvoiceState::Open {
        ledger::settle(tx, actor, &invoice, invoice.due_cents() - applied, now).await?;
    }
    if excess > 0 {
        ledger::spend_credit(tx, actor, invoice.tenant, now).await?;
    }
    Ok(Received::Applied)
}

/// A payment did not come about: the invoice is overdue at once.
///
/// # Errors
/// [`PaymentError`].
pub async fn fail_in(
    tx: &mut Tx,
    actor: &Actor,
    now: i64,
    invoice: Uuid,
    reason: &str,
) -> Result<Received, PaymentError> {
    let tenant = tenant_of(tx, invoice).await?;
    ledger::lock(tx, tenant).await?;
    let invoice = invoices::find_in(tx, invoice).await?.ok_or(PaymentError::Invoice(invoice))?;
    if invoice.state != InvoiceState::Open {
        return Ok(Received::Ignored);
    }
    let update = query("UPDATE invoices SET due_at = $1 WHERE id = $2 AND due_at > $1");
    update.bind(now).bind(invoice.id.to_string()).execute(&mut **tx).await?;
    let detail = json!({ "number": invoice.number, "reason": reason });
    let event = Event::new(now, actor, "invoice.payment_failed", invoice.id).of_tenant(tenant);
    audit::append(tx, &event.with(detail)).await?;
    subscriptions::fall_due(tx, actor, tenant, invoice.subscription, now, now).await?;
    Ok(Received::Applied)
}

/// Writes a refund down.
///
/// # Errors
/// [`PaymentError::Refund`] for more than was paid.
pub async fn refund_in(
    tx: &mut Tx,
    actor: &Actor,
    now: i64,
    refund: &Payment<'_>,
) -> Result<Received, PaymentError> {
    let invoice = locked(tx, refund).await?;
    if !insert(tx, now, &invoice, PaymentKind::Refund, refund).await? {
        return Ok(Received::Repeated);
    }
    let left_cents = invoice.overpaid_cents + invoice.paid_cents - invoice.refunded_cents;
    if refund.amount_cents > left_cents {
        return Err(PaymentError::Refund { number: invoice.number, left_cents, cents: refund.amount_cents });
    }
    // What was paid too much goes back first, and is no credit any more.
    let of_excess = refund.amount_cents.min(invoice.overpaid_cents);
    let of_paid = refund.amount_cents - of_excess;
    if of_excess > 0 {
        let description = format!("Overpayment of invoice {} refunded", invoice.number);
        let line = Line { kind: LineKind::CreditSpent, description, amount_cents: of_excess, span: None };
        ledger::add_for_tenant(tx, &account_of(&invoice, now), &line).await?;
    }
    let (unpaid, refunded) = if invoice.state == InvoiceState::Open { (of_paid, 0) } else { (0, of_paid) };
    let is_all = refunded > 0 && invoice.refunded_cents + refunded == invoice.paid_cents;
    let state = if is_all { InvoiceState::Refunded } else { invoice.state };
    let update = query(
        "UPDATE invoices SET paid_cents = paid_cents - $1, refunded_cents = refunded_cents + $2, \
         overpaid_cents = overpaid_cents - $3, state = $4 WHERE id = $5",
    );
    let update = update.bind(unpaid).bind(refunded).bind(of_excess).bind(state.as_str());
    update.bind(invoice.id.to_string()).execute(&mut **tx).await?;
    let detail = json!({
        "number": invoice.number,
        "cents": refund.amount_cents,
        "provider": refund.provider,
        "reference": refund.reference,
    });
    let event = Event::new(now, actor, "invoice.refund", invoice.id).of_tenant(invoice.tenant);
    audit::append(tx, &event.with(detail)).await?;
    Ok(Received::Applied)
}

/// The payment's invoice, under its tenant's lock.
async fn locked(tx: &mut Tx, payment: &Payment<'_>) -> Result<Invoice, PaymentError> {
    if payment.amount_cents <= 0 {
        return Err(PaymentError::Amount(payment.amount_cents));
    }
    let tenant = tenant_of(tx, payment.invoice).await?;
    ledger::lock(tx, tenant).await?;
    let invoice = invoices::find_in(tx, payment.invoice).await?;
    let invoice = invoice.ok_or(PaymentError::Invoice(payment.invoice))?;
    if invoice.currency != payment.currency {
        let (wanted, given) = (invoice.currency, payment.currency.to_owned());
        return Err(PaymentError::Currency { number: invoice.number, wanted, given });
    }
    Ok(invoice)
}

async fn tenant_of(tx: &mut Tx, invoice: Uuid) -> Result<Uuid, PaymentError> {
    let found = invoices::find_in(tx, invoice).await?;
    Ok(found.ok_or(PaymentError::Invoice(invoice))?.tenant)
}

fn account_of(invoice: &Invoice, now: i64) -> Account<'_> {
    Account {
        tenant: invoice.tenant,
        app: invoice.app,
        subscription: invoice.subscription,
        currency: &invoice.currency,
        now,
    }
}

/// Whether it is new.
async fn insert(
    tx: &mut Tx,
    now: i64,
    invoice: &Invoice,
    kind: PaymentKind,
    payment: &Payment<'_>,
) -> Result<bool, StoreError> {
    let insert = query(
        "INSERT INTO payments (id, tenant_id, invoice_id, provider, external_id, kind, amount_cents, reference, at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (provider, kind, external_id) DO NOTHING",
    );
    let insert = insert.bind(random::guid().to_string()).bind(invoice.tenant.to_string());
    let insert = insert.bind(invoice.id.to_string()).bind(payment.provider.to_owned());
    let insert = insert.bind(payment.external_id.to_owned()).bind(kind.as_str()).bind(payment.amount_cents);
    let insert = insert.bind(payment.reference.to_owned()).bind(now);
    Ok(insert.execute(&mut **tx).await?.rows_affected() == 1)
}
