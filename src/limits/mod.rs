//! Limits, kept exactly: the ledger of reservations, ops windows, per-IP buckets; and what is reported of them.
//!
//! Everything here is plain values and arithmetic; time comes in as an argument. One owner (the control shard) holds the
//! node's one [`Ledger`], one [`OpsWindows`] and one [`Buckets`], so nothing here locks.
//!
//! Not here: users per document (the document's own shard counts them), close codes ([`crate::protocol::close`]), and
//! anything that outlives the process.

pub mod buckets;
pub mod ledger;
pub mod level;
pub mod metering;
pub mod network;
pub mod ops;
pub mod pushed;

pub use buckets::{Bucket, Buckets, Rates, client_of};

pub use ledger::{Claim, Exceeded, Ledger, Totals, Usage};
pub use level::Level;
pub use metering::{AppReport, Meter, Report};
pub use network::{Network, NetworkError, client_address};
pub use ops::{Lease, OpsWindows};
pub use pushed::PushedLimits;
