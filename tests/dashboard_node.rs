//! The dashboard's binary with a node beside it: what the one signs, the other accepts.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use support::server::run;
use support::{Cluster, DashboardServer, NodeSetup, Replica, Server};

const API: &str = "WireSocket.API";

fn node(dashboard: &DashboardServer) -> Server {
    let node = NodeSetup::without_keys().set("auth.jwks_url", dashboard.jwks_url());
    node.set("auth.jwks_poll_s", 1).set("auth.key_refresh_interval_s", 1).start()
}

/// A tenant with an app on the free plan: its credentials.
fn app(dashboard: &DashboardServer) -> Value {
    let tenant = dashboard.admin(&["create-tenant", "Acme", "--owner", "owner@example.com", "--approve"]);
    let tenant = tenant["tenant"].as_str().expect("a tenant");
    let domains = ["--allow-domain", "https://MyApp.com/", "--allow-domain", "localhost:3000"];
    dashboard.admin(&[&["create-app", tenant, "Notes", "--plan", "free"], &domains[..]].concat())
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

const UNLIMITED: &str = "[http]\njwks_per_10_minutes = 0\n";

#[test]
fn a_node_accepts_what_the_token_endpoint_issues() {
    accepts_what_is_issued(DashboardServer::start(UNLIMITED));
}

#[test]
fn a_node_accepts_what_the_token_endpoint_issues_on_postgresql() {
    match Cluster::start() {
        Some(cluster) => {
            accepts_what_is_issued(DashboardServer::start_on(&cluster.new_database(), UNLIMITED))
        }
        None => eprintln!("skipped: PostgreSQL's binaries are missing; `make test-deps` installs them"),
    }
}

fn accepts_what_is_issued(dashboard: DashboardServer) {
    let line = dashboard.first_line();
    assert!(line.contains("ops@example.com") && line.contains("one-time password"), "{line}");
    let credentials = app(&dashboard);
    let node = node(&dashboard);
    let answer = dashboard.token(&credentials, "WireSocket.API offline_access");
    let token = text(&answer, "access_token");
    let mut first = Replica::join(&node, "notes", token);
    let mut second = Replica::join_hocuspocus(&node, "notes", token);
    first.append("Hello");
    second.wait_for_text("Hello");

    let page = |origin: &str| node.upgrade("/notes").token(token).origin(origin);
    page("https://myapp.com").open().close();
    page("http://localhost:3000").open().close();
    assert_eq!(page("https://other.example").closed().0, 4003);

    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", text(&credentials, "clientId")),
        ("refresh_token", text(&answer, "refresh_token")),
    ];
    let renewed = dashboard.post("/connect/token", &fields);
    assert_eq!(renewed.status, 200, "{}", renewed.text());
    Replica::join(&node, "notes", text(&renewed.json(), "access_token")).wait_for_text("Hello");
    assert_eq!(dashboard.post("/connect/token", &fields).json()["error"], "invalid_grant");

    assert_eq!(dashboard.admin(&["verify-audit"])["entries"].as_i64().map(|count| count > 6), Some(true));
    dashboard.stop();
}

#[test]
fn a_revoked_key_ends_its_sessions_and_the_next_token_works() {
    let dashboard = DashboardServer::start(UNLIMITED);
    let credentials = app(&dashboard);
    let node = node(&dashboard);
    let answer = dashboard.token(&credentials, API);
    let mut editor = Replica::join(&node, "notes", text(&answer, "access_token"));
    editor.append("Hello");
    editor.flush();
    let tenant = text(&credentials, "tenantId");
    let set = dashboard.get(&format!("/{tenant}/.well-known/jwks")).json();
    let kid = text(&set["keys"][0], "kid");
    dashboard.admin(&["revoke-key", tenant, kid]);
    assert_eq!(editor.wait_for_end(), (4002, "Key revoked".to_owned()));
    let answer = dashboard.token(&credentials, API);
    Replica::join(&node, "notes", text(&answer, "access_token")).wait_for_text("Hello");
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_with_its_place() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("dashboard.toml");
    let start = |text: &str| {
        std::fs::write(&file, text).expect("the file is written");
        let (code, stdout, stderr) = run(&["dashboard", "--config", file.to_str().expect("UTF-8")]);
        assert_eq!((code, stdout.as_str()), (Some(78), ""), "{stderr}");
        stderr
    };
    let stderr = start(
        "[dashboard]\nissuer = \"auth.example.com\"\noperator_email = \"ops\"\n[database]\nhome = \"x.db\"\n",
    );
    for expected in [
        "4 problems",
        "dashboard.toml:2:10: dashboard.issuer",
        "toml:3:18:",
        "toml:5:8: database.home",
        "generate-master-key",
    ] {
        assert!(stderr.contains(expected), "{expected}: {stderr}");
    }

    let key = dir.path().join("key");
    std::fs::write(&key, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").expect("the key is written");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("its mode is set");
    let right = format!(
        "[dashboard]\nissuer = \"https://a.example\"\noperator_email = \"a@b\"\n[database]\nhome = \"sqlite:{}\"\n\
         [master_keys]\n1 = {{ file = \"{}\" }}\n",
        dir.path().join("a.db").display(),
        key.display()
    );
    let stderr = start(&right);
    assert!(stderr.contains("can be read by everybody"), "{stderr}");
}
