//! Logging in and out: password, then the second factor where there is one.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::failure::Failure;
use super::form::Fields;
use super::page::{Done, Shell, page, page_with};
use super::visit::{Guest, Member, Posted, Query};
use crate::dashboard::access::Actor;
use crate::dashboard::sessions::{self, Session};
use crate::dashboard::totp::{self, Status};
use crate::dashboard::{Dashboard, accounts, random, tenants};

const WRONG: &str =
    "E-mail address and password don't belong together. Try again, or sign up if you have no account.";

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    shell: Shell,
    form: &'a Fields,
}

#[derive(Template)]
#[template(path = "login_code.html")]
struct CodePage<'a> {
    shell: Shell,
    form: &'a Fields,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Next {
    next: Option<String>,
}

/// `/`: to where the one who comes has something to do.
pub(super) async fn home(member: Member) -> Result<Response, Failure> {
    let home = home_of(member.dashboard(), &member.session).await?;
    Ok(Redirect::to(&home).into_response())
}

async fn home_of(dashboard: &Dashboard, session: &Session) -> Result<String, Failure> {
    if session.account.is_operator {
        return Ok("/operator/tenants".to_owned());
    }
    Ok(match tenants::of_account(dashboard, session.account.id).await?.as_slice() {
        [(tenant, _)] => format!("/tenants/{}", tenant.id),
        _ => "/tenants".to_owned(),
    })
}

pub(super) async fn form(guest: Guest, Query(next): Query<Next>, Query(done): Query<Done>) -> Response {
    if guest.session.as_ref().is_some_and(|session| !session.is_half) {
        return Redirect::to("/").into_response();
    }
    let mut form = Fields::default();
    form.set("next", safe(next.next.as_deref().unwrap_or_default()));
    guest.answer(page(&LoginPage { shell: guest.shell("login").after(&done), form: &form }))
}

pub(super) async fn log_in(Posted(guest, mut form): Posted<Guest>) -> Result<Response, Failure> {
    let dashboard = &guest.dashboard;
    let email = form.get("email").trim().to_owned();
    let refuse = |form: &Fields, status| {
        guest.answer(page_with(status, &LoginPage { shell: guest.shell("login"), form }))
    };
    let Ok(attempt) = dashboard.begin_attempt(guest.address, &email) else {
        form.wrong_whole("Too many log-ins failed. Wait ten minutes, then try again");
        return Ok(refuse(&form, StatusCode::TOO_MANY_REQUESTS));
    };
    let Some(account) = accounts::authenticate(dashboard, &email, form.get("password")).await? else {
        form.wrong_whole(WRONG);
        return Ok(refuse(&form, StatusCode::UNPROCESSABLE_ENTITY));
    };
    attempt.succeeded();
    let has_second_factor = matches!(totp::status(dashboard, account.id).await?, Status::On { .. });
    // Whatever session this browser had is over.
    if let Some(old) = &guest.session {
        let actor = Actor::account(old.account.id, guest.address);
        sessions::end(dashboard, &actor, old.account.id, &old.id_hash).await?;
    }
    let id =
        sessions::begin(dashboard, &guest.anonymous(), account.id, has_second_factor, &guest.browser).await?;
    let next = safe(form.get("next"));
    let to = match (has_second_factor, next) {
        (true, "") => "/login/code".to_owned(),
        (true, next) => format!("/login/code?next={next}"),
        (false, "") => "/".to_owned(),
        (false, next) => next.to_owned(),
    };
    Ok(guest.redirect_as(&id, &to))
}

pub(super) async fn code_form(guest: Guest, Query(next): Query<Next>) -> Response {
    if !guest.session.as_ref().is_some_and(|session| session.is_half) {
        return Redirect::to("/login").into_response();
    }
    let mut form = Fields::default();
    form.set("next", safe(next.next.as_deref().unwrap_or_default()));
    page(&CodePage { shell: guest.shell("login"), form: &form })
}

pub(super) async fn check_code(Posted(guest, mut form): Posted<Guest>) -> Result<Response, Failure> {
    let dashboard = &guest.dashboard;
    let Some(session) = guest.session.as_ref().filter(|session| session.is_half) else {
        return Ok(Redirect::to("/login").into_response());
    };
    let account = &session.account;
    let attempt = dashboard.begin_attempt(guest.address, &account.email).map_err(Failure::too_many)?;
    if totp::take(dashboard, &guest.anonymous(), account.id, form.get("code")).await? {
        attempt.succeeded();
        let whole = sessions::complete(dashboard, &guest.anonymous(), session, &guest.browser).await?;
        let Some(id) = whole else { return Ok(Redirect::to("/login").into_response()) };
        let next = safe(form.get("next"));
        return Ok(guest.redirect_as(&id, if next.is_empty() { "/" } else { next }));
    }
    if !sessions::count_wrong_code(dashboard, session).await? {
        return Ok(Redirect::to("/login").into_response());
    }
    form.forget("code");
    form.wrong("code", "This code is not right, or was used already. Type the one that the device shows now");
    let shell = guest.shell("login");
    Ok(page_with(StatusCode::UNPROCESSABLE_ENTITY, &CodePage { shell, form: &form }))
}

pub(super) async fn log_out(Posted(guest, _): Posted<Guest>) -> Result<Response, Failure> {
    if let Some(session) = &guest.session {
        let actor = Actor::account(session.account.id, guest.address);
        sessions::end(&guest.dashboard, &actor, session.account.id, &session.id_hash).await?;
    }
    // The id that was a session's is not used again, for anything.
    Ok(guest.redirect_as(&random::secret(""), "/login?done=logged-out"))
}

/// A page of ours to go on to; anything else is left out, so that nobody is sent elsewhere by a link to our log-in.
fn safe(next: &str) -> &str {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte);
    if next.starts_with('/') && !next.starts_with("//") && next.bytes().all(allowed) { next } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_site() {
        assert_eq!(safe("/tenants/1234/apps"), "/tenants/1234/apps");
        for next in
            ["", "//evil.example", "https://evil.example", "/\\evil.example", "/a?b", "javascript:x", "/%2f"]
        {
            assert_eq!(safe(next), "", "{next}");
        }
    }
}
