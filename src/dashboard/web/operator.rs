//! What operators see of tenants: who waits for approval, and everybody else.

use askama::Template;
use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use super::failure::Failure;
use super::page::{Done, Shell, page, redirect};
use super::text::Moment;
use super::visit::{Member, Path, Posted, Query};
use crate::dashboard::tenants::{self, Tenant, TenantState};
use crate::dashboard::{apps, members};

const PAGE_ROWS: i64 = 50;

#[derive(Template)]
#[template(path = "operator_tenants.html")]
struct OperatorTenantsPage {
    shell: Shell,
    waiting: Vec<Waiting>,
    rows: Vec<Row>,
    /// The last id of the page, if there are more.
    next: Option<Uuid>,
    is_first: bool,
}

/// A tenant with what an operator looks for first.
struct Row {
    tenant: Tenant,
    owners: String,
    apps: i64,
}

/// A tenant that waits, with whom to ask about it.
struct Waiting {
    tenant: Tenant,
    owners: String,
}

impl Waiting {
    fn since(&self) -> Moment {
        Moment(self.tenant.created_at)
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct After {
    after: Option<Uuid>,
}

pub(super) async fn tenants(
    member: Member,
    Query(after): Query<After>,
    Query(done): Query<Done>,
) -> Result<Response, Failure> {
    let (dashboard, actor) = (member.dashboard(), member.actor());
    let mut waiting = Vec::new();
    for tenant in tenants::list(dashboard, &actor, Some(TenantState::Pending), None, PAGE_ROWS).await? {
        let members = members::list(dashboard, &actor, tenant.id).await?;
        let people = members.iter().map(|member| format!("{} <{}>", member.name, member.email));
        let owners = people.collect::<Vec<_>>().join(", ");
        waiting.push(Waiting { tenant, owners });
    }
    waiting.sort_by_key(|each| each.tenant.created_at);
    let mut all = tenants::list(dashboard, &actor, None, after.after, PAGE_ROWS + 1).await?;
    let has_more = all.len() > usize::try_from(PAGE_ROWS).unwrap_or(usize::MAX);
    if has_more {
        all.pop();
    }
    let next = all.last().map(|tenant| tenant.id).filter(|_| has_more);
    Ok(page(&OperatorTenantsPage {
        shell: member.shell("operator-tenants").after(&done),
        waiting,
        rows: rows(&member, all).await?,
        next,
        is_first: after.after.is_none(),
    }))
}

/// A page of tenants, by id, with their owners and how many apps they have.
async fn rows(member: &Member, tenants: Vec<Tenant>) -> Result<Vec<Row>, Failure> {
    let (Some(first), Some(last)) = (tenants.first(), tenants.last()) else { return Ok(Vec::new()) };
    let (dashboard, actor) = (member.dashboard(), member.actor());
    let mut owners = members::owners(dashboard, &actor, first.id, last.id).await?;
    let apps = apps::counts(dashboard, &actor, first.id, last.id).await?;
    let row = |tenant: Tenant| Row {
        owners: owners.remove(&tenant.id).unwrap_or_default().join(", "),
        apps: apps.get(&tenant.id).copied().unwrap_or(0),
        tenant,
    };
    Ok(tenants.into_iter().map(row).collect())
}

pub(super) async fn approve(
    Path(tenant): Path<Uuid>,
    Posted(member, _): Posted<Member>,
) -> Result<Response, Failure> {
    tenants::approve(member.dashboard(), &member.actor(), tenant).await?;
    Ok(redirect("/operator/tenants", "approved"))
}

pub(super) async fn suspend(
    Path(tenant): Path<Uuid>,
    Posted(member, _): Posted<Member>,
) -> Result<Response, Failure> {
    tenants::suspend(member.dashboard(), &member.actor(), tenant).await?;
    Ok(redirect("/operator/tenants", "suspended"))
}

pub(super) async fn resume(
    Path(tenant): Path<Uuid>,
    Posted(member, _): Posted<Member>,
) -> Result<Response, Failure> {
    tenants::resume(member.dashboard(), &member.actor(), tenant).await?;
    Ok(redirect("/operator/tenants", "resumed"))
}
