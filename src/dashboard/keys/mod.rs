//! Signing keys: one RSA-2048 pair per tenant at approval, rotated on a schedule or by hand.
//!
//! ```text
//! next ──(published for a cache life)──► active ──(the next one takes over)──► retired ──(window)──► gone
//!   └───────────────────────────────────────┴─────────────────────────────────────┴──► revoked
//! ```
//!
//! - A key is in the tenant's JWKS for `publish_before_s` before it signs, so that a verifier with a cached set never
//!   meets an unknown `kid`. There are two exceptions: a tenant's first key, of which nobody can have an older set, and
//!   the one that replaces a revoked key when none was waiting; verifiers then fetch the set once more.
//! - At most one key is active and one next: partial unique indexes. A key changes state by conditional updates only.
//! - The private half is sealed (`master`) and is deleted the moment that a key stops signing.
//! - A retired key verifies until the last token that it signed has expired everywhere. A revoked one is named in the
//!   document, and ends its sessions.

mod document;
mod schedule;

use serde_json::Value;
use uuid::Uuid;

use super::Dashboard;
use super::access::{Action, Actor, Denied, require};
use super::audit::{self, Event};
use super::master::OpenError;
use super::signer::SignerError;
use super::store::{Columns, StoreError, Tx, query};
use crate::auth::SigningKey;
use crate::auth::sign::SigningKeyError;

pub use document::{JwksDocument, jwks};
pub use schedule::{Upkeep, reseal, upkeep};

/// A key as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStatus {
    pub kid: String,
    /// `next`, `active`, `retired`, `revoked` or `gone`.
    pub state: String,
    pub created_at: i64,
    /// When a `next` key takes over, at the earliest.
    pub signs_at: i64,
    pub retired_at: Option<i64>,
    pub gone_at: Option<i64>,
    pub revoked_at: Option<i64>,
}

/// A rotation that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    pub kid: String,
    /// When the new key takes over.
    pub signs_at: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("could not make a key pair")]
    Generate(#[from] SigningKeyError),
    #[error("the private key {kid} does not open")]
    Sealed { kid: String, source: OpenError },
    #[error(
        "a rotation is under way already: the next key is published and will take over when every verifier has it"
    )]
    Rotating,
    #[error("there is no key {0} that could be revoked")]
    Missing(String),
    #[error("this tenant has no active key; it has not been approved")]
    NoActive,
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for KeysError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A pair that no table has yet.
#[derive(Debug)]
pub(super) struct NewPair {
    kid: String,
    public_jwk: Value,
    sealed: String,
    master_version: i64,
}

pub(super) fn purpose(tenant: Uuid, kid: &str) -> String {
    format!("signing-key/{tenant}/{kid}")
}

/// Makes a pair, on a blocking thread.
pub(super) async fn new_pair(dashboard: &Dashboard, tenant: Uuid) -> Result<NewPair, KeysError> {
    let (key, pem) = dashboard
        .signer
        .run(|| {
            let key = SigningKey::generate()?;
            let pem = key.to_pkcs8_pem()?;
            Ok::<_, SigningKeyError>((key, pem))
        })
        .await??;
    let kid = key.thumbprint();
    let sealed = dashboard.master.seal(&purpose(tenant, &kid), pem.as_bytes());
    let master_version = dashboard.master.newest();
    Ok(NewPair { public_jwk: key.public_jwk(&kid), kid, sealed, master_version })
}

/// The first key of a tenant, within the transaction of its approval.
pub(super) async fn insert_first(
    tx: &mut Tx,
    actor: &Actor,
    now: i64,
    tenant: Uuid,
    pair: &NewPair,
) -> Result<(), StoreError> {
    insert(tx, now, now, tenant, "active", pair).await?;
    let event = Event::new(now, actor, "key.create", &pair.kid).of_tenant(tenant);
    audit::append(tx, &event).await
}

/// Whether it was inserted: not when there is a key in this state already.
async fn insert(
    tx: &mut Tx,
    now: i64,
    signs_at: i64,
    tenant: Uuid,
    state: &'static str,
    pair: &NewPair,
) -> Result<bool, StoreError> {
    let insert = query(
        "INSERT INTO signing_keys (tenant_id, kid, state, public_jwk, sealed_private, master_version, created_at, \
         signs_at, activated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
    );
    let insert = insert.bind(tenant.to_string()).bind(pair.kid.clone()).bind(state);
    let insert = insert.bind(pair.public_jwk.to_string()).bind(pair.sealed.clone()).bind(pair.master_version);
    let insert = insert.bind(now).bind(signs_at).bind((state == "active").then_some(now));
    Ok(insert.execute(&mut **tx).await?.rows_affected() == 1)
}

/// Begins a rotation: publishes a new key, which takes over after `publish_before_s`.
///
/// # Errors
/// [`KeysError::Rotating`] if one is under way.
pub async fn rotate(dashboard: &Dashboard, actor: &Actor, tenant: Uuid) -> Result<Rotation, KeysError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::RotateKeys, Some(tenant)).await?;
    // Cheap to ask before a pair is made; the unique index decides.
    let active = count(&mut tx, tenant, "active").await?;
    let next = count(&mut tx, tenant, "next").await?;
    drop(tx);
    if active == 0 {
        return Err(KeysError::NoActive);
    }
    if next > 0 {
        return Err(KeysError::Rotating);
    }
    let pair = new_pair(dashboard, tenant).await?;
    let now = dashboard.now();
    let signs_at = now + dashboard.config.keys.publish_before_s;
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::RotateKeys, Some(tenant)).await?;
    if !insert(&mut tx, now, signs_at, tenant, "next", &pair).await? {
        return Err(KeysError::Rotating);
    }
    let event = Event::new(now, actor, "key.rotate", &pair.kid).of_tenant(tenant);
    audit::append(&mut tx, &event.with(serde_json::json!({ "signs_at": signs_at }))).await?;
    tx.commit().await?;
    dashboard.feed.wake();
    Ok(Rotation { kid: pair.kid, signs_at })
}

/// Takes a key back at once: every session and token signed with it ends. An active one is replaced in the same step,
/// by the next key if one is published, else by a new one.
///
/// # Errors
/// [`KeysError::Missing`] if the tenant has no such key, or it is revoked or gone.
pub async fn revoke(dashboard: &Dashboard, actor: &Actor, tenant: Uuid, kid: &str) -> Result<(), KeysError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::RevokeKeys, Some(tenant)).await?;
    drop(tx);
    // In case it is needed: nothing may take long once the transaction has begun.
    let replacement = new_pair(dashboard, tenant).await?;
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::RevokeKeys, Some(tenant)).await?;
    let set_revoked =
        |states: &'static str| query(states).bind(now).bind(tenant.to_string()).bind(kid.to_owned());
    let active = set_revoked(
        "UPDATE signing_keys SET state = 'revoked', revoked_at = $1, sealed_private = NULL \
         WHERE tenant_id = $2 AND kid = $3 AND state = 'active'",
    );
    let mut successor = None;
    if active.execute(&mut *tx).await?.rows_affected() == 1 {
        successor = activate_next(&mut tx, now, tenant).await?;
        if successor.is_none() && insert(&mut tx, now, now, tenant, "active", &replacement).await? {
            successor = Some(replacement.kid);
        }
    } else {
        let other = set_revoked(
            "UPDATE signing_keys SET state = 'revoked', revoked_at = $1, sealed_private = NULL \
             WHERE tenant_id = $2 AND kid = $3 AND state IN ('next', 'retired')",
        );
        if other.execute(&mut *tx).await?.rows_affected() != 1 {
            return Err(KeysError::Missing(kid.to_owned()));
        }
    }
    let event = Event::new(now, actor, "key.revoke", kid).of_tenant(tenant);
    audit::append(&mut tx, &event.with(serde_json::json!({ "successor": successor }))).await?;
    tx.commit().await?;
    dashboard.feed.wake();
    Ok(())
}

/// Makes the published next key the active one, whatever its time; its id, if there is one.
async fn activate_next(tx: &mut Tx, now: i64, tenant: Uuid) -> Result<Option<String>, StoreError> {
    let update = query(
        "UPDATE signing_keys SET state = 'active', activated_at = $1 \
         WHERE tenant_id = $2 AND state = 'next' RETURNING kid",
    );
    let row = update.bind(now).bind(tenant.to_string()).fetch_optional(&mut **tx).await?;
    row.map(|row| row.text("kid")).transpose()
}

async fn count(tx: &mut Tx, tenant: Uuid, state: &'static str) -> Result<i64, StoreError> {
    let row = query("SELECT COUNT(*) AS found FROM signing_keys WHERE tenant_id = $1 AND state = $2")
        .bind(tenant.to_string())
        .bind(state)
        .fetch_one(&mut **tx)
        .await?;
    row.int("found")
}

/// A tenant's keys, newest first.
///
/// # Errors
/// [`KeysError`].
pub async fn list(dashboard: &Dashboard, actor: &Actor, tenant: Uuid) -> Result<Vec<KeyStatus>, KeysError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ReadKeys, Some(tenant)).await?;
    let rows = query(
        "SELECT kid, state, created_at, signs_at, retired_at, gone_at, revoked_at FROM signing_keys \
         WHERE tenant_id = $1 ORDER BY created_at DESC, kid",
    );
    let rows = rows.bind(tenant.to_string()).fetch_all(&mut *tx).await?;
    let each = |row: &sqlx::any::AnyRow| {
        Ok(KeyStatus {
            kid: row.text("kid")?,
            state: row.text("state")?,
            created_at: row.int("created_at")?,
            signs_at: row.int("signs_at")?,
            retired_at: row.int_or_null("retired_at")?,
            gone_at: row.int_or_null("gone_at")?,
            revoked_at: row.int_or_null("revoked_at")?,
        })
    };
    rows.iter().map(each).collect()
}

/// The key that signs now: its id and its sealed private half.
pub(super) async fn active(dashboard: &Dashboard, tenant: Uuid) -> Result<(String, String), KeysError> {
    let row = query("SELECT kid, sealed_private FROM signing_keys WHERE tenant_id = $1 AND state = 'active'")
        .bind(tenant.to_string())
        .fetch_optional(dashboard.home.reader())
        .await?
        .ok_or(KeysError::NoActive)?;
    Ok((row.text("kid")?, row.text("sealed_private")?))
}

/// The private key, opened on a blocking thread: taking one apart costs more than a signature.
pub(super) async fn unseal(
    dashboard: &Dashboard,
    tenant: Uuid,
    kid: &str,
    sealed: &str,
) -> Result<SigningKey, KeysError> {
    let failed = |source| KeysError::Sealed { kid: kid.to_owned(), source };
    let pem = dashboard.master.open(&purpose(tenant, kid), sealed).map_err(failed)?;
    let pem = String::from_utf8(pem).map_err(|_| failed(OpenError::Form))?;
    Ok(dashboard.signer.run(move || SigningKey::from_pem(&pem)).await??)
}
