//! Idempotency keys: the answer to a request that changed something, kept for 24 hours, so that the same request sent
//! again changes nothing and is answered the same.
//!
//! - A key belongs to one actor. The row is inserted before the request is carried out: of many at once, one goes on.
//! - Only answers of success stay. A request that failed changed nothing, and its key is free again.
//! - An answer may hold a secret that is shown once: it is sealed under the master key.
//! - If the process ends in between, nobody knows whether the request took effect; its key is never carried out again.

use super::Dashboard;
use super::random;
use super::store::{Columns, StoreError, query};

const KEPT_S: i64 = 24 * 3600;

/// An answer as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// What a key says of a request.
pub(super) enum Claim {
    /// Not seen before: carry it out, then [`keep`] or [`release`].
    Mine,
    /// Carried out before.
    Again(Kept),
    /// The key was used for another request.
    Differs,
    /// Being carried out, or of unknown outcome.
    Running,
}

/// A key in the hands of an actor.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub actor: String,
    pub text: String,
}

impl Key {
    fn purpose(&self) -> String {
        format!("idempotency/{}/{}", self.actor, self.text)
    }
}

/// Takes the key for a request, if nobody had it. `request` is what must be the same the next time.
pub(super) async fn claim(dashboard: &Dashboard, key: &Key, request: &str) -> Result<Claim, StoreError> {
    let now = dashboard.now();
    let hash = random::fingerprint(request);
    let mut tx = dashboard.home.begin().await?;
    query("DELETE FROM idempotency_keys WHERE created_at <= $1").bind(now - KEPT_S).execute(&mut *tx).await?;
    let insert = query(
        "INSERT INTO idempotency_keys (actor, idempotency_key, request_hash, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (actor, idempotency_key) DO NOTHING",
    );
    let insert = insert.bind(key.actor.clone()).bind(key.text.clone()).bind(hash.clone()).bind(now);
    let is_new = insert.execute(&mut *tx).await?.rows_affected() == 1;
    if is_new {
        tx.commit().await?;
        return Ok(Claim::Mine);
    }
    let row = query("SELECT * FROM idempotency_keys WHERE actor = $1 AND idempotency_key = $2");
    let row = row.bind(key.actor.clone()).bind(key.text.clone()).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    if row.text("request_hash")? != hash {
        return Ok(Claim::Differs);
    }
    let Some(status) = row.int_or_null("status")? else { return Ok(Claim::Running) };
    let headers = row.text("headers")?;
    let sealed = row.text("sealed_body")?;
    // A master key that was taken away since: what was answered can't be told any more.
    let Ok(body) = dashboard.master.open(&key.purpose(), &sealed) else { return Ok(Claim::Running) };
    let corrupt = |what, value: &str| StoreError::Corrupt { what, value: value.to_owned() };
    Ok(Claim::Again(Kept {
        status: u16::try_from(status).map_err(|_| corrupt("status", &status.to_string()))?,
        headers: serde_json::from_str(&headers).map_err(|_| corrupt("headers", &headers))?,
        body,
    }))
}

/// Keeps the answer to a request that succeeded.
pub(super) async fn keep(dashboard: &Dashboard, key: &Key, answer: &Kept) -> Result<(), StoreError> {
    let sealed = dashboard.master.seal(&key.purpose(), &answer.body);
    let headers = serde_json::json!(answer.headers).to_string();
    let mut tx = dashboard.home.begin().await?;
    let update = query(
        "UPDATE idempotency_keys SET status = $1, headers = $2, sealed_body = $3 \
         WHERE actor = $4 AND idempotency_key = $5",
    );
    let update = update.bind(i64::from(answer.status)).bind(headers).bind(sealed);
    update.bind(key.actor.clone()).bind(key.text.clone()).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}

/// Frees the key of a request that changed nothing.
pub(super) async fn release(dashboard: &Dashboard, key: &Key) -> Result<(), StoreError> {
    let mut tx = dashboard.home.begin().await?;
    let delete = query("DELETE FROM idempotency_keys WHERE actor = $1 AND idempotency_key = $2");
    delete.bind(key.actor.clone()).bind(key.text.clone()).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}
