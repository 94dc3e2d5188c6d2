//! The members of a tenant: their roles, and taking one out.

use askama::Template;
use axum::extract::{Path, Query};
use axum::response::Response;
use uuid::Uuid;

use super::form::Fields;
use super::page::{Done, Failure, Place, Shell, page, redirect};
use super::visit::{Member as Visitor, Posted};
use crate::dashboard::access::{Action, MEMBER_ROLES, Role};
use crate::dashboard::members::{self, Member};

#[derive(Template)]
#[template(path = "members.html")]
struct MembersPage {
    shell: Shell,
    place: Place,
    members: Vec<Member>,
    own: Uuid,
}

impl MembersPage {
    fn roles(&self) -> impl Iterator<Item = &'static str> {
        let may_make_owners = self.place.may(&Action::ManageOwners);
        let roles = MEMBER_ROLES.iter().filter(move |(role, _)| may_make_owners || *role != Role::Owner);
        roles.map(|(_, name)| *name)
    }

    /// Owners are changed by owners only.
    fn may_change(&self, member: &Member) -> bool {
        let needed = if member.role == Role::Owner { Action::ManageOwners } else { Action::ManageMembers };
        self.place.may(&needed)
    }
}

pub(super) async fn list(
    member: Visitor,
    Path(tenant): Path<String>,
    Query(done): Query<Done>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let members = members::list(member.dashboard(), &member.actor(), place.tenant.id).await?;
    let shell = member.shell("members").within(&place).after(&done);
    Ok(page(&MembersPage { shell, place, members, own: member.account().id }))
}

pub(super) async fn change_role(
    Path(tenant): Path<String>,
    Posted(member, form): Posted<Visitor>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let role = form.get("role").parse().map_err(|()| Failure::told("choose a role from the list"))?;
    let (dashboard, actor) = (member.dashboard(), member.actor());
    members::change(dashboard, &actor, place.tenant.id, account_of(&form)?, Some(role)).await?;
    Ok(redirect(&place.at("members"), "role-changed"))
}

pub(super) async fn remove(
    Path(tenant): Path<String>,
    Posted(member, form): Posted<Visitor>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let account = account_of(&form)?;
    members::change(member.dashboard(), &member.actor(), place.tenant.id, account, None).await?;
    let is_own = account == member.account().id && !member.account().is_operator;
    Ok(redirect(&if is_own { "/tenants".to_owned() } else { place.at("members") }, "member-removed"))
}

fn account_of(form: &Fields) -> Result<Uuid, Failure> {
    form.get("account").parse().map_err(|_| Failure::told("this account is no member"))
}
