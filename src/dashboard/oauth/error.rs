//! Errors of the token endpoint: RFC 6749 section 5.2.

use std::fmt::Display;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::dashboard::keys::KeysError;
use crate::dashboard::signer::SignerError;
use crate::dashboard::store::StoreError;
use crate::dashboard::tokens::TokenError;

/// What a request is refused with.
#[derive(Debug)]
pub(super) struct OAuthError {
    status: StatusCode,
    error: &'static str,
    description: String,
    retry_after_s: Option<i64>,
}

impl OAuthError {
    fn new(status: StatusCode, error: &'static str, description: impl Display) -> Self {
        // Section 5.2 allows printable ASCII without quotes and backslashes.
        let allowed = |c: char| matches!(c, ' '..='~') && c != '"' && c != '\\';
        let description = description.to_string().replace('"', "'").chars().filter(|&c| allowed(c)).collect();
        Self { status, error, description, retry_after_s: None }
    }

    pub fn invalid_request(description: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    /// The same for an unknown client as for a wrong secret.
    pub fn invalid_client() -> Self {
        let description = "client_id and client_secret don't belong together; copy both from the app's page. A secret \
                           that was regenerated makes the one before invalid at once";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_client", description)
    }

    pub fn client_missing() -> Self {
        let description =
            "no client is named: send client_id and client_secret in the form, or as HTTP Basic";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_client", description)
    }

    pub fn invalid_grant(description: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_grant", description)
    }

    pub fn invalid_scope(description: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_scope", description)
    }

    pub fn unauthorized_client(description: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "unauthorized_client", description)
    }

    pub fn unsupported_grant_type(given: &str) -> Self {
        let given: String = given.chars().take(40).collect();
        let description =
            format!("grant_type {given} is not known here; use client_credentials or refresh_token");
        Self::new(StatusCode::BAD_REQUEST, "unsupported_grant_type", description)
    }

    pub fn unsupported_token_type() -> Self {
        let description = "an access token can't be revoked, it expires within minutes; to end sessions at once \
                           revoke the tenant's signing key";
        Self::new(StatusCode::BAD_REQUEST, "unsupported_token_type", description)
    }

    pub fn too_many_failures(retry_after_s: i64) -> Self {
        let description = "too many failed attempts; wait as long as the Retry-After header says";
        Self {
            retry_after_s: Some(retry_after_s.max(1)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable", description)
        }
    }

    pub fn operators_only() -> Self {
        let description =
            "introspection is for operators: send the operator's e-mail address and password as HTTP Basic";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_client", description)
    }

    fn overloaded(error: &SignerError) -> Self {
        Self {
            retry_after_s: Some(1),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", error)
        }
    }

    /// Ours to mend, so the cause goes to the log and not to the client.
    fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        tracing::error!(%error, ?causes, "a token request failed");
        let description = "the authorization server failed; its operator finds the cause in the log";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", description)
    }
}

impl From<StoreError> for OAuthError {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<sqlx::Error> for OAuthError {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl From<TokenError> for OAuthError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::NoPlan | TokenError::Unpaid | TokenError::TenantState(_) => {
                Self::unauthorized_client(error)
            }
            TokenError::Signer(error @ SignerError::Overloaded)
            | TokenError::Key(KeysError::Signer(error @ SignerError::Overloaded)) => Self::overloaded(&error),
            error => Self::internal(&error),
        }
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.error, "error_description": self.description });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"WireSocket\", charset=\"UTF-8\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
