//! Refusals as problem details (RFC 9457).
//!
//! `type` is `about:blank` where the status says it all, else one of the names below `urn:wiresocket:problem:`, which
//! stay. `errors` says for each wrong member of the body where it is (a JSON pointer) and what is wrong with it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::dashboard::store::StoreError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::dashboard) struct Problem {
    pub status: StatusCode,
    /// The last part of the type's name; empty: `about:blank`.
    pub kind: &'static str,
    pub title: &'static str,
    pub detail: String,
    pub errors: Vec<FieldError>,
    pub retry_after_s: Option<i64>,
}

/// What is wrong with one member of a request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::dashboard) struct FieldError {
    /// RFC 6901, such as `/allowedDomains/0`.
    pub pointer: String,
    pub detail: String,
}

impl Problem {
    fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind: "", title, detail: detail.into(), errors: Vec::new(), retry_after_s: None }
    }

    fn of_kind(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found", detail)
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Bad request", detail)
    }

    /// A member of the body is not what it must be.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let errors = vec![FieldError { pointer: pointer.into(), detail: detail.clone() }];
        Self { errors, ..Self::unprocessable(detail).of_kind("invalid-body") }
    }

    /// The request is understood, and can't be carried out as it is.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Unprocessable content", detail)
    }

    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", detail)
    }

    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", detail)
    }

    /// What is there already, or its state, is in the way.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "Conflict", detail)
    }

    /// What a preview showed is no longer what it would cost.
    pub fn stale_quote(detail: impl Into<String>) -> Self {
        Self::conflict(detail).of_kind("stale-quote")
    }

    pub fn changed() -> Self {
        let detail = "it was changed by somebody else in the meantime: load it again, and send its new ETag";
        Self::new(StatusCode::PRECONDITION_FAILED, "Precondition failed", detail).of_kind("changed")
    }

    pub fn etag_required() -> Self {
        let detail = "send If-Match with the ETag that you read, so that nobody's change is overwritten";
        Self::new(StatusCode::PRECONDITION_REQUIRED, "Precondition required", detail).of_kind("etag-required")
    }

    pub fn too_large(bytes_max: usize) -> Self {
        let detail = format!("the body is larger than {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "Content too large", detail)
    }

    pub fn wrong_media_type() -> Self {
        let detail = "send JSON, with Content-Type: application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type", detail)
    }

    pub fn idempotency_key_reused() -> Self {
        let detail = "this Idempotency-Key was used for another request; take a new one for each";
        Self::unprocessable(detail).of_kind("idempotency-key-reused")
    }

    pub fn idempotency_key_in_use() -> Self {
        let detail = "a request with this Idempotency-Key is being carried out, or was when the dashboard stopped: ask \
                      again in a moment, then look whether it took effect";
        Self::conflict(detail).of_kind("idempotency-key-in-use")
    }

    pub fn bad_gateway(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "Bad gateway", detail)
    }

    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", detail)
    }

    pub fn method_not_allowed() -> Self {
        let detail = "this address answers other methods; the Allow header names them";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail)
    }

    pub fn too_many_requests(retry_after_s: i64) -> Self {
        let detail = "too many requests from this address or with this key; wait as long as the Retry-After header says";
        Self {
            retry_after_s: Some(retry_after_s.max(1)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests", detail)
        }
    }

    /// Ours to mend: the cause goes to the log and not to the client.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        tracing::error!(%error, ?causes, "a request failed");
        let detail = "the dashboard failed; its operator finds the cause in the log";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error", detail)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let kind = match self.kind {
            "" => "about:blank".to_owned(),
            kind => format!("urn:wiresocket:problem:{kind}"),
        };
        let mut body = json!({
            "type": kind,
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if !self.errors.is_empty() {
            let each = |error: &FieldError| json!({ "pointer": error.pointer, "detail": error.detail });
            body["errors"] = self.errors.iter().map(each).collect();
        }
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
