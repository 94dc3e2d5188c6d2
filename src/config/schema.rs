//! The one list of keys: name, field, domain, and whether a running node can take a new value.
//!
//! Defaults stand in [`NodeConfig::built_in`]; what a key is for is said in `tuning/node.toml`, which a test holds
//! against this list.

use std::fmt;
use std::sync::LazyLock;

use super::domain::{Domain, Optional, OrZero, Wrong};
use super::kept::Kept;
use super::list::{Cores, List};
use super::literal::Literal;
use super::number::{bytes, count, seconds};
use super::word::{Choice, Flag, PathOf, cors_origin, label, parsed};
use super::{LogFormat, LogLevel, NodeConfig, ProxyProtocol, Rejection};
use crate::journal::Durability;

/// A key's full name, printed as `section.name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    pub section: &'static str,
    pub name: &'static str,
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.section, self.name)
    }
}

/// When a new value of a key takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applies {
    Live,
    Restart,
}

type Read = dyn Fn(&mut NodeConfig, &Literal) -> Result<(), Vec<Wrong>> + Send + Sync;
type Write = dyn Fn(&NodeConfig) -> Option<String> + Send + Sync;
type Copy = dyn Fn(&NodeConfig, &mut NodeConfig) + Send + Sync;

/// One key of the file.
pub(super) struct Key {
    pub name: KeyName,
    pub applies: Applies,
    pub allowed: String,
    read: Box<Read>,
    write: Box<Write>,
    copy: Box<Copy>,
}

impl Key {
    fn new<D: Domain>(
        section: &'static str,
        name: &'static str,
        domain: D,
        field: fn(&NodeConfig) -> &D::Value,
        field_mut: fn(&mut NodeConfig) -> &mut D::Value,
    ) -> Self {
        let domain = std::sync::Arc::new(domain);
        let printer = domain.clone();
        Self {
            name: KeyName { section, name },
            applies: Applies::Live,
            allowed: domain.allowed(),
            read: Box::new(move |config, literal| {
                *field_mut(config) = domain.read(literal)?;
                Ok(())
            }),
            write: Box::new(move |config| printer.write(field(config))),
            copy: Box::new(move |from, to| *field_mut(to) = field(from).clone()),
        }
    }

    fn on_restart(mut self) -> Self {
        self.applies = Applies::Restart;
        self
    }

    /// Sets the key's field. On an error it is left as it was.
    pub fn read(&self, config: &mut NodeConfig, literal: &Literal) -> Result<(), Vec<Wrong>> {
        (self.read)(config, literal)
    }

    /// The field as TOML; `None` when it is not set.
    pub fn write(&self, config: &NodeConfig) -> Option<String> {
        (self.write)(config)
    }

    pub fn copy(&self, from: &NodeConfig, to: &mut NodeConfig) {
        (self.copy)(from, to);
    }

    /// `WIRESOCKET_NODE__LISTEN`.
    pub fn variable(&self) -> String {
        format!("WIRESOCKET_{}__{}", self.name.section, self.name.name).to_ascii_uppercase()
    }
}

/// Sections in the order in which they are printed.
pub(super) const SECTIONS: [&str; 11] =
    ["node", "tls", "auth", "dashboard", "limits", "sessions", "journal", "http", "overload", "drain", "log"];

static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    [node(), tls(), auth(), dashboard(), limits(), sessions(), journal(), http(), the_rest()]
        .into_iter()
        .flatten()
        .collect()
});

/// All keys, section by section.
pub(super) fn keys() -> &'static [Key] {
    &KEYS
}

pub(super) fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> {
    keys().iter().filter(move |key| key.name.section == section)
}

pub(super) fn key(section: &str, name: &str) -> Option<&'static Key> {
    keys_of(section).find(|key| key.name.name == name)
}

/// `key!(section.name, domain, path.of.the.field)`
macro_rules! key {
    ($section:ident . $name:ident, $domain:expr, $($field:ident).+) => {
        Key::new(
            stringify!($section),
            stringify!($name),
            $domain,
            |config| &config.$($field).+,
            |config| &mut config.$($field).+,
        )
    };
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

fn node() -> Vec<Key> {
    vec![
        key!(
            node.listen,
            parsed("an IP address and port such as \"0.0.0.0:8080\" or \"[::]:8080\""),
            node.listen
        )
        .on_restart(),
        key!(
            node.plaintext_listen,
            Optional(parsed("an IP address and port such as \"127.0.0.1:8081\"")),
            node.plaintext_listen
        )
        .on_restart(),
        key!(
            node.proxy_protocol,
            Choice(&[
                ("off", ProxyProtocol::Off),
                ("listen", ProxyProtocol::Listen),
                ("plaintext_listen", ProxyProtocol::PlaintextListen),
                ("both", ProxyProtocol::Both)
            ]),
            shard.proxy_protocol
        ),
        key!(node.public_url, Optional(parsed("a URL such as \"wss://sync.example.com\"")), node.public_url),
        key!(node.region, label(), node.region),
        key!(node.name, Optional(label()), node.name),
        key!(node.shards, OrZero(count(1..=1024, "shards"), "one for each core"), node.shards).on_restart(),
        key!(node.cpus, Cores, node.cpus).on_restart(),
        key!(node.control_cpu, Optional(count(0..=8191, "(a core)")), node.control_cpu).on_restart(),
    ]
}

fn tls() -> Vec<Key> {
    vec![
        key!(tls.certificate, Optional(PathOf("a PEM file with the certificates")), tls.certificate)
            .on_restart(),
        key!(tls.private_key, Optional(PathOf("a PEM file with the private key")), tls.private_key)
            .on_restart(),
    ]
}

fn auth() -> Vec<Key> {
    vec![
        key!(auth.issuer, parsed("a URL such as \"https://auth.example.com\""), shard.issuer),
        key!(auth.key_dir, Optional(PathOf("a directory")), keys.key_dir),
        key!(
            auth.jwks_url,
            Optional(parsed("a URL such as \"https://auth.example.com/{tenantId}/.well-known/jwks\"")),
            keys.jwks_url
        ),
        key!(auth.tenants, List(parsed("a tenant id, which is a GUID")), keys.tenants),
        key!(auth.jwks_poll_s, seconds(1.0..=DAY), keys.jwks_poll),
        key!(auth.key_refresh_interval_s, seconds(0.1..=HOUR), keys.key_refresh_interval),
        key!(auth.key_set_stale_after_s, seconds(1.0..=365.0 * DAY), keys.key_set_stale_after),
        key!(auth.leeway_s, seconds(0.0..=600.0), shard.engine.leeway),
        key!(auth.token_bytes_max, bytes(512..=64 * KIB), shard.token_bytes_max),
        key!(auth.token_cache_entries, count(0..=1_000_000, "tokens per shard"), shard.token_cache_entries),
        key!(
            auth.on_token_expiry,
            Choice(&[("close", true), ("keep", false)]),
            shard.engine.close_on_token_expiry
        ),
        key!(auth.renew_before_s, seconds(0.0..=HOUR), shard.engine.renew_before),
        key!(
            auth.rejection,
            Choice(&[("auto", Rejection::Auto), ("close", Rejection::Close), ("status", Rejection::Status)]),
            shard.rejection
        ),
        key!(auth.permanent_close_codes, Flag, shard.permanent_close_codes),
        key!(auth.require_origin, Flag, shard.engine.require_origin),
        key!(auth.read_only_awareness, Flag, shard.engine.read_only_awareness),
    ]
}

fn dashboard() -> Vec<Key> {
    let keys = vec![
        key!(dashboard.url, Optional(parsed("a URL such as \"https://auth.example.com\"")), dashboard.url),
        key!(dashboard.enrolment_secret_file, Optional(PathOf("a file")), dashboard.enrolment_secret_file),
        key!(dashboard.credential_file, PathOf("a file"), dashboard.credential_file),
        key!(dashboard.cluster, label(), dashboard.cluster),
    ];
    keys.into_iter().map(Key::on_restart).collect()
}

fn limits() -> Vec<Key> {
    vec![
        key!(limits.request_head_bytes_max, bytes(KIB..=MIB), shard.request_head_bytes_max),
        key!(limits.handshake_timeout_s, seconds(0.1..=600.0), shard.handshake_timeout),
        key!(limits.authentication_timeout_s, seconds(0.1..=600.0), shard.engine.authentication_timeout),
        key!(limits.unauthenticated_bytes_max, bytes(KIB..=16 * MIB), shard.engine.unauthenticated_bytes_max),
        key!(limits.message_bytes_max, bytes(KIB..=GIB), shard.engine.message_bytes_max),
        key!(limits.fragments_max, count(1..=1_000_000, "frames per message"), shard.fragments_max),
        key!(limits.document_bytes_max, bytes(KIB..=4 * GIB), shard.engine.document_bytes_max),
        key!(limits.parked_bytes_max, bytes(0..=GIB), shard.engine.parked_bytes_max),
        key!(limits.awareness_bytes_max, bytes(64..=16 * MIB), shard.engine.awareness_bytes_max),
        key!(
            limits.awareness_clients_max,
            count(1..=65_536, "clients per session"),
            shard.engine.awareness_clients_max
        ),
        key!(
            limits.documents_per_connection_max,
            count(1..=65_536, "documents per connection"),
            shard.engine.documents_per_connection_max
        ),
        key!(limits.outbox_bytes_max, bytes(16 * KIB..=GIB), shard.outbox_bytes_max),
        key!(limits.stall_timeout_s, seconds(0.1..=HOUR), shard.engine.stall_timeout),
        key!(
            limits.pending_handshakes_max,
            count(1..=1_000_000, "sockets per shard"),
            shard.pending_handshakes_max
        ),
    ]
}

fn sessions() -> Vec<Key> {
    vec![
        key!(sessions.grace_period_s, seconds(0.0..=DAY), shard.engine.grace_period),
        key!(sessions.keep_alive_interval_s, seconds(0.1..=HOUR), shard.engine.keep_alive_interval),
        key!(sessions.ping_interval_s, seconds(0.1..=HOUR), shard.engine.ping_interval),
        key!(sessions.idle_timeout_s, seconds(0.2..=DAY), shard.engine.idle_timeout),
        key!(sessions.awareness_timeout_s, seconds(0.1..=HOUR), shard.engine.awareness_timeout),
        key!(sessions.shrink_after_s, seconds(0.1..=DAY), shard.engine.shrink_after),
    ]
}

fn journal() -> Vec<Key> {
    let durability = Choice(&[
        ("memory", Durability::Memory),
        ("process", Durability::Process),
        ("disk", Durability::Disk),
    ]);
    vec![
        key!(journal.durability, durability, journal.durability).on_restart(),
        key!(journal.directory, PathOf("a directory"), journal.directory).on_restart(),
        key!(journal.retention, Kept, journal.retention).on_restart(),
        key!(journal.commit_interval_s, seconds(0.0..=1.0), journal.commit_interval).on_restart(),
        key!(journal.segment_bytes, bytes(64 * KIB..=GIB), journal.segment_bytes).on_restart(),
        key!(journal.backlog_bytes_max, bytes(MIB..=64 * GIB), shard.engine.journal_backlog_bytes_max),
    ]
}

fn http() -> Vec<Key> {
    let networks = || List(parsed("a network such as \"10.0.0.0/8\" or an IP address"));
    let rate = || OrZero(count(1..=10_000_000, "requests per minute and IP address"), "no limit");
    vec![
        key!(http.trusted_proxies, networks(), shard.trusted_proxies),
        key!(http.exempt_networks, networks(), http.exempt_networks),
        key!(http.upgrades_per_minute, rate(), http.upgrades_per_minute),
        key!(http.discovery_per_minute, rate(), http.discovery_per_minute),
        key!(http.usage_per_minute, rate(), http.usage_per_minute),
        key!(http.health_per_minute, rate(), http.health_per_minute),
        key!(http.cors_origins, List(cors_origin()), http.cors_origins),
    ]
}

/// `[overload]`, `[drain]`, `[log]`.
fn the_rest() -> Vec<Key> {
    vec![
        key!(
            overload.connections_max,
            OrZero(count(1..=100_000_000, "connections"), "what the limit on open files leaves"),
            overload.connections_max
        ),
        key!(
            overload.memory_bytes_max,
            OrZero(bytes(64 * MIB..=64 * 1024 * GIB), "what the host or its cgroup has"),
            overload.memory_bytes_max
        ),
        key!(overload.shed_above_percent, count(1..=100, "percent"), overload.shed_above_percent),
        key!(overload.accept_below_percent, count(1..=100, "percent"), overload.accept_below_percent),
        key!(overload.retry_after_s, seconds(1.0..=HOUR), shard.retry_after),
        key!(drain.spread_s, seconds(0.0..=HOUR), drain_spread),
        key!(log.format, Choice(&[("human", LogFormat::Human), ("json", LogFormat::Json)]), log.format)
            .on_restart(),
        key!(
            log.level,
            Choice(&[
                ("error", LogLevel::Error),
                ("warn", LogLevel::Warn),
                ("info", LogLevel::Info),
                ("debug", LogLevel::Debug),
                ("trace", LogLevel::Trace)
            ]),
            log.level
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_known_section_and_stands_once() {
        let mut names: Vec<_> = keys().iter().map(|key| key.name).collect();
        assert!(names.iter().all(|name| SECTIONS.contains(&name.section)));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(SECTIONS.iter().all(|section| keys_of(section).next().is_some()));
    }

    #[test]
    fn every_default_is_in_its_own_domain() {
        let built_in = NodeConfig::built_in();
        for key in keys().iter().filter(|key| key.name.to_string() != "auth.issuer") {
            let Some(printed) = key.write(&built_in) else { continue };
            let document = format!("value = {printed}");
            let table = toml::de::DeTable::parse(&document).unwrap();
            let literal = Literal::of(table.get_ref().get("value").unwrap().get_ref());
            let mut config = NodeConfig::built_in();
            key.read(&mut config, &literal).unwrap_or_else(|wrong| panic!("{}: {wrong:?}", key.name));
            assert_eq!(key.write(&config).as_deref(), Some(printed.as_str()), "{}", key.name);
        }
    }

    #[test]
    fn only_what_is_fixed_at_start_needs_a_restart() {
        let fixed: Vec<_> = keys()
            .iter()
            .filter(|key| key.applies == Applies::Restart)
            .map(|key| key.name.to_string())
            .collect();
        let (of_dashboard, others): (Vec<_>, Vec<_>) =
            fixed.iter().map(String::as_str).partition(|name| name.starts_with("dashboard."));
        let (of_journal, others): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|name| name.starts_with("journal."));
        let expected = "node.listen node.plaintext_listen node.shards node.cpus node.control_cpu tls.certificate \
                        tls.private_key log.format";
        assert_eq!(others.join(" "), expected);
        assert_eq!(of_journal.len(), keys_of("journal").count() - 1, "all but the backlog's bound");
        assert_eq!(of_dashboard.len(), keys_of("dashboard").count());
    }
}
