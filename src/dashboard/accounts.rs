//! Accounts: people who log in. What they may do is in `access`, through their memberships.

use uuid::Uuid;

use super::Dashboard;
use super::access::{Action, Actor, Denied, require};
use super::audit::{self, Event};
use super::passwords::PasswordError;
use super::random;
use super::store::{Columns, StoreError, Tx, query};

const EMAIL_BYTES_MAX: usize = 254;
const NAME_CHARS_MAX: usize = 100;

/// An account as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub id: Uuid,
    pub email: String,
    pub name: String,
    pub is_operator: bool,
    /// Logged in with a one-time password: nothing else may be done before it is changed.
    pub must_change_password: bool,
}

/// Why an account could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("{0:?} is no e-mail address")]
    Email(String),
    #[error("an account needs a name of 1 to {NAME_CHARS_MAX} characters")]
    Name,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("there is an account with the e-mail address {0} already; log in, or use another one")]
    Exists(String),
    #[error("there is no such account")]
    Missing,
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether mail could be sent there, as far as form can tell: `something@host`.
#[must_use]
pub fn is_email(text: &str) -> bool {
    let Some((user, host)) = text.rsplit_once('@') else { return false };
    let clean = |text: &str| !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '@');
    text.len() <= EMAIL_BYTES_MAX && !user.is_empty() && !host.is_empty() && clean(user) && clean(host)
}

pub(super) fn normal_email(text: &str) -> Result<String, AccountError> {
    let email = text.trim().to_lowercase();
    if is_email(&email) { Ok(email) } else { Err(AccountError::Email(text.to_owned())) }
}

pub(super) fn normal_name(text: &str) -> Option<String> {
    let name = text.trim();
    let fits = (1..=NAME_CHARS_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    fits.then(|| name.to_owned())
}

/// Makes an account; anybody may (sign-up). It can do nothing until it is a member somewhere.
///
/// # Errors
/// [`AccountError`] says what is wrong with the input, or that the address is taken.
pub async fn sign_up(
    dashboard: &Dashboard,
    actor: &Actor,
    email: &str,
    name: &str,
    password: &str,
) -> Result<Uuid, AccountError> {
    let hash = dashboard.passwords.hash(password).await?;
    insert(dashboard, actor, email, name, hash, false, false).await
}

/// Makes an operator whose password is known already: for `dev`, which shows it at every start.
///
/// # Errors
/// [`AccountError::Denied`] unless the actor is an operator or the command line.
pub(super) async fn create_operator_with(
    dashboard: &Dashboard,
    actor: &Actor,
    email: &str,
    password: &str,
) -> Result<Uuid, AccountError> {
    let hash = dashboard.passwords.hash(password).await?;
    insert(dashboard, actor, email, "Operator", hash, true, false).await
}

/// Makes an operator with a one-time password, which is returned this once.
///
/// # Errors
/// [`AccountError::Denied`] unless the actor is an operator or the command line.
pub async fn create_operator(
    dashboard: &Dashboard,
    actor: &Actor,
    email: &str,
    name: &str,
) -> Result<(Uuid, String), AccountError> {
    let password = random::word();
    let hash = dashboard.passwords.hash(&password).await?;
    Ok((insert(dashboard, actor, email, name, hash, true, true).await?, password))
}

async fn insert(
    dashboard: &Dashboard,
    actor: &Actor,
    email: &str,
    name: &str,
    hash: String,
    is_operator: bool,
    one_time: bool,
) -> Result<Uuid, AccountError> {
    let (id, now) = (random::guid(), dashboard.now());
    let mut tx = dashboard.home.begin().await?;
    if is_operator {
        require(&mut tx, actor, Action::ManageAccounts, None).await?;
    }
    let new = NewAccount { id, email, name, hash, is_operator, one_time };
    insert_within(&mut tx, actor, now, new).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(id)
}

/// An account that no table has yet; `hash` is its password's.
pub(super) struct NewAccount<'a> {
    pub id: Uuid,
    pub email: &'a str,
    pub name: &'a str,
    pub hash: String,
    pub is_operator: bool,
    pub one_time: bool,
}

/// Within the transaction that also makes what the account is for.
pub(super) async fn insert_within(
    tx: &mut Tx,
    actor: &Actor,
    now: i64,
    new: NewAccount<'_>,
) -> Result<(), AccountError> {
    let (email, name) = (normal_email(new.email)?, normal_name(new.name).ok_or(AccountError::Name)?);
    let insert = query(
        "INSERT INTO accounts (id, email, name, password_hash, must_change_password, is_operator, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (email) DO NOTHING",
    );
    let insert = insert.bind(new.id.to_string()).bind(email.clone()).bind(name).bind(new.hash);
    let insert = insert.bind(i64::from(new.one_time)).bind(i64::from(new.is_operator)).bind(now);
    let inserted = insert.execute(&mut **tx).await.map_err(StoreError::from)?;
    if inserted.rows_affected() == 0 {
        return Err(AccountError::Exists(email));
    }
    let detail = serde_json::json!({ "operator": new.is_operator });
    Ok(audit::append(tx, &Event::new(now, actor, "account.create", new.id).with(detail)).await?)
}

/// Makes the configured operator if there is none yet; the one-time password, if it did. Two dashboards that start at
/// once make one.
///
/// # Errors
/// [`AccountError`].
pub async fn first_operator(dashboard: &Dashboard) -> Result<Option<String>, AccountError> {
    let row = query("SELECT COUNT(*) AS operators FROM accounts WHERE is_operator = 1")
        .fetch_one(dashboard.home.reader())
        .await
        .map_err(StoreError::from)?;
    if row.int("operators")? > 0 {
        return Ok(None);
    }
    let email = dashboard.config.operator_email.clone();
    match create_operator(dashboard, &Actor::system(), &email, "Operator").await {
        Ok((_, password)) => Ok(Some(password)),
        Err(AccountError::Exists(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The account with this address, or a new one with a one-time password, which is returned this once. For operators.
///
/// # Errors
/// [`AccountError`].
pub async fn ensure(
    dashboard: &Dashboard,
    actor: &Actor,
    email: &str,
    name: &str,
) -> Result<(Uuid, Option<String>), AccountError> {
    if let Some(account) = by_email(dashboard, email).await? {
        return Ok((account.id, None));
    }
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ManageAccounts, None).await?;
    drop(tx);
    let password = random::word();
    let hash = dashboard.passwords.hash(&password).await?;
    Ok((insert(dashboard, actor, email, name, hash, false, true).await?, Some(password)))
}

/// The account with this address and password. How many attempts an address or account has is the caller's to count
/// ([`Dashboard::begin_attempt`]).
///
/// # Errors
/// [`StoreError`].
pub async fn authenticate(
    dashboard: &Dashboard,
    email: &str,
    password: &str,
) -> Result<Option<Account>, StoreError> {
    let row = query("SELECT * FROM accounts WHERE email = $1 AND disabled_at IS NULL")
        .bind(email.trim().to_lowercase())
        .fetch_optional(dashboard.home.reader())
        .await?;
    let hash = row.as_ref().map(|row| row.text("password_hash")).transpose()?;
    let is_right = dashboard.passwords.verify(password, hash.as_deref()).await;
    row.filter(|_| is_right).map(|row| of_row(&row)).transpose()
}

/// Gives an account a new password of its owner's choice; the one-time mark goes.
///
/// # Errors
/// [`AccountError`].
pub async fn change_password(
    dashboard: &Dashboard,
    actor: &Actor,
    account: Uuid,
    password: &str,
) -> Result<(), AccountError> {
    let hash = dashboard.passwords.hash(password).await?;
    set_password(dashboard, actor, account, hash, false).await
}

/// Gives an account a new one-time password, which is returned this once.
///
/// # Errors
/// [`AccountError`].
pub async fn reset_password(
    dashboard: &Dashboard,
    actor: &Actor,
    account: Uuid,
) -> Result<String, AccountError> {
    let password = random::word();
    let hash = dashboard.passwords.hash(&password).await?;
    set_password(dashboard, actor, account, hash, true).await?;
    Ok(password)
}

async fn set_password(
    dashboard: &Dashboard,
    actor: &Actor,
    account: Uuid,
    hash: String,
    one_time: bool,
) -> Result<(), AccountError> {
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    if actor.principal != super::access::Principal::Account(account) || one_time {
        require(&mut tx, actor, Action::ManageAccounts, None).await?;
    }
    let update = query("UPDATE accounts SET password_hash = $1, must_change_password = $2 WHERE id = $3");
    let update = update.bind(hash).bind(i64::from(one_time)).bind(account.to_string());
    let updated = update.execute(&mut *tx).await.map_err(StoreError::from)?;
    if updated.rows_affected() != 1 {
        return Err(AccountError::Missing);
    }
    audit::append(&mut tx, &Event::new(now, actor, "account.password", account)).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}

/// # Errors
/// [`StoreError`].
pub async fn find(dashboard: &Dashboard, account: Uuid) -> Result<Option<Account>, StoreError> {
    let row = query("SELECT * FROM accounts WHERE id = $1 AND disabled_at IS NULL").bind(account.to_string());
    let row = row.fetch_optional(dashboard.home.reader()).await?;
    row.map(|row| of_row(&row)).transpose()
}

/// The account with this e-mail address.
///
/// # Errors
/// [`StoreError`].
pub async fn by_email(dashboard: &Dashboard, email: &str) -> Result<Option<Account>, StoreError> {
    let row = query("SELECT * FROM accounts WHERE email = $1")
        .bind(email.trim().to_lowercase())
        .fetch_optional(dashboard.home.reader())
        .await?;
    row.map(|row| of_row(&row)).transpose()
}

/// The e-mail address of an account, for showing who did something.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn email_of(dashboard: &Dashboard, account: Uuid) -> Result<Option<String>, StoreError> {
    let row = query("SELECT email FROM accounts WHERE id = $1").bind(account.to_string());
    let row = row.fetch_optional(dashboard.home.reader()).await?;
    row.map(|row| row.text("email")).transpose()
}

pub(super) fn of_row(row: &sqlx::any::AnyRow) -> Result<Account, StoreError> {
    Ok(Account {
        id: row.parsed("id")?,
        email: row.text("email")?,
        name: row.text("name")?,
        is_operator: row.int("is_operator")? == 1,
        must_change_password: row.int("must_change_password")? == 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_user_and_a_host() {
        assert!(is_email("a@b") && is_email("first.last+tag@example.com"));
        for text in ["", "a", "@b", "a@", "a b@c", "a@b@c", "a@b\n"] {
            assert!(!is_email(text), "{text:?}");
        }
    }
}
