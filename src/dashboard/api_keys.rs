//! API keys: what automation authenticates with, of a tenant or of the platform.
//!
//! - A key is shown once and stored as a fingerprint; its beginning stays, to recognise it.
//! - It may what its role may, and never more than whoever made it may **now**: a member who is demoted or leaves takes
//!   the rights of his keys along.
//! - A key can make keys, within its own rights and its own life. Revoking it revokes those too.

use std::fmt;

use sqlx::any::AnyRow;
use uuid::Uuid;

use super::Dashboard;
use super::access::{Action, Actor, Denied, Principal, Role, may, require as require_right, role_in};
use super::accounts::normal_name;
use super::audit::{self, Event};
use super::random;
use super::store::{Columns, StoreError, Tx, query};

/// What every key begins with; scanners of leaked secrets look for it.
pub const PREFIX: &str = "wsk_";
/// Of the secret, shown in lists: 48 of its 256 bits.
const SHOWN_CHARS: usize = PREFIX.len() + 8;
/// Keys of one tenant, or of the operators: a bound on what a list reads.
pub const KEYS_MAX: i64 = 1000;
pub const EXPIRY_DAYS_MAX: i64 = 3650;
/// `last_used_at` is this coarse, so that reading requests write rarely.
const USED_EVERY_S: i64 = 3600;

/// A key as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: Uuid,
    /// `None`: an operator's.
    pub tenant: Option<Uuid>,
    pub role: Role,
    pub name: String,
    /// The beginning of the secret.
    pub prefix: String,
    /// Whose rights it can't exceed.
    pub account: Option<Uuid>,
    pub created_at: i64,
    pub expires_at: Option<i64>,
    pub last_used_at: Option<i64>,
    pub revoked_at: Option<i64>,
}

#[derive(Debug, Clone)]
pub struct NewApiKey {
    pub name: String,
    pub role: Role,
    pub expires_at: Option<i64>,
}

/// A key that has just been made, with its secret, which is shown this once.
#[derive(Clone, PartialEq, Eq)]
pub struct Created {
    pub key: ApiKey,
    pub secret: String,
}

impl fmt::Debug for Created {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Created").field("key", &self.key).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    #[error("an API key needs a name of 1 to 100 characters")]
    Name,
    #[error(
        "a tenant's key has a member's role: owner, admin, developer or billing; an operators' key has none of them"
    )]
    Role,
    #[error("a key can't have the role {0}: it would have rights that you don't have")]
    TooMuch(&'static str),
    #[error(
        "a key must expire in the future, at most {EXPIRY_DAYS_MAX} days ahead, and not after the key that makes it"
    )]
    Expiry,
    #[error("there are {KEYS_MAX} keys already; revoke some")]
    TooMany,
    #[error("there is no such API key, or it is revoked")]
    Missing,
    #[error("the API key is unknown, expired or revoked")]
    Invalid,
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ApiKeyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Makes a key for a tenant, or with `None` for the platform's operators.
///
/// # Errors
/// [`ApiKeyError`].
pub async fn create(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Option<Uuid>,
    new: NewApiKey,
) -> Result<Created, ApiKeyError> {
    let name = normal_name(&new.name).ok_or(ApiKeyError::Name)?;
    if (new.role == Role::Operator) != tenant.is_none() {
        return Err(ApiKeyError::Role);
    }
    let now = dashboard.now();
    let latest = now + EXPIRY_DAYS_MAX * 86_400;
    if new.expires_at.is_some_and(|at| at <= now || at > latest) {
        return Err(ApiKeyError::Expiry);
    }
    let (id, secret) = (random::guid(), random::secret(PREFIX));
    let prefix: String = secret.chars().take(SHOWN_CHARS).collect();
    let mut tx = dashboard.home.begin().await?;
    require_right(&mut tx, actor, action_on(tenant), tenant).await?;
    let (account, parent) = maker(&mut tx, actor).await?;
    if !covers(&mut tx, actor, tenant, new.role).await? {
        return Err(ApiKeyError::TooMuch(new.role.as_str()));
    }
    if let Some(ApiKey { expires_at: Some(end), .. }) = &parent
        && new.expires_at.is_none_or(|at| at > *end)
    {
        return Err(ApiKeyError::Expiry);
    }
    let insert = query(
        "INSERT INTO api_keys (id, tenant_id, role, name, prefix, secret_hash, account_id, parent_id, created_at, \
         expires_at) SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10 \
         WHERE (SELECT COUNT(*) FROM api_keys WHERE COALESCE(tenant_id, '') = $11 AND revoked_at IS NULL) < $12",
    );
    let tenant_text = tenant.map(|tenant| tenant.to_string());
    let insert = insert.bind(id.to_string()).bind(tenant_text.clone()).bind(new.role.as_str());
    let insert = insert.bind(name.clone()).bind(prefix.clone()).bind(random::fingerprint(&secret));
    let insert = insert.bind(account.map(|id| id.to_string())).bind(parent.map(|key| key.id.to_string()));
    let insert = insert.bind(now).bind(new.expires_at).bind(tenant_text.unwrap_or_default()).bind(KEYS_MAX);
    if insert.execute(&mut *tx).await?.rows_affected() != 1 {
        return Err(ApiKeyError::TooMany);
    }
    let detail = serde_json::json!({ "role": new.role.as_str(), "expires_at": new.expires_at });
    audit::append(&mut tx, &event(now, actor, "api_key.create", id, tenant).with(detail)).await?;
    tx.commit().await?;
    let key = ApiKey {
        id,
        tenant,
        role: new.role,
        name,
        prefix,
        account,
        created_at: now,
        expires_at: new.expires_at,
        last_used_at: None,
        revoked_at: None,
    };
    Ok(Created { key, secret })
}

/// Revokes a key and those that were made with it, at once.
///
/// # Errors
/// [`ApiKeyError::TooMuch`] if the key may what the actor may not: only who could have made it can revoke it.
pub async fn revoke(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Option<Uuid>,
    id: Uuid,
) -> Result<(), ApiKeyError> {
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    require_right(&mut tx, actor, action_on(tenant), tenant).await?;
    let key = find(&mut tx, tenant, id).await?.ok_or(ApiKeyError::Missing)?;
    if !covers(&mut tx, actor, tenant, key.role).await? {
        return Err(ApiKeyError::TooMuch(key.role.as_str()));
    }
    let update = query(
        "WITH RECURSIVE made (id) AS (SELECT id FROM api_keys WHERE id = $1 UNION \
         SELECT k.id FROM api_keys k JOIN made m ON k.parent_id = m.id) \
         UPDATE api_keys SET revoked_at = $2 WHERE id IN (SELECT id FROM made) AND revoked_at IS NULL",
    );
    let revoked = update.bind(id.to_string()).bind(now).execute(&mut *tx).await?.rows_affected();
    if key.revoked_at.is_some() || revoked == 0 {
        return Err(ApiKeyError::Missing);
    }
    let detail = serde_json::json!({ "revoked": revoked });
    audit::append(&mut tx, &event(now, actor, "api_key.revoke", id, tenant).with(detail)).await?;
    Ok(tx.commit().await?)
}

/// The keys of a tenant, or with `None` the operators', by id; revoked ones too.
///
/// # Errors
/// [`ApiKeyError::Denied`].
pub async fn list(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Option<Uuid>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ApiKey>, ApiKeyError> {
    let mut tx = dashboard.home.begin_read().await?;
    require_right(&mut tx, actor, action_on(tenant), tenant).await?;
    let rows =
        query("SELECT * FROM api_keys WHERE COALESCE(tenant_id, '') = $1 AND id > $2 ORDER BY id LIMIT $3");
    let rows = rows.bind(tenant.map(|id| id.to_string()).unwrap_or_default());
    let rows = rows.bind(after.map(|id| id.to_string()).unwrap_or_default()).bind(limit);
    let rows = rows.fetch_all(&mut *tx).await?;
    Ok(rows.iter().map(of_row).collect::<Result<_, _>>()?)
}

/// One of them.
///
/// # Errors
/// [`ApiKeyError::Missing`] also for another tenant's.
pub async fn read(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Option<Uuid>,
    id: Uuid,
) -> Result<ApiKey, ApiKeyError> {
    let mut tx = dashboard.home.begin_read().await?;
    require_right(&mut tx, actor, action_on(tenant), tenant).await?;
    find(&mut tx, tenant, id).await?.ok_or(ApiKeyError::Missing)
}

/// The key that asks, of itself.
///
/// # Errors
/// [`ApiKeyError::Invalid`] if it was revoked in the meantime.
pub async fn own(dashboard: &Dashboard, id: Uuid) -> Result<ApiKey, ApiKeyError> {
    let mut tx = dashboard.home.begin_read().await?;
    alive(&mut tx, id).await?.ok_or(ApiKeyError::Invalid)
}

/// The key whose secret this is, if it is good now. Notes that it was used, to the hour.
///
/// # Errors
/// [`ApiKeyError::Invalid`].
pub async fn authenticate(dashboard: &Dashboard, secret: &str) -> Result<ApiKey, ApiKeyError> {
    let now = dashboard.now();
    let mut tx = dashboard.home.begin_read().await?;
    let row = query("SELECT * FROM api_keys WHERE secret_hash = $1 AND revoked_at IS NULL");
    let row = row.bind(random::fingerprint(secret)).fetch_optional(&mut *tx).await?;
    let key = of_row(&row.ok_or(ApiKeyError::Invalid)?)?;
    if key.expires_at.is_some_and(|at| at <= now) || matches!(makers_role(&mut tx, &key).await?, Maker::Gone)
    {
        return Err(ApiKeyError::Invalid);
    }
    drop(tx);
    if key.last_used_at.is_none_or(|at| now - at >= USED_EVERY_S) {
        let mut tx = dashboard.home.begin().await?;
        let update = query("UPDATE api_keys SET last_used_at = $1 WHERE id = $2");
        update.bind(now).bind(key.id.to_string()).execute(&mut *tx).await?;
        tx.commit().await?;
    }
    Ok(key)
}

/// What [`super::access::require`] asks of a key. (That it has not expired was seen when it authenticated.)
pub(super) async fn require(
    tx: &mut Tx,
    id: Uuid,
    action: Action,
    tenant: Option<Uuid>,
) -> Result<(), Denied> {
    let key = alive(tx, id).await?.ok_or(Denied::NotLoggedIn)?;
    let maker = makers_role(tx, &key).await?;
    if key.tenant.is_some() && tenant.is_some() && key.tenant != tenant {
        return Err(Denied::NoSuchTenant);
    }
    match maker {
        Maker::Gone => Err(Denied::NotLoggedIn),
        _ if key.tenant.is_some() && tenant.is_none() => Err(Denied::Role { action, role: Some(key.role) }),
        Maker::Anything if may(key.role, action) => Ok(()),
        Maker::Role(role) if may(key.role, action) && may(role, action) => Ok(()),
        _ => Err(Denied::Role { action, role: Some(key.role) }),
    }
}

/// What whoever made a key may now.
enum Maker {
    /// The account is disabled, no member, or no operator any more.
    Gone,
    Anything,
    Role(Role),
}

async fn makers_role(tx: &mut Tx, key: &ApiKey) -> Result<Maker, StoreError> {
    let Some(account) = key.account else { return Ok(Maker::Anything) };
    let row = query("SELECT is_operator FROM accounts WHERE id = $1 AND disabled_at IS NULL");
    let Some(row) = row.bind(account.to_string()).fetch_optional(&mut **tx).await? else {
        return Ok(Maker::Gone);
    };
    if row.int("is_operator")? == 1 {
        return Ok(Maker::Anything);
    }
    let Some(tenant) = key.tenant else { return Ok(Maker::Gone) };
    Ok(role_in(tx, tenant, account).await?.map_or(Maker::Gone, Maker::Role))
}

/// The account that answers for what the actor makes, and the key that it comes with.
async fn maker(tx: &mut Tx, actor: &Actor) -> Result<(Option<Uuid>, Option<ApiKey>), ApiKeyError> {
    match actor.principal {
        Principal::Account(id) => Ok((Some(id), None)),
        Principal::ApiKey(id) => {
            let key = alive(tx, id).await?.ok_or(ApiKeyError::Invalid)?;
            Ok((key.account, Some(key)))
        }
        _ => Ok((None, None)),
    }
}

/// Whether the actor may everything, in this tenant, that the role may.
async fn covers(tx: &mut Tx, actor: &Actor, tenant: Option<Uuid>, role: Role) -> Result<bool, ApiKeyError> {
    for (action, _) in super::access::RIGHTS.iter().filter(|(action, _)| may(role, *action)) {
        match require_right(tx, actor, *action, tenant).await {
            Ok(()) => {}
            Err(Denied::Store(error)) => return Err(error.into()),
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

fn action_on(tenant: Option<Uuid>) -> Action {
    if tenant.is_some() { Action::ManageApiKeys } else { Action::ManageAccounts }
}

fn event(now: i64, actor: &Actor, action: &str, id: Uuid, tenant: Option<Uuid>) -> Event {
    let event = Event::new(now, actor, action, id);
    match tenant {
        Some(tenant) => event.of_tenant(tenant),
        None => event,
    }
}

async fn alive(tx: &mut Tx, id: Uuid) -> Result<Option<ApiKey>, StoreError> {
    let row = query("SELECT * FROM api_keys WHERE id = $1 AND revoked_at IS NULL");
    let row = row.bind(id.to_string()).fetch_optional(&mut **tx).await?;
    row.map(|row| of_row(&row)).transpose()
}

async fn find(tx: &mut Tx, tenant: Option<Uuid>, id: Uuid) -> Result<Option<ApiKey>, StoreError> {
    let row = query("SELECT * FROM api_keys WHERE id = $1 AND COALESCE(tenant_id, '') = $2");
    let row = row.bind(id.to_string()).bind(tenant.map(|id| id.to_string()).unwrap_or_default());
    row.fetch_optional(&mut **tx).await?.map(|row| of_row(&row)).transpose()
}

fn of_row(row: &AnyRow) -> Result<ApiKey, StoreError> {
    let guid = |column: &'static str| -> Result<Option<Uuid>, StoreError> {
        row.text_or_null(column)?.map(|_| row.parsed(column)).transpose()
    };
    let role = row.text("role")?;
    Ok(ApiKey {
        id: row.parsed("id")?,
        tenant: guid("tenant_id")?,
        role: match role.as_str() {
            "operator" => Role::Operator,
            _ => role.parse().map_err(|()| StoreError::Corrupt { what: "role", value: role })?,
        },
        name: row.text("name")?,
        prefix: row.text("prefix")?,
        account: guid("account_id")?,
        created_at: row.int("created_at")?,
        expires_at: row.int_or_null("expires_at")?,
        last_used_at: row.int_or_null("last_used_at")?,
        revoked_at: row.int_or_null("revoked_at")?,
    })
}
