//! The paths that run for every message and every handshake, each as a case that is prepared, run once and dropped.
//!
//! `make bench` times them, `make bench-instructions` counts their instructions; only the run is measured.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use wiresocket::engine::document::Document;
use wiresocket::engine::event::Opening;
use wiresocket::engine::prescan::{Scan, ScanLimits, scan};
use wiresocket::limits::{Claim, Ledger, OpsWindows};
use wiresocket::protocol::message::{Framing, Message, write_token};
use wiresocket::protocol::request::{self, HeadLimits};
use wiresocket::protocol::websocket::{FrameLimits, Reader};

use crate::room::{Room, Shard, app, grant, name_on, now};
use crate::{Issuer, LIMITS, UNIX_S, awareness_message, client_frame, paste, state, sync_message, typing};

const DOCUMENT_BYTES_MAX: usize = 1 << 30;
/// Operations in one run of a case that is cheap, so that what surrounds it doesn't count.
const MANY: u32 = 1000;

/// One run of a path. What it holds is dropped outside of what is measured.
pub type Case = Box<dyn FnMut()>;

/// Something to measure.
pub struct Path {
    pub name: &'static str,
    /// How many operations one run of a case has.
    pub operations: u32,
    /// Makes, once, what all cases share, and returns what makes a case.
    pub prepare: fn() -> Box<dyn FnMut() -> Case>,
}

impl std::fmt::Debug for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Path").field("name", &self.name).finish_non_exhaustive()
    }
}

const fn path(name: &'static str, operations: u32, prepare: fn() -> Box<dyn FnMut() -> Case>) -> Path {
    Path { name, operations, prepare }
}

pub const PATHS: &[Path] = &[
    path("frame: parse and unmask an update", MANY, parse_frames),
    path("upgrade: parse the request head", 1, parse_head),
    path("message: parse an update", MANY, parse_messages),
    path("message: encode an update for relaying", MANY, encode_updates),
    path("pre-scan: one character", MANY, prescan_characters),
    path("pre-scan: a paste of 1,000 characters", MANY, prescan_pastes),
    path("apply: a character, in an empty document", MANY, || apply_behind(0)),
    path("apply: a character, behind a run of 10,000", MANY, || apply_behind(10_000)),
    path("apply: a character, behind a run of 19,000", MANY, || apply_behind(19_000)),
    path("apply: a paste of 1,000 characters", 1, apply_paste),
    path("turn: 1 update to 1 receiver", 100, || turns(2, 1)),
    path("turn: 1 update to 49 receivers", 100, || turns(50, 1)),
    path("turn: 10 updates, out to 50 receivers", 100, || turns(50, 10)),
    path("awareness: a cursor to 49 others", 100, awareness),
    path("join: upgrade done to step 2, empty document", 1, join),
    path("join: state of 10,000 characters, kept", 1, || join_state(0)),
    path("join: state of 10,000 characters, 100 behind", 1, || join_state(100)),
    path("hand-over: a Hocuspocus socket to its document's shard", 1, hand_over),
    path("token: seen before", MANY, token_seen),
    path("token: never seen", 1, token_new),
    path("ledger: claim and release", MANY, ledger),
    path("ops: lease", MANY, ops),
];

/// A path whose runs leave things as they were: one state for all of them.
fn steady(run: impl FnMut() + 'static) -> Box<dyn FnMut() -> Case> {
    let run = std::rc::Rc::new(std::cell::RefCell::new(run));
    Box::new(move || {
        let run = std::rc::Rc::clone(&run);
        Box::new(move || (run.borrow_mut())())
    })
}

fn a_character() -> Vec<u8> {
    typing(2).pop().expect("two updates")
}

fn parse_frames() -> Box<dyn FnMut() -> Case> {
    let frame = client_frame(&sync_message(&a_character()));
    let limits = FrameLimits { message_bytes_max: 1 << 20, fragments_max: 16 };
    Box::new(move || {
        // Frames that came in one read: unmasking changes the bytes, so each run has its own.
        let mut bytes = frame.repeat(MANY as usize);
        let mut reader = Reader::new();
        Box::new(move || {
            let mut input = bytes.as_mut_slice();
            let mut frames = 0;
            while let Ok(Some(frame)) = reader.next(&mut input, &limits) {
                black_box(frame);
                frames += 1;
            }
            assert_eq!(frames, MANY);
        })
    })
}

fn parse_head() -> Box<dyn FnMut() -> Case> {
    let token = Issuer::default().token(0);
    let head = format!(
        "GET /document-1 HTTP/1.1\r\nHost: sync.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Origin: https://app.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: access_token, {token}\r\n\r\n"
    );
    let limits = HeadLimits { head_bytes_max: 32 << 10, ..HeadLimits::default() };
    steady(move || {
        assert!(matches!(
            request::parse(black_box(head.as_bytes()), &limits),
            Ok(request::Status::Complete(_))
        ));
    })
}

fn parse_messages() -> Box<dyn FnMut() -> Case> {
    let message = sync_message(&a_character());
    steady(move || {
        for _ in 0..MANY {
            black_box(Message::parse(black_box(&message))).expect("a message");
        }
    })
}

fn encode_updates() -> Box<dyn FnMut() -> Case> {
    let update = a_character();
    let mut out = Vec::with_capacity(1 << 20);
    steady(move || {
        out.clear();
        for _ in 0..MANY {
            Framing::YWebsocket.update(&mut out, black_box(&update));
        }
        black_box(&out);
    })
}

fn prescan_characters() -> Box<dyn FnMut() -> Case> {
    prescans(a_character())
}

fn prescan_pastes() -> Box<dyn FnMut() -> Case> {
    prescans(paste(1000))
}

fn prescans(update: Vec<u8>) -> Box<dyn FnMut() -> Case> {
    let mut found = Scan::default();
    steady(move || {
        for _ in 0..MANY {
            scan(black_box(&update), &ScanLimits::default(), &mut found).expect("genuine");
        }
    })
}

fn apply(document: &mut Document, updates: &[Vec<u8>]) {
    let mut found = Scan::default();
    for update in updates {
        scan(update, &ScanLimits::default(), &mut found).expect("genuine");
        document.apply(update, &found, DOCUMENT_BYTES_MAX).expect("it applies");
    }
}

/// Pre-scan and apply, of characters that continue a run of `run`.
fn apply_behind(run: usize) -> Box<dyn FnMut() -> Case> {
    let updates: Arc<[Vec<u8>]> = typing(run as u32 + MANY).into();
    let before = (run > 0).then(|| state(&updates[..run]));
    Box::new(move || {
        let mut document = Document::default();
        apply(&mut document, before.as_slice());
        let updates = Arc::clone(&updates);
        Box::new(move || apply(&mut document, &updates[run..]))
    })
}

fn apply_paste() -> Box<dyn FnMut() -> Case> {
    let updates: Arc<[Vec<u8>]> = [paste(1000)].into();
    Box::new(move || {
        let (mut document, updates) = (Document::default(), Arc::clone(&updates));
        Box::new(move || apply(&mut document, &updates))
    })
}

/// A hundred turns of a room of `clients`; in each, every writer types a character.
fn turns(clients: u32, writers: u32) -> Box<dyn FnMut() -> Case> {
    let grant = grant();
    Box::new(move || {
        let mut room = Room::new(clients, writers, 100, &grant);
        let receivers = if writers == 1 { clients - 1 } else { clients } as usize;
        Box::new(move || {
            for _ in 0..100 {
                assert_eq!(room.turn(), receivers);
            }
        })
    })
}

fn awareness() -> Box<dyn FnMut() -> Case> {
    let grant = grant();
    Box::new(move || {
        let mut room = Room::new(50, 0, 0, &grant);
        let messages: Vec<_> = (1..=100).map(|clock| awareness_message(9, clock)).collect();
        Box::new(move || {
            for message in &messages {
                room.shard.receive(room.clients[0], message);
                black_box(room.shard.write());
            }
        })
    })
}

fn join() -> Box<dyn FnMut() -> Case> {
    let (name, grant) = (name_on(0, 1), grant());
    Box::new(move || {
        let mut shard = Shard::without_keys(0, 1);
        let (name, grant) = (name.clone(), Arc::clone(&grant));
        Box::new(move || {
            shard.join(&name, &grant);
            assert_eq!(shard.write().0, 1);
        })
    })
}

/// What a newcomer gets, when `behind` updates came since the state was last encoded.
fn join_state(behind: usize) -> Box<dyn FnMut() -> Case> {
    let updates = typing(10_000);
    let before = [state(&updates[..10_000 - behind])];
    Box::new(move || {
        let mut document = Document::default();
        apply(&mut document, &before);
        document.encode();
        apply(&mut document, &updates[10_000 - behind..]);
        Box::new(move || {
            black_box(document.encode());
        })
    })
}

/// Auth arrives on shard 0, the document lives on shard 1: until the answer is ready there.
fn hand_over() -> Box<dyn FnMut() -> Case> {
    let issuer = Issuer::default();
    let token = issuer.token(0);
    let name = name_on(1, 2).to_string();
    let mut auth = vec![u8::try_from(name.len()).expect("a short name")];
    auth.extend_from_slice(name.as_bytes());
    write_token(&mut auth, &token);
    Box::new(move || {
        let mut shards = [0, 1].map(|index| Shard::new(index, 2, issuer.verifier(1)));
        // Where the token is known, a hand-over is all that is left to measure.
        for shard in &mut shards {
            shard.engine.verify(now(), &token).expect("a good token");
        }
        let auth = auth.clone();
        Box::new(move || {
            let [here, there] = &mut shards;
            let socket = here.open(Opening::default());
            here.receive(socket, &auth);
            there.open(here.take_moved().expect("moved"));
            assert_eq!(there.write().0, 1);
        })
    })
}

fn token_seen() -> Box<dyn FnMut() -> Case> {
    let issuer = Issuer::default();
    let (mut verifier, token) = (issuer.verifier(1), issuer.token(0));
    verifier.verify(UNIX_S, &token).expect("a good token");
    steady(move || {
        for _ in 0..MANY {
            verifier.verify(UNIX_S, black_box(&token)).expect("a good token");
        }
    })
}

fn token_new() -> Box<dyn FnMut() -> Case> {
    let issuer = Issuer::default();
    // Four times what the verifier remembers: when they come round again, they are as new.
    let tokens: Vec<_> = (0..64).map(|number| issuer.token(number)).collect();
    let mut verifier = issuer.verifier(tokens.len() / 4);
    let mut next = (0..tokens.len()).cycle();
    steady(move || {
        let token = &tokens[next.next().expect("a cycle")];
        verifier.verify(UNIX_S, black_box(token)).expect("a good token");
    })
}

fn ledger() -> Box<dyn FnMut() -> Case> {
    let claim = Claim { app: app(), connection: true, document: Some(7) };
    let mut ledger = Ledger::new();
    steady(move || {
        for _ in 0..MANY {
            ledger.reserve(black_box(claim), LIMITS).expect("there is room");
            ledger.release(claim);
        }
    })
}

fn ops() -> Box<dyn FnMut() -> Case> {
    let mut windows = OpsWindows::new();
    let mut now = Duration::from_secs(1000);
    steady(move || {
        now += Duration::from_millis(100);
        for _ in 0..MANY {
            black_box(windows.lease(now, app(), LIMITS.ops_per_minute, 100));
        }
    })
}
