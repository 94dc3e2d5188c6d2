//! A tenant's JWKS document (RFC 7517), as nodes and every other verifier read it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::dashboard::Dashboard;
use crate::dashboard::store::{Columns, StoreError, query};

/// A revoked key is named for this long: by then every node has heard of it, and no token signed with it is alive.
const REVOKED_NAMED_S: i64 = 30 * 86_400;

/// The document and its strong entity tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksDocument {
    pub body: String,
    /// With its quotes.
    pub etag: String,
}

/// The keys that verify (next, active, retired within its window) and those that are revoked. `None` for a tenant that
/// is unknown or was never approved.
///
/// # Errors
/// [`StoreError`].
pub async fn jwks(dashboard: &Dashboard, tenant: Uuid) -> Result<Option<JwksDocument>, StoreError> {
    let now = dashboard.now();
    let rows = query(
        "SELECT kid, state, public_jwk, gone_at, revoked_at FROM signing_keys WHERE tenant_id = $1 \
         ORDER BY created_at DESC, kid",
    );
    let rows = rows.bind(tenant.to_string()).fetch_all(dashboard.home.reader()).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let (mut keys, mut revoked) = (Vec::new(), Vec::new());
    for row in &rows {
        match row.text("state")?.as_str() {
            "next" | "active" => keys.push(public_key(row)?),
            "retired" if row.int_or_null("gone_at")?.is_some_and(|gone_at| gone_at > now) => {
                keys.push(public_key(row)?);
            }
            "revoked" if row.int_or_null("revoked_at")?.is_some_and(|at| at + REVOKED_NAMED_S > now) => {
                revoked.push(row.text("kid")?);
            }
            _ => {}
        }
    }
    let mut document = json!({ "keys": keys });
    if !revoked.is_empty() {
        document["revoked"] = revoked.into();
    }
    let body = document.to_string();
    let tag = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, body.as_bytes()));
    Ok(Some(JwksDocument { body, etag: format!("\"{}\"", &tag[..22]) }))
}

fn public_key(row: &sqlx::any::AnyRow) -> Result<Value, StoreError> {
    let text = row.text("public_jwk")?;
    serde_json::from_str(&text).map_err(|_| StoreError::Corrupt { what: "public_jwk", value: text })
}
