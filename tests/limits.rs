//! The four limits of a token under storms, over both wires: contract section 5.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use std::sync::Barrier;

use support::wire::{self, Message, Wire};
use support::{Answer, Client, Incoming, NodeSetup, Replica, Server, Tenant};

const STORM_THREADS: usize = 8;

/// What became of one client of a storm.
#[allow(clippy::large_enum_variant)] // it is taken apart at once
enum Outcome {
    Admitted(Client),
    Refused(u16, String),
}

/// All clients ask to join at once; `document` names each one's.
fn storm(
    server: &Server,
    token: &str,
    clients: usize,
    document: impl Fn(usize) -> String + Sync,
) -> Vec<Outcome> {
    let barrier = Barrier::new(STORM_THREADS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..STORM_THREADS)
            .map(|thread| {
                let (barrier, document) = (&barrier, &document);
                scope.spawn(move || {
                    barrier.wait();
                    let numbers = (thread..clients).step_by(STORM_THREADS);
                    let upgrades = numbers.map(|n| server.upgrade(&format!("/{}", document(n))).token(token));
                    let streams: Vec<_> = upgrades.map(|upgrade| upgrade.begin()).collect();
                    streams.into_iter().map(|stream| outcome(Answer::read(stream))).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread of the storm")).collect()
    })
}

/// A client knows that it is in when its step 1 is answered.
fn outcome(answer: Answer) -> Outcome {
    let Answer::Open(mut client) = answer else { panic!("limits use the close code") };
    // The server may have closed already; what it said can still be read.
    let _ = client.try_send(&wire::step_one(&[0]));
    loop {
        match client.receive() {
            Incoming::Binary(frame) => {
                if let Some(Message::StepTwo(_)) = Message::parse(&frame) {
                    return Outcome::Admitted(client);
                }
            }
            Incoming::Close(code, reason) => return Outcome::Refused(code, reason),
            Incoming::Ping | Incoming::Pong => {}
            other => panic!("neither in nor refused: {other:?}"),
        }
    }
}

/// Splits a storm's outcomes, and checks that all refusals are this one.
#[track_caller]
fn admitted(outcomes: Vec<Outcome>, code: u16, reason: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for outcome in outcomes {
        match outcome {
            Outcome::Admitted(client) => clients.push(client),
            Outcome::Refused(was, why) => assert_eq!((was, why.as_str()), (code, reason)),
        }
    }
    clients
}

/// A third says goodbye, a third resets, a third falls silent: nothing but the idle timeout tells of it.
fn leave_in_every_way(clients: Vec<Client>) -> Vec<Client> {
    let mut silent = Vec::new();
    for (n, client) in clients.into_iter().enumerate() {
        match n % 3 {
            0 => client.close(),
            1 => client.reset(),
            _ => silent.push(client),
        }
    }
    silent
}

#[test]
fn two_thousand_handshakes_at_once_admit_exactly_a_hundred() {
    let tenant = Tenant::new(1);
    let mut server =
        NodeSetup::new(&tenant).set("node.shards", 4).set("sessions.ping_interval_s", 0.5).start();
    let token = tenant.token().limit("maxConnections", 100).build();
    let reason = "Connection limit exceeded: 100";
    let outcomes = storm(&server, &token, 2000, |n| format!("doc-{}", n % 40));
    let clients = admitted(outcomes, 4004, reason);
    assert_eq!(clients.len(), 100);
    let metrics = server.metrics();
    assert_eq!(metrics.get("wiresocket_ledger_connections"), 100.0);
    assert_eq!(metrics.closes(4004), 1900.0);

    let silent = leave_in_every_way(clients);
    server.wait_for_metric("wiresocket_ledger_connections", silent.len() as f64);
    // Only now may silence be fatal: no storm is to depend on how fast this machine is.
    let idle_timeout = |setup: NodeSetup, seconds: u32| {
        setup
            .set("limits.handshake_timeout_s", seconds)
            .set("limits.authentication_timeout_s", seconds)
            .set("sessions.idle_timeout_s", seconds)
    };
    server.reconfigure(|setup| idle_timeout(setup, 1));
    server.wait_for_metric("wiresocket_ledger_connections", 0.0);
    server.reconfigure(|setup| idle_timeout(setup, 60));

    let outcomes = storm(&server, &token, 200, |n| format!("doc-{}", n % 40));
    assert_eq!(admitted(outcomes, 4004, reason).len(), 100);
    assert_eq!(server.metrics().get("wiresocket_ledger_unmatched_releases_total"), 0.0);
    drop(silent);
}

#[test]
fn a_storm_of_documents_opens_exactly_as_many_as_allowed() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).set("node.shards", 4).start();
    let token = tenant.token().limit("maxDocuments", 50).build();
    let reason = "Document limit exceeded: 50 (active: 50)";
    let mut clients = admitted(storm(&server, &token, 400, |n| format!("doc-{n}")), 4005, reason);
    assert_eq!(clients.len(), 50);
    assert_eq!(server.metrics().get("wiresocket_ledger_connections"), 50.0, "refused clients hold nothing");
    // A document that is open is open to more clients.
    let mut open = Replica::new(clients.pop().expect("fifty"), Wire::YWebsocket);
    open.append("x");
    open.flush();
    for n in 0..50 {
        if let Answer::Open(client) = server.upgrade(&format!("/doc-{n}")).token(&token).send() {
            let mut client = client;
            client.try_send(&wire::step_one(&[0])).expect("it is open");
            match outcome(Answer::Open(client)) {
                Outcome::Admitted(_) => {}
                Outcome::Refused(code, why) => assert_eq!((code, why.as_str()), (4005, reason)),
            }
        }
    }
    drop((clients, open));
    server.wait_for_metric("wiresocket_ledger_documents", 0.0);
    let outcomes = storm(&server, &token, 100, |n| format!("new-{n}"));
    assert_eq!(admitted(outcomes, 4005, reason).len(), 50);
}

#[test]
fn a_storm_of_users_fills_a_document_exactly() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).set("node.shards", 4).start();
    let token = tenant.token().limit("maxUsersPerDoc", 10).build();
    let reason = "Document user limit exceeded: 10";
    let clients = admitted(storm(&server, &token, 300, |_| "notes".to_owned()), 4008, reason);
    assert_eq!(clients.len(), 10);
    server.wait_for_metric("wiresocket_ledger_connections", 10.0);
    let silent = leave_in_every_way(clients);
    server.wait_for_metric("wiresocket_ledger_connections", silent.len() as f64);
    let room = 10 - silent.len();
    let outcomes = storm(&server, &token, 40, |_| "notes".to_owned());
    assert_eq!(admitted(outcomes, 4008, reason).len(), room);
    // Another document has room of its own.
    assert_eq!(admitted(storm(&server, &token, 40, |_| "other".to_owned()), 4008, reason).len(), 10);
}

/// What a Hocuspocus socket is told about a document.
#[track_caller]
fn ask(socket: &mut Client, document: &str, token: &str) -> Message {
    let wire = Wire::Hocuspocus(document.to_owned());
    socket.send(&wire.frame(&wire::auth(token, None)));
    loop {
        if let Some(message @ (Message::Denied(_) | Message::Authenticated(_))) =
            wire.parse(&socket.receive_binary())
        {
            return message;
        }
    }
}

#[track_caller]
fn assert_alive(socket: &mut Client) {
    socket.ping(b"?");
    loop {
        match socket.receive() {
            Incoming::Pong => return,
            Incoming::Binary(_) | Incoming::Ping => {}
            other => panic!("the socket stays open: {other:?}"),
        }
    }
}

/// All sockets ask at once; the numbers of those that are let in, the others being told this.
fn hocuspocus_storm(
    server: &Server,
    token: &str,
    count: usize,
    document: impl Fn(usize) -> String,
    denial: &str,
) -> Vec<Client> {
    let mut sockets: Vec<Client> = (0..count).map(|_| Client::hocuspocus(server)).collect();
    for (n, socket) in sockets.iter_mut().enumerate() {
        let wire = Wire::Hocuspocus(document(n));
        socket.send(&wire.frame(&wire::auth(token, None)));
    }
    let mut inside = Vec::new();
    for (n, mut socket) in sockets.into_iter().enumerate() {
        let wire = Wire::Hocuspocus(document(n));
        match wire.parse(&socket.receive_binary()) {
            Some(Message::Authenticated(_)) => inside.push(socket),
            Some(Message::Denied(reason)) => {
                assert_eq!(reason, denial);
                assert_alive(&mut socket);
            }
            other => panic!("neither in nor denied: {other:?}"),
        }
    }
    inside
}

#[test]
fn hocuspocus_sockets_are_denied_in_band_and_stay_open() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).set("node.shards", 4).start();
    let token = |limit| tenant.token().limit(limit, 20).build();

    let connections = token("maxConnections");
    let name = |n: usize| format!("doc-{}", n % 13);
    let inside = hocuspocus_storm(&server, &connections, 200, name, "4004 Connection limit exceeded: 20");
    assert_eq!(inside.len(), 20);
    drop(inside);
    server.wait_for_metric("wiresocket_ledger_connections", 0.0);

    let documents = token("maxDocuments");
    let name = |n: usize| format!("doc-{n}");
    let denial = "4005 Document limit exceeded: 20 (active: 20)";
    let inside = hocuspocus_storm(&server, &documents, 100, name, denial);
    assert_eq!(inside.len(), 20);
    drop(inside);
    server.wait_for_metric("wiresocket_ledger_documents", 0.0);

    let users = token("maxUsersPerDoc");
    let name = |_| "notes".to_owned();
    let inside = hocuspocus_storm(&server, &users, 100, name, "4008 Document user limit exceeded: 20");
    assert_eq!(inside.len(), 20);
    drop(inside);
    server.wait_for_metric("wiresocket_ledger_connections", 0.0);
    assert_eq!(server.metrics().get("wiresocket_ledger_unmatched_releases_total"), 0.0);
}

#[test]
fn one_hocuspocus_socket_is_one_connection_however_many_documents() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).set("node.shards", 4).start();
    let token = tenant.token().limit("maxConnections", 1).limit("maxDocuments", 8).build();
    let mut socket = Client::hocuspocus(&server);
    for n in 0..8 {
        let granted = ask(&mut socket, &format!("doc-{n}"), &token);
        assert_eq!(granted, Message::Authenticated("read-write".to_owned()));
    }
    let denied = Message::Denied("4005 Document limit exceeded: 8 (active: 8)".to_owned());
    assert_eq!(ask(&mut socket, "doc-8", &token), denied);
    let mut second = Client::hocuspocus(&server);
    let no_room = Message::Denied("4004 Connection limit exceeded: 1".to_owned());
    assert_eq!(ask(&mut second, "doc-0", &token), no_room);
    // Leaving one document makes room for another, on the same socket.
    let wire = Wire::Hocuspocus("doc-3".to_owned());
    let mut close = vec![wire::CLOSE];
    wire::write_bytes(&mut close, b"");
    socket.send(&wire.frame(&close));
    server.wait_for_metric("wiresocket_ledger_documents", 7.0);
    assert_eq!(ask(&mut socket, "doc-8", &token), Message::Authenticated("read-write".to_owned()));
    drop(socket);
    server.wait_for_metric("wiresocket_ledger_documents", 0.0);
    assert_eq!(ask(&mut second, "doc-0", &token), Message::Authenticated("read-write".to_owned()));
}

#[test]
fn exactly_the_allowed_ops_are_relayed_and_then_the_offender_is_closed() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).set("node.shards", 4).start();
    let limited = tenant.token().limit("opsPerMinute", 50).build();
    let mut reader = Replica::join(&server, "notes", &limited);
    let mut writer = Replica::join(&server, "notes", &limited);
    let updates: Vec<Vec<u8>> = (0..60)
        .map(|n| {
            let update = writer.edit(|text, transaction| {
                let end = yrs::Text::len(text, transaction);
                yrs::Text::insert(text, transaction, end, &format!("{n},"));
            });
            wire::update(&update)
        })
        .collect();
    for update in &updates[..30] {
        writer.send(update);
        // The same again changes nothing and is no op.
        writer.send(update);
    }
    for update in &updates[30..] {
        // The server may have closed by now.
        let _ = writer.client.try_send(update);
    }
    assert_eq!(writer.wait_for_end(), (4006, "Rate limit exceeded: 50 ops/min".to_owned()));
    let expected: String = (0..50).map(|n| format!("{n},")).collect();
    reader.wait_for_text(&expected);
    reader.flush();
    assert_eq!(reader.updates_received, 50);
    assert_eq!(reader.text(), expected);

    // Hocuspocus is told in band and keeps its socket.
    let mut other_wire = Replica::join_hocuspocus(&server, "elsewhere", &limited);
    other_wire.append("x");
    other_wire.wait_for("the denial", |replica| replica.auth.len() == 2);
    assert_eq!(other_wire.auth[1], Message::Denied("4006 Rate limit exceeded: 50 ops/min".to_owned()));
    assert_alive(&mut other_wire.client);

    // Another app of the same tenant is not concerned.
    let free = tenant.with_app(2).token().limit("opsPerMinute", 50).build();
    let mut one = Replica::join(&server, "notes", &free);
    let mut two = Replica::join(&server, "notes", &free);
    one.append("hello");
    two.wait_for_text("hello");
}

#[test]
fn hocuspocus_gets_an_acknowledgement_for_each_allowed_op_and_then_the_denial() {
    let tenant = Tenant::new(1);
    // With a journal the denial may overtake acknowledgements that wait for the disk: who is let in again is told then.
    let server = NodeSetup::new(&tenant).set("node.shards", 4).set("journal.durability", "memory").start();
    let token = tenant.token().limit("opsPerMinute", 50).build();
    let mut reader = Replica::join(&server, "notes", &token);
    let mut writer = Replica::join_hocuspocus(&server, "notes", &token);
    // Its step 2 is acknowledged, too.
    writer.wait_for("that", |writer| writer.acknowledged == 1);
    for _ in 0..60 {
        writer.append("x");
    }
    writer.wait_for("the denial", |writer| writer.auth.len() == 2);
    assert_eq!(writer.auth[1], Message::Denied("4006 Rate limit exceeded: 50 ops/min".to_owned()));
    writer.flush();
    assert_eq!((writer.acknowledged, writer.refused), (1 + 50, 0));
    reader.wait_for_text(&"x".repeat(50));
    reader.flush();
    assert_eq!(reader.updates_received, 50);
}

#[test]
fn ops_are_counted_over_all_shards_and_documents() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).set("node.shards", 4).start();
    let token = tenant.token().limit("opsPerMinute", 100).build();
    let mut pairs: Vec<(Replica, Replica)> = (0..12)
        .map(|n| {
            let document = format!("doc-{n}");
            (Replica::join(&server, &document, &token), Replica::join(&server, &document, &token))
        })
        .collect();
    // Round about, until everybody was closed: the pong says that the op was read.
    let mut open = pairs.len();
    while open > 0 {
        open = 0;
        for (writer, _) in pairs.iter_mut().filter(|(writer, _)| writer.ended.is_none()) {
            let update = writer.edit(|text, transaction| yrs::Text::insert(text, transaction, 0, "x"));
            let _ = writer.client.try_send(&wire::update(&update));
            open += usize::from(writer.flush_or_end().is_none());
        }
    }
    let mut relayed = 0;
    for (writer, reader) in &mut pairs {
        assert_eq!(writer.wait_for_end(), (4006, "Rate limit exceeded: 100 ops/min".to_owned()));
        reader.flush();
        relayed += reader.updates_received;
    }
    assert!(relayed <= 100, "{relayed} were relayed");
    // What a shard leased and did not use is lost: at most a lot for each.
    assert!(relayed >= 90, "{relayed} were relayed");
}

#[test]
fn who_only_reads_may_come_in_when_the_ops_are_spent() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).start();
    let token = tenant.token().limit("opsPerMinute", 3).build();
    let mut writer = Replica::join(&server, "notes", &token);
    writer.append("hello");
    let removal = writer.edit(|text, transaction| yrs::Text::remove_range(text, transaction, 0, 2));
    writer.send(&wire::update(&removal));
    writer.append("!");
    writer.flush();
    for n in 0..3 {
        let mut reader = Replica::join(&server, "notes", &token);
        reader.wait_for_text("llo!");
        // A provider answers the server's step 1 with all it has, deletions included, and does so again after each
        // reconnect. None of it changes the document.
        reader.send(&wire::step_two(&reader.state()));
        reader.flush();
        assert_eq!(reader.ended, None, "reader {n}");
    }
    writer.append("?");
    assert_eq!(writer.wait_for_end(), (4006, "Rate limit exceeded: 3 ops/min".to_owned()));
}

#[test]
fn newer_limits_hold_from_the_next_handshake_and_drop_nobody() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).start();
    let wide = tenant.token().limit("maxConnections", 5).build();
    let narrow = tenant.token().limit("maxConnections", 2).build();
    let mut inside: Vec<Replica> = (0..5).map(|_| Replica::join(&server, "notes", &wide)).collect();
    let refused = server.upgrade("/notes").token(&narrow).closed();
    assert_eq!(refused, (4004, "Connection limit exceeded: 2".to_owned()));
    inside[0].append("x");
    inside.iter_mut().for_each(|replica| replica.wait_for_text("x"));
    inside.truncate(1);
    server.wait_for_metric("wiresocket_ledger_connections", 1.0);
    Replica::join(&server, "notes", &narrow).wait_for_text("x");
}
