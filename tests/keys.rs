//! Verification keys: unknown ones, rotation under load, revocation.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;
use support::jwks::JwksServer;
use support::keys::jwks_of;
use support::wire::{self, Message, Wire};
use support::{Answer, Client, NodeSetup, Replica, Server, Tenant, wait_until};

const UNKNOWN: &str = "Token signing key is unknown";

fn node_with_url(keys: &JwksServer, tenant: &Tenant) -> NodeSetup {
    NodeSetup::without_keys()
        .set("node.shards", 4)
        .set("auth.jwks_url", keys.url())
        .set("auth.tenants", vec![tenant.id.to_string()])
        .set("auth.jwks_poll_s", 3600)
        .set("auth.key_refresh_interval_s", 3600)
}

#[track_caller]
fn assert_invalid(server: &Server, token: &str, reason: &str) {
    let refused = server.upgrade("/notes").token(token).refused();
    let told = json!({ "code": 4002, "error": "invalid_token", "message": reason });
    assert_eq!((refused.status, refused.json()), (401, told));
}

#[test]
fn fifty_handshakes_with_an_unknown_key_cause_one_fetch() {
    let old = Tenant::new(1);
    let new = old.with_key(2);
    let keys = JwksServer::start();
    keys.publish(&old, old.jwks());
    let server = node_with_url(&keys, &old).start();
    assert_eq!(keys.fetches(), 1, "the listed tenant's keys are fetched before the node listens");
    Replica::join(&server, "notes", &old.token().build()).flush();

    keys.publish(&old, jwks_of([&old, &new]));
    let token = new.token().build();
    let gate = keys.hold();
    let waiting: Vec<_> =
        (0..50).map(|n| server.upgrade(&format!("/doc-{n}")).token(&token).begin()).collect();
    wait_until("the keys are fetched", || keys.fetches() == 2);
    drop(gate);
    for stream in waiting {
        match Answer::read(stream) {
            Answer::Open(client) => client.close(),
            Answer::Refused(response) => panic!("refused: {}", response.text()),
        }
    }
    assert_eq!(keys.fetches(), 2);
}

#[test]
fn a_key_that_stays_unknown_is_looked_for_once_and_refused() {
    let tenant = Tenant::new(1);
    let keys = JwksServer::start();
    keys.publish(&tenant, tenant.jwks());
    let server = node_with_url(&keys, &tenant).start();
    let token = tenant.with_key(2).token().build();
    for _ in 0..3 {
        assert_invalid(&server, &token, UNKNOWN);
        let mut socket = Client::hocuspocus(&server);
        let wire = Wire::Hocuspocus("notes".to_owned());
        socket.send(&wire.frame(&wire::auth(&token, None)));
        let denied = wire.parse(&socket.receive_binary());
        assert_eq!(denied, Some(Message::Denied(format!("4002 {UNKNOWN}"))));
    }
    assert_eq!(keys.fetches(), 2, "one at the start, one for the unknown key");
    assert!(server.metrics().get("wiresocket_key_refreshes_limited_total") > 0.0);
}

#[test]
fn a_hocuspocus_token_with_a_new_key_waits_for_the_fetch() {
    let old = Tenant::new(1);
    let new = old.with_key(2);
    let keys = JwksServer::start();
    keys.publish(&old, old.jwks());
    let server = node_with_url(&keys, &old).start();
    keys.publish(&old, jwks_of([&new]));
    let mut editor = Replica::join_hocuspocus(&server, "notes", &new.token().build());
    editor.append("x");
    editor.wait_for("an acknowledgement", |editor| editor.acknowledged > 0);
    // The old key has left the set: nobody new comes in with it.
    assert_invalid(&server, &old.token().build(), UNKNOWN);
    assert_eq!(keys.fetches(), 2);
}

/// How much each session types while one key is the newest.
const LETTERS_PER_ROTATION: usize = 20;

/// Keeps typing into one document through all rotations; a dropped session fails the test.
fn type_through(rotation: &AtomicUsize, mut editor: Replica, letter: &str) -> Replica {
    let mut typed = 0;
    loop {
        let current = rotation.load(Ordering::SeqCst);
        if current > ROTATIONS {
            return editor;
        }
        if typed < (current + 1) * LETTERS_PER_ROTATION {
            editor.append(letter);
            typed += 1;
        }
        // The pong says that everything up to here has been read, and keeps the pace.
        editor.flush();
    }
}

const ROTATIONS: usize = 20;

#[test]
fn sessions_keep_running_while_keys_rotate_twenty_times() {
    let tenant = Tenant::new(1);
    // Four keys under twenty-one names.
    let key = |n: u32| Tenant { key_id: format!("rotated-{n}"), ..tenant.with_key(1 + n % 4) };
    let server = NodeSetup::without_keys()
        .key_set(&tenant.id.to_string(), jwks_of([&key(0)]))
        .set("node.shards", 4)
        .start();
    let rotation = AtomicUsize::new(0);
    let first_token = key(0).token().build();
    let typists = vec![
        (Replica::join(&server, "notes", &first_token), "a"),
        (Replica::join_hocuspocus(&server, "notes", &first_token), "b"),
        (Replica::join(&server, "notes", &first_token), "c"),
    ];
    std::thread::scope(|scope| {
        let rotation = &rotation;
        let typists: Vec<_> = typists
            .into_iter()
            .map(|(editor, letter)| scope.spawn(move || type_through(rotation, editor, letter)))
            .collect();
        let mut entered = Vec::new();
        for n in 1..=u32::try_from(ROTATIONS).expect("few") {
            let (old, new) = (key(n - 1), key(n));
            server.write_keys(&tenant, &jwks_of([&old, &new]));
            let outcome = server.reload();
            assert_eq!(outcome["level"], "INFO", "{outcome}");
            for signer in [&old, &new] {
                entered.push(Replica::join(&server, "notes", &signer.token().build()));
            }
            entered.push(Replica::join_hocuspocus(&server, "notes", &new.token().build()));
            if n > 1 {
                assert_invalid(&server, &key(n - 2).token().build(), UNKNOWN);
            }
            rotation.fetch_add(1, Ordering::SeqCst);
        }
        rotation.fetch_add(1, Ordering::SeqCst);
        let mut editors: Vec<Replica> =
            typists.into_iter().map(|typist| typist.join().expect("it was not dropped")).collect();
        editors.append(&mut entered);
        // Every session of every key is still there and has the same text.
        editors[0].append("!");
        for editor in &mut editors {
            editor.wait_for("the last letter", |editor| editor.text().contains('!'));
            editor.flush();
        }
        let text = editors[0].text();
        editors.iter().for_each(|editor| assert_eq!(editor.text(), text));
    });
    assert_eq!(server.metrics().closes(4002), 19.0, "only the tokens of keys that had left");
}

#[test]
fn revoking_a_key_ends_exactly_its_sessions_on_every_shard() {
    let tenant = Tenant::new(1);
    let (bad, good) = (tenant.with_key(1), tenant.with_key(2));
    let both = jwks_of([&bad, &good]);
    let stranger = Tenant { id: Tenant::new(9).id, ..bad.clone() };
    let server = NodeSetup::without_keys()
        .key_set(&tenant.id.to_string(), both.clone())
        .keys_of(&stranger)
        .set("node.shards", 4)
        .start();
    let (bad_token, good_token) = (bad.token().build(), good.token().build());
    let documents: Vec<String> = (0..12).map(|n| format!("doc-{n}")).collect();
    let join_all = |token: &str| -> Vec<Replica> {
        let mut replicas = Vec::new();
        for document in &documents {
            replicas.push(Replica::join(&server, document, token));
            replicas.push(Replica::join_hocuspocus(&server, document, token));
        }
        replicas
    };
    let (ended, mut staying) = (join_all(&bad_token), join_all(&good_token));
    // Another tenant may have a key of the same name.
    staying.push(Replica::join(&server, "doc-0", &stranger.token().build()));
    // Who has handed in a token of another key since is not signed with this one any more.
    for mut renewed in
        [Replica::join(&server, "doc-1", &bad_token), Replica::join_hocuspocus(&server, "doc-1", &bad_token)]
    {
        renewed.send(&wire::auth(&good.token().expires_in(7200).build(), None));
        renewed.flush();
        staying.push(renewed);
    }
    let documents_by_shard = server.metrics();
    for (shard, documents) in documents_by_shard.family("wiresocket_shard_documents") {
        assert!(documents > 0.0, "{shard} has no document: name more of them");
    }

    let mut jwks = jwks_of([&good]);
    jwks["revoked"] = json!([bad.key_id]);
    server.write_keys(&tenant, &jwks);
    server.reload();
    for mut replica in ended {
        if replica.wire == Wire::YWebsocket {
            assert_eq!(replica.wait_for_end(), (4002, "Key revoked".to_owned()));
        } else {
            replica.wait_for("the denial", |replica| replica.auth.len() > 1);
            assert_eq!(replica.auth[1], Message::Denied("4002 Key revoked".to_owned()));
            // The socket stays open.
            replica.flush();
        }
    }
    for replica in &mut staying {
        replica.append("x");
        replica.flush();
    }
    let mut others: Vec<Replica> = join_all(&good_token);
    others.iter_mut().for_each(Replica::flush);
    assert_invalid(&server, &bad_token, "Key revoked");
    // It never comes back, whatever the file says.
    server.write_keys(&tenant, &both);
    server.reload();
    assert_invalid(&server, &bad_token, "Key revoked");
    let closes = server.metrics().closes(4002);
    assert_eq!(closes, 24.0 + 2.0, "24 sessions and two handshakes");
}

/// A connection that is on its way from one shard to another must not slip through.
#[test]
fn no_session_of_a_revoked_key_survives_a_storm_of_handshakes() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).set("node.shards", 4).start();
    let token = tenant.token().build();
    let stop = AtomicBool::new(false);
    let entered: Mutex<Vec<Client>> = Mutex::default();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (server, token, stop, entered) = (&server, &token, &stop, &entered);
            scope.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let document = format!("/doc-{thread}-{}", n % 50);
                    match server.upgrade(&document).token(token).send() {
                        Answer::Open(client) => entered.lock().expect("no panic").push(client),
                        Answer::Refused(response) => {
                            assert_eq!(response.json()["message"], "Key revoked");
                            return;
                        }
                    }
                }
            });
        }
        wait_until("some are in", || entered.lock().expect("no panic").len() > 200);
        let mut jwks = Tenant::new(2).jwks();
        jwks["revoked"] = json!([tenant.key_id]);
        server.write_keys(&tenant, &jwks);
        server.reload();
        stop.store(true, Ordering::SeqCst);
    });
    for mut client in entered.into_inner().expect("no panic") {
        assert_eq!(client.closed(), (4002, "Key revoked".to_owned()));
    }
    server.wait_for_metric("wiresocket_ledger_connections", 0.0);
}

#[test]
fn a_key_file_that_cannot_be_used_changes_nothing_and_says_so() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).start();
    let token = tenant.token().build();
    let mut editor = Replica::join(&server, "notes", &token);
    let path = server.key_dir().join(format!("{}.json", tenant.id));
    std::fs::write(&path, "{\"keys\": [").expect("it is written");
    let outcome = server.reload();
    assert_eq!(outcome["level"], "ERROR");
    let message = outcome["message"].as_str().expect("a message");
    assert!(message.contains(&tenant.id.to_string()), "{message}");
    editor.append("x");
    editor.flush();
    Replica::join(&server, "notes", &token).wait_for_text("x");
}

#[test]
fn a_key_file_that_cannot_be_used_does_not_keep_another_tenants_revocation_back() {
    let (first, second) = (Tenant::new(1), Tenant::new(2));
    let server = NodeSetup::new(&first).start();
    server.write_keys(&second, &second.jwks());
    server.reload();
    let mut editor = Replica::join(&server, "notes", &first.token().build());
    let mut leaked = Replica::join(&server, "notes", &second.token().build());
    std::fs::write(server.key_dir().join(format!("{}.json", first.id)), "{").expect("it is written");
    let mut jwks = second.jwks();
    jwks["revoked"] = json!([second.key_id]);
    server.write_keys(&second, &jwks);
    assert_eq!(server.reload()["level"], "ERROR");
    assert_eq!(leaked.wait_for_end(), (4002, "Key revoked".to_owned()));
    editor.append("x");
    editor.flush();
}

#[test]
fn tenants_come_and_go_with_their_files() {
    let (first, second) = (Tenant::new(1), Tenant::new(2));
    let server = NodeSetup::new(&first).start();
    let token = second.token().build();
    assert_invalid(&server, &token, UNKNOWN);
    server.write_keys(&second, &second.jwks());
    server.reload();
    let mut editor = Replica::join(&server, "notes", &token);
    server.remove_keys(&second);
    server.reload();
    // Retired, not revoked: who is in stays, nobody new comes in.
    editor.append("x");
    editor.flush();
    assert_invalid(&server, &token, UNKNOWN);
    Replica::join(&server, "notes", &first.token().build()).flush();
}
