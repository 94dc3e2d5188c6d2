use super::routes::share;
use crate::control::messages::{ToControl, ToShard};
use crate::control::testing::{APP, Answer, LIMITS, Node};
use crate::limits::{Claim, Rates};
use crate::protocol::document::{DocumentId, DocumentName};

fn node() -> Node {
    Node::start(2, |_| {})
}

fn reserve(node: &Node, name: &str) {
    let document = DocumentId { app: APP, name: DocumentName::parse(name).unwrap() };
    let claim = Claim { app: APP, connection: true, document: Some(document.stable_hash()) };
    node.send(ToControl::Reserve { shard: 0, ticket: 1, claim, limits: LIMITS, issued_unix_s: 0 });
    let granted = node.next(|_, message| match message {
        ToShard::Reserved { outcome, .. } => Some(outcome),
        _ => None,
    });
    assert_eq!(granted, Ok(LIMITS));
}

#[test]
fn health_says_healthy_with_the_time() {
    let node = node();
    for target in ["/health", "/"] {
        let answer = node.get(target);
        assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("healthy")));
        let timestamp = answer.json()["timestamp"].as_str().unwrap().to_owned();
        assert!(
            timestamp.len() == 24 && timestamp.ends_with('Z') && timestamp.as_bytes()[10] == b'T',
            "{timestamp}"
        );
    }
}

#[test]
fn a_connection_serves_one_request_and_closes() {
    let node = node();
    let twice = b"GET /health HTTP/1.1\r\nHost: node\r\n\r\n".repeat(2);
    let answer = node.exchange(&twice, b""); // returns only because the connection is closed
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1);
    assert_eq!(Answer::parse(&answer).header("connection"), Some("close"));
}

#[test]
fn what_a_shard_has_read_comes_before_what_is_still_on_the_wire() {
    let node = node();
    let request = b"GET /health HTTP/1.1\r\nHost: node\r\n\r\n";
    for split in [0, 1, 4, 20, request.len()] {
        let answer = node.exchange(&request[..split], &request[split..]);
        assert_eq!(Answer::parse(&answer).status, 200);
    }
}

#[test]
fn a_client_that_never_finishes_its_request_is_cut_off() {
    let node = Node::start(1, |settings| settings.http.head_timeout = std::time::Duration::from_millis(50));
    let answer = node.exchange(b"GET /health HTT", b"");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[test]
fn a_request_head_over_the_bound_is_refused() {
    let node = Node::start(1, |settings| settings.http.head_bytes_max = 8192);
    let head = format!("GET /health HTTP/1.1\r\nHost: node\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let (read, _) = head.split_at(10_000); // the rest never comes: it is refused on what is there
    assert_eq!(Answer::parse(&node.exchange(read.as_bytes(), b"")).status, 431);
}

#[test]
fn more_requests_than_the_bound_are_closed_unanswered() {
    let node = Node::start(1, |settings| settings.http.requests_max = 1);
    let (_client, server, peer) = node.connect();
    node.send(ToControl::Http { socket: server.into(), tls: None, read: Vec::new(), peer }); // idles in the only place
    assert_eq!(node.exchange(b"", b""), "");
}

#[test]
fn metrics_carry_the_figures_of_every_shard_in_both_formats() {
    let node = node();
    let answer = node.get("/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    for line in [
        "wiresocket_connections_total 6",
        "wiresocket_documents_active 4",
        "wiresocket_shard_up{shard=\"1\"} 1",
        "# TYPE wiresocket_connections_total counter",
    ] {
        assert!(answer.body.lines().any(|l| l == line), "{line} is missing in\n{}", answer.body);
    }
    let answer =
        node.request("GET", "/metrics", &[("Accept", "application/openmetrics-text; version=1.0.0")]);
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(answer.body.ends_with("# EOF\n"));
}

#[test]
fn discovery_tells_where_a_document_is_and_whether_it_is_new() {
    let node = node();
    let expected = |is_new| serde_json::json!({ "region": "aws-us-east-1", "url": "wss://node.example.com/notes", "isNew": is_new });
    let answer = node.get("/discovery?documentName=notes&token=key:k1");
    assert_eq!((answer.status, answer.json()), (200, expected(true)));
    reserve(&node, "notes");
    let answer = node.request("GET", "/discovery?documentName=notes", &[("Authorization", "bearer key:k1")]);
    assert_eq!((answer.status, answer.json()), (200, expected(false)));
    assert_eq!(node.get("/discovery?access_token=key:k1&documentName=no%74es").json(), expected(false));
}

#[test]
fn a_request_without_a_good_token_is_refused_as_a_socket_would_be() {
    let node = node();
    for target in ["/discovery?documentName=notes", "/usage", "/usage?token="] {
        let answer = node.get(target);
        assert_eq!((answer.status, answer.json()["code"].as_u64()), (401, Some(4001)), "{target}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    for target in ["/discovery?documentName=notes&token=x", "/usage?token=x", "/usage?token=key:unknown"] {
        let answer = node.get(target);
        let expected =
            serde_json::json!({ "code": 4002, "error": "invalid_token", "message": "Unknown signing key" });
        assert_eq!((answer.status, answer.json()), (401, expected), "{target}");
    }
}

#[test]
fn discovery_without_a_valid_name_is_a_bad_request() {
    let node = node();
    for query in ["", "&documentName=", "&documentName=a%20b", "&documentName=a%2Fb"] {
        let answer = node.get(&format!("/discovery?token=key:k1{query}"));
        assert_eq!((answer.status, answer.json()["code"].as_u64()), (400, Some(4007)), "{query}");
    }
}

#[test]
fn usage_is_what_the_ledger_holds_against_the_tokens_limits() {
    let node = node();
    reserve(&node, "a");
    reserve(&node, "b");
    reserve(&node, "b");
    let answer = node.get("/usage?token=key:k1");
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!(json["tenantId"], APP.tenant.to_string());
    assert_eq!(json["appId"], APP.app.to_string());
    let usage = serde_json::json!({
        "connections": { "current": 3, "limit": 8, "percent": 37.5, "status": "healthy" },
        "documents": { "current": 2, "limit": 3, "percent": 66.7, "status": "healthy" },
    });
    assert_eq!(json["usage"], usage);
    assert!(json["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_share_turns_to_warning_at_75_percent_and_to_critical_at_90() {
    let status = |current, limit| share(current, limit)["status"].as_str().unwrap().to_owned();
    assert_eq!(status(74, 100), "healthy");
    assert_eq!(status(75, 100), "warning");
    assert_eq!(status(89_999, 100_000), "warning", "shown as 90.0 percent, but below it");
    assert_eq!(status(90, 100), "critical");
    assert_eq!(share(89_999, 100_000)["percent"], 90.0);
    assert_eq!(share(1, 3)["percent"], 33.3);
}

#[test]
fn browsers_may_call_usage_and_discovery_from_anywhere() {
    let node = node();
    for target in ["/usage", "/discovery?documentName=x"] {
        let headers = [("Origin", "https://app.example"), ("Access-Control-Request-Method", "GET")];
        let answer = node.request("OPTIONS", target, &headers);
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert!(answer.header("access-control-allow-headers").unwrap().contains("Authorization"));
        let refused = node.request("GET", target, &headers);
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, Some("*")));
    }
}

#[test]
fn only_listed_origins_may_read_where_origins_are_listed() {
    let node = Node::start(1, |settings| settings.live.cors_origins = vec!["https://app.example".into()]);
    let from = |origin| node.request("GET", "/usage", &[("Origin", origin)]);
    let allowed = from("https://app.example");
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(allowed.header("vary"), Some("Origin"));
    assert_eq!(from("https://evil.example").header("access-control-allow-origin"), None);
}

#[test]
fn what_does_not_exist_is_a_404_and_another_method_a_405_that_names_the_allowed() {
    let node = node();
    let answer = node.get("/nothing/here");
    assert_eq!((answer.status, answer.json()["error"].as_str()), (404, Some("not_found")));
    let answer = node.request("POST", "/health", &[("Content-Length", "0")]);
    assert_eq!((answer.status, answer.json()["error"].as_str()), (405, Some("method_not_allowed")));
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
    let answer = node.request("DELETE", "/usage", &[]);
    assert_eq!(answer.status, 405);
    assert!(answer.header("allow").unwrap().contains("GET"));
}

#[test]
fn each_endpoint_has_its_own_bucket_per_client_address() {
    let rates =
        Rates { usage_per_minute: 2, discovery_per_minute: 1, upgrades_per_minute: 1, health_per_minute: 9 };
    let node = Node::start(1, |settings| {
        settings.live.rates = rates;
        settings.live.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let usage_from = |ip: &str| node.request("GET", "/usage?token=key:k1", &[("X-Forwarded-For", ip)]);
    assert_eq!(usage_from("203.0.113.1").status, 200);
    assert_eq!(usage_from("198.51.100.7, 203.0.113.1").status, 200);
    let refused = usage_from("203.0.113.1");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("60")));
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
    assert_eq!(usage_from("203.0.113.2").status, 200);
    assert_eq!(node.request("GET", "/health", &[("X-Forwarded-For", "203.0.113.1")]).status, 200);
}

#[test]
fn a_forwarded_address_is_not_believed_from_an_untrusted_peer() {
    let node =
        Node::start(1, |settings| settings.live.rates = Rates { usage_per_minute: 1, ..Rates::UNLIMITED });
    let usage_from = |ip: &str| node.request("GET", "/usage?token=key:k1", &[("X-Forwarded-For", ip)]).status;
    assert_eq!(usage_from("203.0.113.1"), 200);
    assert_eq!(usage_from("203.0.113.2"), 429);
}

#[test]
fn extra_routes_stand_behind_the_nodes_own() {
    use axum::routing::get;
    let node = Node::start(1, |settings| {
        let extra = axum::Router::new().route("/playground", get(async || "play"));
        settings.extra = Some(extra.route("/health", get(async || "not reached")));
    });
    assert_eq!(node.get("/playground").body, "play");
    assert_eq!(node.get("/health").json()["status"], "healthy");
    assert_eq!(node.get("/other").json()["error"], "not_found");
}
