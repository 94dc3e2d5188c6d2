//! What the control shard needs to know, and the two things it borrows from `auth` as closures.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use uuid::Uuid;

use super::overload::Marks;
use crate::auth::Grant;
use crate::auth::keys::KeySets;
use crate::config::{JwksUrl, ShardSettings};
use crate::limits::{Network, Rates};
use crate::protocol::close::Refusal;
use crate::tls::Expiry;

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRefused {
    pub refusal: Refusal,
    /// Set when the token names a key that the set lacks: one refresh of that tenant's keys may mend it.
    pub unknown_key: Option<(Uuid, String)>,
}

/// Checks a token: wall clock in Unix seconds, the token.
pub type Verify = Box<dyn FnMut(u64, &str) -> Result<Arc<Grant>, TokenRefused>>;

/// Makes the check for these settings and keys; called again whenever one of them changes, so a verifier's cache ends
/// with what it was filled under.
pub type MakeVerifier = Box<dyn Fn(&ShardSettings, Arc<KeySets>) -> Verify + Send>;

/// Replaces one tenant's keys by those of a JWKS document (RFC 7517); `{"keys":[]}` takes them all away.
/// The error says what is wrong with the document, which then changes nothing.
pub type SetTenant = Box<dyn Fn(&mut KeySets, Uuid, &[u8]) -> Result<(), String> + Send>;

/// Revokes one key of a tenant, whether it is in the set or not.
pub type RevokeKey = Box<dyn Fn(&mut KeySets, Uuid, &str) + Send>;

/// What `auth` does with key sets.
pub struct KeyFunctions {
    pub set_tenant: SetTenant,
    pub revoke: RevokeKey,
}

impl fmt::Debug for KeyFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFunctions").finish_non_exhaustive()
    }
}

/// Everything [`super::start`] is told.
pub struct Settings {
    /// The origin of [`crate::time::Now::monotonic`]: the same instant for every thread of the node.
    pub started: Instant,
    pub live: Live,
    pub http: HttpBounds,
    pub bounds: Bounds,
    /// JWKS documents known at start (dev); they never change.
    pub preloaded_keys: Vec<(Uuid, Vec<u8>)>,
    pub make_verifier: MakeVerifier,
    pub key_functions: KeyFunctions,
    /// Whose key feed is followed, and who hears heartbeats.
    pub dashboard: Option<DashboardSettings>,
    /// When the certificate that the node shows expires; `None` without TLS.
    pub certificate: Option<Expiry>,
    /// Further routes, behind the node's own: paths that the node answers itself are not reached here.
    pub extra: Option<Router>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("live", &self.live)
            .field("http", &self.http)
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

/// The dashboard, and what it is told about this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DashboardSettings {
    /// Without a slash at its end.
    pub url: Box<str>,
    pub enrolment_secret_file: Option<PathBuf>,
    pub credential_file: PathBuf,
    pub name: Box<str>,
    pub region: Box<str>,
    pub cluster: Box<str>,
    pub public_url: Box<str>,
    /// Connections that the node plans for.
    pub capacity: u64,
}

/// What a reload may change.
#[derive(Debug, Clone)]
pub struct Live {
    /// Handed on to every shard.
    pub shards: Arc<ShardSettings>,
    pub keys: KeySettings,
    /// This node's region, as `/discovery` names it.
    pub region: Box<str>,
    /// Where clients reach this node (`wss://host`); a trailing slash doesn't matter.
    pub public_url: Box<str>,
    /// Origins whose pages may read `/usage` and `/discovery`; `*` is any.
    pub cors_origins: Vec<Box<str>>,
    /// `Retry-After` of an unhealthy node, before jitter.
    pub retry_after: Duration,
    pub rates: Rates,
    /// Networks that the per-address buckets don't count.
    pub exempt: Vec<Network>,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    pub marks: Marks,
    /// Closing the sessions of a node that the dashboard wants drained is spread over this long.
    pub drain_spread: Duration,
}

/// Bounds of one HTTP request: what a slow or greedy client can hold.
#[derive(Debug, Clone, Copy)]
pub struct HttpBounds {
    /// Time until the request head is complete, counted from the hand-over.
    pub head_timeout: Duration,
    /// Time from the hand-over until the answer is written.
    pub request_timeout: Duration,
    /// At least 8192: hyper's own lower bound for its read buffer.
    pub head_bytes_max: usize,
    pub body_bytes_max: usize,
    /// Requests served at once; one more is closed unanswered.
    pub requests_max: usize,
}

impl Default for HttpBounds {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            head_bytes_max: 16 * 1024,
            body_bytes_max: 64 * 1024,
            requests_max: 1024,
        }
    }
}

/// Where verification keys come from. A tenant's keys are those of all its sources together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySettings {
    /// A directory of `<tenantid>.json` files, each a JWKS document. Read at start and on reload.
    pub dir: Option<PathBuf>,
    /// Polled.
    pub jwks_url: Option<JwksUrl>,
    /// The tenants whose URL is fetched before [`super::start`] returns, and polled from then on.
    pub tenants: Vec<Uuid>,
    /// Whether a token of a tenant that isn't listed may cause a fetch; if that finds keys, the tenant is polled from then on.
    pub fetch_unlisted: bool,
    pub poll_interval: Duration,
    /// Between two refreshes of one tenant that tokens asked for.
    pub refresh_interval: Duration,
    /// Refreshes of all tenants in any minute.
    pub refreshes_per_minute: u32,
    /// A tenant's fetched keys are no longer trusted when fetching them has failed for this long.
    pub stale_after: Duration,
    pub fetch_timeout: Duration,
    /// How long [`super::start`] waits for the listed tenants' keys before it goes on without.
    pub start_wait: Duration,
    pub jwks_bytes_max: u64,
}

impl Default for KeySettings {
    fn default() -> Self {
        Self {
            dir: None,
            jwks_url: None,
            tenants: Vec::new(),
            fetch_unlisted: true,
            poll_interval: Duration::from_secs(300),
            refresh_interval: Duration::from_secs(10),
            refreshes_per_minute: 60,
            stale_after: Duration::from_secs(86_400),
            fetch_timeout: Duration::from_secs(5),
            start_wait: Duration::from_secs(15),
            jwks_bytes_max: 256 * 1024,
        }
    }
}

/// Bounds of the traffic with the shards.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How often every shard is asked for its figures, and the load is looked at.
    pub report_interval: Duration,
    /// How long `/metrics` waits for fresh figures; what is missing then is answered from the last ones.
    pub metrics_wait: Duration,
    /// A shard that owes an answer for longer is silent: the node is degraded.
    pub silence_max: Duration,
    /// A mailbox that stays full for longer makes the node degraded.
    pub mailbox_full_max: Duration,
    /// Answers kept for a shard whose mailbox is full; its next questions go unanswered.
    pub backlog_max: usize,
    /// How long after its spread a drain waits for shards that haven't finished.
    pub drain_slack: Duration,
    /// Buckets of client addresses kept in memory.
    pub buckets_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            report_interval: Duration::from_secs(1),
            metrics_wait: Duration::from_secs(1),
            silence_max: Duration::from_secs(5),
            mailbox_full_max: Duration::from_secs(2),
            backlog_max: 65_536,
            drain_slack: Duration::from_secs(5),
            buckets_max: 200_000,
        }
    }
}
