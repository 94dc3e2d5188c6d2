//! A revoked key ends every session that it opened.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::keys::jwks_of;
use crate::support::{
    Client, DashboardServer, NodeSetup, Replica, Server, Tenant, eventually, http, wait_until,
};
use crate::{figure, p99_and_max};

#[test]
fn a_thousand_sessions_of_a_revoked_key_end() {
    const SESSIONS: usize = 1000;
    let tenant = Tenant::new(1);
    let (bad, good) = (tenant.with_key(1), tenant.with_key(2));
    let server = NodeSetup::without_keys()
        .key_set(&tenant.id.to_string(), jwks_of([&bad, &good]))
        .set("node.shards", 4)
        .start();
    let token = bad.token().build();
    let mut sessions: Vec<Client> =
        (0..SESSIONS).map(|n| Client::join(&server, &format!("doc-{}", n % 50), &token)).collect();
    server.wait_for_metric("wiresocket_connections_active", SESSIONS as f64);
    let mut other = Replica::join(&server, "doc-0", &good.token().build());
    let mut jwks = jwks_of([&good]);
    jwks["revoked"] = json!([bad.key_id]);
    server.write_keys(&tenant, &jwks);
    let began = Instant::now();
    server.signal(libc::SIGHUP);
    let mut times = Vec::new();
    for session in &mut sessions {
        assert_eq!(session.closed(), (4002, "Key revoked".to_owned()));
        times.push(began.elapsed());
    }
    other.append("still in");
    other.flush();
    let (p99, max) = p99_and_max(times);
    figure(
        "key revocation",
        format_args!(
            "{SESSIONS} sessions on 4 shards closed {max:.1?} after the signal, p99 {p99:.1?} (as one client reads them); others stay"
        ),
    );
}

/// As if they belonged to a fleet: nothing is polled, all that the nodes know was pushed.
const UNLIMITED: &str = "[http]\njwks_per_10_minutes = 0\n[keys]\njwks_max_age_s = 0\n";

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

fn node(dashboard: &DashboardServer, name: &str) -> Server {
    let node = dashboard.member_called(name, NodeSetup::without_keys());
    node.set("auth.jwks_poll_s", 3600).set("node.shards", 2).start()
}

/// A tenant with an app, and a token for it.
fn tenant(dashboard: &DashboardServer, owner: &str) -> (String, String) {
    let tenant = dashboard.admin(&["create-tenant", "Acme", "--owner", owner, "--approve"]);
    let tenant = text(&tenant, "tenant").to_owned();
    let app = dashboard.admin(&["create-app", &tenant, "Notes", "--plan", "pro"]);
    let token = text(&dashboard.token(&app, "WireSocket.API"), "access_token").to_owned();
    (tenant, token)
}

/// Revokes a tenant's only key by the management API.
fn revoke(dashboard: &DashboardServer, api_key: &str, tenant: &str) -> Instant {
    let keys = dashboard.get(&format!("/{tenant}/.well-known/jwks")).json();
    let path = format!("/api/v1/tenants/{tenant}/keys/{}/revoke", text(&keys["keys"][0], "kid"));
    let bearer = format!("Bearer {api_key}");
    let began = Instant::now();
    let answer = http::request(
        dashboard.address,
        "POST",
        &path,
        &[("Authorization", &bearer), ("Connection", "close"), ("Content-Length", "0")],
    );
    assert!(answer.status < 300, "{} {}", answer.status, answer.text());
    began
}

/// Reads each session to its end; when each was found closed.
fn ends(mut sessions: Vec<Client>) -> Vec<Instant> {
    let end = |session: &mut Client| {
        assert_eq!(session.closed(), (4002, "Key revoked".to_owned()));
        Instant::now()
    };
    sessions.iter_mut().map(end).collect()
}

#[test]
fn a_key_that_is_revoked_in_the_dashboard_ends_its_sessions_on_every_node() {
    const NODES: usize = 3;
    const SESSIONS: usize = 1000;
    let dashboard = DashboardServer::start(UNLIMITED);
    let nodes: Vec<Server> = (1..=NODES).map(|n| node(&dashboard, &format!("us-{n}"))).collect();
    let (bad, bad_token) = tenant(&dashboard, "bad@example.com");
    let (_, good_token) = tenant(&dashboard, "good@example.com");
    let api_key = dashboard.admin(&["create-api-key", "Revoker"]);
    for node in &nodes {
        wait_until("both tenants' keys are there", || node.metrics().get("wiresocket_keys") == 2.0);
    }
    let mut sessions: Vec<Vec<Client>> = nodes.iter().map(|_| Vec::new()).collect();
    for n in 0..SESSIONS {
        let at = n % NODES;
        sessions[at].push(Client::join(&nodes[at], &format!("doc-{}", n / NODES % 20), &bad_token));
    }
    let mut others: Vec<Replica> =
        nodes.iter().map(|node| Replica::join(node, "doc-0", &good_token)).collect();
    let active = |node: &Server| node.metrics().get("wiresocket_connections_active");
    eventually("all are in", || {
        (nodes.iter().map(active).sum::<f64>() == (SESSIONS + NODES) as f64).then_some(())
    });

    // Each node's sessions are read beside the others'.
    let readers = sessions.into_iter().map(|sessions| std::thread::spawn(move || ends(sessions)));
    let readers: Vec<_> = readers.collect();
    let began = revoke(&dashboard, text(&api_key, "apiKey"), &bad);
    let closed = readers.into_iter().flat_map(|reader| reader.join().expect("its sessions end"));
    let mut took: Vec<Duration> = closed.map(|at| at.saturating_duration_since(began)).collect();
    took.sort();
    for other in &mut others {
        other.append("still in");
        other.flush();
    }
    let fetched = |node: &Server| node.metrics().get("wiresocket_key_fetches_total");
    assert_eq!(nodes.iter().map(fetched).sum::<f64>(), 0.0, "nothing was polled");
    assert_eq!(took.len(), SESSIONS);
    let (p99, max) = p99_and_max(took.clone());
    figure(
        "key revocation over several nodes",
        format_args!(
            "{SESSIONS} sessions on {NODES} nodes: half were found closed {:.0?} after the request to the dashboard, p99 {p99:.0?}, \
             the last {max:.0?}; others stay",
            took[took.len() / 2]
        ),
    );
}
