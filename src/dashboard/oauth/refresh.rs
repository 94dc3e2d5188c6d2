//! Refresh tokens: one use each, in families whose members all die when a spent one is used again.
//!
//! Everything here is in the region of the app. Rows are always locked in the order app, family, token: so that a secret
//! that is regenerated at the same moment either sees the new token and kills it, or makes its issuer find the app
//! changed.

use uuid::Uuid;

use super::error::OAuthError;
use crate::dashboard::access::Actor;
use crate::dashboard::apps::{App, database_of};
use crate::dashboard::audit::{self, Event};
use crate::dashboard::region::LicenseRegion;
use crate::dashboard::store::{Columns, Database, StoreError, Tx, query};
use crate::dashboard::tokens::Access;
use crate::dashboard::{Dashboard, random};

const PREFIX: &str = "wsr_";

/// A valid refresh token that has not been spent yet.
#[derive(Debug)]
pub(in crate::dashboard) struct Refresh {
    family: Uuid,
    hash: String,
    pub app: Uuid,
    pub access: Access,
    pub expires_at: i64,
}

fn new_token(region: LicenseRegion) -> String {
    random::secret(&format!("{PREFIX}{}_", region.tag()))
}

/// Whether it looks like one.
pub(super) fn is_refresh_token(token: &str) -> bool {
    token.starts_with(PREFIX)
}

/// The database that a refresh token names.
pub(super) fn database_of_token<'a>(dashboard: &'a Dashboard, token: &str) -> Option<&'a Database> {
    let region = LicenseRegion::of_tagged(token.strip_prefix(PREFIX)?, '_')?;
    dashboard.region(region)
}

/// The first token of a new family, for an app whose secret is still the one that was checked.
pub(super) async fn begin_family(
    dashboard: &Dashboard,
    app: &App,
    access: &Access,
) -> Result<String, OAuthError> {
    let (family, now) = (random::guid(), dashboard.now());
    let mut tx = database_of(dashboard, app)?.begin().await?;
    let hold = query(
        "UPDATE apps SET version = version WHERE id = $1 AND secret_version = $2 AND deleted_at IS NULL",
    );
    let held = hold.bind(app.id.to_string()).bind(app.secret_version).execute(&mut *tx).await?;
    if held.rows_affected() != 1 {
        return Err(OAuthError::invalid_client());
    }
    let insert = query(
        "INSERT INTO refresh_families (id, app_id, scope, documents, created_at, last_used_at) \
         VALUES ($1, $2, $3, $4, $5, $5)",
    );
    let insert = insert.bind(family.to_string()).bind(app.id.to_string()).bind(access.scope.clone());
    insert.bind(access.documents.clone()).bind(now).execute(&mut *tx).await?;
    let token = insert_token(dashboard, &mut tx, app.region, family, now).await?;
    tx.commit().await?;
    Ok(token)
}

async fn insert_token(
    dashboard: &Dashboard,
    tx: &mut Tx,
    region: LicenseRegion,
    family: Uuid,
    now: i64,
) -> Result<String, StoreError> {
    let token = new_token(region);
    let insert = query(
        "INSERT INTO refresh_tokens (token_hash, family_id, issued_at, expires_at) VALUES ($1, $2, $3, $4)",
    );
    let insert = insert.bind(random::fingerprint(&token)).bind(family.to_string()).bind(now);
    insert.bind(now + dashboard.config.tokens.refresh_token_s).execute(&mut **tx).await?;
    Ok(token)
}

/// What a token is, as long as it can still be used. A look only: [`spend`] decides.
pub(super) async fn look(
    dashboard: &Dashboard,
    database: &Database,
    token: &str,
) -> Result<Option<Refresh>, StoreError> {
    let hash = random::fingerprint(token);
    let row = query(
        "SELECT t.family_id, t.expires_at, f.app_id, f.scope, f.documents FROM refresh_tokens t \
         JOIN refresh_families f ON f.id = t.family_id \
         WHERE t.token_hash = $1 AND t.expires_at > $2 AND f.revoked_at IS NULL",
    );
    let row = row.bind(hash.clone()).bind(dashboard.now()).fetch_optional(database.reader()).await?;
    let refresh = |row: &sqlx::any::AnyRow| {
        Ok(Refresh {
            family: row.parsed("family_id")?,
            app: row.parsed("app_id")?,
            access: Access { scope: row.text("scope")?, documents: row.text_or_null("documents")? },
            expires_at: row.int("expires_at")?,
            hash,
        })
    };
    row.as_ref().map(refresh).transpose()
}

/// Whether the token has been used already.
pub(super) async fn is_spent(database: &Database, refresh: &Refresh) -> Result<bool, StoreError> {
    let row = query("SELECT spent_at FROM refresh_tokens WHERE token_hash = $1").bind(refresh.hash.clone());
    let row = row.fetch_optional(database.reader()).await?;
    Ok(row.map(|row| row.int_or_null("spent_at")).transpose()?.flatten().is_some())
}

/// Spends the token for the next one of its family. Of those who try at once one gets it; whoever comes second, then or
/// later, ends the family: one of the two has stolen it, and nobody can tell which.
pub(super) async fn spend(
    dashboard: &Dashboard,
    actor: &Actor,
    app: &App,
    refresh: &Refresh,
) -> Result<String, OAuthError> {
    let (database, now) = (database_of(dashboard, app)?, dashboard.now());
    let mut tx = database.begin().await?;
    let touch = query("UPDATE refresh_families SET last_used_at = $1 WHERE id = $2 AND revoked_at IS NULL");
    let touched = touch.bind(now).bind(refresh.family.to_string()).execute(&mut *tx).await?;
    if touched.rows_affected() != 1 {
        return Err(OAuthError::invalid_grant(
            "this refresh token was revoked; get a new one with the client secret",
        ));
    }
    let spend = query("UPDATE refresh_tokens SET spent_at = $1 WHERE token_hash = $2 AND spent_at IS NULL");
    let spent = spend.bind(now).bind(refresh.hash.clone()).execute(&mut *tx).await?;
    if spent.rows_affected() == 1 {
        let token = insert_token(dashboard, &mut tx, app.region, refresh.family, now).await?;
        tx.commit().await?;
        return Ok(token);
    }
    revoke(&mut tx, refresh.family, now, "used twice").await?;
    let event = Event::new(now, actor, "refresh_token.reuse", refresh.family).of_tenant(app.tenant);
    audit::enqueue(&mut tx, &event.with(serde_json::json!({ "app": app.id }))).await?;
    tx.commit().await?;
    audit::deliver(database, &dashboard.home).await?;
    let description = "this refresh token was used before, so somebody else may have it: all tokens that came of it are \
                       revoked. Get a new one with the client secret";
    Err(OAuthError::invalid_grant(description))
}

async fn revoke(tx: &mut Tx, family: Uuid, now: i64, because: &'static str) -> Result<bool, StoreError> {
    let update = query(
        "UPDATE refresh_families SET revoked_at = $1, revoked_because = $2 WHERE id = $3 AND revoked_at IS NULL",
    );
    let updated = update.bind(now).bind(because).bind(family.to_string()).execute(&mut **tx).await?;
    Ok(updated.rows_affected() == 1)
}

/// Revokes the token's whole family, as its client asks for (RFC 7009 section 2.1).
pub(super) async fn revoke_family(
    dashboard: &Dashboard,
    actor: &Actor,
    app: &App,
    refresh: &Refresh,
) -> Result<(), StoreError> {
    let (database, now) = (database_of(dashboard, app)?, dashboard.now());
    let mut tx = database.begin().await?;
    if revoke(&mut tx, refresh.family, now, "revoked by the client").await? {
        let event = Event::new(now, actor, "refresh_token.revoke", refresh.family).of_tenant(app.tenant);
        audit::enqueue(&mut tx, &event.with(serde_json::json!({ "app": app.id }))).await?;
    }
    tx.commit().await?;
    audit::deliver(database, &dashboard.home).await
}

/// Deletes what has expired, in every region; how many tokens.
///
/// # Errors
/// [`StoreError`].
pub(in crate::dashboard) async fn forget_expired(dashboard: &Dashboard) -> Result<u64, StoreError> {
    let mut forgotten = 0;
    for database in dashboard.region_databases() {
        let mut tx = database.begin().await?;
        let delete = query("DELETE FROM refresh_tokens WHERE expires_at <= $1").bind(dashboard.now());
        forgotten += delete.execute(&mut *tx).await?.rows_affected();
        query(
            "DELETE FROM refresh_families WHERE last_used_at <= $1 \
             AND NOT EXISTS (SELECT 1 FROM refresh_tokens t WHERE t.family_id = refresh_families.id)",
        )
        .bind(dashboard.now() - dashboard.config.tokens.refresh_token_s)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
    }
    Ok(forgotten)
}
