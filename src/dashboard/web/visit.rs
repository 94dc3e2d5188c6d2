//! Who is asking: the session of a request, and the proof that a form was ours.
//!
//! [`Guest`] is anybody, [`Member`] somebody logged in; a handler that takes `Member` is never called for others. In a
//! handler of a POST they come inside [`Posted`], which has checked where the form came from. [`Path`] and [`Query`] are
//! axum's, with our pages for what can't be read.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Form;
use axum::extract::{self, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::cookie;
use super::failure::Failure;
use super::form::Fields;
use super::page::{Place, Shell};
use crate::dashboard::access::{Actor, Role, role_in};
use crate::dashboard::accounts::Account;
use crate::dashboard::http::Client;
use crate::dashboard::sessions::{self, Session};
use crate::dashboard::{Dashboard, random, tenants};

/// What scripts send along that load a part of an open page again.
const REFRESH: &str = "x-refresh";

/// The one page that somebody with a one-time password is let on to.
const NEW_PASSWORD: &str = "/account/password";

/// A request of a browser.
#[derive(Debug)]
pub(super) struct Guest {
    pub dashboard: Arc<Dashboard>,
    pub address: Option<IpAddr>,
    /// `User-Agent`.
    pub browser: String,
    pub session: Option<Session>,
    /// What the cookie holds; made now if there was none.
    id: String,
    is_new_id: bool,
    path: String,
}

/// A request of somebody who is logged in, wholly.
#[derive(Debug)]
pub(super) struct Member {
    pub guest: Guest,
    pub session: Session,
}

/// A form that was ours, and who sent it.
#[derive(Debug)]
pub(super) struct Posted<V>(pub V, pub Fields);

/// The ids of an address. What is no id is nothing's id.
#[derive(Debug)]
pub(super) struct Path<T>(pub T);

/// What an address asks for behind its `?`.
#[derive(Debug)]
pub(super) struct Query<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Dashboard>> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Arc<Dashboard>) -> Result<Self, Failure> {
        let found = extract::Path::from_request_parts(parts, dashboard).await;
        found.map(|extract::Path(ids)| Self(ids)).map_err(|_| Failure::nothing_here())
    }
}

impl<T: DeserializeOwned> FromRequestParts<Arc<Dashboard>> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Dashboard>) -> Result<Self, Failure> {
        let asked = extract::Query::try_from_uri(&parts.uri);
        asked.map(|extract::Query(asked)| Self(asked)).map_err(|_| Failure::nothing_here())
    }
}

impl FromRequestParts<Arc<Dashboard>> for Guest {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Arc<Dashboard>) -> Result<Self, Failure> {
        let Ok(Client(address)) = Client::from_request_parts(parts, dashboard).await;
        let given = cookie::read(&parts.headers, &dashboard.config.issuer);
        let session = match &given {
            Some(id) => sessions::find(dashboard, id, !parts.headers.contains_key(REFRESH)).await?,
            None => None,
        };
        let browser = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        Ok(Self {
            dashboard: Arc::clone(dashboard),
            address,
            browser: browser.unwrap_or_default().to_owned(),
            session,
            is_new_id: given.is_none(),
            id: given.unwrap_or_else(|| random::secret("")),
            path: parts.uri.path().to_owned(),
        })
    }
}

impl FromRequestParts<Arc<Dashboard>> for Member {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Arc<Dashboard>) -> Result<Self, Response> {
        let mut guest =
            Guest::from_request_parts(parts, dashboard).await.map_err(IntoResponse::into_response)?;
        match guest.session.take() {
            Some(session) if session.is_half => Err(Redirect::to("/login/code").into_response()),
            Some(session) if session.account.must_change_password && guest.path != NEW_PASSWORD => {
                Err(Redirect::to(NEW_PASSWORD).into_response())
            }
            Some(session) => Ok(Self { guest, session }),
            // Back to the page afterwards, where it can be asked for again.
            None if parts.method == Method::GET && guest.path != "/" => {
                Err(Redirect::to(&format!("/login?next={}", guest.path)).into_response())
            }
            None => Err(Redirect::to("/login").into_response()),
        }
    }
}

impl Guest {
    /// What every page shows around its own content.
    pub fn shell(&self, section: &'static str) -> Shell {
        Shell::new(cookie::form_token(&self.id), section)
    }

    /// With the cookie, if the browser had none: the forms of the page need one.
    pub fn answer(&self, mut response: Response) -> Response {
        if self.is_new_id {
            let cookie = cookie::set(&self.dashboard.config.issuer, &self.id);
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        response
    }

    /// A redirect that gives the browser another id: a session's, or one that is nobody's.
    pub fn redirect_as(&self, id: &str, to: &str) -> Response {
        let mut response = Redirect::to(to).into_response();
        response.headers_mut().insert(header::SET_COOKIE, cookie::set(&self.dashboard.config.issuer, id));
        response
    }

    pub fn anonymous(&self) -> Actor {
        Actor::anonymous(self.address)
    }
}

impl Member {
    pub fn dashboard(&self) -> &Dashboard {
        &self.guest.dashboard
    }

    pub fn account(&self) -> &Account {
        &self.session.account
    }

    pub fn actor(&self) -> Actor {
        Actor::account(self.session.account.id, self.guest.address)
    }

    pub fn shell(&self, section: &'static str) -> Shell {
        self.guest.shell(section).of(self.account())
    }

    /// The tenant of a page, with the role that the account has in it. A tenant of others does not exist.
    pub async fn place(&self, tenant: &str) -> Result<Place, Failure> {
        let missing = || Failure::missing("There is no such tenant, or you are no member of it.");
        let id: Uuid = tenant.parse().map_err(|_| missing())?;
        let mut tx = self.dashboard().home.begin_read().await?;
        let role = role_in(&mut tx, id, self.account().id).await?;
        drop(tx);
        let role = role.or(self.account().is_operator.then_some(Role::Operator)).ok_or_else(missing)?;
        let tenant = tenants::find(self.dashboard(), id).await?.ok_or_else(missing)?;
        Ok(Place { tenant, role })
    }
}

/// What a posted form may come from.
pub(super) trait Visitor: FromRequestParts<Arc<Dashboard>> {
    fn form_token(&self) -> String;
}

impl Visitor for Guest {
    fn form_token(&self) -> String {
        cookie::form_token(&self.id)
    }
}

impl Visitor for Member {
    fn form_token(&self) -> String {
        cookie::form_token(&self.guest.id)
    }
}

impl<V: Visitor + Send> FromRequest<Arc<Dashboard>> for Posted<V> {
    type Rejection = Response;

    async fn from_request(request: Request, dashboard: &Arc<Dashboard>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        if !is_ours(&parts.headers, dashboard.config.issuer.as_str()) {
            let text = format!(
                "This form came from another site, or the dashboard was opened under another address than its own. \
                 Open {} and try again.",
                dashboard.config.issuer.as_str()
            );
            return Err(Failure::forbidden(&text).into_response());
        }
        let visitor =
            V::from_request_parts(&mut parts, dashboard).await.map_err(IntoResponse::into_response)?;
        let form = Form::<Vec<(String, String)>>::from_request(Request::from_parts(parts, body), &()).await;
        let Form(fields) = form.map_err(|rejection| {
            let failure = match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => Failure::too_large(),
                _ => Failure::told(&format!("The form can't be read: {}.", rejection.body_text())),
            };
            failure.into_response()
        })?;
        if fields.iter().any(|(_, value)| value.contains('\0')) {
            let text = "A field holds a zero byte, which no text has. Go back, and write it without.";
            return Err(Failure::told(text).into_response());
        }
        let fields = Fields::new(fields);
        if !random::is_same(fields.get("form_token"), &visitor.form_token()) {
            let text = "This page was opened before you logged in or out, or too long ago. Go back, load it again, \
                        and send the form once more.";
            return Err(Failure::forbidden(text).into_response());
        }
        Ok(Self(visitor, fields))
    }
}

/// Whether a POST comes from a page of ours: by `Origin`, which every browser sends with a form. Without one (no browser,
/// or one that hides it) the token in the form decides alone.
pub(in crate::dashboard) fn is_ours(headers: &HeaderMap, issuer: &str) -> bool {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return false;
    }
    let Some(origin) = headers.get(header::ORIGIN).map(text) else { return true };
    // A forwarded port reaches us under another name; a page can't choose the Host that it is asked under.
    let host = headers.get(header::HOST).map(text).unwrap_or_default();
    let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
    origin == issuer || (!host.is_empty() && authority == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_of_another_site_is_not_ours() {
        let issuer = "https://auth.example.com";
        let ours = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            is_ours(&headers.collect(), issuer)
        };
        assert!(ours(&[("origin", issuer)]));
        assert!(ours(&[]));
        assert!(ours(&[("origin", "http://localhost:9000"), ("host", "localhost:9000")]));
        assert!(!ours(&[("origin", "https://evil.example"), ("host", "auth.example.com")]));
        assert!(!ours(&[("origin", "https://auth.example.com.evil.example"), ("host", "auth.example.com")]));
        assert!(!ours(&[("origin", "null"), ("host", "auth.example.com")]));
        assert!(!ours(&[("sec-fetch-site", "cross-site")]));
    }
}
