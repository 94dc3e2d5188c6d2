//! A node without I/O: engines as shards, the control shard's ledger and windows, sockets with simulated clients, and a
//! network between all of them that delays what it carries and reorders it between, never within, pairs.
//!
//! Time moves only when a test moves it. With [`World::chaotic`] the order of everything that may happen next is drawn
//! from the seed, else it is as they came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustc_hash::FxHashSet;
use serde_json::json;
use uuid::Uuid;

use super::client::{self, End, Replica, Socket};
use crate::auth::{Grant, KeySets, Limits, Policy, SigningKey, Verifier};
use crate::engine::batch::Batch;
use crate::engine::connection::Channel;
use crate::engine::document::Document;
use crate::engine::event::{Effect, Event, Incoming, Mail, Opening, ShardIndex, Ticket};
use crate::engine::slab::Slab;
use crate::engine::{Engine, Settings};
use crate::journal::log::{Log, LogSettings};
use crate::journal::memory::Memory;
use crate::journal::recovery::{Recovered, RecoveredDocument};
use crate::journal::{Command, Reply};
use crate::limits::{Claim, Exceeded, Ledger, OpsWindows, PushedLimits};
use crate::protocol::document::{AppId, DocumentId, DocumentName};
use crate::protocol::message::Wire;
use crate::time::Now;

/// Signs for everybody under `k1` and `k2`. Made once: in a debug build that takes a while.
static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().unwrap());

pub const TENANT: Uuid = Uuid::from_u128(0x1111_1111);
pub const UNIX_S: u64 = 1_800_000_000;
pub const LEEWAY_S: u64 = 30;

/// The control shard's place in the network.
const CONTROL: ShardIndex = u16::MAX;

pub fn app(n: u128) -> AppId {
    AppId { tenant: TENANT, app: Uuid::from_u128(n) }
}

pub const WIDE: Limits = Limits {
    connections_max: 1000,
    documents_max: 1000,
    users_per_document_max: 100,
    ops_per_minute: 1_000_000,
};

/// The journal's place in it.
const JOURNAL: ShardIndex = u16::MAX - 1;

/// What the network carries.
enum Letter {
    Mail(Mail),
    HandOver { socket: usize, opening: Opening },
    Reserve { ticket: Ticket, claim: Claim, limits: Limits, issued_unix_s: u64 },
    Release(Claim),
    LeaseOps { app: AppId, ops_per_minute: u32, wanted: u32 },
    RefreshKeys { ticket: Ticket },
    Reserved { ticket: Ticket, outcome: Result<Limits, Exceeded> },
    OpsLeased { app: AppId, granted: u32, window_ends: Duration },
    KeysRefreshed { ticket: Ticket },
    Keys(Arc<KeySets>),
    KeyRevoked { tenant: Uuid, key_id: Arc<str> },
    Drain { over: Duration },
    Accept,
    Journal(Reply),
}

/// splitmix64: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
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
    connections: Vec<Slab<usize>>,
    pipes: BTreeMap<(ShardIndex, ShardIndex), VecDeque<(Duration, Letter)>>,
    delay_ms_max: u64,
    chaotic: bool,
    /// Shards with a turn that is not written out yet.
    open_turns: BTreeSet<usize>,
    next_client: u64,
    /// If the settings keep anything.
    pub journal: Option<Log<Memory>>,
    /// Nothing is committed but by [`World::commit`].
    pub holds_commits: bool,
    /// Bytes a socket takes before the server's queue begins to count as full.
    pub outbox_bytes_max: usize,
}

pub fn keys(ids: &[&str]) -> Arc<KeySets> {
    let keys = ids.iter().map(|id| KEY.public_key(id).unwrap()).collect();
    Arc::new(KeySets::default().with_tenant(TENANT, keys))
}

/// A token of key `key_id` that expires at `UNIX_S + lives_s`.
pub fn token_of(key_id: &str, app: AppId, limits: Limits, lives_s: u64) -> String {
    KEY.sign(key_id, &claims(app, limits, lives_s)).unwrap()
}

/// A token with these claims over the usual ones.
pub fn token_with(app: AppId, lives_s: u64, more: &serde_json::Value) -> String {
    let mut claims = claims(app, WIDE, lives_s);
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    KEY.sign("k1", &claims).unwrap()
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

    /// A node that begins with what is on this disk, if its settings keep anything.
    pub fn on_disk(shards: u16, settings: Settings, seed: u64, disk: Memory) -> Self {
        let log_settings = |retention| LogSettings { syncs: true, segment_bytes: 600, retention, shards };
        let opened = settings.retention.map(|retention| Log::open(disk, log_settings(retention)).unwrap());
        let (journal, recovered) = opened.map_or((None, Recovered::default()), |(log, had)| (Some(log), had));
        let mut world = Self::with_journal(shards, settings, seed, journal);
        // Clients are others than before.
        world.next_client = 1 + seed * 10_000;
        for RecoveredDocument { id, contents } in recovered.documents {
            let shard = usize::from(id.shard(shards));
            let document = Box::new(Document::restored(contents));
            world.engines[shard].handle_event(world.now, Event::Recovered { id, document });
        }
        world
    }

    fn with_journal(shards: u16, settings: Settings, seed: u64, journal: Option<Log<Memory>>) -> Self {
        let all_keys = keys(&["k1", "k2"]);
        let policy = Policy { issuer: "i".to_owned(), leeway_s: LEEWAY_S, token_bytes_max: 8192 };
        let engine = |index| {
            let verifier = Verifier::new(policy.clone(), Arc::clone(&all_keys), 64, 1);
            Engine::new(index, shards, settings.clone(), verifier, seed ^ u64::from(index))
        };
        Self {
            now: Now { monotonic: Duration::from_secs(1000), unix_s: UNIX_S },
            random: Random::new(seed),
            engines: (0..shards).map(engine).collect(),
            sockets: Vec::new(),
            ledger: Ledger::new(),
            pushed: PushedLimits::default(),
            windows: OpsWindows::new(),
            mute: false,
            newest_keys: all_keys,
            leased: BTreeMap::new(),
            connections: (0..shards).map(|_| Slab::default()).collect(),
            pipes: BTreeMap::new(),
            delay_ms_max: 0,
            chaotic: false,
            open_turns: BTreeSet::new(),
            next_client: 1,
            journal,
            holds_commits: false,
            outbox_bytes_max: 1 << 20,
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

    fn join_opening(&mut self, grant: Arc<Grant>, name: &str, doc: yrs::Doc, acknowledges: bool) -> usize {
        let document = DocumentName::parse(name).unwrap();
        let shards = u16::try_from(self.engines.len()).unwrap();
        let shard = DocumentId { app: grant.app, name: document.clone() }.shard(shards);
        let opening =
            Opening { document: Some(document), grant: Some(grant), acknowledges, ..Opening::default() };
        let mut socket = Socket::new(Wire::YWebsocket, "");
        socket.replicas.push(Replica::new(name, doc));
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
        self.sockets[socket].replicas.push(Replica { clock, ..Replica::new(key, doc) });
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

    // --- the control shard

    pub fn revoke(&mut self, key_id: &str) {
        self.newest_keys = Arc::new(self.newest_keys.without_key(TENANT, key_id));
        for shard in self.shards() {
            self.send(CONTROL, shard, Letter::Keys(Arc::clone(&self.newest_keys)));
            self.send(CONTROL, shard, Letter::KeyRevoked { tenant: TENANT, key_id: key_id.into() });
        }
    }

    pub fn set_keys(&mut self, sets: Arc<KeySets>) {
        for shard in self.shards() {
            self.send(CONTROL, shard, Letter::Keys(Arc::clone(&sets)));
        }
    }

    pub fn drain(&mut self, over: Duration) {
        for shard in self.shards() {
            self.send(CONTROL, shard, Letter::Drain { over });
        }
    }

    pub fn call_off_drain(&mut self) {
        for shard in self.shards() {
            self.send(CONTROL, shard, Letter::Accept);
        }
    }

    fn control(&mut self, from: ShardIndex, letter: Letter) {
        let answer = match letter {
            Letter::Release(claim) => return self.ledger.release(claim),
            _ if self.mute => return,
            Letter::Reserve { ticket, claim, limits, issued_unix_s } => {
                let limits = self.pushed.over(self.now.monotonic, claim.app, limits, issued_unix_s);
                let outcome = self.ledger.reserve(claim, limits).map(|()| limits);
                let usage = self.ledger.usage(claim.app);
                assert!(outcome.is_err() || !claim.connection || usage.connections <= limits.connections_max);
                assert!(outcome.is_err() || usage.documents <= limits.documents_max.max(usage.documents));
                Letter::Reserved { ticket, outcome }
            }
            Letter::LeaseOps { app, ops_per_minute, wanted } => {
                let lease = self.windows.lease(self.now.monotonic, app, ops_per_minute, wanted);
                *self.leased.entry(app).or_default() += u64::from(lease.granted);
                Letter::OpsLeased { app, granted: lease.granted, window_ends: lease.window_ends }
            }
            Letter::RefreshKeys { ticket } => {
                self.send(CONTROL, from, Letter::Keys(Arc::clone(&self.newest_keys)));
                Letter::KeysRefreshed { ticket }
            }
            _ => unreachable!("the control shard is sent no such letter"),
        };
        self.send(CONTROL, from, answer);
    }

    // --- the network

    fn shards(&self) -> std::ops::Range<ShardIndex> {
        0..u16::try_from(self.engines.len()).unwrap()
    }

    fn send(&mut self, from: ShardIndex, to: ShardIndex, letter: Letter) {
        let delay = if self.delay_ms_max == 0 { 0 } else { self.random.below(self.delay_ms_max + 1) };
        let pipe = self.pipes.entry((from, to)).or_default();
        let last = pipe.back().map_or(Duration::ZERO, |(due, _)| *due);
        pipe.push_back((last.max(self.now.monotonic + Duration::from_millis(delay)), letter));
    }

    /// Delivers what is due between two, in one turn of the receiver.
    fn deliver(&mut self, from: ShardIndex, to: ShardIndex) {
        while let Some(pipe) = self.pipes.get_mut(&(from, to)) {
            let Some((_, letter)) = pipe.pop_front_if(|(due, _)| *due <= self.now.monotonic) else { break };
            self.deliver_letter(from, to, letter);
            if self.chaotic && self.random.one_in(3) {
                break;
            }
        }
        if to != CONTROL {
            self.end_of_turn(usize::from(to));
        }
    }

    fn deliver_letter(&mut self, from: ShardIndex, to: ShardIndex, letter: Letter) {
        if to == CONTROL {
            return self.control(from, letter);
        }
        let shard = usize::from(to);
        match letter {
            Letter::Mail(mail) => self.hear(shard, Event::Mail { from, mail }),
            Letter::HandOver { socket, opening } => self.handed_over(shard, socket, opening),
            Letter::Reserved { ticket, outcome } => self.hear(shard, Event::Reserved { ticket, outcome }),
            Letter::OpsLeased { app, granted, window_ends } => {
                self.hear(shard, Event::OpsLeased { app, granted, window_ends });
            }
            Letter::KeysRefreshed { ticket } => self.hear(shard, Event::KeysRefreshed { ticket }),
            Letter::Keys(sets) => self.hear(shard, Event::Keys { sets }),
            Letter::KeyRevoked { tenant, key_id } => self.hear(shard, Event::KeyRevoked { tenant, key_id }),
            Letter::Drain { over } => self.hear(shard, Event::Drain { over }),
            Letter::Accept => self.hear(shard, Event::Accept),
            Letter::Journal(reply) => self.hear(shard, Event::Journal(reply)),
            _ => unreachable!("no shard is sent such a letter"),
        }
    }

    /// What the journal has gathered is stored, and the shards will hear of it.
    pub fn commit(&mut self) {
        let Some(log) = &mut self.journal else { return };
        log.commit();
        let mut replies: Vec<(u16, Reply)> = std::iter::from_fn(|| log.poll_reply()).collect();
        log.maintain(self.now.unix_s);
        replies.extend(std::iter::from_fn(|| log.poll_reply()));
        for (shard, reply) in replies {
            self.send(JOURNAL, shard, Letter::Journal(reply));
        }
    }

    /// Of the journal's word on its way that something is stored: whether somebody waits for it.
    pub fn stored_letters(&self) -> Vec<bool> {
        let letters = self.pipes.iter().filter(|((from, _), _)| *from == JOURNAL).flat_map(|(_, pipe)| pipe);
        let stored = letters.filter_map(|(_, letter)| match letter {
            Letter::Journal(Reply::Stored { awaited, .. }) => Some(*awaited),
            _ => None,
        });
        stored.collect()
    }

    /// What the disk has when the process is killed now.
    pub fn disk_after_kill(&self) -> Memory {
        self.journal.as_ref().expect("something is kept").storage().after_kill()
    }

    /// What the disk has when the power goes now.
    pub fn disk_after_power_cut(&self) -> Memory {
        self.journal.as_ref().expect("something is kept").storage().after_power_cut(|_| 0)
    }

    /// Everything on disk is something else from now on.
    pub fn spoil_disk(&mut self) {
        let storage = self.journal().storage_mut();
        for number in storage.numbers() {
            storage.bytes_mut(number).iter_mut().for_each(|byte| *byte ^= 0xff);
        }
    }

    fn journal(&mut self) -> &mut Log<Memory> {
        self.journal.as_mut().expect("an engine without a journal keeps nothing")
    }

    fn handed_over(&mut self, shard: usize, socket: usize, opening: Opening) {
        let connection = self.connections[shard].insert(socket);
        let index = u16::try_from(shard).unwrap();
        self.sockets[socket].place = Some((index, connection));
        self.hear(shard, Event::Opened { connection, opening });
        if self.sockets[socket].end.is_some() {
            self.sockets[socket].place = None;
            self.connections[shard].remove(connection);
            self.hear(shard, Event::Closed { connection });
        }
    }

    // --- a shard's loop

    fn tell(&mut self, shard: usize, event: Event<'_>) {
        self.hear(shard, event);
        self.end_of_turn(shard);
    }

    fn hear(&mut self, shard: usize, event: Event<'_>) {
        self.engines[shard].handle_event(self.now, event);
        self.carry_out(shard);
        self.open_turns.insert(shard);
    }

    fn end_of_turn(&mut self, shard: usize) {
        if !self.chaotic || self.random.one_in(2) {
            self.finish_turn(shard);
        }
    }

    fn finish_turn(&mut self, shard: usize) {
        self.open_turns.remove(&shard);
        self.engines[shard].handle_timeout(self.now);
        loop {
            self.carry_out(shard);
            let full = self.transmit(shard);
            self.carry_out(shard);
            if full.is_empty() {
                return;
            }
            for socket in full {
                if let Some((_, connection)) = self.sockets[socket].place {
                    self.engines[shard].handle_event(self.now, Event::Stalled { connection });
                }
            }
        }
    }

    fn transmit(&mut self, shard: usize) -> Vec<usize> {
        let (mut batch, mut full) = (Batch::default(), Vec::new());
        while self.engines[shard].poll_transmit(self.now, &mut batch) {
            let mut written = FxHashSet::default();
            for (connection, bytes) in batch.iter() {
                assert!(written.insert(connection), "a socket is twice in a batch");
                assert!(!bytes.is_empty(), "nothing for somebody");
                let &at =
                    self.connections[shard].get(connection).expect("the engine writes to open sockets only");
                let socket = &mut self.sockets[at];
                socket.incoming.extend_from_slice(bytes);
                if !socket.stalled && socket.incoming.len() > self.outbox_bytes_max {
                    socket.stalled = true;
                    full.push(at);
                }
            }
            batch.clear();
        }
        full
    }

    fn carry_out(&mut self, shard: usize) {
        let from = u16::try_from(shard).unwrap();
        while let Some(effect) = self.engines[shard].poll_effect() {
            match effect {
                Effect::Reserve { ticket, claim, limits, issued_unix_s } => {
                    self.send(from, CONTROL, Letter::Reserve { ticket, claim, limits, issued_unix_s });
                }
                Effect::Release { claim } => self.send(from, CONTROL, Letter::Release(claim)),
                Effect::LeaseOps { app, ops_per_minute, wanted } => {
                    self.send(from, CONTROL, Letter::LeaseOps { app, ops_per_minute, wanted });
                }
                Effect::RefreshKeys { ticket, .. } => {
                    self.send(from, CONTROL, Letter::RefreshKeys { ticket });
                }
                Effect::Mail { to, mail } => self.send(from, to, Letter::Mail(mail)),
                Effect::Move { connection, to, opening } => {
                    let socket = self.connections[shard].remove(connection).expect("it moves once");
                    self.sockets[socket].place = None;
                    assert!(!self.sockets[socket].stalled, "a socket that takes nothing stays where it is");
                    self.send(from, to, Letter::HandOver { socket, opening });
                }
                Effect::Close { connection, refusal } => {
                    // Its client may have hung up in the same turn.
                    let Some(at) = self.connections[shard].remove(connection) else { continue };
                    let socket = &mut self.sockets[at];
                    socket.place = None;
                    // A client that hung up while its socket was on its way has ended it already.
                    assert!(!matches!(socket.end, Some(End::ByServer(_))), "a socket ends once");
                    socket.end.get_or_insert(End::ByServer(refusal));
                }
                Effect::Append { number, records, awaited } => {
                    self.journal().handle(Command::Append { shard: from, number, records, awaited });
                }
                Effect::Keep { document, contents, rests } => {
                    self.journal().handle(Command::Keep { shard: from, document, contents, rests });
                }
                Effect::Load { document } => {
                    self.journal().handle(Command::Load { shard: from, document });
                    self.hear_loads();
                }
                Effect::Denied { connection, .. } => {
                    assert!(self.connections[shard].get(connection).is_some(), "denied after the end");
                }
            }
        }
    }

    /// A load is answered at once; what else there is waits for the commit.
    fn hear_loads(&mut self) {
        while let Some((shard, reply)) = self.journal().poll_reply() {
            self.send(JOURNAL, shard, Letter::Journal(reply));
        }
    }

    // --- time

    /// Everything that may happen at this moment.
    fn choices(&self) -> Vec<Choice> {
        let due = |(_, pipe): &(_, &VecDeque<(Duration, Letter)>)| {
            pipe.front().is_some_and(|(due, _)| *due <= self.now.monotonic)
        };
        let mut choices: Vec<Choice> =
            self.pipes.iter().filter(due).map(|(&(from, to), _)| Choice::Deliver(from, to)).collect();
        for (at, socket) in self.sockets.iter().enumerate() {
            if socket.end.is_none() {
                if !socket.outgoing.is_empty() && socket.place.is_some() && !socket.stalled {
                    choices.push(Choice::Receive(at));
                }
                if !socket.incoming.is_empty() && socket.reads {
                    choices.push(Choice::Read(at));
                }
            }
        }
        if choices.is_empty() || self.chaotic {
            choices.extend(self.open_turns.iter().map(|&shard| Choice::Finish(shard)));
        }
        if (choices.is_empty() || self.chaotic)
            && !self.holds_commits
            && self.journal.as_ref().is_some_and(Log::has_work)
        {
            choices.push(Choice::Commit);
        }
        choices
    }

    /// Lets one thing happen, if anything may.
    pub fn step(&mut self) -> bool {
        let choices = self.choices();
        if choices.is_empty() {
            return false;
        }
        let choice = if self.chaotic { *self.random.pick(&choices) } else { choices[0] };
        match choice {
            Choice::Deliver(from, to) => self.deliver(from, to),
            Choice::Finish(shard) => self.finish_turn(shard),
            Choice::Commit => self.commit(),
            Choice::Receive(at) => {
                let message = self.sockets[at].outgoing.pop_front().unwrap();
                let (shard, connection) = self.sockets[at].place.unwrap();
                let message = Incoming::Binary(&message);
                self.tell(usize::from(shard), Event::Received { connection, message });
            }
            Choice::Read(at) => {
                self.sockets[at].read();
                if std::mem::take(&mut self.sockets[at].stalled)
                    && let Some((shard, connection)) = self.sockets[at].place
                {
                    self.tell(usize::from(shard), Event::Resumed { connection });
                }
            }
        }
        true
    }

    /// A stalled socket took some bytes, but not all that wait.
    pub fn take_some(&mut self, socket: usize) {
        let (shard, connection) = self.sockets[socket].place.unwrap();
        self.tell(usize::from(shard), Event::Progressed { connection });
    }

    /// A control frame or a text message of a client, at once.
    pub fn receive(&mut self, socket: usize, message: Incoming<'_>) {
        let (shard, connection) = self.sockets[socket].place.expect("it is open");
        self.tell(usize::from(shard), Event::Received { connection, message });
    }

    /// The server takes in everything a client has sent, in one turn.
    pub fn receive_at_once(&mut self, socket: usize) {
        let (shard, connection) = self.sockets[socket].place.expect("it is open");
        let shard = usize::from(shard);
        while let Some(message) = self.sockets[socket].outgoing.pop_front() {
            let message = Incoming::Binary(&message);
            self.engines[shard].handle_event(self.now, Event::Received { connection, message });
        }
        self.finish_turn(shard);
    }

    /// Delivers all letters without ending a shard's turn in between.
    pub fn deliver_in_one_turn(&mut self) {
        while let Some((&(from, to), _)) = self.pipes.iter().find(|(_, pipe)| !pipe.is_empty()) {
            let (_, letter) = self.pipes.get_mut(&(from, to)).unwrap().pop_front().unwrap();
            self.deliver_letter(from, to, letter);
        }
    }

    /// Lets everything happen that is under way. Time moves only as far as the network is slow.
    pub fn settle(&mut self) {
        for _ in 0..1_000_000 {
            if self.step() {
                continue;
            }
            let Some(due) = self.next_letter() else { return };
            self.set_time(due);
        }
        panic!("it never settles");
    }

    fn next_letter(&self) -> Option<Duration> {
        self.pipes.values().filter_map(|pipe| pipe.front()).map(|(due, _)| *due).min()
    }

    /// Lets time pass, and everything that falls due happen in its time.
    pub fn pass(&mut self, by: Duration) {
        let until = self.now.monotonic + by;
        for _ in 0..1_000_000 {
            if self.step() {
                continue;
            }
            let timeout = self.engines.iter().filter_map(Engine::poll_timeout).min();
            let next = timeout.into_iter().chain(self.next_letter()).min();
            match next.filter(|next| *next <= until) {
                Some(next) => self.set_time(next),
                None => {
                    self.set_time(until);
                    return;
                }
            }
        }
        panic!("time stands still");
    }

    pub fn pass_s(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
        self.settle();
    }

    fn set_time(&mut self, at: Duration) {
        let at = at.max(self.now.monotonic);
        self.now = Now { monotonic: at, unix_s: UNIX_S + at.as_secs() - 1000 };
        for shard in 0..self.engines.len() {
            if self.engines[shard].poll_timeout().is_some_and(|due| due <= at) {
                self.finish_turn(shard);
            }
        }
    }

    // --- what the engines hold

    /// The server's own copy of a document, if there is one.
    pub fn server_document(&mut self, app: AppId, name: &str) -> Option<yrs::Doc> {
        use yrs::updates::decoder::Decode;
        let id = DocumentId { app, name: DocumentName::parse(name).unwrap() };
        let shard = usize::from(id.shard(u16::try_from(self.engines.len()).unwrap()));
        let engine = &mut self.engines[shard];
        let key = engine.rooms.find(&id)?;
        let encoded = engine.rooms.get_mut(key).unwrap().document.encode();
        let doc = client::document(u64::MAX >> 11);
        let update = yrs::Update::decode_v1(&encoded).unwrap();
        yrs::Transact::transact_mut(&doc).apply_update(update).unwrap();
        Some(doc)
    }

    pub fn counters(&self) -> crate::engine::Counters {
        let mut sum = crate::engine::Counters::default();
        for counters in self.engines.iter().map(Engine::counters) {
            sum.updates_in += counters.updates_in;
            sum.updates_parked += counters.updates_parked;
            sum.updates_refused += counters.updates_refused;
            sum.resyncs += counters.resyncs;
            sum.crdt_panics += counters.crdt_panics;
            sum.sessions += counters.sessions;
            sum.acknowledged += counters.acknowledged;
            sum.journal_refusals += counters.journal_refusals;
        }
        sum
    }

    /// Nothing of anybody is left anywhere.
    pub fn assert_empty(&self) {
        for engine in &self.engines {
            let shard = engine.shard;
            assert_eq!(engine.connections.len(), 0, "connections of shard {shard}");
            assert_eq!(engine.sessions.len(), 0, "sessions of shard {shard}");
            assert_eq!(engine.links.len(), 0, "links of shard {shard}");
            assert_eq!(engine.remote_links.len(), 0, "remote links of shard {shard}");
            assert_eq!(engine.rooms.len(), 0, "rooms of shard {shard}");
            assert_eq!(engine.questions.len(), 0, "questions of shard {shard}");
            assert_eq!(engine.meters.len(), 0, "meters of shard {shard}");
            assert_eq!(engine.dirty.len(), 0, "dirty links of shard {shard}");
            assert_eq!(engine.turn_rooms.len(), 0, "turns of shard {shard}");
        }
        if let Some(journal) = self.journal.as_ref().filter(|_| !self.engines[0].may_be_kept()) {
            assert_eq!(journal.figures().documents, 0, "documents in the journal");
        }
        assert_eq!(self.ledger.totals().connections, 0, "connections in the ledger");
        assert_eq!(self.ledger.totals().documents, 0, "documents in the ledger");
        assert_eq!(self.ledger.totals().apps, 0, "apps in the ledger");
        assert_eq!(self.ledger.totals().unmatched_releases_total, 0);
    }
}

#[derive(Debug, Clone, Copy)]
enum Choice {
    Deliver(ShardIndex, ShardIndex),
    Receive(usize),
    Read(usize),
    Finish(usize),
    Commit,
}

impl Engine {
    pub fn question_count(&self) -> usize {
        self.questions.len()
    }

    /// Documents that are being put to rest.
    pub fn resting_count(&self) -> usize {
        self.keeping.resting_count()
    }

    pub fn timer_count(&self) -> usize {
        self.timers.len()
    }

    /// Awareness states of all documents, those of clients that left included.
    pub fn awareness_entries(&self) -> usize {
        self.rooms.iter().map(|(_, room)| room.awareness.len()).sum()
    }

    /// What all connections keep of routing keys.
    pub fn key_bytes(&self) -> usize {
        self.channels().map(|channel| channel.key.len()).sum()
    }

    /// Messages that wait for a claim or a lease.
    pub fn held_bytes(&self) -> usize {
        let of_channels: usize =
            self.channels().flat_map(|channel| &channel.held).map(|body| body.len()).sum();
        let of_sessions = self.sessions.iter().flat_map(|(_, session)| &session.held);
        of_channels + of_sessions.map(|body| body.len()).sum::<usize>()
    }

    fn channels(&self) -> impl Iterator<Item = &Channel> {
        let connections = self.connections.keys().filter_map(|key| self.connections.get(key));
        connections.flat_map(|connection| connection.channels.iter())
    }
}
