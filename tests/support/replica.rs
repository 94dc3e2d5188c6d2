//! An editor: a yrs document that keeps itself in sync over either wire.

use std::time::Instant;

use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{Doc, GetString, ReadTxn, StateVector, Text, TextRef, Transact, Update};

use super::client::Incoming;
use super::wire::{self, Message, Wire};
use super::{Client, DEADLINE, Server};

/// One editor of one document. It reads only while it waits for something ([`Replica::wait_for`] and the like).
pub struct Replica {
    pub client: Client,
    pub wire: Wire,
    pub doc: Doc,
    text: TextRef,
    /// A step 2 came.
    pub synced: bool,
    /// Updates that were relayed to it (step 2 not counted).
    pub updates_received: usize,
    /// Hocuspocus: updates that the server has acknowledged, and refused.
    pub acknowledged: usize,
    pub refused: usize,
    /// Everybody's awareness payloads, in order.
    pub awareness: Vec<Vec<u8>>,
    /// Set when the connection has ended.
    pub ended: Option<(u16, String)>,
    /// What was said about authentication, in order.
    pub auth: Vec<Message>,
}

impl Replica {
    /// Speaks `wire` on an open connection; nothing is sent yet.
    pub fn new(client: Client, wire: Wire) -> Self {
        Self::of(Doc::new(), client, wire)
    }

    /// Like [`Replica::new`], with a document of the caller's making.
    pub fn of(doc: Doc, client: Client, wire: Wire) -> Self {
        let text = doc.get_or_insert_text("content");
        Self {
            client,
            wire,
            doc,
            text,
            synced: false,
            updates_received: 0,
            acknowledged: 0,
            refused: 0,
            awareness: Vec::new(),
            ended: None,
            auth: Vec::new(),
        }
    }

    /// y-websocket: connects and syncs.
    #[track_caller]
    pub fn join(server: &Server, document: &str, token: &str) -> Self {
        let mut replica = Self::new(Client::join(server, document, token), Wire::YWebsocket);
        replica.sync();
        replica
    }

    /// Hocuspocus: connects, authenticates and syncs.
    #[track_caller]
    pub fn join_hocuspocus(server: &Server, document: &str, token: &str) -> Self {
        let mut replica = Self::new(Client::hocuspocus(server), Wire::Hocuspocus(document.to_owned()));
        replica.send(&wire::auth(token, None));
        replica.sync();
        assert_eq!(replica.auth, [Message::Authenticated("read-write".to_owned())]);
        replica
    }

    /// The same document on a new connection, as after a reconnect.
    pub fn reconnected(mut self, client: Client) -> Self {
        self.client = client;
        self.synced = false;
        self.ended = None;
        self
    }

    /// Sends one message in this replica's framing.
    #[track_caller]
    pub fn send(&mut self, body: &[u8]) {
        let frame = self.wire.frame(body);
        self.client.send(&frame);
    }

    /// Sends step 1 and waits until step 2 is in.
    #[track_caller]
    pub fn sync(&mut self) {
        self.synced = false;
        let state_vector = self.doc.transact().state_vector().encode_v1();
        self.send(&wire::step_one(&state_vector));
        self.wait_for("sync", |replica| replica.synced);
    }

    /// Changes the text and returns the update without sending it.
    pub fn edit(&mut self, edit: impl FnOnce(&TextRef, &mut yrs::TransactionMut<'_>)) -> Vec<u8> {
        let mut transaction = self.doc.transact_mut();
        edit(&self.text, &mut transaction);
        transaction.encode_update_v1()
    }

    /// Inserts at the end and sends it.
    #[track_caller]
    pub fn append(&mut self, chunk: &str) {
        let update = self.edit(|text, transaction| {
            let end = text.len(transaction);
            text.insert(transaction, end, chunk);
        });
        self.send(&wire::update(&update));
    }

    pub fn text(&self) -> String {
        self.text.get_string(&self.doc.transact())
    }

    pub fn state(&self) -> Vec<u8> {
        self.doc.transact().encode_state_as_update_v1(&StateVector::default())
    }

    /// Reads until the condition holds; panics when the connection ends before.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let until = Instant::now() + DEADLINE;
        while !holds(self) {
            assert!(self.ended.is_none(), "ended with {:?} while waiting for {what}", self.ended);
            let left = until.saturating_duration_since(Instant::now());
            match self.client.try_receive(left) {
                Some(incoming) => self.take(incoming),
                None => panic!("not within {DEADLINE:?}: {what}; the text is {:?}", self.text()),
            }
        }
    }

    #[track_caller]
    pub fn wait_for_text(&mut self, text: &str) {
        self.wait_for(&format!("the text {text:?}"), |replica| replica.text() == text);
    }

    /// Reads until the server ends the connection.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> (u16, String) {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(ended) = &self.ended {
                return ended.clone();
            }
            match self.client.try_receive(until.saturating_duration_since(Instant::now())) {
                Some(incoming) => self.take(incoming),
                None => panic!("the server did not close within {DEADLINE:?}"),
            }
        }
    }

    /// Sends a ping and reads up to its pong: what the server sent before it is in then.
    #[track_caller]
    pub fn flush(&mut self) {
        if let Some(ended) = self.flush_or_end() {
            panic!("ended with {ended:?} while waiting for a pong");
        }
    }

    /// Like [`Replica::flush`], but the server may have ended the connection; says how.
    #[track_caller]
    pub fn flush_or_end(&mut self) -> Option<(u16, String)> {
        // It may have closed already; then the next read says so.
        let _ = self.client.try_ping(b"flush");
        loop {
            match self.client.receive() {
                Incoming::Pong => return None,
                incoming => self.take(incoming),
            }
            if self.ended.is_some() {
                return self.ended.clone();
            }
        }
    }

    #[track_caller]
    fn take(&mut self, incoming: Incoming) {
        let frame = match incoming {
            Incoming::Binary(frame) => frame,
            Incoming::Ping | Incoming::Pong => return,
            Incoming::Close(code, reason) => return self.ended = Some((code, reason)),
            Incoming::Ended => return self.ended = Some((1006, String::new())),
            Incoming::Text(text) => panic!("a server of Yjs sends no text: {text:?}"),
        };
        let message = self.wire.parse(&frame).unwrap_or_else(|| panic!("malformed: {frame:?}"));
        match message {
            Message::StepOne(state_vector) => {
                let state_vector = StateVector::decode_v1(&state_vector).expect("a state vector");
                let lacking = self.doc.transact().encode_state_as_update_v1(&state_vector);
                let answer = self.wire.frame(&wire::step_two(&lacking));
                // The server may be closing already; then the next read says so.
                let _ = self.client.try_send(&answer);
            }
            Message::StepTwo(update) => {
                self.apply(&update);
                self.synced = true;
            }
            Message::Update(update) => {
                self.apply(&update);
                self.updates_received += 1;
            }
            Message::Awareness(payload) => self.awareness.push(payload),
            Message::SyncStatus(true) => self.acknowledged += 1,
            Message::SyncStatus(false) => self.refused += 1,
            Message::Denied(_) | Message::Authenticated(_) | Message::TokenRequest => self.auth.push(message),
            Message::Close(_) | Message::Other(_) => {}
        }
    }

    #[track_caller]
    fn apply(&mut self, update: &[u8]) {
        let update = Update::decode_v1(update).expect("the server sends valid updates");
        self.doc.transact_mut().apply_update(update).expect("the server sends updates that apply");
    }
}
