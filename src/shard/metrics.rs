//! What one shard counts. Plain integers of the shard's own; the control shard asks for a copy.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// One shard's counters since its start, and its gauges now.
#[derive(Debug, Clone)]
pub struct ShardMetrics {
    // gauges
    pub connections: u64,
    pub sessions: u64,
    pub documents: u64,
    /// Documents that hold encoded state instead of a live CRDT.
    pub documents_shrunk: u64,
    /// Bytes queued for clients that have not taken them yet.
    pub outbox_bytes: u64,
    pub outbox_bytes_high_water: u64,
    pub stalled_connections: u64,
    /// Bytes that wait for the journal.
    pub unstored_bytes: u64,
    pub token_cache_entries: u64,
    /// Of the key sets in use; rises with each change of them.
    pub key_epoch: u64,
    // counters
    pub connections_total: u64,
    pub sessions_total: u64,
    pub handovers_in_total: u64,
    pub handovers_out_total: u64,
    pub http_requests_total: u64,
    pub tls_handshakes_total: u64,
    /// Of these, with a ticket of an earlier one.
    pub tls_resumed_total: u64,
    pub tls_failures_total: u64,
    pub updates_in_total: u64,
    /// Updates delivered, one per receiving session.
    pub updates_out_total: u64,
    pub updates_parked_total: u64,
    pub updates_refused_total: u64,
    pub awareness_in_total: u64,
    pub bytes_in_total: u64,
    pub bytes_out_total: u64,
    pub writes_total: u64,
    pub resyncs_total: u64,
    pub crdt_panics_total: u64,
    pub updates_acknowledged_total: u64,
    /// Updates refused because too much waited for the journal.
    pub journal_refusals_total: u64,
    pub token_cache_hits_total: u64,
    pub token_verifications_total: u64,
    pub mailbox_full_total: u64,
    /// Refused handshakes and ended sessions, by close code.
    pub closes_total: BTreeMap<u16, u64>,
    // histograms
    /// Time from one loop turn's wake-up to its end, microseconds.
    pub turn_us: Histogram<u64>,
    /// Updates handled in one turn that had any.
    pub batch_updates: Histogram<u64>,
    /// Bytes of one socket write.
    pub write_bytes: Histogram<u64>,
}

impl Default for ShardMetrics {
    fn default() -> Self {
        let histogram = |max: u64| Histogram::new_with_bounds(1, max, 2).expect("constant bounds are valid");
        Self {
            connections: 0,
            sessions: 0,
            documents: 0,
            documents_shrunk: 0,
            outbox_bytes: 0,
            outbox_bytes_high_water: 0,
            stalled_connections: 0,
            unstored_bytes: 0,
            token_cache_entries: 0,
            key_epoch: 0,
            connections_total: 0,
            sessions_total: 0,
            handovers_in_total: 0,
            handovers_out_total: 0,
            http_requests_total: 0,
            tls_handshakes_total: 0,
            tls_resumed_total: 0,
            tls_failures_total: 0,
            updates_in_total: 0,
            updates_out_total: 0,
            updates_parked_total: 0,
            updates_refused_total: 0,
            awareness_in_total: 0,
            bytes_in_total: 0,
            bytes_out_total: 0,
            writes_total: 0,
            resyncs_total: 0,
            crdt_panics_total: 0,
            updates_acknowledged_total: 0,
            journal_refusals_total: 0,
            token_cache_hits_total: 0,
            token_verifications_total: 0,
            mailbox_full_total: 0,
            closes_total: BTreeMap::new(),
            turn_us: histogram(60_000_000),
            batch_updates: histogram(1_000_000),
            write_bytes: histogram(1 << 30),
        }
    }
}
