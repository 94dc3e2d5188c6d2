//! The one table of close codes: why the server ends or refuses a session, and what the client reads.
//!
//! Codes 1000 to 1015 are those of RFC 6455 section 7.4.1; 4000 to 4999 are private to applications (7.4.2).

use std::borrow::Cow;

/// The longest reason a close frame can carry: 125 bytes of a control frame less two for the code.
pub const REASON_BYTES_MAX: usize = 123;

/// Why a session ends or never begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// 4001: no token in any of the accepted forms.
    MissingToken,
    /// 4002: which check of the token failed. Never the token itself.
    InvalidToken(Cow<'static, str>),
    /// 4003: Origin, tenant or app refused.
    Forbidden(Cow<'static, str>),
    /// 4004: the app's `maxConnections` are in use.
    ConnectionLimit { limit: u32 },
    /// 4005: the app's `maxDocuments` are in use.
    DocumentLimit { limit: u32, active: u32 },
    /// 4006: the app's `opsPerMinute` are spent.
    RateLimit { limit: u32 },
    /// 4007: not a document name.
    InvalidName(Cow<'static, str>),
    /// 4008: the document's `maxUsersPerDoc` are in.
    UserLimit { limit: u32 },
    /// 4009: the document lives in another region; `url` is where.
    Redirect { url: String },
    /// 1002: malformed frames or messages.
    Protocol(Cow<'static, str>),
    /// 1003: a text message, which no Yjs protocol has.
    Unsupported(Cow<'static, str>),
    /// 1007: a well-framed message whose content is not what it claims.
    InvalidPayload(Cow<'static, str>),
    /// 1009: over a size limit.
    TooBig(Cow<'static, str>),
    /// 1011: a fault of the server's own.
    Internal(Cow<'static, str>),
    /// 1012: the node is shutting down; come back after `retry_after_s`.
    Draining { retry_after_s: u32 },
    /// 1013: the node has no room, or the client does not keep up; come back after `retry_after_s`.
    Overloaded { retry_after_s: u32 },
    /// 1000: an ordinary end (the client closed, or was silent for too long).
    Normal(Cow<'static, str>),
}

impl Refusal {
    /// The WebSocket close code.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::Normal(_) => 1000,
            Self::Protocol(_) => 1002,
            Self::Unsupported(_) => 1003,
            Self::InvalidPayload(_) => 1007,
            Self::TooBig(_) => 1009,
            Self::Internal(_) => 1011,
            Self::Draining { .. } => 1012,
            Self::Overloaded { .. } => 1013,
            Self::MissingToken => 4001,
            Self::InvalidToken(_) => 4002,
            Self::Forbidden(_) => 4003,
            Self::ConnectionLimit { .. } => 4004,
            Self::DocumentLimit { .. } => 4005,
            Self::RateLimit { .. } => 4006,
            Self::InvalidName(_) => 4007,
            Self::UserLimit { .. } => 4008,
            Self::Redirect { .. } => 4009,
        }
    }

    /// The code under `permanent_close_codes = true`: y-websocket 3.1 stops reconnecting only on 4400 to 4499.
    #[must_use]
    pub fn permanent_code(&self) -> u16 {
        match self {
            Self::MissingToken | Self::InvalidToken(_) => 4401,
            Self::Forbidden(_) => 4403,
            Self::InvalidName(_) => 4407,
            _ => self.code(),
        }
    }

    /// The HTTP status for a refused upgrade of a client that can read one (RFC 9110).
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Forbidden(_) => 403,
            Self::MissingToken | Self::InvalidToken(_) => 401,
            Self::Draining { .. } | Self::Overloaded { .. } => 503,
            _ => 400,
        }
    }

    /// A short machine-readable name, used in JSON bodies, logs and metric labels.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Normal(_) => "normal",
            Self::Protocol(_) => "protocol_error",
            Self::Unsupported(_) => "unsupported_data",
            Self::InvalidPayload(_) => "invalid_payload",
            Self::TooBig(_) => "too_big",
            Self::Internal(_) => "internal_error",
            Self::Draining { .. } => "draining",
            Self::Overloaded { .. } => "overloaded",
            Self::MissingToken => "missing_token",
            Self::InvalidToken(_) => "invalid_token",
            Self::Forbidden(_) => "forbidden",
            Self::ConnectionLimit { .. } => "connection_limit",
            Self::DocumentLimit { .. } => "document_limit",
            Self::RateLimit { .. } => "rate_limit",
            Self::InvalidName(_) => "invalid_name",
            Self::UserLimit { .. } => "user_limit",
            Self::Redirect { .. } => "wrong_region",
        }
    }

    /// The reason text, as long as a close frame can carry.
    #[must_use]
    pub fn reason(&self) -> String {
        let reason = match self {
            Self::MissingToken => "Missing token".to_owned(),
            Self::InvalidToken(why)
            | Self::Forbidden(why)
            | Self::InvalidName(why)
            | Self::Protocol(why)
            | Self::Unsupported(why)
            | Self::InvalidPayload(why)
            | Self::TooBig(why)
            | Self::Internal(why)
            | Self::Normal(why) => why.clone().into_owned(),
            Self::ConnectionLimit { limit } => format!("Connection limit exceeded: {limit}"),
            Self::DocumentLimit { limit, active } => {
                format!("Document limit exceeded: {limit} (active: {active})")
            }
            Self::RateLimit { limit } => format!("Rate limit exceeded: {limit} ops/min"),
            Self::UserLimit { limit } => format!("Document user limit exceeded: {limit}"),
            Self::Redirect { url } => redirect_reason(url),
            Self::Draining { retry_after_s } => format!("Draining: retry after {retry_after_s} s"),
            Self::Overloaded { retry_after_s } => {
                format!("Overloaded: retry after {retry_after_s} s")
            }
        };
        truncated(reason)
    }
}

/// `REDIRECT:<url>`; a URL that doesn't fit loses its document part, which the client knows anyway.
fn redirect_reason(url: &str) -> String {
    let whole = format!("REDIRECT:{url}");
    if whole.len() <= REASON_BYTES_MAX {
        return whole;
    }
    let authority_starts = url.find("://").map_or(0, |at| at + 3);
    let end = url[authority_starts..].find('/').map_or(url.len(), |at| authority_starts + at);
    format!("REDIRECT:{}", &url[..end])
}

fn truncated(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        let mut end = REASON_BYTES_MAX;
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_those_of_the_contract() {
        assert_eq!(Refusal::ConnectionLimit { limit: 100 }.reason(), "Connection limit exceeded: 100");
        assert_eq!(
            Refusal::DocumentLimit { limit: 5, active: 5 }.reason(),
            "Document limit exceeded: 5 (active: 5)"
        );
        assert_eq!(Refusal::RateLimit { limit: 60 }.reason(), "Rate limit exceeded: 60 ops/min");
        assert_eq!(Refusal::UserLimit { limit: 2 }.reason(), "Document user limit exceeded: 2");
    }

    #[test]
    fn a_redirect_that_does_not_fit_drops_the_document() {
        let url = |document: &str| format!("wss://node-7.aws-us-east-1.example.com/{document}");
        let short = Refusal::Redirect { url: url("notes") };
        assert_eq!(short.reason(), "REDIRECT:wss://node-7.aws-us-east-1.example.com/notes");
        let long = Refusal::Redirect { url: url(&"n".repeat(200)) };
        assert_eq!(long.reason(), "REDIRECT:wss://node-7.aws-us-east-1.example.com");
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let reason = Refusal::InvalidToken("é".repeat(100).into()).reason();
        assert!(reason.len() <= REASON_BYTES_MAX && reason.chars().all(|c| c == 'é'));
    }

    #[test]
    fn permanent_codes_replace_only_what_a_retry_cannot_mend() {
        assert_eq!(Refusal::MissingToken.permanent_code(), 4401);
        assert_eq!(Refusal::Forbidden("x".into()).permanent_code(), 4403);
        assert_eq!(Refusal::RateLimit { limit: 1 }.permanent_code(), 4006);
    }
}
