//! The first words on both wires, and what a newcomer is given.

use yrs::updates::encoder::Encode;

use super::client::{self, Said};
use super::world::{World, app, token};
use crate::engine::prescan::{self, ClockRange, Scan};

/// What an update brings.
fn brings(update: &[u8]) -> Vec<ClockRange> {
    let mut scan = Scan::new();
    prescan::scan(update, &prescan::ScanLimits::default(), &mut scan).unwrap();
    scan.ranges().to_vec()
}

#[test]
fn y_websocket_gets_step_1_awareness_step_2() {
    let mut world = World::new(1);
    let first = world.join(app(1), "notes");
    world.settle();
    assert_eq!(world.replica(first).kinds(), ["step 1", "step 2"], "nobody shows anything yet");
    world.show(first, 0, "{}");
    world.settle();
    let second = world.join(app(1), "notes");
    world.settle();
    assert_eq!(world.replica(second).kinds(), ["step 1", "awareness", "step 2"]);
}

#[test]
fn hocuspocus_gets_authenticated_awareness_step_1_step_2_and_one_status() {
    let mut world = World::new(1);
    let first = world.join(app(1), "notes");
    world.show(first, 0, "{}");
    world.settle();
    let second = world.hocuspocus(0, &token(app(1)));
    world.attach(second, "notes");
    world.settle();
    let kinds = world.replica(second).kinds();
    assert_eq!(kinds[..4], ["authenticated", "awareness", "step 1", "step 2"]);
    assert_eq!(world.replica(second).count(&Said::Status(true)), 1, "its answer to step 1 is stored");
    assert_eq!(world.replica(second).unacknowledged, 0);
}

#[test]
fn every_update_of_a_hocuspocus_client_is_acknowledged_once() {
    let mut world = World::new(1);
    let socket = world.hocuspocus(0, &token(app(1)));
    world.attach(socket, "notes");
    world.settle();
    for n in 1..=5 {
        world.write(socket, "x");
        world.settle();
        assert_eq!(world.replica(socket).count(&Said::Status(true)), 1 + n);
    }
    let known = world.replica(socket).change(|_, _| {});
    world.sockets[socket].send_update(0, &known);
    world.settle();
    assert_eq!(world.replica(socket).count(&Said::Status(true)), 7, "also one that brings nothing");
}

#[test]
fn a_hocuspocus_client_without_a_token_of_its_own_enters_with_step_1() {
    let mut world = World::new(1);
    let socket = world.hocuspocus_with_grant(0, &token(app(1)));
    let doc = world.new_document();
    world.sockets[socket].replicas.push(client::Replica::new("notes", doc));
    let step_one = world.replica(socket).step_one();
    world.sockets[socket].send(0, &step_one);
    world.settle();
    assert_eq!(world.replica(socket).kinds(), ["step 1", "step 2", "stored"]);
}

#[test]
fn a_newcomer_is_answered_by_its_state_vector() {
    let mut world = World::new(1);
    let writer = world.join(app(1), "notes");
    world.write(writer, "ab");
    world.settle();
    let half = yrs::ReadTxn::state_vector(&yrs::Transact::transact(&world.replica(writer).doc)).encode_v1();
    world.write(writer, "cd");
    world.settle();
    let whole = yrs::ReadTxn::state_vector(&yrs::Transact::transact(&world.replica(writer).doc)).encode_v1();
    let writes = world.replica(writer).client();
    let part = |start, end| vec![ClockRange { client: writes, start, end }];
    let ahead = yrs::StateVector::from_iter([(yrs::block::ClientID::new(writes), 99)]).encode_v1();
    let cases = [(vec![0], part(0, 4)), (half, part(2, 4)), (whole, Vec::new()), (ahead, Vec::new())];
    for (state, expected) in cases {
        let reader = world.join_with(&token(app(1)), "notes", client::document(999));
        world.sockets[reader].send(0, &client::sync(0, &state));
        world.settle();
        let Some(Said::StepTwo(update)) = world.replica(reader).said.last() else {
            panic!("step 2 ends the greeting: {:?}", world.replica(reader).said)
        };
        assert_eq!(brings(update), expected, "for {state:?}");
        world.hang_up(reader);
    }
}

#[test]
fn what_a_client_wrote_offline_is_pulled_and_relayed() {
    for hocuspocus in [false, true] {
        let mut world = World::new(1);
        let other = world.join(app(1), "notes");
        world.settle();
        let offline = world.new_document();
        let socket = if hocuspocus {
            let socket = world.hocuspocus(0, &token(app(1)));
            world.attach(socket, "notes");
            world.replica_mut(socket).doc = offline;
            socket
        } else {
            world.join_with(&token(app(1)), "notes", offline)
        };
        let _unsent = world.replica(socket).insert(0, "written on a train");
        let step_one = world.replica(socket).step_one();
        if !hocuspocus {
            world.sockets[socket].send(0, &step_one);
        }
        world.settle();
        assert_eq!(world.replica(other).text(), "written on a train");
    }
}

#[test]
fn a_step_1_that_is_no_state_vector_closes_with_1007() {
    let mut world = World::new(1);
    let socket = world.join(app(1), "notes");
    world.settle();
    world.sockets[socket].send(0, &client::sync(0, &[0xff, 0xff, 0xff, 0x7a]));
    world.settle();
    assert_eq!(world.code(socket), Some(1007));
}
