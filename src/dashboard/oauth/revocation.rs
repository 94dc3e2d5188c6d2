//! `POST /connect/revocation` (RFC 7009): a client gives a refresh token back, and with it the token's whole family.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};

use super::client::ClientClaim;
use super::error::OAuthError;
use super::form::{Fields, FormBody};
use super::refresh;
use crate::dashboard::Dashboard;
use crate::dashboard::access::Actor;
use crate::dashboard::http::Client;

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
