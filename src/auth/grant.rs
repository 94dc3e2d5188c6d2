//! What a verified token allows, parsed once: past this point nobody looks at a claim again.

use smallvec::SmallVec;

use super::permissions::Permissions;
use crate::protocol::document::AppId;

/// The four limits of a plan, as the token carries them. All are positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub connections_max: u32,
    pub documents_max: u32,
    pub users_per_document_max: u32,
    pub ops_per_minute: u32,
}

/// The rights of whoever holds one verified token. Shared (`Arc`) by all sessions that came with that token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub app: AppId,
    /// The app's `client_id` (`sub`).
    pub client_id: Box<str>,
    /// The key that signed the token: a revocation names it.
    pub key_id: Box<str>,
    pub limits: Limits,
    pub permissions: Permissions,
    /// `licenseRegionCode`.
    pub region: Box<str>,
    /// `dbCode`.
    pub db_code: Box<str>,
    /// `allowed_domain_1..3`, lower-cased, as they are compared with an Origin's authority.
    pub allowed_domains: SmallVec<[Box<str>; 3]>,
    /// `iat`, seconds since the Unix epoch; 0 if the token does not say.
    pub issued_unix_s: u64,
    /// `exp`, seconds since the Unix epoch; leeway not included.
    pub expires_unix_s: u64,
    /// `jti`, for logs; tokens may lack it.
    pub token_id: Option<Box<str>>,
}
