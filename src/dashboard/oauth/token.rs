//! `POST /connect/token`: the three grants.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use utoipa::ToSchema;

use super::OAuthRefusal;
use super::client::ClientClaim;
use super::error::OAuthError;
use super::form::{Fields, FormBody};
use super::refresh;
use crate::auth::DocumentPattern;
use crate::auth::permissions::DOCUMENTS_MAX;
use crate::dashboard::access::Actor;
use crate::dashboard::apps::App;
use crate::dashboard::http::Client;
use crate::dashboard::tokens::{self, API, Access, AccessToken, READ_ONLY};
use crate::dashboard::{Dashboard, accounts, tenants};

/// The scope that asks for a refresh token.
const OFFLINE: &str = "offline_access";

/// The longest field `documents`: a token has to fit into a request's head.
const DOCUMENTS_BYTES_MAX: usize = 4096;

/// What a grant is asked for with.
#[derive(ToSchema)]
#[allow(dead_code, reason = "names the form's fields, for the document")]
#[schema(example = json!({ "grant_type": "client_credentials", "client_id": "euw1-7k2m9qpxw4c8v3n5t6h1",
    "client_secret": "wss_m3RkYw0n8m2mVv1jJm0t1nq3Yk0b4h5c6d7e8f9g0h1", "scope": "WireSocket.API offline_access" }))]
struct TokenRequest {
    /// `client_credentials`, `refresh_token`, or `password` (trusted first-party clients only).
    grant_type: String,
    /// Here, or as HTTP Basic.
    client_id: Option<String>,
    /// Here, or as HTTP Basic. A refresh needs none.
    client_secret: Option<String>,
    /// Must have `WireSocket.API`; with `offline_access` there is a refresh token as well; with `WireSocket.ReadOnly` the
    /// token changes nothing.
    scope: Option<String>,
    /// Of our own, for all but `refresh_token`: the documents that the tokens open, names and prefixes (`minutes-*`) with
    /// spaces between. Without it, every document of the app.
    documents: Option<String>,
    /// For `refresh_token`; good once.
    refresh_token: Option<String>,
    /// For `password`.
    username: Option<String>,
    /// For `password`.
    password: Option<String>,
}

/// Tokens (RFC 6749 section 5.1).
#[derive(ToSchema)]
#[allow(dead_code, reason = "names what the answer is made of, for the document")]
#[schema(example = json!({ "access_token": "eyJhbGciOiJSUzI1NiIs…", "token_type": "Bearer", "expires_in": 900,
    "scope": "WireSocket.API offline_access", "refresh_token": "wsr_euw1_m3RkYw0n8m2mVv1jJm0t1nq3Yk0b4h5c6d7e8f9g0h1" }))]
struct TokenAnswer {
    /// A JWT that nodes take.
    access_token: String,
    token_type: String,
    /// Seconds.
    expires_in: i64,
    /// What was granted.
    scope: String,
    /// If `offline_access` was granted. It is good for seven days and one use; the use of a spent one ends its family.
    refresh_token: Option<String>,
}

/// Get tokens
///
/// RFC 6749: client credentials, refresh tokens. The client authenticates in the form or with HTTP Basic, not both.
#[utoipa::path(post, path = "/connect/token", tag = super::TAG, operation_id = "getToken",
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    security(("client" = []), ()), responses(
        (status = 200, description = "Granted", body = TokenAnswer),
        (status = 400, description = "What was asked for can't be granted", body = OAuthRefusal),
        (status = 401, description = "The client is not who it says", body = OAuthRefusal),
        (status = 429, description = "Too many failures; Retry-After says how long to wait", body = OAuthRefusal),
        (status = 503, description = "Too many tokens are being signed; ask again", body = OAuthRefusal)))]
pub(super) async fn endpoint(
    State(dashboard): State<Arc<Dashboard>>,
    Client(address): Client,
    headers: HeaderMap,
    body: FormBody,
) -> Result<Response, OAuthError> {
    let fields = Fields::of(body)?;
    let request = Request { dashboard: &dashboard, address, fields: &fields, headers: &headers };
    match fields.required("grant_type")? {
        "client_credentials" => request.client_credentials().await,
        "refresh_token" => request.refresh_token().await,
        "password" => request.password().await,
        other => Err(OAuthError::unsupported_grant_type(other)),
    }
}

struct Request<'a> {
    dashboard: &'a Dashboard,
    address: Option<IpAddr>,
    fields: &'a Fields,
    headers: &'a HeaderMap,
}

impl Request<'_> {
    async fn client_credentials(&self) -> Result<Response, OAuthError> {
        let client = ClientClaim::of(self.headers, self.fields)?;
        let app = client.authenticate(self.dashboard, self.address).await?;
        self.first_tokens(&app).await
    }

    /// For apps of the platform's own, whose users are members of the app's tenant (or operators).
    async fn password(&self) -> Result<Response, OAuthError> {
        let client = ClientClaim::of(self.headers, self.fields)?;
        let app = client.authenticate(self.dashboard, self.address).await?;
        if !self.dashboard.config.tokens.password_clients.contains(&app.client_id) {
            let description = "the password grant is for trusted first-party clients; use client_credentials";
            return Err(OAuthError::unauthorized_client(description));
        }
        let (user, password) = (self.fields.required("username")?, self.fields.required("password")?);
        let attempt =
            self.dashboard.begin_attempt(self.address, user).map_err(OAuthError::too_many_failures)?;
        let wrong = || {
            OAuthError::invalid_grant("user name and password don't belong together, or not to this tenant")
        };
        let Some(account) = accounts::authenticate(self.dashboard, user, password).await? else {
            return Err(wrong());
        };
        attempt.succeeded();
        let memberships = tenants::of_account(self.dashboard, account.id).await?;
        if !account.is_operator && !memberships.iter().any(|(tenant, _)| tenant.id == app.tenant) {
            return Err(wrong());
        }
        if account.must_change_password {
            return Err(OAuthError::invalid_grant(
                "this is a one-time password; choose one of your own in the dashboard",
            ));
        }
        self.first_tokens(&app).await
    }

    async fn first_tokens(&self, app: &App) -> Result<Response, OAuthError> {
        let asked = self.fields.get("scope").unwrap_or_default();
        let scope = granted(asked, &[API, READ_ONLY, OFFLINE])?;
        let access = Access { scope, documents: self.documents()? };
        let plan = tokens::entitlement(self.dashboard, app).await?;
        let token = tokens::issue(self.dashboard, app, &plan, &access).await?;
        let refresh = match has(&access.scope, OFFLINE) {
            true => Some(refresh::begin_family(self.dashboard, app, &access).await?),
            false => None,
        };
        Ok(answer(&token, refresh.as_deref(), &access.scope))
    }

    /// The field `documents`, of our own: the names and prefixes that the token is to open.
    fn documents(&self) -> Result<Option<String>, OAuthError> {
        let Some(field) = self.fields.get("documents") else { return Ok(None) };
        if field.len() > DOCUMENTS_BYTES_MAX {
            return Err(OAuthError::invalid_request(format!(
                "documents has {} bytes; at most {DOCUMENTS_BYTES_MAX} fit into a token: name a prefix, as in minutes-*",
                field.len()
            )));
        }
        let patterns: Vec<&str> = field.split_whitespace().collect();
        if patterns.len() > DOCUMENTS_MAX {
            return Err(OAuthError::invalid_request(format!(
                "documents has {} entries; a token takes {DOCUMENTS_MAX}: name a prefix, as in minutes-*",
                patterns.len()
            )));
        }
        for pattern in &patterns {
            pattern.parse::<DocumentPattern>().map_err(|error| {
                OAuthError::invalid_request(format!(
                    "documents is a list of names and prefixes (minutes-*) with spaces between: {error}"
                ))
            })?;
        }
        Ok(Some(patterns.join(" ")))
    }

    async fn refresh_token(&self) -> Result<Response, OAuthError> {
        let client = ClientClaim::of(self.headers, self.fields)?;
        let spent = self.fields.required("refresh_token")?;
        let app = client.identify(self.dashboard, self.address).await?;
        let wrong = || {
            self.dashboard.count_failure(self.address, &client.id);
            OAuthError::invalid_grant(
                "this refresh token is unknown, expired or revoked; get a new one with the client secret",
            )
        };
        let database = refresh::database_of_token(self.dashboard, spent).ok_or_else(wrong)?;
        let found = refresh::look(self.dashboard, database, spent).await?;
        let found = found.filter(|found| found.app == app.id).ok_or_else(wrong)?;
        if self.fields.get("documents").is_some() {
            return Err(OAuthError::invalid_request(
                "documents was chosen with the first token; leave it out, or get a new one with the client secret",
            ));
        }
        let access = narrowed(self.fields.get("scope"), found.access.clone())?;
        // What can be refused or fail comes before the token is spent: a client must not lose it for nothing.
        let plan = tokens::entitlement(self.dashboard, &app).await?;
        let token = match refresh::is_spent(database, &found).await? {
            true => None,
            false => Some(tokens::issue(self.dashboard, &app, &plan, &access).await?),
        };
        let actor = Actor::anonymous(self.address);
        let next = refresh::spend(self.dashboard, &actor, &app, &found).await?;
        let token = token.ok_or_else(wrong)?;
        Ok(answer(&token, Some(&next), &access.scope))
    }
}

/// What a refreshed token allows: of what the first one did, as much as is asked for (RFC 6749 section 6). Whoever may
/// only read can't refresh that away.
fn narrowed(asked: Option<&str>, before: Access) -> Result<Access, OAuthError> {
    let Some(asked) = asked else { return Ok(before) };
    let must = if has(&before.scope, READ_ONLY) { READ_ONLY } else { "" };
    let possible: Vec<&str> = before.scope.split(' ').collect();
    let scope = granted(&format!("{asked} {must}"), &possible)?;
    Ok(Access { scope, ..before })
}

/// The words of `asked` that can be had. What is unknown is left out (RFC 6749 section 3.3), the answer says what is
/// granted; without the API itself there is nothing to grant.
fn granted(asked: &str, possible: &[&str]) -> Result<String, OAuthError> {
    let words: Vec<&str> = possible.iter().copied().filter(|word| has(asked, word)).collect();
    if words.contains(&API) {
        return Ok(words.join(" "));
    }
    Err(OAuthError::invalid_scope(format!(
        "ask for scope={API}, and for {OFFLINE} as well to get a refresh token"
    )))
}

fn has(scope: &str, word: &str) -> bool {
    scope.split(' ').any(|each| each == word)
}

fn answer(access: &AccessToken, refresh_token: Option<&str>, scope: &str) -> Response {
    let mut body = json!({
        "access_token": access.token,
        "token_type": "Bearer",
        "expires_in": access.expires_in_s,
        "scope": scope,
    });
    if let Some(token) = refresh_token {
        body["refresh_token"] = token.into();
    }
    let uncached = [(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")];
    (uncached, Json(body)).into_response()
}
