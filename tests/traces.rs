//! Real editing histories through the real server: every replica must end in the trace's own final text.
//!
//! Traces come from the folder `WIRESOCKET_TRACES`; where none is named, they are made up with the same statistics.
//! `WIRESOCKET_SEED` repeats a run.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;
mod trace;

use std::time::Instant;

use support::wire::{self, Message, Wire};
use support::{Client, DEADLINE, Incoming, NodeSetup, Server, Tenant};
use trace::{Concurrent, Random, Sequential, seed};
use yrs::block::ClientID;
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{Doc, GetString, OffsetKind, Options, ReadTxn, StateVector, Text, TextRef, Transact, Update};

/// A y-websocket editor that takes in what others wrote only when the trace says that its author had seen it.
struct Author {
    client: Option<Client>,
    doc: Doc,
    text: TextRef,
    /// Updates that arrived and are not applied yet.
    inbox: Vec<Vec<u8>>,
    synced: bool,
}

impl Author {
    fn new(id: u64) -> Self {
        let mut options = Options::with_client_id(ClientID::new(id));
        options.offset_kind = OffsetKind::Utf16;
        let doc = Doc::with_options(options);
        let text = doc.get_or_insert_text("content");
        Self { client: None, doc, text, inbox: Vec::new(), synced: false }
    }

    /// (Re)connects: the server is told what is here and what is not.
    fn connect(&mut self, server: &Server, token: &str) {
        self.client = Some(Client::join(server, "trace", token));
        self.synced = false;
        let state = self.doc.transact().state_vector().encode_v1();
        self.send(&wire::step_one(&state));
        self.wait_for("step 2", |author| author.synced);
    }

    /// The connection breaks, without a goodbye.
    fn disconnect(&mut self) {
        if let Some(client) = self.client.take() {
            client.reset();
        }
    }

    fn send(&mut self, body: &[u8]) {
        self.client.as_mut().expect("it is connected").send(&Wire::YWebsocket.frame(body));
    }

    /// Makes the edits in one transaction; sends them, where there is a connection to send them on.
    fn edit(&mut self, edits: &[trace::Edit]) {
        let update = {
            let mut transaction = self.doc.transact_mut();
            for edit in edits {
                if edit.deleted > 0 {
                    self.text.remove_range(&mut transaction, edit.position, edit.deleted);
                }
                if !edit.inserted.is_empty() {
                    self.text.insert(&mut transaction, edit.position, &edit.inserted);
                }
            }
            transaction.encode_update_v1()
        };
        if self.client.is_some() {
            self.send(&wire::update(&update));
        }
    }

    fn apply_inbox(&mut self, count: usize) {
        for update in self.inbox.drain(..count) {
            let update = Update::decode_v1(&update).expect("the server sends valid updates");
            self.doc.transact_mut().apply_update(update).expect("what the server sends applies");
        }
    }

    /// Reads until the condition holds.
    fn wait_for(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let until = Instant::now() + DEADLINE;
        while !holds(self) {
            let client = self.client.as_mut().expect("it is connected");
            match client.try_receive(until.saturating_duration_since(Instant::now())) {
                Some(Incoming::Binary(frame)) => self.take(&frame),
                Some(Incoming::Ping | Incoming::Pong) => {}
                other => panic!("{other:?} while waiting for {what}"),
            }
        }
    }

    fn take(&mut self, frame: &[u8]) {
        match Wire::YWebsocket.parse(frame) {
            Some(Message::StepOne(state)) => {
                let state = StateVector::decode_v1(&state).expect("a state vector");
                let answer = wire::step_two(&self.doc.transact().encode_diff_v1(&state));
                self.send(&answer);
            }
            Some(Message::StepTwo(update)) => {
                self.inbox.push(update);
                self.apply_inbox(self.inbox.len());
                self.synced = true;
            }
            Some(Message::Update(update)) => self.inbox.push(update),
            _ => {}
        }
    }

    /// Whether it has all of this state, and a text of this length: deletions count in no state vector.
    fn has(&self, (state, length): &(StateVector, u32)) -> bool {
        let mine = self.state();
        state.iter().all(|(client, clock)| mine.0.get(client) >= *clock) && mine.1 == *length
    }

    /// Catches up until it has everything of `state`.
    fn catch_up(&mut self, state: &(StateVector, u32)) {
        self.apply_inbox(self.inbox.len());
        let until = Instant::now() + DEADLINE;
        while !self.has(state) {
            let client = self.client.as_mut().expect("it is connected");
            match client.try_receive(until.saturating_duration_since(Instant::now())) {
                Some(Incoming::Binary(frame)) => self.take(&frame),
                Some(Incoming::Ping | Incoming::Pong) => {}
                other => panic!("{other:?} while catching up"),
            }
            self.apply_inbox(self.inbox.len());
        }
    }

    fn state(&self) -> (StateVector, u32) {
        let transaction = self.doc.transact();
        (transaction.state_vector(), self.text.len(&transaction))
    }

    fn content(&self) -> String {
        self.text.get_string(&self.doc.transact())
    }

    /// The whole state, deletions included, in an order that does not depend on who encodes it.
    fn encoded(&self) -> String {
        format!("{:?}", self.doc.transact().snapshot())
    }
}

/// Every author has everything, and it is the trace's end.
fn assert_end(authors: &mut [Author], server: &Server, token: &str, end: &str) {
    let mut whole = (StateVector::default(), end.chars().count() as u32);
    for author in authors.iter() {
        whole.0.merge(author.state().0);
    }
    for (n, author) in authors.iter_mut().enumerate() {
        // Deletions have no clock to wait for: a new connection brings them with its step 2.
        author.disconnect();
        author.connect(server, token);
        author.catch_up(&whole);
        assert!(author.content() == end, "author {n} ends in another text");
    }
    let mut late = Author::new(999);
    late.connect(server, token);
    assert!(late.content() == end, "the server ends in another text");
    for (n, author) in authors.iter().enumerate() {
        assert_eq!(author.encoded(), late.encoded(), "author {n} and the server");
    }
}

fn node(tenant: &Tenant) -> Server {
    NodeSetup::new(tenant).set("sessions.grace_period_s", 60).start()
}

/// One history, written by eight replicas in turns. Whoever is not writing may lose its connection, and come back
/// only when it is its turn again; whoever is may be cut off before its edits are out, so that the server pulls them
/// when it returns.
#[test]
fn a_history_written_by_eight_replicas_with_partitions_ends_in_its_text() {
    let seed = seed();
    let mut random = Random::new(seed);
    let trace = Sequential::load();
    eprintln!("{} edits of {}; WIRESOCKET_SEED={seed}", trace.edits.len(), trace.source);
    let tenant = Tenant::new(1);
    let (server, token) = (node(&tenant), tenant.token().build());
    let mut authors: Vec<Author> = (1..=8).map(Author::new).collect();
    let mut state = (StateVector::default(), 0);
    let (mut partitions, mut offline, mut updates) = (0, 0, 0);
    let mut at = 0;
    while at < trace.edits.len() {
        let turn = (20 + random.below(1500)).min(trace.edits.len() - at);
        let edits = &trace.edits[at..at + turn];
        at += turn;
        let writer = random.below(authors.len());
        let author = &mut authors[writer];
        if author.client.is_none() {
            author.connect(&server, &token);
        }
        author.catch_up(&state);
        if random.below(3) == 0 {
            author.disconnect();
            offline += 1;
        }
        // One update for up to a hundred keystrokes, as a provider that throttles would send them.
        for edits in edits.chunks(100) {
            author.edit(&trace::joined(edits));
            updates += 1;
        }
        state = author.state();
        if author.client.is_none() {
            author.connect(&server, &token);
        }
        let cut = random.below(authors.len());
        if cut != writer && authors[cut].client.is_some() {
            authors[cut].disconnect();
            partitions += 1;
        }
    }
    assert!(
        partitions > 10 && offline > 10,
        "{partitions} partitions, {offline} turns offline, {updates} updates"
    );
    assert_end(&mut authors, &server, &token, &trace.end);
}

/// Two authors who typed at the same time. Each is a replica; before a transaction it has merged exactly what the
/// trace says its author had seen then, however much more has arrived.
#[test]
fn a_concurrent_history_ends_in_its_text() {
    let trace = Concurrent::load();
    eprintln!("{} transactions of {}", trace.transactions.len(), trace.source);
    let tenant = Tenant::new(1);
    let (server, token) = (node(&tenant), tenant.token().build());
    let mut authors: Vec<Author> = (1..=trace.agents as u64).map(Author::new).collect();
    for author in &mut authors {
        author.connect(&server, &token);
    }
    let mut merges = 0;
    // How many updates of each agent are out, and how many each agent has merged of each other.
    let mut sent = vec![0; trace.agents];
    let mut merged = vec![vec![0; trace.agents]; trace.agents];
    let mut published: Vec<Vec<usize>> = vec![Vec::new(); trace.agents];
    for run in trace.runs() {
        let agent = run.agent;
        for other in (0..trace.agents).filter(|other| *other != agent) {
            let needed = published[other].iter().take_while(|seen| **seen <= run.seen[other]).count();
            if needed > merged[agent][other] {
                let count = needed - merged[agent][other];
                authors[agent].wait_for("the other's updates", |author| author.inbox.len() >= count);
                authors[agent].apply_inbox(count);
                merged[agent][other] = needed;
                merges += 1;
            }
        }
        authors[agent].edit(&run.edits);
        sent[agent] += run.transactions;
        published[agent].push(sent[agent]);
    }
    assert!(merges > 10, "{merges} merges");
    assert_end(&mut authors, &server, &token, &trace.end);
}
