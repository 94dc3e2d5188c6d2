//! Accepting an invitation: the code of the mail's link, what it is for, and joining.
//!
//! The code is in the link's fragment, so it comes here in a form's body only: put there by the script, or pasted. Looking
//! changes nothing. Joining spends the code, and logs in only who makes his account with it: having a mail is not having
//! a password.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::failure::Failure;
use super::form::Fields;
use super::page::{Shell, page, page_with};
use super::text::Moment;
use super::visit::{Guest, Posted};
use crate::dashboard::access::{Action, Actor, may};
use crate::dashboard::accounts::{AccountError, normal_name};
use crate::dashboard::invitations::{self, Accepted, InvitationError, Newcomer, Preview};
use crate::dashboard::{random, sessions};

/// Who failed, when wrong codes are counted.
const INVITATION: &str = "invitation";

#[derive(Template)]
#[template(path = "invitation_code.html")]
struct CodePage<'a> {
    shell: Shell,
    form: &'a Fields,
}

#[derive(Template)]
#[template(path = "invitation.html")]
struct InvitationPage<'a> {
    shell: Shell,
    form: &'a Fields,
    preview: Preview,
    /// The account that is logged in here, if it is another than the invited one.
    other: Option<String>,
    is_logged_in: bool,
}

impl InvitationPage<'_> {
    fn until(&self) -> Moment {
        Moment(self.preview.invitation.expires_at)
    }
}

pub(super) async fn code_form(guest: Guest) -> Response {
    guest.answer(page(&CodePage { shell: shell(&guest), form: &Fields::default() }))
}

pub(super) async fn look(Posted(guest, mut form): Posted<Guest>) -> Result<Response, Failure> {
    let code = code_of(&form);
    match preview(&guest, &code).await? {
        Some(preview) => Ok(page(&invitation_page(&guest, &form, preview))),
        None => Ok(ask_again(&guest, &mut form)),
    }
}

pub(super) async fn accept(Posted(guest, mut form): Posted<Guest>) -> Result<Response, Failure> {
    let (dashboard, code) = (&guest.dashboard, code_of(&form));
    let Some(preview) = preview(&guest, &code).await? else { return Ok(ask_again(&guest, &mut form)) };
    let is_new = !preview.has_account;
    if is_new && normal_name(form.get("name")).is_none() {
        form.wrong("name", "write your name, of 1 to 100 characters");
    }
    if form.is_good() {
        let newcomer = is_new.then(|| Newcomer { name: form.get("name"), password: form.get("password") });
        match invitations::accept(dashboard, &guest.anonymous(), &code, newcomer).await {
            Ok(accepted) => return joined(&guest, &accepted).await,
            Err(InvitationError::Account(error @ AccountError::Password(_))) => form.wrong("password", error),
            Err(InvitationError::Token) => return Ok(ask_again(&guest, &mut form)),
            Err(error) => {
                let failure = Failure::from(error);
                if !failure.is_told() {
                    return Err(failure);
                }
                form.wrong_whole(&failure.text);
            }
        }
    }
    let shown = invitation_page(&guest, &form, preview);
    Ok(guest.answer(page_with(StatusCode::UNPROCESSABLE_ENTITY, &shown)))
}

/// To the tenant, logged in as who has joined; who had an account logs in with its password.
async fn joined(guest: &Guest, accepted: &Accepted) -> Result<Response, Failure> {
    let dashboard = &guest.dashboard;
    let first = if may(accepted.role, Action::ReadApps) { "apps" } else { "members" };
    let to = format!("/tenants/{}/{first}", accepted.tenant);
    let session = guest.session.as_ref().filter(|session| !session.is_half);
    if session.is_some_and(|session| session.account.id == accepted.account) {
        return Ok(super::page::redirect(&to, "joined"));
    }
    if let Some(session) = &guest.session {
        let actor = Actor::account(session.account.id, guest.address);
        sessions::end(dashboard, &actor, session.account.id, &session.id_hash).await?;
    }
    if !accepted.is_new_account {
        let log_in = format!("/login?next={to}&done=joined-log-in");
        return Ok(guest.redirect_as(&random::secret(""), &log_in));
    }
    let id = sessions::begin(dashboard, &guest.anonymous(), accepted.account, false, &guest.browser).await?;
    Ok(guest.redirect_as(&id, &format!("{to}?done=joined")))
}

/// What the code is for; `None` if it is not good. Wrong ones are counted.
async fn preview(guest: &Guest, code: &str) -> Result<Option<Preview>, Failure> {
    let dashboard = &guest.dashboard;
    dashboard.may_try(guest.address, INVITATION).map_err(Failure::too_many)?;
    match invitations::look(dashboard, code).await {
        Ok(preview) => Ok(Some(preview)),
        Err(InvitationError::Token) => {
            dashboard.count_failure(guest.address, INVITATION);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The code, also if the whole link was pasted.
fn code_of(form: &Fields) -> String {
    let typed = form.get("code").trim();
    typed.rsplit_once('#').map_or(typed, |(_, code)| code).to_owned()
}

fn ask_again(guest: &Guest, form: &mut Fields) -> Response {
    form.forget("code");
    form.wrong("code", InvitationError::Token);
    guest.answer(page_with(StatusCode::UNPROCESSABLE_ENTITY, &CodePage { shell: shell(guest), form }))
}

fn invitation_page<'a>(guest: &Guest, form: &'a Fields, preview: Preview) -> InvitationPage<'a> {
    let here = guest.session.as_ref().filter(|session| !session.is_half).map(|session| &session.account);
    let is_logged_in = here.is_some_and(|account| account.email == preview.invitation.email);
    let other = here.filter(|_| !is_logged_in).map(|account| account.email.clone());
    InvitationPage { shell: shell(guest), form, preview, other, is_logged_in }
}

fn shell(guest: &Guest) -> Shell {
    let shell = guest.shell("invitation");
    match guest.session.as_ref().filter(|session| !session.is_half) {
        Some(session) => shell.of(&session.account),
        None => shell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_link_is_as_good_as_its_code() {
        for typed in ["wsi_abc", "  wsi_abc\n", "https://auth.example.com/invitation#wsi_abc"] {
            assert_eq!(code_of(&Fields::new(vec![("code".into(), typed.into())])), "wsi_abc");
        }
    }
}
