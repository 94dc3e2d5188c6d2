//! What apps use: live over all nodes, and as a history per minute for a day and per hour for a year.
//!
//! - Nodes report (`limits::metering` is their side): each app's connections and documents, and its ops since the report
//!   before. A report counts once in each license region that it names apps of, however often it arrives: its number is
//!   written in the transaction that counts it.
//! - All of it is in the app's region database and nowhere else. Which region that is, its subscription says.
//! - A report must come from the process that the node's latest heartbeat named: what an earlier one left behind neither
//!   counts nor is shown.
//! - A minute and an hour hold the most that was reported at once, over all nodes, and the sum of the ops; they are added
//!   to with each report, so there is nothing to roll up later. A node that died is still in the first for up to
//!   [`nodes::DOWN_AFTER_S`] and one upkeep.
//!
//! Absent: limits being enforced, which nodes do by themselves.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use super::Dashboard;
use super::access::{Action, Actor, Denied, require};
use super::apps::{App, database_of};
use super::nodes::{self, NodeError};
use super::plans::Plan;
use super::region::LicenseRegion;
use super::store::{Columns, StoreError, Tx, query};
use super::subscriptions;

pub const MINUTE_S: i64 = 60;
pub const HOUR_S: i64 = 3600;
/// How long minutes are kept.
pub const MINUTES_KEPT_S: i64 = 86_400;
/// How long hours are kept.
pub const HOURS_KEPT_S: i64 = 366 * 86_400;
/// Apps in one report.
pub const APPS_MAX: usize = 1000;

/// Figures whose newest part is older than two heartbeats and some time on the way.
const STALE_AFTER_S: i64 = 2 * nodes::HEARTBEAT_EVERY_S + 5;
/// Regions of apps kept in memory.
const APPS_KNOWN_MAX: usize = 100_000;

/// Which region apps are of: it never changes.
#[derive(Debug, Default)]
pub(super) struct KnownApps(Mutex<HashMap<Uuid, LicenseRegion>>);

/// What a node reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub boot: i64,
    pub sequence: i64,
    pub apps: Vec<AppReport>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppReport {
    pub app: Uuid,
    pub connections: i64,
    pub documents: i64,
    pub ops: i64,
}

/// What an app uses now, on all nodes together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    pub connections: i64,
    pub documents: i64,
    /// Ops in the minute that runs.
    pub ops_this_minute: i64,
    /// Nodes that have some of it.
    pub nodes: i64,
    /// The plan whose limits hold; `None` if the app has none.
    pub plan: Option<Plan>,
    /// When the node that was heard of least recently, of those that count, was heard of.
    pub as_of: i64,
    /// That is too long ago for figures that are called live.
    pub is_stale: bool,
}

/// How fine a history is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Kept for a day.
    Minutes,
    /// Kept for a year.
    Hours,
}

/// One minute or hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// When it began.
    pub at: i64,
    /// The most at once.
    pub connections: i64,
    pub documents: i64,
    pub ops: i64,
    /// Whether a node said anything of it. If not, the figures are zero: nothing was there, or nobody could tell.
    pub is_reported: bool,
}

impl Point {
    const fn unreported(at: i64) -> Self {
        Self { at, connections: 0, documents: 0, ops: 0, is_reported: false }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    #[error("a report names at most {APPS_MAX} apps, and no figure in it is negative")]
    Report,
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for UsageError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Resolution {
    /// Seconds of one point.
    #[must_use]
    pub const fn step_s(self) -> i64 {
        match self {
            Self::Minutes => MINUTE_S,
            Self::Hours => HOUR_S,
        }
    }

    /// For how many seconds points are kept.
    #[must_use]
    pub const fn kept_s(self) -> i64 {
        match self {
            Self::Minutes => MINUTES_KEPT_S,
            Self::Hours => HOURS_KEPT_S,
        }
    }
}

/// Takes a node's report. `false` if it is of another process than the node's latest heartbeat. Apps that have never had a
/// plan here are passed over: their tokens were not issued by this dashboard.
///
/// # Errors
/// [`UsageError`]; what was counted by then is not counted again when the report comes again.
pub async fn report(dashboard: &Dashboard, credential: &str, report: &Report) -> Result<bool, UsageError> {
    let is_wrong =
        |app: &AppReport| app.connections < 0 || app.documents < 0 || !(0..1 << 40).contains(&app.ops);
    if report.apps.len() > APPS_MAX || report.apps.iter().any(is_wrong) {
        return Err(UsageError::Report);
    }
    let (node, boot) = nodes::authenticate_process(dashboard, credential).await?;
    if boot != report.boot {
        return Ok(false);
    }
    let mut by_region: BTreeMap<LicenseRegion, Vec<AppReport>> = BTreeMap::new();
    for app in &report.apps {
        if let Some(region) = region_of(dashboard, app.app).await? {
            by_region.entry(region).or_default().push(*app);
        }
    }
    for (region, mut apps) in by_region {
        // Reports that come at the same time lock the same apps in the same order.
        apps.sort_unstable_by_key(|app| app.app);
        let Some(database) = dashboard.region(region) else { continue };
        let mut tx = database.begin().await?;
        if is_new(&mut tx, node, region, report).await? {
            for app in &apps {
                count(&mut tx, node, region, report.boot, app, dashboard.now()).await?;
            }
        }
        tx.commit().await?;
    }
    Ok(true)
}

async fn region_of(dashboard: &Dashboard, app: Uuid) -> Result<Option<LicenseRegion>, StoreError> {
    let known = || dashboard.known_apps.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(&region) = known().get(&app) {
        return Ok(Some(region));
    }
    let row = query("SELECT region FROM subscriptions WHERE app_id = $1 LIMIT 1").bind(app.to_string());
    let Some(row) = row.fetch_optional(dashboard.home.reader()).await? else { return Ok(None) };
    let region = row.parsed("region")?;
    let mut known = known();
    if known.len() >= APPS_KNOWN_MAX {
        known.clear();
    }
    known.insert(app, region);
    Ok(Some(region))
}

/// Notes the report's number; whether it had not been counted before.
async fn is_new(tx: &mut Tx, node: Uuid, region: LicenseRegion, report: &Report) -> Result<bool, StoreError> {
    let insert = query(
        "INSERT INTO usage_reports (node_id, region, boot, sequence) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (node_id, region) DO UPDATE SET boot = excluded.boot, sequence = excluded.sequence \
         WHERE usage_reports.boot <> excluded.boot OR usage_reports.sequence < excluded.sequence",
    );
    let insert = insert.bind(node.to_string()).bind(region.code()).bind(report.boot).bind(report.sequence);
    if insert.execute(&mut **tx).await?.rows_affected() != 1 {
        return Ok(false);
    }
    // What the node's process before this one had is gone with it.
    let delete = query("DELETE FROM usage_live WHERE node_id = $1 AND region = $2 AND boot <> $3");
    delete.bind(node.to_string()).bind(region.code()).bind(report.boot).execute(&mut **tx).await?;
    Ok(true)
}

async fn count(
    tx: &mut Tx,
    node: Uuid,
    region: LicenseRegion,
    boot: i64,
    app: &AppReport,
    now: i64,
) -> Result<(), StoreError> {
    let (app_id, node) = (app.app.to_string(), node.to_string());
    if app.connections == 0 && app.documents == 0 {
        let delete = query("DELETE FROM usage_live WHERE app_id = $1 AND node_id = $2");
        delete.bind(app_id.clone()).bind(node).execute(&mut **tx).await?;
    } else {
        let upsert = query(
            "INSERT INTO usage_live (app_id, node_id, region, boot, connections, documents) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (app_id, node_id) DO UPDATE SET region = excluded.region, \
             boot = excluded.boot, connections = excluded.connections, documents = excluded.documents",
        );
        let upsert = upsert.bind(app_id.clone()).bind(node).bind(region.code()).bind(boot);
        upsert.bind(app.connections).bind(app.documents).execute(&mut **tx).await?;
    }
    for (statement, step_s) in [(ADD_TO_MINUTE, MINUTE_S), (ADD_TO_HOUR, HOUR_S)] {
        let add = query(statement).bind(app_id.clone()).bind(now - now.rem_euclid(step_s)).bind(app.ops);
        add.execute(&mut **tx).await?;
    }
    Ok(())
}

macro_rules! add_to {
    ($table:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " (app_id, at, connections, documents, ops) \
             SELECT $1, $2, COALESCE(SUM(connections), 0), COALESCE(SUM(documents), 0), $3 FROM usage_live \
             WHERE app_id = $1 ON CONFLICT (app_id, at) DO UPDATE SET ops = ",
            $table,
            ".ops + excluded.ops, connections = CASE WHEN excluded.connections > ",
            $table,
            ".connections THEN excluded.connections ELSE ",
            $table,
            ".connections END, documents = CASE WHEN excluded.documents > ",
            $table,
            ".documents THEN excluded.documents ELSE ",
            $table,
            ".documents END"
        )
    };
}

const ADD_TO_MINUTE: &str = add_to!("usage_minutes");
const ADD_TO_HOUR: &str = add_to!("usage_hours");

/// What an app uses now.
///
/// # Errors
/// [`UsageError::Denied`] for whoever is no member of its tenant.
pub async fn live(dashboard: &Dashboard, actor: &Actor, app: &App) -> Result<Live, UsageError> {
    allow(dashboard, actor, app).await?;
    let (database, now) = (database_of(dashboard, app)?, dashboard.now());
    let alive = nodes::alive(dashboard).await?;
    let rows = query("SELECT node_id, boot, connections, documents FROM usage_live WHERE app_id = $1");
    let rows = rows.bind(app.id.to_string()).fetch_all(database.reader()).await?;
    let plan = subscriptions::current(dashboard, app.id).await?.map(|subscription| subscription.plan);
    let mut live = Live {
        connections: 0,
        documents: 0,
        ops_this_minute: 0,
        nodes: 0,
        plan,
        as_of: now,
        is_stale: false,
    };
    for row in &rows {
        let process = (row.parsed::<Uuid>("node_id")?, row.int("boot")?);
        if let Some(&heard_at) = alive.get(&process) {
            live.connections += row.int("connections")?;
            live.documents += row.int("documents")?;
            live.nodes += 1;
            live.as_of = live.as_of.min(heard_at);
        }
    }
    live.is_stale = now - live.as_of > STALE_AFTER_S;
    let ops = query("SELECT ops FROM usage_minutes WHERE app_id = $1 AND at = $2");
    let ops = ops.bind(app.id.to_string()).bind(now - now.rem_euclid(MINUTE_S));
    if let Some(row) = ops.fetch_optional(database.reader()).await? {
        live.ops_this_minute = row.int("ops")?;
    }
    Ok(live)
}

/// An app's history from `from` (included) to `to` (not included), as far as it is kept, oldest first. There is a point for
/// every minute or hour: one of which nothing was reported says so, and is zero.
///
/// # Errors
/// [`UsageError::Denied`] for whoever is no member of its tenant.
pub async fn history(
    dashboard: &Dashboard,
    actor: &Actor,
    app: &App,
    resolution: Resolution,
    from: i64,
    to: i64,
) -> Result<Vec<Point>, UsageError> {
    allow(dashboard, actor, app).await?;
    let (now, step_s) = (dashboard.now(), resolution.step_s());
    let begin = |at: i64| at - at.rem_euclid(step_s);
    let from = begin(from.max(now - resolution.kept_s() + step_s));
    let to = to.min(now + 1);
    let rows = match resolution {
        Resolution::Minutes => {
            query("SELECT * FROM usage_minutes WHERE app_id = $1 AND at >= $2 AND at < $3 ORDER BY at")
        }
        Resolution::Hours => {
            query("SELECT * FROM usage_hours WHERE app_id = $1 AND at >= $2 AND at < $3 ORDER BY at")
        }
    };
    let rows = rows.bind(app.id.to_string()).bind(from).bind(to);
    let rows = rows.fetch_all(database_of(dashboard, app)?.reader()).await?;
    let mut found = BTreeMap::new();
    for row in &rows {
        let (at, connections, documents) = (row.int("at")?, row.int("connections")?, row.int("documents")?);
        let ops = row.int("ops")?;
        found.insert(at, Point { at, connections, documents, ops, is_reported: true });
    }
    let each = |at| found.remove(&at).unwrap_or(Point::unreported(at));
    Ok((from..to).step_by(usize::try_from(step_s).unwrap_or(1)).map(each).collect())
}

/// Forgets what is older than it is kept, and what nodes had that are gone.
///
/// # Errors
/// [`StoreError`].
pub async fn upkeep(dashboard: &Dashboard) -> Result<(), UsageError> {
    let now = dashboard.now();
    let alive = nodes::alive(dashboard).await?;
    for database in dashboard.region_databases() {
        let rows =
            query("SELECT DISTINCT node_id, boot FROM usage_live").fetch_all(database.reader()).await?;
        let mut gone = Vec::new();
        for row in &rows {
            let (node, boot) = (row.parsed::<Uuid>("node_id")?, row.int("boot")?);
            if !alive.contains_key(&(node, boot)) {
                gone.push((node, boot));
            }
        }
        let mut tx = database.begin().await?;
        for (node, boot) in gone {
            let delete = query("DELETE FROM usage_live WHERE node_id = $1 AND boot = $2");
            delete.bind(node.to_string()).bind(boot).execute(&mut *tx).await?;
        }
        let minutes = query("DELETE FROM usage_minutes WHERE at < $1").bind(now - MINUTES_KEPT_S);
        minutes.execute(&mut *tx).await?;
        query("DELETE FROM usage_hours WHERE at < $1").bind(now - HOURS_KEPT_S).execute(&mut *tx).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn allow(dashboard: &Dashboard, actor: &Actor, app: &App) -> Result<(), UsageError> {
    let mut tx = dashboard.home.begin_read().await?;
    Ok(require(&mut tx, actor, Action::ReadUsage, Some(app.tenant)).await?)
}
