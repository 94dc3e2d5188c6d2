//! Which client asks, and whether it is the one it says: RFC 6749 section 2.3.

use std::net::IpAddr;

use axum::http::HeaderMap;

use super::error::OAuthError;
use super::form::{Fields, basic, form_decoded};
use crate::dashboard::Dashboard;
use crate::dashboard::apps::{self, App};
use crate::dashboard::random;

/// What a request says of its client.
pub(super) struct ClientClaim {
    pub id: String,
    secret: Option<String>,
}

impl ClientClaim {
    /// From HTTP Basic or the form; both at once is one method too many.
    pub fn of(headers: &HeaderMap, fields: &Fields) -> Result<Self, OAuthError> {
        let (id, secret) = (fields.get("client_id"), fields.get("client_secret"));
        let Some((user, password)) = basic(headers)? else {
            let id = id.ok_or_else(OAuthError::client_missing)?.to_owned();
            return Ok(Self { id, secret: secret.map(ToOwned::to_owned) });
        };
        let decoded = form_decoded(&user).zip(form_decoded(&password));
        let (user, password) = decoded
            .ok_or_else(|| OAuthError::invalid_request("the Authorization header is not form-encoded"))?;
        if secret.is_some() || id.is_some_and(|id| id != user) {
            let description = "the client authenticates twice: use the form or HTTP Basic, not both";
            return Err(OAuthError::invalid_request(description));
        }
        Ok(Self { id: user, secret: Some(password).filter(|password| !password.is_empty()) })
    }

    /// The app, if the secret is its own.
    pub async fn authenticate(
        &self,
        dashboard: &Dashboard,
        address: Option<IpAddr>,
    ) -> Result<App, OAuthError> {
        self.check(dashboard, address, true).await
    }

    /// The app, without a secret; one that is given must be right.
    pub async fn identify(&self, dashboard: &Dashboard, address: Option<IpAddr>) -> Result<App, OAuthError> {
        self.check(dashboard, address, false).await
    }

    async fn check(
        &self,
        dashboard: &Dashboard,
        address: Option<IpAddr>,
        secret_required: bool,
    ) -> Result<App, OAuthError> {
        dashboard.may_try(address, &self.id).map_err(OAuthError::too_many_failures)?;
        let app = apps::by_client_id(dashboard, &self.id).await?;
        let is_right = |app: &App| match &self.secret {
            Some(secret) => random::is_same(&random::fingerprint(secret), &app.secret_hash),
            None => !secret_required,
        };
        match app.filter(is_right) {
            Some(app) => Ok(app),
            None => {
                dashboard.count_failure(address, &self.id);
                Err(OAuthError::invalid_client())
            }
        }
    }
}
