//! Where the fuzzer begins: genuine messages, a trace's updates cut small, and what was found hostile by hand.

use serde_json::json;
use yrs::block::ClientID;
use yrs::types::Attrs;
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{
    Any, Array, ArrayPrelim, Doc, Map, MapPrelim, OffsetKind, Options, ReadTxn, StateVector, Text,
    TextPrelim, Transact, TransactionMut, Update, XmlElementPrelim, XmlFragment, XmlTextPrelim,
};

use crate::targets::steps;
use crate::targets::token;
use crate::trace::Concurrent;

type Seeds = Vec<(String, Vec<u8>)>;

/// The seeds of every target.
pub fn all() -> Vec<(&'static str, Seeds)> {
    let histories = histories();
    vec![
        ("head", heads()),
        ("proxy", proxies()),
        ("frames", frames()),
        ("sync", sync(&histories)),
        ("hocuspocus", hocuspocus(&histories)),
        ("awareness", awarenesses()),
        ("document", documents(&histories)),
        ("token", tokens()),
        ("config", configs()),
    ]
}

fn numbered(seeds: impl IntoIterator<Item = Vec<u8>>) -> Seeds {
    seeds.into_iter().enumerate().map(|(at, bytes)| (format!("{at:02}"), bytes)).collect()
}

/// The first byte: even for PROXY headers, odd for `X-Forwarded-For`; the rest of it is where they are cut.
fn proxies() -> Seeds {
    let version_2 = |command: u8, transport: u8, body: &[u8]| {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        header.extend([command, transport]);
        header.extend((body.len() as u16).to_be_bytes());
        [&header[..], body, b"GET / HTTP/1.1\r\n"].concat()
    };
    let headers = [
        version_2(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 1, 0xbb]),
        version_2(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 1, 0xbb, 3, 0, 4, 1, 2, 3, 4]),
        version_2(0x21, 0x21, &[0x20; 36]),
        version_2(0x20, 0x00, &[]),
        version_2(0x20, 0x11, &[4, 0, 0]),
        version_2(0x21, 0x00, &[0; 20]),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\nGET".to_vec(),
        b"PROXY TCP6 2001:db8::7 ::ffff:10.0.0.1 80 443\r\n".to_vec(),
        b"PROXY UNKNOWN anything\r\n".to_vec(),
        [b"PROXY TCP4 ".to_vec(), vec![b'1'; 110]].concat(),
    ];
    let values = [
        "",
        "1.1.1.1",
        "10.0.0.9, 10.0.0.8",
        "unknown, [2001:db8::1]:443",
        ",,é, ::ffff:10.1.2.3",
        "1.1.1.1:80,[::1",
    ];
    let headers = headers.iter().map(|header| [&[0x40], &header[..]].concat());
    numbered(headers.chain(values.iter().map(|value| [&[0x41], value.as_bytes()].concat())))
}

// --- updates

struct Author(Doc);

impl Author {
    fn new(id: u64) -> Self {
        let mut options = Options::with_client_id(ClientID::new(id));
        options.offset_kind = OffsetKind::Utf16;
        Self(Doc::with_options(options))
    }

    fn edit(&self, edit: impl FnOnce(&mut TransactionMut<'_>)) -> Vec<u8> {
        let mut transaction = self.0.transact_mut();
        edit(&mut transaction);
        transaction.encode_update_v1()
    }

    fn take(&self, update: &[u8]) {
        let update = Update::decode_v1(update).expect("an update");
        self.0.transact_mut().apply_update(update).expect("it applies");
    }

    fn state(&self) -> Vec<u8> {
        self.0.transact().encode_state_as_update_v1(&StateVector::default())
    }

    fn state_vector(&self) -> Vec<u8> {
        self.0.transact().state_vector().encode_v1()
    }
}

/// Updates in the order in which a server gets them, at most 4 KB each way.
type History = Vec<Vec<u8>>;

fn histories() -> Vec<History> {
    let mut histories = vec![text(), formats(), maps(), arrays(), xml(), deep()];
    histories.extend(of_the_trace());
    for history in &mut histories {
        let whole = Author::new(99);
        history.iter().for_each(|update| whole.take(update));
        history.push(whole.state());
    }
    histories
}

/// The runs of a real concurrent history, from different places of it.
fn of_the_trace() -> Vec<History> {
    let trace = Concurrent::load();
    let authors: Vec<Author> = (0..trace.agents).map(|agent| Author::new(agent as u64 + 1)).collect();
    let mut all = Vec::new();
    let mut history = Vec::new();
    // Only insertions and deletions count here: who had seen what is simplified to "everything".
    for run in trace.runs().iter().take(400) {
        let author = &authors[run.agent];
        let text = author.0.get_or_insert_text("content");
        let update = author.edit(|transaction| {
            for edit in &run.edits {
                let length = text.len(transaction);
                let at = edit.position.min(length);
                let deleted = edit.deleted.min(length - at);
                if deleted > 0 {
                    text.remove_range(transaction, at, deleted);
                }
                if !edit.inserted.is_empty() {
                    text.insert(transaction, at, &edit.inserted);
                }
            }
        });
        authors
            .iter()
            .filter(|other| other.0.client_id() != author.0.client_id())
            .for_each(|o| o.take(&update));
        history.push(update);
        if history.iter().map(Vec::len).sum::<usize>() > 400 {
            if all.len() < 4 {
                all.push(std::mem::take(&mut history));
            }
            break;
        }
    }
    // The same two, offline from one another.
    let (one, two) = (Author::new(7), Author::new(8));
    let mut apart = Vec::new();
    for (n, author) in [&one, &two, &one, &two].into_iter().enumerate() {
        let text = author.0.get_or_insert_text("content");
        apart.push(author.edit(|transaction| {
            text.insert(transaction, 0, &format!("part {n} "));
            let end = text.len(transaction);
            text.remove_range(transaction, end / 2, end / 4);
        }));
    }
    all.push(apart);
    all
}

fn text() -> History {
    let author = Author::new(1);
    let text = author.0.get_or_insert_text("t");
    let mut history = Vec::new();
    for word in ["hello ", "é", "😀😀", "日本", "\n"] {
        history.push(author.edit(|transaction| {
            let end = text.len(transaction);
            text.insert(transaction, end / 2, word);
        }));
    }
    history.push(author.edit(|transaction| text.remove_range(transaction, 2, 5)));
    history
}

fn formats() -> History {
    let author = Author::new(2);
    let text = author.0.get_or_insert_text("t");
    vec![
        author.edit(|transaction| text.insert(transaction, 0, "bold and not")),
        author.edit(|transaction| {
            text.format(transaction, 2, 6, Attrs::from([("b".into(), Any::Bool(true))]));
        }),
        author.edit(|transaction| {
            text.insert_embed(transaction, 3, Any::from_json("{\"img\":[1,null,\"x\"]}").expect("JSON"));
        }),
        author.edit(|transaction| text.remove_range(transaction, 1, 8)),
    ]
}

fn maps() -> History {
    let (one, two) = (Author::new(3), Author::new(4));
    let (map, other) = (one.0.get_or_insert_map("m"), two.0.get_or_insert_map("m"));
    let mut history = vec![
        one.edit(|transaction| {
            map.insert(transaction, "k", 1.5);
        }),
        one.edit(|transaction| {
            map.insert(transaction, "k", MapPrelim::from([("inner", Any::Null)]));
        }),
        one.edit(|transaction| {
            map.insert(transaction, "doc", Doc::new());
        }),
    ];
    history.iter().for_each(|update| two.take(update));
    history.push(two.edit(|transaction| {
        other.insert(transaction, "k", TextPrelim::new("x"));
    }));
    history.push(one.edit(|transaction| {
        map.remove(transaction, "k");
    }));
    history.push(two.edit(|transaction| {
        other.insert(transaction, "key", vec![1u8, 2, 3]);
    }));
    history
}

fn arrays() -> History {
    let author = Author::new(5);
    let array = author.0.get_or_insert_array("a");
    vec![
        author.edit(|transaction| array.insert_range(transaction, 0, [1, 2, 3, 4])),
        author.edit(|transaction| {
            array.insert(transaction, 2, ArrayPrelim::from([Any::Bool(true), Any::Undefined]));
        }),
        author.edit(|transaction| array.remove_range(transaction, 1, 3)),
        author.edit(|transaction| {
            array.insert(transaction, 0, MapPrelim::from([("k", "v")]));
        }),
    ]
}

fn xml() -> History {
    let author = Author::new(6);
    let fragment = author.0.get_or_insert_xml_fragment("x");
    vec![
        author.edit(|transaction| {
            use yrs::Xml;
            let paragraph = fragment.insert(transaction, 0, XmlElementPrelim::empty("p"));
            paragraph.insert_attribute(transaction, "class", "c");
            paragraph.insert(transaction, 0, XmlTextPrelim::new("text"));
        }),
        author.edit(|transaction| {
            fragment.insert(transaction, 1, XmlElementPrelim::empty("hr"));
        }),
        author.edit(|transaction| fragment.remove_range(transaction, 0, 1)),
    ]
}

fn deep() -> History {
    let author = Author::new(10);
    let map = author.0.get_or_insert_map("m");
    vec![author.edit(|transaction| {
        let mut inner = map.insert(transaction, "d", MapPrelim::default());
        for _ in 0..20 {
            inner = inner.insert(transaction, "d", MapPrelim::default());
        }
    })]
}

/// What made yrs abort, panic or reserve gigabytes, by hand: docs/upstream.md.
fn hostile_updates() -> Vec<Vec<u8>> {
    let nested = [&[1, 1, 9, 0, 0x28, 1, 1, b'm', 1, b'k', 1][..], &[117, 1].repeat(100), &[126, 0]].concat();
    vec![
        vec![0xff, 0xff, 0xff, 0x7a],
        vec![1, 0xff, 0xff, 0xff, 0x7f, 1, 0],
        [&[1, 1, 9, 0, 4, 1, 1, b't'][..], &[0xff, 0xff, 0xff, 0x7f], b"x"].concat(),
        nested,
        // Two clients that wait for one another; a client listed twice; a parent that is no type.
        vec![2, 1, 1, 0, 0x84, 2, 0, 1, b'x', 1, 2, 0, 0x84, 1, 0, 1, b'y', 0],
        vec![2, 1, 1, 0, 4, 1, 1, b't', 1, b'x', 1, 1, 1, 4, 1, 1, b't', 1, b'x', 0],
        vec![1, 2, 1, 0, 4, 1, 1, b't', 1, b'x', 4, 0, 1, 0, 1, b'y', 0],
        // What docs/upstream.md reports.
        vec![1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 1],
        vec![2, 1, 2, 0, 0, 1, 1, 2, 0, 0, 2, 1, 2, 2, 4, 1, 0, 0],
        vec![2, 1, 1, 0, 0, 1, 1, 1, 0, 4, 1, 1, 116, 3, 97, 98, 99, 0],
        vec![
            2, 2, 2, 1, 4, 1, 1, 116, 1, 120, 10, 1, 2, 2, 0, 4, 1, 1, 116, 3, 97, 98, 99, 3, 1, 1, 116, 1,
            7, 0,
        ],
        vec![2, 2, 2, 2, 0, 2, 0, 1, 2, 2, 0, 1, 1, 1, 116, 3, 0, 1, 2, 2, 2, 3, 0, 1, 0, 1, 1, 4, 1],
    ]
}

fn documents(histories: &[History]) -> Seeds {
    let mut seeds = Vec::new();
    for (n, history) in histories.iter().enumerate() {
        let mut seed = Vec::new();
        for (at, update) in history.iter().enumerate() {
            steps::write(&mut seed, (at % 3) as u8, update);
            match at % 3 {
                0 => steps::write(&mut seed, 6, &[]),
                1 => steps::write(&mut seed, 5, &[1, n as u8 + 1, at as u8]),
                _ => steps::write(&mut seed, 7, update),
            }
        }
        seeds.push(seed);
        let mut backwards = Vec::new();
        history.iter().rev().skip(1).for_each(|update| steps::write(&mut backwards, 0, update));
        seeds.push(backwards);
    }
    let freed: [&[&[u8]]; 3] = [
        &[
            &[1, 1, 1, 0, 7, 1, 1, 116, 0, 0],
            &[1, 1, 1, 1, 36, 0, 1, 0, 1, 107, 3, 97, 98, 99, 0],
            &[0, 1, 1, 2, 3, 1, 0, 1],
        ],
        &[&[1, 1, 1, 1, 0, 1, 0], &[1, 1, 1, 0, 4, 1, 1, 116, 3, 97, 98, 99, 0]],
        &[&[1, 1, 1, 2, 0, 1, 1, 2, 1, 3, 1], &[2, 1, 1, 0, 1, 1, 1, 116, 1, 1, 1, 3, 68, 1, 3, 1, 120, 0]],
    ];
    for updates in freed {
        let mut seed = Vec::new();
        updates.iter().for_each(|update| steps::write(&mut seed, 0, update));
        seeds.push(seed);
    }
    // Choices for the inventor.
    for round in 0..6u32 {
        let mut seed = Vec::new();
        for step in 0..8u32 {
            let choice =
                |at: u32| (at * 7 + step * 31 + round * 101).wrapping_mul(2_654_435_761).to_be_bytes()[0];
            let choices: Vec<u8> = (0..60).map(choice).collect();
            steps::write(&mut seed, [3, 4, 3, 5, 4, 3, 6, 4][step as usize], &choices);
        }
        seeds.push(seed);
    }
    for update in hostile_updates() {
        let mut seed = Vec::new();
        steps::write(&mut seed, 0, &histories[0][0]);
        steps::write(&mut seed, 0, &update);
        seeds.push(seed);
    }
    numbered(seeds)
}

// --- messages

fn var(out: &mut Vec<u8>, bytes: &[u8]) {
    wiresocket::protocol::lib0::write_var_bytes(out, bytes);
}

fn sync_message(step: u8, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0, step];
    var(&mut message, payload);
    message
}

fn awareness(entries: &[(u64, u32, &str)]) -> Vec<u8> {
    use wiresocket::protocol::lib0::write_var_u64;
    let mut out = Vec::new();
    write_var_u64(&mut out, entries.len() as u64);
    for (client, clock, json) in entries {
        write_var_u64(&mut out, *client);
        write_var_u64(&mut out, u64::from(*clock));
        var(&mut out, json.as_bytes());
    }
    out
}

fn awareness_message(entries: &[(u64, u32, &str)]) -> Vec<u8> {
    let mut message = vec![1];
    var(&mut message, &awareness(entries));
    message
}

/// What a client says in its life, but for updates.
fn talk() -> Vec<Vec<u8>> {
    let author = Author::new(1);
    author.0.get_or_insert_text("t").insert(&mut author.0.transact_mut(), 0, "x");
    let mut token = vec![2, 0];
    var(&mut token, b"a.b.c");
    let mut with_version = token.clone();
    var(&mut with_version, b"4.8.0");
    vec![
        sync_message(0, &[0]),
        sync_message(0, &author.state_vector()),
        sync_message(1, &author.state()),
        sync_message(1, &[0, 0]),
        awareness_message(&[(1, 1, "{\"user\":{\"name\":\"x\"}}")]),
        awareness_message(&[(1, 2, "null")]),
        awareness_message(&[(5, 1, "{}"), (6, 1, "[1,2]"), (1, 9, "\"s\"")]),
        awareness_message(&[]),
        vec![3],
        token,
        with_version,
        vec![4, 2, 2, 0, 0],
        vec![5, 1, b's'],
        vec![7],
        vec![100, 1],
    ]
}

fn sync(histories: &[History]) -> Seeds {
    let mut seeds = Vec::new();
    let mut all = Vec::new();
    for message in talk() {
        steps::write(&mut all, 0, &message);
    }
    seeds.push(all);
    for history in histories {
        let mut seed = Vec::new();
        steps::write(&mut seed, 0, &sync_message(0, &[0]));
        for (at, update) in history.iter().enumerate() {
            steps::write(&mut seed, 3, update);
            if at % 2 == 1 {
                steps::write(&mut seed, 6, &[0; 20]);
                steps::write(&mut seed, 0, &sync_message(1, update));
            }
        }
        seeds.push(seed);
    }
    let mut stalls = Vec::new();
    for (at, message) in talk().iter().enumerate() {
        steps::write(&mut stalls, 7, &[0; 3][..at % 3]);
        steps::write(&mut stalls, 0, message);
        steps::write(&mut stalls, 5, b"pi");
    }
    seeds.push(stalls);
    for update in hostile_updates() {
        let mut seed = Vec::new();
        steps::write(&mut seed, 3, &update);
        seeds.push(seed);
    }
    numbered(seeds)
}

fn hocuspocus(histories: &[History]) -> Seeds {
    let mut seeds = Vec::new();
    for document in 0..3u8 {
        let mut all = Vec::new();
        for message in talk() {
            steps::write(&mut all, 1 + 8 * document, &message);
        }
        steps::write(&mut all, 0, &[9]);
        steps::write(&mut all, 0, &[10]);
        seeds.push(all);
    }
    for (n, history) in histories.iter().enumerate() {
        let mut seed = Vec::new();
        for (at, update) in history.iter().enumerate() {
            steps::write(&mut seed, 4 + 8 * ((n + at) % 3) as u8, update);
            if at % 3 == 2 {
                steps::write(&mut seed, 6, &[0; 35]);
                steps::write(&mut seed, 7, &[0; 3][..at % 3]);
            }
        }
        seeds.push(seed);
    }
    let mut raw = Vec::new();
    for key in ["shared", "a b", "x\0y\0z", ""] {
        let mut message = Vec::new();
        var(&mut message, key.as_bytes());
        message.extend([3]);
        steps::write(&mut raw, 0, &message);
    }
    seeds.push(raw);
    numbered(seeds)
}

fn awarenesses() -> Seeds {
    let updates = [
        awareness(&[(1, 1, "{}")]),
        awareness(&[(1, 1, "{\"cursor\":{\"anchor\":1,\"head\":[2]}}"), (2, 3, "null")]),
        awareness(&[(1, 2, "null")]),
        awareness(&[(1, u32::MAX, "1")]),
        awareness(&[(7, 0, "\"\\\"[[\""), (8, 0, "[[[[]]]]")]),
        awareness(&[(1, 1, "{")]),
        vec![0xff, 0xff, 0xff, 0x7a],
    ];
    let mut seeds = Vec::new();
    let mut all = Vec::new();
    for (at, update) in updates.iter().enumerate() {
        let mut seed = Vec::new();
        for session in 0..3u8 {
            steps::write(&mut seed, 6 + session, update);
            steps::write(&mut seed, 3, &[0; 40][..at * 5]);
            steps::write(&mut seed, (session + 1) % 3, &[]);
            steps::write(&mut seed, 9 + session, update);
        }
        seeds.push(seed);
        steps::write(&mut all, 6 + (at % 3) as u8, update);
    }
    seeds.push(all);
    numbered(seeds)
}

// --- the rest

fn heads() -> Seeds {
    let upgrade = |target: &str, more: &str| {
        format!(
            "GET {target} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        )
    };
    let heads = [
        upgrade("/notes", "Sec-WebSocket-Protocol: access_token, a.b.c\r\nOrigin: https://a.com\r\n"),
        upgrade("/?token=a.b.c/notes", ""),
        upgrade("/notes?access_token=a%2Eb.c&x=1", "Authorization: Bearer a.b.c\r\n"),
        upgrade("/", "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: ::1, x\r\n"),
        upgrade("http://h/notes/notes?token=t", "Content-Length: 0\r\n"),
        upgrade("/%6eotes", "Transfer-Encoding: chunked\r\n"),
        upgrade("/notes", "Host: other\r\n"),
        upgrade("/notes", "Upgrade: h2c, WebSocket\r\n").replace("13", "8"),
        "GET /health HTTP/1.1\r\nHost: h\r\n\r\nrest".to_owned(),
        "POST / HTTP/1.0\nHost: h\n\n".to_owned(),
        "\r\n\r\nGET / HTTP/1.1\r\n a: b\r\n\r\n".to_owned(),
        "GET /\0 HTTP/2.0\r\n\r\n".to_owned(),
    ];
    let kinds = [0, 1, 2, 0x81, 0xfe];
    let seeds = heads.iter().enumerate().map(|(at, head)| [&[kinds[at % 5]], head.as_bytes()].concat());
    numbered(seeds.collect::<Vec<_>>())
}

fn frames() -> Seeds {
    let frame = |first: u8, payload: &[u8]| {
        let mask = [1, 2, 3, 4];
        let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key);
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | short as u8),
            long => {
                frame.push(0x80 | 126);
                frame.extend((long as u16).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(masked);
        frame
    };
    let seeds = [
        frame(0x82, b"binary"),
        [frame(0x81, "téxt".as_bytes()), frame(0x89, b"ping"), frame(0x8a, b"")].concat(),
        [frame(0x01, &[0xc3]), frame(0x89, b"p"), frame(0x80, &[0xa9])].concat(),
        [frame(0x02, b"a"), frame(0x00, b""), frame(0x00, b"b"), frame(0x80, b"c"), frame(0x82, b"")]
            .concat(),
        frame(0x88, &[3, 0xe8, b'b', b'y', b'e']),
        frame(0x88, &[]),
        frame(0x82, &[7; 300]),
        frame(0x82, &[7; 2001]),
        [0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 1, 2, 3].to_vec(),
        [0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0].to_vec(),
        frame(0x00, b"x").repeat(10),
        [frame(0x02, b"x"), frame(0x00, b"x").repeat(9)].concat(),
        [0x82, 1, 3].to_vec(),
        frame(0xc2, b"x"),
        frame(0x83, b"x"),
    ];
    let pieces = [[1, 1, 1, 1], [2, 3, 5, 7], [14, 1, 255, 6]];
    let with_pieces = seeds.iter().enumerate().map(|(at, seed)| [&pieces[at % 3][..], seed].concat());
    numbered(with_pieces.collect::<Vec<_>>())
}

fn tokens() -> Seeds {
    let claims = token::claims();
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        [&[2][..], claims.to_string().as_bytes()].concat()
    };
    let headed = |header: &str| [&[1], header.as_bytes(), b"\n", claims.to_string().as_bytes()].concat();
    let seeds = vec![
        b"\0a.b.c".to_vec(),
        b"\0eyJhbGciOiJub25lIn0.e30.".to_vec(),
        headed(token::HEADER),
        headed(r#"{"alg":"none","kid":"k1"}"#),
        headed(r#"{"alg":"RS256","kid":"k1","typ":"at+jwt","x":[1,{"y":null}]}"#),
        headed(r#"{"alg":"RS256","alg":"RS256","kid":"k1","jku":"u"}"#),
        with("aud", json!(["WireSocket.API"])),
        with("scp", json!(["openid", "WireSocket.API"])),
        with("exp", json!(token::NOW as f64 + 0.5)),
        with("limits", json!({ "maxConnections": 0, "maxDocuments": -1, "opsPerMinute": 1e3 })),
        with("allowed_domain_2", json!("\u{e9}\\u0000")),
        with("tenantid", json!(token::TENANT.simple().to_string())),
        [&[2][..], claims.to_string().replacen('{', "{\"exp\":1,", 1).as_bytes()].concat(),
        vec![3, 0, 0, b'e'],
        vec![3, 60, 0, b'A', 100, 1, b'.', 250, 1, b'_'],
    ];
    numbered(seeds)
}

fn configs() -> Seeds {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder of configurations")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    paths.sort();
    // Without comments: they are most of the files, and nothing to the parser.
    let plain = |text: String| {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n").into_bytes()
    };
    let mut seeds: Vec<Vec<u8>> =
        paths.iter().map(|path| plain(std::fs::read_to_string(path).expect("a file"))).collect();
    let auth = "[auth]\nissuer = \"https://a.example\"\nkey_dir = \"/k\"\n";
    seeds.push(auth.into());
    seeds.push(format!("{auth}[node]\nlisten = \"[::1]:0\"\nshards = 3\ncpus = [3, \"5-7\"]\n").into());
    seeds.push(format!("{auth}[http]\ntrusted_proxies = [\"10.0.0.0/8\"]\nusage_per_minute = 0\n").into());
    seeds
        .push(format!("{auth}[limits]\nmessage_bytes_max = \"1.5 MiB\"\nhandshake_timeout_s = 2.5\n").into());
    seeds.push(b"[node]\nshard = 3\n[nod]\n[auth]\nissuer = 5\njwks_url = \"ftp://x\"\n".to_vec());
    seeds.push(b"[node\nx = [1, 2\n\"\"\"".to_vec());
    numbered(seeds)
}
