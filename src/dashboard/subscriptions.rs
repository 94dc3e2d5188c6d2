//! Which app is on which plan. What is here is the record; charging for it is billing's.
//!
//! An app has at most one subscription that has not ended, and a tenant at most one of those on a free plan: two partial
//! unique indexes, which hold under any race. `cancelled` runs to the end of its period.

use uuid::Uuid;

use super::Dashboard;
use super::access::{Action, Actor, Denied, require};
use super::apps::App;
use super::audit::{self, Event};
use super::plans::{self, Plan};
use super::random;
use super::store::{Columns, StoreError, Tx, query};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionState {
    Active,
    /// A payment is late; the app goes on until billing ends the grace.
    PastDue,
    /// Runs until `period_end`.
    Cancelled,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub id: Uuid,
    pub app: Uuid,
    pub plan: Plan,
    pub state: SubscriptionState,
    pub period_start: i64,
    pub period_end: i64,
    pub version: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum SubscriptionError {
    #[error("there is no plan {0:?} on offer")]
    Plan(String),
    #[error("this app has a plan already; change it instead")]
    Exists,
    #[error(
        "another app of this tenant is on the free plan already; choose a paid plan, or end that one first"
    )]
    FreeTaken,
    #[error("this app has no plan that could be cancelled")]
    Missing,
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

impl SubscriptionState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Cancelled => "cancelled",
        }
    }
}

impl std::str::FromStr for SubscriptionState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Active, Self::PastDue, Self::Cancelled]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(())
    }
}

/// Puts an app that has no plan on one.
///
/// # Errors
/// [`SubscriptionError::FreeTaken`] for a second free app of the tenant, however many try at once.
pub async fn subscribe(
    dashboard: &Dashboard,
    actor: &Actor,
    app: &App,
    plan: &str,
) -> Result<Uuid, SubscriptionError> {
    let found = plans::find(dashboard, plan).await?.filter(|plan| plan.is_offered);
    let plan = found.ok_or_else(|| SubscriptionError::Plan(plan.to_owned()))?;
    let (id, now) = (random::guid(), dashboard.now());
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::ChangeSubscriptions, Some(app.tenant)).await?;
    end_expired(&mut tx, app.tenant, now).await?;
    let insert = query(
        "INSERT INTO subscriptions (id, tenant_id, app_id, region, plan_id, is_free, state, period_start, period_end, \
         created_at, version) VALUES ($1, $2, $3, $4, $5, $6, 'active', $7, $8, $7, 1) \
         ON CONFLICT (app_id) WHERE ended_at IS NULL DO NOTHING",
    );
    let insert = insert.bind(id.to_string()).bind(app.tenant.to_string()).bind(app.id.to_string());
    let insert = insert.bind(app.region.code()).bind(plan.id.clone()).bind(i64::from(plan.is_free()));
    let inserted = insert.bind(now).bind(now + plan.period_s()).execute(&mut *tx).await;
    match inserted.map_err(StoreError::from) {
        Ok(done) if done.rows_affected() == 1 => {}
        Ok(_) => return Err(SubscriptionError::Exists),
        Err(error) if error.is_unique_violation() => return Err(SubscriptionError::FreeTaken),
        Err(error) => return Err(error.into()),
    }
    let detail = serde_json::json!({ "app": app.id, "plan": plan.id });
    let event = Event::new(now, actor, "subscription.create", id).of_tenant(app.tenant).with(detail);
    audit::append(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(id)
}

/// Cancels an app's subscription: it runs to the end of its period.
///
/// # Errors
/// [`SubscriptionError::Missing`] if there is none, or it is cancelled already.
pub async fn cancel(dashboard: &Dashboard, actor: &Actor, app: &App) -> Result<(), SubscriptionError> {
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::ChangeSubscriptions, Some(app.tenant)).await?;
    let update = query(
        "UPDATE subscriptions SET state = 'cancelled', version = version + 1 \
         WHERE app_id = $1 AND tenant_id = $2 AND ended_at IS NULL AND state <> 'cancelled' RETURNING id",
    );
    let update = update.bind(app.id.to_string()).bind(app.tenant.to_string());
    let row = update.fetch_optional(&mut *tx).await?.ok_or(SubscriptionError::Missing)?;
    let detail = serde_json::json!({ "app": app.id });
    let event = Event::new(now, actor, "subscription.cancel", row.text("id")?);
    audit::append(&mut tx, &event.of_tenant(app.tenant).with(detail)).await?;
    Ok(tx.commit().await?)
}

/// The app is being deleted: its subscription ends now, if it has one.
pub(super) async fn end_for_deleted_app(
    dashboard: &Dashboard,
    actor: &Actor,
    app: &App,
) -> Result<(), StoreError> {
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    let update = query(
        "UPDATE subscriptions SET state = 'cancelled', ended_at = $1, version = version + 1 \
         WHERE app_id = $2 AND ended_at IS NULL RETURNING id",
    );
    let row = update.bind(now).bind(app.id.to_string()).fetch_optional(&mut *tx).await?;
    if let Some(row) = row {
        let event = Event::new(now, actor, "subscription.end", row.text("id")?).of_tenant(app.tenant);
        let detail = serde_json::json!({ "app": app.id, "because": "app deleted" });
        audit::append(&mut tx, &event.with(detail)).await?;
    }
    Ok(tx.commit().await?)
}

/// An app, with its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppId {
    pub tenant: Uuid,
    pub app: Uuid,
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
    let mut apps = std::collections::BTreeSet::new();
    for row in &rows {
        let detail: serde_json::Value = serde_json::from_str(&row.text("detail")?).unwrap_or_default();
        if let Some(app) = detail["app"].as_str().and_then(|app| app.parse::<Uuid>().ok()) {
            apps.insert(AppId { tenant: row.parsed("tenant_id")?, app });
        }
    }
    let mut changed = Vec::new();
    for app in apps {
        let plan = current(dashboard, app.app).await?.map(|subscription| subscription.plan);
        changed.push((app, plan));
    }
    Ok(changed)
}

/// Ends what was cancelled and has run out, so that its place (the free plan's one) is free again.
async fn end_expired(tx: &mut Tx, tenant: Uuid, now: i64) -> Result<(), StoreError> {
    let update = query(
        "UPDATE subscriptions SET ended_at = period_end, version = version + 1 \
         WHERE tenant_id = $1 AND ended_at IS NULL AND state = 'cancelled' AND period_end <= $2",
    );
    update.bind(tenant.to_string()).bind(now).execute(&mut **tx).await?;
    Ok(())
}

/// The subscription that entitles an app to tokens now, if it has one.
///
/// # Errors
/// [`StoreError`].
pub async fn current(dashboard: &Dashboard, app: Uuid) -> Result<Option<Subscription>, StoreError> {
    let row = query(
        "SELECT s.id AS subscription_id, s.app_id, s.state, s.period_start, s.period_end, s.version, s.plan_id, \
         p.name, p.max_connections, p.max_documents, p.max_users_per_doc, p.ops_per_minute, p.price_cents, p.currency, \
         p.period_days, p.is_offered FROM subscriptions s JOIN plans p ON p.id = s.plan_id \
         WHERE s.app_id = $1 AND s.ended_at IS NULL AND (s.state <> 'cancelled' OR s.period_end > $2)",
    );
    let row = row.bind(app.to_string()).bind(dashboard.now());
    let Some(row) = row.fetch_optional(dashboard.home.reader()).await? else { return Ok(None) };
    Ok(Some(Subscription {
        id: row.parsed("subscription_id")?,
        app: row.parsed("app_id")?,
        plan: Plan::of_row(&row, "plan_id")?,
        state: row.parsed("state")?,
        period_start: row.int("period_start")?,
        period_end: row.int("period_end")?,
        version: row.int("version")?,
    }))
}
