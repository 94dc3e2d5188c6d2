//! Documents that outlive their sessions: put to rest, loaded again, and dropped when their time is over.

use std::time::Duration;

use super::keeping::{join, keeping, stay_s, world};
use super::world::{World, app};
use crate::engine::Settings;
use crate::engine::event::Event;
use crate::journal::Retention;

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

/// The journal would take the time for over that began when everybody had left.
#[test]
fn a_document_that_somebody_opens_while_it_is_put_to_rest_is_kept_however_short_its_time() {
    let mut world = world(1, Retention::For(Duration::from_secs(1)));
    let writer = join(&mut world, "notes");
    world.write(writer, "kept");
    world.settle();
    world.hang_up(writer);
    world.holds_commits = true;
    world.pass_s(15);
    let second = join(&mut world, "notes");
    world.holds_commits = false;
    world.commit();
    world.settle();
    stay_s(&mut world, second, 60);
    world.write(second, " on");
    world.settle();
    assert_eq!(world.replica(second).unacknowledged, 0);
    let mut world =
        World::on_disk(1, keeping(Retention::For(Duration::from_secs(1))), 2, world.disk_after_kill());
    let late = join(&mut world, "notes");
    assert_eq!(world.replica(late).text(), "kept on");
}

/// It leaves while it is being loaded, and somebody else comes in the turn in which it has been: the journal must not
/// take it for resting, however long it is open.
#[test]
fn a_document_that_leaves_and_comes_in_one_turn_does_not_rest() {
    let retention = Retention::For(Duration::from_secs(100));
    let settings = Settings { grace_period: Duration::ZERO, ..keeping(retention) };
    let mut world = World::with_settings(1, settings.clone(), 1);
    let writer = join(&mut world, "notes");
    world.write(writer, "kept");
    world.settle();
    world.hang_up(writer);
    world.pass_s(1);
    assert_eq!(world.engines[0].gauges().documents, 0);
    let first = world.join(app(1), "notes");
    while !world.journal_answers() {
        assert!(world.step());
    }
    world.hang_up(first);
    assert_eq!(world.engines[0].gauges().documents, 0, "it left before it was loaded");
    let second = world.join(app(1), "notes");
    world.deliver_in_one_turn();
    world.settle();
    assert_eq!(world.replica(second).text(), "kept");
    stay_s(&mut world, second, 300);
    assert_eq!(world.journal.as_ref().unwrap().figures().documents, 1);
    let mut world = World::on_disk(1, settings, 2, world.disk_after_kill());
    let late = join(&mut world, "notes");
    assert_eq!(world.replica(late).text(), "kept");
}

/// What a client sent that left is applied when its app's ops come, also while the document is being put to rest.
#[test]
fn a_document_that_changes_while_it_is_put_to_rest_is_put_to_rest_again() {
    let mut world = world(1, Retention::ForEver);
    let writer = join(&mut world, "notes");
    world.write(writer, "first");
    world.settle();
    world.mute = true;
    stay_s(&mut world, writer, 70); // its ops were for a minute
    world.write(writer, " last");
    world.settle();
    assert_eq!(world.replica(writer).unacknowledged, 1, "it waits for ops");
    world.hang_up(writer);
    world.holds_commits = true;
    world.pass_s(11);
    assert_eq!(world.engines[0].resting_count(), 1);
    let window_ends = world.now.monotonic + Duration::from_secs(60);
    world.tell(0, Event::OpsLeased { app: app(1), granted: 10, window_ends });
    (world.mute, world.holds_commits) = (false, false);
    world.pass_s(30);
    assert_eq!(world.engines[0].gauges().documents, 0, "nobody is in it");
    let late = join(&mut world, "notes");
    assert_eq!(world.replica(late).text(), "first last");
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
    stay_s(&mut world, reader, 200); // it is open
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
