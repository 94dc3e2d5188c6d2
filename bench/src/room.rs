//! A document with clients, as a shard's engine holds it: no sockets, and a control shard that says yes to everything.
//!
//! What goes in and comes out is what a shard's loop would read and write, without the WebSocket frames on the way in.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use wiresocket::auth::{Grant, KeySets, Policy, Verifier};
use wiresocket::engine::batch::Batch;
use wiresocket::engine::event::{Effect, Event, Incoming, Opening};
use wiresocket::engine::slab::{Key, Slab};
use wiresocket::engine::{Engine, Settings};
use wiresocket::journal::Reply;
use wiresocket::protocol::document::{AppId, DocumentId, DocumentName};
use wiresocket::time::Now;

use crate::{Issuer, LIMITS, TENANT, UNIX_S, sync_message, typing_by};

/// What a client without anything says first: step 1 with an empty state vector.
const STEP_ONE: [u8; 4] = [0, 0, 1, 0];

/// One shard of `shards`, and the names of its sockets.
#[derive(Debug)]
pub struct Shard {
    pub engine: Engine,
    sockets: Slab<()>,
    batch: Batch,
    moved: Option<Opening>,
}

#[must_use]
pub const fn now() -> Now {
    Now { monotonic: Duration::from_secs(1000), unix_s: UNIX_S }
}

#[must_use]
pub fn app() -> AppId {
    AppId { tenant: TENANT, app: Uuid::from_u128(2) }
}

/// A name that a node with `shards` shards keeps on `shard`.
///
/// # Panics
/// Never: one of the first names is.
#[must_use]
pub fn name_on(shard: u16, shards: u16) -> DocumentName {
    (0..1000)
        .map(|number| DocumentName::parse(&format!("document-{number}")).expect("a good name"))
        .find(|name| DocumentId { app: app(), name: name.clone() }.shard(shards) == shard)
        .expect("a name for each shard")
}

impl Shard {
    #[must_use]
    pub fn new(index: u16, shards: u16, verifier: Verifier) -> Self {
        let engine = Engine::new(index, shards, Settings::default(), verifier, 1);
        Self { engine, sockets: Slab::default(), batch: Batch::default(), moved: None }
    }

    #[must_use]
    pub fn without_keys(index: u16, shards: u16) -> Self {
        let policy = Policy { issuer: "i".into(), leeway_s: 30, token_bytes_max: 16 << 10 };
        Self::new(index, shards, Verifier::new(policy, Arc::new(KeySets::default()), 0, 1))
    }

    /// A socket whose upgrade is done.
    pub fn open(&mut self, opening: Opening) -> Key {
        let connection = self.sockets.insert(());
        self.engine.handle_event(now(), Event::Opened { connection, opening });
        self.answer();
        connection
    }

    /// A y-websocket client of `name`, with a grant, up to its step 1.
    pub fn join(&mut self, name: &DocumentName, grant: &Arc<Grant>) -> Key {
        let (document, grant) = (Some(name.clone()), Some(Arc::clone(grant)));
        let connection = self.open(Opening { document, grant, ..Opening::default() });
        self.receive(connection, &STEP_ONE);
        connection
    }

    pub fn receive(&mut self, connection: Key, message: &[u8]) {
        let message = Incoming::Binary(message);
        self.engine.handle_event(now(), Event::Received { connection, message });
        self.answer();
    }

    pub fn close(&mut self, connection: Key) {
        self.engine.handle_event(now(), Event::Closed { connection });
        self.answer();
        self.sockets.remove(connection);
    }

    /// Ends the turn: the bytes for every socket, into one buffer that is used again. How many sockets and bytes.
    pub fn write(&mut self) -> (usize, usize) {
        let (mut sockets, mut bytes) = (0, 0);
        while self.engine.poll_transmit(now(), &mut self.batch) {
            for (_, written) in self.batch.iter() {
                sockets += 1;
                bytes += written.len();
            }
            self.batch.clear();
        }
        self.answer();
        (sockets, bytes)
    }

    /// The opening of the socket that was moved to another shard.
    pub const fn take_moved(&mut self) -> Option<Opening> {
        self.moved.take()
    }

    fn answer(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                // Everything is stored at once.
                Effect::Append { number, .. } => {
                    let stored = Reply::Stored { through: number, awaited: false };
                    self.engine.handle_event(now(), Event::Journal(stored));
                }
                Effect::Keep { .. } | Effect::Load { .. } => {}
                Effect::Reserve { ticket, .. } => {
                    self.engine.handle_event(now(), Event::Reserved { ticket, outcome: Ok(LIMITS) });
                }
                Effect::LeaseOps { app, .. } => {
                    let window_ends = now().monotonic + Duration::from_secs(60);
                    let lease = Event::OpsLeased { app, granted: u32::MAX, window_ends };
                    self.engine.handle_event(now(), lease);
                }
                Effect::Move { opening, .. } => self.moved = Some(opening),
                Effect::Close { refusal, .. } | Effect::Denied { refusal, .. } => {
                    panic!("refused: {refusal:?}")
                }
                Effect::Release { .. } | Effect::RefreshKeys { .. } | Effect::Mail { .. } => {}
            }
        }
    }
}

/// A document with clients that are all in sync, some of which type.
#[derive(Debug)]
pub struct Room {
    pub shard: Shard,
    pub clients: Vec<Key>,
    /// For each writer, the messages that are still to come, the next one last.
    typing: Vec<Vec<Vec<u8>>>,
}

impl Room {
    /// Each of the first `writers` clients has `updates` characters to type.
    #[must_use]
    pub fn new(clients: u32, writers: u32, updates: u32, grant: &Arc<Grant>) -> Self {
        let (mut shard, name) = (Shard::without_keys(0, 1), name_on(0, 1));
        let clients = (0..clients).map(|_| shard.join(&name, grant)).collect();
        shard.write();
        let typing = (0..writers).map(|writer| {
            let updates = typing_by(u64::from(writer) + 100, updates);
            updates.iter().rev().map(|update| sync_message(update)).collect()
        });
        Self { typing: typing.collect(), shard, clients }
    }

    /// Every writer types one character; then the turn ends. How many sockets got something.
    ///
    /// # Panics
    /// When the updates are used up.
    pub fn turn(&mut self) -> usize {
        for (writer, messages) in self.typing.iter_mut().enumerate() {
            let message = messages.pop().expect("as many updates as turns");
            self.shard.receive(self.clients[writer], &message);
        }
        self.shard.write().0
    }
}

/// What a verified token allows.
///
/// # Panics
/// Never: the token is good.
#[must_use]
pub fn grant() -> Arc<Grant> {
    let issuer = Issuer::default();
    issuer.verifier(1).verify(UNIX_S, &issuer.token(0)).expect("a good token")
}
