//! A simulated client: one socket of either wire, and the replicas it carries, each with a real yrs document.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{Doc, GetString, Map, Options, ReadTxn, Text, Transact, TransactionMut, Update};

use crate::engine::event::{ConnectionId, ShardIndex};
use crate::protocol::close::Refusal;
use crate::protocol::lib0::{self, Reader};
use crate::protocol::message::{self, Wire};

/// How a socket came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    ByClient,
    ByServer(Refusal),
    /// The node went down.
    Lost,
}

/// What the server said about one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    StepOne,
    StepTwo(Vec<u8>),
    Update(Vec<u8>),
    /// Client, clock and JSON of each entry.
    Awareness(Vec<(u64, u32, String)>),
    Authenticated,
    TokenWanted,
    Denied(String),
    Status(bool),
}

/// One document on one socket.
pub struct Replica {
    /// The routing key; the document's name for y-websocket too, which never sends it.
    pub key: String,
    pub doc: Doc,
    pub said: Vec<Said>,
    /// Everybody's awareness: clock, and JSON while they are here.
    pub present: BTreeMap<u64, (u32, Option<String>)>,
    /// Its own awareness clock.
    pub clock: u32,
    /// The server let it in (for y-websocket: said anything).
    pub open: bool,
    /// It hears which of its updates are stored.
    pub acknowledges: bool,
    /// Messages that the server owes a SyncStatus for.
    pub unacknowledged: usize,
    /// The updates among them.
    pub pending: Vec<Vec<u8>>,
    /// What the server has said is stored: its words come in the order of the updates.
    pub stored: Vec<Vec<u8>>,
    /// It can't tell any more what an acknowledgement is for.
    pub uncertain: bool,
    pub denied: Option<String>,
    /// It was told that it may only read.
    pub read_only: bool,
    /// Says Auth's answer itself and nothing more, for tests of single messages.
    pub silent: bool,
}

/// One WebSocket, from its client's side.
pub struct Socket {
    pub wire: Wire,
    /// Where it lives now; `None` on its way between shards.
    pub place: Option<(ShardIndex, ConnectionId)>,
    pub end: Option<End>,
    /// Messages on their way to the server.
    pub outgoing: VecDeque<Vec<u8>>,
    /// Bytes on their way to the client.
    pub incoming: Vec<u8>,
    /// The client reads what comes.
    pub reads: bool,
    /// The server's queue is over its bound, and its engine knows.
    pub stalled: bool,
    pub replicas: Vec<Replica>,
    /// Documents that were taken off it, with their awareness clocks: a provider that comes back is the same client.
    pub detached: BTreeMap<String, (Doc, u32)>,
    pub pings: usize,
    pub pongs: usize,
    /// Which app its token is for, where a test cares.
    pub app: u128,
    /// Its client means harm.
    pub hostile: bool,
    /// The token its replicas say Auth with.
    pub token: String,
}

pub fn document(client: u64) -> Doc {
    let mut options = Options::with_client_id(yrs::block::ClientID::new(client));
    options.offset_kind = yrs::OffsetKind::Utf16;
    let doc = Doc::with_options(options);
    doc.get_or_insert_text("text");
    doc.get_or_insert_map("map");
    doc
}

/// The whole content, comparable.
pub fn content(doc: &Doc) -> String {
    let (text, map) = (doc.get_or_insert_text("text"), doc.get_or_insert_map("map"));
    let txn = doc.transact();
    let map: BTreeMap<String, String> =
        map.iter(&txn).map(|(k, v)| (k.to_owned(), v.to_string(&txn))).collect();
    format!("{} {map:?} {:?}", text.get_string(&txn), sorted_state(&txn))
}

fn sorted_state(txn: &impl ReadTxn) -> BTreeMap<u64, u32> {
    txn.state_vector().iter().map(|(client, clock)| (client.get(), *clock)).collect()
}

pub fn sync(step: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0, step];
    lib0::write_var_bytes(&mut body, payload);
    body
}

pub fn awareness(entries: &[(u64, u32, &str)]) -> Vec<u8> {
    let mut payload = Vec::new();
    lib0::write_var_u64(&mut payload, entries.len() as u64);
    for &(client, clock, json) in entries {
        lib0::write_var_u64(&mut payload, client);
        lib0::write_var_u64(&mut payload, u64::from(clock));
        lib0::write_var_str(&mut payload, json);
    }
    let mut body = vec![1];
    lib0::write_var_bytes(&mut body, &payload);
    body
}

pub fn auth(token: &str) -> Vec<u8> {
    let mut body = Vec::new();
    message::write_token(&mut body, token);
    body
}

pub const LEAVE: [u8; 1] = [7];
pub const QUERY_AWARENESS: [u8; 1] = [3];

impl Replica {
    pub fn new(key: &str, doc: Doc) -> Self {
        Self {
            key: key.to_owned(),
            doc,
            said: Vec::new(),
            present: BTreeMap::new(),
            clock: 0,
            open: false,
            acknowledges: false,
            unacknowledged: 0,
            pending: Vec::new(),
            stored: Vec::new(),
            uncertain: false,
            denied: None,
            read_only: false,
            silent: false,
        }
    }

    pub fn client(&self) -> u64 {
        self.doc.client_id().get()
    }

    pub fn text(&self) -> String {
        self.doc.get_or_insert_text("text").get_string(&self.doc.transact())
    }

    /// Changes the document and returns the update.
    pub fn change(&self, change: impl FnOnce(&Doc, &mut TransactionMut<'_>)) -> Vec<u8> {
        let mut txn = self.doc.transact_mut();
        change(&self.doc, &mut txn);
        txn.encode_update_v1()
    }

    pub fn insert(&self, at: u32, text: &str) -> Vec<u8> {
        let place = self.doc.get_or_insert_text("text");
        self.change(|_, txn| place.insert(txn, at.min(place.len(txn)), text))
    }

    pub fn remove(&self, at: u32, count: u32) -> Vec<u8> {
        let place = self.doc.get_or_insert_text("text");
        self.change(|_, txn| {
            let at = at.min(place.len(txn));
            let count = count.min(place.len(txn) - at);
            place.remove_range(txn, at, count);
        })
    }

    pub fn set(&self, key: &str, value: i64) -> Vec<u8> {
        let map = self.doc.get_or_insert_map("map");
        self.change(|_, txn| {
            map.insert(txn, key, value);
        })
    }

    pub fn step_one(&self) -> Vec<u8> {
        sync(0, &self.doc.transact().state_vector().encode_v1())
    }

    /// The ids that are here, as this client sees it.
    pub fn here(&self) -> Vec<u64> {
        self.present.iter().filter(|(_, (_, json))| json.is_some()).map(|(id, _)| *id).collect()
    }

    pub fn count(&self, said: &Said) -> usize {
        self.said.iter().filter(|other| *other == said).count()
    }

    /// The updates that were relayed to it.
    pub fn relayed(&self) -> Vec<&[u8]> {
        let relayed = self.said.iter().filter_map(|said| match said {
            Said::Update(update) => Some(&update[..]),
            _ => None,
        });
        relayed.collect()
    }

    /// What it was told, by kind.
    pub fn kinds(&self) -> Vec<&'static str> {
        let kind = |said: &Said| match said {
            Said::StepOne => "step 1",
            Said::StepTwo(_) => "step 2",
            Said::Update(_) => "update",
            Said::Awareness(_) => "awareness",
            Said::Authenticated => "authenticated",
            Said::TokenWanted => "token wanted",
            Said::Denied(_) => "denied",
            Said::Status(true) => "stored",
            Said::Status(false) => "refused",
        };
        self.said.iter().map(kind).collect()
    }

    /// Takes one message in; what it answers.
    fn take(&mut self, wire: Wire, body: &[u8]) -> Vec<Vec<u8>> {
        let mut reader = Reader::new(body);
        let mut answers = Vec::new();
        // Of the time before it left and came back on the same socket: what is acknowledged then, nobody can tell.
        self.uncertain |= wire == Wire::Hocuspocus && !self.open && matches!(body[0], 0 | 8);
        match (reader.byte().unwrap(), reader.byte().unwrap()) {
            (0, 0) => {
                let state = yrs::StateVector::decode_v1(reader.var_bytes().unwrap()).unwrap();
                let diff = self.doc.transact().encode_diff_v1(&state);
                answers.push(sync(1, &diff));
                if !self.silent {
                    self.owed(diff);
                }
                self.said.push(Said::StepOne);
            }
            (0, step @ (1 | 2)) => {
                let bytes = reader.var_bytes().unwrap();
                self.doc.transact_mut().apply_update(Update::decode_v1(bytes).unwrap()).unwrap();
                self.said.push(if step == 1 {
                    Said::StepTwo(bytes.into())
                } else {
                    Said::Update(bytes.into())
                });
            }
            // Of the time before it left and came back on the same socket: an echo of it could revive who left meanwhile.
            (1, _) if wire == Wire::Hocuspocus && !self.open => {}
            (1, _) => answers.extend(self.take_awareness(&body[1..])),
            // The same number is a refusal on one wire and a question on the other.
            (2, 0) if wire == Wire::YWebsocket => {
                self.said.push(Said::Denied(reader.var_str().unwrap().to_owned()));
            }
            (2, 0) => self.said.push(Said::TokenWanted),
            (2, 1) => {
                let reason = reader.var_str().unwrap().to_owned();
                self.open = false;
                self.unacknowledged = 0;
                self.pending.clear();
                self.uncertain = true;
                self.present.clear();
                self.denied = Some(reason.clone());
                self.said.push(Said::Denied(reason));
            }
            (2, 2) => {
                self.read_only = match reader.var_str().unwrap() {
                    "readonly" => true,
                    "read-write" => false,
                    other => panic!("no provider knows the scope {other:?}"),
                };
                self.open = true;
                self.denied = None;
                self.said.push(Said::Authenticated);
                answers.push(self.step_one());
                self.clock += 1;
                answers.push(awareness(&[(self.client(), self.clock, "{}")]));
            }
            (8, status) => {
                self.acknowledged(status == 1);
                self.said.push(Said::Status(status == 1));
            }
            other => panic!("the server never says {other:?}"),
        }
        if wire == Wire::YWebsocket {
            self.open = true;
        }
        if self.silent { Vec::new() } else { answers }
    }

    /// An update is sent.
    fn owed(&mut self, update: Vec<u8>) {
        if self.acknowledges {
            self.unacknowledged += 1;
            self.pending.push(update);
        }
    }

    fn acknowledged(&mut self, stored: bool) {
        self.unacknowledged = self.unacknowledged.saturating_sub(1);
        if self.pending.is_empty() {
            return;
        }
        let update = self.pending.remove(0);
        if stored && !self.uncertain {
            self.stored.push(update);
        }
    }

    /// As y-protocols does it, and like the providers it sends back what it took from others.
    fn take_awareness(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut reader = Reader::new(Reader::new(bytes).var_bytes().unwrap());
        let mut entries = Vec::new();
        for _ in 0..reader.var_u64().unwrap() {
            let client = reader.var_u64().unwrap();
            let clock = reader.var_u32().unwrap();
            entries.push((client, clock, reader.var_str().unwrap().to_owned()));
        }
        assert!(reader.is_empty());
        let mut taken = Vec::new();
        for (client, clock, json) in &entries {
            let json = (json != "null").then(|| json.clone());
            let known = self.present.get(client);
            let newer = known.is_none_or(|(at, _)| clock > at)
                || known.is_some_and(|(at, here)| clock == at && json.is_none() && here.is_some());
            if newer {
                self.present.insert(*client, (*clock, json));
                taken.push((*client, *clock));
            }
        }
        self.said.push(Said::Awareness(entries));
        let echo: Vec<(u64, u32, &str)> = taken
            .iter()
            .filter(|(client, _)| *client != self.doc.client_id().get())
            .map(|(client, clock)| (*client, *clock, self.present[client].1.as_deref().unwrap_or("null")))
            .collect();
        (!echo.is_empty()).then(|| awareness(&echo))
    }
}

impl Socket {
    pub fn new(wire: Wire, token: &str) -> Self {
        Self {
            wire,
            place: None,
            end: None,
            outgoing: VecDeque::new(),
            incoming: Vec::new(),
            reads: true,
            stalled: false,
            replicas: Vec::new(),
            detached: BTreeMap::new(),
            pings: 0,
            pongs: 0,
            app: 1,
            hostile: false,
            token: token.to_owned(),
        }
    }

    /// Queues a message about one replica.
    pub fn send(&mut self, replica: usize, body: &[u8]) {
        if self.end.is_some() {
            return;
        }
        let key = self.replicas[replica].key.clone();
        self.send_keyed(&key, body);
    }

    pub fn send_keyed(&mut self, key: &str, body: &[u8]) {
        let mut frame = Vec::new();
        if self.wire == Wire::Hocuspocus {
            lib0::write_var_str(&mut frame, key);
        }
        frame.extend_from_slice(body);
        self.outgoing.push_back(frame);
    }

    /// Queues an update, for which many a client expects an acknowledgement.
    pub fn send_update(&mut self, replica: usize, update: &[u8]) {
        self.replicas[replica].owed(update.to_vec());
        self.send(replica, &sync(2, update));
    }

    /// Reads everything that came and queues the answers.
    pub fn read(&mut self) {
        let bytes = std::mem::take(&mut self.incoming);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (opcode, payload, after) = frame(rest);
            rest = after;
            match opcode {
                2 => self.take(payload),
                9 => self.pings += 1,
                10 => self.pongs += 1,
                other => panic!("the engine never writes opcode {other}"),
            }
        }
    }

    fn take(&mut self, payload: &[u8]) {
        let (at, body) = match self.wire {
            Wire::YWebsocket => (0, payload),
            Wire::Hocuspocus => {
                if payload == [10] {
                    self.pongs += 1;
                    return;
                }
                let mut reader = Reader::new(payload);
                let key = reader.var_str().unwrap();
                // A replica that left may still hear something.
                let Some(at) = self.replicas.iter().position(|replica| replica.key == key) else { return };
                (at, reader.remaining())
            }
        };
        for answer in self.replicas[at].take(self.wire, body) {
            self.send(at, &answer);
        }
    }
}

/// The first server frame: opcode, payload, and what follows. Servers neither mask nor split.
fn frame(bytes: &[u8]) -> (u8, &[u8], &[u8]) {
    assert_eq!(bytes[0] & 0xf0, 0x80, "a whole frame without extensions");
    let (len, head) = match bytes[1] {
        126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
        127 => (usize::try_from(u64::from_be_bytes(bytes[2..10].try_into().unwrap())).unwrap(), 10),
        len => (usize::from(len), 2),
    };
    (bytes[0] & 0xf, &bytes[head..head + len], &bytes[head + len..])
}
