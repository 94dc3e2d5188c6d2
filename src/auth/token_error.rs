//! Why a token is refused: the one list of checks, and the words a client reads for each.

use uuid::Uuid;

use crate::protocol::close::Refusal;

/// The check that a token failed. The text becomes the reason of close code 4002: it fits a close frame and holds
/// nothing that came with the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("Token is too long")]
    TooLong,
    #[error("Token does not have three parts")]
    Parts,
    #[error("Token is not base64url without padding")]
    Encoding,
    #[error("Token header is not a JSON object")]
    Header,
    #[error("Token header has a duplicate parameter")]
    DuplicateParameter,
    /// `crit`, `b64`, or a key that the token brings along (`jku`, `x5u`, `x5c`, `jwk`).
    #[error("Token header parameter {0} is not allowed")]
    Parameter(&'static str),
    #[error("Token algorithm is not RS256")]
    Algorithm,
    #[error("Token type is not JWT")]
    Type,
    #[error("Token header has no key id")]
    KeyId,
    #[error("Token claims are not a JSON object")]
    Claims,
    /// Worth one refresh of that tenant's keys, then one more try.
    #[error("Token signing key is unknown")]
    UnknownKey { tenant: Uuid, key_id: String },
    #[error("Key revoked")]
    RevokedKey,
    #[error("Token signature is wrong")]
    Signature,
    #[error("Token has a duplicate claim")]
    DuplicateClaim,
    #[error("Token claim {0} is missing")]
    Missing(&'static str),
    #[error("Token claim {0} is malformed")]
    Malformed(&'static str),
    #[error("Token issuer is not the one this node trusts")]
    Issuer,
    #[error("Token audience is not WireSocket.API")]
    Audience,
    #[error("Token scope lacks WireSocket.API")]
    Scope,
    #[error("Token is not valid yet")]
    NotYetValid,
    #[error("Token expired")]
    Expired,
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        Self::InvalidToken(error.to_string().into())
    }
}
