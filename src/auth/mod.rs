//! Who may come in: token claims, key sets, verification, its cache, and Origin rules.
//!
//! Invariants: a [`Grant`] exists only for a token whose signature a key of its own tenant has made; the algorithm is
//! fixed by the key, never read from the token; what a refused client reads names the check and nothing it sent.
//!
//! Deliberately absent: where keys come from (files, URLs, revocations: `control`), how a token travels in a request
//! (`shard`), and any clock. One file is not pure: [`sign`] draws keys from the operating system's randomness; it is the
//! other side, for tests, the dev server and the operator's `token` command, and no verifying code calls it.

mod cache;
mod claims;
pub mod grant;
mod json;
pub mod keys;
pub mod origin;
pub mod permissions;
pub mod sign;
pub mod token_error;
pub mod verify;

#[cfg(test)]
mod refusal_tests;

pub use grant::{Grant, Limits};
pub use keys::{Key, KeySets};
pub use origin::OriginError;
pub use permissions::{DocumentPattern, Permissions};
pub use sign::SigningKey;
pub use token_error::TokenError;
pub use verify::{Policy, Verifier};
