//! The configuration of a node: one TOML file and the environment, turned into validated types.
//!
//! The way of a value: TOML text → `literal` tree with positions → the key's `domain` → a field of
//! [`NodeConfig`]. `schema` holds one row per key and is the only list of them: unknown keys, defaults, the printed
//! configuration and reloads all read it.
//!
//! Invariants: a [`NodeConfig`] that exists has passed every check, alone and across fields. Every problem of a file is
//! reported at once, with its place, what was written and what is allowed.
//!
//! Absent: what the host has (cores, descriptors, memory) is not checked here but in [`Host`]'s and [`CoreLayout`]'s
//! methods when a node starts, so that a file can be checked on another machine. Directories and URLs are not opened.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod check;
mod cores;
mod domain;
mod effective;
mod host;
mod kept;
mod list;
mod literal;
mod number;
mod problem;
mod read;
mod reload;
mod schema;
mod url;
mod word;

#[cfg(test)]
mod profiles;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use crate::journal::{Durability, JournalSettings, Retention};
use crate::limits::Network;
use crate::tls::TlsFiles;

pub use cores::{CoreLayout, CoreList, LayoutError};
pub use effective::effective_toml;
pub use host::{Host, HostError};
pub use problem::{LoadError, Place, Problem, Problems};
pub use read::{load, parse};
pub use reload::{Reload, reload};
pub use schema::KeyName;
pub use url::{DashboardUrl, Issuer, JwksUrl, UrlError, WebSocketUrl, reachable};

use read::Origins;

/// Memory that each shard's glommio executor registers for I/O. Its default of 10 MiB, registered three times, would
/// need a memlock limit that few hosts grant; our reads and writes don't go through it.
pub const RING_MEMORY_BYTES: usize = 64 << 10;

/// Everything a node is configured with.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    pub node: NodeSettings,
    pub tls: TlsSettings,
    pub keys: KeySettings,
    pub dashboard: DashboardSettings,
    /// Replaced as a whole in every shard on reload.
    pub shard: ShardSettings,
    pub journal: JournalSettings,
    pub http: HttpSettings,
    pub overload: OverloadSettings,
    /// Closing the sessions of a draining node is spread over this long.
    pub drain_spread: Duration,
    pub log: LogSettings,
    origins: Origins,
}

/// Who the node is and which cores it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSettings {
    pub listen: SocketAddr,
    /// A second address, in plain HTTP where `listen` speaks TLS.
    pub plaintext_listen: Option<SocketAddr>,
    /// As given; [`NodeConfig::public_url`] has the derived default.
    pub public_url: Option<WebSocketUrl>,
    /// The license region that this node serves.
    pub region: String,
    /// As given; the host's name otherwise ([`Host::name`]).
    pub name: Option<String>,
    /// `None`: as many as there are cores for them.
    pub shards: Option<u16>,
    /// The cores that shards may have; empty: the ones this process may run on.
    pub cpus: CoreList,
    pub control_cpu: Option<u16>,
}

/// Both or neither are set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsSettings {
    pub certificate: Option<PathBuf>,
    pub private_key: Option<PathBuf>,
}

impl TlsSettings {
    /// `None`: plain HTTP.
    #[must_use]
    pub fn files(&self) -> Option<TlsFiles> {
        let (certificate, private_key) = (self.certificate.clone()?, self.private_key.clone()?);
        Some(TlsFiles { certificate, private_key })
    }
}

/// Where verification keys come from, and how fresh they are kept. At least one of `key_dir` and `jwks_url` is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySettings {
    /// A directory of `<tenantid>.json` files, each a JWK set.
    pub key_dir: Option<PathBuf>,
    pub jwks_url: Option<JwksUrl>,
    /// Fetched from `jwks_url` before the node accepts anything.
    pub tenants: Vec<Uuid>,
    pub jwks_poll: Duration,
    /// At least this long between two fetches for one tenant because of an unknown `kid`.
    pub key_refresh_interval: Duration,
    /// A key set that could not be refreshed for this long is no longer trusted.
    pub key_set_stale_after: Duration,
}

/// The dashboard that this node belongs to, if any; `None` of a URL: none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DashboardSettings {
    pub url: Option<DashboardUrl>,
    /// Read when there is no credential yet.
    pub enrolment_secret_file: Option<PathBuf>,
    /// Where the node keeps what it got for the enrolment secret.
    pub credential_file: PathBuf,
    pub cluster: String,
}

/// What a shard needs to know of the configuration; replaced as a whole on reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardSettings {
    pub engine: crate::engine::Settings,
    // tokens
    pub issuer: Issuer,
    pub token_bytes_max: usize,
    /// Verified tokens a shard remembers; 0 turns the cache off.
    pub token_cache_entries: usize,
    // handshakes
    pub rejection: Rejection,
    /// Send 44xx where a retry cannot help ([`crate::protocol::close::Refusal::permanent_code`]).
    pub permanent_close_codes: bool,
    pub request_head_bytes_max: usize,
    /// From accept to a complete request head.
    pub handshake_timeout: Duration,
    /// Sockets of one shard that are between accept and their first session.
    pub pending_handshakes_max: usize,
    /// Only these peers' `X-Forwarded-For` and PROXY headers are believed.
    pub trusted_proxies: Vec<Network>,
    pub proxy_protocol: ProxyProtocol,
    /// Whether each upgrade asks for room in its address's bucket; follows [`HttpSettings::upgrades_per_minute`].
    pub upgrades_limited: bool,
    /// Clients that are not counted one by one; follows [`HttpSettings::exempt_networks`].
    pub exempt_networks: Vec<Network>,
    /// The hint in 1012, 1013 and `Retry-After`, before jitter.
    pub retry_after: Duration,
    // connections
    /// Frames that one message may come in.
    pub fragments_max: usize,
    /// Bytes queued for one connection; past it the session is told to resync.
    pub outbox_bytes_max: usize,
}

/// On which listeners every connection must begin with a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    Off,
    Listen,
    PlaintextListen,
    Both,
}

impl ProxyProtocol {
    /// Whether the listener of this number (0: `node.listen`, 1: `node.plaintext_listen`) expects one.
    #[must_use]
    pub const fn covers(self, listener: usize) -> bool {
        match self {
            Self::Off => false,
            Self::Listen => listener == 0,
            Self::PlaintextListen => listener == 1,
            Self::Both => true,
        }
    }
}

/// How a refused upgrade is told to the client (the contract, section 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Close code for a request with an `Origin`, HTTP status for one without.
    Auto,
    /// Always finish the upgrade, then close with the code.
    Close,
    /// Always answer with an HTTP status.
    Status,
}

/// The HTTP endpoints and the per-IP buckets. A rate of `None` is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Addresses that no bucket counts.
    pub exempt_networks: Vec<Network>,
    pub upgrades_per_minute: Option<u32>,
    pub discovery_per_minute: Option<u32>,
    pub usage_per_minute: Option<u32>,
    /// `/health` and `/metrics`.
    pub health_per_minute: Option<u32>,
    /// Origins whose pages may read `/usage` and `/discovery`; `*` is any.
    pub cors_origins: Vec<String>,
}

/// When the node sheds new connections. Nobody who is in is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverloadSettings {
    /// `None`: from the limit on open files ([`Host::connections_max`]).
    pub connections_max: Option<u64>,
    /// `None`: what the host or its cgroup has ([`Host::memory_bytes`]).
    pub memory_bytes_max: Option<u64>,
    pub shed_above_percent: u8,
    pub accept_below_percent: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    pub format: LogFormat,
    pub level: LogLevel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Human,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl NodeConfig {
    /// What `wiresocket dev` runs with: no file, nothing stored (unless it has a folder), per-IP buckets off, limits wide enough for a load test. Issuer and keys
    /// are those of the dashboard in the same process; `dev` names them once it listens.
    #[must_use]
    pub fn dev(listen: SocketAddr, shards: Option<u16>) -> Self {
        let mut config = Self::built_in();
        config.node.listen = listen;
        config.node.name = Some("dev".to_owned());
        config.node.shards = shards;
        config.shard.issuer = Issuer::of(listen);
        config.shard.pending_handshakes_max = 65_536;
        config.http.upgrades_per_minute = None;
        config.http.discovery_per_minute = None;
        config.http.usage_per_minute = None;
        config.http.health_per_minute = None;
        config.drain_spread = Duration::from_secs(1);
        config.journal.durability = Durability::Memory;
        config
    }

    /// Where clients reach this node: the configured URL, else `ws://` (`wss://` with TLS) and the address that was bound. An unspecified
    /// address (`0.0.0.0`) means nothing to a client, so loopback stands for it; [`Self::warnings`] says so.
    #[must_use]
    pub fn public_url(&self, bound: SocketAddr) -> WebSocketUrl {
        self.node.public_url.clone().unwrap_or_else(|| WebSocketUrl::of(bound, self.tls.files().is_some()))
    }

    /// What is allowed but probably not meant, in sentences for the log and for `check-config`.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.node.public_url.is_none() && self.node.listen.ip().is_unspecified() {
            warnings.push(format!(
                "node.public_url is not set: /discovery will answer {}, which only this host can reach",
                WebSocketUrl::of(self.node.listen, self.tls.files().is_some())
            ));
        }
        if self.keys.jwks_url.as_ref().is_some_and(|url| !url.is_encrypted()) {
            warnings.push(
                "auth.jwks_url is plain http: whoever is on the way to it can hand this node keys of their own"
                    .to_owned(),
            );
        }
        if self.dashboard.url.as_ref().is_some_and(|url| !url.is_encrypted()) {
            warnings.push(
                "dashboard.url is plain http: whoever is on the way to it can take this node's credential, and hand it keys"
                    .to_owned(),
            );
        }
        if self.shard.trusted_proxies.iter().any(|network| network.prefix_bits() == 0) {
            warnings.push(
                "http.trusted_proxies trusts every address: any client can claim any address in X-Forwarded-For"
                    .to_owned(),
            );
        }
        if self.shard.proxy_protocol != ProxyProtocol::Off && self.shard.trusted_proxies.is_empty() {
            warnings.push(
                "node.proxy_protocol is set and http.trusted_proxies is empty: every connection will be closed there"
                    .to_owned(),
            );
        }
        warnings
    }

    /// The defaults of every key. The issuer has none: it is empty until a file, the environment or `dev` names it,
    /// which is why this is not public.
    fn built_in() -> Self {
        Self {
            node: NodeSettings {
                listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
                plaintext_listen: None,
                public_url: None,
                region: "aws-us-east-1".to_owned(),
                name: None,
                shards: None,
                cpus: CoreList::default(),
                control_cpu: None,
            },
            tls: TlsSettings::default(),
            keys: KeySettings {
                key_dir: None,
                jwks_url: None,
                tenants: Vec::new(),
                jwks_poll: Duration::from_secs(300),
                key_refresh_interval: Duration::from_secs(10),
                key_set_stale_after: Duration::from_secs(86_400),
            },
            dashboard: DashboardSettings {
                url: None,
                enrolment_secret_file: None,
                credential_file: PathBuf::from("/var/lib/wiresocket/node-credential"),
                cluster: "default".to_owned(),
            },
            shard: ShardSettings {
                engine: crate::engine::Settings::default(),
                issuer: Issuer::unset(),
                token_bytes_max: 16 << 10,
                token_cache_entries: 4096,
                rejection: Rejection::Auto,
                permanent_close_codes: false,
                request_head_bytes_max: 32 << 10,
                handshake_timeout: Duration::from_secs(10),
                pending_handshakes_max: 4096,
                trusted_proxies: Vec::new(),
                proxy_protocol: ProxyProtocol::Off,
                upgrades_limited: true,
                exempt_networks: Vec::new(),
                retry_after: Duration::from_secs(5),
                fragments_max: 1024,
                outbox_bytes_max: 1 << 20,
            },
            journal: JournalSettings {
                directory: PathBuf::from("/var/lib/wiresocket/journal"),
                durability: Durability::Disk,
                retention: Retention::Session,
                segment_bytes: 16 << 20,
                commit_interval: Duration::from_millis(5),
            },
            http: HttpSettings {
                exempt_networks: Vec::new(),
                upgrades_per_minute: Some(60),
                discovery_per_minute: Some(60),
                usage_per_minute: Some(12),
                health_per_minute: Some(6000),
                cors_origins: vec!["*".to_owned()],
            },
            overload: OverloadSettings {
                connections_max: None,
                memory_bytes_max: None,
                shed_above_percent: 80,
                accept_below_percent: 70,
            },
            drain_spread: Duration::from_secs(10),
            log: LogSettings { format: LogFormat::Human, level: LogLevel::Info },
            origins: Origins::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dev_needs_no_file_and_limits_no_address() {
        let config = NodeConfig::dev("127.0.0.1:4000".parse().unwrap(), Some(3));
        assert_eq!(config.shard.issuer.as_str(), "http://127.0.0.1:4000");
        assert_eq!(config.node.shards, Some(3));
        assert_eq!(
            (config.http.upgrades_per_minute, config.http.discovery_per_minute, config.http.usage_per_minute),
            (None, None, None)
        );
        assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    }

    #[test]
    fn the_public_url_is_the_bound_address_unless_given() {
        let mut config = NodeConfig::dev("0.0.0.0:8080".parse().unwrap(), None);
        assert_eq!(config.public_url("0.0.0.0:4711".parse().unwrap()).as_str(), "ws://127.0.0.1:4711");
        assert_eq!(config.public_url("[::1]:4711".parse().unwrap()).as_str(), "ws://[::1]:4711");
        assert_eq!(config.warnings().len(), 1, "an unreachable public URL is worth a warning");
        config.node.public_url = Some("wss://sync.example.com/".parse().unwrap());
        assert_eq!(config.public_url("0.0.0.0:1".parse().unwrap()).as_str(), "wss://sync.example.com");
        assert!(config.warnings().is_empty());
    }
}
