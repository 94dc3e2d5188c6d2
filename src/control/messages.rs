//! Everything the shards and the control shard say to one another. They meet nowhere else.
//!
//! Invariants: nothing on the per-message path of a document waits for an answer; a shard asks at a handshake, at the
//! opening of a document and when its ops lease runs out. Answers to a shard come in the order of its questions, except
//! [`ToShard::KeysRefreshed`], which may have to wait for a fetch.
//!
//! A question may stay unanswered, and is then undecided (nothing is reserved or leased): its shard had left its mailbox
//! full for too long, or the node is stopping. So a shard gives every question a time-out; and if a granted
//! [`ToShard::Reserved`] arrives for a ticket that it has given up, it must send [`ToControl::Release`].

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::auth::Limits;
use crate::auth::keys::KeySets;
pub use crate::engine::event::{ShardIndex, Ticket};
use crate::journal::thread::JournalFigures;
pub use crate::limits::Claim;
use crate::limits::Exceeded;
use crate::protocol::document::AppId;
use crate::shard::metrics::ShardMetrics;
use crate::tls::Session;

/// From a shard, or the journal, to the control shard.
#[derive(Debug)]
pub enum ToControl {
    /// May this claim be held, under the limits of a token that was issued then, or newer ones? Answered by
    /// [`ToShard::Reserved`].
    Reserve { shard: ShardIndex, ticket: Ticket, claim: Claim, limits: Limits, issued_unix_s: u64 },
    /// A claim that was granted is over, however it ended.
    Release { claim: Claim },
    /// A shard wants to let `wanted` more ops of this app through. Answered by [`ToShard::OpsLeased`]. What is leased and
    /// not used is lost to the other shards until the window ends: ask for what is at hand and little more.
    LeaseOps { shard: ShardIndex, app: AppId, ops_per_minute: u32, wanted: u32 },
    /// May this address open one more WebSocket now? Answered by [`ToShard::Admitted`].
    Admit { shard: ShardIndex, ticket: Ticket, ip: IpAddr },
    /// A token names a key that the set lacks. Answered by [`ToShard::KeysRefreshed`] after at most one fetch; if that has
    /// brought new keys, [`ToShard::Keys`] comes before the answer.
    RefreshKeys { shard: ShardIndex, ticket: Ticket, tenant: Uuid, key_id: String },
    /// A request that is not an upgrade, with what was already read of it.
    Http { socket: OwnedFd, tls: Option<Box<Session>>, read: Vec<u8>, peer: IpAddr },
    /// The answer to [`ToShard::Report`].
    Metrics { shard: ShardIndex, metrics: Box<ShardMetrics> },
    /// How the journal is: once a second, and when it fails.
    Journal { figures: Box<JournalFigures> },
    /// Ops that have changed documents since this was last said, by app; behind [`Self::Metrics`] if there were any.
    OpsDone { ops: Vec<(AppId, u64)> },
    /// After the [`ToShard::Drain`] of this number: the last session of this shard is closed.
    Drained { shard: ShardIndex, round: u32 },
}

/// From the control shard to a shard.
#[derive(Debug)]
pub enum ToShard {
    Reserved {
        ticket: Ticket,
        /// The limits that hold for the session: its token's, or newer ones.
        outcome: Result<Limits, Exceeded>,
    },
    /// `granted` ops may pass until the shard's monotonic clock reads `window_ends`; 0 means the limit is spent.
    OpsLeased {
        app: AppId,
        granted: u32,
        window_ends: Duration,
    },
    Admitted {
        ticket: Ticket,
        allowed: bool,
    },
    KeysRefreshed {
        ticket: Ticket,
    },
    /// Replaces the key sets (start-up, rotation, reload, revocation); the first comes before anything else. Sessions
    /// signed by a key that is no longer in the set live on.
    Keys {
        sets: Arc<KeySets>,
    },
    /// Ends every session signed with this key. [`ToShard::Keys`] without it has come before.
    KeyRevoked {
        tenant: Uuid,
        key_id: Arc<str>,
    },
    /// Asks for [`ToControl::Metrics`].
    Report,
    /// Refuse new connections with 1013 while `on`.
    Shed {
        on: bool,
    },
    /// Refuse new sessions, close the living ones with 1012 spread over `over`, then say [`ToControl::Drained`].
    Drain {
        over: Duration,
        /// Rises with every drain, so that the end of an earlier one is not taken for this one's.
        round: u32,
    },
    /// A drain is called off: take new sessions again; those that were not closed yet stay.
    Accept,
    /// Live-reloadable settings changed.
    Settings {
        settings: Arc<crate::config::ShardSettings>,
    },
    /// The process is about to exit: leave the loop.
    Stop,
}
