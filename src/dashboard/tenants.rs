//! Tenants: `pending` at sign-up, `active` once an operator approves (with a key pair), `suspended` and back.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::Dashboard;
use super::access::{Action, Actor, Denied, Principal, Role, require};
use super::accounts::normal_name;
use super::audit::{self, Event};
use super::keys::{self, KeysError};
use super::members::{self, MemberError};
use super::random;
use super::store::{Columns, StoreError, Tx, query};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantState {
    Pending,
    Active,
    /// No tokens are issued; live sessions run until theirs expire.
    Suspended,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub id: Uuid,
    pub name: String,
    pub state: TenantState,
    pub created_at: i64,
    pub approved_at: Option<i64>,
    /// Rises with every change of the row; the API's ETag.
    pub version: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    #[error("a tenant needs a name of 1 to 100 characters")]
    Name,
    #[error("there is no tenant {0}")]
    Missing(Uuid),
    #[error("the tenant was changed by somebody else in the meantime; load it again")]
    Changed,
    #[error("the tenant is {is}, and only a tenant that is {wanted} can become {becomes}")]
    State { is: TenantState, wanted: TenantState, becomes: TenantState },
    #[error(transparent)]
    Key(#[from] KeysError),
    #[error(transparent)]
    Member(#[from] MemberError),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for TenantError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl TenantState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }
}

impl fmt::Display for TenantState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TenantState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Pending, Self::Active, Self::Suspended]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(())
    }
}

/// Makes a pending tenant with its first owner. An account makes tenants for itself; operators for anybody.
///
/// # Errors
/// [`TenantError`].
pub async fn create(
    dashboard: &Dashboard,
    actor: &Actor,
    name: &str,
    owner: Uuid,
) -> Result<Uuid, TenantError> {
    let name = normal_name(name).ok_or(TenantError::Name)?;
    let (id, now) = (random::guid(), dashboard.now());
    let mut tx = dashboard.home.begin().await?;
    if actor.principal != Principal::Account(owner) {
        require(&mut tx, actor, Action::ReviewTenants, None).await?;
    }
    insert_within(&mut tx, actor, now, id, name, owner).await?;
    tx.commit().await?;
    Ok(id)
}

/// Whether the actor may make tenants that others own.
///
/// # Errors
/// [`TenantError::Denied`] unless it is an operator.
pub async fn may_create_for_others(dashboard: &Dashboard, actor: &Actor) -> Result<(), TenantError> {
    let mut tx = dashboard.home.begin_read().await?;
    Ok(require(&mut tx, actor, Action::ReviewTenants, None).await?)
}

/// A pending tenant with its first owner, within the transaction that may also make the owner's account.
pub(super) async fn insert_within(
    tx: &mut Tx,
    actor: &Actor,
    now: i64,
    id: Uuid,
    name: String,
    owner: Uuid,
) -> Result<(), TenantError> {
    let insert =
        query("INSERT INTO tenants (id, name, state, created_at, version) VALUES ($1, $2, 'pending', $3, 1)");
    insert.bind(id.to_string()).bind(name).bind(now).execute(&mut **tx).await?;
    audit::append(tx, &Event::new(now, actor, "tenant.create", id).of_tenant(id)).await?;
    Ok(members::insert(tx, actor, now, id, owner, Role::Owner).await?)
}

/// Gives a tenant another name. `version` is the one that was read: a change in between is not overwritten.
///
/// # Errors
/// [`TenantError::Changed`] if the version is an older one.
pub async fn rename(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    version: i64,
    name: &str,
) -> Result<(), TenantError> {
    let name = normal_name(name).ok_or(TenantError::Name)?;
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::RenameTenant, Some(tenant)).await?;
    let update = query("UPDATE tenants SET name = $1, version = version + 1 WHERE id = $2 AND version = $3");
    let update = update.bind(name).bind(tenant.to_string()).bind(version);
    if update.execute(&mut *tx).await?.rows_affected() != 1 {
        return Err(TenantError::Changed);
    }
    let event = Event::new(dashboard.now(), actor, "tenant.rename", tenant).of_tenant(tenant);
    audit::append(&mut tx, &event).await?;
    Ok(tx.commit().await?)
}

/// Makes a pending tenant active, with its first key pair. Both or neither.
///
/// # Errors
/// [`TenantError::State`] if it is not pending (any more).
pub async fn approve(dashboard: &Dashboard, actor: &Actor, tenant: Uuid) -> Result<(), TenantError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ReviewTenants, None).await?;
    drop(tx);
    // Made before the transaction: it takes up to seconds, and a lock must not.
    let pair = keys::new_pair(dashboard, tenant).await?;
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::ReviewTenants, None).await?;
    let update = query(
        "UPDATE tenants SET state = 'active', approved_at = $1, version = version + 1 \
         WHERE id = $2 AND state = 'pending'",
    );
    let updated = update.bind(now).bind(tenant.to_string()).execute(&mut *tx).await?;
    if updated.rows_affected() != 1 {
        drop(tx);
        return Err(refused(dashboard, tenant, TenantState::Pending, TenantState::Active).await);
    }
    audit::append(&mut tx, &Event::new(now, actor, "tenant.approve", tenant).of_tenant(tenant)).await?;
    keys::insert_first(&mut tx, actor, now, tenant, &pair).await?;
    tx.commit().await?;
    dashboard.feed.wake();
    Ok(())
}

/// Ends token issuing for a tenant; its keys stay published, so that live sessions run out their tokens.
///
/// # Errors
/// [`TenantError::State`] if it is not active.
pub async fn suspend(dashboard: &Dashboard, actor: &Actor, tenant: Uuid) -> Result<(), TenantError> {
    turn(dashboard, actor, tenant, TenantState::Active, TenantState::Suspended, "tenant.suspend").await
}

/// # Errors
/// [`TenantError::State`] if it is not suspended.
pub async fn resume(dashboard: &Dashboard, actor: &Actor, tenant: Uuid) -> Result<(), TenantError> {
    turn(dashboard, actor, tenant, TenantState::Suspended, TenantState::Active, "tenant.resume").await
}

async fn turn(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    from: TenantState,
    to: TenantState,
    action: &str,
) -> Result<(), TenantError> {
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::ReviewTenants, None).await?;
    let update = query(
        "UPDATE tenants SET state = $1, suspended_at = $2, version = version + 1 WHERE id = $3 AND state = $4",
    );
    let suspended_at = (to == TenantState::Suspended).then_some(now);
    let update = update.bind(to.as_str()).bind(suspended_at).bind(tenant.to_string()).bind(from.as_str());
    if update.execute(&mut *tx).await?.rows_affected() != 1 {
        drop(tx);
        return Err(refused(dashboard, tenant, from, to).await);
    }
    audit::append(&mut tx, &Event::new(now, actor, action, tenant).of_tenant(tenant)).await?;
    Ok(tx.commit().await?)
}

async fn refused(
    dashboard: &Dashboard,
    tenant: Uuid,
    wanted: TenantState,
    becomes: TenantState,
) -> TenantError {
    match find(dashboard, tenant).await {
        Ok(Some(tenant)) => TenantError::State { is: tenant.state, wanted, becomes },
        Ok(None) => TenantError::Missing(tenant),
        Err(error) => error.into(),
    }
}

/// A tenant, whoever asks: for the token endpoint and the key sets. What is shown to people goes through [`read`].
///
/// # Errors
/// [`StoreError`].
pub async fn find(dashboard: &Dashboard, tenant: Uuid) -> Result<Option<Tenant>, StoreError> {
    let row = query("SELECT * FROM tenants WHERE id = $1")
        .bind(tenant.to_string())
        .fetch_optional(dashboard.home.reader())
        .await?;
    row.map(|row| of_row(&row)).transpose()
}

/// # Errors
/// [`TenantError::Denied`] if the actor is neither a member nor an operator.
pub async fn read(dashboard: &Dashboard, actor: &Actor, tenant: Uuid) -> Result<Tenant, TenantError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ReadTenant, Some(tenant)).await?;
    drop(tx);
    find(dashboard, tenant).await?.ok_or(TenantError::Missing(tenant))
}

/// All tenants for operators, of a state if one is given; at most `limit` after the id `after`, ordered by id.
///
/// # Errors
/// [`TenantError::Denied`].
pub async fn list(
    dashboard: &Dashboard,
    actor: &Actor,
    state: Option<TenantState>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Tenant>, TenantError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ReviewTenants, None).await?;
    let rows = query("SELECT * FROM tenants WHERE id > $1 AND ($2 = '' OR state = $2) ORDER BY id LIMIT $3");
    let rows = rows.bind(after.map(|id| id.to_string()).unwrap_or_default());
    let rows = rows.bind(state.map_or("", TenantState::as_str)).bind(limit).fetch_all(&mut *tx).await?;
    Ok(rows.iter().map(of_row).collect::<Result<_, _>>()?)
}

/// The tenants that an account is a member of, with its role.
///
/// # Errors
/// [`StoreError`].
pub async fn of_account(dashboard: &Dashboard, account: Uuid) -> Result<Vec<(Tenant, Role)>, StoreError> {
    let rows = query(
        "SELECT t.*, m.role FROM members m JOIN tenants t ON t.id = m.tenant_id \
         WHERE m.account_id = $1 ORDER BY t.created_at, t.id",
    );
    let rows = rows.bind(account.to_string()).fetch_all(dashboard.home.reader()).await?;
    let each = |row: &sqlx::any::AnyRow| {
        let role = row.text("role")?;
        let role = role.parse().map_err(|()| StoreError::Corrupt { what: "role", value: role })?;
        Ok((of_row(row)?, role))
    };
    rows.iter().map(each).collect()
}

fn of_row(row: &sqlx::any::AnyRow) -> Result<Tenant, StoreError> {
    Ok(Tenant {
        id: row.parsed("id")?,
        name: row.text("name")?,
        state: row.parsed("state")?,
        created_at: row.int("created_at")?,
        approved_at: row.int_or_null("approved_at")?,
        version: row.int("version")?,
    })
}
