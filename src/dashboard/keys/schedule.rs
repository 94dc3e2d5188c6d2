//! What happens to keys by themselves, as time goes on: rotation, take-over, going; and resealing under a new master key.

use serde_json::json;
use uuid::Uuid;

use super::{KeysError, activate_next, purpose, rotate};
use crate::dashboard::Dashboard;
use crate::dashboard::access::{Action, Actor, require};
use crate::dashboard::audit::{self, Event};
use crate::dashboard::store::{Columns, StoreError, query};
use crate::dashboard::totp;

/// What one pass of [`upkeep`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Upkeep {
    /// New keys published.
    pub begun: u32,
    /// Keys that took over.
    pub taken_over: u32,
    /// Retired keys whose window is over.
    pub gone: u64,
}

/// Does whatever is due. Safe to repeat, and to run on several dashboards at once.
///
/// # Errors
/// The first [`KeysError`]. One tenant's trouble holds up no other's keys.
pub async fn upkeep(dashboard: &Dashboard) -> Result<Upkeep, KeysError> {
    let (mut done, mut first_error) = (Upkeep::default(), None);
    for tenant in due_for_rotation(dashboard).await? {
        match rotate(dashboard, &Actor::system(), tenant).await {
            Ok(_) => done.begun += 1,
            Err(KeysError::Rotating) => {}
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    for tenant in due_for_take_over(dashboard).await? {
        match take_over(dashboard, tenant).await {
            Ok(taken_over) => done.taken_over += u32::from(taken_over),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    done.gone = let_go(dashboard).await?;
    if done != Upkeep::default() {
        dashboard.feed.wake();
    }
    first_error.map_or(Ok(done), Err)
}

/// Retired keys whose window is over leave the key sets.
async fn let_go(dashboard: &Dashboard) -> Result<u64, StoreError> {
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    let update = query(
        "UPDATE signing_keys SET state = 'gone' WHERE state = 'retired' AND gone_at <= $1 RETURNING tenant_id, kid",
    );
    let gone = update.bind(now).fetch_all(&mut *tx).await?;
    for row in &gone {
        let event = Event::new(now, &Actor::system(), "key.go", row.text("kid")?);
        audit::append(&mut tx, &event.of_tenant(row.parsed("tenant_id")?)).await?;
    }
    tx.commit().await?;
    Ok(gone.len() as u64)
}

/// Tenants whose active key has signed for long enough, so early that its successor is published in time.
async fn due_for_rotation(dashboard: &Dashboard) -> Result<Vec<Uuid>, StoreError> {
    let keys = dashboard.config.keys;
    if keys.rotate_every_s == 0 {
        return Ok(Vec::new());
    }
    let activated_before = dashboard.now() - (keys.rotate_every_s - keys.publish_before_s).max(1);
    let rows = query(
        "SELECT tenant_id FROM signing_keys a WHERE state = 'active' AND activated_at <= $1 \
         AND NOT EXISTS (SELECT 1 FROM signing_keys n WHERE n.tenant_id = a.tenant_id AND n.state = 'next')",
    );
    let rows = rows.bind(activated_before).fetch_all(dashboard.home.reader()).await?;
    rows.iter().map(|row| row.parsed("tenant_id")).collect()
}

async fn due_for_take_over(dashboard: &Dashboard) -> Result<Vec<Uuid>, StoreError> {
    let rows = query("SELECT tenant_id FROM signing_keys WHERE state = 'next' AND signs_at <= $1");
    let rows = rows.bind(dashboard.now()).fetch_all(dashboard.home.reader()).await?;
    rows.iter().map(|row| row.parsed("tenant_id")).collect()
}

/// The next key becomes the active one, the active one retires and loses its private half. Both or neither, once.
async fn take_over(dashboard: &Dashboard, tenant: Uuid) -> Result<bool, KeysError> {
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    let retire = query(
        "UPDATE signing_keys SET state = 'retired', retired_at = $1, gone_at = $2, sealed_private = NULL \
         WHERE tenant_id = $3 AND state = 'active' RETURNING kid",
    );
    let retire = retire.bind(now).bind(now + dashboard.config.retired_key_s()).bind(tenant.to_string());
    let Some(retired) = retire.fetch_optional(&mut *tx).await? else { return Ok(false) };
    let Some(kid) = activate_next(&mut tx, now, tenant).await? else { return Ok(false) };
    let event = Event::new(now, &Actor::system(), "key.take_over", kid).of_tenant(tenant);
    audit::append(&mut tx, &event.with(json!({ "retired": retired.text("kid")? }))).await?;
    tx.commit().await?;
    Ok(true)
}

/// Seals every private key and TOTP secret anew under the newest master key; how many were not yet. Signing goes on meanwhile.
///
/// # Errors
/// [`KeysError::Sealed`] if a key does not open: the master key that it is sealed with must still be configured.
pub async fn reseal(dashboard: &Dashboard, actor: &Actor) -> Result<u32, KeysError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::RotateMasterKey, None).await?;
    drop(tx);
    let newest = dashboard.master.newest();
    let rows = query(
        "SELECT tenant_id, kid, sealed_private FROM signing_keys \
         WHERE sealed_private IS NOT NULL AND master_version <> $1",
    );
    let rows = rows.bind(newest).fetch_all(dashboard.home.reader()).await?;
    let mut resealed = 0;
    for row in &rows {
        let (tenant, kid): (Uuid, String) = (row.parsed("tenant_id")?, row.text("kid")?);
        let (old, purpose) = (row.text("sealed_private")?, purpose(tenant, &kid));
        let plain = dashboard.master.open(&purpose, &old);
        let plain = plain.map_err(|source| KeysError::Sealed { kid: kid.clone(), source })?;
        let mut tx = dashboard.home.begin().await?;
        // Only in place of what was opened: a key that retired meanwhile stays without its private half.
        let update = query(
            "UPDATE signing_keys SET sealed_private = $1, master_version = $2 \
             WHERE tenant_id = $3 AND kid = $4 AND sealed_private = $5",
        );
        let update = update.bind(dashboard.master.seal(&purpose, &plain)).bind(newest);
        let update = update.bind(tenant.to_string()).bind(kid).bind(old);
        resealed += u32::from(update.execute(&mut *tx).await?.rows_affected() == 1);
        tx.commit().await?;
    }
    resealed += totp::reseal(dashboard).await?;
    if resealed > 0 {
        let mut tx = dashboard.home.begin().await?;
        let event = Event::new(dashboard.now(), actor, "master_key.reseal", newest);
        audit::append(&mut tx, &event.with(json!({ "keys": resealed }))).await?;
        tx.commit().await?;
    }
    Ok(resealed)
}
