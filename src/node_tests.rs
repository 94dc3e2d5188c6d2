//! A whole node in this process, its sockets included, because here its CRDT can be made to panic: no input is known that
//! gets past the pre-scan and does (`engine::document::BOMB` stands for one).

use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use tungstenite::protocol::Message as Frame;
use tungstenite::{WebSocket, client};
use uuid::Uuid;
use yrs::updates::decoder::Decode;
use yrs::{Doc, GetString, ReadTxn, StateVector, Text, TextRef, Transact, Update};

use super::*;
use crate::auth::SigningKey;
use crate::engine::document::BOMB;
use crate::protocol::lib0;
use crate::protocol::message::Message;

const DEADLINE: Duration = Duration::from_secs(20);
const TENANT: Uuid = Uuid::from_u128(0x1111_1111);

/// Starts a node of two shards; its address, and a token that opens anything of one app. Its threads end with the test.
fn start() -> (Node, String) {
    let key = SigningKey::generate().expect("a key");
    let config = NodeConfig::dev("127.0.0.1:0".parse().expect("an address"), Some(2));
    let claims = json!({
        "iss": config.shard.issuer.as_str(), "sub": "c", "aud": "WireSocket.API", "scope": "WireSocket.API",
        "tenantid": TENANT, "appId": TENANT, "licenseRegionCode": "r", "dbCode": "d", "exp": 253_402_300_799u64,
        "limits": { "maxConnections": 9, "maxDocuments": 9, "maxUsersPerDoc": 9, "opsPerMinute": 1_000_000 },
    });
    let token = key.sign("k1", &claims).expect("a token");
    let listeners = Listeners::bind(&config).expect("a port");
    let keys = vec![(TENANT, key.jwks("k1").to_string().into_bytes())];
    (Node::start(config, listeners, keys, None).expect("a node"), token)
}

/// A y-websocket editor of one document.
struct Editor {
    socket: WebSocket<TcpStream>,
    doc: Doc,
    text: TextRef,
    synced: bool,
}

impl Editor {
    #[expect(clippy::disallowed_types, reason = "it is a client")]
    fn join(address: SocketAddr, token: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(DEADLINE)).expect("a read timeout");
        let (socket, _) =
            client(format!("ws://{address}/shared?token={token}"), stream).expect("it is let in");
        let doc = Doc::new();
        let text = doc.get_or_insert_text("t");
        let mut editor = Self { socket, doc, text, synced: false };
        editor.send(0, &[0]);
        while !editor.synced {
            assert_eq!(editor.read(), None);
        }
        editor
    }

    fn send(&mut self, step: u8, payload: &[u8]) {
        let mut message = vec![0, step];
        lib0::write_var_bytes(&mut message, payload);
        self.socket.send(Frame::Binary(message.into())).expect("it is sent");
    }

    fn append(&mut self, chunk: &str) {
        let update = {
            let mut transaction = self.doc.transact_mut();
            let end = self.text.len(&transaction);
            self.text.insert(&mut transaction, end, chunk);
            transaction.encode_update_v1()
        };
        self.send(2, &update);
    }

    fn text(&self) -> String {
        self.text.get_string(&self.doc.transact())
    }

    /// Takes in the next message; the code, if it is a close.
    fn read(&mut self) -> Option<u16> {
        let frame = match self.socket.read().expect("something comes before the deadline") {
            Frame::Binary(bytes) => bytes,
            Frame::Close(frame) => return Some(frame.map_or(1005, |frame| frame.code.into())),
            _ => return None,
        };
        match Message::parse(&frame).expect("a message") {
            Message::StepOne(_) => {
                let state = self.doc.transact().encode_state_as_update_v1(&StateVector::default());
                self.send(1, &state);
            }
            Message::StepTwo(update) => {
                self.apply(update);
                self.synced = true;
            }
            Message::Update(update) => self.apply(update),
            _ => {}
        }
        None
    }

    fn apply(&self, update: &[u8]) {
        let update = Update::decode_v1(update).expect("an update");
        self.doc.transact_mut().apply_update(update).expect("it applies");
    }

    #[track_caller]
    fn wait_for_length(&mut self, length: usize) {
        while self.text().len() < length {
            assert_eq!(self.read(), None, "closed with {:?} here", self.text());
        }
    }
}

#[test]
fn a_panic_of_the_crdt_ends_who_caused_it_and_nobody_else() {
    const ROUNDS: usize = 50;
    let (node, token) = start();
    let mut typing = [Editor::join(node.address(), &token), Editor::join(node.address(), &token)];
    for round in 0..ROUNDS {
        let mut hostile = Editor::join(node.address(), &token);
        typing[0].append("a");
        hostile.append(BOMB);
        typing[1].append("b");
        let code = std::iter::from_fn(|| Some(hostile.read())).find_map(|code| code);
        assert_eq!(code, Some(1007), "round {round}");
    }
    typing.iter_mut().for_each(|editor| editor.wait_for_length(2 * ROUNDS));
    assert_eq!(typing[0].text(), typing[1].text());
    let newcomer = Editor::join(node.address(), &token);
    assert_eq!(newcomer.text(), typing[0].text(), "it was made again from what is kept");
    println!(
        "figure: a panic of the CRDT: {ROUNDS} times under two typing clients: 0 dropped, 0 characters lost"
    );
}
