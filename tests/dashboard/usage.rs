//! What apps use: reports of nodes, live figures, history.

use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;
use wiresocket::dashboard::apps::{App, Credentials};
use wiresocket::dashboard::nodes::DOWN_AFTER_S;
use wiresocket::dashboard::region::LicenseRegion;
use wiresocket::dashboard::store::{Columns, query};
use wiresocket::dashboard::usage::{self, HOURS_KEPT_S, Live, MINUTES_KEPT_S, Point, Resolution, UsageError};

use crate::nodes::{enrol, post};
use crate::stage::{Answer, Stage};

/// A process of a node.
struct Node<'a> {
    stage: &'a Stage,
    credential: String,
    boot: i64,
    sequence: i64,
}

impl<'a> Node<'a> {
    async fn start(stage: &'a Stage, name: &str) -> Self {
        let node = Self { stage, credential: enrol(stage, name).await, boot: 1, sequence: 0 };
        node.beat().await;
        node
    }

    async fn restart(&mut self) {
        (self.boot, self.sequence) = (self.boot + 1, 0);
        self.beat().await;
    }

    async fn beat(&self) {
        let body =
            json!({ "version": "1", "connections": 0, "documents": 0, "draining": false, "boot": self.boot });
        assert_eq!(post(self.stage, "self/heartbeat", &self.credential, body).await.status, StatusCode::OK);
    }

    async fn send(&self, apps: &Value) -> Answer {
        let body = json!({ "boot": self.boot, "sequence": self.sequence, "apps": apps });
        post(self.stage, "self/usage", &self.credential, body).await
    }

    /// The next report: app, connections, documents, ops.
    async fn report(&mut self, apps: &[(&App, i64, i64, i64)]) {
        self.sequence += 1;
        let apps = apps.iter().map(|(app, connections, documents, ops)| {
            json!({ "appId": app.id, "connections": connections, "documents": documents, "ops": ops })
        });
        let answer = self.send(&apps.collect()).await;
        assert_eq!((answer.status, &answer.json), (StatusCode::OK, &json!({ "taken": true })));
    }
}

async fn app_of(stage: &Stage, (tenant, credentials): &(Uuid, Credentials)) -> App {
    stage.read(*tenant, credentials).await
}

async fn live(stage: &Stage, app: &App) -> Live {
    usage::live(&stage.dashboard, &stage.operator, app).await.unwrap()
}

async fn figures(stage: &Stage, app: &App) -> (i64, i64, i64) {
    let live = live(stage, app).await;
    (live.connections, live.documents, live.nodes)
}

async fn history(stage: &Stage, app: &App, resolution: Resolution) -> Vec<Point> {
    usage::history(&stage.dashboard, &stage.operator, app, resolution, 0, i64::MAX).await.unwrap()
}

/// The points that are not zero: how long ago they began, connections, documents, ops.
async fn peaks(stage: &Stage, app: &App, resolution: Resolution) -> Vec<(i64, i64, i64, i64)> {
    let now = stage.clock.unix_s();
    let points = history(stage, app, resolution).await;
    assert_eq!(points.len() as i64, resolution.kept_s() / resolution.step_s());
    assert!(points.windows(2).all(|pair| pair[1].at - pair[0].at == resolution.step_s()));
    let newest = points.last().unwrap().at;
    assert!(newest <= now && now - newest < resolution.step_s());
    let is_peak = |point: &&Point| (point.connections, point.documents, point.ops) != (0, 0, 0);
    let each = |point: &Point| (newest - point.at, point.connections, point.documents, point.ops);
    points.iter().filter(is_peak).map(each).collect()
}

pub async fn live_figures_are_those_of_all_nodes_that_are_heard_of(stage: Stage) {
    let ready = stage.ready().await;
    let app = app_of(&stage, &ready).await;
    assert_eq!(figures(&stage, &app).await, (0, 0, 0));
    let (mut one, mut two) = (Node::start(&stage, "eu-1").await, Node::start(&stage, "eu-2").await);
    one.report(&[(&app, 5, 2, 10)]).await;
    two.report(&[(&app, 3, 1, 4)]).await;
    let now = live(&stage, &app).await;
    assert_eq!((now.connections, now.documents, now.nodes, now.ops_this_minute), (8, 3, 2, 14));
    assert_eq!((now.plan.map(|plan| plan.max_connections), now.is_stale), (Some(1000), false));
    one.report(&[(&app, 0, 0, 1)]).await;
    assert_eq!(figures(&stage, &app).await, (3, 1, 1));

    stage.clock.advance(DOWN_AFTER_S - 5);
    let old = live(&stage, &app).await;
    assert_eq!((old.connections, old.is_stale), (3, true), "not heard of for long, and not down yet");
    assert_eq!(stage.clock.unix_s() - old.as_of, DOWN_AFTER_S - 5);
    two.beat().await;
    assert!(!live(&stage, &app).await.is_stale);
    stage.clock.advance(DOWN_AFTER_S + 1);
    assert_eq!(figures(&stage, &app).await, (0, 0, 0), "down");
    two.beat().await;
    assert_eq!(figures(&stage, &app).await, (3, 1, 1), "and back, with what it has");
    let strangers = stage.tenant("b@example.com").await.1;
    assert!(matches!(usage::live(&stage.dashboard, &strangers, &app).await, Err(UsageError::Denied(_))));
}

pub async fn a_report_counts_once_however_often_it_arrives(stage: Stage) {
    let ready = stage.ready().await;
    let app = app_of(&stage, &ready).await;
    let mut node = Node::start(&stage, "eu-1").await;
    node.report(&[(&app, 5, 2, 10)]).await;
    for _ in 0..3 {
        node.sequence -= 1;
        node.report(&[(&app, 5, 2, 10)]).await;
    }
    let apps = json!([{ "appId": app.id, "connections": 5, "documents": 2, "ops": 100 }]);
    node.sequence = 2;
    let (a, b, c) = tokio::join!(node.send(&apps), node.send(&apps), node.send(&apps));
    for answer in [a, b, c] {
        assert_eq!(answer.json, json!({ "taken": true }), "who sends it again must hear that it counts");
    }
    assert_eq!(live(&stage, &app).await.ops_this_minute, 110);
    node.report(&[(&app, 5, 2, 1)]).await;
    assert_eq!(live(&stage, &app).await.ops_this_minute, 111);
}

pub async fn a_restarted_node_leaves_nothing_behind(stage: Stage) {
    let ready = stage.ready().await;
    let app = app_of(&stage, &ready).await;
    let mut node = Node::start(&stage, "eu-1").await;
    node.report(&[(&app, 5, 2, 10)]).await;
    let old = Node { credential: node.credential.clone(), ..node };
    node.restart().await;
    assert_eq!(figures(&stage, &app).await, (0, 0, 0), "the new process has said nothing of it");
    let late = old.send(&json!([{ "appId": app.id, "connections": 9, "documents": 9, "ops": 9 }])).await;
    assert_eq!(late.json, json!({ "taken": false }));
    node.report(&[(&app, 1, 1, 3)]).await;
    assert_eq!(figures(&stage, &app).await, (1, 1, 1));
    assert_eq!(live(&stage, &app).await.ops_this_minute, 13, "numbers begin anew, ops add up");
    assert_eq!(peaks(&stage, &app, Resolution::Minutes).await, [(0, 5, 2, 13)]);
    node.restart().await;
    usage::upkeep(&stage.dashboard).await.unwrap();
    let left =
        query("SELECT COUNT(*) AS found FROM usage_live").fetch_one(stage.dashboard.home.reader()).await;
    assert_eq!(left.unwrap().int("found").unwrap(), 0);
}

pub async fn the_history_has_a_point_for_every_minute_and_hour(stage: Stage) {
    let ready = stage.ready().await;
    let app = app_of(&stage, &ready).await;
    let (mut one, mut two) = (Node::start(&stage, "eu-1").await, Node::start(&stage, "eu-2").await);
    assert!(peaks(&stage, &app, Resolution::Minutes).await.is_empty());
    one.report(&[(&app, 5, 2, 10)]).await;
    two.report(&[(&app, 4, 1, 10)]).await;
    one.report(&[(&app, 1, 1, 10)]).await;
    stage.clock.advance(120);
    one.beat().await;
    one.report(&[(&app, 1, 1, 7)]).await;
    assert_eq!(peaks(&stage, &app, Resolution::Minutes).await, [(120, 9, 3, 30), (0, 5, 2, 7)]);
    stage.clock.advance(3600);
    two.beat().await;
    usage::upkeep(&stage.dashboard).await.unwrap(); // the other one is down
    two.report(&[(&app, 2, 2, 0)]).await;
    assert_eq!(peaks(&stage, &app, Resolution::Hours).await, [(3600, 9, 3, 37), (0, 2, 2, 0)]);
    let now = stage.clock.unix_s();
    let some =
        usage::history(&stage.dashboard, &stage.operator, &app, Resolution::Minutes, now - 300, now - 60)
            .await;
    assert_eq!(some.unwrap().len(), 4);
}

pub async fn the_history_is_in_the_apps_region_and_is_bounded(stage: Stage) {
    let (tenant, _) = stage.tenant("owner@example.com").await;
    let credentials = stage.app_in(tenant, LicenseRegion::EuWest1, &[]).await;
    stage.subscribe(tenant, &credentials, "starter").await;
    let app = stage.read(tenant, &credentials).await;
    let mut node = Node::start(&stage, "eu-1").await;
    node.report(&[(&app, 5, 2, 10)]).await;
    let eu = stage.dashboard.region(LicenseRegion::EuWest1).unwrap();
    let rows = async |database: &wiresocket::dashboard::store::Database| {
        let mut rows = Vec::new();
        for statement in [
            "SELECT COUNT(*) AS found FROM usage_live",
            "SELECT COUNT(*) AS found FROM usage_minutes",
            "SELECT COUNT(*) AS found FROM usage_hours",
        ] {
            rows.push(query(statement).fetch_one(database.reader()).await.unwrap().int("found").unwrap());
        }
        rows
    };
    assert_eq!((rows(&stage.dashboard.home).await, rows(eu).await), (vec![0, 0, 0], vec![1, 1, 1]));
    stage.clock.advance(MINUTES_KEPT_S + 60);
    usage::upkeep(&stage.dashboard).await.unwrap();
    assert_eq!(rows(eu).await, [0, 0, 1]);
    assert_eq!(peaks(&stage, &app, Resolution::Hours).await.len(), 1);
    stage.clock.advance(HOURS_KEPT_S);
    usage::upkeep(&stage.dashboard).await.unwrap();
    assert_eq!(rows(eu).await, [0, 0, 0]);
}

pub async fn a_report_that_is_wrong_is_refused_and_strange_apps_are_passed_over(stage: Stage) {
    let ready = stage.ready().await;
    let app = app_of(&stage, &ready).await;
    let mut node = Node::start(&stage, "eu-1").await;
    node.sequence = 1;
    let wrong = json!([{ "appId": app.id, "connections": -1, "documents": 0, "ops": 0 }]);
    assert_eq!(node.send(&wrong).await.status, StatusCode::BAD_REQUEST);
    let many = (0..1001).map(|_| json!({ "appId": app.id, "connections": 0, "documents": 0, "ops": 0 }));
    assert_eq!(node.send(&many.collect()).await.status, StatusCode::BAD_REQUEST);
    let stranger = Node { credential: "x".to_owned(), stage: &stage, boot: 1, sequence: 1 };
    assert_eq!(stranger.send(&json!([])).await.status, StatusCode::UNAUTHORIZED);
    let strange = json!([
        { "appId": Uuid::from_u128(1), "connections": 1, "documents": 1, "ops": 1 },
        { "appId": app.id, "connections": 1, "documents": 1, "ops": 1 },
    ]);
    assert_eq!(node.send(&strange).await.json, json!({ "taken": true }));
    assert_eq!(figures(&stage, &app).await, (1, 1, 1));
}
