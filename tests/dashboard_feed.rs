//! Keys are pushed from the dashboard's binary to a node's: how soon every shard knows, and what happens while the two
//! are apart.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::wire::Wire;
use support::{Client, DashboardServer, NodeSetup, Replica, Server, eventually, wait_until};

const API: &str = "WireSocket.API";
const UNLIMITED: &str = "[http]\njwks_per_10_minutes = 0\n[keys]\njwks_max_age_s = 0\npublish_before_s = 0\n";

/// A node that fetches nothing by itself: what it knows was pushed.
fn node(dashboard: &DashboardServer) -> Server {
    let node = dashboard.member(NodeSetup::without_keys());
    let node = node.set("node.name", "eu-1").set("auth.jwks_poll_s", 3600).start();
    follows(&node, true);
    node
}

#[track_caller]
fn follows(node: &Server, expected: bool) {
    let expected = f64::from(u8::from(expected));
    wait_until("the node follows the feed, or not", || {
        node.metrics().get("wiresocket_key_feed_followed") == expected
    });
}

/// When every shard goes by the same keys as the control shard, and there are so many.
#[track_caller]
fn every_shard_has(node: &Server, keys: f64) {
    eventually("every shard has the keys", || {
        let metrics = node.metrics();
        let epoch = metrics.get("wiresocket_key_epoch");
        let shards = metrics.family("wiresocket_shard_key_epoch");
        assert_eq!(shards.len(), 2);
        (metrics.get("wiresocket_keys") == keys && shards.iter().all(|(_, of)| *of == epoch)).then_some(())
    });
}

fn app(dashboard: &DashboardServer) -> Value {
    let tenant = dashboard.admin(&["create-tenant", "Acme", "--owner", "owner@example.com", "--approve"]);
    dashboard.admin(&["create-app", text(&tenant, "tenant"), "Notes", "--plan", "starter"])
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

fn key_of(dashboard: &DashboardServer, tenant: &str) -> String {
    let set = dashboard.get(&format!("/{tenant}/.well-known/jwks")).json();
    text(&set["keys"][0], "kid").to_owned()
}

/// Editors in so many documents that both shards have some.
fn editors(node: &Server, token: &str) -> Vec<Replica> {
    let editors = (0..12).map(|n| Replica::join(node, &format!("doc-{n}"), token)).collect();
    let documents = node.metrics();
    let documents = documents.family("wiresocket_shard_documents");
    assert!(documents.iter().all(|(_, count)| *count > 0.0), "{documents:?}");
    editors
}

fn print(what: &str, took: &mut [Duration]) {
    took.sort_unstable();
    let (first, last) = (took[0], took[took.len() - 1]);
    eprintln!("{what}: median {:?} of {} ({first:?} to {last:?})", took[took.len() / 2], took.len());
}

#[test]
fn a_rotation_reaches_every_shard_and_drops_nobody() {
    let dashboard = DashboardServer::start(UNLIMITED);
    let node = node(&dashboard);
    let credentials = app(&dashboard);
    let tenant = text(&credentials, "tenantId");
    every_shard_has(&node, 1.0);
    let answer = dashboard.token(&credentials, API);
    let token = text(&answer, "access_token");
    let mut editors = editors(&node, token);
    let mut took = Vec::new();
    for n in 1..=5 {
        // A tenant's rotation can't begin while one is under way, so each round has a tenant of its own.
        let owner = format!("owner-{n}@example.com");
        let other = dashboard.admin(&["create-tenant", "Other", "--owner", &owner, "--approve"]);
        let keys = f64::from(2 * n);
        every_shard_has(&node, keys);
        dashboard.admin(&["rotate-key", text(&other, "tenant")]);
        let rotated = Instant::now();
        every_shard_has(&node, keys + 1.0);
        took.push(rotated.elapsed());
    }
    print("from the end of `admin rotate-key` (another process) until every shard knows", &mut took);
    dashboard.admin(&["rotate-key", tenant]);
    every_shard_has(&node, 12.0);
    for editor in &mut editors {
        editor.append("still here");
        editor.flush();
    }
    let metrics = node.metrics();
    assert_eq!(metrics.get("wiresocket_key_fetches_total"), 0.0, "nothing was polled");
    assert_eq!(metrics.closes(4002), 0.0);

    let nodes = dashboard.admin(&["list-nodes"]);
    assert_eq!((text(&nodes[0], "name"), text(&nodes[0], "state")), ("eu-1", "active"), "{nodes}");
    assert_eq!(text(&nodes[0], "region"), "aws-us-east-1");
    drop(editors);
    dashboard.stop();
}

#[test]
fn a_revocation_ends_the_sessions_of_every_shard() {
    let dashboard = DashboardServer::start(UNLIMITED);
    let node = node(&dashboard);
    let credentials = app(&dashboard);
    let tenant = text(&credentials, "tenantId");
    let mut took = Vec::new();
    for round in 1..=3 {
        every_shard_has(&node, 1.0);
        let answer = dashboard.token(&credentials, API);
        let mut editors = editors(&node, text(&answer, "access_token"));
        let kid = key_of(&dashboard, tenant);
        dashboard.admin(&["revoke-key", tenant, &kid]);
        let revoked = Instant::now();
        for editor in &mut editors {
            assert_eq!(editor.wait_for_end(), (4002, "Key revoked".to_owned()), "round {round}");
        }
        took.push(revoked.elapsed());
    }
    print(
        "from the end of `admin revoke-key` (another process) until 12 sessions on 2 shards have ended",
        &mut took,
    );
    assert_eq!(node.metrics().get("wiresocket_key_fetches_total"), 0.0, "nothing was polled");
}

#[test]
fn what_happened_while_the_dashboard_was_away_is_caught_up_with() {
    let dashboard = DashboardServer::start(UNLIMITED);
    let node = node(&dashboard);
    let credentials = app(&dashboard);
    let tenant = text(&credentials, "tenantId");
    every_shard_has(&node, 1.0);
    let answer = dashboard.token(&credentials, API);
    let mut editors = editors(&node, text(&answer, "access_token"));
    let kid = key_of(&dashboard, tenant);
    let pushed = |node: &Server| node.metrics().get("wiresocket_key_feed_documents_total");

    let stopped = dashboard.stop(); // it ends, although a node follows it
    follows(&node, false);
    editors[0].append("the node goes on alone");
    editors[0].flush();
    let before = pushed(&node);
    stopped.admin(&["revoke-key", tenant, &kid]);
    let dashboard = stopped.start_again();
    for editor in &mut editors {
        assert_eq!(editor.wait_for_end(), (4002, "Key revoked".to_owned()));
    }
    follows(&node, true);
    assert_eq!(pushed(&node) - before, 1.0, "only what was missed is sent");
    let answer = dashboard.token(&credentials, API);
    Replica::join(&node, "doc-0", text(&answer, "access_token"));
    assert_eq!(node.metrics().get("wiresocket_key_fetches_total"), 0.0);
}

#[test]
fn a_node_that_was_removed_polls_and_comes_back_with_a_new_secret() {
    let dashboard = DashboardServer::start(UNLIMITED);
    let setup = dashboard.member(NodeSetup::without_keys()).set("node.name", "eu-1");
    let node = setup.set("auth.jwks_poll_s", 1).set("auth.key_refresh_interval_s", 1).start();
    follows(&node, true);
    let credentials = app(&dashboard);
    let tenant = text(&credentials, "tenantId");
    every_shard_has(&node, 1.0);
    dashboard.admin(&["remove-node", "eu-1"]);
    follows(&node, false);
    let answer = dashboard.token(&credentials, API);
    let mut editor = Replica::join(&node, "notes", text(&answer, "access_token"));
    dashboard.admin(&["revoke-key", tenant, &key_of(&dashboard, tenant)]);
    assert_eq!(editor.wait_for_end(), (4002, "Key revoked".to_owned()), "polls go on");
    assert!(node.metrics().get("wiresocket_key_fetches_total") > 0.0);

    dashboard.new_enrolment_secret();
    follows(&node, true);
    let nodes = dashboard.admin(&["list-nodes"]);
    assert_eq!(nodes.as_array().map(Vec::len), Some(1), "{nodes}");
}

#[test]
fn a_new_plans_limits_hold_for_tokens_that_were_issued_before_and_drop_nobody() {
    let dashboard = DashboardServer::start(UNLIMITED);
    let node = node(&dashboard);
    let tenant = dashboard.admin(&["create-tenant", "Acme", "--owner", "owner@example.com", "--approve"]);
    let tenant = text(&tenant, "tenant");
    let credentials = dashboard.admin(&["create-app", tenant, "Notes", "--plan", "free"]);
    every_shard_has(&node, 1.0);
    let answer = dashboard.token(&credentials, API);
    let token = text(&answer, "access_token");
    let limit = || {
        let usage = node.get(&format!("/usage?token={token}"));
        assert_eq!(usage.status, 200, "{}", usage.text());
        usage.json()["usage"]["connections"]["limit"].as_u64()
    };
    let mut inside: Vec<_> = (0..10).map(|_| Replica::join(&node, "notes", token)).collect();
    let late = || Replica::new(Client::join(&node, "notes", token), Wire::YWebsocket);
    assert_eq!(late().wait_for_end(), (4008, "Document user limit exceeded: 10".to_owned()));
    let free = limit();

    dashboard.admin(&["pick-plan", tenant, text(&credentials, "appId"), "starter"]);
    let starter = eventually("the node has heard of the plan", || Some(limit()).filter(|now| *now != free));
    assert_eq!(starter, Some(1000), "shown as it holds, not as the old token says");
    inside.extend((0..5).map(|_| Replica::join(&node, "notes", token)));

    dashboard.admin(&["pick-plan", tenant, text(&credentials, "appId"), "free"]);
    eventually("the node has heard of the smaller plan", || (limit() == free).then_some(()));
    assert_eq!(late().wait_for_end(), (4008, "Document user limit exceeded: 10".to_owned()));
    for editor in &mut inside {
        editor.flush(); // nobody who is in is dropped
    }
    drop(inside);
    dashboard.stop();
}
