//! Which app is on which plan, from when to when, and in what state.
//!
//! ```text
//!            ┌───────────── renewed, or another plan ────────────┐
//!            ▼                                                   │
//! (pick) ► active ──cancel──► cancelled ──period's end──► ended  │
//!            │  ▲ ◄──un-cancel──┘                           ▲    │
//!   overdue  ▼  │ paid                                      │    │
//!          past_due ──grace over──► past_due, disabled ──period's end
//! ```
//!
//! - An app has at most one subscription that has not ended, and a tenant at most one of those on a free plan: two partial
//!   unique indexes, which hold under any race.
//! - An app gets tokens while its subscription has not ended, is not disabled, and, if it is cancelled, its period runs. A
//!   renewal that is late takes nobody's tokens away.
//! - A subscription keeps the plan's version that it was made with.
//! - Whatever changes here takes the tenant's lock first (`billing::ledger`), and its audit entry is named
//!   `subscription.…` and names the app: that is what the feed to nodes can be told from ([`changed_limits`]).

mod change;
mod schedule;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::Dashboard;
use super::access::{Action, Actor, Denied, require};
use super::apps::{self, App};
use super::audit::{self, Event};
use super::billing::{Span, ledger, unused_line};
use super::plans::{Plan, plan_columns};
use super::region::LicenseRegion;
use super::store::{Columns, StoreError, Tx, query};
use super::tenants::TenantState;

pub use change::{
    InvoicePreview, Picked, Preview, QUOTE_LIFE_S, Quote, QuoteError, pick, preview, subscribe,
};
pub use schedule::{Upkeep, upkeep};

/// An app, by its tenant and its id: those who pay may not know more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppId {
    pub tenant: Uuid,
    pub app: Uuid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionState {
    Active,
    /// A payment is late; the app goes on until the grace is over, and is disabled then.
    PastDue,
    /// Runs until `period_end`.
    Cancelled,
    Ended,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub id: Uuid,
    pub tenant: Uuid,
    pub app: Uuid,
    /// In the version that the subscription has, which may be an older one than is on offer.
    pub plan: Plan,
    pub state: SubscriptionState,
    pub period_start: i64,
    pub period_end: i64,
    pub cancelled_at: Option<i64>,
    pub past_due_at: Option<i64>,
    /// Since when the app gets no tokens, because nobody paid in the grace.
    pub disabled_at: Option<i64>,
    pub ended_at: Option<i64>,
    /// Rises with every change of the row; the API's ETag.
    pub version: i64,
    anchor_at: i64,
    periods: i64,
    held_at: Option<i64>,
}

/// An app with its plan, as everybody in the tenant may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppPlan {
    pub app: Uuid,
    pub name: String,
    pub region: LicenseRegion,
    pub subscription: Option<Subscription>,
}

#[derive(Debug, thiserror::Error)]
pub enum SubscriptionError {
    #[error("there is no plan {0:?} on offer")]
    Plan(String),
    #[error("there is no such app")]
    App,
    #[error("this app has a plan already; change it instead")]
    Exists,
    #[error("the app is on this plan already")]
    Same,
    #[error(
        "another app of this tenant is on the free plan already; choose a paid plan, or end that one first"
    )]
    FreeTaken,
    #[error(
        "the app's plan is in {from} and the new one in {to}; cancel the old one, and pick the new one when it has ended"
    )]
    Currency { from: String, to: String },
    #[error("invoice {0} of this app is overdue; pay it first, then change the plan")]
    PastDue(i64),
    #[error("invoice {0} of this tenant is overdue; pay it first, then pick a paid plan")]
    Unpaid(i64),
    #[error(
        "what was shown is no longer what it would cost: it is more than 15 minutes old, or something has changed \
         since; look at the preview again"
    )]
    Stale,
    #[error("the tenant is {0}; plans can be picked while it is active")]
    TenantState(TenantState),
    #[error("this app has no plan that could be cancelled")]
    Missing,
    #[error("this app has no cancelled plan that still runs; pick a plan instead")]
    NotCancelled,
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for SubscriptionError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<&App> for AppId {
    fn from(app: &App) -> Self {
        Self { tenant: app.tenant, app: app.id }
    }
}

impl SubscriptionState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Cancelled => "cancelled",
            Self::Ended => "ended",
        }
    }
}

impl Subscription {
    /// Whether the app gets tokens.
    #[must_use]
    pub fn entitles(&self, now: i64) -> bool {
        self.ended_at.is_none()
            && self.disabled_at.is_none()
            && (self.cancelled_at.is_none() || self.period_end > now)
    }

    fn period(&self) -> Span {
        Span { start: self.period_start, end: self.period_end }
    }

    fn account(&self, now: i64) -> ledger::Account<'_> {
        ledger::Account {
            tenant: self.tenant,
            app: self.app,
            subscription: self.id,
            currency: &self.plan.currency,
            now,
        }
    }

    fn event(&self, now: i64, actor: &Actor, action: &str, mut detail: Value) -> Event {
        detail["app"] = json!(self.app);
        Event::new(now, actor, action, self.id).of_tenant(self.tenant).with(detail)
    }

    fn of_row(row: &AnyRow) -> Result<Self, StoreError> {
        let cancelled_at = row.int_or_null("cancelled_at")?;
        let past_due_at = row.int_or_null("past_due_at")?;
        let ended_at = row.int_or_null("ended_at")?;
        let state = match (ended_at, past_due_at, cancelled_at) {
            (Some(_), ..) => SubscriptionState::Ended,
            (None, Some(_), _) => SubscriptionState::PastDue,
            (None, None, Some(_)) => SubscriptionState::Cancelled,
            (None, None, None) => SubscriptionState::Active,
        };
        Ok(Self {
            id: row.parsed("subscription_id")?,
            tenant: row.parsed("tenant_id")?,
            app: row.parsed("app_id")?,
            plan: Plan::of_row(row)?,
            state,
            period_start: row.int("period_start")?,
            period_end: row.int("period_end")?,
            cancelled_at,
            past_due_at,
            disabled_at: row.int_or_null("disabled_at")?,
            ended_at,
            version: row.int("version")?,
            anchor_at: row.int("anchor_at")?,
            periods: row.int("periods")?,
            held_at: row.int_or_null("held_at")?,
        })
    }
}

/// Reads subscriptions with their plans; the conditions follow.
macro_rules! select_subscriptions {
    ($conditions:literal) => {
        concat!(
            "SELECT s.id AS subscription_id, s.tenant_id, s.app_id, s.period_start, s.period_end, s.cancelled_at, \
             s.past_due_at, s.disabled_at, s.ended_at, s.version, s.anchor_at, s.periods, s.held_at, ",
            plan_columns!(),
            " FROM subscriptions s JOIN plans p ON p.id = s.plan_id \
             JOIN plan_versions v ON v.plan_id = s.plan_id AND v.version = s.plan_version WHERE ",
            $conditions
        )
    };
}
use select_subscriptions;

/// An app's subscription, also while it is disabled; none if it has ended or there never was one.
///
/// # Errors
/// [`SubscriptionError::Denied`].
pub async fn read(
    dashboard: &Dashboard,
    actor: &Actor,
    app: impl Into<AppId>,
) -> Result<Option<Subscription>, SubscriptionError> {
    let app = app.into();
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ReadSubscriptions, Some(app.tenant)).await?;
    Ok(find_in(&mut tx, app.app).await?.filter(|subscription| subscription.tenant == app.tenant))
}

/// A tenant's apps with their plans, oldest first.
///
/// # Errors
/// [`SubscriptionError::Denied`].
pub async fn list(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
) -> Result<Vec<AppPlan>, SubscriptionError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ReadSubscriptions, Some(tenant)).await?;
    let rows = query(select_subscriptions!("s.tenant_id = $1 AND s.ended_at IS NULL"));
    let rows = rows.bind(tenant.to_string()).fetch_all(&mut *tx).await?;
    drop(tx);
    let subscriptions = rows.iter().map(Subscription::of_row).collect::<Result<Vec<_>, _>>()?;
    let with_plan = |app: App| AppPlan {
        subscription: subscriptions.iter().find(|subscription| subscription.app == app.id).cloned(),
        app: app.id,
        name: app.name,
        region: app.region,
    };
    Ok(apps::of_tenant(dashboard, tenant).await?.into_iter().map(with_plan).collect())
}

/// Cancels an app's subscription: it runs to the end of its period.
///
/// # Errors
/// [`SubscriptionError::Missing`] if there is none, or it is cancelled already.
pub async fn cancel(
    dashboard: &Dashboard,
    actor: &Actor,
    app: impl Into<AppId>,
) -> Result<(), SubscriptionError> {
    let (app, now) = (app.into(), dashboard.now());
    let (mut tx, found) = begin(dashboard, actor, app).await?;
    let found = found.filter(|found| found.cancelled_at.is_none()).ok_or(SubscriptionError::Missing)?;
    set_cancelled(&mut tx, &found, Some(now)).await?;
    let detail = json!({ "periodEnd": found.period_end });
    audit::append(&mut tx, &found.event(now, actor, "subscription.cancel", detail)).await?;
    Ok(tx.commit().await?)
}

/// Takes a cancellation back, before the period ends.
///
/// # Errors
/// [`SubscriptionError::NotCancelled`] if there is none, or it is too late.
pub async fn uncancel(
    dashboard: &Dashboard,
    actor: &Actor,
    app: impl Into<AppId>,
) -> Result<(), SubscriptionError> {
    let (app, now) = (app.into(), dashboard.now());
    let (mut tx, found) = begin(dashboard, actor, app).await?;
    let found = found.filter(|found| found.cancelled_at.is_some() && found.period_end > now);
    let found = found.ok_or(SubscriptionError::NotCancelled)?;
    set_cancelled(&mut tx, &found, None).await?;
    audit::append(&mut tx, &found.event(now, actor, "subscription.uncancel", json!({}))).await?;
    Ok(tx.commit().await?)
}

/// An operator ends an app's subscription at once. What is left of a paid period is credited. Tenants cancel, or delete
/// the app.
///
/// # Errors
/// [`SubscriptionError::Missing`] if there is none.
pub async fn end_now(
    dashboard: &Dashboard,
    actor: &Actor,
    app: impl Into<AppId>,
) -> Result<(), SubscriptionError> {
    let (app, now) = (app.into(), dashboard.now());
    let (mut tx, found) = begin(dashboard, actor, app).await?;
    require(&mut tx, actor, Action::ManagePayments, Some(app.tenant)).await?;
    let found = found.ok_or(SubscriptionError::Missing)?;
    end_in(dashboard, &mut tx, actor, &found, now, "ended at once").await?;
    tx.commit().await?;
    dashboard.feed.wake();
    Ok(())
}

/// The app is being deleted: its subscription ends now, if it has one. What is left of a paid period is credited.
pub(super) async fn end_for_deleted_app(
    dashboard: &Dashboard,
    tx: &mut Tx,
    actor: &Actor,
    app: &App,
) -> Result<(), StoreError> {
    ledger::lock(tx, app.tenant).await?;
    if let Some(found) = find_in(tx, app.id).await? {
        end_in(dashboard, tx, actor, &found, dashboard.now(), "app deleted").await?;
    }
    Ok(())
}

/// A transaction with the right to change the app's subscription and the tenant's lock, and the subscription if there is one.
async fn begin(
    dashboard: &Dashboard,
    actor: &Actor,
    app: AppId,
) -> Result<(Tx, Option<Subscription>), SubscriptionError> {
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::ChangeSubscriptions, Some(app.tenant)).await?;
    ledger::lock(&mut tx, app.tenant).await?;
    let found = find_in(&mut tx, app.app).await?.filter(|found| found.tenant == app.tenant);
    Ok((tx, found))
}

async fn set_cancelled(tx: &mut Tx, found: &Subscription, at: Option<i64>) -> Result<(), StoreError> {
    let update = query("UPDATE subscriptions SET cancelled_at = $1, version = version + 1 WHERE id = $2");
    update.bind(at).bind(found.id.to_string()).execute(&mut **tx).await?;
    Ok(())
}

/// Ends a subscription at a moment: what is left of its period is credited, what it still owes is invoiced.
async fn end_in(
    dashboard: &Dashboard,
    tx: &mut Tx,
    actor: &Actor,
    found: &Subscription,
    at: i64,
    because: &str,
) -> Result<(), StoreError> {
    let update = query(
        "UPDATE subscriptions SET ended_at = $1, version = version + 1 WHERE id = $2 AND ended_at IS NULL",
    );
    update.bind(at).bind(found.id.to_string()).execute(&mut **tx).await?;
    let now = dashboard.now();
    let event = found.event(now, actor, "subscription.end", json!({ "because": because }));
    audit::append(tx, &event).await?;
    let account = found.account(now);
    if let Some(line) = unused_line(found.plan.price(), found.period(), at) {
        ledger::add(tx, &account, &[line]).await?;
    }
    ledger::settle_up(dashboard, tx, actor, &account).await
}

/// Nothing of the subscription is overdue any more, unless something is: it goes on as if nothing had been.
pub(super) async fn recover(
    tx: &mut Tx,
    actor: &Actor,
    tenant: Uuid,
    subscription: Uuid,
    now: i64,
) -> Result<(), StoreError> {
    if ledger::overdue(tx, tenant, Some(subscription), now).await?.is_some() {
        return Ok(());
    }
    let update = query(
        "UPDATE subscriptions SET past_due_at = NULL, disabled_at = NULL, version = version + 1 \
         WHERE id = $1 AND past_due_at IS NOT NULL AND ended_at IS NULL RETURNING app_id",
    );
    let row = update.bind(subscription.to_string()).fetch_optional(&mut **tx).await?;
    let Some(row) = row else { return Ok(()) };
    let event = Event::new(now, actor, "subscription.recover", subscription).of_tenant(tenant);
    audit::append(tx, &event.with(json!({ "app": row.text("app_id")? }))).await
}

/// Something of the subscription is overdue since `since`; whether that is news.
pub(super) async fn fall_due(
    tx: &mut Tx,
    actor: &Actor,
    tenant: Uuid,
    subscription: Uuid,
    since: i64,
    now: i64,
) -> Result<bool, StoreError> {
    let update = query(
        "UPDATE subscriptions SET past_due_at = $1, version = version + 1 \
         WHERE id = $2 AND past_due_at IS NULL AND ended_at IS NULL RETURNING app_id",
    );
    let row = update.bind(since).bind(subscription.to_string()).fetch_optional(&mut **tx).await?;
    let Some(row) = row else { return Ok(false) };
    let event = Event::new(now, actor, "subscription.past_due", subscription).of_tenant(tenant);
    audit::append(tx, &event.with(json!({ "app": row.text("app_id")? }))).await?;
    Ok(true)
}

const OF_APP: &str = select_subscriptions!("s.app_id = $1 AND s.ended_at IS NULL");

async fn find_in(tx: &mut Tx, app: Uuid) -> Result<Option<Subscription>, StoreError> {
    let row = query(OF_APP).bind(app.to_string()).fetch_optional(&mut **tx).await?;
    row.map(|row| Subscription::of_row(&row)).transpose()
}

/// An app's subscription, whoever asks, whether it entitles to tokens or not.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn find(dashboard: &Dashboard, app: Uuid) -> Result<Option<Subscription>, StoreError> {
    let row = query(OF_APP).bind(app.to_string()).fetch_optional(dashboard.home.reader()).await?;
    row.map(|row| Subscription::of_row(&row)).transpose()
}

/// The subscription that entitles an app to tokens now, if it has one.
///
/// # Errors
/// [`StoreError`].
pub async fn current(dashboard: &Dashboard, app: Uuid) -> Result<Option<Subscription>, StoreError> {
    let now = dashboard.now();
    Ok(find(dashboard, app).await?.filter(|subscription| subscription.entitles(now)))
}

/// The apps whose subscriptions have changed in the audit log after `after`, up to `head`, each with its tenant and the
/// plan whose limits it has now; none if it gets no tokens any more. For whoever tells nodes.
///
/// # Errors
/// [`StoreError`].
pub async fn changed_limits(
    dashboard: &Dashboard,
    after: i64,
    head: i64,
) -> Result<Vec<(AppId, Option<Plan>)>, StoreError> {
    let rows = query(
        "SELECT tenant_id, detail FROM audit_log WHERE seq > $1 AND seq <= $2 AND action LIKE 'subscription.%'",
    );
    let rows = rows.bind(after).bind(head).fetch_all(dashboard.home.reader()).await?;
    let mut apps = BTreeSet::new();
    for row in &rows {
        let detail: Value = serde_json::from_str(&row.text("detail")?).unwrap_or_default();
        if let Some(app) = detail["app"].as_str().and_then(|app| app.parse::<Uuid>().ok()) {
            apps.insert((row.parsed::<Uuid>("tenant_id")?, app));
        }
    }
    let mut changed = Vec::new();
    for (tenant, app) in apps {
        let plan = current(dashboard, app).await?.map(|subscription| subscription.plan);
        changed.push((AppId { tenant, app }, plan));
    }
    Ok(changed)
}
