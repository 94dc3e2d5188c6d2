//! The Prometheus page: the shards' own counters, and what the control shard knows.
//!
//! Counters are of the node as a whole; what differs between shards in a way an operator acts on (load, loop lag,
//! whether it answers) carries a `shard` label. A shard that did not answer in time is shown with its last figures.

use std::fmt;
use std::sync::Arc;

use hdrhistogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::messages::ShardIndex;
use super::state::Health;
use super::storage;
use crate::journal::thread::JournalFigures;
use crate::limits::{Bucket, Totals};
use crate::shard::metrics::ShardMetrics;

/// One shard at the time of a scrape.
#[derive(Debug, Clone)]
pub(super) struct ShardFigures {
    pub index: ShardIndex,
    /// Answered this scrape in time.
    pub is_up: bool,
    /// Messages that wait because its mailbox is full.
    pub backlog: u64,
    pub unanswered_total: u64,
    pub faults_total: u64,
    pub metrics: Arc<ShardMetrics>,
}

/// The node at the time of a scrape.
#[derive(Debug)]
pub(super) struct NodeFigures {
    pub uptime_s: f64,
    pub shards: Vec<ShardFigures>,
    pub journal: Option<Box<JournalFigures>>,
    pub health: Health,
    pub ledger: Totals,
    pub ops_windows: u64,
    pub buckets: u64,
    pub buckets_refused: [(Bucket, u64); 4],
    pub buckets_undecided_total: u64,
    pub key_tenants: u64,
    pub keys: u64,
    pub keys_revoked: u64,
    pub key_fetches_total: u64,
    pub key_fetch_failures_total: u64,
    pub key_refreshes_limited_total: u64,
    pub key_epoch: u64,
    pub key_feed_followed: bool,
    pub key_feed_documents_total: u64,
    pub key_feed_losses_total: u64,
    pub http_requests_total: u64,
    pub http_refused_total: u64,
    pub rss_bytes: Option<u64>,
    pub certificate_ends_unix_s: Option<i64>,
}

/// One figure of a shard.
type Figure = fn(&ShardMetrics) -> u64;

/// The page in OpenMetrics text format 1.0.
pub(super) fn encode(figures: NodeFigures) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(figures));
    let mut page = String::new();
    text::encode(&mut page, &registry)
        .expect("writing to a string fails only if a metric is described wrongly");
    page
}

/// The same page in the older Prometheus text format 0.0.4, where a counter's family bears the `_total` too.
pub(super) fn to_prometheus_text(open_metrics: &str) -> String {
    let counters: Vec<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut page = String::with_capacity(open_metrics.len() + 1024);
    for line in open_metrics.lines().filter(|&line| line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(family), Some(rest)) if counters.contains(&family) => {
                page.push_str(&format!("# {kind} {family}_total {rest}\n"));
            }
            _ => {
                page.push_str(line);
                page.push('\n');
            }
        }
    }
    page
}

impl Collector for NodeFigures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { encoder };
        self.encode_node(&mut page)?;
        self.encode_gauges(&mut page)?;
        self.encode_counters(&mut page)?;
        self.encode_limits(&mut page)?;
        self.encode_control(&mut page)?;
        self.journal.iter().try_for_each(|journal| storage::encode(journal, &mut page))?;
        self.encode_shards(&mut page)?;
        self.encode_histograms(&mut page)
    }
}

impl NodeFigures {
    fn sum(&self, figure: Figure) -> u64 {
        self.shards.iter().map(|shard| figure(&shard.metrics)).sum()
    }

    fn by_shard<'a, V: 'a>(
        &'a self,
        figure: impl Fn(&ShardFigures) -> V + 'a,
    ) -> impl Iterator<Item = (String, V)> + 'a {
        self.shards.iter().map(move |shard| (shard.index.to_string(), figure(shard)))
    }

    fn encode_node(&self, page: &mut Page<'_>) -> fmt::Result {
        let version = [(env!("CARGO_PKG_VERSION").to_owned(), 1u64)];
        page.gauges("wiresocket_build_info", "The version that runs", "version", version)?;
        page.gauge("wiresocket_uptime_seconds", "Seconds since the process started", self.uptime_s)?;
        let states = Health::ALL.map(|state| (state.name().to_owned(), u64::from(state == self.health)));
        page.gauges("wiresocket_health", "1 for the state that /health reports", "status", states)?;
        if let Some(bytes) = self.rss_bytes {
            page.gauge("process_resident_memory_bytes", "Resident memory of the process", bytes)?;
        }
        let Some(ends) = self.certificate_ends_unix_s else { return Ok(()) };
        let help = "When the certificate that node.listen shows expires, in seconds since 1970";
        page.gauge("wiresocket_tls_certificate_expiry_seconds", help, ends)
    }

    fn encode_gauges(&self, page: &mut Page<'_>) -> fmt::Result {
        let gauges: [(&str, &str, Figure); 9] = [
            ("wiresocket_unstored_bytes", "Bytes that wait for the journal", |m| m.unstored_bytes),
            ("wiresocket_connections_active", "Open WebSocket connections", |m| m.connections),
            ("wiresocket_sessions_active", "Sessions: a connection in a document", |m| m.sessions),
            ("wiresocket_documents_active", "Documents in memory", |m| m.documents),
            ("wiresocket_documents_shrunk", "Documents held as encoded state", |m| m.documents_shrunk),
            ("wiresocket_outbox_bytes", "Bytes queued for slow clients", |m| m.outbox_bytes),
            ("wiresocket_stalled_connections", "Connections that take no data", |m| m.stalled_connections),
            ("wiresocket_token_cache_entries", "Verified tokens remembered", |m| m.token_cache_entries),
            ("wiresocket_outbox_high_water_bytes", "Sum of the shards' highest queued bytes", |m| {
                m.outbox_bytes_high_water
            }),
        ];
        gauges.into_iter().try_for_each(|(name, help, figure)| page.gauge(name, help, self.sum(figure)))
    }

    fn encode_counters(&self, page: &mut Page<'_>) -> fmt::Result {
        let counters: [(&str, &str, Figure); 23] = [
            ("wiresocket_updates_acknowledged", "Updates whose clients heard that they are stored", |m| {
                m.updates_acknowledged_total
            }),
            ("wiresocket_journal_refusals", "Updates refused because too much waited for the journal", |m| {
                m.journal_refusals_total
            }),
            ("wiresocket_connections", "Connections accepted", |m| m.connections_total),
            ("wiresocket_sessions", "Sessions begun", |m| m.sessions_total),
            ("wiresocket_handovers_in", "Connections taken from another shard", |m| m.handovers_in_total),
            ("wiresocket_handovers_out", "Connections given to another shard", |m| m.handovers_out_total),
            ("wiresocket_http_requests", "Requests that are no upgrade", |m| m.http_requests_total),
            ("wiresocket_tls_handshakes", "TLS handshakes that succeeded", |m| m.tls_handshakes_total),
            ("wiresocket_tls_resumed", "TLS handshakes with a ticket of an earlier one", |m| {
                m.tls_resumed_total
            }),
            ("wiresocket_tls_failures", "TLS handshakes that failed", |m| m.tls_failures_total),
            ("wiresocket_updates_in", "Document updates received", |m| m.updates_in_total),
            ("wiresocket_updates_out", "Document updates delivered", |m| m.updates_out_total),
            ("wiresocket_updates_parked", "Updates that came before what they depend on", |m| {
                m.updates_parked_total
            }),
            ("wiresocket_updates_refused", "Updates of clients that may only read", |m| {
                m.updates_refused_total
            }),
            ("wiresocket_awareness_in", "Awareness messages received", |m| m.awareness_in_total),
            ("wiresocket_received_bytes", "Bytes read from clients", |m| m.bytes_in_total),
            ("wiresocket_sent_bytes", "Bytes written to clients", |m| m.bytes_out_total),
            ("wiresocket_writes", "Socket writes", |m| m.writes_total),
            ("wiresocket_resyncs", "Sessions resynced because their outbox was full", |m| m.resyncs_total),
            ("wiresocket_crdt_panics", "Updates that made the CRDT panic", |m| m.crdt_panics_total),
            ("wiresocket_token_cache_hits", "Tokens found verified", |m| m.token_cache_hits_total),
            ("wiresocket_token_verifications", "Token signatures checked", |m| m.token_verifications_total),
            ("wiresocket_shard_mailbox_full", "Messages that found a shard's mailbox full", |m| {
                m.mailbox_full_total
            }),
        ];
        counters
            .into_iter()
            .try_for_each(|(name, help, figure)| page.counter(name, help, self.sum(figure)))?;
        let mut closes = std::collections::BTreeMap::<u16, u64>::new();
        for (&code, &count) in self.shards.iter().flat_map(|shard| &shard.metrics.closes_total) {
            *closes.entry(code).or_default() += count;
        }
        let closes = closes.into_iter().map(|(code, count)| (code.to_string(), count));
        page.counters("wiresocket_closes", "Refused handshakes and ended sessions", "code", closes)
    }

    fn encode_limits(&self, page: &mut Page<'_>) -> fmt::Result {
        let ledger = &self.ledger;
        page.gauge("wiresocket_ledger_apps", "Apps that hold a reservation", ledger.apps)?;
        page.gauge("wiresocket_ledger_connections", "Connections reserved", ledger.connections)?;
        page.gauge("wiresocket_ledger_documents", "Documents reserved", ledger.documents)?;
        page.gauge("wiresocket_ops_windows", "Apps with an ops window", self.ops_windows)?;
        page.counter("wiresocket_ledger_grants", "Claims granted", ledger.granted_total)?;
        let refusals = [
            ("connections".to_owned(), ledger.refused_connections_total),
            ("documents".to_owned(), ledger.refused_documents_total),
        ];
        page.counters("wiresocket_ledger_refusals", "Claims refused", "limit", refusals)?;
        page.counter(
            "wiresocket_ledger_unmatched_releases",
            "Releases without a reservation: each is a bug, please report it",
            ledger.unmatched_releases_total,
        )?;
        page.gauge("wiresocket_ip_buckets", "Client addresses being counted", self.buckets)?;
        let refused = self.buckets_refused.map(|(bucket, count)| (bucket.name().to_owned(), count));
        page.counters(
            "wiresocket_ip_bucket_refusals",
            "Requests over the rate of their address",
            "bucket",
            refused,
        )?;
        let undecided = self.buckets_undecided_total;
        page.counter(
            "wiresocket_ip_bucket_undecided",
            "Requests let in because no bucket was free",
            undecided,
        )
    }

    fn encode_control(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge("wiresocket_key_tenants", "Tenants with a verification key", self.key_tenants)?;
        page.gauge("wiresocket_keys", "Verification keys in use", self.keys)?;
        page.gauge("wiresocket_keys_revoked", "Revoked keys remembered", self.keys_revoked)?;
        page.counter("wiresocket_key_fetches", "JWKS fetches begun", self.key_fetches_total)?;
        page.counter(
            "wiresocket_key_fetch_failures",
            "JWKS fetches that failed",
            self.key_fetch_failures_total,
        )?;
        page.counter(
            "wiresocket_key_refreshes_limited",
            "Unknown keys for which no fetch was allowed",
            self.key_refreshes_limited_total,
        )?;
        let is_followed = u64::from(self.key_feed_followed);
        page.gauge("wiresocket_key_feed_followed", "1 while changes of keys are pushed", is_followed)?;
        let documents = self.key_feed_documents_total;
        page.counter("wiresocket_key_feed_documents", "Key sets that were pushed", documents)?;
        let losses = self.key_feed_losses_total;
        page.counter("wiresocket_key_feed_losses", "Times the key feed was lost", losses)?;
        page.gauge("wiresocket_key_epoch", "Rises with each change of keys", self.key_epoch)?;
        page.counter(
            "wiresocket_control_http_requests",
            "HTTP requests taken over",
            self.http_requests_total,
        )?;
        page.counter(
            "wiresocket_control_http_refused",
            "HTTP requests closed because too many were being served",
            self.http_refused_total,
        )
    }

    fn encode_shards(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge("wiresocket_shards", "Data shards of this node", self.shards.len() as u64)?;
        let up = self.by_shard(|shard| u64::from(shard.is_up));
        page.gauges("wiresocket_shard_up", "1 if the shard answered this scrape", "shard", up)?;
        let connections = self.by_shard(|shard| shard.metrics.connections);
        page.gauges("wiresocket_shard_connections", "Open connections by shard", "shard", connections)?;
        let documents = self.by_shard(|shard| shard.metrics.documents);
        page.gauges("wiresocket_shard_documents", "Documents in memory by shard", "shard", documents)?;
        let epochs = self.by_shard(|shard| shard.metrics.key_epoch);
        page.gauges("wiresocket_shard_key_epoch", "The key epoch that the shard goes by", "shard", epochs)?;
        let backlog = self.by_shard(|shard| shard.backlog);
        page.gauges("wiresocket_shard_backlog", "Messages that wait for a full mailbox", "shard", backlog)?;
        let unanswered = self.by_shard(|shard| shard.unanswered_total);
        page.counters("wiresocket_shard_unanswered", "Questions dropped: backlog full", "shard", unanswered)?;
        let faults = self.by_shard(|shard| shard.faults_total);
        page.counters("wiresocket_shard_faults", "Times a shard was silent or stuck", "shard", faults)
    }

    fn encode_histograms(&self, page: &mut Page<'_>) -> fmt::Result {
        let turns = self.by_shard(|shard| shard.metrics.turn_us.clone());
        page.histograms("wiresocket_shard_turn_seconds", "Length of a loop turn", TURN_US, 1e6, turns)?;
        let node = |figure: fn(&ShardMetrics) -> &Histogram<u64>| {
            let mut sum = Histogram::<u64>::new(2).expect("two significant digits are valid");
            for shard in &self.shards {
                // Cannot fail: a histogram of this kind grows to hold whatever is added.
                let _ = sum.add(figure(&shard.metrics));
            }
            sum
        };
        let batches = node(|m| &m.batch_updates);
        page.histogram(
            "wiresocket_batch_updates",
            "Updates handled in one turn",
            BATCH_UPDATES,
            1.0,
            &batches,
        )?;
        let writes = node(|m| &m.write_bytes);
        page.histogram("wiresocket_write_bytes", "Bytes of one socket write", WRITE_BYTES, 1.0, &writes)
    }
}

/// Upper bounds of the buckets, in the histogram's own unit.
const TURN_US: &[u64] = &[
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000,
];
const BATCH_UPDATES: &[u64] = &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 10_000];
const WRITE_BYTES: &[u64] =
    &[16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216];

/// Counts per bucket (not cumulative: the encoder adds up), and the sum; `per_unit` of the histogram's values are one of the
/// page's. Divided, not multiplied: 100 / 1e6 is 0.0001, 100 * 1e-6 is not.
fn buckets(histogram: &Histogram<u64>, bounds: &[u64], per_unit: f64) -> (Vec<(f64, u64)>, f64) {
    let mut counts = vec![0u64; bounds.len() + 1];
    let mut sum = 0.0;
    for step in histogram.iter_recorded() {
        let value = step.value_iterated_to();
        let count = step.count_since_last_iteration();
        // The value is the upper end of its resolution; a recorded value just at a bound must count below that bound.
        let lowest = histogram.lowest_equivalent(value);
        counts[bounds.partition_point(|&bound| bound < lowest)] += count;
        sum += histogram.median_equivalent(value) as f64 * count as f64 / per_unit;
    }
    let upper = bounds.iter().map(|&bound| bound as f64 / per_unit).chain([f64::INFINITY]);
    (upper.zip(counts).collect(), sum)
}

/// One metric after the other.
pub(super) struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Page<'_> {
    pub fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (String, V)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        values
            .into_iter()
            .try_for_each(|(of, value)| family.encode_family(&[(label, of)])?.encode_gauge(&value))
    }

    pub fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        self.encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    fn counters<V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (String, V)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        values.into_iter().try_for_each(|(of, value)| {
            family.encode_family(&[(label, of)])?.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }

    /// `per_unit` of the histogram's values are one of the page's.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        bounds: &[u64],
        per_unit: f64,
        value: &Histogram<u64>,
    ) -> fmt::Result {
        let (counts, sum) = buckets(value, bounds, per_unit);
        self.encoder
            .encode_descriptor(name, help, None, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(sum, value.len(), &counts, None)
    }

    fn histograms(
        &mut self,
        name: &str,
        help: &str,
        bounds: &[u64],
        per_unit: f64,
        values: impl IntoIterator<Item = (String, Histogram<u64>)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        values.into_iter().try_for_each(|(shard, value)| {
            let (counts, sum) = buckets(&value, bounds, per_unit);
            family.encode_family(&[("shard", shard)])?.encode_histogram::<NoLabelSet>(
                sum,
                value.len(),
                &counts,
                None,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(shards: Vec<ShardMetrics>) -> NodeFigures {
        let shard = |(metrics, index)| ShardFigures {
            index,
            is_up: index == 0,
            backlog: 0,
            unanswered_total: 0,
            faults_total: 0,
            metrics: Arc::new(metrics),
        };
        NodeFigures {
            uptime_s: 1.5,
            shards: shards.into_iter().zip(0..).map(shard).collect(),
            journal: None,
            health: Health::Overloaded,
            ledger: Totals { connections: 7, ..Totals::default() },
            ops_windows: 0,
            buckets: 0,
            buckets_refused: Bucket::ALL.map(|bucket| (bucket, 3)),
            buckets_undecided_total: 0,
            key_tenants: 0,
            keys: 0,
            keys_revoked: 0,
            key_fetches_total: 0,
            key_fetch_failures_total: 0,
            key_refreshes_limited_total: 0,
            key_epoch: 0,
            key_feed_followed: false,
            key_feed_documents_total: 0,
            key_feed_losses_total: 0,
            http_requests_total: 0,
            http_refused_total: 0,
            rss_bytes: Some(4096),
            certificate_ends_unix_s: Some(1_893_456_000),
        }
    }

    fn two_shards() -> String {
        let mut first = ShardMetrics { connections_total: 5, documents: 2, ..ShardMetrics::default() };
        first.closes_total.insert(4002, 2);
        let mut second = ShardMetrics { connections_total: 6, documents: 1, ..ShardMetrics::default() };
        second.closes_total.insert(4002, 1);
        second.turn_us.record(90).unwrap();
        second.turn_us.record(2_000).unwrap();
        second.batch_updates.record(5).unwrap();
        encode(figures(vec![first, second]))
    }

    fn has(page: &str, line: &str) -> bool {
        page.lines().any(|l| l == line)
    }

    #[test]
    fn the_figures_of_the_shards_add_up_on_the_page() {
        let page = two_shards();
        for line in [
            "wiresocket_connections_total 11",
            "wiresocket_documents_active 3",
            "wiresocket_closes_total{code=\"4002\"} 3",
            "wiresocket_shard_documents{shard=\"1\"} 1",
            "wiresocket_shard_up{shard=\"1\"} 0",
            "wiresocket_health{status=\"overloaded\"} 1",
            "wiresocket_ledger_connections 7",
            "wiresocket_ip_bucket_refusals_total{bucket=\"upgrade\"} 3",
            "process_resident_memory_bytes 4096",
            "wiresocket_tls_certificate_expiry_seconds 1893456000",
            "# EOF",
        ] {
            assert!(has(&page, line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn histograms_become_cumulative_buckets_in_base_units() {
        let page = two_shards();
        for line in [
            "wiresocket_shard_turn_seconds_bucket{le=\"0.00005\",shard=\"1\"} 0",
            "wiresocket_shard_turn_seconds_bucket{le=\"0.0001\",shard=\"1\"} 1",
            "wiresocket_shard_turn_seconds_bucket{le=\"0.0025\",shard=\"1\"} 2",
            "wiresocket_shard_turn_seconds_bucket{le=\"+Inf\",shard=\"1\"} 2",
            "wiresocket_shard_turn_seconds_count{shard=\"1\"} 2",
            "wiresocket_batch_updates_bucket{le=\"2.0\"} 0",
            "wiresocket_batch_updates_bucket{le=\"5.0\"} 1",
        ] {
            assert!(has(&page, line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn no_family_is_described_twice() {
        let page = two_shards();
        let mut families: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let count = families.len();
        families.sort_unstable();
        families.dedup_by_key(|family| family.split(' ').next().unwrap());
        assert_eq!(families.len(), count);
    }

    #[test]
    fn the_older_format_names_counters_as_their_samples_are_named() {
        let page = to_prometheus_text(&two_shards());
        assert!(has(&page, "# TYPE wiresocket_connections_total counter"));
        assert!(has(&page, "# TYPE wiresocket_documents_active gauge"));
        assert!(has(&page, "wiresocket_connections_total 11"));
        assert!(!has(&page, "# EOF"));
    }
}
