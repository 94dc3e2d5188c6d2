//! Hostile clients against the real binary: whatever one of them sends, it ends alone, with the code that the contract
//! names; the process lives, its memory stays bounded, and the others in the same document notice nothing.
//!
//! `WIRESOCKET_SEED` repeats the random part.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use std::io::Read;

use support::wire::{self, Message, Wire};
use support::{Answer, Client, Incoming, NodeSetup, Replica, Server, Tenant, http, wait_until};

const MIB: u64 = 1 << 20;

/// A node with one document in which two honest editors of both wires work all along.
struct Scene {
    server: Server,
    token: String,
    honest: [Replica; 2],
    rss_before: u64,
    round: usize,
}

impl Scene {
    fn new() -> Self {
        Self::with(|setup| setup)
    }

    fn with(change: impl FnOnce(NodeSetup) -> NodeSetup) -> Self {
        let tenant = Tenant::new(1);
        let server = change(NodeSetup::new(&tenant)).start();
        let token = tenant.token().build();
        let honest =
            [Replica::join(&server, "shared", &token), Replica::join_hocuspocus(&server, "shared", &token)];
        let rss_before = server.rss_bytes();
        Self { server, token, honest, rss_before, round: 0 }
    }

    fn join(&self) -> Client {
        Client::join(&self.server, "shared", &self.token)
    }

    /// A Hocuspocus socket that is in the document.
    fn join_hocuspocus(&self) -> Client {
        let mut client = Client::hocuspocus(&self.server);
        client.send(&keyed("shared", &wire::auth(&self.token, None)));
        loop {
            let frame = client.receive_binary();
            let message = Wire::Hocuspocus("shared".to_owned()).parse(&frame);
            if let Some(Message::Authenticated(_)) = message {
                return client;
            }
        }
    }

    /// The honest ones still exchange updates, the same process answers, and its memory is bounded.
    #[track_caller]
    fn assert_unharmed(&mut self, what: &str) {
        for writer in 0..2 {
            self.round += 1;
            self.honest[writer].append(&format!("{} ", self.round));
            let text = self.honest[writer].text();
            self.honest[1 - writer].wait_for_text(&text);
        }
        assert!(self.server.is_running(), "{what}");
        assert_eq!(self.server.get("/health").status, 200, "{what}");
        let grown = self.server.rss_bytes().saturating_sub(self.rss_before);
        assert!(grown < 128 * MIB, "{what}: {} MiB more than before", grown / MIB);
    }

    /// One message by a client of its own, on each wire, and how that ends.
    #[track_caller]
    fn assert_refused(&mut self, what: &str, message: &[u8], code: u16) {
        let mut plain = self.join();
        plain.send(message);
        assert_eq!(plain.closed().0, code, "{what}");
        let mut keyed_client = self.join_hocuspocus();
        keyed_client.send(&keyed("shared", message));
        assert_eq!(keyed_client.closed().0, code, "{what}, by Hocuspocus");
        self.assert_unharmed(what);
    }
}

fn keyed(key: &str, message: &[u8]) -> Vec<u8> {
    Wire::Hocuspocus(key.to_owned()).frame(message)
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var("WIRESOCKET_SEED").map_or(1, |seed| seed.parse().expect("a number"));
        eprintln!("WIRESOCKET_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// A client's frame with any first byte, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

const FINAL: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;

/// `depth` arrays within one another, in the value of a map's key.
fn nested_any(depth: usize) -> Vec<u8> {
    let head = [1, 1, 9, 0, 0x28, 1, 1, b'm', 1, b'k', 1];
    [&head[..], &[117, 1].repeat(depth), &[126, 0]].concat()
}

#[test]
fn hostile_updates_end_their_sender_with_1007() {
    let mut scene = Scene::new();
    let huge_string = [&[1, 1, 9, 0, 4, 1, 1, b't'][..], &[0xff, 0xff, 0xff, 0x7f], b"x"].concat();
    let cases: [(&str, Vec<u8>); 8] = [
        ("a count bomb", vec![0xff, 0xff, 0xff, 0x7a]),
        ("structs without end", vec![1, 0xff, 0xff, 0xff, 0x7f, 1, 0]),
        ("a length past the end", huge_string),
        ("values nested 5,000 deep", nested_any(5_000)),
        ("values nested 1,000,000 deep", nested_any(1_000_000)),
        ("cut short", vec![1, 1, 9, 0, 4, 1]),
        ("bytes behind the end", vec![0, 0, 0]),
        ("an integer beyond 2^53", vec![1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0]),
    ];
    for (what, update) in cases {
        scene.assert_refused(what, &wire::update(&update), 1007);
        scene.assert_refused(what, &wire::step_two(&update), 1007);
    }
    for (what, state) in [("a count bomb", &[0xff, 0xff, 0xff, 0x7a][..]), ("cut short", &[1, 5])] {
        scene.assert_refused(&format!("{what} as a state vector"), &wire::step_one(state), 1007);
    }
}

#[test]
fn hostile_messages_end_their_sender_with_1002() {
    let mut scene = Scene::new();
    let cases: [(&str, &[u8]); 6] = [
        ("an unknown sync step", &[0, 9, 0]),
        ("a length past the end", &[0, 2, 0xff, 0xff, 0xff, 0x7f, 1]),
        ("a message cut short", &[0, 2]),
        ("an overlong integer", &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0]),
        ("an unknown auth message", &[2, 9]),
        ("broadcast-stateless, which only servers send", &[6, 1, b'x']),
    ];
    for (what, message) in cases {
        scene.assert_refused(what, message, 1002);
    }
    let mut empty = scene.join();
    empty.send(&[]);
    assert_eq!(empty.closed().0, 1002);
    scene.assert_unharmed("an empty message");
}

#[test]
fn hostile_awareness_ends_its_sender() {
    let mut scene = Scene::new();
    let big = format!("\"{}\"", "x".repeat(65 << 10));
    let deep = "[".repeat(100_000);
    let closed_deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let many: Vec<(u64, u64, &str)> = (0..200).map(|client| (client, 1, "{}")).collect();
    let cases: [(&str, Vec<u8>, u16); 8] = [
        ("no JSON", wire::awareness(1, 1, "{\"x\":"), 1007),
        ("open arrays", wire::awareness(1, 1, &deep), 1009),
        ("nested arrays", wire::awareness(1, 1, &closed_deep), 1007),
        ("a large state", wire::awareness(1, 1, &big), 1009),
        ("many clients", awareness(&many), 1009),
        ("a clock beyond 32 bits", wire::awareness(1, 1 << 40, "{}"), 1007),
        ("more clients than bytes", vec![1, 5, 0xff, 0xff, 0xff, 0xff, 0x7f], 1007),
        ("not UTF-8", vec![1, 6, 1, 1, 1, 2, 0xff, 0xfe], 1007),
    ];
    for (what, message, code) in cases {
        scene.assert_refused(what, &message, code);
    }
    // Departures of a million clients that never came are no news to anybody.
    let gone: Vec<(u64, u64, &str)> = (0..1_000_000).map(|client| (client, 1, "null")).collect();
    let mut client = scene.join();
    client.send(&awareness(&gone));
    client.ping(b"end");
    while client.receive() != Incoming::Pong {}
    scene.assert_unharmed("a million departures");
    for honest in &mut scene.honest {
        honest.flush();
        assert!(honest.awareness.iter().all(|payload| payload.len() < 1000), "nobody is told");
    }
}

fn awareness(entries: &[(u64, u64, &str)]) -> Vec<u8> {
    let mut payload = Vec::new();
    wire::write_varint(&mut payload, entries.len() as u64);
    for (client, clock, state) in entries {
        wire::write_varint(&mut payload, *client);
        wire::write_varint(&mut payload, *clock);
        wire::write_bytes(&mut payload, state.as_bytes());
    }
    let mut body = vec![wire::AWARENESS];
    wire::write_bytes(&mut body, &payload);
    body
}

#[test]
fn frames_that_are_no_websocket_end_their_sender_with_1002() {
    let mut scene = Scene::new();
    let cases: [(&str, Vec<u8>); 9] = [
        ("an unmasked frame", vec![FINAL | BINARY, 1, 3]),
        ("a reserved bit", frame(FINAL | 0x40 | BINARY, &[3])),
        ("a reserved opcode", frame(FINAL | 3, &[3])),
        ("a reserved control opcode", frame(FINAL | 11, &[])),
        ("a continuation of nothing", frame(FINAL | CONTINUATION, &[3])),
        ("a message within a message", [frame(BINARY, &[3]), frame(FINAL | BINARY, &[3])].concat()),
        ("a ping in fragments", frame(PING, &[1])),
        ("a long ping", frame(FINAL | PING, &[1; 126])),
        ("a close of one byte", frame(FINAL | CLOSE, &[3])),
    ];
    for (what, bytes) in cases {
        let mut client = scene.join();
        client.send_raw(&bytes).expect("it is sent");
        assert_eq!(client.closed().0, 1002, "{what}");
        scene.assert_unharmed(what);
    }
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
        let mut client = scene.join();
        client.send_raw(&frame(FINAL | CLOSE, &code.to_be_bytes())).expect("it is sent");
        assert_eq!(client.closed().0, 1002, "a close with code {code}");
    }
    scene.assert_unharmed("close codes that must not be sent");
}

#[test]
fn text_is_refused_and_so_is_what_is_not_utf8() {
    let mut scene = Scene::new();
    let mut client = scene.join();
    client.send_text("{}");
    assert_eq!(client.closed().0, 1003);
    for (what, bytes) in [
        ("text", frame(FINAL | TEXT, &[0xff, 0xfe])),
        ("text in fragments", [frame(TEXT, b"a"), frame(FINAL | CONTINUATION, &[0xc0])].concat()),
        ("a close reason", frame(FINAL | CLOSE, &[3, 0xe8, 0xff, 0xfe])),
    ] {
        let mut client = scene.join();
        client.send_raw(&bytes).expect("it is sent");
        assert_eq!(client.closed().0, 1007, "{what}");
        scene.assert_unharmed(what);
    }
}

#[test]
fn what_is_too_big_is_refused_before_it_is_held() {
    let mut scene = Scene::with(|setup| setup.set("limits.message_bytes_max", "1 MiB"));
    // The header alone says too much: nothing of it has to arrive.
    let mut client = scene.join();
    let header = [&[FINAL | BINARY, 0x80 | 127][..], &(1u64 << 40).to_be_bytes(), &[0; 4]].concat();
    client.send_raw(&header).expect("it is sent");
    assert_eq!(client.closed().0, 1009, "a terabyte");
    let mut client = scene.join();
    let fragment = frame(BINARY, &vec![0; 600 << 10]);
    let _ = client.send_raw(&[&fragment[..], &frame(CONTINUATION, &vec![0; 600 << 10])].concat());
    assert_eq!(client.closed().0, 1009, "in two fragments");
    let mut client = scene.join();
    client.send_raw(&frame(BINARY, &[0])).expect("it is sent");
    let _ = client.send_raw(&frame(CONTINUATION, &[]).repeat(100_000));
    assert!(matches!(client.closed().0, 1009 | 1006), "empty fragments without end");
    let mut client = scene.join();
    client.send_raw(&frame(BINARY, &[0])).expect("it is sent");
    let _ = client.send_raw(&frame(CONTINUATION, &[0]).repeat(100_000));
    assert!(matches!(client.closed().0, 1009 | 1006), "fragments of one byte");
    scene.assert_unharmed("big messages");
    // Before a token less is taken.
    let mut nobody = Client::hocuspocus(&scene.server);
    let header = [&[FINAL | BINARY, 0x80 | 127][..], &(100u64 << 10).to_be_bytes(), &[0; 4]].concat();
    nobody.send_raw(&header).expect("it is sent");
    assert_eq!(nobody.closed().0, 1009, "100 KiB without a token");
    let mut nobody = Client::hocuspocus(&scene.server);
    for n in 0..100 {
        if nobody.try_send(&keyed(&format!("{n}{}", "k".repeat(4 << 10)), &wire::auth("x", None))).is_err() {
            break;
        }
    }
    assert!(matches!(nobody.closed().0, 1009 | 1006), "400 KiB in small messages without a token");
    scene.assert_unharmed("big messages without a token");
}

#[test]
fn floods_of_control_frames_are_answered_within_bounds() {
    let mut scene = Scene::new();
    let mut client = scene.join();
    let reads = std::thread::spawn({
        let mut stream = client.stream().try_clone().expect("a second handle");
        move || {
            let (mut read, mut buffer) = (0, [0; 65_536]);
            // 2 bytes of header and 100 of payload for each.
            while read < 20_000 * 102 {
                read += stream.read(&mut buffer).expect("pongs come");
            }
        }
    });
    client.send_raw(&frame(FINAL | PING, &[7; 100]).repeat(20_000)).expect("it is read");
    reads.join().expect("every ping has its pong");
    scene.assert_unharmed("20,000 pings");
    // The same from one that does not read: it is stalled, not answered without end.
    let mut deaf = scene.join();
    let socket = socket2::SockRef::from(deaf.stream());
    socket.set_write_timeout(Some(std::time::Duration::from_secs(1))).expect("a time-out");
    let _ = deaf.send_raw(&frame(FINAL | PING, &[7; 100]).repeat(200_000));
    scene.assert_unharmed("200,000 pings that nobody reads the pongs of");
}

#[test]
fn heads_that_are_too_long_or_wrong_are_refused() {
    let mut scene = Scene::new();
    let long = scene.server.upgrade("/shared").token(&scene.token).header("X-Long", &"x".repeat(1 << 20));
    assert_head_refused(&scene.server, &long, &[431]);
    let mut many = scene.server.upgrade("/shared").token(&scene.token);
    for n in 0..5_000 {
        many = many.header(&format!("X-{n}"), "1");
    }
    assert_head_refused(&scene.server, &many, &[431]);
    let target = scene.server.upgrade(&format!("/{}", "a".repeat(1 << 20))).token(&scene.token);
    assert_head_refused(&scene.server, &target, &[414, 431]);
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"NONSENSE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", &[0; 5000]]
    {
        let mut stream = http::connect(scene.server.address);
        let _ = std::io::Write::write_all(&mut stream, garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        // Whatever the answer is, the connection ends.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    }
    scene.assert_unharmed("heads");
}

/// The server need not read to the end: then the refusal may be lost in a reset.
fn assert_head_refused(server: &Server, upgrade: &support::Upgrade, statuses: &[u16]) {
    let mut stream = http::connect(server.address);
    let _ = std::io::Write::write_all(&mut stream, &upgrade.head());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    if let Some(end) = http::head_end(&answer) {
        let status = http::Response::parse(&answer[..end]).status;
        assert!(statuses.contains(&status), "{status}");
    }
}

#[test]
fn garbage_for_routing_keys_is_denied_in_band_and_keeps_nothing() {
    let mut scene = Scene::new();
    let mut client = scene.join_hocuspocus();
    let keys = [
        "a/b",
        "..",
        "ä",
        "\0",
        "\0\0\0",
        " ",
        "a b",
        "%41",
        "a\0b\0c",
        &"n".repeat(256),
        &"n".repeat(60_000),
    ];
    for key in keys {
        client.send(&keyed(key, &wire::auth(&scene.token, None)));
        let frame = client.receive_binary();
        match Wire::Hocuspocus(key.to_owned()).parse(&frame) {
            Some(Message::Denied(reason)) => assert!(reason.starts_with("4007 "), "{key:.20}: {reason}"),
            // A name, then whatever names a session of it.
            Some(Message::Authenticated(_)) if key == "a\0b\0c" => {}
            other => panic!("{key:.20}: {other:?}"),
        }
    }
    // The first document of the socket is as good as before.
    client.send(&keyed("shared", &wire::step_one(&[0])));
    loop {
        let frame = client.receive_binary();
        if let Some(Message::StepTwo(_)) = Wire::Hocuspocus("shared".to_owned()).parse(&frame) {
            break;
        }
    }
    scene.assert_unharmed("garbage keys");
    for garbage in [&[5, 0xff, 0xfe, 0xff, 0xfe, 0xff, 1][..], &[0xff, 0xff, 0xff, 0xff, 0x0f, 1], &[200]] {
        let mut client = scene.join_hocuspocus();
        client.send(garbage);
        assert_eq!(client.closed().0, 1002, "{garbage:?}");
    }
    scene.assert_unharmed("keys that are no strings");
}

#[test]
fn thousands_of_documents_on_one_socket_are_denied_beyond_the_limit() {
    let mut scene = Scene::new();
    let mut client = scene.join_hocuspocus();
    let (mut open, mut denied) = (0, 0);
    for round in 0..30 {
        for n in 0..100 {
            client.send(&keyed(&format!("doc-{round}-{n}"), &wire::auth(&scene.token, None)));
        }
        let until = 100 * (round + 1);
        while open + denied < until {
            let frame = client.receive_binary();
            let mut reader = wire::Reader(&frame);
            reader.bytes().expect("a routing key");
            match Message::parse(reader.0) {
                Some(Message::Authenticated(_)) => open += 1,
                Some(Message::Denied(reason)) => {
                    assert!(reason.starts_with("4003 "), "{reason}");
                    denied += 1;
                }
                _ => {}
            }
        }
    }
    assert_eq!((open, denied), (255, 3000 - 255), "256 with the first");
    scene.assert_unharmed("thousands of documents");
    drop(client);
    wait_until("all are let go", || scene.server.metrics().get("wiresocket_connections_active") <= 2.0);
}

/// Genuine updates and frames with a few bytes changed, cut or doubled: most are refused, some happen to be valid. Both
/// are fine, as long as nobody else notices.
#[test]
fn random_mutations_of_genuine_messages_harm_nobody() {
    let mut scene = Scene::new();
    let mut random = Random::new();
    let mut author = Replica::join(&scene.server, "material", &scene.token);
    let mut genuine: Vec<Vec<u8>> = vec![
        wire::awareness(77, 1, "{\"user\":{\"name\":\"x\"}}"),
        wire::step_one(&[1, 5, 9]),
        vec![wire::QUERY_AWARENESS],
        wire::auth(&scene.token, Some("4.0.0")),
    ];
    for n in 0..40 {
        let update = author.edit(|text, transaction| {
            use yrs::Text;
            let length = text.len(transaction);
            text.insert(transaction, (n * 7) % (length + 1), "some words 😀");
            if n % 3 == 0 {
                text.remove_range(transaction, n % 5, 3);
            }
        });
        genuine.push(wire::update(&update));
    }
    let mut ends = std::collections::BTreeMap::<u16, usize>::new();
    for round in 0..600 {
        let is_keyed = random.below(2) == 0;
        let name = format!("mutants{}", round % 5);
        let mut client = if is_keyed {
            let mut client = Client::hocuspocus(&scene.server);
            client.send(&keyed(&name, &wire::auth(&scene.token, None)));
            client
        } else {
            Client::join(&scene.server, &name, &scene.token)
        };
        for _ in 0..10 {
            let mut message = genuine[random.below(genuine.len())].clone();
            if is_keyed {
                message = keyed(&name, &message);
            }
            for _ in 0..=random.below(3) {
                mutate(&mut message, &mut random);
            }
            let mut bytes = frame(FINAL | BINARY, &message);
            if random.below(8) == 0 {
                mutate(&mut bytes, &mut random);
            }
            if client.send_raw(&bytes).is_err() {
                break;
            }
        }
        // A frame header that promises more than came would leave both sides waiting.
        let _ = client.stream().shutdown(std::net::Shutdown::Write);
        let (code, reason) = client.closed();
        let documented = [1000, 1002, 1003, 1005, 1006, 1007, 1009, 4001, 4002, 4003, 4007];
        assert!(documented.contains(&code), "{code} {reason}");
        *ends.entry(code).or_default() += 1;
        if round % 50 == 0 {
            scene.assert_unharmed("mutations");
        }
    }
    eprintln!("closed with: {ends:?}");
    assert!(ends.get(&1007).is_some_and(|count| *count > 20), "mutations reach the pre-scan: {ends:?}");
    scene.assert_unharmed("mutations");
    // The documents in which the mutants met serve others as before.
    for n in 0..5 {
        let name = format!("mutants{n}");
        let mut one = Replica::join(&scene.server, &name, &scene.token);
        let mut two = Replica::join(&scene.server, &name, &scene.token);
        one.append("intact");
        two.wait_for("the edit", |two| two.text().contains("intact"));
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    match random.below(5) {
        0 => bytes[at] = random.below(256) as u8,
        1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes.truncate(at),
        3 => {
            let end = at + random.below(bytes.len() - at) + 1;
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        _ => bytes.insert(at, [0, 0x7f, 0x80, 0xff][random.below(4)]),
    }
}

#[test]
fn an_upgrade_that_is_answered_is_not_left_half_open() {
    let mut scene = Scene::new();
    for _ in 0..200 {
        match scene.server.upgrade("/shared").token(&scene.token).send() {
            Answer::Open(client) => client.reset(),
            Answer::Refused(response) => panic!("{}", response.status),
        }
    }
    wait_until("all resets are noticed", || {
        scene.server.metrics().get("wiresocket_connections_active") == 2.0
    });
    scene.assert_unharmed("resets");
}
