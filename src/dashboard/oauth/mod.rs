//! OAuth 2: the token endpoint and what belongs to it.
//!
//! | path | specification |
//! | --- | --- |
//! | `POST /connect/token` | RFC 6749: `client_credentials`, `refresh_token`, `password` (trusted first-party clients) |
//! | `POST /connect/revocation` | RFC 7009, refresh tokens |
//! | `POST /connect/introspect` | RFC 7662, for operators |
//! | `GET /.well-known/oauth-authorization-server` | RFC 8414 |
//!
//! Credentials that are right but entitle to nothing (no active plan, a tenant that is not active) are answered
//! `unauthorized_client`: of RFC 6749's errors the one that says "known, but may not", and that tells a client library not
//! to retry with other credentials. A refresh token is not spent by it.
//!
//! The management API's OpenAPI document describes these routes too, under the tag [`TAG`].

mod client;
mod error;
mod form;
mod introspection;
mod metadata;
pub(super) mod refresh;
mod revocation;
mod token;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Dashboard;

/// Forms here hold a few short fields and at most one token.
const FORM_BYTES_MAX: usize = 64 << 10;

/// Of these routes in the OpenAPI document.
pub(super) const TAG: &str = "tokens";

pub(super) fn routes() -> OpenApiRouter<Arc<Dashboard>> {
    OpenApiRouter::new()
        .routes(routes!(token::endpoint))
        .routes(routes!(revocation::endpoint))
        .routes(routes!(introspection::endpoint))
        .routes(routes!(metadata::endpoint))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
}

/// A refusal (RFC 6749 section 5.2).
#[derive(ToSchema)]
#[allow(dead_code, reason = "names what the answer is made of, for the document")]
#[schema(example = json!({ "error": "invalid_grant",
    "error_description": "this refresh token is unknown, expired or revoked; get a new one with the client secret" }))]
struct OAuthRefusal {
    /// `invalid_request`, `invalid_client`, `invalid_grant`, `invalid_scope`, `unauthorized_client`,
    /// `unsupported_grant_type`, `unsupported_token_type`, `temporarily_unavailable` or `server_error`.
    error: String,
    /// What to do about it.
    error_description: String,
}
