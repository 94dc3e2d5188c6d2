//! One's own account: password, second factor, and the browsers that are logged in.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};

use super::failure::Failure;
use super::form::Fields;
use super::page::{Done, Shell, again, page, redirect};
use super::qr;
use super::text::{Moment, span};
use super::visit::{Member, Posted, Query};
use crate::dashboard::accounts::AccountError;
use crate::dashboard::totp::{self, Enrolment, Status, TotpError};
use crate::dashboard::{accounts, random, sessions};

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    shell: Shell,
    name: String,
    /// While the second factor is on.
    recovery_codes_left: Option<i64>,
    form: Fields,
    sessions: Vec<SessionRow>,
}

struct SessionRow {
    id_hash: String,
    browser: String,
    address: String,
    since: Moment,
    idle: String,
    is_this: bool,
}

#[derive(Template)]
#[template(path = "password.html")]
struct PasswordPage<'a> {
    shell: Shell,
    form: &'a Fields,
    is_one_time: bool,
}

#[derive(Template)]
#[template(path = "second_factor.html")]
struct SecondFactorPage<'a> {
    shell: Shell,
    form: &'a Fields,
    enrolment: Enrolment,
    qr: Option<String>,
}

#[derive(Template)]
#[template(path = "recovery_codes.html")]
struct RecoveryCodesPage {
    shell: Shell,
    codes: Vec<String>,
    /// In the place of others, which are dead.
    are_renewed: bool,
}

pub(super) async fn show(member: Member, Query(done): Query<Done>) -> Result<Response, Failure> {
    Ok(page(&account_page(&member, member.shell("account").after(&done), Fields::default()).await?))
}

async fn account_page(member: &Member, shell: Shell, form: Fields) -> Result<AccountPage, Failure> {
    let (dashboard, account) = (member.dashboard(), member.account());
    let open = sessions::list(dashboard, account.id).await?;
    let row = |open: sessions::Open| SessionRow {
        is_this: open.id_hash == member.session.id_hash,
        browser: browser_name(&open.browser),
        id_hash: open.id_hash,
        address: open.address,
        since: Moment(open.created_at),
        idle: span(dashboard.now() - open.last_seen_at),
    };
    let recovery_codes_left = match totp::status(dashboard, account.id).await? {
        Status::On { recovery_codes_left } => Some(recovery_codes_left),
        Status::Off | Status::Begun => None,
    };
    Ok(AccountPage {
        shell,
        name: account.name.clone(),
        recovery_codes_left,
        form,
        sessions: open.into_iter().map(row).collect(),
    })
}

/// The browser and the system that a `User-Agent` names, as far as it is one of the usual ones.
fn browser_name(user_agent: &str) -> String {
    let first = |names: &[(&str, &'static str)]| {
        names.iter().find(|(mark, _)| user_agent.contains(mark)).map(|(_, name)| *name)
    };
    let browsers = [
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    let systems = [
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    ];
    match (first(&browsers), first(&systems)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(browser), None) => browser.to_owned(),
        _ => "Another program".to_owned(),
    }
}

pub(super) async fn password_form(member: Member) -> Response {
    let is_one_time = member.account().must_change_password;
    page(&PasswordPage { shell: member.shell("account"), form: &Fields::default(), is_one_time })
}

pub(super) async fn change_password(Posted(member, mut form): Posted<Member>) -> Result<Response, Failure> {
    let (dashboard, account) = (member.dashboard(), member.account());
    let is_one_time = account.must_change_password;
    is_owner(&member, &mut form, "current").await?;
    if form.get("password") == form.get("current") {
        form.wrong("password", "choose another one than you have now");
    }
    if form.is_good() {
        let changed =
            accounts::change_password(dashboard, &member.actor(), account.id, form.get("password")).await;
        match changed {
            Ok(()) => return everywhere_else(&member, "password-changed").await,
            Err(error @ AccountError::Password(_)) => form.wrong("password", error),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(again(&PasswordPage { shell: member.shell("account"), form: &form, is_one_time }))
}

/// Ends every session of the account and begins a new one here: an id that somebody has got hold of is worth nothing.
async fn everywhere_else(member: &Member, done: &str) -> Result<Response, Failure> {
    let (dashboard, account) = (member.dashboard(), member.account());
    sessions::end_all(dashboard, &member.actor(), account.id, None).await?;
    let id = sessions::begin(dashboard, &member.actor(), account.id, false, &member.guest.browser).await?;
    Ok(member.guest.redirect_as(&id, &format!("/account?done={done}")))
}

pub(super) async fn begin_second_factor(Posted(member, _): Posted<Member>) -> Result<Response, Failure> {
    totp::begin(member.dashboard(), &member.actor(), member.account().id).await?;
    Ok(Redirect::to("/account/second-factor").into_response())
}

pub(super) async fn second_factor(member: Member) -> Result<Response, Failure> {
    match second_factor_page(&member, &Fields::default()).await {
        Ok(shown) => Ok(page(&shown)),
        Err(TotpError::NotBegun) => Ok(Redirect::to("/account").into_response()),
        Err(error) => Err(error.into()),
    }
}

async fn second_factor_page<'a>(
    member: &Member,
    form: &'a Fields,
) -> Result<SecondFactorPage<'a>, TotpError> {
    let account = member.account();
    let enrolment = totp::begun(member.dashboard(), &member.actor(), account.id, &account.email).await?;
    let qr = qr::svg(&enrolment.uri, "QR code for your authenticator app");
    Ok(SecondFactorPage { shell: member.shell("account"), form, enrolment, qr })
}

pub(super) async fn confirm_second_factor(
    Posted(member, mut form): Posted<Member>,
) -> Result<Response, Failure> {
    let (dashboard, account) = (member.dashboard(), member.account());
    match totp::confirm(dashboard, &member.actor(), account.id, form.get("code")).await {
        Ok(codes) => {
            Ok(page(&RecoveryCodesPage { shell: member.shell("account"), codes, are_renewed: false }))
        }
        Err(error @ TotpError::Code) => {
            form.forget("code");
            form.wrong("code", error);
            Ok(again(&second_factor_page(&member, &form).await?))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the field holds the account's password; if not, it says so.
async fn is_owner(member: &Member, form: &mut Fields, field: &'static str) -> Result<bool, Failure> {
    let (dashboard, account) = (member.dashboard(), member.account());
    let attempt = dashboard.begin_attempt(member.guest.address, &account.email).map_err(Failure::too_many)?;
    let is_owner = accounts::authenticate(dashboard, &account.email, form.get(field)).await?.is_some();
    if is_owner {
        attempt.succeeded();
    } else {
        form.wrong(field, "this is not your password");
    }
    Ok(is_owner)
}

pub(super) async fn new_recovery_codes(
    Posted(member, mut form): Posted<Member>,
) -> Result<Response, Failure> {
    if !is_owner(&member, &mut form, "codes_password").await? {
        return Ok(again(&account_page(&member, member.shell("account"), form).await?));
    }
    let account = member.account().id;
    let codes = totp::renew_recovery_codes(member.dashboard(), &member.actor(), account).await?;
    Ok(page(&RecoveryCodesPage { shell: member.shell("account"), codes, are_renewed: true }))
}

pub(super) async fn turn_second_factor_off(
    Posted(member, mut form): Posted<Member>,
) -> Result<Response, Failure> {
    if !is_owner(&member, &mut form, "off_password").await? {
        return Ok(again(&account_page(&member, member.shell("account"), form).await?));
    }
    totp::turn_off(member.dashboard(), &member.actor(), member.account().id).await?;
    everywhere_else(&member, "second-factor-off").await
}

pub(super) async fn end_session(Posted(member, form): Posted<Member>) -> Result<Response, Failure> {
    let account = member.account().id;
    sessions::end(member.dashboard(), &member.actor(), account, form.get("session")).await?;
    Ok(redirect("/account", "session-ended"))
}

pub(super) async fn end_all_sessions(Posted(member, _): Posted<Member>) -> Result<Response, Failure> {
    sessions::end_all(member.dashboard(), &member.actor(), member.account().id, None).await?;
    Ok(member.guest.redirect_as(&random::secret(""), "/login?done=logged-out-everywhere"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_called_what_people_call_them() {
        let edge = "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/130.0 Safari/537.36 Edg/130.0";
        assert_eq!(browser_name(edge), "Edge on Windows");
        let safari = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Version/17.0 Safari/604.1";
        assert_eq!(browser_name(safari), "Safari on iPhone");
        assert_eq!(browser_name("curl/8"), "Another program");
    }
}
