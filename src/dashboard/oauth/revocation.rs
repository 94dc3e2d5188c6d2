//! `POST /connect/revocation` (RFC 7009): a client gives a refresh token back, and with it the token's whole family.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use utoipa::ToSchema;

use super::OAuthRefusal;
use super::client::ClientClaim;
use super::error::OAuthError;
use super::form::{Fields, FormBody};
use super::refresh;
use crate::dashboard::Dashboard;
use crate::dashboard::access::Actor;
use crate::dashboard::http::Client;

/// What is given back.
#[derive(ToSchema)]
#[allow(dead_code, reason = "names the form's fields, for the document")]
pub(super) struct TokenInHand {
    /// A refresh token; introspection takes an access token as well.
    token: String,
    /// `refresh_token`; found out without it.
    token_type_hint: Option<String>,
    /// Here, or as HTTP Basic.
    client_id: Option<String>,
}

/// Give a refresh token back
///
/// RFC 7009. Its whole family ends. A token that is unknown is as good as revoked: 200.
#[utoipa::path(post, path = "/connect/revocation", tag = super::TAG, operation_id = "revokeToken",
    request_body(content = TokenInHand, content_type = "application/x-www-form-urlencoded"),
    security(("client" = []), ()), responses(
        (status = 200, description = "Worth nothing any more"),
        (status = 400, description = "Not a refresh token", body = OAuthRefusal),
        (status = 401, description = "The client is not who it says", body = OAuthRefusal),
        (status = 429, description = "Too many failures; Retry-After says how long to wait", body = OAuthRefusal)))]
pub(super) async fn endpoint(
    State(dashboard): State<Arc<Dashboard>>,
    Client(address): Client,
    headers: HeaderMap,
    body: FormBody,
) -> Result<StatusCode, OAuthError> {
    let fields = Fields::of(body)?;
    let token = fields.required("token")?;
    // As at the token endpoint, whoever has the token needs no secret to use it; one that is given must be right.
    let app = ClientClaim::of(&headers, &fields)?.identify(&dashboard, address).await?;
    if !refresh::is_refresh_token(token) {
        return match token.matches('.').count() {
            2 => Err(OAuthError::unsupported_token_type()),
            _ => Ok(StatusCode::OK), // section 2.2: a token that does not exist is as good as revoked
        };
    }
    if let Some(database) = refresh::database_of_token(&dashboard, token)
        && let Some(found) = refresh::look(&dashboard, database, token).await?
        && found.app == app.id
    {
        refresh::revoke_family(&dashboard, &Actor::anonymous(address), &app, &found).await?;
    }
    Ok(StatusCode::OK)
}
