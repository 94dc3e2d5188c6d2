//! Limits: places in the ledger, users per document, ops.

use std::time::Duration;

use super::client::{self, Said};
use super::world::{WIDE, World, app, token, token_of};
use crate::auth::Limits;
use crate::engine::Settings;

fn limited(limits: Limits) -> String {
    token_of("k1", app(1), limits, 86_400)
}

fn join(world: &mut World, token: &str, name: &str) -> usize {
    let doc = world.new_document();
    let socket = world.join_with(token, name, doc);
    let step_one = world.replica(socket).step_one();
    world.sockets[socket].send(0, &step_one);
    world.settle();
    socket
}

#[test]
fn connections_over_the_limit_are_refused_and_fit_after_others_left() {
    let mut world = World::new(2);
    let token = limited(Limits { connections_max: 2, ..WIDE });
    let first = join(&mut world, &token, "a");
    join(&mut world, &token, "b");
    let third = join(&mut world, &token, "c");
    assert_eq!(world.code(third), Some(4004));
    world.hang_up(first);
    world.settle();
    let fourth = join(&mut world, &token, "c");
    assert_eq!(world.code(fourth), None);
}

#[test]
fn documents_over_the_limit_are_refused() {
    let mut world = World::new(2);
    let token = limited(Limits { documents_max: 1, ..WIDE });
    join(&mut world, &token, "a");
    let same = join(&mut world, &token, "a");
    let other = join(&mut world, &token, "b");
    assert_eq!((world.code(same), world.code(other)), (None, Some(4005)));
}

#[test]
fn a_socket_takes_one_connection_however_many_documents_it_carries() {
    let mut world = World::new(3);
    let token = limited(Limits { connections_max: 1, ..WIDE });
    let socket = world.hocuspocus(0, &token);
    for n in 0..6 {
        world.attach(socket, &format!("doc{n}"));
    }
    world.settle();
    assert!(world.sockets[socket].replicas.iter().all(|replica| replica.open));
    let usage = world.ledger.usage(app(1));
    assert_eq!((usage.connections, usage.documents), (1, 6));
    world.hang_up(socket);
    world.pass_s(100);
    world.assert_empty();
}

#[test]
fn channels_that_wait_for_a_refused_connection_claim_are_answered_too() {
    let mut world = World::new(1);
    let token = limited(Limits { connections_max: 1, ..WIDE });
    join(&mut world, &token, "a");
    let socket = world.hocuspocus(0, &token);
    for n in 0..3 {
        world.attach(socket, &format!("doc{n}"));
    }
    world.settle();
    for replica in &world.sockets[socket].replicas {
        assert_eq!(replica.said, [Said::Denied("4004 Connection limit exceeded: 1".to_owned())]);
    }
    assert_eq!(world.sockets[socket].end, None);
}

#[test]
fn users_over_the_limit_of_a_document_are_refused_and_hold_nothing() {
    for shards in [1, 2] {
        let mut world = World::new(shards);
        let token = limited(Limits { users_per_document_max: 1, ..WIDE });
        let name = world.name_on(app(1), shards - 1, 0);
        let here = world.name_on(app(1), 0, 1);
        join(&mut world, &token, &name);
        let plain = join(&mut world, &token, &name);
        assert_eq!(world.code(plain), Some(4008));
        let keyed = world.hocuspocus(0, &token);
        world.attach(keyed, &here);
        world.settle();
        let denied = world.attach(keyed, &name);
        world.settle();
        let reason = world.sockets[keyed].replicas[denied].denied.clone();
        assert_eq!(reason.as_deref(), Some("4008 Document user limit exceeded: 1"));
        let usage = world.ledger.usage(app(1));
        assert_eq!((usage.connections, usage.documents), (2, 2));
    }
}

#[test]
fn newer_limits_count_for_who_comes_and_drop_nobody_who_is_in() {
    for shards in [1, 2] {
        let mut world = World::new(shards);
        let token = limited(Limits { users_per_document_max: 3, ..WIDE });
        let name = world.name_on(app(1), shards - 1, 0);
        let inside: Vec<_> = (0..3).map(|_| join(&mut world, &token, &name)).collect();
        let push = |world: &mut World, users_per_document_max| {
            let limits = Limits { users_per_document_max, ..WIDE };
            world.pushed.set(app(1), limits, u64::MAX, Duration::from_secs(3600));
        };
        push(&mut world, 1);
        let late = join(&mut world, &token, &name);
        assert_eq!(world.code(late), Some(4008));
        world.write(inside[0], "still here");
        world.settle();
        assert!(inside.iter().all(|socket| world.code(*socket).is_none()), "nobody who is in is dropped");
        push(&mut world, 5);
        let more: Vec<_> = (0..2).map(|_| join(&mut world, &token, &name)).collect();
        assert!(more.iter().all(|socket| world.code(*socket).is_none()), "more than the token's three");
        let over = join(&mut world, &token, &name);
        assert_eq!(world.code(over), Some(4008));
        // A document of a Hocuspocus socket on another shard goes by them too.
        let keyed = world.hocuspocus(0, &token);
        let here = world.name_on(app(1), 0, 1);
        world.attach(keyed, &here);
        world.settle();
        let denied = world.attach(keyed, &name);
        world.settle();
        let reason = world.sockets[keyed].replicas[denied].denied.clone();
        assert_eq!(reason.as_deref(), Some("4008 Document user limit exceeded: 5"));
    }
}

#[test]
fn exactly_the_ops_of_the_limit_pass_in_a_minute() {
    let mut world = World::new(1);
    let token = limited(Limits { ops_per_minute: 10, ..WIDE });
    let socket = join(&mut world, &token, "a");
    for _ in 0..10 {
        world.write(socket, "x");
        world.settle();
    }
    assert_eq!(world.code(socket), None);
    world.write(socket, "x");
    world.settle();
    assert_eq!(world.code(socket), Some(4006));
    let server = world.server_document(app(1), "a").unwrap();
    assert_eq!(client::content(&server).chars().filter(|c| *c == 'x').count(), 10);
    world.pass_s(60);
    let again = join(&mut world, &token, "a");
    world.write(again, "x");
    world.settle();
    assert_eq!(world.code(again), None, "a new minute");
}

#[test]
fn a_burst_waits_for_its_lease_and_arrives_whole_and_in_order() {
    let mut world = World::new(2).chaotic(20);
    let token = limited(Limits { ops_per_minute: 60, ..WIDE });
    let writer = join(&mut world, &token, "a");
    let reader = join(&mut world, &token, "a");
    for n in 0..30 {
        world.write(writer, &char::from(b'a' + n % 26).to_string());
    }
    world.settle();
    assert_eq!(world.replica(reader).text(), world.replica(writer).text());
    assert_eq!(world.replica(reader).relayed().len(), 30);
}

#[test]
fn what_changes_nothing_costs_no_op() {
    let mut world = World::new(1);
    let token = limited(Limits { ops_per_minute: 3, ..WIDE });
    let writer = join(&mut world, &token, "a");
    let insert = world.replica(writer).insert(0, "xyz");
    let remove = world.replica(writer).remove(0, 1);
    for update in [&insert, &remove] {
        for _ in 0..10 {
            world.sockets[writer].send_update(0, update);
        }
    }
    world.write(writer, "!");
    world.settle();
    assert_eq!(world.code(writer), None, "three ops");
    // The minute's ops are spent; whoever only reads answers step 1 with deletions that are known.
    let reader = join(&mut world, &token, "a");
    let replay = join(&mut world, &token, "a");
    world.sockets[replay].send_update(0, &remove);
    world.settle();
    assert_eq!((world.code(reader), world.code(replay)), (None, None));
    assert_eq!(world.replica(reader).text(), "yz!");
    let again = world.replica(reader).step_one();
    world.sockets[writer].send(0, &again);
    let whole = yrs::ReadTxn::encode_state_as_update_v1(
        &yrs::Transact::transact(&world.replica(reader).doc),
        &yrs::StateVector::default(),
    );
    world.sockets[reader].send_update(0, &whole);
    world.settle();
    assert_eq!(world.code(reader), None);
    world.write(reader, "?");
    world.settle();
    assert_eq!(world.code(reader), Some(4006));
}

#[test]
fn a_parked_update_that_waits_for_ops_is_applied_when_they_come() {
    let mut world = World::new(1);
    let token = limited(Limits { ops_per_minute: 40, ..WIDE });
    let writer = join(&mut world, &token, "a");
    let reader = join(&mut world, &token, "a");
    world.replica_mut(writer).silent = true;
    let updates: Vec<Vec<u8>> = (0..12).map(|n| world.replica(writer).insert(n, "x")).collect();
    for update in updates.iter().rev() {
        world.sockets[writer].send_update(0, update);
    }
    world.settle();
    assert_eq!(world.replica(reader).text(), "x".repeat(12));
}

#[test]
fn a_question_without_an_answer_ends_its_socket_in_time() {
    for hocuspocus in [false, true] {
        let mut world = World::new(1);
        world.mute = true;
        let socket = if hocuspocus {
            let socket = world.hocuspocus(0, &token(app(1)));
            world.attach(socket, "a");
            socket
        } else {
            join(&mut world, &token(app(1)), "a")
        };
        world.settle();
        assert_eq!(world.code(socket), None);
        world.pass_s(15);
        assert_eq!(world.code(socket), Some(1013));
    }
}

#[test]
fn questions_that_are_never_answered_do_not_pile_up() {
    let mut world = World::new(1);
    world.mute = true;
    let token = token(app(1));
    for round in 0..4 {
        for _ in 0..600 {
            let socket = join(&mut world, &token, "a");
            world.hang_up(socket);
        }
        assert!(world.engines[0].question_count() <= 1200, "round {round}");
        world.pass_s(301);
    }
}

#[test]
fn a_claim_that_is_granted_late_is_given_back() {
    let mut world = World::new(1);
    let token = token(app(1));
    let gone = join(&mut world, &token, "a");
    world.hang_up(gone);
    let mut world = World::new(1).chaotic(200);
    for _ in 0..20 {
        let doc = world.new_document();
        let socket = world.join_with(&token, "a", doc);
        world.pass(std::time::Duration::from_millis(100));
        world.hang_up(socket);
    }
    world.settle();
    assert_eq!(world.ledger.totals().connections, 0);
}

#[test]
fn ops_that_nobody_answers_for_are_asked_for_again() {
    let mut world = World::new(1);
    let writer = join(&mut world, &limited(Limits { ops_per_minute: 5, ..WIDE }), "a");
    for _ in 0..2 {
        world.write(writer, "x");
        world.settle();
    }
    world.mute = true;
    for _ in 0..2 {
        world.write(writer, "x");
        world.settle();
    }
    world.mute = false;
    world.pass_s(15);
    let reader = join(&mut world, &token(app(1)), "a");
    assert_eq!((world.code(writer), world.replica(reader).text()), (None, "xxxx".to_owned()));
}

#[test]
fn one_socket_carries_only_so_many_documents_and_says_so_in_band() {
    let settings = Settings { documents_per_connection_max: 2, ..Default::default() };
    let mut world = World::with_settings(1, settings, 1);
    let socket = world.hocuspocus(0, &token(app(1)));
    for n in 0..3 {
        world.attach(socket, &format!("doc{n}"));
    }
    world.settle();
    assert_eq!(world.sockets[socket].end, None);
    let replicas = &world.sockets[socket].replicas;
    assert!(replicas[0].open && replicas[1].open);
    let reason = replicas[2].denied.clone().expect("the third is denied");
    assert_eq!(reason, "4003 One connection carries at most 2 documents");
    world.detach(socket, 0);
    world.attach(socket, "doc9");
    world.settle();
    assert!(world.sockets[socket].replicas[2].open, "another's place is free");
}

#[test]
fn denied_documents_make_room_for_others() {
    let settings = Settings { documents_per_connection_max: 2, ..Default::default() };
    let mut world = World::with_settings(1, settings, 1);
    let socket = world.hocuspocus(0, &token(app(1)));
    for name in ["not a name", "ü", "also/wrong"] {
        world.attach(socket, name);
    }
    world.settle();
    for replica in &world.sockets[socket].replicas {
        assert!(replica.denied.as_deref().is_some_and(|reason| reason.starts_with("4007 ")));
    }
    world.attach(socket, "right");
    world.settle();
    assert!(world.sockets[socket].replicas[3].open);
}

#[test]
fn a_routing_key_that_is_too_long_is_denied_and_not_kept() {
    let mut world = World::new(1);
    let socket = world.hocuspocus(0, &token(app(1)));
    world.attach(socket, "notes");
    for n in 0..20 {
        world.attach(socket, &format!("notes\0{n}{}", "s".repeat(60_000)));
    }
    world.settle();
    assert_eq!(world.sockets[socket].end, None);
    let replicas = &world.sockets[socket].replicas;
    assert!(replicas[0].open);
    assert!(replicas[1..].iter().all(|r| r.denied.as_deref().is_some_and(|why| why.starts_with("4007 "))));
    assert!(world.engines[0].key_bytes() < 1000);
}
