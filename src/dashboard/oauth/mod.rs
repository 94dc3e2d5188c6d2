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

mod client;
mod error;
mod form;
mod introspection;
mod metadata;
pub(super) mod refresh;
mod revocation;
mod token;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use super::Dashboard;

/// Forms here hold a few short fields and at most one token.
const FORM_BYTES_MAX: usize = 64 << 10;

pub(super) fn router() -> Router<Arc<Dashboard>> {
    Router::new()
        .route("/connect/token", post(token::endpoint))
        .route("/connect/revocation", post(revocation::endpoint))
        .route("/connect/introspect", post(introspection::endpoint))
        .route("/.well-known/oauth-authorization-server", get(metadata::endpoint))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
}
