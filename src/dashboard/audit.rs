//! The audit log: every change, who made it, when and from where; append-only and hash-chained.
//!
//! - An entry is written in the transaction of the change that it is about: [`append`] in the home database, [`enqueue`]
//!   in a region's, whose outbox [`deliver`] empties into the chain, each event exactly once.
//! - Each entry holds the SHA-256 of the one before, so that one changed, left out or moved breaks the chain at that
//!   place; [`verify`] finds it. (Cutting the newest entries off is found by comparing the last hash with one noted
//!   elsewhere.)
//! - Details name things by id and say which fields changed, never an app's metadata, which stays in its region, and
//!   never a secret.

mod find;

use serde_json::{Value, json};
use sqlx::any::AnyRow;
use uuid::Uuid;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;

use super::access::Actor;
use super::random;
use super::store::{Columns, Database, StoreError, Tx, query};

pub use find::{FindError, Wanted, find};

/// Entries of an outbox that one call of [`deliver`] takes along at once.
const DELIVERED_MAX: i64 = 500;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: Uuid,
    pub at: i64,
    pub actor: String,
    pub address: String,
    pub tenant: Option<Uuid>,
    /// `noun.verb`, such as `app.create`.
    pub action: String,
    /// The id of what was changed.
    pub target: String,
    pub detail: Value,
}

impl Event {
    #[must_use]
    pub fn new(at: i64, actor: &Actor, action: &str, target: impl ToString) -> Self {
        Self {
            id: random::guid(),
            at,
            actor: actor.name(),
            address: actor.address.map(|ip| ip.to_string()).unwrap_or_default(),
            tenant: None,
            action: action.to_owned(),
            target: target.to_string(),
            detail: json!({}),
        }
    }

    #[must_use]
    pub fn of_tenant(mut self, tenant: Uuid) -> Self {
        self.tenant = Some(tenant);
        self
    }

    #[must_use]
    pub fn with(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    fn of_row(row: &AnyRow) -> Result<Self, StoreError> {
        let detail = row.text("detail")?;
        let tenant = row.text("tenant_id")?;
        Ok(Self {
            id: row.parsed("event_id")?,
            at: row.int("at")?,
            actor: row.text("actor")?,
            address: row.text("address")?,
            tenant: if tenant.is_empty() { None } else { Some(row.parsed("tenant_id")?) },
            action: row.text("action")?,
            target: row.text("target")?,
            detail: serde_json::from_str(&detail)
                .map_err(|_| StoreError::Corrupt { what: "audit detail", value: detail })?,
        })
    }

    fn tenant_text(&self) -> String {
        self.tenant.map(|tenant| tenant.to_string()).unwrap_or_default()
    }

    /// The hash that chains this event to the one before. A JSON array keeps its fields apart.
    fn hash(&self, seq: i64, previous: &str) -> String {
        let fields = json!([
            previous,
            seq,
            self.id,
            self.at,
            self.actor,
            self.address,
            self.tenant_text(),
            self.action,
            self.target,
            self.detail.to_string(),
        ]);
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, fields.to_string().as_bytes()))
    }
}

/// An event in its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub seq: i64,
    pub event: Event,
    pub previous_hash: String,
    pub hash: String,
}

impl Entry {
    fn of_row(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            seq: row.int("seq")?,
            event: Event::of_row(row)?,
            previous_hash: row.text("previous_hash")?,
            hash: row.text("hash")?,
        })
    }
}

/// Adds an entry to the chain, in the home database's transaction of the change.
///
/// # Errors
/// [`StoreError`].
pub async fn append(tx: &mut Tx, event: &Event) -> Result<(), StoreError> {
    // The update takes the row's lock until the commit: appends are one after the other, and so are their hashes.
    let head = query("UPDATE audit_head SET seq = seq + 1 WHERE id = 1 RETURNING seq, hash")
        .fetch_one(&mut **tx)
        .await?;
    let (seq, previous) = (head.int("seq")?, head.text("hash")?);
    let hash = event.hash(seq, &previous);
    let insert = query(
        "INSERT INTO audit_log (seq, event_id, at, actor, address, tenant_id, action, target, detail, previous_hash, hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    );
    let insert = insert.bind(seq).bind(event.id.to_string()).bind(event.at).bind(event.actor.clone());
    let insert = insert.bind(event.address.clone()).bind(event.tenant_text()).bind(event.action.clone());
    let insert = insert.bind(event.target.clone()).bind(event.detail.to_string());
    insert.bind(previous).bind(hash.clone()).execute(&mut **tx).await?;
    query("UPDATE audit_head SET hash = $1 WHERE id = 1").bind(hash).execute(&mut **tx).await?;
    Ok(())
}

/// Puts an event into a region's outbox, in the region's transaction of the change.
///
/// # Errors
/// [`StoreError`].
pub async fn enqueue(tx: &mut Tx, event: &Event) -> Result<(), StoreError> {
    let insert = query(
        "INSERT INTO audit_outbox (event_id, at, actor, address, tenant_id, action, target, detail) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    );
    let insert = insert.bind(event.id.to_string()).bind(event.at).bind(event.actor.clone());
    let insert = insert.bind(event.address.clone()).bind(event.tenant_text()).bind(event.action.clone());
    insert.bind(event.target.clone()).bind(event.detail.to_string()).execute(&mut **tx).await?;
    Ok(())
}

/// Empties a region's outbox into the chain. Safe to repeat, to interrupt, and to run twice at once: an event that is in
/// the chain already is only taken out of the outbox.
///
/// # Errors
/// [`StoreError`]; what was not delivered stays for the next call.
pub async fn deliver(region: &Database, home: &Database) -> Result<(), StoreError> {
    loop {
        let rows = query("SELECT * FROM audit_outbox ORDER BY at, event_id LIMIT $1")
            .bind(DELIVERED_MAX)
            .fetch_all(region.reader())
            .await?;
        if rows.is_empty() {
            return Ok(());
        }
        for row in &rows {
            let event = Event::of_row(row)?;
            let mut tx = home.begin().await?;
            // Under the lock of the chain's end nobody else can be adding the same event.
            query("UPDATE audit_head SET seq = seq WHERE id = 1").execute(&mut *tx).await?;
            let known = query("SELECT seq FROM audit_log WHERE event_id = $1")
                .bind(event.id.to_string())
                .fetch_optional(&mut *tx)
                .await?;
            if known.is_none() {
                append(&mut tx, &event).await?;
                tx.commit().await?;
            } else {
                drop(tx);
            }
            let mut tx = region.begin().await?;
            query("DELETE FROM audit_outbox WHERE event_id = $1")
                .bind(event.id.to_string())
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
        }
    }
}

/// Where the chain is broken.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("entry {seq} of the audit log {reason}")]
    At { seq: i64, reason: &'static str },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Walks the whole chain; the number of entries and the last hash, to be noted elsewhere.
///
/// # Errors
/// [`Broken`] at the first entry that is not what was written.
pub async fn verify(home: &Database) -> Result<(i64, String), Broken> {
    // What is appended while this walks is left for the next time.
    let head = query("SELECT seq, hash FROM audit_head WHERE id = 1").fetch_one(home.reader()).await;
    let head = head.map_err(StoreError::from)?;
    let (last_seq, last_hash) = (head.int("seq")?, head.text("hash")?);
    let (mut seq, mut previous) = (0, String::new());
    while seq < last_seq {
        let page = entries(home, seq, (last_seq - seq).min(1000), None).await?;
        for entry in &page {
            let reason = if entry.seq != seq + 1 {
                Some("does not follow the one before: entries are missing")
            } else if entry.previous_hash != previous {
                Some("does not hold the hash of the one before")
            } else if entry.event.hash(entry.seq, &previous) != entry.hash {
                Some("was changed: its hash is not that of its content")
            } else {
                None
            };
            if let Some(reason) = reason {
                return Err(Broken::At { seq: seq + 1, reason });
            }
            (seq, previous) = (entry.seq, entry.hash.clone());
        }
        if page.is_empty() {
            break;
        }
    }
    if seq != last_seq || last_hash != previous {
        return Err(Broken::At { seq: seq + 1, reason: "is missing: the log is shorter than it was" });
    }
    Ok((seq, previous))
}

/// At most `limit` entries after `after`, oldest first; of one tenant if it is named.
///
/// # Errors
/// [`StoreError`].
pub async fn entries(
    home: &Database,
    after: i64,
    limit: i64,
    tenant: Option<Uuid>,
) -> Result<Vec<Entry>, StoreError> {
    let rows = match tenant {
        None => query("SELECT * FROM audit_log WHERE seq > $1 ORDER BY seq LIMIT $2").bind(after).bind(limit),
        Some(tenant) => {
            query("SELECT * FROM audit_log WHERE seq > $1 AND tenant_id = $3 ORDER BY seq LIMIT $2")
                .bind(after)
                .bind(limit)
                .bind(tenant.to_string())
        }
    };
    rows.fetch_all(home.reader()).await?.iter().map(Entry::of_row).collect()
}
