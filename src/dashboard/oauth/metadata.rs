//! `GET /.well-known/oauth-authorization-server` (RFC 8414).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::json;

use crate::dashboard::Dashboard;
use crate::dashboard::tokens::{API, READ_ONLY};

/// Read the authorization server's metadata
///
/// RFC 8414. There is no `jwks_uri`: each tenant has its own, at `/{tenantId}/.well-known/jwks`.
#[utoipa::path(get, path = "/.well-known/oauth-authorization-server", tag = super::TAG,
    operation_id = "readAuthorizationServer", security(()),
    responses((status = 200, description = "The metadata", body = Object)))]
pub(super) async fn endpoint(State(dashboard): State<Arc<Dashboard>>) -> impl IntoResponse {
    let issuer = dashboard.config.issuer.as_str();
    let mut grants = vec!["client_credentials", "refresh_token"];
    if !dashboard.config.tokens.password_clients.is_empty() {
        grants.push("password");
    }
    let document = json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/connect/token"),
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "revocation_endpoint": format!("{issuer}/connect/revocation"),
        "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "introspection_endpoint": format!("{issuer}/connect/introspect"),
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic"],
        "grant_types_supported": grants,
        "response_types_supported": [], // there is no authorization endpoint
        "scopes_supported": [API, READ_ONLY, "offline_access"],
    });
    ([(header::CACHE_CONTROL, "public, max-age=3600")], Json(document))
}
