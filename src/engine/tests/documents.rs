//! A document's life: grace period, shrinking, the end.

use bytes::Bytes;

use super::client::content;
use super::world::{World, app};
use crate::engine::document::Document;
use crate::engine::prescan::{self, Scan, ScanLimits};
use crate::engine::state_vector::StateVector;
use crate::journal::Contents;
use crate::protocol::lib0::write_var_u64;

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

/// yrs never frees a document that has one: a second CRDT of it would be lost too.
#[test]
fn a_document_with_a_sub_document_keeps_its_crdt() {
    let mut world = World::new(1);
    let socket = world.join(app(1), "notes");
    let replica = world.replica(socket);
    let map = replica.doc.get_or_insert_map("map");
    let update = replica.change(|_, txn| drop(yrs::Map::insert(&map, txn, "sub", yrs::Doc::new())));
    world.sockets[socket].send_update(0, &update);
    world.settle();
    for _ in 0..5 {
        world.pass_s(14);
        world.show(socket, 0, "{}");
    }
    assert_eq!(world.engines[0].gauges().documents_shrunk, 0);
    let late = world.join(app(1), "notes");
    world.settle();
    assert_eq!(
        yrs::ReadTxn::state_vector(&yrs::Transact::transact(&world.replica(late).doc)),
        yrs::ReadTxn::state_vector(&yrs::Transact::transact(&world.replica(socket).doc)),
    );
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

/// A client for each time that somebody opens a page: an old document has many. Each writes behind what is there.
fn written_by(clients: &[u64]) -> Bytes {
    let before: std::collections::BTreeMap<u64, u64> =
        clients.windows(2).map(|pair| (pair[1], pair[0])).collect();
    let mut ids = clients.to_vec();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    let mut update = Vec::new();
    write_var_u64(&mut update, ids.len() as u64);
    for client in ids {
        update.push(1);
        write_var_u64(&mut update, client);
        match before.get(&client) {
            None => update.extend([0, 4, 1, 1, b't', 1, b'x']),
            Some(before) => {
                update.extend([0, 0x84]);
                write_var_u64(&mut update, *before);
                update.extend([0, 1, b'x']);
            }
        }
    }
    update.push(0);
    update.into()
}

/// yrs alone overflows a stack of 2 MiB with 20,000 of them, which aborts the process; and its time for them is quadratic.
#[test]
fn a_document_of_very_many_writers_is_made_again_on_a_shards_stack() {
    const COUNT: u64 = 40_000;
    let mut random = super::world::Random::new(7);
    let in_any_order: Vec<u64> = (0..COUNT).map(|n| n + (random.below(1 << 14) << 18)).collect();
    for clients in [(1..=COUNT).collect(), in_any_order] {
        let work = move || {
            let contents = Contents { snapshot: written_by(&clients), tail: Vec::new() };
            let mut document = Document::restored(contents);
            let mut state = StateVector::default();
            state.raise(clients[0], 1);
            let since = document.encode_since(&state);
            let mut scan = Scan::default();
            prescan::scan(&since, &ScanLimits::STORED, &mut scan).unwrap();
            assert_eq!(u64::from(scan.structs()), COUNT - 1);
            assert!(document.is_live() && document.take_panics() == 0);
            document.shrink();
        };
        std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap().join().unwrap();
    }
}
