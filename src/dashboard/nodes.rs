//! The fleet: nodes that have enrolled, and what they last said of themselves.
//!
//! - An operator makes an enrolment secret, good for some enrolments and some time. A node hands it in once and gets a
//!   credential of its own, with which it says that it lives and learns of keys. Both are stored as fingerprints.
//! - A name is one node. Enrolling it again replaces its credential: the old one is dead at once.
//! - An operator can have a node drained, and call it off: the node hears of it by the feed, at the latest with its next
//!   heartbeat.
//! - `down` is not stored: a node is down when nothing was heard of it for [`DOWN_AFTER_S`].

use std::collections::BTreeMap;

use sqlx::any::AnyRow;
use uuid::Uuid;

use super::Dashboard;
use super::access::{Action, Actor, Denied, Principal, require};
use super::audit::{self, Event};
use super::random;
use super::region::LicenseRegion;
use super::store::{Columns, StoreError, query};
use crate::config::WebSocketUrl;

/// How often a node is told to say that it lives, in seconds.
pub const HEARTBEAT_EVERY_S: i64 = 10;
/// Three heartbeats and some time on the way.
pub const DOWN_AFTER_S: i64 = 35;

const LABEL_CHARS_MAX: usize = 128;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    pub name: String,
    pub region: LicenseRegion,
    pub cluster: String,
    pub public_url: WebSocketUrl,
    /// Connections that it takes at most.
    pub capacity: i64,
    pub version: String,
}

/// What a node says of itself again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    pub version: String,
    pub connections: i64,
    pub documents: i64,
    pub is_draining: bool,
    /// Tells this process of the node from those before; 0 if it reports no usage.
    pub boot: i64,
    /// Where clients reach it now, if it says so.
    pub public_url: Option<WebSocketUrl>,
    pub capacity: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    Active,
    Draining,
    Down,
}

/// A node of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: Uuid,
    pub name: String,
    pub region: String,
    pub cluster: String,
    pub public_url: String,
    pub capacity: i64,
    pub version: String,
    pub state: NodeState,
    /// The operator's word: `Active` or `Draining`.
    pub wanted: NodeState,
    pub connections: i64,
    pub documents: i64,
    pub last_heartbeat_at: i64,
}

/// A node that has just enrolled, with its credential, which is shown this once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    pub node: Uuid,
    pub credential: String,
}

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(
        "the enrolment secret is unknown, used up or expired; an operator makes a new one with `admin create-enrolment-secret`"
    )]
    Enrolment,
    #[error("{0} must be 1 to {LABEL_CHARS_MAX} of the characters A-Z a-z 0-9 - _ . :")]
    Label(&'static str),
    #[error("{0} must not be negative")]
    Negative(&'static str),
    #[error("an enrolment secret is good for 1 to 1000 nodes and 1 to 365 days")]
    Bounds,
    #[error("there is no node called {0}")]
    Missing(String),
    #[error("the node {name} is {} already", .wanted.as_str())]
    Wanted { name: String, wanted: NodeState },
    #[error(
        "the node's credential is not valid; another node of its name may have enrolled since, or it was removed"
    )]
    Credential,
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for NodeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl NodeState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

impl Introduction {
    fn check(&self) -> Result<(), NodeError> {
        let is_label = |text: &str| {
            (1..=LABEL_CHARS_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
        };
        for (what, text) in [("name", &self.name), ("cluster", &self.cluster), ("version", &self.version)] {
            if !is_label(text) {
                return Err(NodeError::Label(what));
            }
        }
        if self.capacity < 0 { Err(NodeError::Negative("capacity")) } else { Ok(()) }
    }
}

/// Makes a secret that lets so many nodes in for so many days; it is returned this once.
///
/// # Errors
/// [`NodeError::Denied`] unless the actor is an operator or the command line.
pub async fn create_enrolment(
    dashboard: &Dashboard,
    actor: &Actor,
    uses: i64,
    days: i64,
) -> Result<String, NodeError> {
    if !(1..=1000).contains(&uses) || !(1..=365).contains(&days) {
        return Err(NodeError::Bounds);
    }
    let secret = random::secret("wse_");
    let hash = random::fingerprint(&secret);
    let now = dashboard.now();
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::ManageNodes, None).await?;
    query("DELETE FROM node_enrolments WHERE uses_left = 0 OR expires_at <= $1")
        .bind(now)
        .execute(&mut *tx)
        .await?;
    let insert = query(
        "INSERT INTO node_enrolments (secret_hash, uses_left, created_at, expires_at) VALUES ($1, $2, $3, $4)",
    );
    let insert = insert.bind(hash).bind(uses).bind(now).bind(now + days * 86_400);
    insert.execute(&mut *tx).await?;
    let event = Event::new(now, actor, "node.create_enrolment", "");
    audit::append(&mut tx, &event.with(serde_json::json!({ "uses": uses, "days": days }))).await?;
    tx.commit().await?;
    Ok(secret)
}

/// Takes a node into the registry, or gives one that is in it a new credential.
///
/// # Errors
/// [`NodeError::Enrolment`] if the secret is not good (any more).
pub async fn enrol(
    dashboard: &Dashboard,
    actor: &Actor,
    secret: &str,
    node: Introduction,
) -> Result<Enrolled, NodeError> {
    node.check()?;
    let now = dashboard.now();
    let credential = random::secret("wsn_");
    let mut tx = dashboard.home.begin().await?;
    let spend = query(
        "UPDATE node_enrolments SET uses_left = uses_left - 1 \
         WHERE secret_hash = $1 AND uses_left > 0 AND expires_at > $2",
    );
    if spend.bind(random::fingerprint(secret)).bind(now).execute(&mut *tx).await?.rows_affected() != 1 {
        return Err(NodeError::Enrolment);
    }
    let insert = query(
        "INSERT INTO nodes (id, name, region, cluster, public_url, capacity, version, wanted_state, reported_state, \
         connections, documents, credential_hash, enrolled_at, last_heartbeat_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'active', 'active', 0, 0, $8, $9, $9) \
         ON CONFLICT (name) DO UPDATE SET region = excluded.region, cluster = excluded.cluster, \
         public_url = excluded.public_url, capacity = excluded.capacity, version = excluded.version, \
         reported_state = 'active', connections = 0, documents = 0, credential_hash = excluded.credential_hash, \
         enrolled_at = excluded.enrolled_at, last_heartbeat_at = excluded.last_heartbeat_at RETURNING id",
    );
    let insert = insert.bind(random::guid().to_string()).bind(node.name.clone()).bind(node.region.code());
    let insert = insert.bind(node.cluster).bind(node.public_url.as_str().to_owned()).bind(node.capacity);
    let insert = insert.bind(node.version).bind(random::fingerprint(&credential)).bind(now);
    let id: Uuid = insert.fetch_one(&mut *tx).await?.parsed("id")?;
    let actor = Actor { principal: Principal::Node(id), address: actor.address };
    let event = Event::new(now, &actor, "node.enrol", id);
    let detail = serde_json::json!({ "name": node.name, "region": node.region.code() });
    audit::append(&mut tx, &event.with(detail)).await?;
    tx.commit().await?;
    dashboard.feed.wake();
    Ok(Enrolled { node: id, credential })
}

/// The node whose credential this is.
///
/// # Errors
/// [`NodeError::Credential`] if it is nobody's.
pub async fn authenticate(dashboard: &Dashboard, credential: &str) -> Result<Uuid, NodeError> {
    Ok(authenticate_process(dashboard, credential).await?.0)
}

/// The node whose credential this is, and which process of it sent the latest heartbeat.
pub(super) async fn authenticate_process(
    dashboard: &Dashboard,
    credential: &str,
) -> Result<(Uuid, i64), NodeError> {
    let row = query("SELECT id, boot FROM nodes WHERE credential_hash = $1")
        .bind(random::fingerprint(credential))
        .fetch_optional(dashboard.home.reader())
        .await?
        .ok_or(NodeError::Credential)?;
    Ok((row.parsed("id")?, row.int("boot")?))
}

/// Notes that a node lives and how it fares; whether the operator wants it drained. Not in the audit log: nothing that
/// anybody decided is changed by it.
///
/// # Errors
/// [`NodeError::Credential`].
pub async fn heartbeat(
    dashboard: &Dashboard,
    credential: &str,
    heartbeat: Heartbeat,
) -> Result<NodeState, NodeError> {
    let Heartbeat { version, connections, documents, is_draining, boot, public_url, capacity } = heartbeat;
    if connections < 0 || documents < 0 || capacity.is_some_and(|capacity| capacity < 0) {
        return Err(NodeError::Negative("connections, documents and capacity"));
    }
    let reported = if is_draining { "draining" } else { "active" };
    let mut tx = dashboard.home.begin().await?;
    let update = query(
        "UPDATE nodes SET last_heartbeat_at = $1, connections = $2, documents = $3, reported_state = $4, version = $5, \
         boot = $6, public_url = CASE WHEN $7 = '' THEN public_url ELSE $7 END, \
         capacity = CASE WHEN $8 < 0 THEN capacity ELSE $8 END WHERE credential_hash = $9 RETURNING wanted_state",
    );
    let version: String = version.chars().take(LABEL_CHARS_MAX).collect();
    let public_url = public_url.map_or_else(String::new, |url| url.as_str().to_owned());
    let update = update.bind(dashboard.now()).bind(connections).bind(documents).bind(reported).bind(version);
    let update = update.bind(boot).bind(public_url).bind(capacity.unwrap_or(-1));
    let update = update.bind(random::fingerprint(credential));
    let row = update.fetch_optional(&mut *tx).await?.ok_or(NodeError::Credential)?;
    tx.commit().await?;
    Ok(wanted_state(&row)?)
}

/// Has a node drained: it refuses new sessions and asks the living ones to leave, spread over its `drain.spread_s`.
///
/// # Errors
/// [`NodeError::Missing`] if there is none of this name, [`NodeError::Wanted`] if that is what it does already.
pub async fn drain(dashboard: &Dashboard, actor: &Actor, name: &str) -> Result<(), NodeError> {
    set_draining(dashboard, actor, name, true).await
}

/// Calls a drain off, or ends it: the node takes sessions again, without a restart.
///
/// # Errors
/// [`NodeError::Missing`] if there is none of this name, [`NodeError::Wanted`] if that is what it does already.
pub async fn undrain(dashboard: &Dashboard, actor: &Actor, name: &str) -> Result<(), NodeError> {
    set_draining(dashboard, actor, name, false).await
}

/// [`drain`] or [`undrain`].
///
/// # Errors
/// Theirs.
pub async fn set_draining(
    dashboard: &Dashboard,
    actor: &Actor,
    name: &str,
    is_draining: bool,
) -> Result<(), NodeError> {
    let (wanted, action) = match is_draining {
        true => (NodeState::Draining, "node.drain"),
        false => (NodeState::Active, "node.undrain"),
    };
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::ManageNodes, None).await?;
    let update =
        query("UPDATE nodes SET wanted_state = $1 WHERE name = $2 AND wanted_state <> $1 RETURNING id");
    let updated = update.bind(wanted.as_str()).bind(name.to_owned()).fetch_optional(&mut *tx).await?;
    let Some(row) = updated else {
        let found = query("SELECT id FROM nodes WHERE name = $1").bind(name.to_owned());
        let name = name.to_owned();
        return Err(match found.fetch_optional(&mut *tx).await? {
            Some(_) => NodeError::Wanted { name, wanted },
            None => NodeError::Missing(name),
        });
    };
    let event = Event::new(dashboard.now(), actor, action, row.text("id")?);
    audit::append(&mut tx, &event.with(serde_json::json!({ "name": name }))).await?;
    tx.commit().await?;
    dashboard.feed.wake();
    Ok(())
}

fn wanted_state(row: &AnyRow) -> Result<NodeState, StoreError> {
    Ok(if row.text("wanted_state")? == "draining" { NodeState::Draining } else { NodeState::Active })
}

/// Every node, by name.
///
/// # Errors
/// [`NodeError::Denied`].
pub async fn list(dashboard: &Dashboard, actor: &Actor) -> Result<Vec<Node>, NodeError> {
    let mut tx = dashboard.home.begin_read().await?;
    require(&mut tx, actor, Action::ManageNodes, None).await?;
    drop(tx);
    Ok(fleet(dashboard).await?)
}

/// Every node, by name, whoever asks: nodes tell clients of one another.
pub(super) async fn fleet(dashboard: &Dashboard) -> Result<Vec<Node>, StoreError> {
    let now = dashboard.now();
    let rows = query("SELECT * FROM nodes ORDER BY name").fetch_all(dashboard.home.reader()).await?;
    rows.iter().map(|row| of_row(row, now)).collect()
}

fn of_row(row: &AnyRow, now: i64) -> Result<Node, StoreError> {
    let (last_heartbeat_at, wanted) = (row.int("last_heartbeat_at")?, wanted_state(row)?);
    let is_draining = wanted == NodeState::Draining || row.text("reported_state")? == "draining";
    let state = match is_draining {
        _ if now - last_heartbeat_at > DOWN_AFTER_S => NodeState::Down,
        true => NodeState::Draining,
        false => NodeState::Active,
    };
    Ok(Node {
        id: row.parsed("id")?,
        name: row.text("name")?,
        region: row.text("region")?,
        cluster: row.text("cluster")?,
        public_url: row.text("public_url")?,
        capacity: row.int("capacity")?,
        version: row.text("version")?,
        state,
        wanted,
        connections: row.int("connections")?,
        documents: row.int("documents")?,
        last_heartbeat_at,
    })
}

/// The nodes that are not down, with the process that each is, and when they were last heard of.
pub(super) async fn alive(dashboard: &Dashboard) -> Result<BTreeMap<(Uuid, i64), i64>, StoreError> {
    let rows = query("SELECT id, boot, last_heartbeat_at FROM nodes WHERE last_heartbeat_at >= $1");
    let rows = rows.bind(dashboard.now() - DOWN_AFTER_S).fetch_all(dashboard.home.reader()).await?;
    let each = |row: &AnyRow| Ok(((row.parsed("id")?, row.int("boot")?), row.int("last_heartbeat_at")?));
    rows.iter().map(each).collect()
}

/// Where an app of this region connects best: the least loaded node that is up and takes connections, of the region if it
/// has one. `None` while there is no node at all.
///
/// # Errors
/// [`StoreError`].
pub async fn nearest(dashboard: &Dashboard, region: LicenseRegion) -> Result<Option<String>, StoreError> {
    let row = query(
        "SELECT public_url FROM nodes WHERE wanted_state = 'active' AND reported_state = 'active' \
         AND last_heartbeat_at >= $1 ORDER BY CASE WHEN region = $2 THEN 0 ELSE 1 END, connections, name LIMIT 1",
    );
    let row = row.bind(dashboard.now() - DOWN_AFTER_S).bind(region.code());
    let row = row.fetch_optional(dashboard.home.reader()).await?;
    row.map(|row| row.text("public_url")).transpose()
}

/// Takes a node out of the registry; its credential is dead at once.
///
/// # Errors
/// [`NodeError::Missing`] if there is none of this name.
pub async fn remove(dashboard: &Dashboard, actor: &Actor, name: &str) -> Result<(), NodeError> {
    let mut tx = dashboard.home.begin().await?;
    require(&mut tx, actor, Action::ManageNodes, None).await?;
    let removed = query("DELETE FROM nodes WHERE name = $1 RETURNING id").bind(name.to_owned());
    let removed =
        removed.fetch_optional(&mut *tx).await?.ok_or_else(|| NodeError::Missing(name.to_owned()))?;
    let event = Event::new(dashboard.now(), actor, "node.remove", removed.text("id")?);
    audit::append(&mut tx, &event.with(serde_json::json!({ "name": name }))).await?;
    tx.commit().await?;
    dashboard.feed.wake();
    Ok(())
}
