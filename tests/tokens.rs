//! How a token is handed over, what of it is checked, and how a refusal is told: contract sections 1, 3 and 4.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use serde_json::{Value, json};
use support::keys::unix_s;
use support::wire::{self, Message, Wire};
use support::{Client, Incoming, NodeSetup, Replica, Server, Tenant, Token, Upgrade, test_key};

/// Tokens that must be refused, with the reason text of their 4002.
fn bad_tokens(tenant: &Tenant) -> Vec<(&'static str, String, String)> {
    let stranger = Tenant::new(2);
    let good = || tenant.token();
    let mut cases: Vec<(&str, String, String)> = Vec::new();
    let mut case = |name, token: String, reason: &str| cases.push((name, token, reason.to_owned()));

    let unsigned = good().header("alg", "none").build();
    let (signed_part, signature) = unsigned.rsplit_once('.').expect("three parts");
    case("alg none, no signature", format!("{signed_part}."), "Token algorithm is not RS256");
    case("alg none, signed all the same", unsigned.clone(), "Token algorithm is not RS256");
    case("alg None in another case", good().header("alg", "nOnE").build(), "Token algorithm is not RS256");
    case(
        "a signature of something else",
        swap_signature(&good().build(), signature),
        "Token signature is wrong",
    );
    case("HMAC with the public key", hmac_token(tenant, "HS256"), "Token algorithm is not RS256");
    case("HMAC that calls itself RS256", hmac_token(tenant, "RS256"), "Token signature is wrong");
    case("alg RS512", good().header("alg", "RS512").build(), "Token algorithm is not RS256");
    case("no alg", without_header(good(), "alg").build(), "Token algorithm is not RS256");

    case("another key under our kid", good().signed_by(test_key(2)).build(), "Token signature is wrong");
    let theirs = good().signed_by(test_key(2)).header("kid", stranger.key_id.clone()).build();
    case("another tenant's key and kid", theirs, "Token signing key is unknown");
    let ours_for_them = good().claim("tenantid", stranger.id.to_string()).build();
    case("our key for another tenant", ours_for_them, "Token signing key is unknown");
    case("an unknown kid", good().header("kid", "nobody").build(), "Token signing key is unknown");
    let nobody = "00000000-0000-4000-8000-000000000000";
    case("an unknown tenant", good().claim("tenantid", nobody).build(), "Token signing key is unknown");
    case("no kid", without_header(good(), "kid").build(), "Token header has no key id");
    case(
        "a key of its own",
        good().header("jwk", tenant.jwks()).build(),
        "Token header parameter jwk is not allowed",
    );
    case("crit", good().header("crit", json!(["exp"])).build(), "Token header parameter crit is not allowed");

    case("expired", good().expires_in(-60).build(), "Token expired");
    case("not valid yet", good().claim("nbf", unix_s() + 600).build(), "Token is not valid yet");
    case("a revoked key", tenant.with_key(3).token().build(), "Key revoked");

    let twice = |name: &str, value: Value| {
        let token = good();
        let claims = token.claims.to_string();
        token.build_raw(&token.header.to_string(), &format!("{{\"{name}\":{value},{}", &claims[1..]))
    };
    case("sub twice", twice("sub", "somebody".into()), "Token has a duplicate claim");
    case("exp twice", twice("exp", (unix_s() + 9).into()), "Token has a duplicate claim");
    case("tenantid twice, the same", twice("tenantid", json!(tenant.id)), "Token has a duplicate claim");
    let claims = good().claims.to_string();
    let limits = claims.replacen("\"limits\":{", "\"limits\":{\"maxConnections\":5,", 1);
    let nested = good().build_raw(&good().header.to_string(), &limits);
    case("a limit twice", nested, "Token has a duplicate claim");
    let header = good().header.to_string().replacen('{', "{\"alg\":\"none\",", 1);
    case("alg twice", good().build_raw(&header, &claims), "Token header has a duplicate parameter");

    for claim in
        ["iss", "sub", "aud", "scope", "tenantid", "appId", "licenseRegionCode", "dbCode", "limits", "exp"]
    {
        case("a claim missing", good().without(claim).build(), &format!("Token claim {claim} is missing"));
    }
    case(
        "another issuer",
        good().claim("iss", "https://evil.example.com").build(),
        "Token issuer is not the one this node trusts",
    );
    case(
        "issuer with a slash",
        good().claim("iss", "https://auth.example.com/").build(),
        "Token issuer is not the one this node trusts",
    );
    let audience = "Token audience is not WireSocket.API";
    case("another audience", good().claim("aud", "Other.API").build(), audience);
    case("two audiences", good().claim("aud", json!(["WireSocket.API", "Other.API"])).build(), audience);
    let scope = "Token scope lacks WireSocket.API";
    case("another scope", good().claim("scope", "openid offline_access").build(), scope);
    case("part of a scope", good().claim("scope", "WireSocket.API.Admin xWireSocket.API").build(), scope);
    case("appId no GUID", good().claim("appId", "my-app").build(), "Token claim appId is malformed");
    case(
        "limits as text",
        good().claim("limits", "{\"maxConnections\":1}").build(),
        "Token claim limits is malformed",
    );
    case(
        "no connections",
        good().limit("maxConnections", 0).build(),
        "Token claim limits.maxConnections is malformed",
    );
    case("exp as text", good().claim("exp", "tomorrow").build(), "Token claim exp is malformed");

    case("two parts", "abc.def".to_owned(), "Token does not have three parts");
    case("no base64", "a.b$.c".to_owned(), "Token is not base64url without padding");
    let long = good().claim("padding", "x".repeat(17_000)).build();
    case("too long", long, "Token is too long");
    cases
}

fn without_header(mut token: Token, name: &str) -> Token {
    token.header.as_object_mut().expect("an object").remove(name);
    token
}

fn swap_signature(token: &str, signature: &str) -> String {
    format!("{}.{signature}", token.rsplit_once('.').expect("three parts").0)
}

/// The classic confusion: the public key taken for a shared secret.
fn hmac_token(tenant: &Tenant, alg: &str) -> String {
    let token = tenant.token().header("alg", alg);
    let encode = |value: &Value| BASE64.encode(value.to_string());
    let signed = format!("{}.{}", encode(&token.header), encode(&token.claims));
    let modulus =
        tenant.jwks()["keys"][0]["n"].as_str().map(|n| BASE64.decode(n).expect("base64")).expect("n");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &modulus), signed.as_bytes());
    format!("{signed}.{}", BASE64.encode(tag))
}

/// A node that knows tenant 1, one of whose keys, `k3`, is revoked.
fn node(tenant: &Tenant) -> NodeSetup {
    let mut jwks = tenant.jwks();
    jwks["revoked"] = json!(["k3"]);
    NodeSetup::without_keys().key_set(&tenant.id.to_string(), jwks)
}

#[track_caller]
fn assert_refused(upgrade: &Upgrade, status: u16, code: u16, error: &str, message: &str) {
    let response = upgrade.refused();
    assert_eq!(response.status, status);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.json(), json!({ "code": code, "error": error, "message": message }));
}

/// What a Hocuspocus client is told when it brings this token.
#[track_caller]
fn in_band(client: &mut Client, document: &str, token: &str) -> Message {
    let wire = Wire::Hocuspocus(document.to_owned());
    client.send(&wire.frame(&wire::auth(token, None)));
    loop {
        let frame = client.receive_binary();
        if let Some(message @ (Message::Denied(_) | Message::Authenticated(_))) = wire.parse(&frame) {
            return message;
        }
    }
}

#[track_caller]
fn assert_alive(client: &mut Client) {
    client.ping(b"still there?");
    loop {
        match client.receive() {
            Incoming::Pong => return,
            Incoming::Binary(_) | Incoming::Ping => {}
            other => panic!("the socket stays open: {other:?}"),
        }
    }
}

#[test]
fn every_form_of_a_token_opens_the_same_document() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).start();
    let token = tenant.token().build();
    let mut first = Replica::join(&server, "notes", &token);
    first.append("hello");
    first.flush();
    let document = || server.upgrade("/notes");
    let forms: Vec<(Upgrade, Option<&str>)> = vec![
        (document().protocols(&format!("access_token, {token}")), Some("access_token")),
        (document().protocols(&format!("access_token,{token}")), Some("access_token")),
        (document().protocols("access_token").protocols(&token), Some("access_token")),
        (document().protocols(&format!("Bearer, {token}")), Some("Bearer")),
        (document().protocols(&format!("yjs, access_token, {token}")), Some("access_token")),
        (document().bearer(&token), None),
        (document().header("authorization", &format!("bearer {token}")), None),
        (server.upgrade(&format!("/notes?token={token}")), None),
        (server.upgrade(&format!("/notes?access_token={token}")), None),
        (server.upgrade(&format!("/notes?x=1&token={token}&y=2")), None),
        (server.upgrade(&format!("/notes?token={}", token.replace('.', "%2E"))), None),
        (server.upgrade(&format!("/?token={token}/notes")), None),
        (server.upgrade(&format!("/?access_token={token}/notes?user=7")), None),
        (server.upgrade(&format!("/notes?token={token}/notes")), None),
        (server.upgrade("/notes/notes").bearer(&token), None),
        (server.upgrade("/n%6ftes").bearer(&token), None),
    ];
    for (upgrade, selected) in forms {
        let client = upgrade.open();
        assert_eq!(client.selected_protocol.as_deref(), selected);
        let mut replica = Replica::new(client, Wire::YWebsocket);
        replica.sync();
        assert_eq!(replica.text(), "hello");
    }
    for token_in_query in [false, true] {
        let upgrade = if token_in_query { format!("/?token={token}") } else { "/".to_owned() };
        let wire = Wire::Hocuspocus("notes".to_owned());
        let mut replica = Replica::new(server.upgrade(&upgrade).open(), wire);
        // Provider 2 sends no Auth when it has no token of its own.
        if !token_in_query {
            replica.send(&wire::auth(&token, Some("4.8.0")));
        }
        replica.sync();
        assert_eq!(replica.text(), "hello");
    }
}

#[test]
fn the_first_message_may_come_with_the_upgrade() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).start();
    let mut bytes = server.upgrade("/notes").bearer(&tenant.token().build()).head();
    // A masked step 1 with an empty state vector; the mask is zero.
    bytes.extend_from_slice(&[0x82, 0x84, 0, 0, 0, 0, 0, 0, 1, 0]);
    // In two pieces that end in the middle of the head and in the middle of the frame.
    let mut stream = support::http::connect(server.address);
    for piece in bytes.chunks(bytes.len() - 5) {
        std::io::Write::write_all(&mut stream, piece).expect("it is sent");
    }
    let support::Answer::Open(client) = support::Answer::read(stream) else { panic!("it was refused") };
    let mut replica = Replica::new(client, Wire::YWebsocket);
    replica.wait_for("step 2", |replica| replica.synced);
}

#[test]
fn variants_of_claims_that_mean_the_same_are_taken() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).start();
    let good = || tenant.token();
    let tokens = [
        good().claim("aud", json!(["WireSocket.API"])),
        good().claim("scope", "openid WireSocket.API offline_access"),
        good().without("scope").claim("scp", "WireSocket.API"),
        good().without("scope").claim("scp", json!(["openid", "WireSocket.API"])),
        good().claim("scope", json!(["WireSocket.API"])),
        good().without("iat").without("nbf").without("jti"),
        // Within the leeway of 30 s.
        good().claim("nbf", unix_s() + 15),
        good().claim("exp", unix_s() + 3600).claim("unknown", json!({ "nested": [1, 2, 3] })),
        without_header(good(), "typ"),
    ];
    for token in tokens {
        let mut replica = Replica::join(&server, "notes", &token.build());
        replica.flush();
    }
}

#[test]
fn a_bad_token_is_refused_with_its_reason_to_every_kind_of_client() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).start();
    for (name, token, reason) in bad_tokens(&tenant) {
        let upgrade = server.upgrade("/notes").token(&token);
        let refused = upgrade.refused();
        assert_eq!(refused.status, 401, "{name}");
        let told = json!({ "code": 4002, "error": "invalid_token", "message": reason });
        assert_eq!(refused.json(), told, "{name}");
        let closed = upgrade.origin("https://myapp.com").closed();
        assert_eq!(closed, (4002, reason.clone()), "{name}");
        let discovery = format!("/discovery?documentName=notes&token={token}");
        if token.len() < 16_000 {
            let response = server.get(&discovery);
            assert_eq!((response.status, response.json()), (401, told), "{name}");
        }
        let mut socket = Client::hocuspocus(&server);
        let denied = in_band(&mut socket, "notes", &token);
        assert_eq!(denied, Message::Denied(format!("4002 {reason}")), "{name}");
        // It stays open, and a good token may follow.
        let granted = in_band(&mut socket, "notes", &tenant.token().build());
        assert_eq!(granted, Message::Authenticated("read-write".to_owned()), "{name}");
    }
}

#[test]
fn refusals_are_logged_and_counted_but_tokens_are_not() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).set("log.level", "trace").start();
    let token = tenant.token().expires_in(-60).build();
    let good = tenant.token().build();
    server.upgrade("/notes").token(&token).refused();
    server.upgrade(&format!("/?token={token}/notes")).origin("https://a.com").closed();
    server.upgrade(&format!("/notes?token={token}&x={token}")).bearer(&token).refused();
    server.upgrade(&format!("/bad name?token={good}")).send_bad_request();
    server.get(&format!("/usage?token={token}"));
    server.get(&format!("/nothing/{good}?token={good}"));
    let mut socket = Client::hocuspocus(&server);
    in_band(&mut socket, "notes", &token);
    in_band(&mut socket, "notes", &good);
    server.wait_for_metric("wiresocket_closes_total{code=\"4002\"}", 4.0);
    let refusals: Vec<Value> = server.log().into_iter().filter(|entry| entry["code"] == 4002).collect();
    assert_eq!(refusals.len(), 4, "{refusals:?}");
    for refusal in &refusals {
        assert_eq!(refusal["reason"], "Token expired");
        assert_eq!(refusal["peer"], "127.0.0.1");
    }
    let log = server.stderr();
    for secret in [&token, &good] {
        for part in secret.split('.').skip(1) {
            assert!(!log.contains(part), "a token is in the log");
        }
    }
}

trait BadRequest {
    fn send_bad_request(&self);
}

impl BadRequest for Upgrade {
    #[track_caller]
    fn send_bad_request(&self) {
        assert_eq!(self.refused().status, 400);
    }
}

#[test]
fn no_token_is_4001() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).start();
    let message = "Missing token";
    for upgrade in [
        server.upgrade("/notes"),
        server.upgrade("/notes?token="),
        server.upgrade("/notes").header("Authorization", "Basic dXNlcjpwYXNz"),
        server.upgrade("/notes").protocols("access_token"),
        server.upgrade("/?token=/notes"),
    ] {
        assert_refused(&upgrade, 401, 4001, "missing_token", message);
        assert_eq!(upgrade.origin("https://myapp.com").closed(), (4001, message.to_owned()));
    }
    let mut socket = Client::hocuspocus(&server);
    assert_eq!(in_band(&mut socket, "notes", ""), Message::Denied("4001 Missing token".to_owned()));
    assert_alive(&mut socket);
    // Provider 2 without a token goes straight to step 1.
    let wire = Wire::Hocuspocus("other".to_owned());
    socket.send(&wire.frame(&wire::step_one(&[0])));
    let answer = wire.parse(&socket.receive_binary());
    assert_eq!(answer, Some(Message::Denied("4001 Missing token".to_owned())));
    assert_alive(&mut socket);
}

#[test]
fn a_name_that_is_none_is_always_closed_with_4007() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).start();
    let token = tenant.token().build();
    let character = "the document name has a character other than A-Z a-z 0-9 - _";
    let too_long = "the document name has 256 bytes; at most 255 are allowed";
    let names = [
        ("a.b".to_owned(), character),
        ("a%20b".to_owned(), character),
        ("a%2Fb".to_owned(), character),
        ("a/b".to_owned(), character),
        ("%00".to_owned(), character),
        ("caf%C3%A9".to_owned(), character),
        ("tenant::app::doc".to_owned(), character),
        ("%zz".to_owned(), "the document name is not valid percent-encoding"),
        ("a%2".to_owned(), "the document name is not valid percent-encoding"),
        ("x".repeat(256), too_long),
    ];
    for (name, reason) in &names {
        let upgrade = server.upgrade(&format!("/{name}")).bearer(&token);
        assert_eq!(upgrade.closed(), (4007, (*reason).to_owned()), "{name}");
        assert_eq!(upgrade.origin("https://myapp.com").closed(), (4007, (*reason).to_owned()), "{name}");
    }
    let longest = "x".repeat(255);
    Replica::join(&server, &longest, &token).flush();
    let mut socket = Client::hocuspocus(&server);
    for (name, reason) in [("a b", character), (&"x".repeat(256), too_long)] {
        assert_eq!(in_band(&mut socket, name, &token), Message::Denied(format!("4007 {reason}")));
    }
    assert_alive(&mut socket);
}

#[test]
fn only_the_allowed_origins_are_let_in() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).start();
    let token = tenant
        .token()
        .claim("allowed_domain_1", "myapp.com")
        .claim("allowed_domain_2", "localhost:3000")
        .claim("allowed_domain_3", "Upper.Example")
        .build();
    let allowed = [
        "https://myapp.com",
        "http://myapp.com",
        "https://MyApp.COM",
        "https://myapp.com:8443",
        "http://localhost:3000",
        "https://upper.example",
    ];
    for origin in allowed {
        server.upgrade("/notes").token(&token).origin(origin).open().close();
    }
    let not_allowed = "Origin is not among the allowed domains";
    let refused = [
        ("https://evil.com", not_allowed),
        ("https://sub.myapp.com", not_allowed),
        ("https://evilmyapp.com", not_allowed),
        ("https://myapp.com.evil.com", not_allowed),
        ("http://localhost", not_allowed),
        ("http://localhost:3001", not_allowed),
        ("https://myapp.co", not_allowed),
        ("null", "Origin header is malformed"),
        ("https://myapp.com@evil.com", "Origin header is malformed"),
        ("https://evil.com/myapp.com", "Origin header is malformed"),
    ];
    for (origin, reason) in refused {
        let closed = server.upgrade("/notes").token(&token).origin(origin).closed();
        assert_eq!(closed, (4003, reason.to_owned()), "{origin}");
        let mut socket = server.upgrade("/").origin(origin).open();
        assert_eq!(in_band(&mut socket, "notes", &token), Message::Denied(format!("4003 {reason}")));
        assert_alive(&mut socket);
    }
    // No browser, no Origin: let through. And without the claims every Origin is fine.
    server.upgrade("/notes").token(&token).open().close();
    let open_to_all = tenant.token().build();
    server.upgrade("/notes").token(&open_to_all).origin("https://evil.com").open().close();
}

#[test]
fn require_origin_refuses_clients_without_one() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).set("auth.require_origin", true).start();
    let token = tenant.token().claim("allowed_domain_1", "myapp.com").build();
    let upgrade = server.upgrade("/notes").token(&token);
    assert_refused(&upgrade, 403, 4003, "forbidden", "Origin header is required");
    upgrade.origin("https://myapp.com").open().close();
    let mut socket = Client::hocuspocus(&server);
    let denied = in_band(&mut socket, "notes", &token);
    assert_eq!(denied, Message::Denied("4003 Origin header is required".to_owned()));
}

#[test]
fn rejection_close_closes_whoever_asks() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).set("auth.rejection", "close").start();
    let expired = tenant.token().expires_in(-60).build();
    let upgrade = server.upgrade("/notes").token(&expired);
    let client = upgrade.open();
    assert_eq!(client.selected_protocol.as_deref(), Some("access_token"));
    assert_eq!(upgrade.closed(), (4002, "Token expired".to_owned()));
    assert_eq!(server.upgrade("/notes").closed(), (4001, "Missing token".to_owned()));
}

#[test]
fn rejection_status_answers_whoever_asks() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).set("auth.rejection", "status").start();
    let expired = tenant.token().expires_in(-60).build();
    let upgrade = server.upgrade("/notes").token(&expired).origin("https://myapp.com");
    assert_refused(&upgrade, 401, 4002, "invalid_token", "Token expired");
    let token = tenant.token().claim("allowed_domain_1", "myapp.com").build();
    let upgrade = server.upgrade("/notes").token(&token).origin("https://evil.com");
    assert_refused(&upgrade, 403, 4003, "forbidden", "Origin is not among the allowed domains");
    // Names and limits use the close code whatever the setting.
    let name = server.upgrade("/a.b").token(&tenant.token().build()).origin("https://myapp.com");
    assert_eq!(name.closed().0, 4007);
    let one = tenant.with_app(7).token().limit("maxConnections", 1).build();
    let _first = Replica::join(&server, "notes", &one);
    assert_eq!(
        server.upgrade("/notes").token(&one).closed(),
        (4004, "Connection limit exceeded: 1".to_owned())
    );
}

#[test]
fn permanent_close_codes_are_44xx() {
    let tenant = Tenant::new(1);
    let server = node(&tenant).set("auth.permanent_close_codes", true).start();
    let origin = |upgrade: Upgrade| upgrade.origin("https://evil.com");
    assert_eq!(origin(server.upgrade("/notes")).closed().0, 4401);
    let expired = tenant.token().expires_in(-60).build();
    let upgrade = server.upgrade("/notes").token(&expired);
    assert_eq!(origin(upgrade).closed(), (4401, "Token expired".to_owned()));
    let token = tenant.token().claim("allowed_domain_1", "myapp.com").build();
    assert_eq!(origin(server.upgrade("/notes").token(&token)).closed().0, 4403);
    let good = tenant.token().build();
    assert_eq!(server.upgrade("/a.b").token(&good).closed().0, 4407);
    let one = tenant.with_app(7).token().limit("maxConnections", 1).build();
    let _first = Replica::join(&server, "notes", &one);
    assert_eq!(server.upgrade("/notes").token(&one).closed().0, 4004, "a limit is not for ever");
}

#[test]
fn dev_tokens_are_those_of_its_own_key_set() {
    let server = Server::dev(1);
    let tenant = server.dev["tenantId"].as_str().expect("a tenant").to_owned();
    let dashboard = server.dev["dashboard"].as_str().and_then(|url| url.strip_prefix("http://"));
    let dashboard =
        dashboard.and_then(|address| address.parse().ok()).expect("dev says where its dashboard is");
    let get = |target: &str| support::http::request(dashboard, "GET", target, &[("Connection", "close")]);
    let response = get(&format!("/{tenant}/.well-known/jwks"));
    assert_eq!(response.status, 200);
    let token = server.dev_token();
    let header = token.split('.').next().map(|part| BASE64.decode(part).expect("base64")).expect("a header");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    assert_eq!(response.json()["keys"][0]["kid"], header["kid"]);
    let stranger = Tenant::new(1).token().build();
    assert_refused(
        &server.upgrade("/notes").token(&stranger),
        401,
        4002,
        "invalid_token",
        "Token signing key is unknown",
    );
    assert_eq!(get("/00000000-0000-4000-8000-000000000000/.well-known/jwks").status, 404);
}
