//! A document's life: grace period, shrinking, the end.

use super::client::content;
use super::world::{World, app};

#[test]
fn a_document_is_kept_through_its_grace_period() {
    let mut world = World::new(1);
    let first = world.join(app(1), "notes");
    world.write(first, "still here");
    world.settle();
    world.hang_up(first);
    world.pass_s(9);
    let second = world.join(app(1), "notes");
    world.settle();
    assert_eq!(world.replica(second).text(), "still here");
    world.pass_s(20);
    let third = world.join(app(1), "notes");
    world.settle();
    assert_eq!(world.replica(third).text(), "still here", "the first grace period ended when somebody came");
}

#[test]
fn a_document_is_freed_when_nobody_comes_back() {
    let mut world = World::new(1);
    let first = world.join(app(1), "notes");
    world.write(first, "gone");
    world.settle();
    world.hang_up(first);
    world.pass_s(11);
    assert_eq!(world.engines[0].gauges().documents, 0);
    let second = world.join(app(1), "notes");
    world.settle();
    assert_eq!(world.replica(second).text(), "");
    world.hang_up(second);
    world.pass_s(100);
    world.assert_empty();
}

#[test]
fn a_quiet_document_shrinks_and_comes_back_with_the_next_update() {
    let mut world = World::new(1);
    let socket = world.join(app(1), "notes");
    world.write(socket, "quiet");
    world.settle();
    assert_eq!(world.engines[0].gauges().documents_shrunk, 0);
    for _ in 0..5 {
        world.pass_s(14);
        world.show(socket, 0, "{}");
    }
    assert_eq!(world.engines[0].gauges().documents_shrunk, 1);
    world.write(socket, " no more");
    world.settle();
    assert_eq!(world.engines[0].gauges().documents_shrunk, 0);
    let server = world.server_document(app(1), "notes").unwrap();
    assert_eq!(content(&server), content(&world.replica(socket).doc));
    for _ in 0..6 {
        world.pass_s(14);
        world.show(socket, 0, "{}");
    }
    assert_eq!(world.engines[0].gauges().documents_shrunk, 1);
    let reader = world.join(app(1), "notes");
    world.settle();
    assert_eq!(
        world.replica(reader).text(),
        "quiet no more",
        "a reader needs no live CRDT to get everything"
    );
}

#[test]
fn a_drain_refuses_newcomers_and_ends_everybody_within_its_time() {
    let mut world = World::new(2);
    let sockets: Vec<usize> = (0..40).map(|n| world.join(app(1), &format!("doc{n}"))).collect();
    world.settle();
    world.drain(std::time::Duration::from_secs(10));
    world.settle();
    let late = world.join(app(1), "late");
    world.settle();
    assert_eq!(world.code(late), Some(1012));
    world.pass_s(5);
    let ended = sockets.iter().filter(|&&socket| world.code(socket) == Some(1012)).count();
    assert!((5..=35).contains(&ended), "{ended} of 40 ended in half the time: they are spread");
    assert!(!world.engines.iter().all(|engine| engine.is_drained()));
    world.pass_s(6);
    for socket in sockets {
        assert_eq!(world.code(socket), Some(1012));
    }
    assert!(world.engines.iter().all(|engine| engine.is_drained()));
    world.pass_s(100);
    world.assert_empty();
}

#[test]
fn a_drain_that_is_called_off_ends_nobody_more_and_lets_newcomers_in() {
    let mut world = World::new(2);
    let sockets: Vec<usize> = (0..40).map(|n| world.join(app(1), &format!("doc{n}"))).collect();
    world.settle();
    world.drain(std::time::Duration::from_secs(10));
    world.pass_s(5);
    world.call_off_drain();
    world.settle();
    let ended: Vec<_> = sockets.iter().map(|&socket| world.code(socket)).collect();
    assert!(ended.contains(&None) && ended.contains(&Some(1012)), "{ended:?}");
    world.pass_s(20);
    let later: Vec<_> = sockets.iter().map(|&socket| world.code(socket)).collect();
    assert_eq!(later, ended, "who was not asked to leave yet stays");
    let newcomer = world.join(app(1), "doc0");
    world.settle();
    assert_eq!(world.code(newcomer), None);
    assert!(!world.engines.iter().any(|engine| engine.is_drained()));
    world.drain(std::time::Duration::from_secs(1));
    world.pass_s(2);
    assert!(world.engines.iter().all(|engine| engine.is_drained()), "it can be drained again");
}

#[test]
fn the_ops_of_an_app_are_told_once_whatever_became_of_its_window() {
    let mut world = World::new(2);
    let sockets: Vec<usize> = (0..6).map(|n| world.join(app(1), &format!("doc{n}"))).collect();
    let other = world.join(app(2), "doc");
    world.settle();
    for &socket in &sockets {
        world.write(socket, "a");
        world.settle();
    }
    world.write(other, "b");
    world.settle();
    let told = |world: &mut World| {
        let mut told = std::collections::BTreeMap::new();
        for (app, ops) in world.engines.iter_mut().flat_map(crate::engine::Engine::take_ops) {
            *told.entry(app).or_insert(0) += ops;
        }
        told
    };
    world.pass_s(200); // the windows are over, and so are the meters
    assert_eq!(told(&mut world), [(app(1), 6), (app(2), 1)].into());
    assert!(told(&mut world).is_empty());
    let other = world.join(app(2), "doc");
    world.settle();
    world.write(other, "c");
    world.settle();
    assert_eq!(told(&mut world), [(app(2), 1)].into());
}
