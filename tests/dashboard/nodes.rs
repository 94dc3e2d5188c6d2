//! The registry of nodes and the key feed.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use hyper::body::Body as _;
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use tower::ServiceExt;
use uuid::Uuid;
use wiresocket::dashboard::nodes::{self, NodeError, NodeState};
use wiresocket::dashboard::region::LicenseRegion;
use wiresocket::dashboard::{self, audit, keys};

use crate::stage::{Answer, START, Stage};

const DAY_S: i64 = 86_400;

pub async fn post(stage: &Stage, path: &str, bearer: &str, body: Value) -> Answer {
    let request =
        Request::post(format!("/api/v1/nodes/{path}")).header(header::CONTENT_TYPE, "application/json");
    let request = request.header(header::AUTHORIZATION, format!("Bearer {bearer}"));
    stage.send(request, Body::from(body.to_string())).await
}

fn introduction(name: &str) -> Value {
    json!({
        "name": name,
        "region": "aws-eu-west-1",
        "cluster": "blue",
        "publicUrl": "wss://eu-1.example.com",
        "capacity": 50_000,
        "version": "0.1.0",
    })
}

async fn secret(stage: &Stage, uses: i64) -> String {
    nodes::create_enrolment(&stage.dashboard, &stage.operator, uses, 1).await.unwrap()
}

pub async fn enrol(stage: &Stage, name: &str) -> String {
    let answer = post(stage, "enrol", &secret(stage, 1).await, introduction(name)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json);
    answer.text("credential")
}

async fn heartbeat(stage: &Stage, credential: &str, draining: bool) -> Answer {
    let body = json!({ "version": "0.1.1", "connections": 7, "documents": 3, "draining": draining });
    post(stage, "self/heartbeat", credential, body).await
}

async fn list(stage: &Stage) -> Vec<nodes::Node> {
    nodes::list(&stage.dashboard, &stage.operator).await.unwrap()
}

pub async fn an_enrolment_secret_lets_in_as_many_as_it_says(stage: Stage) {
    let (two, stale) = (secret(&stage, 2).await, secret(&stage, 2).await);
    let enrol = |secret, name| post(&stage, "enrol", secret, introduction(name));
    let (a, b, c) = tokio::join!(enrol(&two, "a"), enrol(&two, "b"), enrol(&two, "c"));
    let statuses = [a.status, b.status, c.status];
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::CREATED).count(), 2, "{statuses:?}");
    assert_eq!(
        statuses.iter().filter(|status| **status == StatusCode::UNAUTHORIZED).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(list(&stage).await.len(), 2);

    stage.clock.advance(DAY_S);
    let late = enrol(&stale, "d").await;
    assert_eq!(late.status, StatusCode::UNAUTHORIZED);
    assert!(late.text("detail").contains("create-enrolment-secret"), "{}", late.json);
    assert!(secret(&stage, 1).await.starts_with("wse_"));
    let audit = audit::entries(&stage.dashboard.home, 0, 100, None).await.unwrap();
    let actions: Vec<_> = audit.iter().map(|entry| entry.event.action.as_str()).collect();
    assert_eq!(actions.iter().filter(|action| **action == "node.enrol").count(), 2, "{actions:?}");
    assert!(audit.iter().all(|entry| !format!("{entry:?}").contains("wse_")), "no secret in the audit log");
}

pub async fn who_enrols_under_a_name_again_replaces_its_credential(stage: Stage) {
    let first = enrol(&stage, "eu-1").await;
    assert_eq!(heartbeat(&stage, &first, false).await.status, StatusCode::OK);
    let second = enrol(&stage, "eu-1").await;
    assert_eq!(heartbeat(&stage, &first, false).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(heartbeat(&stage, &second, false).await.status, StatusCode::OK);
    assert_eq!(list(&stage).await.len(), 1);
    nodes::remove(&stage.dashboard, &stage.operator, "eu-1").await.unwrap();
    assert_eq!(heartbeat(&stage, &second, false).await.status, StatusCode::UNAUTHORIZED);
    assert!(nodes::remove(&stage.dashboard, &stage.operator, "eu-1").await.is_err());
}

pub async fn a_node_that_is_silent_is_down(stage: Stage) {
    let credential = enrol(&stage, "eu-1").await;
    let state = async || list(&stage).await[0].state;
    assert_eq!(state().await, NodeState::Active);
    stage.clock.advance(nodes::DOWN_AFTER_S);
    assert_eq!(state().await, NodeState::Active);
    stage.clock.advance(1);
    assert_eq!(state().await, NodeState::Down);

    let answer = heartbeat(&stage, &credential, true).await;
    assert_eq!(answer.json, json!({ "state": "active", "heartbeatS": nodes::HEARTBEAT_EVERY_S }));
    let node = list(&stage).await.remove(0);
    assert_eq!((node.state, node.connections, node.documents), (NodeState::Draining, 7, 3));
    assert_eq!((node.version.as_str(), node.cluster.as_str(), node.capacity), ("0.1.1", "blue", 50_000));
    heartbeat(&stage, &credential, false).await;
    assert_eq!(state().await, NodeState::Active);
}

pub async fn a_node_is_told_what_is_wrong_with_its_requests(stage: Stage) {
    let secret = secret(&stage, 1).await;
    for (field, value, said) in [
        ("region", json!("mars"), "no license region \"mars\""),
        ("publicUrl", json!("https://eu-1.example.com"), "wss:// or ws://"),
        ("name", json!("a b"), "name must be"),
        ("capacity", json!(-1), "capacity"),
        ("capacity", json!("many"), "capacity"),
    ] {
        let mut introduction = introduction("eu-1");
        introduction[field] = value;
        let answer = post(&stage, "enrol", &secret, introduction).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{field}");
        assert!(answer.text("detail").contains(said), "{field}: {}", answer.json);
    }
    assert_eq!(
        post(&stage, "enrol", &secret, introduction("eu-1")).await.status,
        StatusCode::CREATED,
        "unspent"
    );

    let nobody = stage.send(Request::get("/api/v1/nodes/self/keys"), Body::empty()).await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
    assert_eq!(nobody.header(header::WWW_AUTHENTICATE), "Bearer");
    // Five wrong secrets, as the stage is configured; the fifth and those after wait.
    for _ in 0..5 {
        assert_eq!(post(&stage, "enrol", "guess", introduction("x")).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(post(&stage, "enrol", "guess", introduction("x")).await.status, StatusCode::TOO_MANY_REQUESTS);
}

/// The ids of each tenant's keys, and how many are revoked.
type Tenants = BTreeMap<Uuid, (Vec<String>, usize)>;

/// A node's feed as it comes in.
struct Feed {
    body: Body,
    text: String,
    /// As last told: this node's id, and all nodes by name with their states and what is wanted of them.
    fleet: (String, BTreeMap<String, (String, String)>),
    /// Every `limits` event.
    limits: Vec<Value>,
    looking: AbortHandle,
}

fn fleet(data: &str) -> (String, BTreeMap<String, (String, String)>) {
    let data: Value = serde_json::from_str(data).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let each = |node: &Value| (text(&node["name"]), (text(&node["state"]), text(&node["wanted"])));
    (text(&data["self"]), data["nodes"].as_array().unwrap().iter().map(each).collect())
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl Feed {
    async fn follow(stage: &Stage, credential: &str, after: Option<&str>) -> Self {
        let looking =
            tokio::spawn(dashboard::look_for_key_changes(Arc::clone(&stage.dashboard))).abort_handle();
        let mut request = Request::get("/api/v1/nodes/self/keys")
            .header(header::AUTHORIZATION, format!("Bearer {credential}"));
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = dashboard::router(Arc::clone(&stage.dashboard)).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        Self {
            body: response.into_body(),
            text: String::new(),
            fleet: Default::default(),
            limits: Vec::new(),
            looking,
        }
    }

    /// More text; none at the end.
    async fn more(&mut self) -> Option<()> {
        let frame = std::future::poll_fn(|context| Pin::new(&mut self.body).poll_frame(context));
        let frame =
            tokio::time::timeout(Duration::from_secs(20), frame).await.expect("the feed says something");
        let data = frame?.unwrap().into_data().unwrap();
        self.text.push_str(std::str::from_utf8(&data).unwrap());
        Some(())
    }

    /// Waits until the fleet is as it should be.
    async fn until_fleet(&mut self, expected: &[(&str, &str, &str)]) {
        let each = |&(name, state, wanted): &(&str, &str, &str)| {
            (name.to_owned(), (state.to_owned(), wanted.to_owned()))
        };
        let expected: BTreeMap<_, _> = expected.iter().map(each).collect();
        while self.fleet.1 != expected {
            let Some((event, rest)) = self.text.split_once("\n\n") else {
                self.more().await.expect("the feed goes on");
                continue;
            };
            if let Some(data) = event.strip_prefix("event: fleet\ndata: ") {
                self.fleet = fleet(data);
            }
            self.text = rest.to_owned();
        }
    }

    /// What is said up to the next id that is not `after`, and the id.
    async fn next(&mut self, after: &str) -> (Tenants, String) {
        let mut tenants = BTreeMap::new();
        loop {
            let Some((event, rest)) = self.text.split_once("\n\n") else {
                self.more().await.expect("the feed goes on");
                continue;
            };
            let (event, rest) = (event.to_owned(), rest.to_owned());
            self.text = rest;
            if let Some(id) = event.strip_prefix("id: ") {
                if id != after {
                    return (tenants, id.to_owned());
                }
                continue;
            }
            if let Some(data) = event.strip_prefix("event: fleet\ndata: ") {
                self.fleet = fleet(data);
                continue;
            }
            if let Some(data) = event.strip_prefix("event: limits\ndata: ") {
                self.limits.push(serde_json::from_str(data).unwrap());
                continue;
            }
            let data = event.strip_prefix("event: keys\ndata: ").expect("a keys event");
            let data: Value = serde_json::from_str(data).unwrap();
            let keys = data["jwks"]["keys"].as_array().unwrap();
            let ids = keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect();
            let revoked = data["jwks"]["revoked"].as_array().map_or(0, Vec::len);
            tenants.insert(data["tenantId"].as_str().unwrap().parse().unwrap(), (ids, revoked));
        }
    }
}

pub async fn a_feed_begins_with_everything_and_goes_on_with_what_changes(stage: Stage) {
    let (first, _) = stage.tenant("a@example.com").await;
    let (second, _) = stage.tenant("b@example.com").await;
    let credential = enrol(&stage, "eu-1").await;
    let mut feed = Feed::follow(&stage, &credential, None).await;
    let (all, id) = feed.next("").await;
    assert_eq!(BTreeSet::from_iter(all.keys()), BTreeSet::from([&first, &second]));

    let rotation = keys::rotate(&stage.dashboard, &stage.operator, first).await.unwrap();
    let (changed, id) = feed.next(&id).await;
    assert_eq!(changed.keys().collect::<Vec<_>>(), [&first], "what has not changed is not sent");
    let ids = |tenants: &Tenants| BTreeSet::from_iter(tenants[&first].0.clone());
    let (before, after) = (ids(&all), ids(&changed));
    assert!(after.is_superset(&before) && after.len() == 2 && after.contains(&rotation.kid), "{after:?}");

    let old = &all[&second].0[0];
    keys::revoke(&stage.dashboard, &stage.operator, second, old).await.unwrap();
    let (changed, id) = feed.next(&id).await;
    let (ids, revoked) = &changed[&second];
    assert!(!ids.contains(old) && ids.len() == 1 && *revoked == 1, "{changed:?}");

    let (third, _) = stage.tenant("c@example.com").await;
    let mut brought = feed.next(&id).await;
    while !brought.0.contains_key(&third) {
        brought = feed.next(&brought.1).await; // entries about accounts come first, in a message of their own or not
    }

    // The window of a retired key ends without anybody doing anything.
    stage.clock.advance(900);
    keys::upkeep(&stage.dashboard).await.unwrap();
    let (_, id) = feed.next(&brought.1).await;
    stage.clock.advance(1500);
    assert_eq!(keys::upkeep(&stage.dashboard).await.unwrap().gone, 1);
    let (changed, _) = feed.next(&id).await;
    assert_eq!(changed[&first].0.len(), 1);
}

pub async fn a_feed_goes_on_where_it_was_left(stage: Stage) {
    let (first, _) = stage.tenant("a@example.com").await;
    let (second, _) = stage.tenant("b@example.com").await;
    let credential = enrol(&stage, "eu-1").await;
    let (_, left) = Feed::follow(&stage, &credential, None).await.next("").await;
    let missed = Feed::follow(&stage, &credential, Some(&left)).await;
    drop(missed);
    keys::rotate(&stage.dashboard, &stage.operator, second).await.unwrap();
    let (changed, id) = Feed::follow(&stage, &credential, Some(&left)).await.next(&left).await;
    assert_eq!(changed.keys().collect::<Vec<_>>(), [&second]);
    let (nothing, same) = Feed::follow(&stage, &credential, Some(&id)).await.next("").await;
    assert!(nothing.is_empty() && same == id, "{nothing:?} {same}");
    for strange in ["999999", "x"] {
        let (all, _) = Feed::follow(&stage, &credential, Some(strange)).await.next("").await;
        assert!(all.contains_key(&first) && all.contains_key(&second), "{strange}");
    }
}

pub async fn a_feed_ends_with_its_credential(stage: Stage) {
    stage.tenant("a@example.com").await;
    let credential = enrol(&stage, "eu-1").await;
    let mut feed = Feed::follow(&stage, &credential, None).await;
    feed.next("").await;
    nodes::remove(&stage.dashboard, &stage.operator, "eu-1").await.unwrap();
    while feed.more().await.is_some() {}
    assert!(!feed.text.contains("keys"), "{}", feed.text);
}

pub async fn a_drain_and_its_end_reach_the_nodes(stage: Stage) {
    let credential = enrol(&stage, "eu-1").await;
    let mut feed = Feed::follow(&stage, &credential, None).await;
    feed.until_fleet(&[("eu-1", "active", "active")]).await;
    assert_eq!(feed.fleet.0, list(&stage).await[0].id.to_string(), "a node is told which one it is");

    nodes::drain(&stage.dashboard, &stage.operator, "eu-1").await.unwrap();
    feed.until_fleet(&[("eu-1", "draining", "draining")]).await;
    assert_eq!(heartbeat(&stage, &credential, true).await.json["state"], "draining");
    let again = nodes::drain(&stage.dashboard, &stage.operator, "eu-1").await.unwrap_err();
    assert_eq!(again.to_string(), "the node eu-1 is draining already");

    enrol(&stage, "eu-2").await;
    feed.until_fleet(&[("eu-1", "draining", "draining"), ("eu-2", "active", "active")]).await;
    nodes::undrain(&stage.dashboard, &stage.operator, "eu-1").await.unwrap();
    feed.until_fleet(&[("eu-1", "draining", "active"), ("eu-2", "active", "active")]).await;
    heartbeat(&stage, &credential, false).await;
    feed.until_fleet(&[("eu-1", "active", "active"), ("eu-2", "active", "active")]).await;
    stage.clock.advance(nodes::DOWN_AFTER_S + 1);
    heartbeat(&stage, &credential, false).await;
    feed.until_fleet(&[("eu-1", "active", "active"), ("eu-2", "down", "active")]).await;

    let (_, owner) = stage.tenant("owner@example.com").await;
    assert!(matches!(nodes::drain(&stage.dashboard, &owner, "eu-1").await, Err(NodeError::Denied(_))));
    assert!(matches!(nodes::drain(&stage.dashboard, &stage.operator, "x").await, Err(NodeError::Missing(_))));
    let audit = audit::entries(&stage.dashboard.home, 0, 100, None).await.unwrap();
    let drains = audit.iter().filter(|entry| entry.event.action.ends_with("drain")).count();
    assert_eq!(drains, 2, "each change once, refusals not at all");
}

pub async fn a_heartbeat_says_where_the_node_is_now(stage: Stage) {
    let credential = enrol(&stage, "eu-1").await;
    let mut body = json!({ "version": "0.1.1", "connections": 0, "documents": 0, "draining": false });
    post(&stage, "self/heartbeat", &credential, body.clone()).await;
    let node = list(&stage).await.remove(0);
    assert_eq!((node.public_url.as_str(), node.capacity), ("wss://eu-1.example.com", 50_000));
    (body["publicUrl"], body["capacity"]) = ("wss://eu-9.example.com/".into(), 7.into());
    post(&stage, "self/heartbeat", &credential, body.clone()).await;
    let node = list(&stage).await.remove(0);
    assert_eq!((node.public_url.as_str(), node.capacity), ("wss://eu-9.example.com", 7));
    body["publicUrl"] = "https://eu-9.example.com".into();
    let answer = post(&stage, "self/heartbeat", &credential, body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

pub async fn a_new_plan_reaches_the_nodes_while_older_tokens_live(stage: Stage) {
    let (tenant, credentials) = stage.ready().await;
    let credential = enrol(&stage, "eu-1").await;
    let mut feed = Feed::follow(&stage, &credential, None).await;
    let (_, id) = feed.next("").await;
    let starter =
        json!({ "maxConnections": 1000, "maxDocuments": 1000, "maxUsersPerDoc": 50, "opsPerMinute": 60000 });
    let expected = json!({ "tenantId": tenant, "appId": credentials.app, "limits": starter,
        "issuedUntil": START + 5, "holdS": 905 });
    assert_eq!(feed.limits, [expected], "a node that starts is told what its tokens may not say yet");

    let other = stage.app_in(tenant, LicenseRegion::UsEast1, &[]).await;
    stage.subscribe(tenant, &other, "pro").await;
    let mut id = id;
    while feed.limits.len() < 2 {
        id = feed.next(&id).await.1;
    }
    assert_eq!(
        (&feed.limits[1]["appId"], &feed.limits[1]["limits"]["maxConnections"]),
        (&json!(other.app), &json!(10000))
    );

    stage.clock.advance(906);
    let mut later = Feed::follow(&stage, &credential, None).await;
    later.next("").await;
    assert!(later.limits.is_empty(), "every token bears them by now: {:?}", later.limits);
}
