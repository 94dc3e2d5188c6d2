//! Picking a plan, and what that would cost: the same code, the second in a transaction that is not committed. So what a
//! [`preview`] shows is what [`pick`] does, if it is handed the preview's [`Quote`].

use std::fmt;
use std::str::FromStr;

use serde_json::json;
use uuid::Uuid;

use super::schedule::renew_in;
use super::{AppId, Subscription, SubscriptionError, end_in, find_in, select_subscriptions};
use crate::dashboard::access::{Action, Actor, require};
use crate::dashboard::apps::{self, App};
use crate::dashboard::audit::{self, Event};
use crate::dashboard::billing::invoices::{self, InvoiceDetail};
use crate::dashboard::billing::{self, Line, Span, ledger};
use crate::dashboard::plans::{self, Plan, plan_columns};
use crate::dashboard::store::{Columns, StoreError, Tx, query};
use crate::dashboard::tenants::TenantState;
use crate::dashboard::{Dashboard, random};

/// For how long what a preview showed can be had.
pub const QUOTE_LIFE_S: i64 = 900;

/// What a preview's numbers rest on: a moment, and the versions of the tenant's account and of the plan. As text (a
/// form's field) three numbers with dots between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    pub at: i64,
    pub account: i64,
    pub plan_version: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no quote; take the one that the preview gave")]
pub struct QuoteError;

/// What picking a plan would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Hand it to [`pick`] to get exactly this.
    pub quote: Quote,
    pub current: Option<Plan>,
    /// The period in which the change is made, if there is one.
    pub current_period: Option<Span>,
    pub plan: Plan,
    /// The period that is current afterwards.
    pub period: Span,
    /// What the change itself charges and credits.
    pub lines: Vec<Line>,
    /// The invoice that is issued at once, if there is one; else the lines are on the next.
    pub invoice_now: Option<InvoicePreview>,
    /// Credit of the change that pays invoices which are open.
    pub credit_spent_cents: i64,
    /// The invoice at the period's end, if nothing else happens until then; none on a free plan.
    pub next_invoice: Option<InvoicePreview>,
}

/// An invoice that is not issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoicePreview {
    pub at: i64,
    pub lines: Vec<Line>,
    pub total_cents: i64,
    pub currency: String,
}

/// A plan has been picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    pub subscription: Uuid,
    /// The invoice that was issued at once, if one was.
    pub invoice: Option<Uuid>,
}

impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.at, self.account, self.plan_version)
    }
}

impl FromStr for Quote {
    type Err = QuoteError;

    fn from_str(text: &str) -> Result<Self, QuoteError> {
        let mut parts = text.split('.').map(|part| part.parse().map_err(|_| QuoteError));
        let mut next = || parts.next().ok_or(QuoteError)?;
        let quote = Self { at: next()?, account: next()?, plan_version: next()? };
        if parts.next().is_none() { Ok(quote) } else { Err(QuoteError) }
    }
}

/// What [`pick_in`] did.
struct Done {
    quote: Quote,
    before: Option<Subscription>,
    after: Subscription,
    lines: Vec<Line>,
    invoice: Option<Uuid>,
}

/// What it would cost to put the app on this plan now. Changes nothing.
///
/// # Errors
/// As [`pick`].
pub async fn preview(
    dashboard: &Dashboard,
    actor: &Actor,
    app: impl Into<AppId>,
    plan: &str,
) -> Result<Preview, SubscriptionError> {
    let app = locate(dashboard, actor, app.into()).await?;
    let mut tx = dashboard.home.begin().await?;
    let credited_before = credited(&mut tx, app.tenant).await?;
    let done = pick_in(dashboard, &mut tx, actor, &app, plan, None).await?;
    let credit_spent_cents = credited(&mut tx, app.tenant).await? - credited_before;
    let invoice_now = match done.invoice {
        Some(invoice) => shown(&mut tx, app.tenant, invoice, done.quote.at).await?,
        None => None,
    };
    let after = done.after;
    let next_invoice = if after.plan.is_free() {
        None
    } else {
        let (_, invoice) = renew_in(dashboard, &mut tx, actor, &after, after.period_end).await?;
        match invoice {
            Some(invoice) => shown(&mut tx, app.tenant, invoice, after.period_end).await?,
            None => None,
        }
    };
    tx.rollback().await?;
    Ok(Preview {
        quote: done.quote,
        current_period: done.before.as_ref().map(Subscription::period),
        current: done.before.map(|before| before.plan),
        period: after.period(),
        plan: after.plan,
        lines: done.lines,
        invoice_now,
        credit_spent_cents,
        next_invoice,
    })
}

/// Puts an app on a plan: its first one, or another than it has. With the quote of a [`preview`], exactly as that showed.
/// A cancellation is taken back by it.
///
/// # Errors
/// - [`SubscriptionError::FreeTaken`] for a second free app of the tenant, however many try at once.
/// - [`SubscriptionError::PastDue`], [`SubscriptionError::Unpaid`] while an invoice is overdue.
/// - [`SubscriptionError::Stale`] if the quote is too old, or something has changed since.
pub async fn pick(
    dashboard: &Dashboard,
    actor: &Actor,
    app: impl Into<AppId>,
    plan: &str,
    quote: Option<Quote>,
) -> Result<Picked, SubscriptionError> {
    let app = locate(dashboard, actor, app.into()).await?;
    let mut tx = dashboard.home.begin().await?;
    let done = pick_in(dashboard, &mut tx, actor, &app, plan, quote).await?;
    tx.commit().await?;
    dashboard.feed.wake();
    Ok(Picked { subscription: done.after.id, invoice: done.invoice })
}

/// [`pick`], for an app that has no plan.
///
/// # Errors
/// [`SubscriptionError::Exists`] if it has one.
pub async fn subscribe(
    dashboard: &Dashboard,
    actor: &Actor,
    app: impl Into<AppId>,
    plan: &str,
) -> Result<Uuid, SubscriptionError> {
    let app = locate(dashboard, actor, app.into()).await?;
    let mut tx = dashboard.home.begin().await?;
    let done = pick_in(dashboard, &mut tx, actor, &app, plan, None).await;
    let done = match done {
        Ok(Done { before: Some(_), .. }) | Err(SubscriptionError::Same) => {
            return Err(SubscriptionError::Exists);
        }
        done => done?,
    };
    tx.commit().await?;
    dashboard.feed.wake();
    Ok(done.after.id)
}

/// The app, if the actor may choose its plan.
async fn locate(dashboard: &Dashboard, actor: &Actor, app: AppId) -> Result<App, SubscriptionError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ChangeSubscriptions, Some(app.tenant)).await?;
    drop(tx);
    apps::find(dashboard, app.tenant, app.app).await?.ok_or(SubscriptionError::App)
}

async fn pick_in(
    dashboard: &Dashboard,
    tx: &mut Tx,
    actor: &Actor,
    app: &App,
    plan: &str,
    quote: Option<Quote>,
) -> Result<Done, SubscriptionError> {
    require(tx, actor, Action::ChangeSubscriptions, Some(app.tenant)).await?;
    let now = dashboard.now();
    let account = ledger::lock(tx, app.tenant).await?;
    // It was found before this transaction. Who deletes it ends its plan under the same lock, so from here on this holds.
    if apps::find(dashboard, app.tenant, app.id).await?.is_none() {
        return Err(SubscriptionError::App);
    }
    let found = plans::find_in(tx, plan).await?.filter(|plan| plan.is_offered);
    let plan = found.ok_or_else(|| SubscriptionError::Plan(plan.to_owned()))?;
    let fresh = Quote { at: now, account, plan_version: plan.version };
    let quote = agreed(quote, fresh)?;
    check_tenant(tx, app.tenant).await?;
    end_run_out(dashboard, tx, actor, app.tenant, now).await?;
    let before = find_in(tx, app.id).await?;
    let before = match before {
        Some(before) => Some(brought_up(dashboard, tx, actor, before, now).await?),
        None => None,
    };
    check(tx, app, before.as_ref(), &plan, now).await?;
    // A period that a late renewal began only just now doesn't reach back to the quote.
    let at = before.as_ref().map_or(quote.at, |before| quote.at.max(before.period_start));
    let change = match &before {
        Some(before) => billing::change(before.plan.price(), before.period(), plan.price(), at),
        None => billing::begin(plan.price(), at),
    };
    let id = match &before {
        Some(before) => {
            let new_period = change.is_new_period.then_some(change.span);
            update(tx, before, &plan, new_period).await?;
            before.id
        }
        None => insert(tx, app, &plan, change.span).await?,
    };
    let (action, from) = match &before {
        Some(before) => ("subscription.change", json!([before.plan.id, before.plan.version])),
        None => ("subscription.create", json!(null)),
    };
    let detail = json!({ "app": app.id, "plan": plan.id, "version": plan.version, "from": from });
    let event = Event::new(now, actor, action, id).of_tenant(app.tenant).with(detail);
    audit::append(tx, &event).await?;
    let paid_before = before.as_ref().filter(|before| !before.plan.is_free());
    let account = ledger::Account {
        tenant: app.tenant,
        app: app.id,
        subscription: id,
        currency: paid_before.map_or(&plan.currency, |before| &before.plan.currency),
        now: at,
    };
    let invoice = post(dashboard, tx, actor, &account, &plan, &change).await?;
    let after = find_in(tx, app.id).await?.ok_or(SubscriptionError::Missing)?;
    Ok(Done { quote, before, after, lines: change.lines, invoice })
}

/// The quote that counts: the one that was handed in, if it still holds.
fn agreed(given: Option<Quote>, fresh: Quote) -> Result<Quote, SubscriptionError> {
    let Some(given) = given else { return Ok(fresh) };
    let is_recent = (fresh.at - QUOTE_LIFE_S..=fresh.at).contains(&given.at);
    let is_same = Quote { at: fresh.at, ..given } == fresh;
    if is_recent && is_same { Ok(given) } else { Err(SubscriptionError::Stale) }
}

/// Books a change: the invoice that it issued at once, if one was due.
async fn post(
    dashboard: &Dashboard,
    tx: &mut Tx,
    actor: &Actor,
    account: &ledger::Account<'_>,
    plan: &Plan,
    change: &billing::Change,
) -> Result<Option<Uuid>, StoreError> {
    let mut invoice = None;
    if change.is_due_now {
        invoice = Some(ledger::issue(dashboard, tx, actor, account, change.lines.clone()).await?);
    } else {
        ledger::add(tx, account, &change.lines).await?;
    }
    if plan.is_free() {
        ledger::settle_up(dashboard, tx, actor, account).await?;
    } else {
        ledger::spend_credit(tx, actor, account.tenant, account.now).await?;
    }
    Ok(invoice)
}

/// Whether the plan may be picked.
async fn check(
    tx: &mut Tx,
    app: &App,
    before: Option<&Subscription>,
    plan: &Plan,
    now: i64,
) -> Result<(), SubscriptionError> {
    if let Some(before) = before {
        if (&before.plan.id, before.plan.version) == (&plan.id, plan.version) {
            return Err(SubscriptionError::Same);
        }
        if let Some(number) = ledger::overdue(tx, app.tenant, Some(before.id), now).await? {
            return Err(SubscriptionError::PastDue(number));
        }
        if !before.plan.is_free() && !plan.is_free() && before.plan.currency != plan.currency {
            let (from, to) = (before.plan.currency.clone(), plan.currency.clone());
            return Err(SubscriptionError::Currency { from, to });
        }
    }
    if !plan.is_free()
        && let Some(number) = ledger::overdue(tx, app.tenant, None, now).await?
    {
        return Err(SubscriptionError::Unpaid(number));
    }
    Ok(())
}

async fn check_tenant(tx: &mut Tx, tenant: Uuid) -> Result<(), SubscriptionError> {
    let row = query("SELECT state FROM tenants WHERE id = $1").bind(tenant.to_string());
    match row.fetch_one(&mut **tx).await?.text("state")?.parse() {
        Ok(TenantState::Active) => Ok(()),
        Ok(state) => Err(SubscriptionError::TenantState(state)),
        Err(()) => Err(StoreError::Corrupt { what: "state", value: tenant.to_string() }.into()),
    }
}

/// Ends what was cancelled and has run out, so that its place (the free plan's one) is free again.
async fn end_run_out(
    dashboard: &Dashboard,
    tx: &mut Tx,
    actor: &Actor,
    tenant: Uuid,
    now: i64,
) -> Result<(), StoreError> {
    let rows = query(select_subscriptions!(
        "s.tenant_id = $1 AND s.ended_at IS NULL AND s.cancelled_at IS NOT NULL AND s.period_end <= $2"
    ));
    for row in rows.bind(tenant.to_string()).bind(now).fetch_all(&mut **tx).await? {
        let found = Subscription::of_row(&row)?;
        end_in(dashboard, tx, actor, &found, found.period_end, "cancelled").await?;
    }
    Ok(())
}

/// The subscription in its current period, if the schedule has not come to it yet.
async fn brought_up(
    dashboard: &Dashboard,
    tx: &mut Tx,
    actor: &Actor,
    mut found: Subscription,
    now: i64,
) -> Result<Subscription, StoreError> {
    while found.period_end <= now {
        (found, _) = renew_in(dashboard, tx, actor, &found, now).await?;
    }
    Ok(found)
}

async fn insert(tx: &mut Tx, app: &App, plan: &Plan, period: Span) -> Result<Uuid, SubscriptionError> {
    let id = random::guid();
    let insert = query(
        "INSERT INTO subscriptions (id, tenant_id, app_id, region, plan_id, plan_version, is_free, period_start, \
         period_end, anchor_at, periods, created_at, version) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $8, 0, $8, 1)",
    );
    let insert = insert.bind(id.to_string()).bind(app.tenant.to_string()).bind(app.id.to_string());
    let insert = insert.bind(app.region.code()).bind(plan.id.clone()).bind(plan.version);
    let insert = insert.bind(i64::from(plan.is_free())).bind(period.start).bind(period.end);
    insert.execute(&mut **tx).await.map_err(free_taken)?;
    Ok(id)
}

async fn update(
    tx: &mut Tx,
    before: &Subscription,
    plan: &Plan,
    new_period: Option<Span>,
) -> Result<(), SubscriptionError> {
    let period = new_period.unwrap_or(before.period());
    let (anchor_at, periods) = match new_period {
        Some(period) => (period.start, 0),
        None => (before.anchor_at, before.periods),
    };
    let update = query(
        "UPDATE subscriptions SET plan_id = $1, plan_version = $2, is_free = $3, period_start = $4, period_end = $5, \
         anchor_at = $6, periods = $7, cancelled_at = NULL, version = version + 1 WHERE id = $8",
    );
    let update = update.bind(plan.id.clone()).bind(plan.version).bind(i64::from(plan.is_free()));
    let update = update.bind(period.start).bind(period.end).bind(anchor_at).bind(periods);
    update.bind(before.id.to_string()).execute(&mut **tx).await.map_err(free_taken)?;
    Ok(())
}

/// Under the tenant's lock the app has no second subscription: it is the free plan's index that objects.
fn free_taken(error: sqlx::Error) -> SubscriptionError {
    let error = StoreError::from(error);
    if error.is_unique_violation() { SubscriptionError::FreeTaken } else { error.into() }
}

async fn shown(
    tx: &mut Tx,
    tenant: Uuid,
    invoice: Uuid,
    at: i64,
) -> Result<Option<InvoicePreview>, StoreError> {
    let detail = invoices::detail_in(tx, tenant, invoice).await?;
    Ok(detail.map(|InvoiceDetail { invoice, lines, .. }| InvoicePreview {
        at,
        lines,
        total_cents: invoice.total_cents,
        currency: invoice.currency,
    }))
}

async fn credited(tx: &mut Tx, tenant: Uuid) -> Result<i64, StoreError> {
    let sum = query(
        "SELECT CAST(COALESCE(SUM(credited_cents), 0) AS BIGINT) AS credited FROM invoices WHERE tenant_id = $1",
    );
    sum.bind(tenant.to_string()).fetch_one(&mut **tx).await?.int("credited")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_survives_a_form() {
        let quote = Quote { at: 1_800_000_000, account: 7, plan_version: 2 };
        assert_eq!(quote.to_string().parse(), Ok(quote));
        for bad in ["", "1.2", "1.2.3.4", "a.b.c"] {
            assert_eq!(bad.parse::<Quote>(), Err(QuoteError), "{bad:?}");
        }
    }
}
