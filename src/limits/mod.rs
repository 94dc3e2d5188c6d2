//! Limits, kept exactly: the ledger of reservations, ops windows, per-IP buckets.

/// Which limit a claim would have exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    #[error("connection limit of {limit} is in use")]
    Connections { limit: u32 },
    #[error("document limit of {limit} is in use (active: {active})")]
    Documents { limit: u32, active: u32 },
}
