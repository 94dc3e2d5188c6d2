//! Web sessions: which browser is logged in as whom.
//!
//! - The browser holds 256 random bits in a cookie, the database their fingerprint: whoever reads the database can't log
//!   in with what is there.
//! - A session gets a new id whenever it can do more than before: at log-in, and again after the second factor. What was
//!   planted into the browser before is worth nothing then.
//! - It ends when it was idle for [`IDLE_S`], after [`ABSOLUTE_S`] whatever happens, at log-out, and when the password or
//!   the second factor of its account changes elsewhere.
//!
//! Absent: cookies and forms, which are `web`'s; how often somebody may try, which is [`Dashboard::begin_attempt`].

use uuid::Uuid;

use super::Dashboard;
use super::access::Actor;
use super::accounts::{self, Account};
use super::audit::{self, Event};
use super::random;
use super::store::{Columns, StoreError, Tx, query};

pub const IDLE_S: i64 = 8 * 3600;
pub const ABSOLUTE_S: i64 = 7 * 86_400;
/// How long the second factor may take.
const HALF_S: i64 = 600;
/// So many wrong codes, and the password is asked for again.
const WRONG_CODES_MAX: i64 = 5;
/// A session in use writes that down this often, not at each request.
const TOUCH_EVERY_S: i64 = 60;
const BROWSER_CHARS_MAX: usize = 200;

/// A session that is good now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The id's fingerprint, which names the session and opens nothing.
    pub id_hash: String,
    pub account: Account,
    /// The password was right, the second factor is still to come.
    pub is_half: bool,
    /// Tenant and app that the playground opens.
    pub playground: Option<(Uuid, Uuid)>,
}

/// A session as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    pub id_hash: String,
    pub created_at: i64,
    pub last_seen_at: i64,
    pub address: String,
    pub browser: String,
}

/// Begins a session; the id for the cookie, returned this once. A half one waits for the second factor.
///
/// # Errors
/// [`StoreError`].
pub async fn begin(
    dashboard: &Dashboard,
    actor: &Actor,
    account: Uuid,
    is_half: bool,
    browser: &str,
) -> Result<String, StoreError> {
    let mut tx = dashboard.home.begin().await?;
    forget_ended(&mut tx, dashboard.now()).await?;
    let id = insert(&mut tx, dashboard.now(), actor, account, is_half, browser).await?;
    tx.commit().await?;
    Ok(id)
}

async fn insert(
    tx: &mut Tx,
    now: i64,
    actor: &Actor,
    account: Uuid,
    is_half: bool,
    browser: &str,
) -> Result<String, StoreError> {
    let id = random::secret("");
    let insert = query(
        "INSERT INTO web_sessions (id_hash, account_id, is_half, wrong_codes, created_at, last_seen_at, expires_at, \
         address, browser) VALUES ($1, $2, $3, 0, $4, $4, $5, $6, $7)",
    );
    let insert = insert.bind(random::fingerprint(&id)).bind(account.to_string()).bind(i64::from(is_half));
    let insert = insert.bind(now).bind(now + if is_half { HALF_S } else { ABSOLUTE_S });
    let insert = insert.bind(actor.address.map(|ip| ip.to_string()).unwrap_or_default());
    let browser: String = browser.chars().filter(|c| !c.is_control()).take(BROWSER_CHARS_MAX).collect();
    insert.bind(browser).execute(&mut **tx).await?;
    if !is_half {
        let actor = Actor::account(account, actor.address);
        audit::append(tx, &Event::new(now, &actor, "session.begin", account)).await?;
    }
    Ok(id)
}

async fn forget_ended(tx: &mut Tx, now: i64) -> Result<(), StoreError> {
    let delete = query("DELETE FROM web_sessions WHERE expires_at <= $1 OR last_seen_at <= $2");
    delete.bind(now).bind(now - IDLE_S).execute(&mut **tx).await?;
    Ok(())
}

/// The session of a cookie, if it is good. `is_use`: somebody does something with it, which is noted; else a page that
/// lies open keeps itself new, and that holds no session open.
///
/// # Errors
/// [`StoreError`].
pub async fn find(dashboard: &Dashboard, id: &str, is_use: bool) -> Result<Option<Session>, StoreError> {
    let (now, id_hash) = (dashboard.now(), random::fingerprint(id));
    let row = query(
        "SELECT a.*, s.is_half, s.last_seen_at, s.playground_tenant, s.playground_app \
         FROM web_sessions s JOIN accounts a ON a.id = s.account_id \
         WHERE s.id_hash = $1 AND s.expires_at > $2 AND s.last_seen_at > $3 AND a.disabled_at IS NULL",
    );
    let row = row.bind(id_hash.clone()).bind(now).bind(now - IDLE_S);
    let Some(row) = row.fetch_optional(dashboard.home.reader()).await? else { return Ok(None) };
    if is_use && row.int("last_seen_at")? <= now - TOUCH_EVERY_S {
        let mut tx = dashboard.home.begin().await?;
        let touch = query("UPDATE web_sessions SET last_seen_at = $1 WHERE id_hash = $2");
        touch.bind(now).bind(id_hash.clone()).execute(&mut *tx).await?;
        tx.commit().await?;
    }
    let chosen = |column| row.text_or_null(column).map(|id| id.and_then(|id| id.parse().ok()));
    let playground: (Option<Uuid>, Option<Uuid>) = (chosen("playground_tenant")?, chosen("playground_app")?);
    Ok(Some(Session {
        id_hash,
        account: accounts::of_row(&row)?,
        is_half: row.int("is_half")? == 1,
        playground: playground.0.zip(playground.1),
    }))
}

/// Makes a half session a whole one, under a new id, which is returned. `None` if it has ended meanwhile.
///
/// # Errors
/// [`StoreError`].
pub async fn complete(
    dashboard: &Dashboard,
    actor: &Actor,
    session: &Session,
    browser: &str,
) -> Result<Option<String>, StoreError> {
    let mut tx = dashboard.home.begin().await?;
    let delete = query("DELETE FROM web_sessions WHERE id_hash = $1 AND is_half = 1");
    if delete.bind(session.id_hash.clone()).execute(&mut *tx).await?.rows_affected() != 1 {
        return Ok(None);
    }
    let id = insert(&mut tx, dashboard.now(), actor, session.account.id, false, browser).await?;
    tx.commit().await?;
    Ok(Some(id))
}

/// Counts a wrong code; whether the half session may go on.
///
/// # Errors
/// [`StoreError`].
pub async fn count_wrong_code(dashboard: &Dashboard, session: &Session) -> Result<bool, StoreError> {
    let mut tx = dashboard.home.begin().await?;
    let update = query(
        "UPDATE web_sessions SET wrong_codes = wrong_codes + 1 WHERE id_hash = $1 RETURNING wrong_codes",
    );
    let row = update.bind(session.id_hash.clone()).fetch_optional(&mut *tx).await?;
    let may_go_on = row.map(|row| row.int("wrong_codes")).transpose()?.is_some_and(|n| n < WRONG_CODES_MAX);
    if !may_go_on {
        let delete = query("DELETE FROM web_sessions WHERE id_hash = $1");
        delete.bind(session.id_hash.clone()).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(may_go_on)
}

/// Ends one session of the account; whether there was one.
///
/// # Errors
/// [`StoreError`].
pub async fn end(
    dashboard: &Dashboard,
    actor: &Actor,
    account: Uuid,
    id_hash: &str,
) -> Result<bool, StoreError> {
    let mut tx = dashboard.home.begin().await?;
    let delete = query("DELETE FROM web_sessions WHERE id_hash = $1 AND account_id = $2");
    let delete = delete.bind(id_hash.to_owned()).bind(account.to_string());
    let ended = delete.execute(&mut *tx).await?.rows_affected() == 1;
    if ended {
        audit::append(&mut tx, &Event::new(dashboard.now(), actor, "session.end", account)).await?;
        tx.commit().await?;
    }
    Ok(ended)
}

/// Logs an account out everywhere, but for the session `except`.
///
/// # Errors
/// [`StoreError`].
pub async fn end_all(
    dashboard: &Dashboard,
    actor: &Actor,
    account: Uuid,
    except: Option<&str>,
) -> Result<u64, StoreError> {
    let mut tx = dashboard.home.begin().await?;
    let delete = query("DELETE FROM web_sessions WHERE account_id = $1 AND id_hash <> $2");
    let delete = delete.bind(account.to_string()).bind(except.unwrap_or_default().to_owned());
    let ended = delete.execute(&mut *tx).await?.rows_affected();
    if ended > 0 {
        let event = Event::new(dashboard.now(), actor, "session.end_all", account);
        audit::append(&mut tx, &event.with(serde_json::json!({ "ended": ended }))).await?;
    }
    tx.commit().await?;
    Ok(ended)
}

/// The whole sessions of an account, the one last used first.
///
/// # Errors
/// [`StoreError`].
pub async fn list(dashboard: &Dashboard, account: Uuid) -> Result<Vec<Open>, StoreError> {
    let now = dashboard.now();
    let rows = query(
        "SELECT * FROM web_sessions WHERE account_id = $1 AND is_half = 0 AND expires_at > $2 \
         AND last_seen_at > $3 ORDER BY last_seen_at DESC, id_hash",
    );
    let rows = rows.bind(account.to_string()).bind(now).bind(now - IDLE_S);
    let open = |row: &sqlx::any::AnyRow| {
        Ok(Open {
            id_hash: row.text("id_hash")?,
            created_at: row.int("created_at")?,
            last_seen_at: row.int("last_seen_at")?,
            address: row.text("address")?,
            browser: row.text("browser")?,
        })
    };
    rows.fetch_all(dashboard.home.reader()).await?.iter().map(open).collect()
}

/// Remembers which app the playground of this session opens: a token's app must not be asked for by URL.
///
/// # Errors
/// [`StoreError`].
pub async fn choose_playground(
    dashboard: &Dashboard,
    session: &Session,
    tenant: Uuid,
    app: Uuid,
) -> Result<(), StoreError> {
    let mut tx = dashboard.home.begin().await?;
    let update =
        query("UPDATE web_sessions SET playground_tenant = $1, playground_app = $2 WHERE id_hash = $3");
    let update = update.bind(tenant.to_string()).bind(app.to_string()).bind(session.id_hash.clone());
    update.execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}
