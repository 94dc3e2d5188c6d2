//! Invoices, as tenants see them and operators settle them.

use serde_json::json;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::ledger;
use super::money::Line;
use super::payments::{self, Payment, PaymentError, PaymentKind, Received};
use super::providers::Collection;
use crate::dashboard::Dashboard;
use crate::dashboard::access::{Action, Actor, Denied, require};
use crate::dashboard::audit::{self, Event};
use crate::dashboard::random;
use crate::dashboard::store::{Columns, StoreError, Tx, query};

const REFERENCE_CHARS_MAX: usize = 200;

/// How payments are called that an operator has marked.
pub const MANUAL: &str = "manual";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvoiceState {
    Open,
    Paid,
    /// Written off by an operator: nothing is due.
    Void,
    /// Everything that was paid was given back.
    Refunded,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    pub id: Uuid,
    /// From 1 on, without gaps, over all tenants.
    pub number: i64,
    pub tenant: Uuid,
    pub subscription: Uuid,
    pub app: Uuid,
    pub currency: String,
    pub state: InvoiceState,
    /// The sum of its lines.
    pub total_cents: i64,
    /// Settled with credit that arose after it was issued.
    pub credited_cents: i64,
    pub paid_cents: i64,
    pub refunded_cents: i64,
    pub issued_at: i64,
    pub due_at: i64,
    pub settled_at: Option<i64>,
    pub(super) overpaid_cents: i64,
}

/// An invoice with everything that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceDetail {
    pub invoice: Invoice,
    pub lines: Vec<Line>,
    pub payments: Vec<PaymentRecord>,
}

/// A payment or a refund, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentRecord {
    pub kind: PaymentKind,
    pub provider: String,
    pub amount_cents: i64,
    pub reference: String,
    pub at: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum InvoiceError {
    #[error("there is no such invoice")]
    Missing,
    #[error("invoice {number} is {}; only an open one can be settled", .state.as_str())]
    NotOpen { number: i64, state: InvoiceState },
    #[error("a reason or reference has at most {REFERENCE_CHARS_MAX} characters")]
    Reference,
    #[error(transparent)]
    Payment(PaymentError),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for InvoiceError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<PaymentError> for InvoiceError {
    fn from(error: PaymentError) -> Self {
        match error {
            PaymentError::Store(error) => Self::Store(error),
            PaymentError::Invoice(_) => Self::Missing,
            error => Self::Payment(error),
        }
    }
}

impl InvoiceState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paid => "paid",
            Self::Void => "void",
            Self::Refunded => "refunded",
        }
    }
}

impl std::str::FromStr for InvoiceState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Open, Self::Paid, Self::Void, Self::Refunded]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(())
    }
}

impl Invoice {
    /// What is still to be paid.
    #[must_use]
    pub fn due_cents(&self) -> i64 {
        match self.state {
            InvoiceState::Open => self.total_cents - self.credited_cents - self.paid_cents,
            InvoiceState::Paid | InvoiceState::Void | InvoiceState::Refunded => 0,
        }
    }

    #[must_use]
    pub fn is_overdue(&self, now: i64) -> bool {
        self.state == InvoiceState::Open && self.due_at <= now
    }

    pub(super) fn of_row(row: &AnyRow) -> Result<Self, StoreError> {
        let state = row.text("state")?;
        Ok(Self {
            id: row.parsed("id")?,
            number: row.int("number")?,
            tenant: row.parsed("tenant_id")?,
            subscription: row.parsed("subscription_id")?,
            app: row.parsed("app_id")?,
            currency: row.text("currency")?,
            state: state.parse().map_err(|()| StoreError::Corrupt { what: "state", value: state })?,
            total_cents: row.int("total_cents")?,
            credited_cents: row.int("credited_cents")?,
            paid_cents: row.int("paid_cents")?,
            refunded_cents: row.int("refunded_cents")?,
            overpaid_cents: row.int("overpaid_cents")?,
            issued_at: row.int("issued_at")?,
            due_at: row.int("due_at")?,
            settled_at: row.int_or_null("settled_at")?,
        })
    }
}

/// A tenant's invoices, newest first: at most `limit` with numbers below `before`.
///
/// # Errors
/// [`InvoiceError::Denied`].
pub async fn list(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Invoice>, InvoiceError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ReadBilling, Some(tenant)).await?;
    let rows =
        query("SELECT * FROM invoices WHERE tenant_id = $1 AND number < $2 ORDER BY number DESC LIMIT $3");
    let rows = rows.bind(tenant.to_string()).bind(before.unwrap_or(i64::MAX)).bind(limit);
    Ok(rows.fetch_all(&mut *tx).await?.iter().map(Invoice::of_row).collect::<Result<_, _>>()?)
}

/// A tenant's open invoices, oldest first.
///
/// # Errors
/// [`InvoiceError::Denied`].
pub async fn open_of(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
) -> Result<Vec<Invoice>, InvoiceError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ReadBilling, Some(tenant)).await?;
    let rows = query("SELECT * FROM invoices WHERE tenant_id = $1 AND state = 'open' ORDER BY number");
    let rows = rows.bind(tenant.to_string()).fetch_all(&mut *tx).await?;
    Ok(rows.iter().map(Invoice::of_row).collect::<Result<_, _>>()?)
}

/// Every tenant's open invoices for operators, oldest first: at most `limit` with numbers above `after`.
///
/// # Errors
/// [`InvoiceError::Denied`].
pub async fn list_open(
    dashboard: &Dashboard,
    actor: &Actor,
    after: i64,
    limit: i64,
) -> Result<Vec<Invoice>, InvoiceError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ManagePayments, None).await?;
    let rows = query("SELECT * FROM invoices WHERE state = 'open' AND number > $1 ORDER BY number LIMIT $2");
    let rows = rows.bind(after).bind(limit).fetch_all(&mut *tx).await?;
    Ok(rows.iter().map(Invoice::of_row).collect::<Result<_, _>>()?)
}

/// An invoice of the tenant with its lines and payments.
///
/// # Errors
/// [`InvoiceError::Missing`] also for another tenant's.
pub async fn read(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    invoice: Uuid,
) -> Result<InvoiceDetail, InvoiceError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ReadBilling, Some(tenant)).await?;
    detail_in(&mut tx, tenant, invoice).await?.ok_or(InvoiceError::Missing)
}

/// What waits for the tenant's next invoices: charges, and credits (negative), by currency.
///
/// # Errors
/// [`InvoiceError::Denied`].
pub async fn waiting(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
) -> Result<Vec<(String, Line)>, InvoiceError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ReadBilling, Some(tenant)).await?;
    let rows = query(
        "SELECT * FROM invoice_lines WHERE tenant_id = $1 AND invoice_id IS NULL \
         ORDER BY currency, created_at, position, id",
    );
    let rows = rows.bind(tenant.to_string()).fetch_all(&mut *tx).await?;
    let each = |row: &AnyRow| Ok((row.text("currency")?, ledger::line_of(row)?));
    rows.iter().map(each).collect()
}

/// How the tenant can pay an open invoice: where, or how. `return_to` is where a checkout sends the browser back.
///
/// # Errors
/// [`InvoiceError::NotOpen`] if there is nothing to pay.
pub async fn checkout(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    invoice: Uuid,
    return_to: &str,
) -> Result<Collection, InvoiceError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ChangeSubscriptions, Some(tenant)).await?;
    let invoice = find_in(&mut tx, invoice).await?.filter(|invoice| invoice.tenant == tenant);
    let invoice = invoice.ok_or(InvoiceError::Missing)?;
    if invoice.due_cents() == 0 {
        return Err(InvoiceError::NotOpen { number: invoice.number, state: invoice.state });
    }
    Ok(dashboard.payments.current().collect(&invoice, return_to))
}

/// An operator has seen the money: `amount_cents` of it, or all that is due.
///
/// # Errors
/// [`InvoiceError::NotOpen`] if it is settled already, by whatever came first.
pub async fn mark_paid(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    invoice: Uuid,
    amount_cents: Option<i64>,
    reference: &str,
) -> Result<Invoice, InvoiceError> {
    let reference = checked(reference)?;
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::ManagePayments, Some(tenant)).await?;
    let found = open_in(&mut tx, tenant, invoice).await?;
    let payment = Payment {
        invoice,
        provider: MANUAL,
        external_id: &random::guid().to_string(),
        amount_cents: amount_cents.unwrap_or(found.due_cents()),
        currency: &found.currency,
        reference: &reference,
    };
    let received = payments::pay_in(&mut tx, actor, now, &payment).await?;
    debug_assert_eq!(received, Received::Applied, "a random id is new");
    let invoice = find_in(&mut tx, invoice).await?.ok_or(InvoiceError::Missing)?;
    tx.commit().await?;
    dashboard.feed.wake();
    Ok(invoice)
}

/// An operator gives up an invoice: nothing is due any more, and its subscription goes on if that was all that kept it.
///
/// # Errors
/// [`InvoiceError::NotOpen`] if it is settled already.
pub async fn write_off(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    invoice: Uuid,
    reason: &str,
) -> Result<(), InvoiceError> {
    let reason = checked(reason)?;
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::ManagePayments, Some(tenant)).await?;
    let invoice = open_in(&mut tx, tenant, invoice).await?;
    let update =
        query("UPDATE invoices SET state = 'void', settled_at = $1 WHERE id = $2 AND state = 'open'");
    update.bind(now).bind(invoice.id.to_string()).execute(&mut *tx).await?;
    let detail = json!({ "number": invoice.number, "dueCents": invoice.due_cents(), "reason": reason });
    let event = Event::new(now, actor, "invoice.write_off", invoice.id).of_tenant(tenant);
    audit::append(&mut tx, &event.with(detail)).await?;
    crate::dashboard::subscriptions::recover(&mut tx, actor, tenant, invoice.subscription, now).await?;
    tx.commit().await?;
    dashboard.feed.wake();
    Ok(())
}

fn checked(reference: &str) -> Result<String, InvoiceError> {
    let reference = reference.trim();
    let is_short = reference.chars().count() <= REFERENCE_CHARS_MAX;
    if is_short { Ok(reference.to_owned()) } else { Err(InvoiceError::Reference) }
}

/// The tenant's invoice, under the tenant's lock and open.
async fn open_in(tx: &mut Tx, tenant: Uuid, invoice: Uuid) -> Result<Invoice, InvoiceError> {
    ledger::lock(tx, tenant).await?;
    let invoice = find_in(tx, invoice).await?.filter(|invoice| invoice.tenant == tenant);
    let invoice = invoice.ok_or(InvoiceError::Missing)?;
    if invoice.state == InvoiceState::Open {
        Ok(invoice)
    } else {
        Err(InvoiceError::NotOpen { number: invoice.number, state: invoice.state })
    }
}

pub(super) async fn find_in(tx: &mut Tx, invoice: Uuid) -> Result<Option<Invoice>, StoreError> {
    let row = query("SELECT * FROM invoices WHERE id = $1").bind(invoice.to_string());
    row.fetch_optional(&mut **tx).await?.map(|row| Invoice::of_row(&row)).transpose()
}

/// An invoice of the tenant with all that belongs to it, in a transaction that may have made it.
pub(in crate::dashboard) async fn detail_in(
    tx: &mut Tx,
    tenant: Uuid,
    invoice: Uuid,
) -> Result<Option<InvoiceDetail>, StoreError> {
    let invoice = find_in(tx, invoice).await?.filter(|invoice| invoice.tenant == tenant);
    let Some(invoice) = invoice else { return Ok(None) };
    let lines = query("SELECT * FROM invoice_lines WHERE invoice_id = $1 ORDER BY position");
    let lines = lines.bind(invoice.id.to_string()).fetch_all(&mut **tx).await?;
    let payments = query("SELECT * FROM payments WHERE invoice_id = $1 ORDER BY at, id");
    let payments = payments.bind(invoice.id.to_string()).fetch_all(&mut **tx).await?;
    let payment = |row: &AnyRow| {
        let is_refund = row.text("kind")? == PaymentKind::Refund.as_str();
        Ok(PaymentRecord {
            kind: if is_refund { PaymentKind::Refund } else { PaymentKind::Payment },
            provider: row.text("provider")?,
            amount_cents: row.int("amount_cents")?,
            reference: row.text("reference")?,
            at: row.int("at")?,
        })
    };
    Ok(Some(InvoiceDetail {
        lines: lines.iter().map(ledger::line_of).collect::<Result<_, _>>()?,
        payments: payments.iter().map(payment).collect::<Result<_, StoreError>>()?,
        invoice,
    }))
}
