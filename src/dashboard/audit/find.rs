//! What people look for in the audit log: pages, filtered, for who may read them.

use uuid::Uuid;

use super::Entry;
use crate::dashboard::Dashboard;
use crate::dashboard::access::{Action, Actor, Denied, require};
use crate::dashboard::store::{StoreError, query};

/// What is looked for; empty texts match everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `None`: of all tenants, and of none, which is for operators.
    pub tenant: Option<Uuid>,
    /// An action such as `app.create`, or a noun such as `app`.
    pub action: String,
    pub actor: String,
    pub target: String,
    /// Unix seconds, inclusive.
    pub since: Option<i64>,
    /// Unix seconds, exclusive.
    pub until: Option<i64>,
}

#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// At most `limit` entries, newest first, before the entry `before` if one is given.
///
/// # Errors
/// [`FindError`].
pub async fn find(
    dashboard: &Dashboard,
    actor: &Actor,
    wanted: &Wanted,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Entry>, FindError> {
    let mut tx = dashboard.home.begin_read().await?;
    let right = if wanted.tenant.is_some() { Action::ReadAudit } else { Action::ReadAllAudit };
    require(&mut tx, actor, right, wanted.tenant).await?;
    let rows = query(
        "SELECT * FROM audit_log WHERE seq < $1 AND ($2 = '' OR tenant_id = $2) \
         AND ($3 = '' OR action = $3 OR substr(action, 1, length($3) + 1) = $3 || '.') \
         AND ($4 = '' OR actor = $4) AND ($5 = '' OR target = $5) AND at >= $6 AND at < $7 \
         ORDER BY seq DESC LIMIT $8",
    );
    let rows = rows.bind(before.unwrap_or(i64::MAX));
    let rows = rows.bind(wanted.tenant.map(|tenant| tenant.to_string()).unwrap_or_default());
    let rows = rows.bind(wanted.action.clone()).bind(wanted.actor.clone()).bind(wanted.target.clone());
    let rows = rows.bind(wanted.since.unwrap_or(i64::MIN)).bind(wanted.until.unwrap_or(i64::MAX)).bind(limit);
    let rows = rows.fetch_all(&mut *tx).await.map_err(StoreError::from)?;
    Ok(rows.iter().map(Entry::of_row).collect::<Result<_, _>>()?)
}
