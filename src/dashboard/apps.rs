//! Apps: a name, credentials, up to three allowed domains, and a license region that is set once.
//!
//! An app's row is in its region's database alone. What the home database knows of it is the id, in subscriptions and in
//! the audit log. A change here is one transaction in the region; its audit entry travels through the region's outbox.

use std::collections::BTreeMap;
use std::fmt;

use sqlx::any::AnyRow;
use uuid::Uuid;

use super::Dashboard;
use super::access::{Action, Actor, Denied, require};
use super::accounts::normal_name;
use super::audit::{self, Event};
use super::domains::AllowedDomain;
use super::random;
use super::region::LicenseRegion;
use super::store::{Columns, Database, StoreError, Tx, query};
use super::subscriptions;
use super::tenants::{self, TenantState};

pub const DOMAINS_MAX: usize = 3;
/// Apps of one tenant in one region: a bound on what a list reads.
pub const APPS_PER_REGION_MAX: i64 = 1000;

const SECRET_PREFIX: &str = "wss_";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    pub id: Uuid,
    pub tenant: Uuid,
    pub client_id: String,
    pub name: String,
    pub region: LicenseRegion,
    pub db_code: String,
    pub allowed_domains: Vec<AllowedDomain>,
    pub created_at: i64,
    /// Rises with every change of the row; the API's ETag.
    pub version: i64,
    pub(super) secret_hash: String,
    pub(super) secret_version: i64,
}

/// What a new app is made of.
#[derive(Debug, Clone)]
pub struct NewApp {
    pub name: String,
    pub region: LicenseRegion,
    pub allowed_domains: Vec<AllowedDomain>,
}

/// An app's credentials; the secret is shown this once.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub app: Uuid,
    pub client_id: String,
    pub client_secret: String,
}

impl fmt::Debug for Credentials {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("an app needs a name of 1 to 100 characters")]
    Name,
    #[error("an app has at most {DOMAINS_MAX} allowed domains, not {0}")]
    TooManyDomains(usize),
    #[error("no apps can be made in {0} here; choose another license region")]
    Region(LicenseRegion),
    #[error("this tenant has {APPS_PER_REGION_MAX} apps in this region already")]
    TooMany,
    #[error("the tenant is {0}; only an active one can have new apps")]
    TenantState(TenantState),
    #[error("there is no such app")]
    Missing,
    #[error("the app was changed by somebody else in the meantime; load it again")]
    Changed,
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for AppError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Makes an app. It gets tokens once it has a plan.
///
/// # Errors
/// [`AppError`].
pub async fn create(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    new: NewApp,
) -> Result<Credentials, AppError> {
    allow(dashboard, actor, Action::ChangeApps, tenant).await?;
    match tenants::find(dashboard, tenant).await? {
        Some(tenant) if tenant.state == TenantState::Active => {}
        Some(tenant) => return Err(AppError::TenantState(tenant.state)),
        None => return Err(Denied::NoSuchTenant.into()),
    }
    let name = normal_name(&new.name).ok_or(AppError::Name)?;
    let domains = columns_of(&new.allowed_domains)?;
    let database = dashboard.region(new.region).ok_or(AppError::Region(new.region))?;
    let (app, now) = (random::guid(), dashboard.now());
    let client_id = format!("{}-{}", new.region.tag(), random::word());
    let client_secret = random::secret(SECRET_PREFIX);
    let mut tx = database.begin().await?;
    let insert = query(
        "INSERT INTO apps (id, tenant_id, client_id, name, region, db_code, allowed_domain_1, allowed_domain_2, \
         allowed_domain_3, secret_hash, secret_version, created_at, updated_at, version) \
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1, $11, $11, 1 \
         WHERE (SELECT COUNT(*) FROM apps WHERE tenant_id = $2 AND deleted_at IS NULL) < $12",
    );
    let insert = insert.bind(app.to_string()).bind(tenant.to_string()).bind(client_id.clone()).bind(name);
    let insert = insert.bind(new.region.code()).bind(dashboard.config.regions[&new.region].db_code.clone());
    let [first, second, third] = domains;
    let insert = insert.bind(first).bind(second).bind(third).bind(random::fingerprint(&client_secret));
    let inserted = insert.bind(now).bind(APPS_PER_REGION_MAX).execute(&mut *tx).await?;
    if inserted.rows_affected() != 1 {
        return Err(AppError::TooMany);
    }
    let detail = serde_json::json!({ "region": new.region.code() });
    let event = Event::new(now, actor, "app.create", app).of_tenant(tenant).with(detail);
    finish(dashboard, database, tx, &event).await?;
    Ok(Credentials { app, client_id, client_secret })
}

/// Gives an app a new name and new domains. `version` is the one that was read: a change in between is not overwritten.
///
/// # Errors
/// [`AppError::Changed`] if the version is an older one.
pub async fn update(
    dashboard: &Dashboard,
    actor: &Actor,
    app: &App,
    name: &str,
    allowed_domains: &[AllowedDomain],
) -> Result<(), AppError> {
    allow(dashboard, actor, Action::ChangeApps, app.tenant).await?;
    let name = normal_name(name).ok_or(AppError::Name)?;
    let [first, second, third] = columns_of(allowed_domains)?;
    let (database, now) = (database_of(dashboard, app)?, dashboard.now());
    let mut tx = database.begin().await?;
    let update = query(
        "UPDATE apps SET name = $1, allowed_domain_1 = $2, allowed_domain_2 = $3, allowed_domain_3 = $4, \
         updated_at = $5, version = version + 1 WHERE id = $6 AND version = $7 AND deleted_at IS NULL",
    );
    let update = update.bind(name.clone()).bind(first).bind(second).bind(third).bind(now);
    let updated = update.bind(app.id.to_string()).bind(app.version).execute(&mut *tx).await?;
    if updated.rows_affected() != 1 {
        return Err(AppError::Changed);
    }
    let mut changed = Vec::new();
    if name != app.name {
        changed.push("name");
    }
    if allowed_domains != app.allowed_domains {
        changed.push("allowed_domains");
    }
    let detail = serde_json::json!({ "changed": changed });
    let event = Event::new(now, actor, "app.update", app.id).of_tenant(app.tenant).with(detail);
    finish(dashboard, database, tx, &event).await
}

/// Gives an app a new secret, returned this once. The old one, and every refresh token that came of it, is dead at once.
///
/// # Errors
/// [`AppError`].
pub async fn regenerate_secret(
    dashboard: &Dashboard,
    actor: &Actor,
    app: &App,
) -> Result<Credentials, AppError> {
    allow(dashboard, actor, Action::RegenerateSecrets, app.tenant).await?;
    let (database, now) = (database_of(dashboard, app)?, dashboard.now());
    let client_secret = random::secret(SECRET_PREFIX);
    let mut tx = database.begin().await?;
    // The app's row first: whoever issues a refresh token updates it too, under the secret version that he has seen.
    let update = query(
        "UPDATE apps SET secret_hash = $1, secret_version = secret_version + 1, updated_at = $2, \
         version = version + 1 WHERE id = $3 AND deleted_at IS NULL",
    );
    let update = update.bind(random::fingerprint(&client_secret)).bind(now).bind(app.id.to_string());
    if update.execute(&mut *tx).await?.rows_affected() != 1 {
        return Err(AppError::Missing);
    }
    revoke_families(&mut tx, app.id, now, "secret regenerated").await?;
    let event = Event::new(now, actor, "app.regenerate_secret", app.id).of_tenant(app.tenant);
    finish(dashboard, database, tx, &event).await?;
    Ok(Credentials { app: app.id, client_id: app.client_id.clone(), client_secret })
}

/// Deletes an app as it was read: no new tokens, refresh tokens dead, its subscription ended. Live sessions run until their
/// tokens expire.
///
/// # Errors
/// [`AppError::Changed`] if it is no longer what was read; then it has its plan still. If the region fails at the very
/// end, the app has no plan any more and can be deleted again.
pub async fn delete(dashboard: &Dashboard, actor: &Actor, app: &App) -> Result<(), AppError> {
    allow(dashboard, actor, Action::DeleteApps, app.tenant).await?;
    let (database, now) = (database_of(dashboard, app)?, dashboard.now());
    let mut tx = database.begin().await?;
    // The app's row first: from here on nobody else changes it, and whoever has before is not overruled.
    let update = query(
        "UPDATE apps SET deleted_at = $1, updated_at = $1, version = version + 1, \
         secret_version = secret_version + 1 WHERE id = $2 AND version = $3 AND deleted_at IS NULL",
    );
    let update = update.bind(now).bind(app.id.to_string()).bind(app.version);
    if update.execute(&mut *tx).await?.rows_affected() != 1 {
        let left = query("SELECT version FROM apps WHERE id = $1 AND deleted_at IS NULL");
        let left = left.bind(app.id.to_string()).fetch_optional(&mut *tx).await?;
        return Err(if left.is_some() { AppError::Changed } else { AppError::Missing });
    }
    revoke_families(&mut tx, app.id, now, "app deleted").await?;
    if dashboard.is_at_home(app.region) {
        subscriptions::end_for_deleted_app(dashboard, &mut tx, actor, app).await?;
    } else {
        // Never the other way round: whoever holds the home database waits for no region.
        let mut home = dashboard.home.begin().await?;
        subscriptions::end_for_deleted_app(dashboard, &mut home, actor, app).await?;
        home.commit().await?;
    }
    let event = Event::new(now, actor, "app.delete", app.id).of_tenant(app.tenant);
    finish(dashboard, database, tx, &event).await?;
    if !dashboard.is_at_home(app.region) {
        // A plan that was picked while the region did not show the deletion yet.
        let mut home = dashboard.home.begin().await?;
        subscriptions::end_for_deleted_app(dashboard, &mut home, actor, app).await?;
        home.commit().await?;
    }
    dashboard.feed.wake();
    Ok(())
}

/// An app of a tenant, wherever it is.
///
/// # Errors
/// [`AppError::Missing`] also for another tenant's app.
pub async fn read(dashboard: &Dashboard, actor: &Actor, tenant: Uuid, app: Uuid) -> Result<App, AppError> {
    allow(dashboard, actor, Action::ReadApps, tenant).await?;
    find(dashboard, tenant, app).await?.ok_or(AppError::Missing)
}

/// An app of a tenant, whoever asks: asks each region's database.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn find(dashboard: &Dashboard, tenant: Uuid, app: Uuid) -> Result<Option<App>, StoreError> {
    for database in dashboard.region_databases() {
        let row = query("SELECT * FROM apps WHERE id = $1 AND tenant_id = $2 AND deleted_at IS NULL")
            .bind(app.to_string())
            .bind(tenant.to_string())
            .fetch_optional(database.reader())
            .await?;
        if let Some(row) = row {
            return of_row(&row).map(Some);
        }
    }
    Ok(None)
}

/// A tenant's apps in all regions, oldest first.
///
/// # Errors
/// [`AppError`].
pub async fn list(dashboard: &Dashboard, actor: &Actor, tenant: Uuid) -> Result<Vec<App>, AppError> {
    allow(dashboard, actor, Action::ReadApps, tenant).await?;
    Ok(of_tenant(dashboard, tenant).await?)
}

/// How many apps the tenants have whose ids are from `first` to `last`: those of a page of tenants. Who has none is left
/// out.
///
/// # Errors
/// [`AppError::Denied`] unless the actor is an operator.
pub async fn counts(
    dashboard: &Dashboard,
    actor: &Actor,
    first: Uuid,
    last: Uuid,
) -> Result<BTreeMap<Uuid, i64>, AppError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ReviewTenants, None).await?;
    drop(tx);
    let mut counts = BTreeMap::new();
    for database in dashboard.region_databases() {
        let rows = query(
            "SELECT tenant_id, COUNT(*) AS found FROM apps WHERE tenant_id >= $1 AND tenant_id <= $2 \
             AND deleted_at IS NULL GROUP BY tenant_id",
        );
        let rows = rows.bind(first.to_string()).bind(last.to_string());
        for row in &rows.fetch_all(database.reader()).await? {
            *counts.entry(row.parsed("tenant_id")?).or_insert(0) += row.int("found")?;
        }
    }
    Ok(counts)
}

/// The same, whoever asks.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn of_tenant(dashboard: &Dashboard, tenant: Uuid) -> Result<Vec<App>, StoreError> {
    let mut apps = Vec::new();
    for database in dashboard.region_databases() {
        let rows = query("SELECT * FROM apps WHERE tenant_id = $1 AND deleted_at IS NULL")
            .bind(tenant.to_string())
            .fetch_all(database.reader())
            .await?;
        for row in &rows {
            apps.push(of_row(row)?);
        }
    }
    apps.sort_by_key(|app| (app.created_at, app.id));
    Ok(apps)
}

/// The app of a client id: one look into the database of the region that the id names.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn by_client_id(dashboard: &Dashboard, client_id: &str) -> Result<Option<App>, StoreError> {
    let region = LicenseRegion::of_tagged(client_id, '-');
    let Some(database) = region.and_then(|region| dashboard.region(region)) else { return Ok(None) };
    let row = query("SELECT * FROM apps WHERE client_id = $1 AND deleted_at IS NULL")
        .bind(client_id.to_owned())
        .fetch_optional(database.reader())
        .await?;
    row.map(|row| of_row(&row)).transpose()
}

pub(super) fn database_of<'a>(dashboard: &'a Dashboard, app: &App) -> Result<&'a Database, StoreError> {
    let missing =
        || StoreError::Corrupt { what: "a region that is not configured", value: app.region.to_string() };
    dashboard.region(app.region).ok_or_else(missing)
}

/// Checks a right whose change is in a region's database: the role is read in the home database just before.
async fn allow(dashboard: &Dashboard, actor: &Actor, action: Action, tenant: Uuid) -> Result<(), Denied> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, action, Some(tenant)).await
}

async fn revoke_families(tx: &mut Tx, app: Uuid, now: i64, because: &str) -> Result<(), StoreError> {
    let update = query(
        "UPDATE refresh_families SET revoked_at = $1, revoked_because = $2 \
         WHERE app_id = $3 AND revoked_at IS NULL",
    );
    update.bind(now).bind(because.to_owned()).bind(app.to_string()).execute(&mut **tx).await?;
    Ok(())
}

/// Commits a change in a region with its event, and takes the event to the audit log. If that last step fails the
/// change stands, and the event waits in the outbox for the next delivery.
async fn finish(
    dashboard: &Dashboard,
    database: &Database,
    mut tx: Tx,
    event: &Event,
) -> Result<(), AppError> {
    audit::enqueue(&mut tx, event).await?;
    tx.commit().await?;
    if let Err(error) = audit::deliver(database, &dashboard.home).await {
        tracing::warn!(%error, "an audit entry waits in its region's outbox");
    }
    Ok(())
}

fn columns_of(domains: &[AllowedDomain]) -> Result<[Option<String>; DOMAINS_MAX], AppError> {
    let mut columns = [const { None }; DOMAINS_MAX];
    let mut distinct: Vec<&AllowedDomain> = Vec::new();
    for domain in domains {
        if !distinct.contains(&domain) {
            distinct.push(domain);
        }
    }
    if distinct.len() > DOMAINS_MAX {
        return Err(AppError::TooManyDomains(distinct.len()));
    }
    for (column, domain) in columns.iter_mut().zip(distinct) {
        *column = Some(domain.to_string());
    }
    Ok(columns)
}

fn of_row(row: &AnyRow) -> Result<App, StoreError> {
    let mut allowed_domains = Vec::new();
    for column in ["allowed_domain_1", "allowed_domain_2", "allowed_domain_3"] {
        if let Some(domain) = row.text_or_null(column)? {
            let parsed = domain.parse();
            allowed_domains.push(parsed.map_err(|_| StoreError::Corrupt { what: column, value: domain })?);
        }
    }
    Ok(App {
        id: row.parsed("id")?,
        tenant: row.parsed("tenant_id")?,
        client_id: row.text("client_id")?,
        name: row.text("name")?,
        region: row.parsed("region")?,
        db_code: row.text("db_code")?,
        allowed_domains,
        created_at: row.int("created_at")?,
        version: row.int("version")?,
        secret_hash: row.text("secret_hash")?,
        secret_version: row.int("secret_version")?,
    })
}
