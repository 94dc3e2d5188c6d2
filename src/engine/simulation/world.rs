//! The node and its clients: engines as shards, the control shard's ledger and windows, the journal on a disk in memory,
//! sockets with simulated clients.
//!
//! Time moves only when a test moves it. With [`World::chaotic`] the order of everything that may happen next is drawn
//! from the seed, else it is as they came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::client::{self, End, Replica, Socket};
use super::network::Letter;
use super::promise::Promise;
use crate::auth::keys::Key;
use crate::auth::{Grant, KeySets, Limits, Policy, SigningKey, Verifier};
use crate::engine::document::Document;
use crate::engine::event::{Event, Opening, ShardIndex};
use crate::engine::slab::Slab;
use crate::engine::{Counters, Engine, Settings};
use crate::journal::log::{Log, LogSettings};
use crate::journal::memory::Memory;
use crate::journal::recovery::{Recovered, RecoveredDocument};
use crate::limits::{Ledger, OpsWindows, PushedLimits};
use crate::protocol::document::{AppId, DocumentId, DocumentName};
use crate::protocol::message::Wire;
use crate::splitmix;
use crate::time::Now;

/// Signs for everybody under `k1` and `k2`. Made once: in a debug build that takes a while.
static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().unwrap());

pub const TENANT: Uuid = Uuid::from_u128(0x1111_1111);
/// Whose apps are those from the third on.
pub const OTHER_TENANT: Uuid = Uuid::from_u128(0x2222_2222);
pub const UNIX_S: u64 = 1_800_000_000;
pub const LEEWAY_S: u64 = 30;

pub fn app(n: u128) -> AppId {
    AppId { tenant: if n < 3 { TENANT } else { OTHER_TENANT }, app: Uuid::from_u128(n) }
}

pub const WIDE: Limits = Limits {
    connections_max: 1000,
    documents_max: 1000,
    users_per_document_max: 100,
    ops_per_minute: 1_000_000,
};

/// splitmix64: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn below(&mut self, bound: u64) -> u64 {
        splitmix::next(&mut self.0) % bound
    }

    pub const fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

pub struct World {
    pub now: Now,
    pub random: Random,
    pub engines: Vec<Engine>,
    pub sockets: Vec<Socket>,
    pub ledger: Ledger,
    pub pushed: PushedLimits,
    pub windows: OpsWindows,
    /// The control shard leaves questions unanswered.
    pub mute: bool,
    /// What a refresh of the keys brings.
    pub newest_keys: Arc<KeySets>,
    /// Ops leased per app, for the exactness of meters.
    pub leased: BTreeMap<AppId, u64>,
    pub(super) leased_in: BTreeMap<(AppId, Duration), u64>,
    pub(super) connections: Vec<Slab<usize>>,
    pub(super) pipes: BTreeMap<(ShardIndex, ShardIndex), VecDeque<(Duration, Letter)>>,
    pub(super) delay_ms_max: u64,
    pub(super) chaotic: bool,
    /// Shards with a turn that is not written out yet.
    pub(super) open_turns: BTreeSet<usize>,
    pub(super) next_client: u64,
    /// If the settings keep anything.
    pub journal: Option<Log<Memory>>,
    /// Nothing is committed but by [`World::commit`].
    pub holds_commits: bool,
    /// Bytes a socket takes before the server's queue begins to count as full.
    pub outbox_bytes_max: usize,
    pub level: Level,
    /// The process has come to its end in a call to the disk, and nobody has looked yet.
    pub died: bool,
    /// The wall clock is ahead of what has passed by so many seconds.
    pub(super) wall_ahead_s: i64,
    /// What the server has said that it has stored, if that is looked after.
    pub promise: Option<Promise>,
    /// By the engines before the last crash.
    pub(super) counted_before: Counters,
    /// What went wrong, and how often.
    pub faults: BTreeMap<&'static str, u64>,
}

/// How the journal is kept.
#[derive(Debug, Clone, Copy)]
pub struct Level {
    pub syncs: bool,
    pub segment_bytes: u64,
}

impl Default for Level {
    fn default() -> Self {
        Self { syncs: true, segment_bytes: 600 }
    }
}

/// Both tenants' keys.
pub fn keys(ids: &[&str]) -> Arc<KeySets> {
    let keys: Vec<Key> = ids.iter().map(|id| KEY.public_key(id).unwrap()).collect();
    Arc::new(KeySets::default().with_tenant(TENANT, keys.clone()).with_tenant(OTHER_TENANT, keys))
}

pub(super) fn engines(shards: u16, settings: &Settings, seed: u64, keys: &Arc<KeySets>) -> Vec<Engine> {
    let policy = Policy { issuer: "i".to_owned(), leeway_s: LEEWAY_S, token_bytes_max: 8192 };
    let engine = |index| {
        let verifier = Verifier::new(policy.clone(), Arc::clone(keys), 64, 1);
        Engine::new(index, shards, settings.clone(), verifier, seed ^ u64::from(index))
    };
    (0..shards).map(engine).collect()
}

/// A token of key `key_id` that expires at `UNIX_S + lives_s`.
pub fn token_of(key_id: &str, app: AppId, limits: Limits, lives_s: u64) -> String {
    KEY.sign(key_id, &claims(app, limits, lives_s)).unwrap()
}

/// A token with these claims over the usual ones.
pub fn token_with(app: AppId, lives_s: u64, more: &serde_json::Value) -> String {
    token_of_with("k1", app, WIDE, lives_s, more)
}

pub fn token_of_with(
    key: &str,
    app: AppId,
    limits: Limits,
    lives_s: u64,
    more: &serde_json::Value,
) -> String {
    let mut claims = claims(app, limits, lives_s);
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    KEY.sign(key, &claims).unwrap()
}

fn claims(app: AppId, limits: Limits, lives_s: u64) -> serde_json::Value {
    json!({
        "iss": "i", "sub": "c", "aud": "WireSocket.API", "scope": "WireSocket.API",
        "tenantid": app.tenant.to_string(), "appId": app.app.to_string(), "licenseRegionCode": "r", "dbCode": "d",
        "exp": UNIX_S + lives_s,
        "limits": { "maxConnections": limits.connections_max, "maxDocuments": limits.documents_max,
            "maxUsersPerDoc": limits.users_per_document_max, "opsPerMinute": limits.ops_per_minute },
    })
}

pub fn token(app: AppId) -> String {
    token_of("k1", app, WIDE, 86_400)
}

impl World {
    pub fn new(shards: u16) -> Self {
        Self::with_settings(shards, Settings::default(), 1)
    }

    pub fn with_settings(shards: u16, settings: Settings, seed: u64) -> Self {
        Self { next_client: 1, ..Self::on_disk(shards, settings, seed, Memory::default()) }
    }

    /// With the journal at another level.
    pub fn at_level(shards: u16, settings: Settings, seed: u64, level: Level) -> Self {
        let (journal, _) = Self::open_journal(shards, &settings, level, Memory::default());
        Self { level, ..Self::with_journal(shards, settings, seed, journal) }
    }

    pub(super) fn open_journal(
        shards: u16,
        settings: &Settings,
        level: Level,
        disk: Memory,
    ) -> (Option<Log<Memory>>, Recovered) {
        let Some(retention) = settings.retention else { return (None, Recovered::default()) };
        let Level { syncs, segment_bytes } = level;
        let opened = Log::open(disk, LogSettings { syncs, segment_bytes, retention, shards, seed: 1 });
        let (log, recovered) = opened.expect("nothing is wrong with this disk");
        (Some(log), recovered)
    }

    /// A node that begins with what is on this disk, if its settings keep anything.
    pub fn on_disk(shards: u16, settings: Settings, seed: u64, disk: Memory) -> Self {
        let (journal, recovered) = Self::open_journal(shards, &settings, Level::default(), disk);
        let mut world = Self::with_journal(shards, settings, seed, journal);
        // Clients are others than before.
        world.next_client = 1 + seed * 10_000;
        world.recover(recovered);
        world
    }

    pub(super) fn recover(&mut self, recovered: Recovered) {
        for RecoveredDocument { id, contents } in recovered.documents {
            let shard = usize::from(id.shard(self.engines.len() as u16));
            let document = Box::new(Document::restored(contents));
            self.engines[shard].handle_event(self.now, Event::Recovered { id, document });
        }
    }

    fn with_journal(shards: u16, settings: Settings, seed: u64, journal: Option<Log<Memory>>) -> Self {
        let all_keys = keys(&["k1", "k2"]);
        Self {
            now: Now { monotonic: Duration::from_secs(1000), unix_s: UNIX_S },
            random: Random::new(seed),
            engines: engines(shards, &settings, seed, &all_keys),
            sockets: Vec::new(),
            ledger: Ledger::new(),
            pushed: PushedLimits::default(),
            windows: OpsWindows::new(),
            mute: false,
            newest_keys: all_keys,
            leased: BTreeMap::new(),
            leased_in: BTreeMap::new(),
            connections: (0..shards).map(|_| Slab::default()).collect(),
            pipes: BTreeMap::new(),
            delay_ms_max: 0,
            chaotic: false,
            open_turns: BTreeSet::new(),
            next_client: 1,
            journal,
            holds_commits: false,
            outbox_bytes_max: 1 << 20,
            level: Level::default(),
            died: false,
            wall_ahead_s: 0,
            promise: None,
            counted_before: Counters::default(),
            faults: BTreeMap::new(),
        }
    }

    pub fn chaotic(mut self, delay_ms_max: u64) -> Self {
        self.chaotic = true;
        self.delay_ms_max = delay_ms_max;
        self
    }

    // --- clients

    pub fn new_document(&mut self) -> yrs::Doc {
        self.next_client += 1;
        client::document(self.next_client - 1)
    }

    /// A name that this app's documents have on `shard`.
    pub fn name_on(&self, app: AppId, shard: ShardIndex, nth: usize) -> String {
        let shards = u16::try_from(self.engines.len()).unwrap();
        let on = |name: &String| {
            DocumentId { app, name: DocumentName::parse(name).unwrap() }.shard(shards) == shard
        };
        (0..).map(|n| format!("doc{n}")).filter(on).nth(nth).unwrap()
    }

    /// y-websocket: opens a document with the token of the upgrade and says step 1, as providers do.
    pub fn join(&mut self, app: AppId, name: &str) -> usize {
        let token = token(app);
        let doc = self.new_document();
        let socket = self.join_with(&token, name, doc);
        let step_one = self.sockets[socket].replicas[0].step_one();
        self.sockets[socket].send(0, &step_one);
        socket
    }

    /// The same, and it wants to hear which of its updates are stored.
    pub fn join_acknowledged(&mut self, app: AppId, name: &str) -> usize {
        let grant = self.engines[0].verify(self.now, &token(app)).expect("a good token");
        let doc = self.new_document();
        let socket = self.join_opening(grant, name, doc, true);
        let step_one = self.sockets[socket].replicas[0].step_one();
        self.sockets[socket].send(0, &step_one);
        socket
    }

    /// The same without a word.
    pub fn join_with(&mut self, token: &str, name: &str, doc: yrs::Doc) -> usize {
        let grant = self.engines[0].verify(self.now, token).expect("a good token");
        self.join_granted(grant, name, doc)
    }

    /// The same with a token that was checked before.
    pub fn join_granted(&mut self, grant: Arc<Grant>, name: &str, doc: yrs::Doc) -> usize {
        self.join_opening(grant, name, doc, false)
    }

    pub fn join_opening(
        &mut self,
        grant: Arc<Grant>,
        name: &str,
        doc: yrs::Doc,
        acknowledges: bool,
    ) -> usize {
        let document = DocumentName::parse(name).unwrap();
        let shards = u16::try_from(self.engines.len()).unwrap();
        let shard = DocumentId { app: grant.app, name: document.clone() }.shard(shards);
        let opening =
            Opening { document: Some(document), grant: Some(grant), acknowledges, ..Opening::default() };
        let mut socket = Socket::new(Wire::YWebsocket, "");
        socket.replicas.push(Replica { acknowledges, ..Replica::new(name, doc) });
        self.sockets.push(socket);
        // The shard that accepted it checked the token and hands it over to the document's.
        self.send(shard, shard, Letter::HandOver { socket: self.sockets.len() - 1, opening });
        self.sockets.len() - 1
    }

    /// A Hocuspocus socket without documents, accepted on `shard`.
    pub fn hocuspocus(&mut self, shard: ShardIndex, token: &str) -> usize {
        self.accept(shard, token, Opening::default())
    }

    /// The same, and the upgrade carried a token.
    pub fn hocuspocus_with_grant(&mut self, shard: ShardIndex, token: &str) -> usize {
        let grant: Arc<Grant> = self.engines[0].verify(self.now, token).expect("a good token");
        self.accept(shard, token, Opening { grant: Some(grant), ..Opening::default() })
    }

    fn accept(&mut self, shard: ShardIndex, token: &str, opening: Opening) -> usize {
        self.sockets.push(Socket::new(Wire::Hocuspocus, token));
        let socket = self.sockets.len() - 1;
        self.send(shard, shard, Letter::HandOver { socket, opening });
        socket
    }

    /// Adds a document to a Hocuspocus socket: Auth, and the rest follows by itself.
    pub fn attach(&mut self, socket: usize, key: &str) -> usize {
        let before = self.sockets[socket].detached.remove(key);
        let (doc, clock) = before.unwrap_or_else(|| (self.new_document(), 0));
        let token = self.sockets[socket].token.clone();
        self.sockets[socket].replicas.push(Replica { clock, acknowledges: true, ..Replica::new(key, doc) });
        let replica = self.sockets[socket].replicas.len() - 1;
        self.sockets[socket].send(replica, &client::auth(&token));
        replica
    }

    /// Takes a document off a Hocuspocus socket.
    pub fn detach(&mut self, socket: usize, replica: usize) {
        self.sockets[socket].send(replica, &client::LEAVE);
        let gone = self.sockets[socket].replicas.remove(replica);
        self.sockets[socket].detached.insert(gone.key, (gone.doc, gone.clock));
    }

    pub fn replica(&self, socket: usize) -> &Replica {
        &self.sockets[socket].replicas[0]
    }

    pub fn replica_mut(&mut self, socket: usize) -> &mut Replica {
        &mut self.sockets[socket].replicas[0]
    }

    /// Writes at the end of a document's text and sends the update.
    pub fn write(&mut self, socket: usize, text: &str) {
        let update = self.replica(socket).insert(u32::MAX, text);
        self.sockets[socket].send_update(0, &update);
    }

    /// Shows or renews a client's awareness.
    pub fn show(&mut self, socket: usize, replica: usize, json: &str) {
        let replica_of = &mut self.sockets[socket].replicas[replica];
        replica_of.clock += 1;
        let body = client::awareness(&[(replica_of.client(), replica_of.clock, json)]);
        self.sockets[socket].send(replica, &body);
    }

    /// The client's end of the socket goes, in whatever way.
    pub fn hang_up(&mut self, socket: usize) {
        let gone = &mut self.sockets[socket];
        if gone.end.is_some() {
            return;
        }
        gone.end = Some(End::ByClient);
        if let Some((shard, connection)) = gone.place.take() {
            self.carry_out(usize::from(shard));
            self.connections[usize::from(shard)].remove(connection);
            self.tell(usize::from(shard), Event::Closed { connection });
        }
    }

    /// How the server ended it.
    pub fn code(&self, socket: usize) -> Option<u16> {
        match &self.sockets[socket].end {
            Some(End::ByServer(refusal)) => Some(refusal.code()),
            _ => None,
        }
    }
}
