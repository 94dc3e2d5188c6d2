//! Acknowledgements and the journal: when a client hears that its update is stored, what is there after a crash, and
//! what of a document outlives its clients.

use std::time::Duration;

use yrs::{ReadTxn, Transact};

use super::client::{Said, content};
use super::world::{World, app};
use crate::engine::Settings;
use crate::engine::event::Incoming;
use crate::journal::Retention;
use crate::journal::memory::{Faults, Memory};

fn keeping(retention: Retention) -> Settings {
    Settings { retention: Some(retention), ..Settings::default() }
}

fn world(shards: u16, retention: Retention) -> World {
    World::with_settings(shards, keeping(retention), 1)
}

/// A Hocuspocus client in a document, in sync.
fn join(world: &mut World, name: &str) -> usize {
    let token = super::world::token(app(1));
    let socket = world.hocuspocus(0, &token);
    world.attach(socket, name);
    world.settle();
    socket
}

fn statuses(world: &World, socket: usize) -> usize {
    world.replica(socket).count(&Said::Status(true))
}

#[test]
fn an_update_is_relayed_at_once_and_acknowledged_when_it_is_stored() {
    for retention in [Retention::Session, Retention::ForEver] {
        let mut world = world(2, retention);
        let writer = join(&mut world, "notes");
        let reader = join(&mut world, "notes");
        let before = statuses(&world, writer);
        world.holds_commits = true;
        world.write(writer, "a");
        world.write(writer, "b");
        world.settle();
        assert_eq!(world.replica(reader).text(), "ab");
        assert_eq!(statuses(&world, writer), before, "nothing is stored yet");
        world.commit();
        world.settle();
        assert_eq!(statuses(&world, writer), before + 2);
        assert_eq!(world.replica(writer).unacknowledged, 0);
    }
}

#[test]
fn without_a_journal_an_update_is_acknowledged_when_it_is_applied() {
    let mut world = World::new(1);
    let writer = join(&mut world, "notes");
    world.write(writer, "a");
    world.settle();
    assert_eq!(world.replica(writer).unacknowledged, 0);
    assert!(world.journal.is_none());
}

#[test]
fn a_repeated_update_is_not_acknowledged_before_what_it_repeats_is_stored() {
    let mut world = world(1, Retention::Session);
    let writer = join(&mut world, "notes");
    world.holds_commits = true;
    world.write(writer, "a");
    world.settle();
    let before = statuses(&world, writer);
    // Somebody else has got it and sends it in his step 2.
    let all = world.replica(writer).doc.transact().encode_state_as_update_v1(&yrs::StateVector::default());
    let other = join(&mut world, "notes");
    let at_other = statuses(&world, other);
    world.sockets[other].send_update(0, &all);
    world.settle();
    assert_eq!((statuses(&world, writer), statuses(&world, other)), (before, at_other));
    world.commit();
    world.settle();
    assert_eq!(statuses(&world, writer), before + 1);
    assert!(statuses(&world, other) > at_other);
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash_with_any_number_of_shards() {
    for (before, after) in [(1, 1), (1, 3), (4, 2)] {
        let mut world = world(before, Retention::Session);
        let mut texts = Vec::new();
        for n in 0..12 {
            let name = format!("document-{n}");
            let writer = join(&mut world, &name);
            for word in 0..n {
                world.write(writer, &format!("{word} "));
                world.settle();
            }
            assert_eq!(world.replica(writer).unacknowledged, 0);
            texts.push((name, world.replica(writer).text()));
        }
        for disk in [world.disk_after_kill(), world.disk_after_power_cut()] {
            let mut world = World::on_disk(after, keeping(Retention::Session), 7, disk);
            for (name, text) in &texts {
                let reader = join(&mut world, name);
                assert_eq!(&world.replica(reader).text(), text, "{name}");
            }
        }
    }
}

#[test]
fn a_recovered_document_waits_for_its_clients_for_a_grace_period_and_then_leaves_the_disk() {
    let mut world = world(1, Retention::Session);
    let writer = join(&mut world, "notes");
    world.write(writer, "kept");
    world.settle();
    let mut world = World::on_disk(1, keeping(Retention::Session), 2, world.disk_after_kill());
    world.pass_s(9);
    assert_eq!(world.engines[0].gauges().documents, 1);
    world.pass_s(2);
    assert_eq!(world.engines[0].gauges().documents, 0);
    world.assert_empty();
    let mut world = World::on_disk(1, keeping(Retention::Session), 3, world.disk_after_kill());
    let reader = join(&mut world, "notes");
    assert_eq!(world.replica(reader).text(), "");
}

#[test]
fn after_the_journal_has_failed_nobody_is_acknowledged_and_everybody_is_relayed() {
    for faults in
        [Faults { sync: Some(9), ..Faults::default() }, Faults { append: Some((9, 20)), ..Faults::default() }]
    {
        let disk = Memory::with(faults);
        let mut world = World::on_disk(2, keeping(Retention::Session), 1, disk);
        let (writer, reader) = (join(&mut world, "notes"), join(&mut world, "notes"));
        let mut acknowledged = String::new();
        for n in 0..30 {
            world.write(writer, &format!("{n} "));
            world.settle();
            if world.replica(writer).unacknowledged == 0 {
                acknowledged = world.replica(writer).text();
            }
        }
        assert!(world.journal.as_ref().unwrap().failure().is_some());
        assert!(!acknowledged.is_empty() && world.replica(writer).unacknowledged > 10);
        assert_eq!(world.replica(reader).text(), world.replica(writer).text());
        assert_eq!(world.engines.iter().map(|engine| engine.gauges().unstored_bytes).sum::<usize>(), 0);
        let mut after = World::on_disk(2, keeping(Retention::Session), 2, world.disk_after_power_cut());
        let late = join(&mut after, "notes");
        assert!(after.replica(late).text().starts_with(&acknowledged));
        // Everybody leaves: nothing waits for a journal that takes nothing.
        world.hang_up(writer);
        world.hang_up(reader);
        world.pass_s(30);
        assert_eq!(world.engines[0].gauges().documents + world.engines[1].gauges().documents, 0);
    }
}

#[test]
fn a_document_that_is_kept_for_ever_is_loaded_before_anybody_is_answered() {
    for (wire, name) in [("y-websocket", "a"), ("hocuspocus", "b")] {
        let mut world = world(2, Retention::ForEver);
        let writer = join(&mut world, name);
        world.write(writer, "kept");
        world.settle();
        world.hang_up(writer);
        world.pass_s(30);
        assert_eq!(world.engines.iter().map(|engine| engine.gauges().documents).sum::<usize>(), 0);
        let reader = match wire {
            "hocuspocus" => join(&mut world, name),
            _ => world.join(app(1), name),
        };
        world.write(reader, " on");
        world.settle();
        let empty = vec![0, 0];
        assert!(
            !world.replica(reader).said.contains(&Said::StepTwo(empty)),
            "{wire} was told that nothing is there"
        );
        let text = world.replica(reader).text();
        assert!(text.contains("kept") && text.contains(" on"), "{wire}: {text}");
        // The same again after a crash, and once more after another quiet time.
        let mut world = World::on_disk(3, keeping(Retention::ForEver), 5, world.disk_after_kill());
        world.pass_s(30);
        let reader = world.join(app(1), name);
        world.settle();
        assert_eq!(world.replica(reader).text(), text, "{wire}");
        world.hang_up(reader);
        world.pass_s(30);
        let mut world = World::on_disk(1, keeping(Retention::ForEver), 6, world.disk_after_kill());
        assert_eq!(world.engines[0].gauges().documents, 0, "it rests");
        let reader = world.join(app(1), name);
        world.settle();
        assert_eq!(world.replica(reader).text(), text, "{wire}");
    }
}

#[test]
fn who_comes_back_while_a_document_is_put_to_rest_finds_it_and_so_do_later_ones() {
    let mut world = world(1, Retention::ForEver);
    let writer = join(&mut world, "notes");
    world.write(writer, "first");
    world.settle();
    world.hang_up(writer);
    world.holds_commits = true;
    world.pass_s(11); // its state is on its way to the journal
    let second = join(&mut world, "notes");
    assert_eq!(world.replica(second).text(), "first");
    world.write(second, " second");
    world.settle();
    world.hang_up(second);
    world.pass_s(11); // and again, before the journal has answered
    world.commit();
    world.holds_commits = false;
    world.settle();
    assert_eq!(world.engines[0].gauges().documents, 0);
    let third = join(&mut world, "notes");
    assert_eq!(world.replica(third).text(), "first second");
}

#[test]
fn what_was_left_behind_may_come_while_a_document_is_put_to_rest() {
    let mut world = world(1, Retention::ForEver);
    let writer = join(&mut world, "notes");
    world.write(writer, "first");
    world.settle();
    for _ in 0..5 {
        world.pass_s(15); // what was leased is void
        world.receive(writer, Incoming::Pong);
    }
    world.mute = true;
    world.write(writer, " left");
    world.settle();
    assert!(world.engines[0].held_bytes() > 0, "it waits for ops");
    world.hang_up(writer);
    world.holds_commits = true;
    world.pass_s(11);
    assert_eq!(world.engines[0].resting_count(), 1);
    world.mute = false;
    world.pass_s(10); // they are asked for again
    world.holds_commits = false;
    world.pass_s(30);
    assert_eq!(world.engines[0].gauges().documents, 0, "nobody is there who would end it later");
    let late = join(&mut world, "notes");
    assert_eq!(world.replica(late).text(), "first left");
}

#[test]
fn who_comes_back_to_a_document_whose_time_is_over_by_the_time_it_rests_keeps_it() {
    let mut world = world(1, Retention::For(Duration::from_secs(1)));
    let writer = join(&mut world, "notes");
    world.write(writer, "first");
    world.settle();
    world.hang_up(writer);
    world.holds_commits = true; // the disk is slower than the retention
    world.pass_s(11);
    let second = join(&mut world, "notes");
    world.pass_s(5);
    world.commit();
    world.commit();
    world.holds_commits = false;
    world.settle();
    world.write(second, " second");
    world.settle();
    assert_eq!(world.replica(second).unacknowledged, 0);
    let mut world =
        World::on_disk(1, keeping(Retention::For(Duration::from_secs(1))), 2, world.disk_after_kill());
    let late = join(&mut world, "notes");
    assert_eq!(world.replica(late).text(), "first second");
}

#[test]
fn a_document_is_dropped_when_its_time_is_over() {
    let mut world = world(1, Retention::For(Duration::from_secs(100)));
    let writer = join(&mut world, "notes");
    world.write(writer, "kept");
    world.settle();
    world.hang_up(writer);
    world.pass_s(60);
    let reader = join(&mut world, "notes");
    assert_eq!(world.replica(reader).text(), "kept");
    world.pass_s(200); // it is open
    world.hang_up(reader);
    world.pass_s(50);
    assert_eq!(world.journal.as_ref().unwrap().figures().documents, 1);
    world.pass_s(100);
    world.commit();
    world.commit();
    assert_eq!(world.journal.as_ref().unwrap().figures().documents, 0);
    let late = join(&mut world, "notes");
    assert_eq!(world.replica(late).text(), "");
}

#[test]
fn a_document_that_cannot_be_read_is_refused_and_not_shown_empty() {
    let mut world = world(1, Retention::ForEver);
    let writer = join(&mut world, "notes");
    world.write(writer, "kept");
    world.settle();
    world.hang_up(writer);
    world.pass_s(30);
    world.spoil_disk();
    let reader = world.join(app(1), "notes");
    world.settle();
    assert_eq!(world.code(reader), Some(1011));
    assert!(world.replica(reader).said.iter().all(|said| !matches!(said, Said::StepTwo(_))));
    assert_eq!(world.engines[0].gauges().documents, 0);
}

#[test]
fn who_writes_faster_than_the_disk_is_told_to_come_back_later() {
    let settings = Settings { journal_backlog_bytes_max: 2000, ..keeping(Retention::Session) };
    let mut world = World::with_settings(1, settings, 1);
    let writer = join(&mut world, "notes");
    world.holds_commits = true;
    for _ in 0..40 {
        world.write(writer, "0123456789");
        world.settle();
    }
    assert_eq!(world.code(writer), Some(1013));
    assert_eq!(world.counters().journal_refusals, 1);
    assert!(world.engines[0].gauges().unstored_bytes < 2400);
    world.commit();
    world.settle();
    assert_eq!(world.engines[0].gauges().unstored_bytes, 0);
}

#[test]
fn a_y_websocket_client_hears_of_it_if_it_asked() {
    let mut world = world(1, Retention::Session);
    let asks = world.join_acknowledged(app(1), "notes");
    let doesnt = world.join(app(1), "notes");
    world.settle();
    let before = statuses(&world, asks);
    world.holds_commits = true;
    world.write(asks, "a");
    world.write(doesnt, "b");
    world.settle();
    assert_eq!(statuses(&world, asks), before);
    world.commit();
    world.settle();
    assert_eq!((statuses(&world, asks), statuses(&world, doesnt)), (before + 1, 0));
}

#[test]
fn a_panic_in_the_crdt_costs_nobody_else_his_place_or_his_text_also_after_recovery() {
    use crate::engine::document::BOMB;
    let mut world = world(1, Retention::Session);
    let (first, second) = (join(&mut world, "notes"), join(&mut world, "notes"));
    world.write(first, "safe");
    world.settle();
    let mut world = World::on_disk(1, keeping(Retention::Session), 2, world.disk_after_kill());
    let _ = second;
    let (first, second, third) =
        (join(&mut world, "notes"), join(&mut world, "notes"), world.join(app(1), "notes"));
    world.settle();
    world.write(first, BOMB);
    world.settle();
    assert_eq!(world.code(first), Some(1007));
    world.write(second, " and sound");
    world.settle();
    assert_eq!(world.replica(third).text(), "safe and sound");
    assert_eq!(world.counters().crdt_panics, 1);
    let mut world = World::on_disk(1, keeping(Retention::Session), 3, world.disk_after_kill());
    let late = join(&mut world, "notes");
    assert_eq!(world.replica(late).text(), "safe and sound", "the journal never had it");
    let server = world.server_document(app(1), "notes").unwrap();
    assert_eq!(content(&server), content(&world.replica(late).doc));
}

#[test]
fn a_recovered_document_on_which_the_crdt_panics_loses_only_what_it_panics_on() {
    use crate::engine::document::{BOMB, Document};
    use crate::journal::Contents;
    use crate::protocol::lib0;
    let mut contents = Contents::default();
    for (client, text) in [(1, "one"), (2, BOMB), (3, "three")] {
        let replica = super::client::Replica::new("notes", super::client::document(client));
        lib0::write_var_bytes(&mut contents.tail, &replica.insert(0, text));
    }
    let mut document = Document::restored(contents);
    let encoded = document.encode();
    let update = <yrs::Update as yrs::updates::decoder::Decode>::decode_v1(&encoded).unwrap();
    let read = super::client::Replica::new("notes", super::client::document(9));
    read.doc.transact_mut().apply_update(update).unwrap();
    let text = read.text();
    assert!(text.contains("one") && text.contains("three") && !text.contains(BOMB), "{text:?}");
    assert!(document.take_panics() > 0);
}

/// What came in small pieces is one big one in the snapshot: more than a stranger's single update may be.
#[test]
fn a_recovered_document_may_be_more_than_one_update_may() {
    use crate::engine::document::Document;
    use crate::engine::prescan::{self, Scan, ScanLimits};
    let mut contents = crate::journal::Contents::default();
    let writers = ScanLimits::default().rivals_max + 1;
    for client in 1..=u64::from(writers) {
        let replica = super::client::Replica::new("notes", super::client::document(client));
        crate::protocol::lib0::write_var_bytes(&mut contents.tail, &replica.set("key", 1));
    }
    let snapshot = Document::restored(contents).encode();
    let scanned = prescan::scan(&snapshot, &ScanLimits::default(), &mut Scan::default());
    assert!(scanned.is_err(), "a stranger may not send all of it at once");
    let contents = crate::journal::Contents { snapshot, ..Default::default() };
    let document = Document::restored(contents);
    assert_eq!(
        (1..=u64::from(writers)).filter(|&client| document.state().get(client) == 1).count(),
        writers as usize
    );
}

#[test]
fn many_documents_are_put_to_rest_a_few_at_a_time() {
    let mut world = world(1, Retention::ForEver);
    let writers: Vec<usize> = (0..150).map(|n| world.join(app(1), &format!("document-{n}"))).collect();
    world.settle();
    for &writer in &writers {
        world.write(writer, "kept");
    }
    world.settle();
    world.holds_commits = true;
    writers.into_iter().for_each(|writer| world.hang_up(writer));
    world.pass_s(20);
    let engine = &world.engines[0];
    assert_eq!((engine.gauges().documents, engine.resting_count()), (150, 64));
    for _ in 0..3 {
        world.commit();
        world.pass_s(1);
    }
    assert_eq!(world.engines[0].gauges().documents, 0);
    assert_eq!(world.journal.as_ref().unwrap().figures().documents, 150);
}

#[test]
fn a_document_that_should_be_kept_stays_in_memory_when_the_journal_has_failed() {
    let disk = Memory::with(Faults { sync: Some(6), ..Faults::default() });
    let mut world = World::on_disk(1, keeping(Retention::ForEver), 1, disk);
    let writer = join(&mut world, "notes");
    for _ in 0..10 {
        world.write(writer, "x");
        world.settle();
    }
    assert!(world.journal.as_ref().unwrap().failure().is_some());
    let text = world.replica(writer).text();
    world.hang_up(writer);
    world.pass_s(100);
    let reader = join(&mut world, "notes");
    assert_eq!(world.replica(reader).text(), text);
}

#[test]
fn a_shard_is_woken_for_a_stored_batch_exactly_when_somebody_waits_for_it() {
    let mut world = world(1, Retention::Session);
    let plain = world.join(app(1), "notes");
    let other = join(&mut world, "notes");
    world.settle();
    world.holds_commits = true;
    world.write(plain, "a");
    world.settle();
    world.commit();
    assert_eq!(world.stored_letters(), [false], "nobody waits");
    world.settle();
    // Its repetition comes while the batch is on its way without anybody waiting: from then on somebody does.
    world.write(plain, "b");
    world.settle();
    let all = world.replica(plain).doc.transact().encode_state_as_update_v1(&yrs::StateVector::default());
    world.sockets[other].send_update(0, &all);
    world.settle();
    assert_eq!(world.replica(other).unacknowledged, 1);
    world.commit();
    assert_eq!(world.stored_letters(), [true]);
    world.settle();
    assert_eq!(world.replica(other).unacknowledged, 0);
}
