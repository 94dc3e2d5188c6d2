//! Everything at once, in random orders: clients of both wires open, edit, show themselves, stall, resume, leave and
//! come back, on one to four shards, while tokens expire, keys are revoked, answers come late, time jumps, and in the end
//! perhaps a drain; with a journal or without. What must hold then is in [`Schedule::check`] and [`World::assert_empty`].
//!
//! `WIRESOCKET_SCHEDULES=10000 cargo test --lib simulation` runs more; a failure prints the `WIRESOCKET_SEED` that
//! repeats it.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use super::client::{self, End, content};
use super::world::{Random, UNIX_S, WIDE, World, app, token_of};
use crate::auth::Limits;
use crate::engine::behind::ANSWERS_BYTES_MAX;
use crate::engine::event::Incoming;
use crate::engine::{Counters, Settings};
use crate::journal::Retention;
use crate::protocol::message::Wire;

const SCHEDULES: u64 = 300;
const STEPS: u64 = 120;
const APPS: u128 = 2;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

struct Schedule {
    world: World,
    limits: Limits,
    revoked: bool,
    /// Sockets whose document lives on in another one.
    dropped: BTreeSet<usize>,
    /// Sockets that nobody is behind any more, and of which no server has heard yet that they are gone.
    half_open: Vec<usize>,
    /// A client said Auth for a document it took to be open. If that was denied meanwhile, Auth opened it anew, and an
    /// echo behind it may revive who left at that moment, until its time-out: the price of seeing at once who returns.
    renewed: bool,
}

fn settings(random: &mut Random) -> Settings {
    Settings {
        shrink_after: Duration::from_secs(1 + random.below(60)),
        stall_timeout: Duration::from_secs(5 + random.below(60)),
        grace_period: Duration::from_secs(random.below(12)),
        close_on_token_expiry: !random.one_in(4),
        parked_bytes_max: if random.one_in(3) { 300 } else { 1 << 20 },
        documents_per_connection_max: if random.one_in(3) { 2 } else { 256 },
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
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let shards = 1 + random.below(4) as u16;
        let settings = settings(&mut random);
        let limits = limits(&mut random);
        let delay_ms_max = [0, 5, 100, 3000][random.below(4) as usize];
        let mut world = World::with_settings(shards, settings, seed).chaotic(delay_ms_max);
        world.outbox_bytes_max = [100, 300, 1 << 20][random.below(3) as usize];
        Self {
            world,
            limits,
            revoked: false,
            dropped: BTreeSet::new(),
            half_open: Vec::new(),
            renewed: false,
        }
    }

    fn random(&mut self, bound: usize) -> usize {
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

    /// One of a few tokens, so that most are in the verifiers' caches.
    fn token(&mut self, app_of: u128) -> String {
        let key = if self.revoked || self.world.random.one_in(2) { "k2" } else { "k1" };
        let elapsed_s = self.world.now.unix_s - UNIX_S;
        let lives_s = (elapsed_s / 100 + 1) * 100 + [0, 100, 86_400][self.random(3)];
        token_of(key, app(app_of), self.limits, lives_s)
    }

    fn step(&mut self) {
        match self.world.random.below(32) {
            0 | 1 => self.join(),
            2 => self.open_hocuspocus(),
            3 | 4 => self.attach(),
            5..=11 | 29 | 30 => self.edit(),
            12 => self.edit_unsent(),
            13 => self.replay(),
            14..=16 => self.show(),
            17 => self.ask(),
            18 => self.detach(),
            19 => {
                if let Some(socket) = self.socket() {
                    self.world.hang_up(socket);
                }
            }
            20 if self.world.random.one_in(2) => self.lose_connection(),
            20 => self.come_back(),
            21 | 22 => {
                if let Some(socket) = self.socket() {
                    self.world.sockets[socket].reads = false;
                }
            }
            23 => self.read_again(),
            24 if self.world.random.one_in(3) => self.renew(),
            24 => self.ask(),
            25 if !self.revoked && self.world.random.one_in(8) => {
                self.revoked = true;
                self.world.revoke("k1");
            }
            25 => self.hostile(),
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
            _ => {
                for _ in 0..self.world.random.below(20) {
                    self.world.step();
                }
            }
        }
    }

    /// Lets time pass in which providers do what they do by themselves: renew their awareness, answer pings.
    fn pass(&mut self, by: Duration) {
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

    fn join_as(&mut self, app_of: u128, token: &str, name: &str, doc: yrs::Doc) {
        let socket = self.world.join_with(token, name, doc);
        self.world.sockets[socket].app = app_of;
        let step_one = self.world.replica(socket).step_one();
        self.world.sockets[socket].send(0, &step_one);
    }

    fn open_hocuspocus(&mut self) {
        let app_of = 1 + self.random(APPS as usize) as u128;
        let token = if self.world.random.one_in(10) { "bad".to_owned() } else { self.token(app_of) };
        let shard = self.random(self.world.engines.len()) as u16;
        let with_grant = token != "bad" && self.world.random.one_in(4);
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

    /// A provider that lost its socket, by its own doing or the server's, comes back with the same document.
    fn come_back(&mut self) {
        let lost = |socket: &usize| {
            let of = &self.world.sockets[*socket];
            of.end.is_some() && of.wire == Wire::YWebsocket && !self.dropped.contains(socket)
        };
        let sockets: Vec<usize> = (0..self.world.sockets.len()).filter(lost).collect();
        if sockets.is_empty() {
            return;
        }
        let socket = *self.world.random.pick(&sockets);
        self.return_of(socket);
    }

    fn return_of(&mut self, socket: usize) {
        self.dropped.insert(socket);
        let (name, doc) = (self.world.replica(socket).key.clone(), self.world.replica(socket).doc.clone());
        let app_of = self.world.sockets[socket].app;
        let token = self.token(app_of);
        let clock = self.world.replica(socket).clock;
        self.join_as(app_of, &token, &name, doc);
        self.world.sockets.last_mut().unwrap().replicas[0].clock = clock;
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
            self.return_of(socket);
        }
    }

    fn notice_half_open(&mut self) {
        for socket in std::mem::take(&mut self.half_open) {
            self.world.hang_up(socket);
        }
    }

    /// A change whose text is its app's letter.
    fn change(&mut self, socket: usize, replica: usize) -> Vec<u8> {
        let letter = if self.world.sockets[socket].app == 1 { "x" } else { "y" };
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

    fn read_again(&mut self) {
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
            let message = match self.random(5) {
                0 => client::sync(2, &[0xff, 0xff, 0xff, 0x7a]),
                1 => client::awareness(&[(1, 1, "{")]),
                2 => vec![0, 9],
                3 => client::sync(0, &[0xff]),
                _ => {
                    let of = &self.world.sockets[socket].replicas[replica];
                    let bomb = client::document(of.client() + 1_000_000);
                    let copy = client::Replica::new("", bomb);
                    client::sync(2, &copy.insert(0, crate::engine::document::BOMB))
                }
            };
            self.world.sockets[socket].send(replica, &message);
        }
    }

    /// Bounds that hold at every moment.
    fn check_bounds(&self) {
        for engine in &self.world.engines {
            let settings = engine.settings();
            for (_, room) in engine.rooms.iter() {
                assert!(room.document.parked_bytes() <= settings.parked_bytes_max, "parked bytes");
            }
            for (_, link) in engine.links.iter() {
                assert!(link.frames.len() < ANSWERS_BYTES_MAX + (1 << 20), "queued answers");
            }
            assert!(engine.held_bytes() <= 64 << 10, "held messages");
        }
        for socket in &self.world.sockets {
            let bound = self.world.outbox_bytes_max + (64 << 10);
            assert!(socket.incoming.len() < bound, "{} bytes wait for one client", socket.incoming.len());
        }
    }

    /// Nobody has to ask for what others wrote: whoever reads has all that the server has.
    fn check_nothing_missed(&mut self) {
        for at in 0..self.world.sockets.len() {
            for replica in 0..self.world.sockets[at].replicas.len() {
                let socket = &self.world.sockets[at];
                let of = &socket.replicas[replica];
                if socket.end.is_some() || !of.open {
                    continue;
                }
                let state = |doc: &yrs::Doc| yrs::ReadTxn::state_vector(&yrs::Transact::transact(doc));
                let (mine, app_of) = (state(&of.doc), app(socket.app));
                let name = of.key.split('\0').next().unwrap().to_owned();
                let server = state(&self.world.server_document(app_of, &name).expect("somebody is in it"));
                for (client, clock) in server.iter() {
                    assert!(mine.get(client) >= *clock, "socket {at} missed what {client} wrote in {name}");
                }
            }
        }
    }

    /// What must hold once everybody reads and nothing is under way.
    fn check(&mut self) {
        let mut present: BTreeMap<(u128, String), Vec<(usize, usize)>> = BTreeMap::new();
        for (at, socket) in self.world.sockets.iter().enumerate() {
            assert!(socket.end.is_some() || socket.place.is_some(), "a socket is lost between shards");
            assert!(socket.end.is_some() || socket.outgoing.is_empty());
            for (replica_at, replica) in socket.replicas.iter().enumerate() {
                let letter = if socket.app == 1 { 'y' } else { 'x' };
                assert!(!replica.text().contains(letter), "text of the other app");
                if socket.end.is_none() && replica.open {
                    let name = replica.key.split('\0').next().unwrap().to_owned();
                    present.entry((socket.app, name)).or_default().push((at, replica_at));
                    assert_eq!(replica.unacknowledged, 0, "socket {at}, {:?}", replica.key);
                }
            }
        }
        for ((app_of, name), replicas) in present {
            let server = self.world.server_document(app(app_of), &name).expect("somebody is in it");
            let expected = content(&server);
            for &(socket, replica) in &replicas {
                let doc = &self.world.sockets[socket].replicas[replica].doc;
                assert_eq!(content(doc), expected, "app {app_of}, document {name}, socket {socket}");
            }
            self.check_presence(&replicas);
        }
    }

    /// Everybody whom somebody in a document sees is there.
    fn check_presence(&self, replicas: &[(usize, usize)]) {
        let of = |&(socket, replica): &(usize, usize)| &self.world.sockets[socket].replicas[replica];
        let clients: BTreeSet<u64> = replicas.iter().map(|at| of(at).client()).collect();
        for at in replicas.iter().filter(|_| !self.renewed) {
            for seen in of(at).here() {
                assert!(clients.contains(&seen), "{at:?} sees {seen}, who left");
            }
        }
    }

    /// Providers sync again: an edit that was made while they were not open is still theirs alone.
    fn sync_all(&mut self) {
        self.notice_half_open();
        self.read_again();
        self.world.settle();
        self.world.pass(Duration::from_millis(50));
        self.world.settle();
        self.check_nothing_missed();
        for socket in 0..self.world.sockets.len() {
            for replica in 0..self.world.sockets[socket].replicas.len() {
                let of = &self.world.sockets[socket].replicas[replica];
                if of.open && self.world.sockets[socket].end.is_none() {
                    let none = yrs::StateVector::default();
                    let whole = yrs::ReadTxn::encode_diff_v1(&yrs::Transact::transact(&of.doc), &none);
                    self.world.sockets[socket].send_update(replica, &whole);
                    let step_one = self.world.sockets[socket].replicas[replica].step_one();
                    self.world.sockets[socket].send(replica, &step_one);
                }
            }
        }
        self.world.settle();
        // What had to wait for another turn, or for the answer of the ledger.
        self.world.pass(Duration::from_millis(50));
        self.world.settle();
    }

    fn finish(&mut self) {
        if self.world.random.one_in(3) {
            self.world.drain(Duration::from_secs(10));
            self.world.pass_s(30);
            assert!(self.world.engines.iter().all(|engine| engine.is_drained()));
            let open = self.world.sockets.iter().filter(|socket| socket.end.is_none()).count();
            assert_eq!(open, 0, "sockets survive the drain");
        }
        for socket in 0..self.world.sockets.len() {
            self.world.hang_up(socket);
        }
        self.world.settle();
        self.world.pass_s(200);
        self.world.assert_empty();
        for socket in &self.world.sockets {
            let known = matches!(&socket.end, Some(End::ByClient | End::ByServer(_)));
            assert!(known && socket.place.is_none(), "every socket ends");
        }
    }
}

fn run(seed: u64) -> Counters {
    let mut schedule = Schedule::new(seed);
    for step in 0..STEPS {
        schedule.step();
        schedule.check_bounds();
        if step % 40 == 39 {
            schedule.sync_all();
            schedule.check();
        }
    }
    schedule.finish();
    schedule.world.counters()
}

#[test]
#[allow(clippy::disallowed_methods)] // the seed is the developer's to choose
fn whatever_the_order_of_events_the_invariants_hold() {
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let (first, count) = match number("WIRESOCKET_SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("WIRESOCKET_SCHEDULES").unwrap_or(SCHEDULES)),
    };
    let (mut resyncs, mut parked, mut panics) = (0, 0, 0);
    for seed in first..first + count {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(counters) => {
                resyncs += counters.resyncs;
                parked += counters.updates_parked;
                panics += counters.crdt_panics;
            }
            Err(panic) => {
                eprintln!("repeat it with WIRESOCKET_SEED={seed}");
                resume_unwind(panic);
            }
        }
    }
    // Orders of events that never get to the rare paths would say nothing of them.
    let reached = [resyncs, parked, panics].iter().all(|times| *times >= count / 20);
    assert!(
        reached,
        "{resyncs} resyncs, {parked} parked updates and {panics} fenced panics in {count} schedules"
    );
}
