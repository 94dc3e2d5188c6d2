//! One thing as it is now, with an ETag; and what a change must show of it.
//!
//! The tag is a hash of the representation, so whoever has the tag has seen exactly this. The change itself is again
//! conditional, on the version that the row had: two who pass the check at once don't overwrite each other.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Problem;
use crate::dashboard::{Dashboard, random};

/// 132 bits of the hash.
const TAG_CHARS: usize = 22;

/// Rendered with its ETag.
pub(super) struct Entity<T>(pub T);

impl<T: Serialize> IntoResponse for Entity<T> {
    fn into_response(self) -> Response {
        respond(StatusCode::OK, &self.0, None)
    }
}

/// Something new, with the address at which it can be read.
pub(super) fn created<T: Serialize>(thing: &T, location: &str) -> Response {
    respond(StatusCode::CREATED, thing, Some(location))
}

/// An answer that is nobody's to keep: it has a secret, or is no thing.
pub(super) fn uncached<T: Serialize>(status: StatusCode, thing: &T) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], axum::Json(thing)).into_response()
}

fn respond<T: Serialize>(status: StatusCode, thing: &T, location: Option<&str>) -> Response {
    let mut response =
        (status, [(header::CACHE_CONTROL, "private, no-cache")], axum::Json(thing)).into_response();
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::try_from(tag(thing)) {
        headers.insert(header::ETAG, tag);
    }
    if let Some(location) = location.and_then(|location| HeaderValue::try_from(location).ok()) {
        headers.insert(header::LOCATION, location);
    }
    response
}

fn tag<T: Serialize>(thing: &T) -> String {
    let text = serde_json::to_string(thing).unwrap_or_default();
    let hash: String = random::fingerprint(&text).chars().take(TAG_CHARS).collect();
    format!("\"{hash}\"")
}

/// `If-Match`, which a change must have.
pub(super) struct IfMatch(String);

impl FromRequestParts<Arc<Dashboard>> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Dashboard>) -> Result<Self, Problem> {
        let values = parts.headers.get_all(header::IF_MATCH).iter().filter_map(|value| value.to_str().ok());
        let values: Vec<_> = values.collect();
        if values.is_empty() { Err(Problem::etag_required()) } else { Ok(Self(values.join(","))) }
    }
}

impl IfMatch {
    /// # Errors
    /// 412 unless this is what the caller has seen. A weak tag is never enough (RFC 9110 section 13.1.1).
    pub fn check<T: Serialize>(&self, thing: &T) -> Result<(), Problem> {
        let tag = tag(thing);
        let is_seen = self.0.split(',').map(str::trim).any(|seen| seen == "*" || seen == tag);
        if is_seen { Ok(()) } else { Err(Problem::changed()) }
    }
}

/// The response, or 304 if `If-None-Match` names it: weak comparison.
pub(super) fn not_modified(seen: &HeaderValue, response: Response) -> Response {
    let tag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
    let (Some(tag), Ok(seen), StatusCode::OK) = (tag, seen.to_str(), response.status()) else {
        return response;
    };
    let is_seen = |seen: &str| seen == "*" || seen.strip_prefix("W/").unwrap_or(seen) == tag;
    if !seen.split(',').map(str::trim).any(is_seen) {
        return response;
    }
    let mut unchanged = StatusCode::NOT_MODIFIED.into_response();
    for name in [header::ETAG, header::CACHE_CONTROL] {
        if let Some(value) = response.headers().get(&name) {
            unchanged.headers_mut().insert(name, value.clone());
        }
    }
    unchanged
}
