//! Awareness in a room: who sees whom, and for how long.

use std::time::Duration;

use super::client::{self, Said};
use super::world::{World, app, token};

fn echo(client: u64, clock: u32, json: &str) -> Said {
    Said::Awareness(vec![(client, clock, json.to_owned())])
}

#[test]
fn awareness_goes_to_everybody_its_sender_too() {
    let mut world = World::new(1);
    let (mine, yours) = (world.join(app(1), "notes"), world.join(app(1), "notes"));
    world.settle();
    world.show(mine, 0, "{\"name\":\"me\"}");
    world.settle();
    let expected = echo(world.replica(mine).client(), 1, "{\"name\":\"me\"}");
    assert_eq!(world.replica(mine).count(&expected), 1);
    assert_eq!(world.replica(yours).count(&expected), 1);
}

#[test]
fn what_others_echo_comes_back_to_nobody() {
    let mut world = World::new(1);
    let sockets: Vec<usize> = (0..4).map(|_| world.join(app(1), "notes")).collect();
    world.settle();
    for &socket in &sockets {
        world.show(socket, 0, "{}");
    }
    world.settle();
    for &socket in &sockets {
        let heard = world.replica(socket).kinds().iter().filter(|kind| **kind == "awareness").count();
        assert_eq!(heard, 4, "one for each of them");
    }
}

#[test]
fn who_leaves_takes_exactly_its_own_ids_along() {
    let mut world = World::new(1);
    let (leaves, stays) = (world.join(app(1), "notes"), world.join(app(1), "notes"));
    world.settle();
    let (left, stayed) = (world.replica(leaves).client(), world.replica(stays).client());
    world.sockets[leaves].send(0, &client::awareness(&[(left, 1, "{}"), (777, 1, "{}")]));
    world.show(stays, 0, "{}");
    world.settle();
    assert_eq!(world.replica(stays).here().len(), 3);
    world.hang_up(leaves);
    world.settle();
    assert_eq!(world.replica(stays).here(), [stayed]);
}

#[test]
fn who_returns_with_the_old_clock_is_seen_at_once() {
    let mut world = World::new(1);
    let (first, other) = (world.join(app(1), "notes"), world.join(app(1), "notes"));
    world.show(first, 0, "{}");
    world.settle();
    world.hang_up(first);
    world.settle();
    assert!(world.replica(other).here().is_empty());
    let doc = world.replica(first).doc.clone();
    let again = world.join_with(&token(app(1)), "notes", doc);
    let id = world.replica(again).client();
    world.sockets[again].send(0, &client::awareness(&[(id, 1, "{}")]));
    world.settle();
    assert_eq!(world.replica(other).here(), [id]);
}

#[test]
fn who_is_silent_for_the_timeout_is_gone_and_who_renews_stays() {
    let mut world = World::new(1);
    let (silent, renews) = (world.join(app(1), "notes"), world.join(app(1), "notes"));
    world.show(silent, 0, "{}");
    world.show(renews, 0, "{}");
    world.settle();
    for _ in 0..3 {
        world.pass_s(15);
        world.show(renews, 0, "{}");
        world.settle();
    }
    assert_eq!(world.replica(renews).here(), [world.replica(renews).client()]);
    let before = world.replica(renews).here().len();
    world.show(silent, 0, "{}");
    world.settle();
    assert_eq!(world.replica(renews).here().len(), before + 1, "it may come back");
}

#[test]
fn a_client_that_shows_as_many_ids_as_allowed_may_come_back_after_its_timeout() {
    let settings = crate::engine::Settings { awareness_clients_max: 1, ..Default::default() };
    let mut world = World::with_settings(1, settings, 1);
    let socket = world.join(app(1), "notes");
    world.show(socket, 0, "{}");
    world.settle();
    world.pass_s(40);
    world.show(socket, 0, "{}");
    world.settle();
    assert_eq!(world.code(socket), None);
}

#[test]
fn awareness_that_asks_for_too_much_closes_with_1009() {
    let settings =
        crate::engine::Settings { awareness_bytes_max: 100, awareness_clients_max: 2, ..Default::default() };
    let big = format!("\"{}\"", "x".repeat(100));
    for entries in [vec![(1, 1, big.as_str())], vec![(1, 1, "1"), (2, 1, "1"), (3, 1, "1")]] {
        let mut world = World::with_settings(1, settings.clone(), 1);
        let (socket, other) = (world.join(app(1), "notes"), world.join(app(1), "notes"));
        world.settle();
        world.sockets[socket].send(0, &client::awareness(&entries));
        world.settle();
        assert_eq!(world.code(socket), Some(1009));
        assert_eq!(world.replica(other).here(), Vec::<u64>::new());
    }
}

#[test]
fn ids_that_nobody_introduced_are_not_remembered_as_left() {
    let mut world = World::new(1);
    let socket = world.join(app(1), "notes");
    world.settle();
    let entries: Vec<(u64, u32, &str)> = (0..50_000).map(|id| (id, 1, "null")).collect();
    world.sockets[socket].send(0, &client::awareness(&entries));
    world.settle();
    assert_eq!(world.code(socket), None);
    assert_eq!(world.engines[0].awareness_entries(), 0);
}

#[test]
fn ids_that_come_and_go_are_remembered_within_a_bound() {
    let mut world = World::new(1);
    let socket = world.join(app(1), "notes");
    world.settle();
    for round in 0..100 {
        let ids = round * 500..(round + 1) * 500;
        let entries: Vec<(u64, u32, &str)> = ids.flat_map(|id| [(id, 1, "{}"), (id, 2, "null")]).collect();
        world.sockets[socket].send(0, &client::awareness(&entries));
        world.settle();
    }
    assert_eq!(world.code(socket), None);
    assert!(world.engines[0].awareness_entries() <= crate::engine::awareness::REMEMBERED_MAX + 1);
}

#[test]
fn query_awareness_is_answered_with_everybody() {
    let mut world = World::new(1);
    let (mine, yours) = (world.join(app(1), "notes"), world.join(app(1), "notes"));
    world.show(yours, 0, "{}");
    world.settle();
    let said = world.replica(mine).said.len();
    world.sockets[mine].send(0, &client::QUERY_AWARENESS);
    world.settle();
    let answer = echo(world.replica(yours).client(), 1, "{}");
    assert_eq!(world.replica(mine).said[said..], [answer]);
}

#[test]
fn a_silent_connection_is_kept_alive_with_data() {
    let mut world = World::new(1);
    let plain = world.join(app(1), "notes");
    let keyed = world.hocuspocus(0, &token(app(1)));
    world.attach(keyed, "other");
    world.settle();
    for socket in [plain, keyed] {
        world.replica_mut(socket).said.clear();
    }
    world.pass(Duration::from_secs(21));
    world.settle();
    for socket in [plain, keyed] {
        let kept = world.replica(socket).count(&Said::Awareness(Vec::new()));
        assert_eq!(kept, 1, "an empty awareness within what a provider waits");
    }
}

#[test]
fn who_joins_in_the_turn_in_which_the_last_one_left_does_not_see_it() {
    let mut world = World::new(1);
    let first = world.join(app(1), "notes");
    world.settle();
    let (_, connection) = world.sockets[first].place.unwrap();
    let shown = client::awareness(&[(world.replica(first).client(), 1, "{}")]);
    let shown = crate::engine::event::Incoming::Binary(&shown);
    // All in one turn: it shows itself, hangs up, and another one opens.
    let engine = &mut world.engines[0];
    engine.handle_event(world.now, crate::engine::event::Event::Received { connection, message: shown });
    engine.handle_event(world.now, crate::engine::event::Event::Closed { connection });
    let second = world.join(app(1), "notes");
    world.deliver_in_one_turn();
    world.settle();
    assert_eq!(world.replica(second).here(), Vec::<u64>::new());
}
