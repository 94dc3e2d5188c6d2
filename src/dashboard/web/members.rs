//! The members of a tenant: their roles, taking one out, and inviting others.

use std::collections::BTreeMap;

use askama::Template;
use axum::response::Response;
use uuid::Uuid;

use super::failure::Failure;
use super::form::Fields;
use super::page::{Done, Place, Shell, again, page, redirect};
use super::text::Moment;
use super::visit::{Member as Visitor, Path, Posted, Query};
use crate::dashboard::access::{Action, MEMBER_ROLES, Role};
use crate::dashboard::invitations::{self, Invitation, InvitationError, InvitationState};
use crate::dashboard::members::{self, Member};
use crate::dashboard::{Dashboard, accounts};

#[derive(Template)]
#[template(path = "members.html")]
struct MembersPage {
    shell: Shell,
    place: Place,
    members: Vec<Member>,
    invited: Vec<Invited>,
    form: Fields,
    own: Uuid,
    /// Without mail nobody can be invited.
    sends_mail: bool,
}

/// Somebody who has been asked, and has not answered.
struct Invited {
    invitation: Invitation,
    by: String,
}

impl Invited {
    fn until(&self) -> Moment {
        Moment(self.invitation.expires_at)
    }

    fn role(&self) -> Role {
        self.invitation.role
    }
}

impl MembersPage {
    fn roles(&self) -> impl Iterator<Item = &'static str> {
        let may_make_owners = self.place.may(&Action::ManageOwners);
        let roles = MEMBER_ROLES.iter().filter(move |(role, _)| may_make_owners || *role != Role::Owner);
        roles.map(|(_, name)| *name)
    }

    /// Owners are changed by owners only.
    fn may_change(&self, role: &Role) -> bool {
        let needed = if *role == Role::Owner { Action::ManageOwners } else { Action::ManageMembers };
        self.place.may(&needed)
    }

    fn may_invite(&self) -> bool {
        self.place.may(&Action::ManageMembers)
    }

    /// Whom an invitation is for by default.
    fn chosen_role(&self) -> &str {
        let chosen = self.form.get("role");
        if chosen.is_empty() { Role::Developer.as_str() } else { chosen }
    }

    /// Operators may add an account as it is; others ask its owner.
    fn may_add(&self) -> bool {
        self.shell.is_operator
    }
}

pub(super) async fn list(
    member: Visitor,
    Path(tenant): Path<String>,
    Query(done): Query<Done>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let shell = member.shell("members").within(&place).after(&done);
    Ok(page(&members_page(&member, shell, place, Fields::default()).await?))
}

async fn members_page(
    member: &Visitor,
    shell: Shell,
    place: Place,
    form: Fields,
) -> Result<MembersPage, Failure> {
    let (dashboard, actor) = (member.dashboard(), member.actor());
    let members = members::list(dashboard, &actor, place.tenant.id).await?;
    let mut invited = Vec::new();
    if place.may(&Action::ManageMembers) {
        let emails: BTreeMap<String, &str> =
            members.iter().map(|each| (format!("account:{}", each.account), each.email.as_str())).collect();
        let open = Some(InvitationState::Open);
        let most = invitations::OPEN_MAX;
        for invitation in invitations::list(dashboard, &actor, place.tenant.id, open, None, most).await? {
            let by = emails.get(&invitation.invited_by);
            let by = by.map_or_else(|| outsider(&invitation.invited_by), |email| (*email).to_owned());
            invited.push(Invited { invitation, by });
        }
        invited.sort_by_key(|each| each.invitation.created_at);
    }
    let (own, sends_mail) = (member.account().id, dashboard.mailer.is_configured());
    Ok(MembersPage { shell, place, members, invited, form, own, sends_mail })
}

/// What a tenant is told of an inviter who is none of its members.
fn outsider(actor: &str) -> String {
    let kind = match actor.split_once(':') {
        Some(("api-key", _)) => "an API key",
        Some(("account", _)) => "somebody who is no member",
        _ => "the operator",
    };
    kind.to_owned()
}

/// Invites; an operator may also add an account that is there, at once.
pub(super) async fn invite(
    Path(tenant): Path<String>,
    Posted(member, mut form): Posted<Visitor>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let (dashboard, actor) = (member.dashboard(), member.actor());
    let email = form.get("email").trim().to_owned();
    let role = form.get("role").parse::<Role>();
    if role.is_err() {
        form.wrong("role", "choose a role from the list");
    }
    if !accounts::is_email(&email) {
        form.wrong("email", "this is no e-mail address; write one such as ada@example.com");
    }
    if let (true, Ok(role)) = (form.is_good(), role) {
        if form.get("how") == "add" && member.account().is_operator {
            let added = add(dashboard, &member, &place, &email, role, &mut form).await?;
            if added {
                return Ok(redirect(&place.at("members"), "member-added"));
            }
        } else {
            match invitations::create(dashboard, &actor, place.tenant.id, &email, role).await {
                Ok(_) => return Ok(redirect(&place.at("members"), "invited")),
                Err(error @ InvitationError::Role) => form.wrong("role", error),
                Err(InvitationError::Member(_)) => {
                    form.wrong(
                        "email",
                        "whoever has this address is a member already; change the role instead",
                    );
                }
                Err(InvitationError::Exists(_)) => {
                    form.wrong("email", "whoever has this address is invited already; withdraw that first");
                }
                Err(error @ InvitationError::Account(_)) => form.wrong("email", error),
                Err(error) => {
                    let failure = Failure::from(error);
                    if !failure.is_told() {
                        return Err(failure);
                    }
                    form.wrong_whole(&failure.text);
                }
            }
        }
    }
    let shell = member.shell("members").within(&place);
    Ok(again(&members_page(&member, shell, place, form).await?))
}

async fn add(
    dashboard: &Dashboard,
    member: &Visitor,
    place: &Place,
    email: &str,
    role: Role,
    form: &mut Fields,
) -> Result<bool, Failure> {
    let Some(account) = accounts::by_email(dashboard, email).await? else {
        form.wrong("email", "nobody has an account with this address; invite them instead");
        return Ok(false);
    };
    match members::add(dashboard, &member.actor(), place.tenant.id, account.id, role)
        .await
        .map_err(Failure::from)
    {
        Ok(()) => Ok(true),
        Err(failure) if failure.is_told() => {
            form.wrong("email", &failure.text);
            Ok(false)
        }
        Err(failure) => Err(failure),
    }
}

pub(super) async fn withdraw(
    Path(tenant): Path<String>,
    Posted(member, form): Posted<Visitor>,
) -> Result<Response, Failure> {
    let place = member.place(&tenant).await?;
    let id = form.get("invitation").parse().map_err(|_| Failure::told("there is no such invitation"))?;
    invitations::withdraw(member.dashboard(), &member.actor(), place.tenant.id, id).await?;
    Ok(redirect(&place.at("members"), "invitation-withdrawn"))
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
