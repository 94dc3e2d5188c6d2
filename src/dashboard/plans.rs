//! The plan catalogue: data, seeded by a migration and changed by operators. A plan is four limits and a price.
//!
//! A plan has versions, none of which ever changes. A subscription keeps the version that it was made with, limits and
//! price, until its owner picks a plan again: [`change`] is for those who come later.

use serde_json::{Value, json};
use sqlx::any::AnyRow;

use super::Dashboard;
use super::access::{Action, Actor, Denied, require};
use super::accounts::normal_name;
use super::audit::{self, Event};
use super::billing::{Cadence, Price};
use super::store::{Columns, StoreError, Tx, query};

/// A million of the currency's units, for one period.
pub const PRICE_CENTS_MAX: i64 = 100_000_000;
/// What a node can count in a claim of any of the four limits.
pub const LIMIT_MAX: i64 = 1_000_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub id: String,
    pub version: i64,
    pub name: String,
    pub max_connections: i64,
    pub max_documents: i64,
    pub max_users_per_doc: i64,
    pub ops_per_minute: i64,
    /// For one period.
    pub price_cents: i64,
    /// ISO 4217, such as `USD`.
    pub currency: String,
    pub period: Cadence,
    /// Whether it can be newly subscribed to.
    pub is_offered: bool,
}

/// A version of a plan, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanVersion {
    pub plan: Plan,
    /// When it was published; 0 for what a migration brought.
    pub created_at: i64,
    /// Subscriptions to it that have not ended.
    pub subscriptions: i64,
    /// Whether it is the newest, which is the one on offer.
    pub is_newest: bool,
}

/// What a version of a plan is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanTerms {
    pub name: String,
    pub max_connections: i64,
    pub max_documents: i64,
    pub max_users_per_doc: i64,
    pub ops_per_minute: i64,
    /// 0: free.
    pub price_cents: i64,
    pub currency: String,
    pub period: Cadence,
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("a plan's id is 1 to 40 of a-z 0-9 and hyphens, not {0:?}")]
    Id(String),
    #[error("a plan needs a name of 1 to 100 characters")]
    Name,
    #[error("{0} must be a whole number from 1 to {LIMIT_MAX}")]
    Limit(&'static str),
    #[error("a price is 0 to {PRICE_CENTS_MAX} cents")]
    Price,
    #[error("a currency is three capital letters (ISO 4217) such as USD, not {0:?}")]
    Currency(String),
    #[error("there is a plan {0:?} already; change that one, or choose another id")]
    Exists(String),
    #[error("there is no plan {0:?}")]
    Missing(String),
    #[error("the plan was changed by somebody else in the meantime; load it again")]
    Changed,
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for PlanError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The columns of a plan in a version; `p` is `plans`, `v` is `plan_versions`.
macro_rules! plan_columns {
    () => {
        "v.plan_id, v.version AS plan_version, v.name, v.max_connections, v.max_documents, v.max_users_per_doc, \
         v.ops_per_minute, v.price_cents, v.currency, v.period, p.is_offered"
    };
}
pub(super) use plan_columns;

impl Plan {
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.price_cents == 0
    }

    /// The `limits` claim.
    #[must_use]
    pub fn limits(&self) -> Value {
        json!({
            "maxConnections": self.max_connections,
            "maxDocuments": self.max_documents,
            "maxUsersPerDoc": self.max_users_per_doc,
            "opsPerMinute": self.ops_per_minute,
        })
    }

    pub(super) fn price(&self) -> Price<'_> {
        Price { plan: &self.name, cents: self.price_cents, cadence: self.period }
    }

    /// Of a row with the columns of [`plan_columns`].
    pub(super) fn of_row(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.text("plan_id")?,
            version: row.int("plan_version")?,
            name: row.text("name")?,
            max_connections: row.int("max_connections")?,
            max_documents: row.int("max_documents")?,
            max_users_per_doc: row.int("max_users_per_doc")?,
            ops_per_minute: row.int("ops_per_minute")?,
            price_cents: row.int("price_cents")?,
            currency: row.text("currency")?,
            period: row.parsed("period")?,
            is_offered: row.int("is_offered")? == 1,
        })
    }
}

impl PlanTerms {
    fn checked(mut self) -> Result<Self, PlanError> {
        self.name = normal_name(&self.name).ok_or(PlanError::Name)?;
        for (what, limit) in [
            ("maxConnections", self.max_connections),
            ("maxDocuments", self.max_documents),
            ("maxUsersPerDoc", self.max_users_per_doc),
            ("opsPerMinute", self.ops_per_minute),
        ] {
            if !(1..=LIMIT_MAX).contains(&limit) {
                return Err(PlanError::Limit(what));
            }
        }
        if !(0..=PRICE_CENTS_MAX).contains(&self.price_cents) {
            return Err(PlanError::Price);
        }
        if self.currency.len() != 3 || !self.currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(PlanError::Currency(self.currency));
        }
        Ok(self)
    }

    fn detail(&self, version: i64) -> Value {
        json!({
            "version": version,
            "priceCents": self.price_cents,
            "currency": self.currency,
            "period": self.period.as_str(),
            "limits": [self.max_connections, self.max_documents, self.max_users_per_doc, self.ops_per_minute],
        })
    }
}

/// Adds a plan to the catalogue; it is on offer at once.
///
/// # Errors
/// [`PlanError::Exists`] if the id is taken, also by a retired plan.
pub async fn create(
    dashboard: &Dashboard,
    actor: &Actor,
    id: &str,
    terms: PlanTerms,
) -> Result<Plan, PlanError> {
    let is_id = (1..=40).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !is_id {
        return Err(PlanError::Id(id.to_owned()));
    }
    let terms = terms.checked()?;
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::ManagePlans, None).await?;
    let insert =
        query("INSERT INTO plans (id, is_offered, version) VALUES ($1, 1, 1) ON CONFLICT (id) DO NOTHING");
    if insert.bind(id.to_owned()).execute(&mut *tx).await?.rows_affected() != 1 {
        return Err(PlanError::Exists(id.to_owned()));
    }
    let event = Event::new(dashboard.now(), actor, "plan.create", id);
    publish(tx, event, id, 1, &terms).await
}

/// Gives a plan new terms, for those who pick it from now on. `version` is the one that was read.
///
/// # Errors
/// [`PlanError::Changed`] if the version is an older one.
pub async fn change(
    dashboard: &Dashboard,
    actor: &Actor,
    id: &str,
    version: i64,
    terms: PlanTerms,
) -> Result<Plan, PlanError> {
    let terms = terms.checked()?;
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::ManagePlans, None).await?;
    let update = query("UPDATE plans SET version = version + 1 WHERE id = $1 AND version = $2");
    if update.bind(id.to_owned()).bind(version).execute(&mut *tx).await?.rows_affected() != 1 {
        let is_known = find_in(&mut tx, id).await?.is_some();
        return Err(if is_known { PlanError::Changed } else { PlanError::Missing(id.to_owned()) });
    }
    let event = Event::new(dashboard.now(), actor, "plan.change", id);
    publish(tx, event, id, version + 1, &terms).await
}

/// Takes a plan off the offer, or puts it back on. Who has it keeps it, and is renewed.
///
/// # Errors
/// [`PlanError::Missing`] if there is no such plan.
pub async fn offer(
    dashboard: &Dashboard,
    actor: &Actor,
    id: &str,
    is_offered: bool,
) -> Result<(), PlanError> {
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::ManagePlans, None).await?;
    let update = query("UPDATE plans SET is_offered = $1 WHERE id = $2");
    let update = update.bind(i64::from(is_offered)).bind(id.to_owned());
    if update.execute(&mut *tx).await?.rows_affected() != 1 {
        return Err(PlanError::Missing(id.to_owned()));
    }
    let action = if is_offered { "plan.offer" } else { "plan.retire" };
    audit::append(&mut tx, &Event::new(dashboard.now(), actor, action, id)).await?;
    Ok(tx.commit().await?)
}

/// Takes a plan off the offer: [`offer`] with `false`.
///
/// # Errors
/// As [`offer`].
pub async fn retire(dashboard: &Dashboard, actor: &Actor, id: &str) -> Result<(), PlanError> {
    offer(dashboard, actor, id, false).await
}

/// Writes a plan's newest version with its audit entry, and commits.
async fn publish(
    mut tx: Tx,
    event: Event,
    id: &str,
    version: i64,
    terms: &PlanTerms,
) -> Result<Plan, PlanError> {
    let insert = query(
        "INSERT INTO plan_versions (plan_id, version, name, max_connections, max_documents, max_users_per_doc, \
         ops_per_minute, price_cents, currency, period, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    );
    let insert = insert.bind(id.to_owned()).bind(version).bind(terms.name.clone());
    let insert = insert.bind(terms.max_connections).bind(terms.max_documents).bind(terms.max_users_per_doc);
    let insert = insert.bind(terms.ops_per_minute).bind(terms.price_cents).bind(terms.currency.clone());
    insert.bind(terms.period.as_str()).bind(event.at).execute(&mut *tx).await?;
    audit::append(&mut tx, &event.with(terms.detail(version))).await?;
    let plan = find_in(&mut tx, id).await?.ok_or_else(|| PlanError::Missing(id.to_owned()))?;
    tx.commit().await?;
    Ok(plan)
}

/// The whole catalogue in its newest versions, retired plans too, cheapest first.
///
/// # Errors
/// [`StoreError`].
pub async fn list(dashboard: &Dashboard) -> Result<Vec<Plan>, StoreError> {
    let rows = query(concat!(
        "SELECT ",
        plan_columns!(),
        " FROM plans p JOIN plan_versions v ON v.plan_id = p.id AND v.version = p.version \
         ORDER BY v.price_cents, p.id"
    ));
    rows.fetch_all(dashboard.home.reader()).await?.iter().map(Plan::of_row).collect()
}

/// Every version of one plan, or of all, with how many subscriptions hold it: plans as [`list`] has them, each one's
/// newest version first.
///
/// # Errors
/// [`PlanError::Denied`].
pub async fn versions(
    dashboard: &Dashboard,
    actor: &Actor,
    id: Option<&str>,
) -> Result<Vec<PlanVersion>, PlanError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ManagePlans, None).await?;
    let rows = query(concat!(
        "SELECT ",
        plan_columns!(),
        ", v.created_at, CAST(CASE WHEN v.version = p.version THEN 1 ELSE 0 END AS BIGINT) AS is_newest, \
         (SELECT COUNT(*) FROM subscriptions s WHERE s.plan_id = v.plan_id AND s.plan_version = v.version \
         AND s.ended_at IS NULL) AS subscriptions \
         FROM plans p JOIN plan_versions v ON v.plan_id = p.id \
         JOIN plan_versions n ON n.plan_id = p.id AND n.version = p.version \
         WHERE $1 = '' OR p.id = $1 ORDER BY n.price_cents, p.id, v.version DESC"
    ));
    let rows = rows.bind(id.unwrap_or_default().to_owned()).fetch_all(&mut *tx).await?;
    let version = |row: &AnyRow| {
        Ok(PlanVersion {
            plan: Plan::of_row(row)?,
            created_at: row.int("created_at")?,
            subscriptions: row.int("subscriptions")?,
            is_newest: row.int("is_newest")? == 1,
        })
    };
    rows.iter().map(version).collect()
}

const FIND: &str = concat!(
    "SELECT ",
    plan_columns!(),
    " FROM plans p JOIN plan_versions v ON v.plan_id = p.id AND v.version = p.version WHERE p.id = $1"
);

/// A plan in its newest version.
///
/// # Errors
/// [`StoreError`].
pub async fn find(dashboard: &Dashboard, id: &str) -> Result<Option<Plan>, StoreError> {
    let row = query(FIND).bind(id.to_owned()).fetch_optional(dashboard.home.reader()).await?;
    row.map(|row| Plan::of_row(&row)).transpose()
}

pub(super) async fn find_in(tx: &mut Tx, id: &str) -> Result<Option<Plan>, StoreError> {
    let row = query(FIND).bind(id.to_owned()).fetch_optional(&mut **tx).await?;
    row.map(|row| Plan::of_row(&row)).transpose()
}
