//! The audit log: of a tenant, and of the whole platform.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::failure::Failure;
use super::form::Fields;
use super::page::{Place, Shell, page_with};
use super::text::{Moment, day_start};
use super::visit::{Member, Path, Query};
use crate::dashboard::audit::{self, Entry, Wanted};
use crate::dashboard::http::api::audit::{Format, all_of};
use crate::dashboard::{accounts, members};

const PAGE_ROWS: i64 = 50;
const DAY_S: i64 = 86_400;

/// What the filter's form holds.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    actor: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    until: String,
    before: Option<i64>,
    /// Of an export: `csv`, else JSON lines.
    #[serde(default)]
    format: String,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage<'a> {
    shell: Shell,
    /// The page's own address.
    here: String,
    form: &'a Fields,
    rows: Vec<Row>,
    /// The last number of the page, if there are older entries.
    older: Option<i64>,
    is_filtered: bool,
    is_newest: bool,
}

struct Row {
    seq: i64,
    at: Moment,
    who: String,
    action: String,
    target: String,
    address: String,
    detail: String,
}

impl Asked {
    fn form(&self) -> Fields {
        let mut form = Fields::default();
        let fields =
            [("actor", &self.actor), ("action", &self.action), ("from", &self.from), ("until", &self.until)];
        for (name, value) in fields {
            form.set(name, value.trim());
        }
        form
    }

    fn is_filtered(&self) -> bool {
        [&self.actor, &self.action, &self.from, &self.until].iter().any(|text| !text.trim().is_empty())
    }

    /// What is looked for; what can't be understood stands beside its field.
    async fn wanted(
        &self,
        member: &Member,
        tenant: Option<Uuid>,
        form: &mut Fields,
    ) -> Result<Wanted, Failure> {
        let mut day = |name: &'static str, text: &str, add: i64| {
            let day = day_start(text.trim());
            if day.is_none() && !text.trim().is_empty() {
                form.wrong(name, "write a date such as 2026-11-22");
            }
            day.map(|day| day + add)
        };
        let since = day("from", &self.from, 0);
        // The whole of the last day.
        let until = day("until", &self.until, DAY_S);
        let mut actor = self.actor.trim().to_owned();
        if actor.contains('@')
            && let Some(account) = accounts::by_email(member.dashboard(), &actor).await?
        {
            actor = format!("account:{}", account.id);
        }
        let action = self.action.trim().to_owned();
        Ok(Wanted { tenant, actor, action, since, until, ..Wanted::default() })
    }
}

pub(super) async fn of_tenant(
    member: Member,
    Path(tenant): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let shell = member.shell("audit").within(&place);
    show(&member, shell, place.at("audit"), Some(&place), asked).await
}

pub(super) async fn of_platform(member: Member, Query(asked): Query<Asked>) -> Result<Response, Failure> {
    let shell = member.shell("operator-audit");
    show(&member, shell, "/operator/audit".to_owned(), None, asked).await
}

async fn show(
    member: &Member,
    shell: Shell,
    here: String,
    place: Option<&Place>,
    asked: Asked,
) -> Result<Response, Failure> {
    let tenant = place.map(|place| place.tenant.id);
    let mut form = asked.form();
    let wanted = asked.wanted(member, tenant, &mut form).await?;
    // Whether the member may look is asked even if there is nothing to look for.
    let limit = if form.is_good() { PAGE_ROWS + 1 } else { 0 };
    let mut entries = audit::find(member.dashboard(), &member.actor(), &wanted, asked.before, limit).await?;
    let has_more = entries.len() > usize::try_from(PAGE_ROWS).unwrap_or(usize::MAX);
    if has_more {
        entries.pop();
    }
    let older = entries.last().map(|entry| entry.seq).filter(|_| has_more);
    let names = names(member, &entries, tenant).await?;
    let rows = entries.into_iter().map(|entry| row(entry, &names)).collect();
    let (is_filtered, is_newest) = (asked.is_filtered(), asked.before.is_none());
    let status = if form.is_good() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    Ok(page_with(status, &AuditPage { shell, here, form: &form, rows, older, is_filtered, is_newest }))
}

/// E-mail addresses for the accounts that act here. A tenant sees those of its members only.
async fn names(
    member: &Member,
    entries: &[Entry],
    tenant: Option<Uuid>,
) -> Result<BTreeMap<String, String>, Failure> {
    let dashboard = member.dashboard();
    let mut names = BTreeMap::new();
    if let Some(tenant) = tenant {
        for member in members::list(dashboard, &member.actor(), tenant).await? {
            names.insert(format!("account:{}", member.account), member.email);
        }
        return Ok(names);
    }
    for entry in entries {
        let actor = &entry.event.actor;
        let Some(Ok(account)) = actor.strip_prefix("account:").map(str::parse::<Uuid>) else { continue };
        if !names.contains_key(actor)
            && let Some(email) = accounts::email_of(dashboard, account).await?
        {
            names.insert(actor.clone(), email);
        }
    }
    Ok(names)
}

fn row(entry: Entry, names: &BTreeMap<String, String>) -> Row {
    let event = entry.event;
    let who = match names.get(&event.actor) {
        Some(email) => email.clone(),
        None => match event.actor.split_once(':') {
            Some((kind, id)) => format!("{kind} {}", id.get(..8).unwrap_or(id)),
            None => event.actor.replace('-', " "),
        },
    };
    Row {
        seq: entry.seq,
        at: Moment(event.at),
        who,
        action: event.action,
        target: event.target,
        address: event.address,
        detail: detail(&event.detail),
    }
}

/// `role: admin, changed: name`, rather than JSON.
fn detail(detail: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(" "),
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    };
    let Some(fields) = detail.as_object() else { return detail.to_string() };
    let shown = |name: &str, value: &Value| match value.as_i64() {
        Some(at) if name.ends_with("_at") => Moment(at).shown(),
        _ => text(value),
    };
    fields
        .iter()
        .map(|(name, value)| format!("{name}: {}", shown(name, value)))
        .collect::<Vec<_>>()
        .join(", ")
}

pub(super) async fn export_of_tenant(
    member: Member,
    Path(tenant): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    export(&member, Some(place.tenant.id), asked).await
}

pub(super) async fn export_of_platform(
    member: Member,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    export(&member, None, asked).await
}

/// The same file that the API exports.
async fn export(member: &Member, tenant: Option<Uuid>, asked: Asked) -> Result<Response, Failure> {
    let mut form = asked.form();
    let wanted = asked.wanted(member, tenant, &mut form).await?;
    if !form.is_good() {
        return Err(Failure::told("the dates of the filter are none; write one such as 2026-11-22"));
    }
    let format = if asked.format == "csv" { Format::Csv } else { Format::Ndjson };
    Ok(all_of(Arc::clone(&member.guest.dashboard), member.actor(), wanted, format).await?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn details_are_read_as_words() {
        let shown = detail(&json!({ "changed": ["name", "allowed_domains"], "signs_at": 5, "to": null }));
        assert_eq!(shown, "changed: name allowed_domains, signs_at: 1970-01-01 00:00 UTC, to: none");
        assert_eq!(detail(&json!({})), "");
    }
}
