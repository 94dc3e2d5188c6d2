//! How sessions and nodes begin and end: expiry and renewal, idle and silent sockets, grace, reload, drain.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;
use support::server::run;
use support::wire::{self, Message, Wire};
use support::{Answer, Client, Incoming, NodeSetup, Replica, Tenant, wait_until};

#[test]
fn a_session_ends_with_its_token() {
    let tenant = Tenant::new(1);
    // No other deadline of a connection is anywhere near.
    let server = NodeSetup::new(&tenant)
        .set("auth.leeway_s", 0)
        .set("auth.renew_before_s", 0)
        .set("limits.authentication_timeout_s", 200)
        .set("sessions.keep_alive_interval_s", 29.5)
        .set("sessions.ping_interval_s", 100)
        .set("sessions.idle_timeout_s", 300)
        .start();
    let token = tenant.token().expires_in(3).build();
    let mut plain = Replica::join(&server, "notes", &token);
    let mut hocuspocus = Replica::join_hocuspocus(&server, "notes", &token);
    let mut longer = Replica::join(&server, "notes", &tenant.token().build());
    assert_eq!(plain.wait_for_end(), (4002, "Token expired".to_owned()));
    hocuspocus.wait_for("the denial", |replica| replica.auth.contains(&denied("4002 Token expired")));
    hocuspocus.flush();
    longer.flush();
    let refused = server.upgrade("/notes").token(&token).refused();
    assert_eq!(refused.json()["message"], "Token expired");
    // The socket is as good as new with a new token.
    hocuspocus.send(&wire::auth(&tenant.token().build(), None));
    hocuspocus.sync();
}

fn denied(reason: &str) -> Message {
    Message::Denied(reason.to_owned())
}

#[test]
fn sessions_outlive_their_token_where_the_node_says_so() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).set("auth.leeway_s", 0).set("auth.on_token_expiry", "keep").start();
    let token = tenant.token().expires_in(2).build();
    let mut plain = Replica::join(&server, "notes", &token);
    let mut hocuspocus = Replica::join_hocuspocus(&server, "notes", &token);
    wait_until("the token has expired", || {
        let refused = server.get(&format!("/usage?token={token}"));
        refused.status == 401
    });
    plain.append("x");
    hocuspocus.wait_for_text("x");
    plain.flush();
    hocuspocus.flush();
    assert_eq!((plain.ended, hocuspocus.ended), (None, None));
}

#[test]
fn a_newer_token_in_band_prolongs_the_session() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).set("auth.leeway_s", 0).set("auth.renew_before_s", 60).start();
    let short = tenant.token().expires_in(3).build();
    let mut plain = Replica::join(&server, "notes", &short);
    let mut hocuspocus = Replica::join_hocuspocus(&server, "notes", &short);
    let mut lazy = Replica::join(&server, "notes", &short);
    // A Hocuspocus client is asked for a new token in time.
    hocuspocus.wait_for("the question", |replica| replica.auth.contains(&Message::TokenRequest));
    let newer = tenant.token().build();
    plain.send(&wire::auth(&newer, None));
    hocuspocus.send(&wire::auth(&newer, None));
    assert_eq!(lazy.wait_for_end(), (4002, "Token expired".to_owned()));
    plain.append("x");
    hocuspocus.wait_for_text("x");
    plain.flush();
    assert!(!hocuspocus.auth.iter().any(|message| matches!(message, Message::Denied(_))));
}

#[test]
fn a_token_in_band_must_be_good_and_of_the_same_app() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).keys_of(&Tenant::new(2)).start();
    let good = tenant.token().build();
    let wrong = [
        (tenant.token().expires_in(-60).build(), "4002 Token expired"),
        (tenant.with_app(2).token().expires_in(7200).build(), "4003 The new token is for another app"),
        (Tenant::new(2).token().expires_in(7200).build(), "4003 The new token is for another app"),
        ("rubbish".to_owned(), "4002 Token does not have three parts"),
    ];
    for (token, told) in wrong {
        let mut plain = Replica::join(&server, "notes", &good);
        plain.send(&wire::auth(&token, None));
        let (code, reason) = plain.wait_for_end();
        assert_eq!(format!("{code} {reason}"), told);
        let mut hocuspocus = Replica::join_hocuspocus(&server, "notes", &good);
        hocuspocus.send(&wire::auth(&token, None));
        hocuspocus.wait_for("the denial", |replica| replica.auth.contains(&denied(told)));
        hocuspocus.flush();
    }
}

#[test]
fn a_socket_that_never_authenticates_is_closed_in_time() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).set("limits.authentication_timeout_s", 1).start();
    let mut silent = Client::hocuspocus(&server);
    // Bytes that lead nowhere don't help.
    let mut pinging = Client::hocuspocus(&server);
    pinging.ping(b"x");
    let mut authenticated = Replica::join_hocuspocus(&server, "notes", &tenant.token().build());
    assert_eq!(silent.closed(), (4001, "Missing token".to_owned()));
    assert_eq!(pinging.closed(), (4001, "Missing token".to_owned()));
    authenticated.append("x");
    authenticated.wait_for("an acknowledgement", |replica| replica.acknowledged > 0);
}

#[test]
fn what_a_socket_may_send_before_it_authenticates_is_bounded() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant)
        .set("auth.token_bytes_max", 2048)
        .set("limits.unauthenticated_bytes_max", 4096)
        .start();
    let mut client = Client::hocuspocus(&server);
    let _ =
        client.try_send(&Wire::Hocuspocus("notes".to_owned()).frame(&wire::auth(&"x".repeat(5000), None)));
    assert_eq!(client.closed().0, 1009);
    // In small messages, too.
    let mut client = Client::hocuspocus(&server);
    let frame = Wire::Hocuspocus("notes".to_owned()).frame(&wire::auth(&"x".repeat(500), None));
    for _ in 0..20 {
        if client.try_send(&frame).is_err() {
            break;
        }
    }
    assert_eq!(client.closed().0, 1009);
    // Who is in may send more.
    let mut editor = Replica::join(&server, "notes", &tenant.token().build());
    editor.append(&"x".repeat(10_000));
    editor.flush();
}

#[test]
fn a_silent_client_is_pinged_and_then_closed() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant)
        .set("limits.handshake_timeout_s", 1)
        .set("limits.authentication_timeout_s", 1)
        .set("sessions.ping_interval_s", 0.3)
        .set("sessions.idle_timeout_s", 1.5)
        .start();
    let token = tenant.token().build();
    // It reads and so answers pings: it stays.
    let mut answering = Client::join(&server, "notes", &token);
    let mut silent = Client::join(&server, "notes", &token);
    let until = Instant::now() + Duration::from_secs(3);
    let mut pings = 0;
    while Instant::now() < until {
        match answering.try_receive(until.saturating_duration_since(Instant::now())) {
            Some(Incoming::Ping) => pings += 1,
            Some(Incoming::Binary(_)) | None => {}
            other => panic!("it was closed: {other:?}"),
        }
    }
    assert!(pings >= 2, "{pings} pings in 3 s");
    // The silent one's pongs come too late: its socket is closed already.
    assert_eq!(silent.closed(), (1000, "Idle timeout".to_owned()));
    server.wait_for_metric("wiresocket_ledger_connections", 1.0);
}

#[test]
fn quiet_connections_are_kept_alive_with_data() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).set("sessions.keep_alive_interval_s", 0.2).start();
    let token = tenant.token().build();
    let mut plain = Replica::join(&server, "notes", &token);
    let mut hocuspocus = Replica::join_hocuspocus(&server, "notes", &token);
    for replica in [&mut plain, &mut hocuspocus] {
        replica.awareness.clear();
        // An empty awareness: y-websocket leaves a connection that brings no data for 30 s.
        replica.wait_for("three of them", |replica| replica.awareness.len() >= 3);
        assert!(replica.awareness.iter().all(|payload| payload == &[0]));
    }
}

#[test]
fn a_document_survives_a_reconnect_within_grace_and_is_gone_after_it() {
    let tenant = Tenant::new(1);
    let mut server = NodeSetup::new(&tenant).set("sessions.grace_period_s", 60).start();
    let token = tenant.token().build();
    let mut editor = Replica::join(&server, "notes", &token);
    editor.append("kept");
    editor.flush();
    editor.client.reset();
    server.wait_for_metric("wiresocket_sessions_active", 0.0);
    assert_eq!(server.metrics().get("wiresocket_documents_active"), 1.0);
    let mut back = Replica::join(&server, "notes", &token);
    assert_eq!(back.text(), "kept");
    back.append("!");
    back.flush();

    server.reconfigure(|setup| setup.set("sessions.grace_period_s", 0.2));
    back.client.close();
    server.wait_for_metric("wiresocket_documents_active", 0.0);
    assert_eq!(Replica::join(&server, "notes", &token).text(), "");
}

/// The first op of an app waits for a lease of ops; its sender need not.
#[test]
fn what_was_sent_before_a_client_left_is_in_the_document() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).start();
    for n in 0..60 {
        let token = tenant.with_app(n).token().build();
        let mut editor = match n % 2 {
            0 => Replica::join(&server, "notes", &token),
            _ => Replica::join_hocuspocus(&server, "notes", &token),
        };
        editor.append("ke");
        editor.append("pt");
        if n % 3 == 0 {
            editor.client.reset_after_pong()
        } else {
            editor.client.close()
        }
        let mut late = Replica::join(&server, "notes", &token);
        late.wait_for_text("kept");
    }
}

#[test]
fn an_idle_document_shrinks_and_comes_back_whole() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).set("sessions.shrink_after_s", 0.2).start();
    let token = tenant.token().build();
    let mut editor = Replica::join(&server, "notes", &token);
    editor.append("hello");
    server.wait_for_metric("wiresocket_documents_shrunk", 1.0);
    let mut other = Replica::join_hocuspocus(&server, "notes", &token);
    assert_eq!(other.text(), "hello");
    other.append(" world");
    editor.wait_for_text("hello world");
}

#[test]
fn sigterm_drains() {
    let tenant = Tenant::new(1);
    let mut server = NodeSetup::new(&tenant).set("node.shards", 4).set("drain.spread_s", 3).start();
    let token = tenant.token().build();
    let mut sessions: Vec<Replica> =
        (0..30).map(|n| Replica::join(&server, &format!("doc-{n}"), &token)).collect();
    for n in 0..10 {
        sessions.push(Replica::join_hocuspocus(&server, &format!("doc-{n}"), &token));
    }
    let began = Instant::now();
    server.signal(libc::SIGTERM);
    let health =
        support::eventually("health is 503", || Some(server.get("/health")).filter(|h| h.status == 503));
    assert_eq!(health.json()["status"], "draining");
    assert!(health.header("retry-after").is_some());
    let upgrade = server.upgrade("/notes").token(&token);
    // A shard hears of it a moment after the endpoint knows.
    let refused = support::eventually("upgrades are refused", || match upgrade.send() {
        Answer::Refused(response) => Some(response),
        Answer::Open(_) => None,
    });
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!(1012)));
    let (code, reason) = upgrade.origin("https://myapp.com").closed();
    assert_eq!(code, 1012);
    assert!(reason.starts_with("Draining: retry after "), "{reason}");
    let mut ends = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .into_iter()
            .map(|mut session| {
                scope.spawn(move || {
                    let (code, reason) = session.wait_for_end();
                    assert_eq!(code, 1012);
                    assert!(reason.starts_with("Draining: retry after "), "{reason}");
                    began.elapsed()
                })
            })
            .collect();
        ends.extend(threads.into_iter().map(|thread| thread.join().expect("it was closed well")));
    });
    let spread = *ends.iter().max().expect("forty") - *ends.iter().min().expect("forty");
    assert!(spread > Duration::from_secs(1), "all at once: {ends:?}");
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn sigterm_without_sessions_and_sigint_end_at_once() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant)
        .set("drain.spread_s", 600)
        .set("limits.handshake_timeout_s", 600)
        .set("sessions.idle_timeout_s", 600)
        .start();
    // Whoever has connected and said nothing is not waited for. Each shard takes its connections in order: those before an
    // answered one are taken.
    let _silent = [(); 8].map(|()| support::http::connect(server.address));
    for _ in 0..8 {
        assert_eq!(server.get("/health").status, 200);
    }
    assert_eq!(server.terminate().code(), Some(0));
    let mut server = NodeSetup::new(&tenant).set("drain.spread_s", 600).start();
    server.signal(libc::SIGINT);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn a_second_signal_does_not_wait_for_the_sessions() {
    let tenant = Tenant::new(1);
    let mut server = NodeSetup::new(&tenant).set("drain.spread_s", 3600).start();
    let _editor = Replica::join(&server, "notes", &tenant.token().build());
    server.signal(libc::SIGTERM);
    server.wait_for_log("it drains", |entry| {
        entry["message"].as_str().is_some_and(|message| message.starts_with("draining: new sessions"))
    });
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn sighup_says_what_it_changed_and_what_it_cannot() {
    let tenant = Tenant::new(1);
    let mut server = NodeSetup::new(&tenant).start();
    let mut editor = Replica::join(&server, "notes", &tenant.token().build());
    let nothing = server.reload();
    assert_eq!((&nothing["level"], &nothing["changed"]), (&json!("INFO"), &json!("")));

    server.configure(|setup| {
        setup.set("auth.rejection", "status").set("node.shards", 3).set("sessions.grace_period_s", 5)
    });
    let outcome = server.reload();
    assert_eq!(outcome["message"], "SIGHUP: reloaded, with the key directory");
    let changed = outcome["changed"].as_str().expect("names");
    assert!(changed.contains("auth.rejection") && changed.contains("sessions.grace_period_s"), "{changed}");
    assert!(!changed.contains("node.shards"), "{changed}");
    let warning =
        server.wait_for_log("the warning", |entry| entry["level"] == "WARN" && entry["keys"].is_string());
    assert_eq!(warning["keys"], "node.shards");
    assert_eq!(server.upgrade("/notes").origin("https://a.com").refused().status, 401);

    server.write_config("[node]\nlisten = \"nowhere\"\n");
    let refused = server.reload();
    assert_eq!(refused["level"], "ERROR");
    let message = refused["message"].as_str().expect("a message");
    assert!(message.contains("stays as it was") && message.contains("node.toml:2:"), "{message}");
    assert_eq!(server.upgrade("/notes").origin("https://a.com").refused().status, 401);
    editor.append("x");
    editor.flush();
}

#[test]
fn check_config_prints_what_would_run_or_says_what_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("node.toml");
    let file = path.to_str().expect("UTF-8");
    let check = |text: &str| {
        std::fs::File::create(&path).and_then(|mut file| file.write_all(text.as_bytes())).expect("written");
        run(&["check-config", file])
    };
    let good = "[auth]\nissuer = \"https://auth.example.com\"\nkey_dir = \"keys\"\n";
    let (code, out, err) = check(good);
    assert_eq!(code, Some(0), "{err}");
    let effective: toml::Table = out.parse().expect("what is printed is TOML");
    assert_eq!(effective["auth"]["issuer"].as_str(), Some("https://auth.example.com"));
    assert_eq!(effective["limits"]["message_bytes_max"].as_str(), Some("16 MiB"));
    // What it prints is a configuration of the same meaning.
    let again: toml::Table = check(&out).1.parse().expect("TOML");
    assert_eq!(again, effective);

    let (code, out, err) = check(&format!("{good}isuer = \"x\"\n[limits]\nmessage_bytes_max = \"huge\"\n"));
    assert_eq!((code, out.as_str()), (Some(78), ""));
    assert!(err.contains(&format!("{file}:4:1: ")) && err.contains("issuer"), "{err}");
    assert!(err.contains(&format!("{file}:6:")) && err.contains("message_bytes_max"), "{err}");
    assert!(err.contains("2 problems"), "{err}");

    let (code, _, err) = check("[node]\nlisten = \"127.0.0.1:0\"\n");
    assert_eq!(code, Some(78));
    assert!(err.contains("auth.issuer"), "{err}");
    let (code, _, err) = check("[node\n");
    assert_eq!(code, Some(78));
    assert!(err.contains(&format!("{file}:1:")), "{err}");
    let (code, _, err) = run(&["check-config", "/nowhere/node.toml"]);
    assert_eq!(code, Some(78));
    assert!(err.contains("/nowhere/node.toml"), "{err}");
    let (code, _, err) = run(&["node", "--config", "/nowhere/node.toml"]);
    assert_eq!(code, Some(78), "{err}");
    assert_eq!(run(&["check-config"]).0, Some(2));
    assert_eq!(run(&["--version"]).0, Some(0));
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).start();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("node.toml");
    let start = |setup: NodeSetup| {
        std::fs::write(&path, setup.to_toml()).expect("written");
        run(&["node", "--config", path.to_str().expect("UTF-8")])
    };
    let missing = dir.path().join("missing");
    let journal = dir.path().join("journal");
    let setup = || {
        NodeSetup::without_keys()
            .set("auth.key_dir", missing.to_str().expect("UTF-8"))
            .set("journal.directory", journal.to_str().expect("UTF-8"))
    };
    let (code, _, err) = start(setup());
    assert_eq!(code, Some(78), "{err}");
    assert!(err.contains("missing") && err.contains("could not load the verification keys"), "{err}");
    let keys = server.key_dir();
    std::fs::write(keys.join("no-guid.json"), "{}").expect("written");
    let (code, _, err) = start(setup().set("auth.key_dir", keys.to_str().expect("UTF-8")));
    assert_eq!(code, Some(78), "{err}");
    assert!(err.contains("no-guid.json"), "{err}");
}

#[test]
fn a_taken_port_is_not_shared_with_another_node() {
    let first = support::Server::dev(2);
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_wiresocket"))
        .args(["dev", "--json", "--listen", &first.address.to_string()])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot listen on"), "{said}");
}
