//! Tokens that allow less than everything: some documents only, or reading only.

use serde_json::json;

use super::client::Said;
use super::world::{World, app, token, token_with};
use crate::engine::Settings;
use crate::journal::Retention;

const READ_ONLY: &str = "WireSocket.API WireSocket.ReadOnly";

fn read_only_token(lives_s: u64) -> String {
    token_with(app(1), lives_s, &json!({ "scope": READ_ONLY }))
}

/// A y-websocket client that may only read, after its step 1.
fn join_read_only(world: &mut World, name: &str) -> usize {
    let doc = world.new_document();
    let reader = world.join_with(&read_only_token(900), name, doc);
    let step_one = world.replica(reader).step_one();
    world.sockets[reader].send(0, &step_one);
    world.settle();
    reader
}

#[test]
fn who_may_only_read_sees_all_and_changes_nothing() {
    let mut world = World::new(2);
    let writer = world.join(app(1), "notes");
    world.settle();
    let reader = join_read_only(&mut world, "notes");
    let socket = world.hocuspocus(0, &read_only_token(900));
    world.attach(socket, "notes");
    world.settle();
    assert!(world.replica(socket).read_only);

    world.write(writer, "seen");
    world.settle();
    for reader in [reader, socket] {
        assert_eq!(world.replica(reader).text(), "seen");
        let update = world.replica(reader).insert(0, "never ");
        world.sockets[reader].send_update(0, &update);
        let update = world.replica(reader).remove(0, 1);
        world.sockets[reader].send_update(0, &update);
    }
    world.settle();
    assert_eq!(world.replica(writer).text(), "seen");
    assert_eq!(world.counters().updates_refused, 4);
    let statuses = |status| world.replica(socket).count(&Said::Status(status));
    assert_eq!((statuses(true), statuses(false)), (1, 2), "its step 2 had nothing new");
    let denials = world.replica(reader).said.iter().filter(|said| matches!(said, Said::Denied(_)));
    assert_eq!(denials.count(), 1, "said once");
    assert_eq!((world.code(reader), world.code(socket)), (None, None), "both stay");
    let server = world.server_document(app(1), "notes").unwrap();
    assert_eq!(super::client::content(&server), super::client::content(&world.replica(writer).doc));
}

#[test]
fn refused_updates_cost_no_ops() {
    let mut world = World::new(1);
    let reader = join_read_only(&mut world, "notes");
    for _ in 0..50 {
        let update = world.replica(reader).insert(0, "x");
        world.sockets[reader].send_update(0, &update);
    }
    world.settle();
    assert_eq!(world.code(reader), None);
    assert_eq!(world.counters().updates_refused, 50);
    assert_eq!(world.replica(reader).count(&Said::StepOne), 1, "nothing is parked and asked for");
}

#[test]
fn a_reader_is_seen_unless_the_setting_says_no() {
    for seen in [true, false] {
        let settings = Settings { read_only_awareness: seen, ..Settings::default() };
        let mut world = World::with_settings(1, settings, 1);
        let writer = world.join(app(1), "notes");
        let reader = join_read_only(&mut world, "notes");
        world.show(reader, 0, r#"{"name":"reader"}"#);
        world.settle();
        let client = world.replica(reader).client();
        assert_eq!(world.replica(writer).here().contains(&client), seen);
        assert_eq!(world.code(reader), None);
    }
}

#[test]
fn a_newer_token_takes_and_gives_the_right_to_write() {
    // On its own shard, and on another one than its socket.
    for attached in 0..2 {
        let mut world = World::new(2);
        let socket = world.hocuspocus(0, &token(app(1)));
        let first = world.name_on(app(1), 0, 0);
        let names = [first, world.name_on(app(1), 1, 0)];
        for name in &names {
            world.attach(socket, name);
            world.settle();
        }
        let renew = |world: &mut World, token: &str| {
            world.sockets[socket].send(attached, &super::client::auth(token));
            world.settle();
        };
        renew(&mut world, &read_only_token(100_000));
        let replica = &world.sockets[socket].replicas[attached];
        assert!(replica.read_only, "it is told");
        let update = replica.insert(0, "kept");
        world.sockets[socket].send_update(attached, &update);
        world.settle();
        assert_eq!(world.sockets[socket].replicas[attached].count(&Said::Status(false)), 1);

        renew(&mut world, &token_with(app(1), 200_000, &json!({})));
        assert!(!world.sockets[socket].replicas[attached].read_only);
        let server = world.server_document(app(1), &names[attached]).unwrap();
        let replica = &world.sockets[socket].replicas[attached];
        assert_eq!(super::client::content(&server), super::client::content(&replica.doc), "nothing was lost");
    }
}

#[test]
fn what_a_reader_sends_and_leaves_behind_is_not_applied() {
    // While the document is being loaded it is held, and applied when its sender has gone: if he might write.
    for (token, text) in [(read_only_token(900), ""), (token(app(1)), "left behind")] {
        for hocuspocus in [false, true] {
            let settings = Settings { retention: Some(Retention::ForEver), ..Settings::default() };
            let mut world = World::with_settings(1, settings, 1);
            let socket = if hocuspocus {
                let socket = world.hocuspocus(0, &token);
                world.attach(socket, "notes");
                socket
            } else {
                let doc = world.new_document();
                world.join_with(&token, "notes", doc)
            };
            let update = world.replica(socket).insert(0, "left behind");
            world.sockets[socket].send_update(0, &update);
            while world.engines[0].gauges().documents == 0 {
                assert!(world.step(), "it is never opened");
            }
            world.receive_at_once(socket);
            assert!(world.engines[0].held_bytes() >= update.len(), "it is held");
            world.hang_up(socket);
            world.settle();
            let later = world.join(app(1), "notes");
            world.settle();
            assert_eq!(world.replica(later).text(), text);
        }
    }
}

#[test]
fn a_token_may_open_the_documents_that_it_names() {
    let mut world = World::new(2);
    let token = token_with(app(1), 900, &json!({ "documents": ["notes", "minutes-*"] }));
    for (name, code) in [("notes", None), ("minutes-7", None), ("minutes", Some(4003)), ("other", Some(4003))]
    {
        let doc = world.new_document();
        let socket = world.join_with(&token, name, doc);
        world.settle();
        assert_eq!(world.code(socket), code, "{name}");
    }
    let socket = world.hocuspocus(0, &token);
    for name in ["notes", "other", "minutes-8"] {
        world.attach(socket, name);
    }
    world.settle();
    let denied: Vec<_> =
        world.sockets[socket].replicas.iter().map(|replica| replica.denied.clone()).collect();
    let reason = "4003 The token does not allow this document".to_owned();
    assert_eq!(denied, [None, Some(reason), None]);
    assert_eq!(world.ledger.usage(app(1)).documents, 3, "what was refused takes no place");
}

#[test]
fn y_websocket_may_be_handed_a_newer_token_too() {
    let mut world = World::new(1);
    let socket = world.join(app(1), "notes");
    world.settle();
    for (documents, code) in [(["notes"], None), (["minutes"], Some(4003))] {
        let lives_s = if code.is_none() { 100_000 } else { 200_000 };
        let newer = token_with(app(1), lives_s, &json!({ "scope": READ_ONLY, "documents": documents }));
        world.sockets[socket].send(0, &super::client::auth(&newer));
        let update = world.replica(socket).insert(0, "x");
        world.sockets[socket].send_update(0, &update);
        world.settle();
        assert_eq!(world.code(socket), code);
    }
    assert_eq!(world.counters().updates_refused, 1);
}

#[test]
fn a_newer_token_without_the_document_ends_it() {
    let mut world = World::new(1);
    let socket = world.hocuspocus(0, &token(app(1)));
    for name in ["notes", "minutes"] {
        world.attach(socket, name);
    }
    world.settle();
    let narrower = token_with(app(1), 100_000, &json!({ "documents": ["minutes"] }));
    for replica in 0..2 {
        world.sockets[socket].send(replica, &super::client::auth(&narrower));
    }
    world.settle();
    let [notes, minutes] = &world.sockets[socket].replicas[..] else { panic!() };
    assert!(notes.denied.as_ref().is_some_and(|why| why.starts_with("4003")), "{:?}", notes.denied);
    assert!(minutes.open);
}
