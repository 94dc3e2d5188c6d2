//! Invitations: somebody is asked by e-mail to join a tenant, with a role.
//!
//! - The link holds a token that is good once, for seven days; stored is its fingerprint. It is in the link's fragment,
//!   which browsers send to no server, so it is in nobody's log.
//! - Having the token shows that the mail was read: an account with that address joins, and who has none makes one with
//!   a password of his own.
//! - An invitation is only as good as its inviter: who may not invite any more has invited nobody.
//! - The row is there before the mail, but its link is good only after: if the relay refuses, nothing is left.

use sqlx::any::AnyRow;
use uuid::Uuid;

use super::Dashboard;
use super::access::{Action, Actor, Denied, Principal, Role, require};
use super::accounts::{self, AccountError, NewAccount, normal_email};
use super::audit::{self, Event};
use super::mail::{Letter, MailError};
use super::members::{self, MemberError, action_for};
use super::random;
use super::store::{Columns, Database, StoreError, Tx, query};

pub const LIFE_S: i64 = 7 * 86_400;
/// Open ones of one tenant: nobody uses the dashboard to write to the world.
pub const OPEN_MAX: i64 = 100;
/// A mail that is not out after this never will be: the process ended.
const SENDING_S: i64 = 600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvitationState {
    Open,
    Accepted,
    Withdrawn,
    Expired,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    pub id: Uuid,
    pub tenant: Uuid,
    pub email: String,
    pub role: Role,
    /// The actor, as the audit log writes it.
    pub invited_by: String,
    pub state: InvitationState,
    pub created_at: i64,
    pub expires_at: i64,
}

/// What the invited person is shown before he decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    pub invitation: Invitation,
    pub tenant_name: String,
    /// Whether there is an account that will join; else one is made.
    pub has_account: bool,
}

/// What somebody gives who has no account yet.
#[derive(Clone)]
pub struct Newcomer<'a> {
    pub name: &'a str,
    pub password: &'a str,
}

impl std::fmt::Debug for Newcomer<'_> {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Newcomer").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub tenant: Uuid,
    pub account: Uuid,
    pub role: Role,
    pub is_new_account: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum InvitationError {
    #[error("a member's role is owner, admin, developer or billing")]
    Role,
    #[error("{0} is a member already; change the role instead")]
    Member(String),
    #[error("{0} is invited already; withdraw that invitation first")]
    Exists(String),
    #[error("this tenant has {OPEN_MAX} open invitations; withdraw some")]
    TooMany,
    #[error("there is no such invitation")]
    Missing,
    #[error("the invitation is not open any more")]
    Closed,
    #[error(
        "the invitation's link is not good: it was used, withdrawn or is older than seven days; ask for a new one"
    )]
    Token,
    #[error("whoever invited you may not any more; ask the tenant's owner for a new invitation")]
    Inviter,
    #[error("you have no account yet: give a name and a password")]
    NewcomerNeeded,
    #[error("there is an account with this e-mail address already: leave name and password out")]
    AccountExists,
    #[error(transparent)]
    Mail(#[from] MailError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Membership(#[from] MemberError),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for InvitationError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl InvitationState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Accepted => "accepted",
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
        }
    }
}

impl std::str::FromStr for InvitationState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::Open, Self::Accepted, Self::Withdrawn, Self::Expired];
        all.into_iter().find(|state| state.as_str() == text).ok_or(())
    }
}

/// Invites somebody, by mail. When this returns, the relay has taken the mail.
///
/// # Errors
/// [`InvitationError`]; if the mail can't be sent, there is no invitation.
pub async fn create(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    email: &str,
    role: Role,
) -> Result<Invitation, InvitationError> {
    if role == Role::Operator {
        return Err(InvitationError::Role);
    }
    let email = normal_email(email)?;
    if !dashboard.mailer.is_configured() {
        return Err(MailError::NotConfigured.into());
    }
    let now = dashboard.now();
    let token = random::secret("wsi_");
    let invitation = Invitation {
        id: random::guid(),
        tenant,
        email,
        role,
        invited_by: actor.name(),
        state: InvitationState::Open,
        created_at: now,
        expires_at: now + LIFE_S,
    };
    let tenant_name = insert(dashboard, actor, &invitation, &token).await?;
    let inviter = match actor.principal {
        Principal::Account(account) => accounts::email_of(dashboard, account).await?,
        _ => None,
    };
    let letter = letter(dashboard, &invitation, inviter.as_deref(), &tenant_name, &token);
    if let Err(error) = dashboard.mailer.send(letter).await {
        let mut tx = dashboard.home.begin().await?;
        let delete = query("DELETE FROM invitations WHERE id = $1 AND state = 'sending'");
        delete.bind(invitation.id.to_string()).execute(&mut *tx).await?;
        tx.commit().await?;
        return Err(error.into());
    }
    let mut tx = dashboard.home.begin().await?;
    let open = query("UPDATE invitations SET state = 'open' WHERE id = $1 AND state = 'sending'");
    if open.bind(invitation.id.to_string()).execute(&mut *tx).await?.rows_affected() != 1 {
        return Err(InvitationError::Closed);
    }
    let detail = serde_json::json!({ "role": role.as_str() });
    let event = Event::new(now, actor, "invitation.create", invitation.id).of_tenant(tenant).with(detail);
    audit::append(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(invitation)
}

/// Puts the row there, in the state of sending; the tenant's name.
async fn insert(
    dashboard: &Dashboard,
    actor: &Actor,
    new: &Invitation,
    token: &str,
) -> Result<String, InvitationError> {
    let (tenant, now) = (new.tenant.to_string(), new.created_at);
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, action_for(new.role), Some(new.tenant)).await?;
    let row = query("SELECT name FROM tenants WHERE id = $1").bind(tenant.clone());
    let row = row.fetch_optional(&mut *tx).await?.ok_or(Denied::NoSuchTenant)?;
    let member = query(
        "SELECT m.role FROM members m JOIN accounts a ON a.id = m.account_id WHERE m.tenant_id = $1 AND a.email = $2",
    );
    let member = member.bind(tenant.clone()).bind(new.email.clone());
    if member.fetch_optional(&mut *tx).await?.is_some() {
        return Err(InvitationError::Member(new.email.clone()));
    }
    let expire = query(
        "UPDATE invitations SET state = 'expired' WHERE tenant_id = $1 AND state = 'open' AND expires_at <= $2",
    );
    expire.bind(tenant.clone()).bind(now).execute(&mut *tx).await?;
    let forget = query("DELETE FROM invitations WHERE state = 'sending' AND created_at <= $1");
    forget.bind(now - SENDING_S).execute(&mut *tx).await?;
    let count = query(
        "SELECT COUNT(*) AS found FROM invitations WHERE tenant_id = $1 AND state IN ('sending', 'open')",
    );
    if count.bind(tenant.clone()).fetch_one(&mut *tx).await?.int("found")? >= OPEN_MAX {
        return Err(InvitationError::TooMany);
    }
    let insert = query(
        "INSERT INTO invitations (id, tenant_id, email, role, token_hash, invited_by, state, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, 'sending', $7, $8) \
         ON CONFLICT (tenant_id, email) WHERE state IN ('sending', 'open') DO NOTHING",
    );
    let insert = insert.bind(new.id.to_string()).bind(tenant).bind(new.email.clone()).bind(new.role.as_str());
    let insert = insert.bind(random::fingerprint(token)).bind(new.invited_by.clone());
    let inserted = insert.bind(now).bind(new.expires_at).execute(&mut *tx).await?;
    if inserted.rows_affected() != 1 {
        return Err(InvitationError::Exists(new.email.clone()));
    }
    tx.commit().await?;
    Ok(row.text("name")?)
}

/// What the invited person reads. Only what cannot mislead: who invites is named by his address, which is his account's.
fn letter(
    dashboard: &Dashboard,
    invitation: &Invitation,
    inviter: Option<&str>,
    tenant_name: &str,
    token: &str,
) -> Letter {
    let invited = match inviter {
        Some(email) => format!("{email} invites you to join {tenant_name}"),
        None => format!("You are invited to join {tenant_name}"),
    };
    let text = format!(
        "{invited} on WireSocket, as {role}.\n\n\
         Open this link within seven days to accept:\n\n{issuer}/invitation#{token}\n\n\
         If the page asks for the invitation's code, it is this:\n\n{token}\n\n\
         It is good once, and only for {email}. If you did not expect this mail, do nothing: nobody joins without it.\n",
        role = invitation.role.as_str(),
        issuer = dashboard.config.issuer.as_str(),
        email = invitation.email,
    );
    Letter { to: invitation.email.clone(), subject: format!("Join {tenant_name} on WireSocket"), text }
}

/// What an invitation's link is about, for whoever has it.
///
/// # Errors
/// [`InvitationError::Token`] if it is not good (any more).
pub async fn look(dashboard: &Dashboard, token: &str) -> Result<Preview, InvitationError> {
    let row = query(
        "SELECT i.*, t.name AS tenant_name, a.id AS has_account FROM invitations i JOIN tenants t ON t.id = i.tenant_id \
         LEFT JOIN accounts a ON a.email = i.email AND a.disabled_at IS NULL \
         WHERE i.token_hash = $1 AND i.state = 'open' AND i.expires_at > $2",
    );
    let row = row.bind(random::fingerprint(token)).bind(dashboard.now());
    let row = row.fetch_optional(dashboard.home.reader()).await?.ok_or(InvitationError::Token)?;
    Ok(Preview {
        invitation: of_row(&row, dashboard.now())?,
        tenant_name: row.text("tenant_name")?,
        has_account: row.text_or_null("has_account")?.is_some(),
    })
}

/// Joins the tenant: with the account of the invited address, or with a new one.
///
/// # Errors
/// [`InvitationError`]; the link is spent only by success.
pub async fn accept(
    dashboard: &Dashboard,
    actor: &Actor,
    token: &str,
    newcomer: Option<Newcomer<'_>>,
) -> Result<Accepted, InvitationError> {
    let has_account = look(dashboard, token).await?.has_account;
    let newcomer = match (newcomer, has_account) {
        (Some(_), true) => return Err(InvitationError::AccountExists),
        (None, false) => return Err(InvitationError::NewcomerNeeded),
        // Before the transaction: hashing takes long.
        (Some(new), false) => {
            Some((new.name, dashboard.passwords.hash(new.password).await.map_err(AccountError::from)?))
        }
        (None, true) => None,
    };
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    let spend = query(
        "UPDATE invitations SET state = 'accepted' WHERE token_hash = $1 AND state = 'open' AND expires_at > $2 RETURNING *",
    );
    let spend = spend.bind(random::fingerprint(token)).bind(now).fetch_optional(&mut *tx).await?;
    let invitation = of_row(&spend.ok_or(InvitationError::Token)?, now)?;
    let Invitation { id, tenant, role, .. } = invitation;
    match require(&mut tx, &Actor::of_name(&invitation.invited_by), action_for(role), Some(tenant)).await {
        Ok(()) => {}
        Err(Denied::Store(error)) => return Err(error.into()),
        Err(_) => return Err(InvitationError::Inviter),
    }
    let account = account_of(&mut tx, &invitation.email).await?;
    let (account, is_new_account) = match (account, newcomer) {
        (Some(account), _) => (account, false),
        (None, None) => return Err(InvitationError::NewcomerNeeded),
        (None, Some((name, hash))) => {
            let account = random::guid();
            let email = &invitation.email;
            let new = NewAccount { id: account, email, name, hash, is_operator: false, one_time: false };
            accounts::insert_within(&mut tx, actor, now, new).await?;
            (account, true)
        }
    };
    let who = Actor { principal: Principal::Account(account), address: actor.address };
    members::insert(&mut tx, &who, now, tenant, account, role).await?;
    let update = query("UPDATE invitations SET accepted_by = $1 WHERE id = $2");
    update.bind(account.to_string()).bind(id.to_string()).execute(&mut *tx).await?;
    audit::append(&mut tx, &Event::new(now, &who, "invitation.accept", id).of_tenant(tenant)).await?;
    tx.commit().await?;
    Ok(Accepted { tenant, account, role, is_new_account })
}

async fn account_of(tx: &mut Tx, email: &str) -> Result<Option<Uuid>, StoreError> {
    let row = query("SELECT id FROM accounts WHERE email = $1 AND disabled_at IS NULL");
    let row = row.bind(email.to_owned()).fetch_optional(&mut **tx).await?;
    row.map(|row| row.parsed("id")).transpose()
}

/// Takes an open invitation back: its link is dead at once.
///
/// # Errors
/// [`InvitationError::Closed`] if it is not open (any more).
pub async fn withdraw(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    id: Uuid,
) -> Result<(), InvitationError> {
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::ManageMembers, Some(tenant)).await?;
    let update = query(
        "UPDATE invitations SET state = 'withdrawn' WHERE id = $1 AND tenant_id = $2 AND state = 'open' AND expires_at > $3",
    );
    let update = update.bind(id.to_string()).bind(tenant.to_string()).bind(now);
    if update.execute(&mut *tx).await?.rows_affected() != 1 {
        drop(tx);
        let found = find(&dashboard.home, tenant, id, now).await?;
        return Err(if found.is_some() { InvitationError::Closed } else { InvitationError::Missing });
    }
    audit::append(&mut tx, &Event::new(now, actor, "invitation.withdraw", id).of_tenant(tenant)).await?;
    Ok(tx.commit().await?)
}

/// At most `limit` of a tenant's invitations after the id `after`, by id; of a state if one is given.
///
/// # Errors
/// [`InvitationError::Denied`].
pub async fn list(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    state: Option<InvitationState>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Invitation>, InvitationError> {
    let now = dashboard.now();
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ManageMembers, Some(tenant)).await?;
    let rows = query(
        "SELECT * FROM invitations WHERE tenant_id = $1 AND id > $2 AND state <> 'sending' AND ($3 = '' OR \
         CASE WHEN state = 'open' AND expires_at <= $4 THEN 'expired' ELSE state END = $3) ORDER BY id LIMIT $5",
    );
    let rows = rows.bind(tenant.to_string()).bind(after.map(|id| id.to_string()).unwrap_or_default());
    let rows = rows.bind(state.map_or("", InvitationState::as_str)).bind(now).bind(limit);
    let rows = rows.fetch_all(&mut *tx).await?;
    Ok(rows.iter().map(|row| of_row(row, now)).collect::<Result<_, _>>()?)
}

/// # Errors
/// [`InvitationError::Missing`] also for another tenant's.
pub async fn read(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Uuid,
    id: Uuid,
) -> Result<Invitation, InvitationError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ManageMembers, Some(tenant)).await?;
    drop(tx);
    find(&dashboard.home, tenant, id, dashboard.now()).await?.ok_or(InvitationError::Missing)
}

async fn find(home: &Database, tenant: Uuid, id: Uuid, now: i64) -> Result<Option<Invitation>, StoreError> {
    let row = query("SELECT * FROM invitations WHERE id = $1 AND tenant_id = $2 AND state <> 'sending'");
    let row = row.bind(id.to_string()).bind(tenant.to_string()).fetch_optional(home.reader()).await?;
    row.map(|row| of_row(&row, now)).transpose()
}

fn of_row(row: &AnyRow, now: i64) -> Result<Invitation, StoreError> {
    let role = row.text("role")?;
    let (state, expires_at): (InvitationState, _) = (row.parsed("state")?, row.int("expires_at")?);
    let is_late = state == InvitationState::Open && expires_at <= now;
    Ok(Invitation {
        id: row.parsed("id")?,
        tenant: row.parsed("tenant_id")?,
        email: row.text("email")?,
        role: role.parse().map_err(|()| StoreError::Corrupt { what: "role", value: role })?,
        invited_by: row.text("invited_by")?,
        state: if is_late { InvitationState::Expired } else { state },
        created_at: row.int("created_at")?,
        expires_at,
    })
}
