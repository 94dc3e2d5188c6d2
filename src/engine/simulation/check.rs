//! What must hold: some of it at every moment, the rest whenever everybody reads and nothing is under way, and once all
//! are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::client::{End, content};
use super::promise::name_of;
use super::schedule::{APPS, LETTERS, Schedule};
use super::world::{LEEWAY_S, WIDE, World, app, token_of};
use crate::auth::keys::Lookup;
use crate::engine::behind::ANSWERS_BYTES_MAX;
use crate::engine::link::Target;
use crate::protocol::document::DocumentName;

impl Drop for Schedule {
    /// What there is to know of a run that has failed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let World { faults, level, engines, .. } = &self.world;
            let settings = engines.first().map(|engine| engine.settings());
            eprintln!(
                "{} shards, {level:?}, {:?}, {settings:?}, after {faults:?}",
                engines.len(),
                self.limits
            );
        }
    }
}

/// After the wall clock was set it takes so long at most until everybody is looked at again.
const CLOCK_NOTICED_AFTER: Duration = Duration::from_secs(70);

/// Clients of bombs begin here.
const BOMBS: u64 = 1_000_000;

impl Schedule {
    /// Bounds that hold at every moment.
    pub fn check_bounds(&self) {
        for engine in &self.world.engines {
            let settings = engine.settings();
            for (_, room) in engine.rooms.iter() {
                assert!(room.document.parked_bytes() <= settings.parked_bytes_max, "parked bytes");
            }
            for (_, link) in engine.links.iter() {
                assert!(link.frames.len() < ANSWERS_BYTES_MAX + (1 << 20), "queued answers");
            }
            assert!(engine.held_bytes() <= 64 << 10, "held messages");
            let backlog = engine.gauges().unstored_bytes;
            assert!(backlog <= settings.journal_backlog_bytes_max + (64 << 10), "{backlog} bytes unstored");
        }
        self.check_limits();
        for socket in &self.world.sockets {
            let bound = self.world.outbox_bytes_max + (64 << 10);
            assert!(socket.incoming.len() < bound, "{} bytes wait for one client", socket.incoming.len());
        }
    }

    /// As the rooms see it: nobody is in who doesn't fit.
    fn check_limits(&self) {
        let mut documents: BTreeMap<_, u32> = BTreeMap::new();
        for (_, room) in self.world.engines.iter().flat_map(|engine| engine.rooms.iter()) {
            let users = room.sessions.len() as u32;
            assert!(users <= self.limits.users_per_document_max, "{users} in {:?}", room.id);
            *documents.entry(room.id.app).or_default() += u32::from(users > 0);
        }
        assert!(documents.values().all(|count| *count <= self.limits.documents_max), "{documents:?}");
        for app_of in 1..=APPS {
            let in_app = |socket: &&super::client::Socket| {
                let is_in = socket.wire == crate::protocol::message::Wire::YWebsocket
                    && socket.replicas.iter().any(|replica| replica.open);
                socket.end.is_none() && socket.app == app_of && is_in
            };
            let connections = self.world.sockets.iter().filter(in_app).count();
            assert!(connections <= self.limits.connections_max as usize, "{connections} connections");
        }
    }

    /// Nobody is in whose token isn't good any more, or isn't for that document.
    fn check_admitted(&self) {
        let clock_is_known = self.world.now.monotonic > self.clock_set_at + CLOCK_NOTICED_AFTER;
        for engine in &self.world.engines {
            for channel in engine.channels().filter(|channel| channel.is_open()) {
                let grant = channel.grant.as_ref().expect("who is in has a token");
                let key = self.world.newest_keys.lookup(grant.app.tenant, &grant.key_id);
                assert!(!matches!(key, Lookup::Revoked), "a session of a revoked key");
                let over = self.world.now.unix_s > grant.expires_unix_s + LEEWAY_S + 1;
                let closes = engine.settings().close_on_token_expiry;
                assert!(!(over && closes && clock_is_known), "a session outlives its token");
                if let Ok(name) = DocumentName::parse(name_of(&channel.key)) {
                    assert!(grant.permissions.check(&name).is_ok(), "{name:?} is not in the token");
                }
            }
        }
    }

    /// Nobody may write whose newest token says that he may not.
    fn check_rights(&self) {
        for engine in &self.world.engines {
            for (_, session) in engine.sessions.iter() {
                let (at, connection) = match engine.links.get(session.link).map(|link| link.target) {
                    Some(Target::Socket(connection)) => (engine, connection),
                    Some(Target::Shard { shard, connection }) => {
                        (&self.world.engines[usize::from(shard)], connection)
                    }
                    None => panic!("a session without a link"),
                };
                let connection = at.connections.get(connection).expect("a session has a socket");
                let channel = connection.channel(session.channel).expect("a session has a channel");
                let grant = channel.grant.as_ref().expect("who is in has a token");
                assert_eq!(session.terms.read_only, grant.permissions.read_only, "rights of {grant:?}");
            }
        }
    }

    /// Whoever was sent away was told why, and it is so.
    fn check_reasons(&self) {
        for socket in &self.world.sockets {
            if let Some(End::ByServer(refusal)) = &socket.end {
                self.check_reason(socket, refusal.code());
            }
            for denied in socket.replicas.iter().filter_map(|replica| replica.denied.as_ref()) {
                let code = denied.split(' ').next().and_then(|code| code.parse().ok());
                self.check_reason(socket, code.unwrap_or_else(|| panic!("{denied:?} has no code")));
            }
        }
    }

    fn check_reason(&self, socket: &super::client::Socket, code: u16) {
        let failed_reads = self.world.faults.contains_key("failed read")
            || self.world.faults.contains_key("crash in a write");
        let is_so = match code {
            1000 | 1013 | 4001 | 4002 => true,
            1007 => socket.hostile,
            1009 => socket.hostile || self.world.engines[0].settings().parked_bytes_max < 1000,
            1002 => socket.hostile,
            1011 => failed_reads,
            1012 => self.drained,
            4003 => {
                !self.narrow.is_empty() || self.world.engines[0].settings().documents_per_connection_max < 256
            }
            4004 => self.limits.connections_max < WIDE.connections_max,
            4005 => self.limits.documents_max < WIDE.documents_max,
            4006 => self.limits.ops_per_minute < WIDE.ops_per_minute,
            4008 => self.limits.users_per_document_max < WIDE.users_per_document_max,
            _ => false,
        };
        assert!(is_so, "nothing explains {code} ({:?})", socket.end);
    }

    /// Nothing of who may only read is anywhere but with him.
    fn check_written(&mut self) {
        let is_known = |client: u64| client >= BOMBS || self.writers.contains(&client);
        let mut states: Vec<(u64, yrs::StateVector)> = Vec::new();
        for replica in self.world.sockets.iter().flat_map(|socket| &socket.replicas) {
            let state = yrs::ReadTxn::state_vector(&yrs::Transact::transact(&replica.doc));
            states.push((replica.client(), state));
        }
        for (own, state) in states {
            for (client, _) in state.iter() {
                let client = client.get();
                assert!(
                    client == own || is_known(client),
                    "{own} has what {client} wrote, who may only read"
                );
            }
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
                let name = name_of(&of.key).to_owned();
                let server = state(&self.world.server_document(app_of, &name).expect("somebody is in it"));
                for (client, clock) in server.iter() {
                    assert!(mine.get(client) >= *clock, "socket {at} missed what {client} wrote in {name}");
                }
            }
        }
    }

    /// What must hold once everybody reads and nothing is under way.
    pub fn check(&mut self) {
        self.world.check_promises();
        self.check_admitted();
        self.check_rights();
        self.check_reasons();
        self.check_written();
        let stores = !self.world.has_failed() && self.world.journal.is_some();

        let mut present: BTreeMap<(u128, String), Vec<(usize, usize)>> = BTreeMap::new();
        for (at, socket) in self.world.sockets.iter().enumerate() {
            assert!(socket.end.is_some() || socket.place.is_some(), "a socket is lost between shards");
            assert!(socket.end.is_some() || socket.outgoing.is_empty());
            for (replica_at, replica) in socket.replicas.iter().enumerate() {
                let text = replica.text();
                let others = LETTERS.iter().zip(1..).filter(|(_, of)| *of != socket.app);
                assert!(
                    others.into_iter().all(|(letter, _)| !text.contains(letter)),
                    "another app's: {text}"
                );
                if socket.end.is_none() && replica.open {
                    let name = name_of(&replica.key).to_owned();
                    present.entry((socket.app, name)).or_default().push((at, replica_at));
                    // What was on its way when its right to write was taken stays refused.
                    if (stores || self.world.journal.is_none()) && !replica.read_only {
                        assert_eq!(replica.unacknowledged, 0, "socket {at}, {:?}", replica.key);
                    }
                }
            }
        }
        for ((app_of, name), replicas) in present {
            let server = self.world.server_document(app(app_of), &name).expect("somebody is in it");
            let expected = content(&server);
            for &(socket, replica) in &replicas {
                let of = &self.world.sockets[socket].replicas[replica];
                if self.readers.contains(&of.client()) {
                    continue; // it may have what nobody else may
                }
                let doc = &of.doc;
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
    pub fn sync_all(&mut self) {
        (self.world.mute, self.world.holds_commits) = (false, false);
        if std::mem::take(&mut self.unanswered) {
            // What was not answered is asked again.
            self.world.settle();
            self.pass(Duration::from_secs(20));
        }
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

    /// Once more down and up, somebody looks at everything, and all leave.
    pub fn finish(&mut self) {
        if self.world.has_failed() || self.was_mute || self.world.random.one_in(2) {
            self.crash();
        }
        self.sync_all();
        if !self.world.died {
            self.check();
        }
        if self.world.has_failed() {
            self.crash();
            self.world.settle();
        }
        self.read_all();
        if self.world.random.one_in(3) {
            self.drained = true;
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
        self.check_reasons();
        if !self.world.has_failed() {
            self.world.assert_empty();
        }
        for socket in &self.world.sockets {
            assert!(socket.end.is_some() && socket.place.is_none(), "every socket ends");
        }
    }

    /// A client that was never here gets all that was ever said to be stored.
    fn read_all(&mut self) {
        for id in self.world.promised() {
            let lives_s = self.world.now.unix_s.saturating_sub(super::world::UNIX_S) + 900;
            let key = self.keys.last().expect("one key signs").clone();
            let token = token_of(&key, id.0, WIDE, lives_s);
            let newest = std::sync::Arc::clone(&self.world.newest_keys);
            self.world.set_keys(newest);
            self.world.settle();
            let doc = self.world.new_document();
            let reader = self.world.join_with(&token, &id.1, doc);
            self.world.sockets[reader].app = (1..=APPS).find(|of| app(*of) == id.0).expect("one of ours");
            let step_one = self.world.replica(reader).step_one();
            self.world.sockets[reader].send(0, &step_one);
            self.world.settle();
            self.world.pass(Duration::from_millis(50));
            self.world.settle();
            if self.world.sockets[reader].end.is_none() && !self.world.died {
                let missing = self.world.missing_in(&id, &self.world.replica(reader).doc);
                assert_eq!(missing, None, "{id:?}: a new client doesn't get what was stored");
            } else {
                self.check_reasons();
            }
            self.world.hang_up(reader);
        }
    }
}
