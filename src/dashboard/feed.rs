//! What keys there are, and which nodes, pushed to nodes: a stream of server-sent events per node, which can be resumed.
//!
//! - The audit log is the feed: every change of a tenant's keys has an entry there, written in the change's own
//!   transaction, and its numbers follow the order of the commits. An event's id is such a number; whoever comes back with
//!   it gets the tenants that changed since, whoever has none gets them all.
//! - An event holds a tenant's whole key set as it is when it is sent, not what changed: sent twice, or later than another,
//!   it does no harm.
//! - A change made in this process is sent at once, one made elsewhere (`wiresocket admin`, another dashboard on the same
//!   database) within [`LOOK_EVERY`].
//! - The fleet is sent as a whole, at first and whenever it differs from what was sent: a node enrols, is drained, or is
//!   not heard of any more. It has no place in the numbering, and needs none.
//! - An app whose plan has changed is sent with its new limits: its tokens bear the old ones for as long as they live, and
//!   nodes need not wait for that. A new stream begins with the changes of so long ago.
//! - What a node doesn't take in time ends its stream; it comes back and resumes.
//!
//! ```text
//! event: keys
//! data: {"tenantId":"…","jwks":{"keys":[…],"revoked":[…]}}
//!
//! event: limits
//! data: {"tenantId":"…","appId":"…","limits":{…},"issuedUntil":1800000005,"holdS":900}
//!                              limits as in tokens; those that were issued up to then may bear others, and live so long
//!
//! event: fleet
//! data: {"self":"…","nodes":[{"id","name","region","cluster","publicUrl","state","wanted"},…]}
//!
//! id: 4711                     all up to here was sent; also every KEEP_ALIVE, so that silence means a dead connection
//!
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify, Semaphore, mpsc, watch};
use uuid::Uuid;

use super::Dashboard;
use super::keys::{self, JwksDocument};
use super::nodes::{self, Node, NodeError};
use super::plans::Plan;
use super::store::{Columns, StoreError, query};
use super::subscriptions::{self, AppId};

/// How soon a change that another process made is seen.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How soon it is seen that a node has gone, or fares otherwise.
const LOOK_AT_FLEET_EVERY: Duration = Duration::from_secs(2);
/// When the database does not answer, as often as this is enough for the log.
const LOOK_AFTER_FAILURE: Duration = Duration::from_secs(2);
/// A node takes a stream for dead when it has heard nothing for three of these.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long a node may take to make room for what is sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// What a token's `iat` may be later than when the limits in it were looked up: a signature may have waited.
const ISSUING_S_MAX: i64 = 5;
/// Events on their way to one node.
const QUEUED_MAX: usize = 16;
/// Nodes that may follow one dashboard.
const STREAMS_MAX: usize = 4096;

/// Where the feed ends now, and who waits for more.
#[derive(Debug)]
pub struct Feed {
    /// Of the audit log; none once the process is stopping.
    head: watch::Sender<Option<i64>>,
    /// All nodes, as JSON; empty until somebody has looked.
    fleet: watch::Sender<Arc<str>>,
    looking_at_fleet: Mutex<()>,
    look: Notify,
    places: Arc<Semaphore>,
}

impl Dashboard {
    /// Ends every node's feed, so that a server that waits for its connections can stop.
    pub(super) fn end_feeds(&self) {
        self.feed.head.send_replace(None);
    }
}

impl Feed {
    pub(super) fn new() -> Self {
        let (head, _) = watch::channel(Some(0));
        let (fleet, _) = watch::channel("".into());
        Self {
            head,
            fleet,
            looking_at_fleet: Mutex::new(()),
            look: Notify::new(),
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }

    /// Something has changed: look at once.
    pub(super) fn wake(&self) {
        self.look.notify_one();
    }
}

/// Looks for changes while anybody follows. Run it as long as the dashboard serves: without it feeds say nothing new.
pub async fn look(dashboard: Arc<Dashboard>) {
    let feed = &dashboard.feed;
    let mut fleet_due = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = feed.look.notified() => {}
        }
        if feed.head.receiver_count() == 0 {
            continue;
        }
        if let Err(error) = look_once(&dashboard, &mut fleet_due).await {
            tracing::error!(%error, "the feed can't see what has changed");
            tokio::time::sleep(LOOK_AFTER_FAILURE).await;
        }
    }
}

async fn look_once(dashboard: &Dashboard, fleet_due: &mut Instant) -> Result<(), StoreError> {
    let feed = &dashboard.feed;
    let seq = head(dashboard).await?;
    let has_news = (*feed.head.borrow()).is_some_and(|known| known < seq);
    // Before the head: who is woken by that finds the fleet that goes with it.
    if has_news || Instant::now() >= *fleet_due {
        *fleet_due = Instant::now() + LOOK_AT_FLEET_EVERY;
        look_at_fleet(dashboard).await?;
    }
    feed.head.send_if_modified(|head| match head {
        Some(known) if *known < seq => {
            *known = seq;
            true
        }
        _ => false,
    });
    Ok(())
}

/// Publishes all nodes as nodes are told of them. One at a time: what was read earlier must not replace what was read later.
async fn look_at_fleet(dashboard: &Dashboard) -> Result<(), StoreError> {
    let _alone = dashboard.feed.looking_at_fleet.lock().await;
    let each = |node: Node| {
        serde_json::json!({
            "id": node.id,
            "name": node.name,
            "region": node.region,
            "cluster": node.cluster,
            "publicUrl": node.public_url,
            "state": node.state.as_str(),
            "wanted": node.wanted.as_str(),
        })
    };
    let nodes: serde_json::Value = nodes::fleet(dashboard).await?.into_iter().map(each).collect();
    let fleet: Arc<str> = nodes.to_string().into();
    dashboard.feed.fleet.send_if_modified(|known| {
        let is_other = *known != fleet;
        *known = fleet;
        is_other
    });
    Ok(())
}

async fn head(dashboard: &Dashboard) -> Result<i64, StoreError> {
    query("SELECT seq FROM audit_head WHERE id = 1").fetch_one(dashboard.home.reader()).await?.int("seq")
}

/// The last entry before this time.
async fn seq_before(dashboard: &Dashboard, at: i64) -> Result<i64, StoreError> {
    let row = query("SELECT seq FROM audit_log WHERE at < $1 ORDER BY seq DESC LIMIT 1").bind(at);
    let row = row.fetch_optional(dashboard.home.reader()).await?;
    row.map_or(Ok(0), |row| row.int("seq"))
}

/// The tenants whose keys changed after `after`, up to `head`; all that have keys if there is no `after`.
async fn changed(dashboard: &Dashboard, after: Option<i64>, head: i64) -> Result<Vec<Uuid>, StoreError> {
    let rows = match after {
        None => query("SELECT DISTINCT tenant_id FROM signing_keys ORDER BY tenant_id"),
        Some(after) => {
            let rows = query(
                "SELECT tenant_id, MAX(seq) AS last FROM audit_log \
                 WHERE seq > $1 AND seq <= $2 AND action LIKE 'key.%' GROUP BY tenant_id ORDER BY last",
            );
            rows.bind(after).bind(head)
        }
    };
    let rows = rows.fetch_all(dashboard.home.reader()).await?;
    rows.iter().map(|row| row.parsed("tenant_id")).collect()
}

/// Begins a node's stream: what is to be sent comes out of the receiver. `None` when there are too many.
pub(super) fn follow(
    dashboard: &Arc<Dashboard>,
    node: Uuid,
    credential: String,
    after: Option<i64>,
) -> Option<mpsc::Receiver<String>> {
    let place = Arc::clone(&dashboard.feed.places).try_acquire_owned().ok()?;
    let (out, events) = mpsc::channel(QUEUED_MAX);
    let stream = Stream { dashboard: Arc::clone(dashboard), node, credential, out };
    tokio::spawn(async move {
        let _place = place;
        match stream.run(after).await {
            Ok(()) | Err(StreamEnd::Gone) => {}
            Err(StreamEnd::Node(NodeError::Credential)) => {
                tracing::warn!("a node's credential is no longer valid: its key feed has ended");
            }
            Err(StreamEnd::Node(error)) => tracing::error!(%error, "a node's key feed has ended"),
        }
    });
    Some(events)
}

/// Why a stream is over before the process stops.
enum StreamEnd {
    /// The node has gone, or takes nothing.
    Gone,
    Node(NodeError),
}

impl From<StoreError> for StreamEnd {
    fn from(error: StoreError) -> Self {
        Self::Node(error.into())
    }
}

struct Stream {
    dashboard: Arc<Dashboard>,
    node: Uuid,
    credential: String,
    out: mpsc::Sender<String>,
}

impl Stream {
    async fn run(&self, after: Option<i64>) -> Result<(), StreamEnd> {
        let mut heads = self.dashboard.feed.head.subscribe();
        let mut fleets = self.dashboard.feed.fleet.subscribe();
        let mut head = head(&self.dashboard).await?;
        let mut told: Arc<str> = "".into();
        look_at_fleet(&self.dashboard).await?; // nobody may have looked for long
        // A number from the future is that of another database, perhaps of one that a backup was restored over.
        let mut after = after.filter(|&after| after <= head);
        loop {
            if after != Some(head) {
                for tenant in changed(&self.dashboard, after, head).await? {
                    if let Some(document) = keys::jwks(&self.dashboard, tenant).await? {
                        self.send(keys_event(tenant, &document)).await?;
                    }
                }
                self.send_limits(after, head).await?;
            }
            let fleet = Arc::clone(&fleets.borrow_and_update());
            if told != fleet {
                self.send(fleet_event(self.node, &fleet)).await?;
                told = fleet;
            }
            self.send(format!("id: {head}\n\n")).await?;
            after = Some(head);
            let quiet = tokio::time::sleep(KEEP_ALIVE);
            tokio::select! {
                () = self.out.closed() => return Err(StreamEnd::Gone),
                // The sender lives as long as the dashboard, which is held here.
                _ = heads.wait_for(|seen| seen.is_none_or(|seen| seen > head)) => {}
                _ = fleets.wait_for(|seen| *seen != told) => {}
                () = quiet => {}
            }
            let seen = *heads.borrow_and_update();
            head = match seen {
                None => return Ok(()),
                Some(seen) => seen.max(head),
            };
            nodes::authenticate(&self.dashboard, &self.credential).await.map_err(StreamEnd::Node)?;
        }
    }

    async fn send_limits(&self, after: Option<i64>, head: i64) -> Result<(), StreamEnd> {
        let hold_s = self.dashboard.config.tokens.access_token_s;
        let after = match after {
            Some(after) => after,
            None => seq_before(&self.dashboard, self.dashboard.now() - hold_s - ISSUING_S_MAX).await?,
        };
        // Whoever is issued a token that late has looked its plan up after this does.
        let issued_until = self.dashboard.now() + ISSUING_S_MAX;
        for (app, plan) in subscriptions::changed_limits(&self.dashboard, after, head).await? {
            // Who gets no tokens any more keeps what the tokens say until they end.
            if let Some(plan) = plan {
                self.send(limits_event(app, &plan, issued_until, hold_s)).await?;
            }
        }
        Ok(())
    }

    async fn send(&self, text: String) -> Result<(), StreamEnd> {
        self.out.send_timeout(text, SEND_TIMEOUT).await.map_err(|_| StreamEnd::Gone)
    }
}

/// JSON has no line breaks of its own here, so one `data` line holds it.
fn keys_event(tenant: Uuid, document: &JwksDocument) -> String {
    format!("event: keys\ndata: {{\"tenantId\":\"{tenant}\",\"jwks\":{}}}\n\n", document.body)
}

fn limits_event(app: AppId, plan: &Plan, issued_until: i64, hold_s: i64) -> String {
    let AppId { tenant, app } = app;
    let (limits, hold_s) = (plan.limits(), hold_s + ISSUING_S_MAX);
    let event = serde_json::json!({
        "tenantId": tenant, "appId": app, "limits": limits, "issuedUntil": issued_until, "holdS": hold_s,
    });
    format!("event: limits\ndata: {event}\n\n")
}

fn fleet_event(node: Uuid, fleet: &str) -> String {
    format!("event: fleet\ndata: {{\"self\":\"{node}\",\"nodes\":{fleet}}}\n\n")
}
