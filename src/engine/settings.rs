//! The bounds and times of the engine. Every queue and buffer it owns is limited by one of these.

use std::time::Duration;

use crate::auth::Grant;
use crate::journal::Retention;
use crate::time::Now;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Largest WebSocket message accepted after authentication (1009).
    pub message_bytes_max: usize,
    /// Largest WebSocket message accepted before it.
    pub unauthenticated_bytes_max: usize,
    /// Largest encoded state of one document; an update that would pass it is refused (1009).
    pub document_bytes_max: usize,
    /// Updates whose dependencies a document lacks are parked up to this many bytes per document.
    pub parked_bytes_max: usize,
    /// Largest awareness state of one client.
    pub awareness_bytes_max: usize,
    /// Awareness clients one session may introduce.
    pub awareness_clients_max: usize,
    /// Documents one Hocuspocus socket may carry.
    pub documents_per_connection_max: usize,
    /// How long a document outlives its last session.
    pub grace_period: Duration,
    /// A connection that was sent nothing for this long gets a keep-alive message (y-websocket gives up after 30 s without data).
    pub keep_alive_interval: Duration,
    /// A connection from which nothing at all came for this long gets a WebSocket ping.
    pub ping_interval: Duration,
    /// A connection from which nothing at all came for this long is closed.
    pub idle_timeout: Duration,
    /// A socket that has not named a document and authenticated by then is closed.
    pub authentication_timeout: Duration,
    /// An awareness state that was not renewed for this long is removed.
    pub awareness_timeout: Duration,
    /// A document without updates for this long keeps encoded state instead of a live CRDT.
    pub shrink_after: Duration,
    /// A receiver that takes nothing of its queue for this long is closed (1013).
    pub stall_timeout: Duration,
    /// How long before a token's end a Hocuspocus client is asked for a new one.
    pub renew_before: Duration,
    /// Whether a session ends with its token.
    pub close_on_token_expiry: bool,
    /// Clock leeway for token times; the verifier uses the same.
    pub leeway: Duration,
    /// Whether who may not write is seen: cursor, name, selection.
    pub read_only_awareness: bool,
    /// Whether a request without an Origin is refused.
    pub require_origin: bool,
    /// How long the journal keeps a document; none: there is no journal.
    pub retention: Option<Retention>,
    /// What may wait for the journal; past it, who sends an update is told to come back later (1013).
    pub journal_backlog_bytes_max: usize,
}

impl Settings {
    /// For how long a token still counts, in seconds: until its `exp`, and the clock leeway.
    #[must_use]
    pub fn token_left_s(&self, grant: &Grant, now: Now) -> u64 {
        grant.expires_unix_s.saturating_add(self.leeway.as_secs()).saturating_sub(now.unix_s)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            message_bytes_max: 16 << 20,
            unauthenticated_bytes_max: 64 << 10,
            document_bytes_max: 64 << 20,
            parked_bytes_max: 1 << 20,
            awareness_bytes_max: 64 << 10,
            awareness_clients_max: 64,
            documents_per_connection_max: 256,
            grace_period: Duration::from_secs(10),
            keep_alive_interval: Duration::from_secs(20),
            ping_interval: Duration::from_secs(25),
            idle_timeout: Duration::from_secs(60),
            authentication_timeout: Duration::from_secs(10),
            awareness_timeout: Duration::from_secs(30),
            shrink_after: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
            renew_before: Duration::from_secs(60),
            close_on_token_expiry: true,
            leeway: Duration::from_secs(30),
            read_only_awareness: true,
            require_origin: false,
            retention: None,
            journal_backlog_bytes_max: 64 << 20,
        }
    }
}
