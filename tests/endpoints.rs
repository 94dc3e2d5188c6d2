//! The plain HTTP endpoints and their per-address buckets: contract section 7.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use std::io::{Read, Write};

use serde_json::{Value, json};
use support::http::{self, Response};
use support::wire::Wire;
use support::{Answer, Metrics, NodeSetup, Replica, Server, Tenant};

fn node(tenant: &Tenant) -> NodeSetup {
    NodeSetup::new(tenant)
        .set("node.public_url", "wss://sync.example.com")
        .set("node.region", "aws-eu-west-1")
}

/// `2026-01-31T12:34:56.789Z`, with or without the fraction.
#[track_caller]
fn assert_iso8601(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("a timestamp is text: {value}"));
    let digits: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let shapes = ["0000-00-00T00:00:00Z", "0000-00-00T00:00:00.000Z"];
    assert!(shapes.contains(&digits.as_str()), "{text}");
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[track_caller]
fn assert_problem(response: &Response, status: u16, code: u16, error: &str, message: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.json(), json!({ "code": code, "error": error, "message": message }));
}

#[test]
fn health_is_told_at_two_addresses() {
    let server = node(&Tenant::new(1)).start();
    for target in ["/health", "/", "/health?x=1"] {
        let response = server.get(target);
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
        let body = response.json();
        assert_eq!(keys(&body), ["status", "timestamp"]);
        assert_eq!(body["status"], "healthy");
        assert_iso8601(&body["timestamp"]);
    }
    let head = http::request(server.address, "HEAD", "/health", &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    let post = http::request(server.address, "POST", "/health", &[("Content-Length", "0")]);
    assert_eq!(post.status, 405);
    assert_eq!(post.header("allow"), Some("GET,HEAD"));
    let message = "there is nothing at /nowhere";
    assert_problem(&server.get("/nowhere"), 404, 404, "not_found", message);
}

#[test]
fn metrics_are_prometheus_text() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).start();
    let _editor = Replica::join(&server, "notes", &tenant.token().build());
    let response = server.get("/metrics");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let metrics = Metrics::parse(response.text());
    assert_eq!(metrics.get("wiresocket_connections_total"), 1.0);
    assert_eq!(metrics.get("wiresocket_documents_active"), 1.0);
    assert_eq!(metrics.get("wiresocket_shards"), 2.0);
    for family in ["wiresocket_ledger_connections", "process_resident_memory_bytes", "wiresocket_keys"] {
        assert!(metrics.get(family) > 0.0, "{family}");
    }
    for family in ["wiresocket_shard_turn_seconds_bucket", "wiresocket_updates_in_total"] {
        assert!(!metrics.family(family).is_empty(), "{family}");
    }
    let accept = [("Accept", "application/openmetrics-text; version=1.0.0")];
    let open = http::request(server.address, "GET", "/metrics", &accept);
    let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.header("content-type"), Some(open_metrics));
    assert!(open.text().ends_with("# EOF\n"));
}

#[test]
fn discovery_says_where_a_document_is() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).start();
    let token = tenant.token().build();
    let found = |is_new: bool| json!({ "region": "aws-eu-west-1", "url": "wss://sync.example.com/notes", "isNew": is_new });
    let bearer = format!("Bearer {token}");
    let with_header = || {
        let headers = [("Authorization", bearer.as_str())];
        http::request(server.address, "GET", "/discovery?documentName=notes", &headers)
    };
    let in_query = format!("/discovery?documentName=notes&token={token}");
    for response in [with_header(), server.get(&in_query)] {
        assert_eq!((response.status, response.json()), (200, found(true)));
    }
    let editor = Replica::join(&server, "notes", &token);
    assert_eq!(with_header().json(), found(false));
    // The same name in another app is another document.
    let other = tenant.with_app(2).token().build();
    let theirs = server.get(&format!("/discovery?documentName=notes&token={other}"));
    assert_eq!(theirs.json(), found(true));
    drop(editor);

    let character = "the document name has a character other than A-Z a-z 0-9 - _";
    let empty = "the document name is empty; use 1 to 255 of A-Z a-z 0-9 - _";
    for (query, reason) in [("", empty), ("documentName=&", empty), ("documentName=a%20b&", character)] {
        let response = server.get(&format!("/discovery?{query}token={token}"));
        let reason = if query.is_empty() { empty } else { reason };
        assert_problem(&response, 400, 4007, "invalid_name", reason);
    }
    let missing = server.get("/discovery?documentName=notes");
    assert_problem(&missing, 401, 4001, "missing_token", "Missing token");
    assert_eq!(missing.header("www-authenticate"), Some("Bearer"));
    let expired = tenant.token().expires_in(-60).build();
    let refused = server.get(&format!("/discovery?documentName=notes&token={expired}"));
    assert_problem(&refused, 401, 4002, "invalid_token", "Token expired");
}

#[test]
fn usage_counts_the_app_and_nothing_else() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).start();
    let token = tenant.token().limit("maxConnections", 20).limit("maxDocuments", 4).build();
    let usage = || {
        let headers = [("Authorization", format!("Bearer {token}"))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let response = http::request(server.address, "GET", "/usage", &headers);
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    };
    let share = |current: u32, limit: u32, percent: f64, status: &str| json!({ "current": current, "limit": limit, "percent": percent, "status": status });
    let first = usage();
    assert_eq!(keys(&first), ["appId", "tenantId", "timestamp", "usage"]);
    assert_eq!(first["tenantId"], tenant.id.to_string());
    assert_eq!(first["appId"], tenant.app.to_string());
    assert_iso8601(&first["timestamp"]);
    let nothing =
        json!({ "connections": share(0, 20, 0.0, "healthy"), "documents": share(0, 4, 0.0, "healthy") });
    assert_eq!(first["usage"], nothing);

    let _stranger = Replica::join(&server, "theirs", &tenant.with_app(2).token().build());
    let mut editors = Vec::new();
    let mut fill = |connections: usize, documents: usize| {
        while editors.len() < connections {
            let document = format!("doc-{}", editors.len() % documents);
            editors.push(Replica::join(&server, &document, &token));
        }
    };
    fill(14, 3);
    let warning =
        json!({ "connections": share(14, 20, 70.0, "healthy"), "documents": share(3, 4, 75.0, "warning") });
    assert_eq!(usage()["usage"], warning);
    fill(15, 3);
    assert_eq!(usage()["usage"]["connections"], share(15, 20, 75.0, "warning"));
    fill(18, 3);
    assert_eq!(usage()["usage"]["connections"], share(18, 20, 90.0, "critical"));
    drop(editors);
    server.wait_for_metric("wiresocket_ledger_connections", 1.0);
    assert_eq!(usage()["usage"], nothing);

    assert_problem(&server.get("/usage"), 401, 4001, "missing_token", "Missing token");
    let expired = tenant.token().expires_in(-60).build();
    let refused = server.get(&format!("/usage?token={expired}"));
    assert_problem(&refused, 401, 4002, "invalid_token", "Token expired");
    assert_eq!(server.get(&format!("/usage?access_token={token}")).status, 200);
}

#[test]
fn browsers_may_call_usage_and_discovery() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).start();
    for target in ["/usage", "/discovery"] {
        let headers = [
            ("Origin", "https://myapp.com"),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "authorization"),
        ];
        let preflight = http::request(server.address, "OPTIONS", target, &headers);
        assert_eq!(preflight.status, 204);
        assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
        let allowed = preflight.header("access-control-allow-headers").expect("the headers");
        assert!(allowed.to_lowercase().contains("authorization"));
        assert!(preflight.header("access-control-allow-methods").expect("methods").contains("GET"));
        // A refusal can be read by the page, too.
        let refused = http::request(server.address, "GET", target, &headers[..1]);
        assert_eq!(refused.status, 401);
        assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
    }
    let listed = node(&tenant).set("http.cors_origins", vec!["https://myapp.com"]).start();
    for (origin, allowed) in [("https://myapp.com", Some("https://myapp.com")), ("https://evil.com", None)] {
        let response = http::request(listed.address, "GET", "/usage", &[("Origin", origin)]);
        assert_eq!(response.header("access-control-allow-origin"), allowed);
        assert!(response.header("vary").expect("Vary").contains("Origin"));
    }
}

/// Sends requests until one is refused; how many were not.
#[track_caller]
fn let_in(mut send: impl FnMut() -> Response) -> (usize, Response) {
    for count in 0..1000 {
        let response = send();
        if response.status == 429 {
            return (count, response);
        }
    }
    panic!("never refused");
}

#[test]
fn every_endpoint_has_its_bucket_per_address() {
    let tenant = Tenant::new(1);
    let server = node(&tenant)
        .set("http.trusted_proxies", vec!["127.0.0.1"])
        .set("http.exempt_networks", vec!["203.0.113.0/24"])
        .set("http.upgrades_per_minute", 5)
        .set("http.discovery_per_minute", 4)
        .set("http.usage_per_minute", 3)
        .set("http.health_per_minute", 6)
        .start();
    let token = tenant.token().build();
    let bearer = format!("Bearer {token}");
    let from = |client: &str, target: &str| {
        let headers = [("X-Forwarded-For", client), ("Authorization", bearer.as_str())];
        http::request(server.address, "GET", target, &headers)
    };
    let message = "too many requests from this address; try again in a minute";
    for client in ["198.51.100.1", "198.51.100.2"] {
        for (target, rate) in [("/discovery?documentName=notes", 4), ("/usage", 3), ("/health", 6)] {
            let (count, refused) = let_in(|| from(client, target));
            assert_eq!(count, rate, "{target} for {client}");
            assert_eq!(refused.header("retry-after"), Some("60"));
            assert_problem(&refused, 429, 429, "rate_limited", message);
        }
        let upgrade = || server.upgrade("/notes").bearer(&token).header("X-Forwarded-For", client);
        let (count, refused) = let_in(|| match upgrade().send() {
            Answer::Open(_) => Response { status: 101, headers: Vec::new(), body: Vec::new() },
            Answer::Refused(response) => response,
        });
        assert_eq!(count, 5);
        assert_eq!(refused.header("retry-after"), Some("60"));
        let body = refused.json();
        assert_eq!((&body["code"], &body["error"]), (&json!(429), &json!("rate_limited")));
    }
    // What a client claims in front of the proxy's own entry counts for nothing.
    let spoofed = from("192.0.2.77, 198.51.100.1", "/usage");
    assert_eq!(spoofed.status, 429);
    for garbage in ["é", "unknown", ""] {
        assert_eq!(from(&format!("{garbage}, 198.51.100.1"), "/usage").status, 429, "{garbage:?}");
    }
    server.wait_for_log("the client's address", |entry| {
        entry["peer"] == "198.51.100.2" && entry["status"] == 429
    });
    for _ in 0..20 {
        assert_eq!(from("203.0.113.9", "/usage").status, 200, "an exempt network");
        let upgrade = server.upgrade("/notes").bearer(&token).header("X-Forwarded-For", "203.0.113.9");
        upgrade.open();
    }
}

#[test]
fn nobody_but_a_trusted_proxy_may_name_another_address() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).set("http.usage_per_minute", 3).start();
    let token = tenant.token().build();
    let (count, _) = let_in(|| {
        let bearer = format!("Bearer {token}");
        let client = format!("198.51.100.{}", std::process::id() % 200);
        let headers = [("X-Forwarded-For", client.as_str()), ("Authorization", bearer.as_str())];
        http::request(server.address, "GET", "/usage", &headers)
    });
    assert_eq!(count, 3);
    let headers = [("X-Forwarded-For", "203.0.113.1")];
    assert_eq!(http::request(server.address, "GET", "/usage", &headers).status, 429);
}

#[test]
fn requests_may_come_in_pieces_and_on_every_shard() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).set("node.shards", 4).start();
    let request =
        format!("GET /health HTTP/1.1\r\nHost: {}\r\nX-Long: {}\r\n\r\n", server.address, "x".repeat(3000));
    // Enough connections that the kernel gives each shard some.
    let mut streams: Vec<_> = (0..64).map(|_| http::connect(server.address)).collect();
    for piece in request.as_bytes().chunks(700) {
        for stream in &mut streams {
            stream.write_all(piece).expect("it is sent");
        }
    }
    for mut stream in streams {
        assert_eq!(Response::parse(&http::read_to_end(&mut stream)).status, 200);
    }
    // Two requests at once: the first is answered, then the connection closes (an upgrade that follows on the same
    // connection must reach a shard, not the endpoint).
    let pipelined = "GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = http::exchange(server.address, pipelined.as_bytes());
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    let length = answer.header("content-length").and_then(|length| length.parse().ok());
    assert_eq!(length, Some(answer.body.len()), "nothing follows the first answer");
    // HTTP/1.0 as some health checkers speak it.
    assert_eq!(http::exchange(server.address, b"GET /health HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn what_is_no_request_is_refused() {
    let tenant = Tenant::new(1);
    let server =
        node(&tenant).set("auth.token_bytes_max", 2048).set("limits.request_head_bytes_max", 4096).start();
    let status = |request: &[u8]| http::exchange(server.address, request).status;
    assert_eq!(status(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"), 400, "a TLS hello");
    assert_eq!(status(b"GET / HTTP/2.7\r\n\r\n"), 400);
    assert_eq!(status(b"GET /health HTTP/1.1\nHost: x\n\n"), 400, "bare line feeds");
    let large = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(5000));
    assert_eq!(status(large.as_bytes()), 431);
    let endless = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Large: {}", "x".repeat(5000));
    assert_eq!(status(endless.as_bytes()), 431, "no need to wait for its end");
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(120));
    assert_eq!(status(many.as_bytes()), 431);
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(5000));
    assert_eq!(status(long_target.as_bytes()), 414);
    let upgrade = |version: &str, key: &str, more: &str| {
        format!(
            "GET /notes HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: {key}\r\n{more}\r\n"
        )
    };
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    assert_eq!(status(upgrade("8", key, "").as_bytes()), 426);
    assert_eq!(status(upgrade("13", "short", "").as_bytes()), 400);
    assert_eq!(status(upgrade("13", key, "Content-Length: 5\r\n").as_bytes()), 400, "an upgrade has no body");
    assert_eq!(status(upgrade("13", key, "Host: y\r\n").as_bytes()), 400, "two hosts");
    let server_lives = server.get("/health");
    assert_eq!(server_lives.status, 200);
}

#[test]
fn a_node_above_its_mark_sheds_new_connections_and_recovers() {
    let tenant = Tenant::new(1);
    let server = node(&tenant)
        .set("node.shards", 1)
        .set("overload.connections_max", 10)
        .set("overload.retry_after_s", 7)
        .start();
    let token = tenant.token().build();
    let mut inside: Vec<Replica> = (0..8).map(|_| Replica::join(&server, "notes", &token)).collect();
    support::wait_until("it sheds", || server.get("/health").status == 503);
    let health = server.get("/health");
    assert_eq!(health.json()["status"], "overloaded");
    let retry_after: u32 = health.header("retry-after").and_then(|s| s.parse().ok()).expect("a number");
    assert!((7..=14).contains(&retry_after), "{retry_after}");
    let upgrade = server.upgrade("/notes").token(&token);
    // The shard hears of it a moment after the endpoint knows.
    let refused = support::eventually("upgrades are refused", || match upgrade.send() {
        Answer::Refused(response) => Some(response),
        Answer::Open(_) => None,
    });
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!(1013)));
    assert!(refused.header("retry-after").is_some());
    let (code, reason) = upgrade.origin("https://myapp.com").closed();
    assert_eq!(code, 1013);
    assert!(reason.starts_with("Overloaded: retry after "), "{reason}");
    // Nobody inside is dropped.
    inside[0].append("x");
    inside.iter_mut().for_each(|replica| replica.wait_for_text("x"));
    inside.truncate(3);
    support::wait_until("it recovers", || server.get("/health").status == 200);
    let client =
        support::eventually("upgrades are welcome", || match server.upgrade("/notes").token(&token).send() {
            Answer::Open(client) => Some(client),
            Answer::Refused(_) => None,
        });
    let mut late = Replica::new(client, Wire::YWebsocket);
    late.sync();
    late.wait_for_text("x");
}

#[test]
fn a_request_that_dribbles_is_dropped_in_time() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).set("limits.handshake_timeout_s", 0.5).start();
    let mut heads: Vec<_> = (0..20).map(|_| http::connect(server.address)).collect();
    for (n, stream) in heads.iter_mut().enumerate() {
        let head = server.upgrade("/notes").head();
        stream.write_all(&head[..head.len() * n / 20]).expect("a part of the head is sent");
    }
    for stream in &mut heads {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("the server closes");
        assert_eq!(bytes, b"");
    }
    server.wait_for_metric("wiresocket_closes_total{code=\"408\"}", 20.0);
    assert_eq!(Server::get(&server, "/health").status, 200);
}
