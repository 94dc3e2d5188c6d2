//! Who may come in: token claims, key sets, verification, its cache, and Origin rules.

pub mod grant;
pub mod keys;

pub use grant::{Grant, Limits};
