//! What happens to subscriptions by themselves: renewal, end, overdue invoices, the end of the grace.
//!
//! Each step is one transaction that takes the tenant's lock and looks again: safe to repeat, and to run on several
//! dashboards at once.

use serde_json::json;
use uuid::Uuid;

use super::{Subscription, end_in, fall_due, select_subscriptions};
use crate::dashboard::Dashboard;
use crate::dashboard::access::Actor;
use crate::dashboard::apps;
use crate::dashboard::audit;
use crate::dashboard::billing::{Span, ledger, period_line};
use crate::dashboard::plans::plan_columns;
use crate::dashboard::store::{Columns, StoreError, Tx, query};

/// Subscriptions or invoices that one pass looks at; the next pass takes the rest.
const DUE_MAX: i64 = 1000;
/// Periods that one pass catches up on, for a dashboard that was away for long.
const PERIODS_MAX: u32 = 36;

/// What one pass of [`upkeep`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Upkeep {
    /// Periods begun.
    pub renewed: u32,
    pub ended: u32,
    /// Not renewed, because their tenants are suspended.
    pub held: u32,
    pub past_due: u32,
    /// No tokens any more: the grace is over.
    pub disabled: u32,
}

/// Does whatever is due. Safe to repeat, and to run on several dashboards at once.
///
/// # Errors
/// The first [`StoreError`]. One subscription's trouble holds up no other.
pub async fn upkeep(dashboard: &Dashboard) -> Result<Upkeep, StoreError> {
    let (mut done, mut first_error) = (Upkeep::default(), None);
    let mut note = |result: Result<(), StoreError>| {
        if let Err(error) = result {
            first_error.get_or_insert(error);
        }
    };
    // What is overdue comes first: what should be disabled must not be renewed.
    for (tenant, subscription) in overdue(dashboard).await? {
        note(past_due(dashboard, tenant, subscription, &mut done).await);
    }
    for (tenant, subscription) in out_of_grace(dashboard).await? {
        note(disable(dashboard, tenant, subscription, &mut done).await);
    }
    for (tenant, subscription) in at_periods_end(dashboard).await? {
        note(turn(dashboard, tenant, subscription, &mut done).await);
    }
    if done != Upkeep::default() {
        dashboard.feed.wake();
    }
    first_error.map_or(Ok(done), Err)
}

async fn overdue(dashboard: &Dashboard) -> Result<Vec<(Uuid, Uuid)>, StoreError> {
    let rows = query(
        "SELECT DISTINCT s.tenant_id, s.id FROM invoices i JOIN subscriptions s ON s.id = i.subscription_id \
         WHERE i.state = 'open' AND i.due_at <= $1 AND s.ended_at IS NULL AND s.past_due_at IS NULL LIMIT $2",
    );
    named(rows.bind(dashboard.now()).bind(DUE_MAX).fetch_all(dashboard.home.reader()).await?)
}

async fn out_of_grace(dashboard: &Dashboard) -> Result<Vec<(Uuid, Uuid)>, StoreError> {
    let rows = query(
        "SELECT tenant_id, id FROM subscriptions WHERE ended_at IS NULL AND disabled_at IS NULL \
         AND past_due_at <= $1 ORDER BY past_due_at LIMIT $2",
    );
    let before = dashboard.now() - dashboard.config.billing.grace_s;
    named(rows.bind(before).bind(DUE_MAX).fetch_all(dashboard.home.reader()).await?)
}

async fn at_periods_end(dashboard: &Dashboard) -> Result<Vec<(Uuid, Uuid)>, StoreError> {
    let rows = query(
        "SELECT s.tenant_id, s.id FROM subscriptions s JOIN tenants t ON t.id = s.tenant_id \
         WHERE s.ended_at IS NULL AND s.period_end <= $1 AND (t.state = 'active' OR s.held_at IS NULL) \
         ORDER BY s.period_end LIMIT $2",
    );
    named(rows.bind(dashboard.now()).bind(DUE_MAX).fetch_all(dashboard.home.reader()).await?)
}

fn named(rows: Vec<sqlx::any::AnyRow>) -> Result<Vec<(Uuid, Uuid)>, StoreError> {
    rows.iter().map(|row| Ok((row.parsed("tenant_id")?, row.parsed("id")?))).collect()
}

async fn past_due(
    dashboard: &Dashboard,
    tenant: Uuid,
    subscription: Uuid,
    done: &mut Upkeep,
) -> Result<(), StoreError> {
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    ledger::lock(&mut tx, tenant).await?;
    let since = query(
        "SELECT MIN(due_at) AS since FROM invoices WHERE subscription_id = $1 AND state = 'open' AND due_at <= $2",
    );
    let since = since.bind(subscription.to_string()).bind(now).fetch_one(&mut *tx).await?;
    let Some(since) = since.int_or_null("since")? else { return Ok(()) };
    if fall_due(&mut tx, &Actor::system(), tenant, subscription, since, now).await? {
        tx.commit().await?;
        done.past_due += 1;
    }
    Ok(())
}

async fn disable(
    dashboard: &Dashboard,
    tenant: Uuid,
    subscription: Uuid,
    done: &mut Upkeep,
) -> Result<(), StoreError> {
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    ledger::lock(&mut tx, tenant).await?;
    let Some(found) = live_in(&mut tx, subscription).await? else { return Ok(()) };
    let is_due = found.past_due_at.is_some_and(|since| since + dashboard.config.billing.grace_s <= now);
    if !is_due || found.disabled_at.is_some() {
        return Ok(());
    }
    let update = query("UPDATE subscriptions SET disabled_at = $1, version = version + 1 WHERE id = $2");
    update.bind(now).bind(found.id.to_string()).execute(&mut *tx).await?;
    let event = found.event(now, &Actor::system(), "subscription.disable", json!({}));
    audit::append(&mut tx, &event).await?;
    tx.commit().await?;
    done.disabled += 1;
    Ok(())
}

/// The subscription's period is over: what now?
async fn turn(
    dashboard: &Dashboard,
    tenant: Uuid,
    subscription: Uuid,
    done: &mut Upkeep,
) -> Result<(), StoreError> {
    let (now, actor) = (dashboard.now(), Actor::system());
    let Some(app) = app_of(dashboard, subscription).await? else { return Ok(()) };
    let has_app = apps::find(dashboard, tenant, app).await?.is_some();
    let mut step = Upkeep::default();
    let mut tx = dashboard.home.begin().await?;
    ledger::lock(&mut tx, tenant).await?;
    let state = query("SELECT state FROM tenants WHERE id = $1").bind(tenant.to_string());
    let is_active = state.fetch_one(&mut *tx).await?.text("state")? == "active";
    let found = live_in(&mut tx, subscription).await?;
    let Some(mut found) = found.filter(|found| found.period_end <= now) else { return Ok(()) };
    let reasons = [
        (!has_app, "its app is gone"),
        (found.cancelled_at.is_some(), "cancelled"),
        (found.disabled_at.is_some(), "unpaid"),
    ];
    if let Some((_, because)) = reasons.into_iter().find(|(holds, _)| *holds) {
        end_in(dashboard, &mut tx, &actor, &found, found.period_end, because).await?;
        step.ended += 1;
    } else if is_active {
        while found.period_end <= now && step.renewed < PERIODS_MAX {
            (found, _) = renew_in(dashboard, &mut tx, &actor, &found, now).await?;
            step.renewed += 1;
        }
    } else if found.held_at.is_none() {
        let update = query("UPDATE subscriptions SET held_at = $1, version = version + 1 WHERE id = $2");
        update.bind(now).bind(found.id.to_string()).execute(&mut *tx).await?;
        audit::append(&mut tx, &found.event(now, &actor, "subscription.hold", json!({}))).await?;
        step.held += 1;
    }
    tx.commit().await?;
    done.ended += step.ended;
    done.renewed += step.renewed;
    done.held += step.held;
    Ok(())
}

/// Begins the next period and issues its invoice, which is none for a free plan. A period that was held begins now, not
/// where the last one ended: nobody pays for the time of a suspension.
pub(super) async fn renew_in(
    dashboard: &Dashboard,
    tx: &mut Tx,
    actor: &Actor,
    found: &Subscription,
    now: i64,
) -> Result<(Subscription, Option<Uuid>), StoreError> {
    let (anchor_at, periods, period) = next_period(found, now);
    let update = query(
        "UPDATE subscriptions SET period_start = $1, period_end = $2, anchor_at = $3, periods = $4, held_at = NULL, \
         version = version + 1 WHERE id = $5",
    );
    let update = update.bind(period.start).bind(period.end).bind(anchor_at).bind(periods);
    update.bind(found.id.to_string()).execute(&mut **tx).await?;
    let detail = json!({ "plan": found.plan.id, "periodEnd": period.end });
    let event = found.event(dashboard.now(), actor, "subscription.renew", detail);
    audit::append(tx, &event).await?;
    let mut invoice = None;
    if let Some(line) = period_line(found.plan.price(), period) {
        let account = found.account(now);
        invoice = Some(ledger::issue(dashboard, tx, actor, &account, vec![line]).await?);
    }
    let renewed = Subscription {
        anchor_at,
        periods,
        period_start: period.start,
        period_end: period.end,
        held_at: None,
        version: found.version + 1,
        ..found.clone()
    };
    Ok((renewed, invoice))
}

/// Where periods are counted from, the next one's number, and the period.
fn next_period(found: &Subscription, now: i64) -> (i64, i64, Span) {
    let cadence = found.plan.period;
    if found.held_at.is_some() {
        return (now, 0, Span { start: now, end: cadence.after(now, 1) });
    }
    let start = found.period_end;
    let mut periods = found.periods + 1;
    // A period from before there were calendar months can end in the midst of one.
    while cadence.after(found.anchor_at, periods + 1) <= start {
        periods += 1;
    }
    (found.anchor_at, periods, Span { start, end: cadence.after(found.anchor_at, periods + 1) })
}

async fn live_in(tx: &mut Tx, subscription: Uuid) -> Result<Option<Subscription>, StoreError> {
    let row = query(select_subscriptions!("s.id = $1 AND s.ended_at IS NULL"));
    let row = row.bind(subscription.to_string()).fetch_optional(&mut **tx).await?;
    row.map(|row| Subscription::of_row(&row)).transpose()
}

async fn app_of(dashboard: &Dashboard, subscription: Uuid) -> Result<Option<Uuid>, StoreError> {
    let row = query("SELECT app_id FROM subscriptions WHERE id = $1").bind(subscription.to_string());
    let row = row.fetch_optional(dashboard.home.reader()).await?;
    row.map(|row| row.parsed("app_id")).transpose()
}
