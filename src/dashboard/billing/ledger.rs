//! The books: lines that wait, invoices made of them, credit that pays what is open.
//!
//! Every function here expects the tenant's [`lock`] to be held by its transaction. A waiting line is held for one
//! subscription's next invoice, or, once that has ended or is free, for any invoice of the tenant.

use serde_json::json;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::invoices::{Invoice, InvoiceState};
use super::money::{Line, LineKind, Span, draft};
use crate::dashboard::access::Actor;
use crate::dashboard::audit::{self, Event};
use crate::dashboard::store::{Columns, StoreError, Tx, query};
use crate::dashboard::{Dashboard, random, subscriptions};

/// Whose money it is, and when.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    pub tenant: Uuid,
    pub app: Uuid,
    pub subscription: Uuid,
    pub currency: &'a str,
    pub now: i64,
}

/// Puts this transaction behind every other one that changes the tenant's money; the account's version, which rises
/// with each.
pub async fn lock(tx: &mut Tx, tenant: Uuid) -> Result<i64, StoreError> {
    query(
        "INSERT INTO billing_accounts (tenant_id, version) VALUES ($1, 0) ON CONFLICT (tenant_id) DO NOTHING",
    )
    .bind(tenant.to_string())
    .execute(&mut **tx)
    .await?;
    query("UPDATE billing_accounts SET version = version + 1 WHERE tenant_id = $1 RETURNING version")
        .bind(tenant.to_string())
        .fetch_one(&mut **tx)
        .await?
        .int("version")
}

/// Lets lines wait for the subscription's next invoice.
pub async fn add(tx: &mut Tx, account: &Account<'_>, lines: &[Line]) -> Result<(), StoreError> {
    for (position, line) in (0..).zip(lines) {
        insert(tx, account, &account.subscription.to_string(), None, position, line).await?;
    }
    Ok(())
}

/// Lets a credit (or what takes one back) wait for any invoice of the tenant.
pub async fn add_for_tenant(tx: &mut Tx, account: &Account<'_>, line: &Line) -> Result<(), StoreError> {
    insert(tx, account, "", None, 0, line).await
}

async fn insert(
    tx: &mut Tx,
    account: &Account<'_>,
    held_for: &str,
    invoice: Option<Uuid>,
    position: i64,
    line: &Line,
) -> Result<(), StoreError> {
    let insert = query(
        "INSERT INTO invoice_lines (id, tenant_id, currency, subscription_id, held_for, invoice_id, position, kind, \
         description, amount_cents, period_start, period_end, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    );
    let insert = insert.bind(random::guid().to_string()).bind(account.tenant.to_string());
    let insert = insert.bind(account.currency.to_owned()).bind(account.subscription.to_string());
    let insert = insert.bind(held_for.to_owned()).bind(invoice.map(|id| id.to_string())).bind(position);
    let insert = insert.bind(line.kind.as_str()).bind(line.description.clone()).bind(line.amount_cents);
    let insert = insert.bind(line.span.map(|span| span.start)).bind(line.span.map(|span| span.end));
    insert.bind(account.now).execute(&mut **tx).await?;
    Ok(())
}

pub fn line_of(row: &AnyRow) -> Result<Line, StoreError> {
    let kind = row.text("kind")?;
    let (start, end) = (row.int_or_null("period_start")?, row.int_or_null("period_end")?);
    Ok(Line {
        kind: kind.parse().map_err(|()| StoreError::Corrupt { what: "kind of line", value: kind })?,
        description: row.text("description")?,
        amount_cents: row.int("amount_cents")?,
        span: start.zip(end).map(|(start, end)| Span { start, end }),
    })
}

/// Issues an invoice of what waits for this subscription and for the tenant, and of these lines.
pub async fn issue(
    dashboard: &Dashboard,
    tx: &mut Tx,
    actor: &Actor,
    account: &Account<'_>,
    lines: Vec<Line>,
) -> Result<Uuid, StoreError> {
    let rows = query(
        "SELECT * FROM invoice_lines WHERE tenant_id = $1 AND currency = $2 AND invoice_id IS NULL \
         AND (held_for = $3 OR held_for = '') ORDER BY created_at, position, id",
    );
    let rows = rows.bind(account.tenant.to_string()).bind(account.currency.to_owned());
    let rows = rows.bind(account.subscription.to_string()).fetch_all(&mut **tx).await?;
    let waiting = rows.iter().map(line_of).collect::<Result<Vec<_>, _>>()?;
    let draft = draft(waiting.into_iter().chain(lines).collect());
    let head =
        query("UPDATE billing_head SET last_number = last_number + 1 WHERE id = 1 RETURNING last_number");
    let number = head.fetch_one(&mut **tx).await?.int("last_number")?;
    let (id, now) = (random::guid(), account.now);
    let is_settled = draft.total_cents == 0;
    let state = if is_settled { InvoiceState::Paid } else { InvoiceState::Open };
    let invoice = query(
        "INSERT INTO invoices (id, number, tenant_id, subscription_id, app_id, currency, state, total_cents, \
         credited_cents, paid_cents, refunded_cents, overpaid_cents, issued_at, due_at, settled_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 0, 0, 0, $9, $10, $11)",
    );
    let invoice = invoice.bind(id.to_string()).bind(number).bind(account.tenant.to_string());
    let invoice = invoice.bind(account.subscription.to_string()).bind(account.app.to_string());
    let invoice = invoice.bind(account.currency.to_owned()).bind(state.as_str()).bind(draft.total_cents);
    let invoice = invoice.bind(now).bind(now + dashboard.config.billing.payment_term_s);
    invoice.bind(is_settled.then_some(now)).execute(&mut **tx).await?;
    for (position, row) in (0_i64..).zip(&rows) {
        let take = query("UPDATE invoice_lines SET invoice_id = $1, position = $2 WHERE id = $3");
        take.bind(id.to_string()).bind(position).bind(row.text("id")?).execute(&mut **tx).await?;
    }
    for (position, line) in draft.lines.iter().enumerate().skip(rows.len()) {
        let position = i64::try_from(position).unwrap_or(i64::MAX);
        insert(tx, account, "", Some(id), position, line).await?;
    }
    if draft.carried_cents > 0 {
        let credit = Line {
            kind: LineKind::Credit,
            description: format!("Credit carried over from invoice {number}"),
            amount_cents: -draft.carried_cents,
            span: None,
        };
        add_for_tenant(tx, account, &credit).await?;
    }
    let detail = json!({ "number": number, "app": account.app, "totalCents": draft.total_cents, "currency": account.currency });
    let event = Event::new(dashboard.now(), actor, "invoice.issue", id).of_tenant(account.tenant);
    audit::append(tx, &event.with(detail)).await?;
    Ok(id)
}

/// The subscription will have no invoice of its own any more: what it owes is invoiced, what it has left is the tenant's.
pub async fn settle_up(
    dashboard: &Dashboard,
    tx: &mut Tx,
    actor: &Actor,
    account: &Account<'_>,
) -> Result<(), StoreError> {
    let sum = query(
        "SELECT CAST(COALESCE(SUM(amount_cents), 0) AS BIGINT) AS owed FROM invoice_lines \
         WHERE held_for = $1 AND invoice_id IS NULL",
    );
    let owed = sum.bind(account.subscription.to_string()).fetch_one(&mut **tx).await?.int("owed")?;
    if owed > 0 {
        issue(dashboard, tx, actor, account, Vec::new()).await?;
    }
    let update = query("UPDATE invoice_lines SET held_for = '' WHERE held_for = $1 AND invoice_id IS NULL");
    update.bind(account.subscription.to_string()).execute(&mut **tx).await?;
    spend_credit(tx, actor, account.tenant, account.now).await
}

/// Pays open invoices with credit, the oldest first: nobody owes and has at the same time.
pub async fn spend_credit(tx: &mut Tx, actor: &Actor, tenant: Uuid, now: i64) -> Result<(), StoreError> {
    let credits = query(
        "SELECT held_for, currency, CAST(-SUM(amount_cents) AS BIGINT) AS credit FROM invoice_lines \
         WHERE tenant_id = $1 AND invoice_id IS NULL GROUP BY held_for, currency HAVING SUM(amount_cents) < 0 \
         ORDER BY held_for",
    );
    for row in credits.bind(tenant.to_string()).fetch_all(&mut **tx).await? {
        let (held_for, currency, mut credit) =
            (row.text("held_for")?, row.text("currency")?, row.int("credit")?);
        for invoice in open_invoices(tx, tenant, &currency).await? {
            let spent = credit.min(invoice.due_cents());
            if spent == 0 {
                break;
            }
            credit -= spent;
            let line = Line {
                kind: LineKind::CreditSpent,
                description: format!("Credit spent on invoice {}", invoice.number),
                amount_cents: spent,
                span: None,
            };
            let account = Account {
                tenant,
                app: invoice.app,
                subscription: invoice.subscription,
                currency: &currency,
                now,
            };
            insert(tx, &account, &held_for, None, 0, &line).await?;
            let update = query("UPDATE invoices SET credited_cents = credited_cents + $1 WHERE id = $2");
            update.bind(spent).bind(invoice.id.to_string()).execute(&mut **tx).await?;
            let detail = json!({ "number": invoice.number, "cents": spent });
            let event = Event::new(now, actor, "invoice.credit", invoice.id).of_tenant(tenant);
            audit::append(tx, &event.with(detail)).await?;
            settle(tx, actor, &invoice, invoice.due_cents() - spent, now).await?;
        }
    }
    Ok(())
}

/// Marks an invoice of which nothing is due any more as paid; its subscription goes on if that was all that kept it.
pub async fn settle(
    tx: &mut Tx,
    actor: &Actor,
    invoice: &Invoice,
    due_cents: i64,
    now: i64,
) -> Result<(), StoreError> {
    if due_cents > 0 {
        return Ok(());
    }
    let update =
        query("UPDATE invoices SET state = 'paid', settled_at = $1 WHERE id = $2 AND state = 'open'");
    update.bind(now).bind(invoice.id.to_string()).execute(&mut **tx).await?;
    subscriptions::recover(tx, actor, invoice.tenant, invoice.subscription, now).await
}

async fn open_invoices(tx: &mut Tx, tenant: Uuid, currency: &str) -> Result<Vec<Invoice>, StoreError> {
    let rows = query(
        "SELECT * FROM invoices WHERE tenant_id = $1 AND currency = $2 AND state = 'open' ORDER BY number",
    );
    let rows = rows.bind(tenant.to_string()).bind(currency.to_owned()).fetch_all(&mut **tx).await?;
    rows.iter().map(Invoice::of_row).collect()
}

/// The number of the tenant's oldest invoice that is overdue, if there is one; only the subscription's if it is named.
pub async fn overdue(
    tx: &mut Tx,
    tenant: Uuid,
    subscription: Option<Uuid>,
    now: i64,
) -> Result<Option<i64>, StoreError> {
    let row = query(
        "SELECT MIN(number) AS number FROM invoices WHERE tenant_id = $1 AND state = 'open' AND due_at <= $2 \
         AND ($3 = '' OR subscription_id = $3)",
    );
    let subscription = subscription.map(|id| id.to_string()).unwrap_or_default();
    let row = row.bind(tenant.to_string()).bind(now).bind(subscription).fetch_one(&mut **tx).await?;
    row.int_or_null("number")
}
