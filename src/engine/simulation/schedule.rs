//! One run: what its clients and its operator do, and what goes wrong, step by step as the seed says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::client;
use super::promise::Promise;
use super::world::{Level, Random, WIDE, World};
use crate::auth::Limits;
use crate::engine::Settings;
use crate::engine::event::Incoming;
use crate::journal::Retention;
use crate::protocol::message::Wire;

/// Two of one tenant, and one of another.
pub const APPS: u128 = 3;
/// All that is written in an app.
pub const LETTERS: [&str; APPS as usize] = ["x", "y", "z"];
pub const NAMES: [&str; 4] = ["a", "b", "c", "d"];

pub struct Schedule {
    pub world: World,
    pub limits: Limits,
    /// Key ids that sign, and those that did.
    pub keys: Vec<String>,
    pub(super) past_keys: Vec<String>,
    /// Tokens by what is in them: signing takes a while.
    pub(super) tokens: BTreeMap<(String, u128, u64, u8), String>,
    /// Tokens that allow no more than to read, and those for some documents only.
    pub read_only: BTreeSet<String>,
    pub narrow: BTreeSet<String>,
    /// Clients that may have written at some time, and those that may not have.
    pub writers: BTreeSet<u64>,
    pub readers: BTreeSet<u64>,
    /// Sockets whose document lives on in another one.
    pub dropped: BTreeSet<usize>,
    /// Sockets that nobody is behind any more, and of which no server has heard yet that they are gone.
    pub half_open: Vec<usize>,
    /// A client said Auth for a document it took to be open. If that was denied meanwhile, Auth opened it anew, and an
    /// echo behind it may revive who left at that moment, until its time-out: the price of seeing at once who returns.
    pub renewed: bool,
    /// A question to the control shard may never be answered, and may not have been asked again yet.
    pub was_mute: bool,
    pub unanswered: bool,
    pub drained: bool,
    /// When the wall clock was set last.
    pub clock_set_at: Duration,
}

fn settings(random: &mut Random) -> Settings {
    Settings {
        shrink_after: Duration::from_secs(1 + random.below(60)),
        stall_timeout: Duration::from_secs(5 + random.below(60)),
        grace_period: Duration::from_secs(random.below(12)),
        close_on_token_expiry: !random.one_in(4),
        parked_bytes_max: if random.one_in(3) { 300 } else { 1 << 20 },
        documents_per_connection_max: if random.one_in(3) { 2 } else { 256 },
        journal_backlog_bytes_max: if random.one_in(4) { 2000 } else { 64 << 20 },
        retention: match random.below(4) {
            0 => None,
            1 => Some(Retention::ForEver),
            2 => Some(Retention::For(Duration::from_secs(1 + random.below(60)))),
            _ => Some(Retention::Session),
        },
        ..Settings::default()
    }
}

fn limits(random: &mut Random) -> Limits {
    let mut limits = WIDE;
    if random.one_in(3) {
        limits.connections_max = 1 + random.below(6) as u32;
    }
    if random.one_in(3) {
        limits.documents_max = 1 + random.below(3) as u32;
    }
    if random.one_in(4) {
        limits.users_per_document_max = 1 + random.below(4) as u32;
    }
    if random.one_in(3) {
        limits.ops_per_minute = 5 + random.below(100) as u32;
    }
    limits
}

impl Schedule {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let shards = 1 + random.below(4) as u16;
        let settings = settings(&mut random);
        let limits = limits(&mut random);
        let delay_ms_max = [0, 5, 100, 3000][random.below(4) as usize];
        let level = Level { syncs: !random.one_in(4), segment_bytes: 300 + random.below(3000) };
        let mut world = World::at_level(shards, settings, seed, level).chaotic(delay_ms_max);
        world.outbox_bytes_max = [100, 300, 1 << 20][random.below(3) as usize];
        world.promise = Some(Promise::default());
        Self {
            world,
            limits,
            keys: vec!["k1".to_owned(), "k2".to_owned()],
            past_keys: Vec::new(),
            tokens: BTreeMap::new(),
            read_only: BTreeSet::new(),
            narrow: BTreeSet::new(),
            writers: BTreeSet::new(),
            readers: BTreeSet::new(),
            dropped: BTreeSet::new(),
            half_open: Vec::new(),
            renewed: false,
            was_mute: false,
            unanswered: false,
            drained: false,
            clock_set_at: Duration::ZERO,
        }
    }

    pub fn random(&mut self, bound: usize) -> usize {
        self.world.random.below(bound as u64) as usize
    }

    /// One of the sockets that are open, as its client sees it.
    fn socket(&mut self) -> Option<usize> {
        let open =
            |socket: &usize| self.world.sockets[*socket].end.is_none() && !self.half_open.contains(socket);
        let sockets: Vec<usize> = (0..self.world.sockets.len()).filter(open).collect();
        (!sockets.is_empty()).then(|| *self.world.random.pick(&sockets))
    }

    /// Mostly the first, so that clients meet.
    fn name(&mut self) -> &'static str {
        let at = if self.world.random.one_in(3) { self.random(NAMES.len()) } else { 0 };
        NAMES[at]
    }

    fn replica(&mut self) -> Option<(usize, usize)> {
        let socket = self.socket()?;
        let replicas = self.world.sockets[socket].replicas.len();
        (replicas > 0).then(|| (socket, self.random(replicas)))
    }

    pub fn step(&mut self) {
        match self.world.random.below(40) {
            0 | 1 => self.join(),
            2 => self.open_hocuspocus(),
            3 | 4 => self.attach(),
            5..=11 | 29 | 30 => self.edit(),
            12 => self.edit_unsent(),
            13 => self.replay(),
            14..=16 => self.show(),
            17 => self.ask(),
            18 => self.detach(),
            19 if self.world.random.one_in(2) => self.come_and_go(),
            19 => self.hang_up(),
            20 if self.world.random.one_in(2) => self.lose_connection(),
            20 | 32 => self.come_back(),
            21 | 22 => {
                if let Some(socket) = self.socket() {
                    self.world.sockets[socket].reads = false;
                    self.world.count("stalled reader");
                }
            }
            23 => self.read_again(),
            24 if self.world.random.one_in(3) => self.renew(),
            24 => self.ask(),
            25 if self.world.random.one_in(4) => self.hostile(),
            25 => self.turn_keys(),
            26 => {
                let by = Duration::from_millis(self.world.random.below(30_000));
                self.pass(by);
            }
            27 => {
                let by = Duration::from_millis(self.world.random.below(500));
                self.pass(by);
            }
            28 if self.world.random.one_in(2) => self.notice_half_open(),
            28 => self.world.settle(),
            31 => self.fault(),
            _ => {
                for _ in 0..self.world.random.below(20) {
                    self.world.step();
                }
            }
        }
        if self.world.died {
            self.crash();
        }
        self.note_clients();
    }

    /// Who may have written, and who may not have at some time.
    pub(super) fn note_clients(&mut self) {
        for socket in self.world.sockets.iter().filter(|socket| socket.end.is_none()) {
            let is_reader = self.read_only.contains(&socket.token);
            let clients = if is_reader { &mut self.readers } else { &mut self.writers };
            clients.extend(socket.replicas.iter().map(client::Replica::client));
        }
    }

    /// Lets time pass in which providers do what they do by themselves: renew their awareness, answer pings.
    pub fn pass(&mut self, by: Duration) {
        self.world.pass(by);
        for socket in 0..self.world.sockets.len() {
            if !self.world.random.one_in(5) {
                self.pong(socket);
            }
        }
    }

    fn pong(&mut self, socket: usize) {
        let of = &self.world.sockets[socket];
        if of.place.is_some() && of.end.is_none() && !of.stalled {
            self.world.receive(socket, Incoming::Pong);
        }
    }

    fn join(&mut self) {
        let app_of = 1 + self.random(APPS as usize) as u128;
        let token = self.token(app_of);
        let doc = self.world.new_document();
        let name = self.name();
        self.join_as(app_of, &token, name, doc);
    }

    fn join_as(&mut self, app_of: u128, token: &str, name: &str, doc: yrs::Doc) -> Option<usize> {
        // Its key may be taken back, or not be known yet: then the upgrade is refused.
        let grant = self.world.engines[0].verify(self.world.now, token).ok()?;
        let acknowledges = self.world.random.one_in(2);
        let socket = self.world.join_opening(grant, name, doc, acknowledges);
        self.world.sockets[socket].app = app_of;
        token.clone_into(&mut self.world.sockets[socket].token);
        let step_one = self.world.replica(socket).step_one();
        self.world.sockets[socket].send(0, &step_one);
        Some(socket)
    }

    fn hang_up(&mut self) {
        if let Some(socket) = self.socket() {
            self.world.hang_up(socket);
            self.world.count("broken connection");
        }
    }

    /// Somebody comes, says all he has, and is gone for good, perhaps before the document was found.
    fn come_and_go(&mut self) {
        let socket = self.world.sockets.len();
        self.join();
        if self.world.sockets.len() == socket {
            return;
        }
        self.note_clients();
        let update = self.change(socket, 0);
        self.world.sockets[socket].send_update(0, &update);
        for _ in 0..self.world.random.below(12) {
            self.world.step();
        }
        self.world.hang_up(socket);
        self.dropped.insert(socket);
        self.world.count("came and went");
    }

    fn open_hocuspocus(&mut self) {
        let app_of = 1 + self.random(APPS as usize) as u128;
        let token = if self.world.random.one_in(10) { "bad".to_owned() } else { self.token(app_of) };
        let shard = self.random(self.world.engines.len()) as u16;
        let is_good = self.world.engines[0].verify(self.world.now, &token).is_ok();
        let with_grant = is_good && self.world.random.one_in(4);
        let socket = if with_grant {
            self.world.hocuspocus_with_grant(shard, &token)
        } else {
            self.world.hocuspocus(shard, &token)
        };
        self.world.sockets[socket].app = app_of;
        for _ in 0..self.random(3) {
            self.attach_to(socket);
        }
    }

    fn attach(&mut self) {
        let of = |socket: &usize| {
            let socket = &self.world.sockets[*socket];
            socket.end.is_none() && socket.wire == Wire::Hocuspocus
        };
        let sockets: Vec<usize> = (0..self.world.sockets.len()).filter(of).collect();
        if !sockets.is_empty() {
            let socket = *self.world.random.pick(&sockets);
            self.attach_to(socket);
        }
    }

    fn attach_to(&mut self, socket: usize) {
        let name = self.name();
        let key = if self.world.random.one_in(3) {
            format!("{name}\0s{}", self.random(2))
        } else {
            name.to_owned()
        };
        if self.world.sockets[socket].replicas.iter().all(|replica| replica.key != key) {
            self.world.attach(socket, &key);
        }
    }

    fn detach(&mut self) {
        if let Some((socket, replica)) = self.replica()
            && self.world.sockets[socket].wire == Wire::Hocuspocus
        {
            self.world.detach(socket, replica);
            if self.world.random.one_in(3) {
                self.attach_to(socket);
            }
        }
    }

    /// A provider that lost its socket, by its own doing or the server's, comes back with the same documents.
    pub(super) fn come_back(&mut self) {
        let lost =
            |socket: &usize| self.world.sockets[*socket].end.is_some() && !self.dropped.contains(socket);
        let sockets: Vec<usize> = (0..self.world.sockets.len()).filter(lost).collect();
        if !sockets.is_empty() {
            let socket = *self.world.random.pick(&sockets);
            self.return_of(socket);
        }
    }

    fn return_of(&mut self, socket: usize) {
        self.dropped.insert(socket);
        let app_of = self.world.sockets[socket].app;
        let token = self.token(app_of);
        let left = &self.world.sockets[socket];
        let documents: Vec<(String, yrs::Doc, u32)> =
            left.replicas.iter().map(|of| (of.key.clone(), of.doc.clone(), of.clock)).collect();
        if left.wire == Wire::Hocuspocus {
            let mut detached = left.detached.clone();
            let keys: Vec<String> = documents.iter().map(|(key, ..)| key.clone()).collect();
            detached.extend(documents.into_iter().map(|(key, doc, clock)| (key, (doc, clock))));
            let shard = self.random(self.world.engines.len()) as u16;
            let back = self.world.hocuspocus(shard, &token);
            self.world.sockets[back].app = app_of;
            self.world.sockets[back].detached = detached;
            for key in keys {
                self.world.attach(back, &key);
            }
            return;
        }
        for (name, doc, clock) in documents {
            if let Some(back) = self.join_as(app_of, &token, &name, doc) {
                self.world.sockets[back].replicas[0].clock = clock;
            }
        }
    }

    /// A connection breaks and its provider is back before the server notices.
    fn lose_connection(&mut self) {
        let is_whole = |socket: &usize| {
            let of = &self.world.sockets[*socket];
            of.end.is_none() && of.wire == Wire::YWebsocket && !self.half_open.contains(socket)
        };
        let sockets: Vec<usize> = (0..self.world.sockets.len()).filter(is_whole).collect();
        if !sockets.is_empty() {
            let socket = *self.world.random.pick(&sockets);
            self.world.sockets[socket].reads = false;
            self.world.sockets[socket].outgoing.clear();
            self.half_open.push(socket);
            self.world.count("half-open connection");
            self.return_of(socket);
        }
    }

    pub fn notice_half_open(&mut self) {
        for socket in std::mem::take(&mut self.half_open) {
            self.world.hang_up(socket);
        }
    }

    /// A change whose text is its app's letter.
    fn change(&mut self, socket: usize, replica: usize) -> Vec<u8> {
        let letter = LETTERS[self.world.sockets[socket].app as usize - 1];
        let (kind, a, b) = (self.random(8), self.random(200) as u32, self.random(9));
        let of = &self.world.sockets[socket].replicas[replica];
        match kind {
            0 | 1 => of.remove(a, 1 + b as u32),
            2 => of.set(NAMES[b % 4], i64::from(a)),
            _ => of.insert(a, &letter.repeat(1 + b)),
        }
    }

    fn edit(&mut self) {
        if let Some((socket, replica)) = self.replica() {
            for _ in 0..=self.random(3) {
                let update = self.change(socket, replica);
                if self.world.sockets[socket].replicas[replica].open {
                    self.world.sockets[socket].send_update(replica, &update);
                    if self.world.random.one_in(8) {
                        self.world.sockets[socket].send_update(replica, &update);
                        self.world.count("update sent twice");
                    }
                }
            }
        }
    }

    /// An edit that never gets onto the wire: the next one lacks its past, until step 1 asks for it.
    fn edit_unsent(&mut self) {
        if let Some((socket, replica)) = self.replica() {
            self.change(socket, replica);
        }
    }

    /// Everything again, as a provider may do.
    fn replay(&mut self) {
        if let Some((socket, replica)) = self.replica()
            && self.world.sockets[socket].replicas[replica].open
        {
            let doc = self.world.sockets[socket].replicas[replica].doc.clone();
            let none = yrs::StateVector::default();
            let whole = yrs::ReadTxn::encode_diff_v1(&yrs::Transact::transact(&doc), &none);
            self.world.sockets[socket].send_update(replica, &whole);
        }
    }

    fn show(&mut self) {
        if let Some((socket, replica)) = self.replica()
            && self.world.sockets[socket].replicas[replica].open
        {
            let json = if self.world.random.one_in(6) { "null" } else { "{\"x\":1}" };
            self.world.show(socket, replica, json);
        }
    }

    fn ask(&mut self) {
        if let Some((socket, replica)) = self.replica()
            && self.world.sockets[socket].replicas[replica].open
        {
            let step_one = self.world.sockets[socket].replicas[replica].step_one();
            self.world.sockets[socket].send(replica, &step_one);
            self.world.sockets[socket].send(replica, &client::QUERY_AWARENESS);
        }
    }

    pub fn read_again(&mut self) {
        for (at, socket) in self.world.sockets.iter_mut().enumerate() {
            socket.reads = !self.half_open.contains(&at);
        }
    }

    fn renew(&mut self) {
        self.renewed = true;
        if let Some((socket, replica)) = self.replica() {
            let app_of = self.world.sockets[socket].app;
            let token = self.token(app_of);
            self.world.sockets[socket].token.clone_from(&token);
            self.world.sockets[socket].send(replica, &client::auth(&token));
        }
    }

    fn hostile(&mut self) {
        if let Some((socket, replica)) = self.replica() {
            self.world.count("hostile message");
            self.world.sockets[socket].hostile = true;
            let message = match self.random(5) {
                0 => client::sync(2, &[0xff, 0xff, 0xff, 0x7a]),
                1 => client::awareness(&[(1, 1, "{")]),
                2 => vec![0, 9],
                3 => client::sync(0, &[0xff]),
                _ => {
                    let of = &self.world.sockets[socket].replicas[replica];
                    let bomb = client::document(of.client() + 1_000_000);
                    let copy = client::Replica::new("", bomb);
                    let bomb = copy.insert(0, crate::engine::document::BOMB);
                    // Hocuspocus: to a document that is closed to it. Nobody answers that.
                    if of.open || self.world.sockets[socket].wire == Wire::YWebsocket {
                        return self.world.sockets[socket].send_update(replica, &bomb);
                    }
                    client::sync(2, &bomb)
                }
            };
            self.world.sockets[socket].send(replica, &message);
        }
    }
}
