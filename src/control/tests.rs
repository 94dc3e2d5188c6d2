//! The control shard as a whole: its thread, its handle, keys from real files and a real HTTP server.

use std::time::Duration;

use uuid::Uuid;

use super::messages::{ToControl, ToShard};
use super::testing::{JwksServer, Node, TENANT, jwks, live};
use super::{KeySettings, Live, ReloadError, Settings, StartError};

fn polling(server: &JwksServer) -> KeySettings {
    KeySettings {
        jwks_url: Some(server.url()),
        tenants: vec![TENANT],
        poll_interval: Duration::from_secs(3600),
        ..KeySettings::default()
    }
}

/// These sources and no preloaded keys.
fn fetch(settings: &mut Settings, keys: KeySettings) {
    settings.preloaded_keys.clear();
    settings.live.keys = keys;
}

fn keys(node: &Node) {
    node.next(|_, message| matches!(message, ToShard::Keys { .. }).then_some(()));
}

fn revoked(node: &Node) -> String {
    node.next(|_, message| match message {
        ToShard::KeyRevoked { tenant: TENANT, key_id } => Some(key_id.to_string()),
        _ => None,
    })
}

#[test]
fn the_keys_of_listed_tenants_are_fetched_at_the_start() {
    let server = JwksServer::start(&jwks(&["k9"], &[]));
    let node = Node::start(1, |settings| fetch(settings, polling(&server)));
    assert!(server.next_request().starts_with(&format!("GET /{TENANT}/.well-known/jwks HTTP/1.1\r\n")));
    let keys = node.sent().iter().filter(|(_, message)| matches!(message, ToShard::Keys { .. })).count();
    assert_eq!(keys, 2, "the empty set and the fetched one: the start has waited for them");
    assert_eq!(node.get("/usage?token=key:k9").status, 200);
    assert!(server.requests.try_recv().is_err(), "more than one fetch");
}

#[test]
fn a_start_goes_on_without_keys_that_cannot_be_fetched() {
    let server = JwksServer::start("");
    server.serve_raw("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let node = Node::start(1, |settings| fetch(settings, polling(&server)));
    assert_eq!(node.get("/health").status, 200);
}

#[test]
fn a_document_that_has_not_changed_is_not_taken_again() {
    let server = JwksServer::start(&jwks(&["k1"], &[]));
    let node = Node::start(1, |settings| fetch(settings, polling(&server)));
    server.next_request();
    keys(&node);
    keys(&node);
    server.serve_raw("HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n");
    node.send(ToControl::RefreshKeys { shard: 0, ticket: 7, tenant: TENANT, key_id: "x".into() });
    node.next(|_, message| match message {
        ToShard::KeysRefreshed { ticket: 7 } => Some(()),
        ToShard::Keys { .. } => panic!("unchanged keys were handed out"),
        _ => None,
    });
    assert!(server.next_request().to_ascii_lowercase().contains("if-none-match"));
    assert_eq!(node.get("/usage?token=key:k1").status, 200);
}

#[test]
fn a_reload_may_bring_other_sources_of_keys() {
    let first = JwksServer::start(&jwks(&["k1"], &[]));
    let second = JwksServer::start(&jwks(&["k2"], &[]));
    let node = Node::start(1, |settings| fetch(settings, polling(&first)));
    assert_eq!(node.get("/usage?token=key:k1").status, 200);
    let changed = Live { keys: polling(&second), ..live() };
    node.handle.reload(changed).unwrap().blocking_recv().unwrap().unwrap();
    assert!(!second.next_request().to_ascii_lowercase().contains("if-none-match"));
    assert_eq!(node.get("/usage?token=key:k2").status, 200); // waits for the fetch if it is still under way
    assert_eq!(node.get("/usage?token=key:k1").status, 401);
    let without = Live { keys: KeySettings::default(), ..live() };
    node.handle.reload(without).unwrap().blocking_recv().unwrap().unwrap();
    assert_eq!(node.get("/usage?token=key:k2").status, 401);
}

#[test]
fn a_poll_asks_with_the_entity_tag_and_brings_rotation_and_revocation() {
    let server = JwksServer::start(&jwks(&["k1", "k2"], &[]));
    let node = Node::start(1, |settings| {
        fetch(settings, KeySettings { poll_interval: Duration::from_millis(20), ..polling(&server) });
    });
    assert!(!server.next_request().contains("if-none-match"));
    assert!(server.next_request().to_ascii_lowercase().contains("if-none-match: \""));
    server.serve(&jwks(&["k2", "k3"], &["k1"]));
    assert_eq!(revoked(&node), "k1");
    assert_eq!(node.get("/usage?token=key:k3").status, 200);
    assert_eq!(node.get("/usage?token=key:k1").status, 401);
}

#[test]
fn an_unknown_key_is_fetched_once_for_all_who_wait_and_the_keys_come_before_the_answers() {
    let server = JwksServer::start(&jwks(&["k1"], &[]));
    let node = Node::start(2, |settings| fetch(settings, polling(&server)));
    server.next_request();
    keys(&node);
    keys(&node);
    keys(&node);
    keys(&node); // two of the start, two of the first fetch
    server.serve(&jwks(&["k1", "k2"], &[]));
    let ask = |shard, ticket| ToControl::RefreshKeys { shard, ticket, tenant: TENANT, key_id: "k2".into() };
    let asks = vec![ask(0, 1), ask(1, 2), ask(0, 3)];
    node.to_control.blocking_send(asks).unwrap();
    let mut has_keys = [false; 2];
    let mut tickets = Vec::new();
    while tickets.len() < 3 {
        node.next(|shard, message| match message {
            ToShard::Keys { .. } => Some((shard, None)),
            ToShard::KeysRefreshed { ticket } => Some((shard, Some(ticket))),
            _ => None,
        })
        .pipe(|(shard, ticket)| match ticket {
            None => has_keys[usize::from(shard)] = true,
            Some(ticket) => {
                assert!(has_keys[usize::from(shard)], "answered before the keys came");
                tickets.push(ticket);
            }
        });
    }
    tickets.sort_unstable();
    assert_eq!(tickets, [1, 2, 3]);
    server.next_request();
    assert!(server.requests.try_recv().is_err(), "more than one fetch");
}

/// Feeds a value to a closure, so that a chain reads top-down.
trait Pipe: Sized {
    fn pipe<T>(self, next: impl FnOnce(Self) -> T) -> T {
        next(self)
    }
}
impl<S> Pipe for S {}

#[test]
fn an_http_request_with_an_unknown_key_waits_for_the_refresh_too() {
    let server = JwksServer::start(&jwks(&["k1"], &[]));
    let node = Node::start(1, |settings| fetch(settings, polling(&server)));
    server.next_request();
    keys(&node);
    keys(&node);
    server.serve(&jwks(&["k2"], &[]));
    assert_eq!(node.get("/usage?token=key:k2").status, 200);
}

#[test]
fn a_refresh_that_fails_answers_all_the_same_and_keeps_the_keys() {
    let server = JwksServer::start(&jwks(&["k1"], &[]));
    let node = Node::start(1, |settings| fetch(settings, polling(&server)));
    server.next_request();
    keys(&node);
    keys(&node);
    let raw = |status: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    };
    server.serve_raw(&raw("302 Found\r\nLocation: http://127.0.0.1:1/", ""));
    node.send(ToControl::RefreshKeys { shard: 0, ticket: 7, tenant: TENANT, key_id: "x".into() });
    let ticket = node.next(|_, message| match message {
        ToShard::KeysRefreshed { ticket } => Some(ticket),
        ToShard::Keys { .. } => panic!("a failed fetch has changed the keys"),
        _ => None,
    });
    assert_eq!(ticket, 7);
    assert_eq!(node.get("/usage?token=key:k1").status, 200);
}

#[test]
fn a_document_over_the_size_cap_is_not_taken() {
    let long = jwks(&["k2"; 200], &[]);
    let server = JwksServer::start(&long);
    let node = Node::start(1, |settings| {
        settings.live.keys = KeySettings { jwks_bytes_max: 1000, ..polling(&server) };
    });
    server.next_request();
    node.send(ToControl::RefreshKeys { shard: 0, ticket: 7, tenant: TENANT, key_id: "k2".into() });
    node.next(|_, message| matches!(message, ToShard::KeysRefreshed { ticket: 7 }).then_some(()));
    assert_eq!(node.get("/usage?token=key:k1").status, 200);
    assert_eq!(node.get("/usage?token=key:k2").status, 401);
}

#[test]
fn key_files_are_loaded_at_the_start_and_read_again_on_reload() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(format!("{TENANT}.json"));
    std::fs::write(&file, jwks(&["k1"], &[])).unwrap();
    std::fs::write(dir.path().join("README"), "not a key file").unwrap();
    let keys = KeySettings { dir: Some(dir.path().to_owned()), ..KeySettings::default() };
    let same_dir = || Live { keys: keys.clone(), ..live() };
    let node = Node::start(1, |settings| fetch(settings, keys.clone()));
    assert_eq!(node.get("/usage?token=key:k1").status, 200);

    std::fs::write(&file, jwks(&["k2"], &["k1"])).unwrap();
    node.handle.reload(same_dir()).unwrap().blocking_recv().unwrap().unwrap();
    assert_eq!(revoked(&node), "k1");
    assert_eq!(node.get("/usage?token=key:k2").status, 200);

    std::fs::write(&file, "{").unwrap();
    let outcome = node.handle.reload(same_dir()).unwrap().blocking_recv().unwrap();
    let Err(error @ ReloadError::Keys(_)) = outcome else { panic!("{outcome:?}") };
    assert!(error.to_string().contains(&TENANT.to_string()), "{error} does not name the file");
    assert_eq!(node.get("/usage?token=key:k2").status, 200);

    // Whose file this was meant to be nobody can tell: it may be the tenant's whose own is gone.
    std::fs::rename(&file, dir.path().join("misnamed.json")).unwrap();
    let outcome = node.handle.reload(same_dir()).unwrap().blocking_recv().unwrap();
    assert!(matches!(outcome, Err(ReloadError::Keys(_))));
    assert_eq!(node.get("/usage?token=key:k2").status, 200);
    std::fs::remove_file(dir.path().join("misnamed.json")).unwrap();
    node.handle.reload(same_dir()).unwrap().blocking_recv().unwrap().unwrap();
    assert_eq!(node.get("/usage?token=key:k2").status, 401);
}

#[test]
fn a_start_with_unusable_keys_fails_and_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let in_dir = |name: String, content: &str| {
        let path = dir.path().join(&name);
        std::fs::write(&path, content).unwrap();
        let error = Node::try_start(1, |settings| settings.live.keys.dir = Some(dir.path().to_owned()))
            .err()
            .unwrap();
        std::fs::remove_file(path).unwrap();
        let StartError::Keys(error) = error else { panic!("{error:?}") };
        assert!(error.to_string().contains(&name), "`{error}` does not name {name}");
    };
    in_dir(format!("{TENANT}.json"), "[]");
    in_dir(format!("{}.json", Uuid::from_u128(5)), &jwks(&["bad"], &[]));
    in_dir("tenant.json".into(), &jwks(&["k1"], &[]));
    let missing = dir.path().join("missing");
    let error = Node::try_start(1, |settings| settings.live.keys.dir = Some(missing)).err().unwrap();
    assert!(matches!(error, StartError::Keys(_)), "{error:?}");
}

#[test]
fn a_revocation_by_hand_reaches_every_shard() {
    let node = Node::start(2, |_| {});
    node.handle.revoke(TENANT, "k1").unwrap();
    assert_eq!((revoked(&node), revoked(&node)), ("k1".into(), "k1".into()));
    assert_eq!(node.get("/usage?token=key:k1").status, 401);
}

#[test]
fn a_drain_ends_when_every_shard_says_so_and_health_says_draining_meanwhile() {
    let node = Node::start(2, |_| {});
    let done = node.handle.drain(Duration::from_secs(3600)).unwrap();
    let over = node.next(|_, message| match message {
        ToShard::Drain { over, .. } => Some(over),
        _ => None,
    });
    assert_eq!(over, Duration::from_secs(3600));
    let answer = node.get("/health");
    assert_eq!((answer.status, answer.json()["status"].as_str()), (503, Some("draining")));
    let retry_after: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((10..=20).contains(&retry_after));
    node.send(ToControl::Drained { shard: 1, round: 1 });
    node.send(ToControl::Drained { shard: 0, round: 1 });
    assert_eq!(done.blocking_recv().unwrap().stragglers, [] as [u16; 0]);
}

#[test]
fn a_stop_tells_every_shard_and_ends_the_thread() {
    let Node { handle, .. } = {
        let node = Node::start(2, |_| {});
        assert!(!node.handle.is_finished());
        node
    };
    handle.stop().unwrap();
}

#[test]
fn a_reload_hands_new_settings_to_the_shards() {
    let node = Node::start(1, |_| {});
    let changed = live();
    let expected = std::sync::Arc::clone(&changed.shards);
    node.handle.reload(changed).unwrap().blocking_recv().unwrap().unwrap();
    let settings = node.next(|_, message| match message {
        ToShard::Settings { settings } => Some(settings),
        _ => None,
    });
    assert!(std::sync::Arc::ptr_eq(&settings, &expected));
}
