//! What goes round in a document: updates to everybody else, in order, once; and what is not relayed.

use super::client::{self, Said, content};
use super::world::{World, app, token};
use crate::engine::document::BOMB;
use crate::engine::event::{Event, Incoming};

#[test]
fn both_wires_share_a_document() {
    let mut world = World::new(1);
    let plain = world.join(app(1), "notes");
    let keyed = world.hocuspocus(0, &token(app(1)));
    world.attach(keyed, "notes");
    let own_key = world.hocuspocus(0, &token(app(1)));
    world.attach(own_key, "notes\0session-7");
    world.settle();
    for (n, socket) in [plain, keyed, own_key].into_iter().enumerate() {
        world.write(socket, &n.to_string());
        world.settle();
    }
    for socket in [plain, keyed, own_key] {
        assert_eq!(world.replica(socket).text(), "012");
        assert_eq!(world.replica(socket).relayed().len(), 2, "everybody's but its own");
    }
}

#[test]
fn a_turn_carries_many_updates_in_the_order_they_came() {
    let mut world = World::new(1);
    let (writer, reader) = (world.join(app(1), "notes"), world.join(app(1), "notes"));
    world.settle();
    let updates: Vec<_> = (0..20).map(|n| world.replica(writer).insert(n, "x")).collect();
    for update in &updates {
        world.sockets[writer].send_update(0, update);
    }
    world.settle();
    assert_eq!(world.replica(reader).relayed(), updates);
    assert_eq!(world.replica(writer).relayed(), Vec::<&[u8]>::new());
}

#[test]
fn documents_of_one_name_in_two_apps_never_meet() {
    let mut world = World::new(2);
    let (mine, yours) = (world.join(app(1), "notes"), world.join(app(2), "notes"));
    world.settle();
    world.write(mine, "mine");
    world.show(mine, 0, "{}");
    world.settle();
    assert_eq!(world.replica(yours).text(), "");
    assert_eq!(world.replica(yours).here(), Vec::<u64>::new());
}

#[test]
fn what_the_document_has_already_is_not_relayed() {
    let mut world = World::new(1);
    let (writer, reader) = (world.join(app(1), "notes"), world.join(app(1), "notes"));
    world.settle();
    let update = world.replica(writer).insert(0, "once");
    for _ in 0..3 {
        world.sockets[writer].send_update(0, &update);
        world.settle();
    }
    let removal = world.replica(writer).remove(1, 2);
    for _ in 0..3 {
        world.sockets[writer].send_update(0, &removal);
        world.settle();
    }
    assert_eq!(world.replica(reader).relayed(), [&update[..], &removal[..]]);
}

#[test]
fn an_update_without_its_past_waits_for_it_and_is_acknowledged_then() {
    let mut world = World::new(1);
    let writer = world.hocuspocus(0, &token(app(1)));
    world.attach(writer, "notes");
    let reader = world.join(app(1), "notes");
    world.settle();
    let stored = world.replica(writer).count(&Said::Status(true));
    world.replica_mut(writer).silent = true;
    let first = world.replica(writer).insert(0, "a");
    let second = world.replica(writer).insert(1, "b");
    let asked = world.replica(writer).count(&Said::StepOne);
    world.sockets[writer].send_update(0, &second);
    world.settle();
    assert_eq!(world.replica(reader).text(), "", "nothing is relayed that was not applied");
    assert_eq!(world.replica(writer).count(&Said::Status(true)), stored);
    assert_eq!(world.replica(writer).count(&Said::StepOne), asked + 1, "its sender is asked for the rest");
    assert_eq!(world.counters().updates_parked, 1);
    world.sockets[writer].send_update(0, &first);
    world.settle();
    assert_eq!(world.replica(reader).text(), "ab");
    assert_eq!(world.replica(writer).count(&Said::Status(true)), stored + 2);
}

#[test]
fn a_provider_that_is_asked_for_the_past_sends_it() {
    let mut world = World::new(1);
    let (writer, reader) = (world.join(app(1), "notes"), world.join(app(1), "notes"));
    world.settle();
    let _lost = world.replica(writer).insert(0, "a");
    world.write(writer, "b");
    world.settle();
    assert_eq!(world.replica(reader).text(), "ab");
}

#[test]
fn more_parked_bytes_than_allowed_close_their_sender_with_1009() {
    let settings = crate::engine::Settings { parked_bytes_max: 200, ..Default::default() };
    let mut world = World::with_settings(1, settings, 1);
    let writer = world.join(app(1), "notes");
    world.settle();
    world.replica_mut(writer).silent = true;
    let _lost = world.replica(writer).insert(0, "a");
    world.write(writer, &"b".repeat(90));
    world.settle();
    assert_eq!(world.code(writer), None);
    world.write(writer, &"c".repeat(190));
    world.settle();
    assert_eq!(world.code(writer), Some(1009));
}

#[test]
fn a_document_over_its_size_closes_the_sender_with_1009_and_stays() {
    let settings = crate::engine::Settings { document_bytes_max: 500, ..Default::default() };
    let mut world = World::with_settings(1, settings, 1);
    let (writer, reader) = (world.join(app(1), "notes"), world.join(app(1), "notes"));
    world.settle();
    world.write(writer, &"a".repeat(300));
    world.settle();
    world.write(writer, &"b".repeat(300));
    world.settle();
    assert_eq!(world.code(writer), Some(1009));
    assert_eq!(world.replica(reader).text(), "a".repeat(300));
    world.write(reader, "c");
    world.settle();
    assert_eq!(
        content(&world.server_document(app(1), "notes").unwrap()),
        content(&world.replica(reader).doc)
    );
}

#[test]
fn an_update_on_which_the_crdt_panics_ends_its_sender_and_nobody_else() {
    let mut world = World::new(1);
    let sender = world.hocuspocus(0, &token(app(1)));
    world.attach(sender, "notes");
    let (other, neighbour) = (world.join(app(1), "notes"), world.join(app(1), "elsewhere"));
    world.settle();
    world.write(other, "kept");
    world.write(neighbour, "apart");
    world.settle();
    let stored = world.replica(sender).count(&Said::Status(true));
    world.write(sender, BOMB);
    world.settle();
    assert_eq!(world.code(sender), Some(1007));
    assert_eq!(world.replica(sender).count(&Said::Status(true)), stored, "not acknowledged");
    assert_eq!(world.counters().crdt_panics, 1);
    assert_eq!(world.replica(other).text(), "kept", "not relayed");
    let newcomer = world.join(app(1), "notes");
    world.settle();
    assert_eq!(world.replica(newcomer).text(), "kept", "the content was made again");
    world.write(newcomer, "!");
    world.settle();
    assert_eq!(world.replica(other).text(), "kept!");
    assert_eq!(world.code(neighbour), None);
    assert_eq!(world.replica(neighbour).text(), "apart");
}

#[test]
fn malformed_messages_close_with_their_code_and_nobody_else_notices() {
    let deep: Vec<u8> = [vec![1, 1, 9, 0, 8, 1, 1, b'a'], vec![1], [117, 1].repeat(5_000), vec![0]].concat();
    let cases: [(&str, Vec<u8>, u16); 10] = [
        ("nothing", vec![], 1002),
        ("an unknown sync step", vec![0, 3, 0], 1002),
        ("a length past the end", vec![0, 2, 200, 1], 1002),
        ("an unknown auth message", vec![2, 7], 1002),
        ("broadcast-stateless", vec![6, 1, b'x'], 1002),
        ("a count bomb", client::sync(2, &[0xff, 0xff, 0xff, 0x7a]), 1007),
        ("bytes after an update", client::sync(2, &[0, 0, 0]), 1007),
        ("nested values", client::sync(2, &deep), 1007),
        ("awareness that is no JSON", client::awareness(&[(1, 1, "{")]), 1007),
        ("awareness cut short", vec![1, 2, 1, 5], 1007),
    ];
    for (what, message, code) in cases {
        let mut world = World::new(1);
        let (hostile, other) = (world.join(app(1), "notes"), world.join(app(1), "notes"));
        world.settle();
        world.write(other, "fine");
        world.sockets[hostile].send(0, &message);
        world.settle();
        assert_eq!(world.code(hostile), Some(code), "{what}");
        assert_eq!(world.code(other), None, "{what}");
        let third = world.join(app(1), "notes");
        world.settle();
        assert_eq!(world.replica(third).text(), "fine", "{what}");
    }
}

#[test]
fn text_messages_close_with_1003_and_pings_are_answered() {
    let mut world = World::new(1);
    let socket = world.join(app(1), "notes");
    world.settle();
    world.receive(socket, crate::engine::event::Incoming::Ping(b"hello"));
    world.settle();
    assert_eq!(world.sockets[socket].pongs, 1);
    world.receive(socket, crate::engine::event::Incoming::Text);
    world.settle();
    assert_eq!(world.code(socket), Some(1003));
}

#[test]
fn messages_of_unknown_types_are_ignored() {
    let mut world = World::new(1);
    let socket = world.join(app(1), "notes");
    world.settle();
    let said = world.replica(socket).said.len();
    world.sockets[socket].send(0, &[100, 1, 2, 3]);
    world.sockets[socket].send(0, &[5, 1, b'x']);
    world.settle();
    assert_eq!((world.code(socket), world.replica(socket).said.len()), (None, said));
}

/// Hands the engine what a client has sent, without ending the turn.
fn take_in(world: &mut World, socket: usize) {
    let (_, connection) = world.sockets[socket].place.unwrap();
    while let Some(message) = world.sockets[socket].outgoing.pop_front() {
        let message = Incoming::Binary(&message);
        world.engines[0].handle_event(world.now, Event::Received { connection, message });
    }
}

#[test]
fn who_asks_in_the_midst_of_a_turn_gets_nothing_of_it_twice() {
    let mut world = World::new(1);
    let writer = world.join(app(1), "notes");
    let doc = world.new_document();
    let reader = world.join_with(&token(app(1)), "notes", doc);
    world.settle();
    world.write(writer, "before ");
    take_in(&mut world, writer);
    let step_one = world.sockets[reader].replicas[0].step_one();
    world.sockets[reader].send(0, &step_one);
    take_in(&mut world, reader);
    world.write(writer, "after");
    world.receive_at_once(writer);
    world.settle();
    assert_eq!(world.replica(reader).text(), "before after");
    assert_eq!(world.replica(reader).relayed().len(), 1);
}

#[test]
fn who_catches_up_in_the_midst_of_a_turn_gets_nothing_of_it_twice() {
    let mut world = World::new(1);
    world.outbox_bytes_max = 100;
    let (reader, writer) = (world.join(app(1), "notes"), world.join(app(1), "notes"));
    world.settle();
    world.sockets[reader].reads = false;
    world.write(writer, &"x".repeat(500));
    world.settle();
    let relayed = world.replica(reader).relayed().len();
    world.write(writer, "before ");
    take_in(&mut world, writer);
    let (_, connection) = world.sockets[reader].place.unwrap();
    world.sockets[reader].reads = true;
    world.sockets[reader].read();
    assert!(std::mem::take(&mut world.sockets[reader].stalled));
    world.engines[0].handle_event(world.now, Event::Resumed { connection });
    world.write(writer, "after");
    world.receive_at_once(writer);
    world.settle();
    assert_eq!(world.replica(reader).text(), world.replica(writer).text());
    // What filled its queue, and what came after the difference.
    assert_eq!(world.replica(reader).relayed().len(), relayed + 2);
}
