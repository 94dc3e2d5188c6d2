//! Signing up: an account and its tenant, which then waits for approval.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};

use super::failure::Failure;
use super::form::Fields;
use super::page::{Shell, page, page_with};
use super::visit::{Guest, Posted};
use crate::dashboard::accounts::{self, AccountError, normal_name};
use crate::dashboard::sessions;
use crate::dashboard::sign_up::{self, Newcomer, SignUpError};

#[derive(Template)]
#[template(path = "signup.html")]
struct SignUpPage<'a> {
    shell: Shell,
    form: &'a Fields,
}

pub(super) async fn form(guest: Guest) -> Response {
    if guest.session.as_ref().is_some_and(|session| !session.is_half) {
        return Redirect::to("/tenants/new").into_response();
    }
    guest.answer(page(&SignUpPage { shell: guest.shell("signup"), form: &Fields::default() }))
}

pub(super) async fn sign_up(Posted(guest, mut form): Posted<Guest>) -> Result<Response, Failure> {
    let dashboard = &guest.dashboard;
    dashboard.may_try(guest.address, form.get("email")).map_err(Failure::too_many)?;
    let actor = guest.anonymous();
    if normal_name(form.get("tenant")).is_none() {
        form.wrong("tenant", "write the name of your company or project, of 1 to 100 characters");
    }
    if normal_name(form.get("name")).is_none() {
        form.wrong("name", "write your name, of 1 to 100 characters");
    }
    if !accounts::is_email(form.get("email").trim()) {
        form.wrong("email", "this is no e-mail address; write one such as ada@example.com");
    }
    let refuse = |form: &Fields| {
        let shell = guest.shell("signup");
        guest.answer(page_with(StatusCode::UNPROCESSABLE_ENTITY, &SignUpPage { shell, form }))
    };
    if !form.is_good() {
        return Ok(refuse(&form));
    }
    dashboard.admit_sign_up(guest.address).map_err(Failure::too_many)?;
    let newcomer = Newcomer {
        email: form.get("email"),
        name: form.get("name"),
        password: form.get("password"),
        tenant_name: form.get("tenant"),
    };
    let signed_up = match sign_up::sign_up(dashboard, &actor, newcomer).await {
        Ok(signed_up) => signed_up,
        Err(SignUpError::Account(error @ AccountError::Password(_))) => {
            form.wrong("password", error);
            return Ok(refuse(&form));
        }
        Err(SignUpError::Account(error @ (AccountError::Exists(_) | AccountError::Email(_)))) => {
            form.wrong("email", error);
            return Ok(refuse(&form));
        }
        Err(error) => return Err(error.into()),
    };
    let id = sessions::begin(dashboard, &actor, signed_up.account, false, &guest.browser).await?;
    Ok(guest.redirect_as(&id, &format!("/tenants/{}/apps?done=signed-up", signed_up.tenant)))
}
