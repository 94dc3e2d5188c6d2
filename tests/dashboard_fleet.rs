//! The registry with the binaries of both: draining from the dashboard, discovery over the fleet, usage.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use serde_json::Value;
use support::{DashboardServer, NodeSetup, Replica, Server, eventually, wait_until};

const API: &str = "WireSocket.API";
const UNLIMITED: &str = "[http]\njwks_per_10_minutes = 0\n";

fn node(dashboard: &DashboardServer, name: &str, region: &str) -> Server {
    let setup = NodeSetup::without_keys().set("node.region", region);
    let node = dashboard.member_called(name, setup).set("auth.jwks_poll_s", 3600).start();
    wait_until("the node follows the feed", || node.metrics().get("wiresocket_key_feed_followed") == 1.0);
    node
}

/// An app of this region: a token for it.
fn token(dashboard: &DashboardServer, region: &str) -> String {
    let owner = format!("owner@{region}.example");
    let tenant = dashboard.admin(&["create-tenant", "Acme", "--owner", &owner, "--approve"]);
    let tenant = tenant["tenant"].as_str().expect("a tenant");
    let app = dashboard.admin(&["create-app", tenant, "Notes", "--plan", "starter", "--region", region]);
    dashboard.token(&app, API)["access_token"].as_str().expect("a token").to_owned()
}

fn health(node: &Server) -> (u16, String) {
    let answer = node.get("/health");
    (answer.status, answer.json()["status"].as_str().expect("a status").to_owned())
}

#[track_caller]
fn wait_for_health(node: &Server, status: u16, expected: &str) {
    wait_until(&format!("/health says {expected}"), || health(node) == (status, expected.to_owned()));
}

fn listed(dashboard: &DashboardServer, name: &str) -> Value {
    let nodes = dashboard.admin(&["list-nodes"]);
    let mut nodes = nodes.as_array().expect("nodes").iter();
    nodes.find(|node| node["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
}

#[track_caller]
fn wait_for_listed(dashboard: &DashboardServer, name: &str, state: &str, connections: i64) {
    eventually(&format!("{name} is listed as {state} with {connections} connections"), || {
        let node = listed(dashboard, name);
        (node["state"] == state && node["connections"] == connections).then_some(())
    });
}

#[test]
fn a_node_is_drained_from_the_dashboard_and_comes_back_without_a_restart() {
    let dashboard = DashboardServer::start(UNLIMITED);
    let node = node(&dashboard, "us-1", "aws-us-east-1");
    let token = token(&dashboard, "aws-us-east-1");
    wait_until("the tenant's key is there", || node.metrics().get("wiresocket_keys") == 1.0);
    let mut editors: Vec<_> = (0..6).map(|n| Replica::join(&node, &format!("doc-{n}"), &token)).collect();
    assert_eq!(health(&node), (200, "healthy".to_owned()));

    let drained = dashboard.admin(&["drain-node", "us-1"]);
    assert_eq!(drained["wanted"], "draining");
    for editor in &mut editors {
        let (code, reason) = editor.wait_for_end();
        assert_eq!(code, 1012, "{reason}");
        assert!(reason.contains("retry after"), "{reason}");
    }
    wait_for_health(&node, 503, "draining");
    assert!(node.get("/health").header("retry-after").is_some());
    let (code, _) = node.upgrade("/doc-0").token(&token).origin("https://a.example").closed();
    assert_eq!(code, 1012, "nobody comes in");
    // The node says so by itself, at once, and not when its next heartbeat would have been due.
    wait_for_listed(&dashboard, "us-1", "draining", 0);

    dashboard.admin(&["undrain-node", "us-1"]);
    wait_for_health(&node, 200, "healthy");
    let mut editor = Replica::join(&node, "doc-0", &token);
    editor.append("back");
    editor.flush();
    wait_until("the dashboard lists the node as active", || listed(&dashboard, "us-1")["state"] == "active");

    dashboard.admin(&["drain-node", "us-1"]);
    assert_eq!(editor.wait_for_end().0, 1012, "it can be drained again");
    let pid = node.pid();
    assert!(node.terminate().success(), "a node ({pid}) that drains stops when it is told to");
}

#[test]
fn a_node_that_was_wanted_drained_while_it_was_away_starts_that_way() {
    let dashboard = DashboardServer::start(UNLIMITED);
    let setup = dashboard.member_called("us-1", NodeSetup::without_keys());
    let first = setup.clone().start();
    wait_until("it is enrolled", || first.metrics().get("wiresocket_key_feed_followed") == 1.0);
    assert!(first.terminate().success());
    dashboard.admin(&["drain-node", "us-1"]);
    let node = setup.start();
    wait_for_health(&node, 503, "draining");
    dashboard.admin(&["undrain-node", "us-1"]);
    wait_for_health(&node, 200, "healthy");
}

#[test]
fn discovery_names_an_active_node_of_the_apps_region_whichever_node_is_asked() {
    let dashboard = DashboardServer::start(UNLIMITED);
    let us = node(&dashboard, "us-1", "aws-us-east-1");
    let eu: Vec<_> = (1..=2).map(|n| node(&dashboard, &format!("eu-{n}"), "aws-eu-west-1")).collect();
    let token = token(&dashboard, "aws-eu-west-1");
    for node in eu.iter().chain([&us]) {
        wait_until("the tenant's key is there", || node.metrics().get("wiresocket_keys") == 1.0);
    }
    let ask = |node: &Server, name: &str| {
        let answer = node.get(&format!("/discovery?documentName={name}&token={token}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let url = |node: &Server, name: &str| format!("ws://{}/{name}", node.address);
    for node in &eu {
        let found = ask(node, "notes");
        assert_eq!(
            (found["region"].as_str(), found["url"].as_str()),
            (Some("aws-eu-west-1"), Some(&*url(node, "notes")))
        );
    }
    let named = eventually("the node of another region knows both", || {
        let named: Vec<_> = (0..16).map(|n| ask(&us, &format!("doc-{n}"))["url"].clone()).collect();
        let of =
            |node: &Server| (0..16).filter(|n| named[*n] == url(node, &format!("doc-{n}")).as_str()).count();
        let counts = (of(&eu[0]), of(&eu[1]));
        (counts.0 + counts.1 == 16 && counts.0 > 0 && counts.1 > 0).then_some(named)
    });
    assert_eq!(ask(&us, "doc-0")["region"], "aws-eu-west-1");
    let _editor = Replica::join(&eu[0], "doc-0", &token);
    assert_eq!(ask(&eu[0], "doc-0")["isNew"], false);

    dashboard.admin(&["drain-node", "eu-1"]);
    wait_until("the one that drains is named no more", || {
        (0..16).all(|n| ask(&us, &format!("doc-{n}"))["url"] == url(&eu[1], &format!("doc-{n}")).as_str())
    });
    wait_until("not even by itself", || ask(&eu[0], "notes")["url"] == url(&eu[1], "notes").as_str());
    dashboard.admin(&["undrain-node", "eu-1"]);
    eventually("everything is as it was", || {
        let now: Vec<_> = (0..16).map(|n| ask(&us, &format!("doc-{n}"))["url"].clone()).collect();
        (now == named).then_some(())
    });
}

#[test]
fn the_usage_of_an_app_is_gathered_from_all_nodes() {
    let dashboard = DashboardServer::start(UNLIMITED);
    let nodes: Vec<_> = (1..=2).map(|n| node(&dashboard, &format!("us-{n}"), "aws-us-east-1")).collect();
    let tenant = dashboard.admin(&["create-tenant", "Acme", "--owner", "owner@example.com", "--approve"]);
    let tenant = tenant["tenant"].as_str().expect("a tenant");
    let credentials = dashboard.admin(&["create-app", tenant, "Notes", "--plan", "starter"]);
    let app = credentials["appId"].as_str().expect("an app");
    let answer = dashboard.token(&credentials, API);
    let token = answer["access_token"].as_str().expect("a token");
    for node in &nodes {
        wait_until("the tenant's key is there", || node.metrics().get("wiresocket_keys") == 1.0);
    }
    let usage = || dashboard.admin(&["usage", tenant, app]);
    assert_eq!(usage()["connections"], 0);
    let mut editors: Vec<_> =
        nodes.iter().flat_map(|node| ["a", "b"].map(|name| Replica::join(node, name, token))).collect();
    for editor in &mut editors {
        for _ in 0..5 {
            editor.append("x");
        }
        editor.flush();
    }
    let now = eventually("all four editors and their twenty ops are counted", || {
        let now = usage();
        let ops: i64 = now["minutes"].as_array()?.iter().filter_map(|minute| minute["ops"].as_i64()).sum();
        (now["connections"] == 4 && ops == 20).then_some(now)
    });
    assert_eq!(
        (&now["documents"], &now["nodes"], &now["isStale"]),
        (&4.into(), &2.into(), &false.into()),
        "{now}"
    );
    assert_eq!(now["limits"]["maxConnections"], 1000);
    drop(editors);
    eventually("they are gone", || (usage()["connections"] == 0).then_some(()));
    let ops: i64 = usage()["minutes"]
        .as_array()
        .expect("minutes")
        .iter()
        .filter_map(|minute| minute["ops"].as_i64())
        .sum();
    assert_eq!(ops, 20, "and what they did stays");
}
