//! `wiresocket dev`: a node and its dashboard in one process, and what it prints.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::Value;
use support::http::{self, Response};
use support::{Replica, Server, wait_until};

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

fn dashboard(server: &Server) -> SocketAddr {
    let address = text(&server.dev, "dashboard").strip_prefix("http://").expect("an http URL");
    address.parse().expect("an address")
}

fn get(address: SocketAddr, target: &str) -> Response {
    http::request(address, "GET", target, &[("Connection", "close")])
}

/// What the dashboard's token endpoint answers to the credentials that were printed.
fn ask_for_token(server: &Server) -> Response {
    let address = dashboard(server);
    let (id, secret) = (text(&server.dev, "clientId"), text(&server.dev, "clientSecret"));
    let body = format!(
        "grant_type=client_credentials&client_id={id}&client_secret={secret}&scope=WireSocket.API+offline_access"
    );
    let request = format!(
        "POST /connect/token HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    http::exchange(address, request.as_bytes())
}

fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).expect("a part");
    serde_json::from_slice(&BASE64.decode(part).expect("base64")).expect("JSON")
}

#[test]
fn its_tokens_are_those_of_the_real_token_endpoint() {
    let server = Server::dev(2);
    let printed = server.dev_token();
    let claims = part(&printed, 1);
    for (claim, field) in
        [("iss", "issuer"), ("sub", "clientId"), ("tenantid", "tenantId"), ("appId", "appId")]
    {
        assert_eq!(claims[claim], server.dev[field], "{claim}");
    }
    assert_eq!(claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(exp, iat)| exp - iat), Some(900));
    let issuer = text(&server.dev, "issuer");
    assert!(text(&server.dev, "jwks").starts_with(issuer));

    let answer = ask_for_token(&server);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let fresh = answer.json();
    assert_ne!(text(&fresh, "access_token"), printed);
    let mut first = Replica::join(&server, "notes", &printed);
    let mut second = Replica::join_hocuspocus(&server, "notes", text(&fresh, "access_token"));
    first.append("Hello");
    second.wait_for_text("Hello");
}

#[test]
fn the_playground_is_given_a_fresh_token_whenever_it_asks() {
    let server = Server::dev(1);
    let config = || server.get("/playground/config.json").json();
    let (first, second) = (config(), config());
    assert_ne!(first["token"], second["token"]);
    assert_eq!(part(text(&first, "token"), 1)["sub"], server.dev["clientId"]);
    assert!(!first.to_string().contains(text(&server.dev, "clientSecret")), "the secret stays on the server");
    Replica::join(&server, "notes", text(&second, "token"));
}

#[test]
fn its_node_belongs_to_its_dashboard_as_any_node_does() {
    let server = Server::dev(2);
    let metrics = server.metrics();
    assert_eq!(metrics.get("wiresocket_key_feed_followed"), 1.0);
    assert_eq!(metrics.get("wiresocket_key_fetches_total"), 0.0, "keys were pushed");
    let metadata = get(dashboard(&server), "/.well-known/oauth-authorization-server").json();
    assert_eq!(metadata["issuer"], server.dev["issuer"]);
    assert_eq!(get(dashboard(&server), "/health").status, 200);
}

#[test]
fn without_a_folder_nothing_is_left_behind() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let server = Server::dev_with(&[], &[("TMPDIR", parent.path().to_str().expect("UTF-8"))]);
    let entries = || std::fs::read_dir(parent.path()).expect("it is there").count();
    assert_eq!(entries(), 1);
    let mut editor = Replica::join(&server, "notes", &server.dev_token());
    editor.append("x");
    editor.flush();
    assert!(server.terminate().success());
    assert_eq!(entries(), 0);
}

#[test]
fn with_a_folder_the_demo_and_its_credentials_stay() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let folder = parent.path().join("data");
    let args = ["--data", folder.to_str().expect("UTF-8")];
    let first = Server::dev_with(&args, &[]);
    let printed = first.dev.clone();
    assert!(first.terminate().success());
    let second = Server::dev_with(&args, &[]);
    for field in ["tenantId", "appId", "clientId", "clientSecret", "owner", "operator"] {
        assert_eq!(second.dev[field], printed[field], "{field}");
    }
    assert_eq!(ask_for_token(&second).status, 200);
    Replica::join(&second, "notes", &second.dev_token());
    let key = |token: &str| part(token, 0)["kid"].clone();
    assert_eq!(key(&second.dev_token()), key(text(&printed, "token")), "the tenant's key is the same");
    wait_until("it enrolled again", || second.metrics().get("wiresocket_key_feed_followed") == 1.0);
}
