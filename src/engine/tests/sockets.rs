//! Sockets between shards, sockets that take nothing, and floods through one socket.

use std::time::Duration;

use super::client::{self, Said, content};
use super::world::{World, app, token};
use crate::engine::behind::ANSWERS_BYTES_MAX;

/// A socket on shard 0 with a document on each of three shards, and a plain editor in each of these.
fn spread() -> (World, usize, Vec<usize>) {
    let mut world = World::new(3);
    let socket = world.hocuspocus(0, &token(app(1)));
    let names: Vec<String> = (0..3).map(|shard| world.name_on(app(1), shard, 0)).collect();
    for name in &names {
        world.attach(socket, name);
    }
    let editors = names.iter().map(|name| world.join(app(1), name)).collect();
    world.settle();
    (world, socket, editors)
}

fn write(world: &mut World, socket: usize, replica: usize, text: &str) {
    let update = world.sockets[socket].replicas[replica].insert(u32::MAX, text);
    world.sockets[socket].send_update(replica, &update);
}

#[test]
fn a_socket_moves_to_the_shard_of_its_first_document() {
    let mut world = World::new(3);
    let socket = world.hocuspocus(0, &token(app(1)));
    let name = world.name_on(app(1), 2, 0);
    world.attach(socket, &name);
    world.settle();
    assert_eq!(world.sockets[socket].place.map(|(shard, _)| shard), Some(2));
    assert!(world.replica(socket).open);
    assert_eq!(world.engines[0].gauges().connections, 0);
    let editor = world.join(app(1), &name);
    world.write(socket, "moved");
    world.settle();
    assert_eq!(world.replica(editor).text(), "moved");
}

#[test]
fn a_socket_that_moves_takes_along_what_it_said() {
    let mut world = World::new(3);
    let name = world.name_on(app(1), 2, 0);
    let socket = world.hocuspocus_with_grant(0, &token(app(1)));
    let doc = world.new_document();
    world.sockets[socket].replicas.push(client::Replica::new(&name, doc));
    let step_one = world.replica(socket).step_one();
    world.sockets[socket].send(0, &step_one);
    write(&mut world, socket, 0, "said early");
    world.settle();
    assert_eq!(world.sockets[socket].place.map(|(shard, _)| shard), Some(2));
    let editor = world.join(app(1), &name);
    world.settle();
    assert_eq!(world.replica(editor).text(), "said early");
    assert_eq!(world.replica(socket).unacknowledged, 0);
}

#[test]
fn a_socket_carries_documents_of_every_shard() {
    let (mut world, socket, editors) = spread();
    for (n, &editor) in editors.iter().enumerate() {
        write(&mut world, socket, n, "there");
        world.write(editor, " and back");
        world.settle();
        assert_eq!(world.sockets[socket].replicas[n].text().len(), 14);
        assert_eq!(world.replica(editor).text(), world.sockets[socket].replicas[n].text());
        assert_eq!(world.sockets[socket].replicas[n].unacknowledged, 0);
        assert_eq!(world.sockets[socket].replicas[n].here(), world.replica(editor).here());
    }
}

#[test]
fn a_document_that_ends_leaves_the_others_of_its_socket() {
    let (mut world, socket, editors) = spread();
    let id = world.sockets[socket].replicas[1].client();
    assert_eq!(world.replica(editors[1]).here(), [id]);
    world.detach(socket, 1);
    world.settle();
    assert_eq!(world.replica(editors[1]).here(), Vec::<u64>::new());
    write(&mut world, socket, 1, "still");
    world.settle();
    assert_eq!(world.replica(editors[2]).text(), "still");
}

#[test]
fn a_document_that_is_left_and_opened_again_while_it_waits_is_open() {
    let mut world = World::new(2).chaotic(30);
    for shard in [0, 1] {
        let anchor = world.name_on(app(1), 0, 0);
        let name = world.name_on(app(1), shard, 1);
        let socket = world.hocuspocus(0, &token(app(1)));
        world.attach(socket, &anchor);
        world.settle();
        world.attach(socket, &name);
        world.detach(socket, 1);
        world.attach(socket, &name);
        world.settle();
        assert!(world.sockets[socket].replicas[1].open, "the document is on shard {shard}");
        assert_eq!(world.sockets[socket].replicas[1].denied, None);
    }
}

#[test]
fn a_hostile_update_for_a_remote_document_closes_the_socket() {
    let (mut world, socket, editors) = spread();
    world.sockets[socket].send(2, &client::sync(2, &[0xff, 0xff, 0xff, 0x7a]));
    world.settle();
    assert_eq!(world.code(socket), Some(1007));
    for editor in editors {
        assert_eq!(world.replica(editor).here(), Vec::<u64>::new());
        world.hang_up(editor);
    }
    world.pass_s(100);
    world.assert_empty();
}

#[test]
fn a_reader_that_stalls_gets_the_difference_in_one_message() {
    let (mut world, socket, editors) = spread();
    world.outbox_bytes_max = 2000;
    world.sockets[socket].reads = false;
    for n in 0..200 {
        for &editor in &editors {
            world.write(editor, &format!("{n} "));
        }
        world.settle();
    }
    assert!(world.sockets[socket].stalled);
    let queued = world.sockets[socket].incoming.len();
    assert!(queued < 4000, "its queue has {queued} bytes");
    world.sockets[socket].reads = true;
    world.settle();
    for (n, &editor) in editors.iter().enumerate() {
        let replica = &world.sockets[socket].replicas[n];
        assert_eq!(content(&replica.doc), content(&world.replica(editor).doc));
        assert!(replica.relayed().len() < 60, "document {n}: {} updates one by one", replica.relayed().len());
    }
    assert_eq!(world.counters().resyncs, 3);
}

#[test]
fn a_reader_that_stalled_learns_who_left_meanwhile() {
    let (mut world, socket, editors) = spread();
    for &editor in &editors {
        world.show(editor, 0, "{}");
    }
    world.settle();
    world.outbox_bytes_max = 100;
    world.sockets[socket].reads = false;
    for &editor in &editors {
        world.write(editor, &"x".repeat(200));
    }
    world.settle();
    assert!(world.sockets[socket].stalled);
    for &editor in &editors {
        world.hang_up(editor);
    }
    world.settle();
    world.sockets[socket].reads = true;
    world.settle();
    for replica in &world.sockets[socket].replicas {
        assert_eq!(replica.here(), [replica.client()]);
    }
}

#[test]
fn a_document_that_opens_on_a_stalled_socket_does_not_fill_its_queue() {
    for shard in [0, 1] {
        let mut world = World::new(2).chaotic(50);
        let anchor = world.name_on(app(1), 0, 0);
        let name = world.name_on(app(1), shard, 1);
        let socket = world.hocuspocus(0, &token(app(1)));
        world.attach(socket, &anchor);
        let (filler, editor) = (world.join(app(1), &anchor), world.join(app(1), &name));
        world.settle();
        world.outbox_bytes_max = 1000;
        world.sockets[socket].reads = false;
        // Its Auth is in, the answer of the ledger is not, when the queue runs full.
        world.attach(socket, &name);
        while !world.sockets[socket].outgoing.is_empty() {
            world.step();
        }
        world.write(filler, &"x".repeat(2000));
        world.settle();
        assert!(world.sockets[socket].stalled);
        for _ in 0..50 {
            world.write(editor, &"y".repeat(500));
            world.settle();
        }
        let queued = world.sockets[socket].incoming.len();
        assert!(queued < 8000, "document on shard {shard}: {queued} bytes are queued");
        world.sockets[socket].reads = true;
        world.settle();
        let replica = &world.sockets[socket].replicas[1];
        assert_eq!(replica.text(), world.replica(editor).text());
    }
}

/// A reader that has stopped reading and whose queue is full, and whoever filled it.
fn stalled_and_writer(world: &mut World) -> (usize, usize) {
    world.outbox_bytes_max = 1000;
    let (reader, writer) = (world.join(app(1), "a"), world.join(app(1), "a"));
    world.settle();
    world.sockets[reader].reads = false;
    world.write(writer, &"x".repeat(2000));
    world.settle();
    (reader, writer)
}

#[test]
fn a_reader_that_takes_nothing_for_the_stall_timeout_is_closed_with_1013() {
    let mut world = World::new(1);
    let (reader, writer) = stalled_and_writer(&mut world);
    world.pass_s(29);
    assert_eq!(world.code(reader), None);
    world.pass_s(2);
    assert_eq!(world.code(reader), Some(1013));
    assert_eq!(world.code(writer), None);
}

#[test]
fn a_reader_that_takes_something_within_the_stall_timeout_stays() {
    let mut world = World::new(1);
    let (reader, _) = stalled_and_writer(&mut world);
    for _ in 0..4 {
        world.pass_s(20);
        world.take_some(reader);
    }
    assert_eq!(world.code(reader), None, "slow, but there");
    world.pass_s(31);
    assert_eq!(world.code(reader), Some(1013));
}

#[test]
fn a_stalled_reader_is_not_closed_for_its_silence() {
    let settings = crate::engine::Settings { stall_timeout: Duration::from_secs(300), ..Default::default() };
    let mut world = World::with_settings(1, settings, 1);
    let (reader, writer) = stalled_and_writer(&mut world);
    for _ in 0..10 {
        world.pass_s(20);
        world.show(writer, 0, "{}");
        world.settle();
    }
    assert_eq!(world.code(reader), None, "nobody reads what it may be saying");
    world.sockets[reader].reads = true;
    world.settle();
    assert_eq!(world.replica(reader).text(), world.replica(writer).text());
}

#[test]
fn stalls_leave_no_timers_behind() {
    let mut world = World::new(1);
    world.outbox_bytes_max = 100;
    let (reader, writer) = (world.join(app(1), "a"), world.join(app(1), "a"));
    world.settle();
    for round in 0..500 {
        world.sockets[reader].reads = false;
        world.write(writer, &"x".repeat(200));
        world.settle();
        world.sockets[reader].reads = true;
        world.pass(Duration::from_millis(500));
        if round % 20 == 0 {
            world.show(reader, 0, "{}");
        }
        world.settle();
    }
    assert_eq!((world.code(reader), world.code(writer)), (None, None));
    let timers = world.engines[0].timer_count();
    assert!(timers < 40, "{timers} timers for two connections");
}

/// A document of about 1 MB, and two sockets that ask for it: one here, one on another shard.
fn large() -> (World, Vec<(usize, usize)>) {
    let mut world = World::new(2);
    let (anchor, name) = (world.name_on(app(1), 0, 0), world.name_on(app(1), 1, 0));
    let writer = world.join(app(1), &name);
    world.settle();
    world.write(writer, &"0123456789abcdef".repeat(65_536));
    world.settle();
    let plain = world.join(app(1), &name);
    let keyed = world.hocuspocus(0, &token(app(1)));
    world.attach(keyed, &anchor);
    let at = world.attach(keyed, &name);
    world.settle();
    (world, vec![(plain, 0), (keyed, at)])
}

#[test]
fn a_flood_of_step_1_costs_no_more_than_a_bound() {
    let (mut world, askers) = large();
    for (socket, replica) in askers {
        let body = client::sync(0, &[0]);
        for _ in 0..300 {
            world.sockets[socket].send(replica, &body);
        }
        world.sockets[socket].reads = false;
        world.receive_at_once(socket);
        world.pass(Duration::from_millis(100));
        let queued = world.sockets[socket].incoming.len();
        assert!(queued < ANSWERS_BYTES_MAX + (3 << 20), "{queued} bytes are queued");
        world.sockets[socket].replicas[replica].said.clear();
        assert!(queued > 1 << 20, "it is answered");
        world.sockets[socket].reads = true;
        world.pass(Duration::from_millis(100));
        assert_eq!(world.sockets[socket].end, None);
        let answers = world.sockets[socket].replicas[replica].kinds();
        let answers = answers.iter().filter(|kind| **kind == "step 2").count();
        assert!((4..20).contains(&answers), "{answers} answers");
    }
}

#[test]
fn a_flood_of_queries_for_awareness_costs_no_more_than_a_bound() {
    let mut world = World::new(1);
    let (socket, other) = (world.join(app(1), "a"), world.join(app(1), "a"));
    world.settle();
    let state = format!("\"{}\"", "x".repeat(60_000));
    let entries: Vec<(u64, u32, &str)> = (0..10).map(|id| (1000 + id, 1, state.as_str())).collect();
    world.sockets[other].send(0, &client::awareness(&entries));
    world.settle();
    world.sockets[socket].reads = false;
    for _ in 0..1000 {
        world.sockets[socket].send(0, &client::QUERY_AWARENESS);
    }
    world.receive_at_once(socket);
    world.pass(Duration::from_millis(100));
    let queued = world.sockets[socket].incoming.len();
    assert!(queued < ANSWERS_BYTES_MAX + (3 << 20), "{queued} bytes are queued");
    assert!(queued > 1 << 20, "it is answered");
    world.sockets[socket].reads = true;
    world.pass(Duration::from_millis(100));
    assert_eq!(world.replica(socket).here().len(), 10);
}

#[test]
fn a_hocuspocus_answer_that_had_to_wait_keeps_the_order_of_a_greeting() {
    let mut world = World::new(1);
    let big = (0..8).map(|n| world.join(app(1), &format!("big{n}"))).collect::<Vec<_>>();
    world.settle();
    for &writer in &big {
        world.write(writer, &"0123456789abcdef".repeat(65_536));
        world.show(writer, 0, "{}");
    }
    world.settle();
    let socket = world.hocuspocus(0, &token(app(1)));
    for n in 0..8 {
        world.attach(socket, &format!("big{n}"));
    }
    world.pass(Duration::from_millis(100));
    for replica in &world.sockets[socket].replicas {
        let kinds = replica.kinds();
        assert_eq!(kinds[..4], ["authenticated", "awareness", "step 1", "step 2"]);
        assert_eq!(replica.count(&Said::StepOne), 1);
        assert_eq!(replica.text().len(), 1 << 20);
    }
}
