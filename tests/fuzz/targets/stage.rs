//! A shard's engine with two sockets: a hostile one, which sends what the fuzzer likes and comes back whenever it is
//! closed, and an honest reader of the same document, to whom nothing may happen.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use uuid::Uuid;
use wiresocket::auth::{Grant, KeySets, Limits, Permissions, Policy, Verifier};
use wiresocket::engine::batch::Batch;
use wiresocket::engine::document::Document;
use wiresocket::engine::event::{ConnectionId, Effect, Event, Incoming, Opening};
use wiresocket::engine::prescan::{Scan, ScanLimits, scan};
use wiresocket::engine::slab::Slab;
use wiresocket::engine::{Engine, Settings};
use wiresocket::protocol::document::{AppId, DocumentName};
use wiresocket::protocol::lib0;
use wiresocket::protocol::message::Message;
use wiresocket::time::Now;

/// The document in which both are.
pub const SHARED: &str = "shared";

pub struct Stage {
    engine: Engine,
    now: Now,
    sockets: Slab<()>,
    honest: ConnectionId,
    hostile: Option<ConnectionId>,
    /// What the honest one has, made of what it was sent.
    replica: Document,
    scan: Scan,
    grant: Arc<Grant>,
}

/// A sync message in a y-websocket's framing.
pub fn sync(step: u8, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0, step];
    lib0::write_var_bytes(&mut message, payload);
    message
}

fn grant() -> Grant {
    let limits = Limits {
        connections_max: 100,
        documents_max: 100,
        users_per_document_max: 100,
        ops_per_minute: 1_000_000,
    };
    Grant {
        app: AppId { tenant: Uuid::from_u128(1), app: Uuid::from_u128(2) },
        client_id: "c".into(),
        key_id: "k".into(),
        limits,
        permissions: Permissions::default(),
        region: "r".into(),
        db_code: "d".into(),
        allowed_domains: SmallVec::new(),
        issued_unix_s: 0,
        expires_unix_s: u64::MAX / 2,
        token_id: None,
    }
}

impl Stage {
    pub fn new() -> Self {
        let policy = Policy { issuer: "i".to_owned(), leeway_s: 30, token_bytes_max: 8192 };
        let verifier = Verifier::new(policy, Arc::new(KeySets::default()), 4, 1);
        let settings =
            Settings { message_bytes_max: 1 << 16, document_bytes_max: 1 << 18, ..Settings::default() };
        let mut sockets = Slab::default();
        let honest = sockets.insert(());
        let mut stage = Self {
            engine: Engine::new(0, 1, settings, verifier, 1),
            now: Now { monotonic: Duration::from_secs(1000), unix_s: 1_800_000_000 },
            sockets,
            honest,
            hostile: None,
            replica: Document::default(),
            scan: Scan::new(),
            grant: Arc::new(grant()),
        };
        stage.open(honest, Some(SHARED));
        stage.receive(honest, Incoming::Binary(&sync(0, &[0])));
        stage
    }

    fn open(&mut self, connection: ConnectionId, document: Option<&str>) {
        let document = document.map(|name| DocumentName::parse(name).expect("a name"));
        let grant = Some(Arc::clone(&self.grant));
        let opening = Opening { document, grant, ..Opening::default() };
        self.hear(Event::Opened { connection, opening });
    }

    /// The hostile socket; a new one if the last was closed, which says `first` before anything else.
    pub fn hostile(&mut self, document: Option<&str>, first: &[&[u8]]) -> ConnectionId {
        if let Some(hostile) = self.hostile {
            return hostile;
        }
        let connection = self.sockets.insert(());
        self.hostile = Some(connection);
        self.open(connection, document);
        for message in first {
            self.receive(connection, Incoming::Binary(message));
        }
        self.hostile.expect("a new socket is let in")
    }

    pub fn receive(&mut self, connection: ConnectionId, message: Incoming<'_>) {
        self.hear(Event::Received { connection, message });
    }

    /// The hostile one's queue fills, moves or empties.
    pub fn queue(&mut self, hostile: ConnectionId, which: usize) {
        self.hear(match which % 3 {
            0 => Event::Stalled { connection: hostile },
            1 => Event::Progressed { connection: hostile },
            _ => Event::Resumed { connection: hostile },
        });
    }

    /// Time passes, in which the honest one shows now and then that it lives.
    pub fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds.div_ceil(10) {
            self.now = self.now.after(Duration::from_secs(10));
            self.receive(self.honest, Incoming::Pong);
            self.engine.handle_timeout(self.now);
            self.end_turn();
        }
    }

    /// One event, and the end of its turn.
    pub fn hear(&mut self, event: Event<'_>) {
        self.engine.handle_event(self.now, event);
        self.end_turn();
    }

    fn end_turn(&mut self) {
        let mut batch = Batch::default();
        loop {
            let carried_out = self.carry_out_effects();
            let mut sent = false;
            while self.engine.poll_transmit(self.now, &mut batch) {
                sent = true;
                for (connection, bytes) in batch.iter() {
                    if connection == self.honest {
                        read_frames(bytes, &mut self.replica, &mut self.scan);
                    }
                }
                batch.clear();
            }
            if !carried_out && !sent {
                break;
            }
        }
        let counters = self.engine.counters();
        assert_eq!(counters.crdt_panics, 0, "the CRDT panicked");
    }

    /// The control shard's part: it grants everything at once.
    fn carry_out_effects(&mut self) -> bool {
        let mut any = false;
        while let Some(effect) = self.engine.poll_effect() {
            any = true;
            let event = match effect {
                Effect::Reserve { ticket, limits, .. } => Event::Reserved { ticket, outcome: Ok(limits) },
                Effect::LeaseOps { app, wanted, .. } => {
                    let window_ends = self.now.monotonic + Duration::from_secs(60);
                    Event::OpsLeased { app, granted: wanted, window_ends }
                }
                Effect::RefreshKeys { ticket, .. } => Event::KeysRefreshed { ticket },
                Effect::Close { connection, refusal } => {
                    assert!(connection != self.honest, "the honest one is closed: {refusal:?}");
                    self.sockets.remove(connection);
                    self.hostile = None;
                    continue;
                }
                Effect::Denied { connection, refusal } => {
                    assert!(connection != self.honest, "the honest one is denied: {refusal:?}");
                    continue;
                }
                Effect::Append { .. } | Effect::Keep { .. } | Effect::Load { .. } => {
                    panic!("there is no journal")
                }
                Effect::Mail { .. } | Effect::Move { .. } => panic!("there is one shard"),
                Effect::Release { .. } => continue,
            };
            self.engine.handle_event(self.now, event);
        }
        any
    }

    /// What the honest one was sent is what a newcomer gets.
    pub fn check(mut self) {
        assert!(self.engine.knows(self.honest));
        if let Some(hostile) = self.hostile.take() {
            self.sockets.remove(hostile);
            self.hear(Event::Closed { connection: hostile });
        }
        let known = self.replica.state().clone();
        self.replica = Document::default();
        self.receive(self.honest, Incoming::Binary(&sync(0, &[0])));
        assert_eq!(*self.replica.state(), known, "a newcomer gets something else than was relayed");
    }
}

/// Takes in what the honest one was sent: whole frames of messages that it can read, in an order that lacks nothing.
fn read_frames(mut bytes: &[u8], replica: &mut Document, buffer: &mut Scan) {
    while let Some((&[first, length], rest)) = bytes.split_first_chunk() {
        let (length, rest) = match length {
            126 => rest.split_first_chunk().map(|(l, rest)| (u64::from(u16::from_be_bytes(*l)), rest)),
            127 => rest.split_first_chunk().map(|(l, rest)| (u64::from_be_bytes(*l), rest)),
            short => Some((u64::from(short), rest)),
        }
        .expect("a length");
        let (payload, rest) = rest.split_at(length as usize);
        bytes = rest;
        assert_eq!(first & 0x80, 0x80, "servers send whole messages");
        if first & 15 != 2 {
            continue;
        }
        match Message::parse(payload).expect("servers send messages") {
            Message::StepTwo(update) | Message::Update(update) => {
                let limits = ScanLimits { nesting_max: u32::MAX, ..ScanLimits::default() };
                scan(update, &limits, buffer).expect("only what passed the scan is relayed");
                match replica.apply(update, buffer, usize::MAX) {
                    Ok(_) => {}
                    // The whole state at once may pass what its pieces did not.
                    Err(wiresocket::engine::document::ApplyError::TooDeep { .. }) => {}
                    Err(error) => panic!("relayed, but not to be applied: {error}"),
                }
            }
            Message::StepOne(_) | Message::Awareness(_) => {}
            other => panic!("a y-websocket was sent {other:?}"),
        }
    }
    assert!(bytes.is_empty());
}
