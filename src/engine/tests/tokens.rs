//! Tokens over a session's life: expiry, renewal, revocation, keys that are not known yet.

use std::time::Duration;

use super::client::{self, Said};
use super::world::{LEEWAY_S, UNIX_S, WIDE, World, app, keys, token, token_of};
use crate::engine::Settings;
use crate::engine::event::Incoming;

/// Lets time pass for clients that renew their awareness, as providers do.
fn live(world: &mut World, seconds: u64) {
    let until = world.now.monotonic + Duration::from_secs(seconds);
    while world.now.monotonic < until {
        let left = until - world.now.monotonic;
        world.pass(left.min(Duration::from_secs(15)));
        for socket in 0..world.sockets.len() {
            if world.sockets[socket].place.is_some() && world.sockets[socket].reads {
                world.receive(socket, Incoming::Pong);
            }
        }
        world.settle();
    }
}

#[test]
fn a_session_ends_with_its_token() {
    let mut world = World::new(1);
    let token = token_of("k1", app(1), WIDE, 100);
    let doc = world.new_document();
    let plain = world.join_with(&token, "a", doc);
    let keyed = world.hocuspocus(0, &token);
    world.attach(keyed, "a");
    world.settle();
    live(&mut world, 99 + LEEWAY_S);
    assert_eq!((world.code(plain), world.replica(keyed).denied.clone()), (None, None));
    live(&mut world, 2);
    assert_eq!(world.code(plain), Some(4002));
    assert_eq!(world.replica(keyed).denied.as_deref(), Some("4002 Token expired"));
    assert_eq!(world.sockets[keyed].end, None, "a denial keeps the socket");
}

#[test]
fn a_hocuspocus_client_is_asked_for_a_newer_token_once_and_stays_with_it() {
    let mut world = World::new(2);
    for name in [world.name_on(app(1), 0, 0), world.name_on(app(1), 1, 0)] {
        let anchor = world.name_on(app(1), 0, 1);
        let socket = world.hocuspocus(0, &token_of("k1", app(1), WIDE, 500 + world.now.unix_s - UNIX_S));
        world.attach(socket, &anchor);
        let at = world.attach(socket, &name);
        world.settle();
        live(&mut world, 460);
        live(&mut world, 20);
        for replica in &world.sockets[socket].replicas {
            assert_eq!(replica.count(&Said::TokenWanted), 1);
        }
        let newer = token_of("k1", app(1), WIDE, 5000 + world.now.unix_s - UNIX_S);
        world.sockets[socket].send(at, &client::auth(&newer));
        live(&mut world, 200);
        assert_eq!(world.sockets[socket].replicas[0].denied.as_deref(), Some("4002 Token expired"));
        assert_eq!(world.sockets[socket].replicas[at].denied, None, "{name}");
    }
}

#[test]
fn a_newer_token_of_another_app_is_refused() {
    let mut world = World::new(1);
    let socket = world.hocuspocus(0, &token(app(1)));
    world.attach(socket, "a");
    world.settle();
    world.sockets[socket].send(0, &client::auth(&token(app(2))));
    world.settle();
    assert_eq!(world.replica(socket).denied.as_deref(), Some("4003 The new token is for another app"));
}

#[test]
fn the_upgrade_s_token_opens_nothing_more_once_it_has_expired() {
    for close in [true, false] {
        let settings = Settings { close_on_token_expiry: close, ..Default::default() };
        let mut world = World::with_settings(1, settings, 1);
        let socket = world.hocuspocus_with_grant(0, &token_of("k1", app(1), WIDE, 100));
        // A token of its own keeps its first document open.
        world.sockets[socket].token = token(app(1));
        world.attach(socket, "a");
        world.sockets[socket].token = String::new();
        world.attach(socket, "b");
        world.settle();
        assert!(world.sockets[socket].replicas[1].open);
        live(&mut world, 101 + LEEWAY_S);
        world.attach(socket, "c");
        world.settle();
        let [first, _, late] = &world.sockets[socket].replicas[..] else { panic!() };
        assert!(first.open && first.denied.is_none());
        assert_eq!(late.denied.as_deref(), close.then_some("4002 Token expired"));
        assert_eq!(late.kinds().contains(&"step 2"), !close, "{:?}", late.kinds());
    }
}

#[test]
fn sessions_may_be_kept_beyond_their_token_without_cost() {
    let settings = Settings { close_on_token_expiry: false, ..Default::default() };
    let mut world = World::with_settings(1, settings, 1);
    let token = token_of("k1", app(1), WIDE, 100);
    let doc = world.new_document();
    let plain = world.join_with(&token, "a", doc);
    let keyed = world.hocuspocus(0, &token);
    world.attach(keyed, "a");
    world.settle();
    live(&mut world, 1000);
    assert_eq!((world.code(plain), world.replica(keyed).denied.clone()), (None, None));
    let next = world.engines[0].poll_timeout().unwrap();
    assert!(next > world.now.monotonic + Duration::from_millis(200), "no timer spins over an expired token");
}

#[test]
fn a_revoked_key_ends_exactly_its_sessions_wherever_they_are() {
    let mut world = World::new(3);
    let tokens = ["k1", "k2"].map(|key| token_of(key, app(1), WIDE, 86_400));
    let mut sockets = Vec::new();
    for (key, token) in tokens.iter().enumerate() {
        for n in 0..6 {
            let doc = world.new_document();
            sockets.push((key, world.join_with(token, &format!("doc{n}"), doc)));
        }
        let keyed = world.hocuspocus(0, token);
        for n in 0..6 {
            world.attach(keyed, &format!("doc{n}"));
        }
        sockets.push((key, keyed));
    }
    world.settle();
    world.revoke("k1");
    world.settle();
    for (key, socket) in sockets {
        let ended = world.code(socket) == Some(4002)
            || world.sockets[socket].replicas.iter().all(|r| r.denied.as_deref() == Some("4002 Key revoked"));
        let untouched = world.sockets[socket].end.is_none()
            && world.sockets[socket].replicas.iter().all(|replica| replica.open);
        assert_eq!((ended, untouched), (key == 0, key == 1));
    }
}

#[test]
fn a_connection_that_is_handed_over_while_its_key_is_revoked_is_ended() {
    let mut world = World::new(2);
    let doc = world.new_document();
    let token = token_of("k1", app(1), WIDE, 86_400);
    let grant = world.engines[0].verify(world.now, &token).unwrap();
    world.revoke("k1");
    world.settle();
    let socket = world.join_granted(grant, "a", doc);
    world.settle();
    assert_eq!(world.code(socket), Some(4002));
    assert_eq!(world.ledger.totals().connections, 0);
}

#[test]
fn a_token_of_a_key_that_is_new_enters_after_one_refresh() {
    let mut world = World::new(2);
    world.set_keys(keys(&["k1"]));
    world.settle();
    let socket = world.hocuspocus(0, &token_of("k2", app(1), WIDE, 86_400));
    let at = world.attach(socket, "a");
    world.settle();
    assert!(world.sockets[socket].replicas[at].open);
    world.write(socket, "x");
    world.settle();
    let other = world.join(app(1), "a");
    world.settle();
    assert_eq!(world.replica(other).text(), "x");
}

#[test]
fn a_token_of_a_key_that_nobody_knows_is_denied_after_one_refresh() {
    let mut world = World::new(1);
    let socket = world.hocuspocus(0, &token_of("k3", app(1), WIDE, 86_400));
    world.attach(socket, "a");
    world.settle();
    let denied = world.replica(socket).denied.clone().unwrap();
    assert!(denied.starts_with("4002 "), "{denied}");
    assert_eq!(world.replica(socket).kinds(), ["denied"], "once");
}

#[test]
fn a_denied_document_may_be_tried_again_with_another_token() {
    let mut world = World::new(2);
    let name = world.name_on(app(1), 1, 0);
    let socket = world.hocuspocus(0, "not.a.token");
    world.attach(socket, &name);
    world.settle();
    assert!(world.replica(socket).denied.as_deref().is_some_and(|why| why.starts_with("4002 ")));
    assert_eq!(world.sockets[socket].end, None);
    // What the client still says of it changes nothing.
    let step_one = world.replica(socket).step_one();
    world.sockets[socket].send(0, &step_one);
    world.settle();
    assert_eq!(world.replica(socket).kinds(), ["denied"]);
    world.sockets[socket].send(0, &client::auth(&token(app(1))));
    world.settle();
    assert!(world.replica(socket).open);
}

#[test]
fn an_empty_token_without_one_at_the_upgrade_is_missing() {
    let mut world = World::new(1);
    let socket = world.hocuspocus(0, "");
    world.attach(socket, "a");
    world.settle();
    assert_eq!(world.replica(socket).denied.as_deref(), Some("4001 Missing token"));
}

#[test]
fn a_socket_that_says_nothing_is_closed() {
    let mut world = World::new(1);
    let socket = world.hocuspocus(0, "");
    world.settle();
    world.pass_s(9);
    assert_eq!(world.code(socket), None);
    world.pass_s(2);
    assert_eq!(world.code(socket), Some(4001));
}

#[test]
fn a_socket_on_which_everything_is_denied_is_closed_in_the_end() {
    let mut world = World::new(1);
    let socket = world.hocuspocus(0, "not.a.token");
    world.attach(socket, "a");
    live(&mut world, 50);
    assert_eq!(world.code(socket), None);
    live(&mut world, 30);
    assert_eq!(world.code(socket), Some(1000));
}

#[test]
fn a_denial_is_the_last_word_about_a_document_wherever_it_lives() {
    for seed in 0..40 {
        let mut world = World::with_settings(2, Settings::default(), seed).chaotic(20);
        let (anchor, name) = (world.name_on(app(1), 0, 0), world.name_on(app(1), 1, 0));
        let socket = world.hocuspocus(0, &token(app(1)));
        world.attach(socket, &anchor);
        world.settle();
        world.attach(socket, &name);
        for _ in 0..seed / 2 {
            world.step();
        }
        world.revoke("k1");
        world.settle();
        for replica in &world.sockets[socket].replicas {
            assert_eq!(replica.kinds().last(), Some(&"denied"), "seed {seed}: {:?}", replica.kinds());
            assert_eq!(replica.kinds().iter().filter(|kind| **kind == "denied").count(), 1, "seed {seed}");
        }
        assert_eq!(world.ledger.totals().documents, 0);
    }
}
