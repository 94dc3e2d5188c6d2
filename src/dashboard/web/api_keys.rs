//! The API keys of a tenant: what automation calls the management API with.

use std::collections::BTreeMap;

use askama::Template;
use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use super::failure::Failure;
use super::form::Fields;
use super::page::{Done, Place, Shell, again, page, redirect};
use super::text::{Moment, day_start, span};
use super::visit::{Member, Path, Posted, Query};
use crate::dashboard::access::{MEMBER_ROLES, Role};
use crate::dashboard::api_keys::{self, ApiKey, ApiKeyError, Created, NewApiKey};
use crate::dashboard::members;

const PAGE_ROWS: i64 = 100;
const DAY_S: i64 = 86_400;

#[derive(Template)]
#[template(path = "api_keys.html")]
struct ApiKeysPage {
    shell: Shell,
    place: Place,
    rows: Vec<Row>,
    form: Fields,
    issuer: String,
    /// The last id of the page, if there are more.
    next: Option<Uuid>,
    is_first: bool,
}

/// The one page that shows a key's secret, once.
#[derive(Template)]
#[template(path = "api_key.html")]
struct NewKeyPage {
    shell: Shell,
    place: Place,
    created: Created,
    issuer: String,
}

struct Row {
    key: ApiKey,
    maker: String,
    state: &'static str,
    used: String,
    /// Whether the one who looks could have made it.
    can_be_revoked: bool,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct After {
    after: Option<Uuid>,
}

impl Row {
    fn new(key: ApiKey, emails: &BTreeMap<Uuid, String>, role: Role, now: i64) -> Self {
        let state = match &key {
            ApiKey { revoked_at: Some(_), .. } => "revoked",
            ApiKey { expires_at: Some(end), .. } if *end <= now => "expired",
            _ => "active",
        };
        let maker = match key.account {
            Some(account) => emails.get(&account).map_or("somebody who is no member", String::as_str),
            None => "the command line",
        };
        // Times of use are noted to the hour.
        let used = match key.last_used_at {
            None => "never".to_owned(),
            Some(at) if now - at < 3600 => "in the last hour".to_owned(),
            Some(at) => format!("{} ago", span(now - at)),
        };
        let can_be_revoked = state != "revoked" && role.covers(key.role);
        Self { maker: maker.to_owned(), state, used, can_be_revoked, key }
    }

    fn role(&self) -> &'static str {
        self.key.role.as_str()
    }

    fn ends(&self) -> Option<Moment> {
        self.key.expires_at.map(Moment)
    }
}

impl ApiKeysPage {
    /// Only what the maker may himself.
    fn roles(&self) -> impl Iterator<Item = &'static str> {
        let own = self.place.role;
        MEMBER_ROLES.iter().filter(move |(role, _)| own.covers(*role)).map(|(_, name)| *name)
    }

    fn chosen_role(&self) -> &str {
        let chosen = self.form.get("role");
        if chosen.is_empty() { Role::Developer.as_str() } else { chosen }
    }
}

pub(super) async fn list(
    member: Member,
    Path(tenant): Path<String>,
    Query(after): Query<After>,
    Query(done): Query<Done>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let shell = member.shell("api-keys").within(&place).after(&done);
    Ok(page(&keys_page(&member, shell, place, Fields::default(), after.after).await?))
}

async fn keys_page(
    member: &Member,
    shell: Shell,
    place: Place,
    form: Fields,
    after: Option<Uuid>,
) -> Result<ApiKeysPage, Failure> {
    let (dashboard, actor, tenant) = (member.dashboard(), member.actor(), place.tenant.id);
    let mut keys = api_keys::list(dashboard, &actor, Some(tenant), after, PAGE_ROWS + 1).await?;
    let has_more = keys.len() > usize::try_from(PAGE_ROWS).unwrap_or(usize::MAX);
    if has_more {
        keys.pop();
    }
    let next = keys.last().map(|key| key.id).filter(|_| has_more);
    let members = members::list(dashboard, &actor, tenant).await?;
    let emails = members.into_iter().map(|member| (member.account, member.email)).collect();
    let now = dashboard.now();
    let mut rows: Vec<Row> = keys.into_iter().map(|key| Row::new(key, &emails, place.role, now)).collect();
    // Those that count first, of each the newest first.
    rows.sort_by_key(|row| (row.state != "active", -row.key.created_at));
    let issuer = dashboard.config.issuer.as_str().to_owned();
    Ok(ApiKeysPage { shell, place, rows, form, issuer, next, is_first: after.is_none() })
}

pub(super) async fn create(
    Path(tenant): Path<String>,
    Posted(member, mut form): Posted<Member>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let dashboard = member.dashboard();
    let role = form.get("role").parse::<Role>();
    if role.is_err() {
        form.wrong("role", "choose a role from the list");
    }
    let until = form.get("until").trim().to_owned();
    // The whole of the last day.
    let expires_at = day_start(&until).map(|day| day + DAY_S);
    if expires_at.is_none() && !until.is_empty() {
        form.wrong("until", "write a date such as 2027-01-31, or nothing");
    }
    if let (true, Ok(role)) = (form.is_good(), role) {
        let new = NewApiKey { name: form.get("name").to_owned(), role, expires_at };
        match api_keys::create(dashboard, &member.actor(), Some(place.tenant.id), new).await {
            Ok(created) => {
                let shell = member.shell("api-keys").within(&place);
                let issuer = dashboard.config.issuer.as_str().to_owned();
                return Ok(page(&NewKeyPage { shell, place, created, issuer }));
            }
            Err(error @ ApiKeyError::Name) => form.wrong("name", error),
            Err(ApiKeyError::Expiry) => {
                form.wrong("until", "choose a day from today on, at most ten years ahead");
            }
            Err(error @ (ApiKeyError::Role | ApiKeyError::TooMuch(_))) => form.wrong("role", error),
            Err(error) => {
                let failure = Failure::from(error);
                if !failure.is_told() {
                    return Err(failure);
                }
                form.wrong_whole(&failure.text);
            }
        }
    }
    let shell = member.shell("api-keys").within(&place);
    Ok(again(&keys_page(&member, shell, place, form, None).await?))
}

pub(super) async fn revoke(
    Path(tenant): Path<String>,
    Posted(member, form): Posted<Member>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let key = form.get("key").parse().map_err(|_| Failure::told("there is no such API key"))?;
    api_keys::revoke(member.dashboard(), &member.actor(), Some(place.tenant.id), key).await?;
    Ok(redirect(&place.at("api-keys"), "api-key-revoked"))
}
