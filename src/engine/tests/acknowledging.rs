//! What a client hears of its updates, and in which order.

use yrs::{ReadTxn, Transact};

use super::client::Said;
use super::keeping::{join, keeping, statuses, world};
use super::world::{World, app};
use crate::engine::Settings;
use crate::journal::Retention;

#[test]
fn a_refusal_is_said_behind_the_acknowledgements_before_it() {
    let read_only = |world: &mut World, socket: usize| {
        let more = serde_json::json!({ "scope": "WireSocket.API WireSocket.ReadOnly" });
        let token = super::world::token_with(app(1), 90_000, &more);
        world.sockets[socket].send(0, &super::client::auth(&token));
    };
    let said = |world: &World, socket: usize| -> Vec<bool> {
        let status = |said: &Said| match said {
            Said::Status(stored) => Some(*stored),
            _ => None,
        };
        world.replica(socket).said.iter().filter_map(status).skip(1).collect()
    };
    for fails in [false, true] {
        let mut world = world(2, Retention::Session);
        let writer = join(&mut world, "notes");
        world.holds_commits = true;
        world.write(writer, "a");
        read_only(&mut world, writer);
        world.write(writer, "never");
        world.settle();
        assert!(world.replica(writer).read_only);
        assert_eq!(said(&world, writer), [] as [bool; 0]);
        if fails {
            let storage = world.journal.as_mut().unwrap().storage_mut();
            storage.faults.sync = Some(storage.syncs);
        }
        world.commit();
        world.settle();
        // Told that it may only read, a provider says once more what it has.
        let expected: &[bool] = if fails { &[false, false] } else { &[true, false, false] };
        assert_eq!(said(&world, writer), expected);
        assert_eq!(world.counters().updates_refused, 2);
    }
}

/// A client counts: what it is told next stands for the oldest of its updates of which it has heard nothing.
#[test]
fn an_update_that_waits_for_another_ones_holds_up_the_acknowledgements_behind_it() {
    let mut world = world(1, Retention::Session);
    let writer = join(&mut world, "notes");
    world.write(writer, "known");
    world.settle();
    let known = world.replica(writer).doc.transact().encode_state_as_update_v1(&yrs::StateVector::default());
    let lacking = super::client::Replica::new("notes", super::client::document(77));
    let first = lacking.insert(0, "first ");
    let second = lacking.insert(u32::MAX, "second ");
    let before = statuses(&world, writer);
    world.sockets[writer].send_update(0, &second);
    world.sockets[writer].send_update(0, &known);
    world.settle();
    assert_eq!(world.counters().updates_parked, 1);
    assert_eq!(statuses(&world, writer), before, "that would be taken for the one that waits");
    world.sockets[writer].send_update(0, &first);
    world.settle();
    assert!(statuses(&world, writer) > before + 2);
    assert_eq!(world.replica(writer).unacknowledged, 0);
    let mut world = World::on_disk(1, keeping(Retention::Session), 2, world.disk_after_power_cut());
    let late = join(&mut world, "notes");
    assert!(world.replica(late).text().contains("first second "));
}

#[test]
fn what_a_reader_can_no_longer_complete_holds_up_nothing() {
    let mut world = world(1, Retention::Session);
    let writer = join(&mut world, "notes");
    let lacking = super::client::Replica::new("notes", super::client::document(77));
    lacking.insert(0, "first ");
    let second = lacking.insert(u32::MAX, "second ");
    world.sockets[writer].send_update(0, &second);
    world.settle();
    let more = serde_json::json!({ "scope": "WireSocket.API WireSocket.ReadOnly" });
    let token = super::world::token_with(app(1), 90_000, &more);
    world.sockets[writer].send(0, &super::client::auth(&token));
    world.settle();
    assert_eq!(world.replica(writer).count(&Said::Status(false)), 1);
    assert_eq!(world.replica(writer).unacknowledged, 0);
}

#[test]
fn what_waits_behind_a_parked_update_is_bounded() {
    let mut world = World::new(1);
    let writer = join(&mut world, "notes");
    let lacking = super::client::Replica::new("notes", super::client::document(77));
    lacking.insert(0, "first ");
    let second = lacking.insert(u32::MAX, "second ");
    world.sockets[writer].send_update(0, &second);
    for _ in 0..(64 << 10) + 2 {
        world.sockets[writer].send(0, &super::client::sync(2, &[0, 0]));
    }
    world.settle();
    assert_eq!(world.code(writer), Some(1009));
}

#[test]
fn acknowledgements_that_wait_for_a_disk_that_hangs_are_bounded() {
    let settings = Settings { journal_backlog_bytes_max: 2000, ..keeping(Retention::Session) };
    let mut world = World::with_settings(1, settings, 1);
    let writer = join(&mut world, "notes");
    world.holds_commits = true;
    world.write(writer, "a");
    world.settle();
    for _ in 0..100 {
        world.sockets[writer].send(0, &super::client::sync(2, &[0, 0]));
    }
    world.settle();
    assert_eq!(world.code(writer), Some(1013), "also for what changes nothing");
    assert!(world.engines[0].gauges().unstored_bytes < 2400);
}
