//! The control shard: what is global to a node, on one thread of its own.
//!
//! It answers the node's HTTP requests, decides reservations and ops leases, holds the key sets, watches the load and
//! carries a drain through. Data shards reach it only through [`messages`].
//!
//! Invariants:
//! - One task owns all state (plain values); everything else sends it messages.
//! - It never blocks and never waits for a shard: what a full mailbox gives back is kept within a bound and tried again,
//!   and a shard that stays silent makes the node report `degraded`.
//! - Answers to a shard keep the order of its questions.
//!
//! Not here: documents and sessions ([`crate::engine`]), sockets that speak WebSocket ([`crate::shard`]), what a token
//! must look like ([`crate::auth`]).
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod fleet;
mod handle;
mod http;
mod keys;
mod link;
pub mod messages;
mod metrics;
mod overload;
mod run;
mod settings;
mod state;
mod storage;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod timestamp;

pub use handle::{DrainOutcome, Handle, HandleError, ReloadError};
pub use keys::source::KeyDirError;
pub use link::Mailbox;
pub use overload::{Mark, Marks};
pub use run::{Links, StartError, start};
pub use settings::{
    Bounds, DashboardSettings, HttpBounds, KeyFunctions, KeySettings, Live, MakeVerifier, RevokeKey,
    SetTenant, Settings, TokenRefused, Verify,
};
