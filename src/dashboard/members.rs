//! Members of a tenant and their roles. A tenant never loses its last owner.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Dashboard;
use super::access::{Action, Actor, Denied, Role, require, role_in};
use super::audit::{self, Event};
use super::store::{Columns, StoreError, Tx, query};

/// A member as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub account: Uuid,
    pub email: String,
    pub name: String,
    pub role: Role,
}

#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    #[error("a member's role is owner, admin, developer or billing")]
    Role,
    #[error("this account is a member already; change its role instead")]
    Exists,
    #[error("this account is no member")]
    Missing,
    #[error("the member was changed by somebody else in the meantime; load it again")]
    Changed,
    #[error("a tenant needs an owner: make somebody else one first")]
    LastOwner,
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for MemberError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Makes an account a member.
///
/// # Errors
/// [`MemberError`].
pub async fn add(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    account: Uuid,
    role: Role,
) -> Result<(), MemberError> {
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, action_for(role), Some(tenant)).await?;
    insert(&mut tx, actor, dashboard.now(), tenant, account, role).await?;
    Ok(tx.commit().await?)
}

/// Within the transaction that, for a new tenant, also makes the tenant.
pub(super) async fn insert(
    tx: &mut Tx,
    actor: &Actor,
    now: i64,
    tenant: Uuid,
    account: Uuid,
    role: Role,
) -> Result<(), MemberError> {
    if role == Role::Operator {
        return Err(MemberError::Role);
    }
    let insert = query(
        "INSERT INTO members (tenant_id, account_id, role, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (tenant_id, account_id) DO NOTHING",
    );
    let insert = insert.bind(tenant.to_string()).bind(account.to_string()).bind(role.as_str()).bind(now);
    if insert.execute(&mut **tx).await?.rows_affected() == 0 {
        return Err(MemberError::Exists);
    }
    let detail = serde_json::json!({ "role": role.as_str() });
    let event = Event::new(now, actor, "member.add", account).of_tenant(tenant).with(detail);
    Ok(audit::append(tx, &event).await?)
}

/// Gives a member another role, or with `None` takes the membership away.
///
/// # Errors
/// [`MemberError::LastOwner`] if nobody would own the tenant.
pub async fn change(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    account: Uuid,
    role: Option<Role>,
) -> Result<(), MemberError> {
    change_from(dashboard, actor, tenant, account, None, role).await
}

/// The same if the role is still the one that was read.
///
/// # Errors
/// [`MemberError::Changed`] if it is not.
pub async fn change_from(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    account: Uuid,
    read: Option<Role>,
    role: Option<Role>,
) -> Result<(), MemberError> {
    if role == Some(Role::Operator) {
        return Err(MemberError::Role);
    }
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    // The tenant's row is locked first: two owners who remove each other do so one after the other.
    let lock = query("UPDATE tenants SET version = version WHERE id = $1").bind(tenant.to_string());
    lock.execute(&mut *tx).await?;
    let before = role_in(&mut tx, tenant, account).await?.ok_or(MemberError::Missing);
    let wanted = match (&before, role) {
        (Ok(Role::Owner), _) | (_, Some(Role::Owner)) => Action::ManageOwners,
        _ => Action::ManageMembers,
    };
    require(&mut tx, actor, wanted, Some(tenant)).await?;
    let before = before?;
    if read.is_some_and(|read| read != before) {
        return Err(MemberError::Changed);
    }
    let statement = match role {
        Some(role) => {
            query("UPDATE members SET role = $3 WHERE tenant_id = $1 AND account_id = $2 AND role <> $3")
                .bind(tenant.to_string())
                .bind(account.to_string())
                .bind(role.as_str())
        }
        None => query("DELETE FROM members WHERE tenant_id = $1 AND account_id = $2")
            .bind(tenant.to_string())
            .bind(account.to_string()),
    };
    statement.execute(&mut *tx).await?;
    let owners = query("SELECT COUNT(*) AS owners FROM members WHERE tenant_id = $1 AND role = 'owner'")
        .bind(tenant.to_string())
        .fetch_one(&mut *tx)
        .await?;
    if owners.int("owners")? == 0 {
        return Err(MemberError::LastOwner);
    }
    let detail = serde_json::json!({ "from": before.as_str(), "to": role.map(Role::as_str) });
    let event = Event::new(now, actor, "member.change", account).of_tenant(tenant).with(detail);
    audit::append(&mut tx, &event).await?;
    Ok(tx.commit().await?)
}

/// The members, oldest first.
///
/// # Errors
/// [`MemberError`].
pub async fn list(dashboard: &Dashboard, actor: &Actor, tenant: Uuid) -> Result<Vec<Member>, MemberError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ReadTenant, Some(tenant)).await?;
    let rows = query(
        "SELECT a.id, a.email, a.name, m.role FROM members m JOIN accounts a ON a.id = m.account_id \
         WHERE m.tenant_id = $1 ORDER BY m.created_at, a.email",
    );
    let rows = rows.bind(tenant.to_string()).fetch_all(&mut *tx).await?;
    let member = |row: &sqlx::any::AnyRow| -> Result<Member, StoreError> {
        let role = row.text("role")?;
        Ok(Member {
            account: row.parsed("id")?,
            email: row.text("email")?,
            name: row.text("name")?,
            role: role.parse().map_err(|()| StoreError::Corrupt { what: "role", value: role })?,
        })
    };
    Ok(rows.iter().map(member).collect::<Result<_, _>>()?)
}

/// The e-mail addresses of the owners of the tenants whose ids are from `first` to `last`: those of a page of tenants.
///
/// # Errors
/// [`MemberError::Denied`] unless the actor is an operator.
pub async fn owners(
    dashboard: &Dashboard,
    actor: &Actor,
    first: Uuid,
    last: Uuid,
) -> Result<BTreeMap<Uuid, Vec<String>>, MemberError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ReviewTenants, None).await?;
    let rows = query(
        "SELECT m.tenant_id, a.email FROM members m JOIN accounts a ON a.id = m.account_id \
         WHERE m.role = 'owner' AND m.tenant_id >= $1 AND m.tenant_id <= $2 ORDER BY m.created_at, a.email",
    );
    let rows = rows.bind(first.to_string()).bind(last.to_string()).fetch_all(&mut *tx).await?;
    let mut owners: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
    for row in &rows {
        owners.entry(row.parsed("tenant_id")?).or_default().push(row.text("email")?);
    }
    Ok(owners)
}

pub(super) fn action_for(role: Role) -> Action {
    if role == Role::Owner { Action::ManageOwners } else { Action::ManageMembers }
}
