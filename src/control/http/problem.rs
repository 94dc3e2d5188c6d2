//! Refusals as HTTP answers: `{"code": …, "error": "…", "message": "…"}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::logging::redact_target;
use crate::protocol::close::Refusal;

/// What a request was refused with. `code` is the close code that a WebSocket would have got, else the HTTP status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub status: StatusCode,
    pub code: u16,
    pub error: &'static str,
    pub message: String,
    pub retry_after_s: Option<u32>,
}

impl Problem {
    fn of_status(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Self { status, code: status.as_u16(), error, message: message.into(), retry_after_s: None }
    }

    pub fn too_many_requests() -> Self {
        let message = "too many requests from this address; try again in a minute";
        Self {
            retry_after_s: Some(60),
            ..Self::of_status(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message)
        }
    }

    /// A path may hold a token, where somebody has put one by mistake; answers are logged by others.
    pub fn not_found(path: &str) -> Self {
        let message = format!("there is nothing at {}", redact_target(path));
        Self::of_status(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub fn method_not_allowed() -> Self {
        let message = "this address answers other methods; the Allow header names them";
        Self::of_status(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    /// The control shard is stopping and answers no more questions.
    pub fn stopping() -> Self {
        let message = "this node is stopping; another one will answer";
        Self {
            retry_after_s: Some(1),
            ..Self::of_status(StatusCode::SERVICE_UNAVAILABLE, "draining", message)
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let retry_after_s = match refusal {
            Refusal::Draining { retry_after_s } | Refusal::Overloaded { retry_after_s } => {
                Some(retry_after_s)
            }
            _ => None,
        };
        Self {
            status: StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST),
            code: refusal.code(),
            error: refusal.name(),
            message: refusal.reason(),
            retry_after_s,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "code": self.code, "error": self.error, "message": self.message });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")); // RFC 6750 section 3
        }
        response
    }
}
