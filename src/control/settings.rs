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
use crate::config::ShardSettings;
use crate::limits::{Network, Rates};
use crate::protocol::close::Refusal;

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRefused {
    pub refusal: Refusal,
    /// Set when the token names a key that the set lacks: one refresh of that tenant's keys may mend it.
    pub unknown_key: Option<(Uuid, String)>,
}

/// Checks a token: wall clock in Unix seconds, the token.
pub type Verify = Box<dyn FnMut(u64, &str) -> Result<Arc<Grant>, TokenRefused>>;

/// Makes the check for a key set; called again whenever the set changes, so a verifier's cache ends with its set.
pub type MakeVerifier = Box<dyn Fn(Arc<KeySets>) -> Verify + Send>;

/// Replaces one tenant's keys by those of a JWKS document (RFC 7517); `{"keys":[]}` takes them all away.
/// The error says what is wrong with the document.
pub type WithTenant = Box<dyn Fn(&KeySets, Uuid, &[u8]) -> Result<KeySets, String> + Send>;

/// Everything [`super::start`] is told.
pub struct Settings {
    /// The origin of [`crate::time::Now::monotonic`]: the same instant for every thread of the node.
    pub started: Instant,
    /// This node's region, as `/discovery` names it.
    pub region: Box<str>,
    /// Where clients reach this node (`wss://host`), without a trailing slash.
    pub public_url: Box<str>,
    pub live: Live,
    pub http: HttpBounds,
    pub keys: KeySettings,
    pub bounds: Bounds,
    pub make_verifier: MakeVerifier,
    pub with_tenant: WithTenant,
    /// Further routes, behind the node's own: paths that the node answers itself are not reached here.
    pub extra: Option<Router>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("region", &self.region)
            .field("public_url", &self.public_url)
            .field("live", &self.live)
            .field("http", &self.http)
            .field("keys", &self.keys)
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

/// What a reload may change.
#[derive(Debug, Clone)]
pub struct Live {
    /// Handed on to every shard.
    pub shards: Arc<ShardSettings>,
    pub rates: Rates,
    /// Networks that the per-address buckets don't count.
    pub exempt: Vec<Network>,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    pub marks: Marks,
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
#[derive(Debug, Clone)]
pub struct KeySettings {
    /// JWKS documents known at start (dev); they never change.
    pub preloaded: Vec<(Uuid, Vec<u8>)>,
    /// A directory of `<tenantid>.json` files, each a JWKS document. Read at start and on reload.
    pub dir: Option<PathBuf>,
    /// A URL with `{tenantId}` in it, http or https. Polled.
    pub jwks_url: Option<String>,
    /// The tenants whose URL is polled from the start.
    pub tenants: Vec<Uuid>,
    /// Whether a token of a tenant that isn't listed may cause a fetch; if that finds keys, the tenant is polled from then on.
    pub fetch_unlisted: bool,
    pub poll_interval: Duration,
    /// Between two refreshes of one tenant that tokens asked for.
    pub refresh_interval: Duration,
    /// Refreshes of all tenants in any minute.
    pub refreshes_per_minute: u32,
    pub fetch_timeout: Duration,
    pub jwks_bytes_max: u64,
}

impl Default for KeySettings {
    fn default() -> Self {
        Self {
            preloaded: Vec::new(),
            dir: None,
            jwks_url: None,
            tenants: Vec::new(),
            fetch_unlisted: true,
            poll_interval: Duration::from_secs(60),
            refresh_interval: Duration::from_secs(10),
            refreshes_per_minute: 60,
            fetch_timeout: Duration::from_secs(5),
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
