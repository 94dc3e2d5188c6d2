//! The audit log: in pages, newest first, or exported as a whole.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::identity::Caller;
use super::input::{Asked, At};
use super::page::{Page, Paging};
use super::tenants::known;
use super::{Here, Problem};
use crate::dashboard::Dashboard;
use crate::dashboard::access::Actor;
use crate::dashboard::audit::{self, Entry, FindError, Wanted};

/// Entries that an export reads at once.
const EXPORTED_AT_ONCE: i64 = 500;

pub(super) fn routes() -> OpenApiRouter<Arc<Dashboard>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(export))
        .routes(routes!(list_all))
        .routes(routes!(export_all))
}

/// A change: who, what, when, from where.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({ "seq": 42, "at": 1_800_000_000, "actor": "account:0d0a5a0c-38f4-4a0e-8b7c-52c3b2f0a3a1",
    "address": "192.0.2.1", "tenantId": "5f0c3a52-6c0e-4f5c-8a53-0f3a8b0f5a11", "action": "app.update",
    "target": "9a8d2f64-1f3b-4b5e-8f11-6f6a8c1d2e3f", "detail": { "changed": ["name"] },
    "previousHash": "o1Jr…", "hash": "Zk3x…" }))]
struct AuditEntry {
    /// Its place in the chain.
    seq: i64,
    /// Unix seconds.
    at: i64,
    actor: String,
    /// Empty: none, as for the command line.
    address: String,
    /// Null: about no tenant.
    #[schema(required)]
    tenant_id: Option<Uuid>,
    /// `noun.verb`.
    action: String,
    /// The id of what was changed.
    target: String,
    #[schema(value_type = Object)]
    detail: Value,
    /// Of the entry before, in the chain of all tenants.
    previous_hash: String,
    hash: String,
}

impl From<Entry> for AuditEntry {
    fn from(entry: Entry) -> Self {
        let Entry { seq, event, previous_hash, hash } = entry;
        Self {
            seq,
            at: event.at,
            actor: event.actor,
            address: event.address,
            tenant_id: event.tenant,
            action: event.action,
            target: event.target,
            detail: event.detail,
            previous_hash,
            hash,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// At most so many, 50 if it is left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only this action (`app.create`), or all of a noun (`app`).
    action: Option<String>,
    /// Only changes by this actor, as entries name it.
    actor: Option<String>,
    /// Only changes of the thing with this id.
    target: Option<String>,
    /// Not before this time, in Unix seconds.
    since: Option<i64>,
    /// Before this time, in Unix seconds.
    until: Option<i64>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ExportQuery {
    /// `ndjson` if it is left out.
    #[param(inline)]
    format: Option<Format>,
    /// Only this action (`app.create`), or all of a noun (`app`).
    action: Option<String>,
    /// Only changes by this actor, as entries name it.
    actor: Option<String>,
    /// Only changes of the thing with this id.
    target: Option<String>,
    /// Not before this time, in Unix seconds.
    since: Option<i64>,
    /// Before this time, in Unix seconds.
    until: Option<i64>,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::dashboard) enum Format {
    Ndjson,
    Csv,
}

impl AuditQuery {
    fn wanted(&self, tenant: Option<Uuid>) -> Wanted {
        let text = |given: &Option<String>| given.clone().unwrap_or_default();
        let (action, actor, target) = (text(&self.action), text(&self.actor), text(&self.target));
        Wanted { tenant, action, actor, target, since: self.since, until: self.until }
    }
}

impl ExportQuery {
    fn wanted(self, tenant: Option<Uuid>) -> Wanted {
        let Self { action, actor, target, since, until, .. } = self;
        let text = Option::unwrap_or_default;
        Wanted { tenant, action: text(action), actor: text(actor), target: text(target), since, until }
    }
}

/// List what changed in a tenant
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/audit", tag = "audit", operation_id = "listAudit",
    params(AuditQuery),
    responses((status = 200, description = "A page of entries, newest first", body = Page<AuditEntry>)))]
async fn list(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(tenant): At<Uuid>,
    Asked(query): Asked<AuditQuery>,
    uri: Uri,
) -> Result<Response, Problem> {
    known(&dashboard, &actor, tenant).await?;
    page_of(&dashboard, &actor, Some(tenant), &query, &uri).await
}

/// List what changed anywhere
///
/// For operators.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", operation_id = "listAllAudit", params(AuditQuery),
    responses((status = 200, description = "A page of entries, newest first", body = Page<AuditEntry>)))]
async fn list_all(
    State(dashboard): Here,
    Caller(actor): Caller,
    Asked(query): Asked<AuditQuery>,
    uri: Uri,
) -> Result<Response, Problem> {
    page_of(&dashboard, &actor, None, &query, &uri).await
}

/// Export what changed in a tenant
///
/// Newest first. An export that could not be read to its end breaks off, and so does the connection.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/audit/export", tag = "audit", operation_id = "exportAudit",
    params(ExportQuery), responses((status = 200, description = "All entries",
        content((AuditEntry = "application/x-ndjson"), (String = "text/csv")))))]
async fn export(
    State(dashboard): Here,
    Caller(actor): Caller,
    At(tenant): At<Uuid>,
    Asked(query): Asked<ExportQuery>,
) -> Result<Response, Problem> {
    known(&dashboard, &actor, tenant).await?;
    let format = query.format.unwrap_or(Format::Ndjson);
    Ok(all_of(dashboard, actor, query.wanted(Some(tenant)), format).await?)
}

/// Export what changed anywhere
///
/// For operators.
#[utoipa::path(get, path = "/api/v1/audit/export", tag = "audit", operation_id = "exportAllAudit",
    params(ExportQuery), responses((status = 200, description = "All entries",
        content((AuditEntry = "application/x-ndjson"), (String = "text/csv")))))]
async fn export_all(
    State(dashboard): Here,
    Caller(actor): Caller,
    Asked(query): Asked<ExportQuery>,
) -> Result<Response, Problem> {
    let format = query.format.unwrap_or(Format::Ndjson);
    Ok(all_of(dashboard, actor, query.wanted(None), format).await?)
}

async fn page_of(
    dashboard: &Dashboard,
    actor: &Actor,
    tenant: Option<Uuid>,
    query: &AuditQuery,
    uri: &Uri,
) -> Result<Response, Problem> {
    let paging = Paging::new("audit", uri, query.limit, query.cursor.as_deref())?;
    let (wanted, before) = (query.wanted(tenant), paging.after_as()?);
    let found = audit::find(dashboard, actor, &wanted, before, paging.to_read()).await?;
    Ok(paging.render(found.into_iter().map(AuditEntry::from).collect(), |entry| entry.seq.to_string()))
}

/// A file with all that is wanted, newest first, sent while it is read.
pub(in crate::dashboard) async fn all_of(
    dashboard: Arc<Dashboard>,
    actor: Actor,
    wanted: Wanted,
    format: Format,
) -> Result<Response, FindError> {
    // The first part is read here, so that a refusal is one.
    let first = audit::find(&dashboard, &actor, &wanted, None, EXPORTED_AT_ONCE).await?;
    // One part waits while another is sent: an export takes no more memory, however long it is.
    let (parts, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut found = first;
        let mut text = format.head().to_owned();
        loop {
            let next = found.last().map(|entry| entry.seq);
            let is_last = (found.len() as i64) < EXPORTED_AT_ONCE;
            text.extend(found.into_iter().map(|entry| format.line(entry.into())));
            if parts.send(Ok(Bytes::from(std::mem::take(&mut text)))).await.is_err() || is_last {
                return;
            }
            found = match audit::find(&dashboard, &actor, &wanted, next, EXPORTED_AT_ONCE).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(%error, "an export of the audit log broke off");
                    let _ = parts.send(Err(io::Error::other(error))).await;
                    return;
                }
            };
        }
    });
    let (kind, file) = format.names();
    let head = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{file}\"")),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((head, Body::from_stream(ReceiverStream::new(receiver))).into_response())
}

impl Format {
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Ndjson => ("application/x-ndjson", "audit.ndjson"),
            Self::Csv => ("text/csv; charset=utf-8; header=present", "audit.csv"),
        }
    }

    fn head(self) -> &'static str {
        match self {
            Self::Ndjson => "",
            Self::Csv => "seq,at,actor,address,tenantId,action,target,detail,previousHash,hash\r\n",
        }
    }

    fn line(self, entry: AuditEntry) -> String {
        match self {
            Self::Ndjson => serde_json::to_string(&entry).unwrap_or_default() + "\n",
            Self::Csv => {
                let tenant = entry.tenant_id.map(|tenant| tenant.to_string()).unwrap_or_default();
                let fields = [
                    entry.seq.to_string(),
                    entry.at.to_string(),
                    entry.actor,
                    entry.address,
                    tenant,
                    entry.action,
                    entry.target,
                    entry.detail.to_string(),
                    entry.previous_hash,
                    entry.hash,
                ];
                fields.map(|field| quoted(&field)).join(",") + "\r\n"
            }
        }
    }
}

/// RFC 4180. What a spreadsheet would take for a formula gets a `'` before it.
fn quoted(field: &str) -> String {
    let is_formula = field.starts_with(['=', '+', '@', '\t', '\r'])
        || (field.starts_with('-') && field.parse::<i64>().is_err());
    let guard = if is_formula { "'" } else { "" };
    if is_formula || field.contains([',', '"', '\r', '\n']) {
        format!("\"{guard}{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_can_break_no_line_and_be_no_formula() {
        for (field, cell) in [
            ("app.create", "app.create"),
            ("{\"a\":1}", "\"{\"\"a\"\":1}\""),
            ("a,b", "\"a,b\""),
            ("=1+1", "\"'=1+1\""),
            ("-7", "-7"),
            ("-HYPERLINK", "\"'-HYPERLINK\""),
            ("", ""),
        ] {
            assert_eq!(quoted(field), cell, "{field}");
        }
    }
}
