//! What the tests of this module share: fake shards, and a whole control shard reached over real sockets.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;
use smallvec::SmallVec;
use uuid::Uuid;

use super::messages::{ShardIndex, ToControl, ToShard};
use super::{
    Bounds, Handle, HttpBounds, KeyFunctions, KeySettings, Links, Live, Mailbox, MakeVerifier, Marks,
};
use super::{Settings, StartError, TokenRefused, Verify, start};
use crate::auth::keys::KeySets;
use crate::auth::{Grant, Limits};
use crate::config::JwksUrl;
use crate::limits::Rates;
use crate::protocol::close::Refusal;
use crate::protocol::document::AppId;
use crate::shard::metrics::ShardMetrics;

/// How long a test waits for what must come; only a failing test waits that long.
const PATIENCE: Duration = Duration::from_secs(20);

pub const TENANT: Uuid = Uuid::from_u128(0xa1);
pub const APP: AppId = AppId { tenant: TENANT, app: Uuid::from_u128(0xb2) };
pub const LIMITS: Limits =
    Limits { connections_max: 8, documents_max: 3, users_per_document_max: 9, ops_per_minute: 100 };

/// The key ids that `auth` was last given, in place of the real key sets.
pub type KnownKeys = Arc<Mutex<BTreeSet<String>>>;

pub fn grant() -> Arc<Grant> {
    Arc::new(Grant {
        app: APP,
        client_id: "client".into(),
        key_id: "k1".into(),
        limits: LIMITS,
        permissions: crate::auth::Permissions::default(),
        region: "aws-us-east-1".into(),
        db_code: "shard-01-us-east-1".into(),
        allowed_domains: SmallVec::new(),
        issued_unix_s: 0,
        expires_unix_s: u64::MAX,
        token_id: None,
    })
}

/// Checks tokens of the form `key:<key id>`.
pub fn make_verifier(known: &KnownKeys) -> MakeVerifier {
    let known = Arc::clone(known);
    Box::new(move |_settings, _sets| {
        let known = known.lock().unwrap().clone();
        let verify: Verify = Box::new(move |_unix_s, token| match token.strip_prefix("key:") {
            Some(key) if known.contains(key) => Ok(grant()),
            key => Err(TokenRefused {
                refusal: Refusal::InvalidToken("Unknown signing key".into()),
                unknown_key: key.map(|key| (TENANT, key.to_owned())),
            }),
        });
        verify
    })
}

pub fn key_functions(known: &KnownKeys) -> KeyFunctions {
    let known = Arc::clone(known);
    let set_tenant = Box::new(move |_sets: &mut KeySets, _tenant: Uuid, json: &[u8]| {
        let jwks: Value = serde_json::from_slice(json).unwrap();
        let ids = jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned());
        let ids: BTreeSet<_> = ids.collect();
        if ids.contains("bad") {
            return Err("the key `bad` has no modulus".into());
        }
        *known.lock().unwrap() = ids;
        Ok(())
    });
    KeyFunctions { set_tenant, revoke: Box::new(|_sets, _tenant, _key| ()) }
}

pub fn jwks(keys: &[&str], revoked: &[&str]) -> String {
    let keys: Vec<_> = keys.iter().map(|id| serde_json::json!({ "kid": id })).collect();
    serde_json::json!({ "keys": keys, "revoked": revoked }).to_string()
}

pub fn live() -> Live {
    Live {
        shards: Arc::new(crate::config::NodeConfig::dev(([127, 0, 0, 1], 0).into(), None).shard),
        keys: KeySettings::default(),
        region: "aws-us-east-1".into(),
        public_url: "wss://node.example.com/".into(),
        cors_origins: vec!["*".into()],
        retry_after: Duration::from_secs(10),
        rates: Rates::UNLIMITED,
        exempt: Vec::new(),
        trusted_proxies: Vec::new(),
        marks: Marks::default(),
        drain_spread: Duration::from_secs(30),
    }
}

pub fn settings(known: &KnownKeys) -> Settings {
    Settings {
        started: Instant::now(),
        live: live(),
        http: HttpBounds::default(),
        preloaded_keys: vec![(TENANT, jwks(&["k1"], &[]).into_bytes())],
        bounds: Bounds::default(),
        make_verifier: make_verifier(known),
        key_functions: key_functions(known),
        dashboard: None,
        certificate: None,
        extra: None,
    }
}

/// A control shard on its own thread, with shards that answer reports and pass everything else on to the test.
pub struct Node {
    pub handle: Handle,
    pub to_control: tokio::sync::mpsc::Sender<Vec<ToControl>>,
    to_shards: mpsc::Receiver<(ShardIndex, ToShard)>,
    listener: TcpListener,
}

impl Node {
    pub fn start(shards: u16, change: impl FnOnce(&mut Settings)) -> Self {
        Self::try_start(shards, change).unwrap()
    }

    pub fn try_start(shards: u16, change: impl FnOnce(&mut Settings)) -> Result<Self, StartError> {
        let mut settings = settings(&KnownKeys::default());
        change(&mut settings);
        let (to_control, from_shards) = tokio::sync::mpsc::channel(64);
        let (passed_on, to_shards) = mpsc::channel();
        let mailbox = |shard: ShardIndex| -> Mailbox {
            let (to_control, passed_on) = (to_control.clone(), passed_on.clone());
            Arc::new(move |messages| {
                for message in messages {
                    if matches!(message, ToShard::Report) {
                        let metrics =
                            ShardMetrics { connections_total: 3, documents: 2, ..ShardMetrics::default() };
                        let _ = to_control
                            .try_send(vec![ToControl::Metrics { shard, metrics: Box::new(metrics) }]);
                    } else {
                        let _ = passed_on.send((shard, message));
                    }
                }
                Ok(())
            })
        };
        let links = Links { from_shards, shards: (0..shards).map(mailbox).collect() };
        let handle = start(settings, links)?;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Ok(Self { handle, to_control, to_shards, listener })
    }

    pub fn send(&self, message: ToControl) {
        self.to_control.blocking_send(vec![message]).unwrap();
    }

    /// The next message to any shard that the pattern wants; others are skipped.
    pub fn next<T>(&self, wanted: impl Fn(ShardIndex, ToShard) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (shard, message) = self.to_shards.recv_timeout(left).expect("the message has not come");
            if let Some(found) = wanted(shard, message) {
                return found;
            }
        }
    }

    /// What shards have been sent by now.
    pub fn sent(&self) -> Vec<(ShardIndex, ToShard)> {
        self.to_shards.try_iter().collect()
    }

    /// A client's socket, and the other end, not yet handed over.
    pub fn connect(&self) -> (TcpStream, TcpStream, IpAddr) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let (server, peer) = self.listener.accept().unwrap();
        (client, server, peer.ip())
    }

    /// Hands a new socket over with `read` already read, sends `rest` on it and reads all that comes until it is closed.
    pub fn exchange(&self, read: &[u8], rest: &[u8]) -> String {
        let (mut client, server, peer) = self.connect();
        self.send(ToControl::Http { socket: server.into(), tls: None, read: read.to_vec(), peer });
        client.write_all(rest).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A request with an empty body.
    pub fn request(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: node\r\n");
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        head.push_str("\r\n");
        Answer::parse(&self.exchange(head.as_bytes(), b""))
    }

    pub fn get(&self, target: &str) -> Answer {
        self.request("GET", target, &[])
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Answer {
    pub fn parse(raw: &str) -> Self {
        let (head, body) =
            raw.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not an HTTP answer: {raw:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

/// A tiny HTTP server on loopback that serves one JWKS document and writes down what it was asked.
pub struct JwksServer {
    address: SocketAddr,
    answer: Arc<Mutex<String>>,
    pub requests: mpsc::Receiver<String>,
}

impl JwksServer {
    pub fn start(body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(Self::ok(body)));
        let (seen, requests) = mpsc::channel();
        let current = Arc::clone(&answer);
        // Ends with the test's process; it holds nothing but its socket.
        std::thread::Builder::new()
            .spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        if stream.read(&mut byte).unwrap_or(0) == 0 {
                            break;
                        }
                        head.extend(byte);
                    }
                    let answer = current.lock().unwrap().clone();
                    // Told before the answer goes out: who sees its effect finds the request written down.
                    let _ = seen.send(String::from_utf8(head).unwrap());
                    let _ = stream.write_all(answer.as_bytes());
                    let _ = stream.shutdown(Shutdown::Both);
                }
            })
            .unwrap();
        Self { address, answer, requests }
    }

    pub fn url(&self) -> JwksUrl {
        format!("http://{}/{{tenantId}}/.well-known/jwks", self.address).parse().unwrap()
    }

    fn ok(body: &str) -> String {
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\nETag: \"{length}\"\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    }

    pub fn serve(&self, body: &str) {
        *self.answer.lock().unwrap() = Self::ok(body);
    }

    pub fn serve_raw(&self, answer: &str) {
        *self.answer.lock().unwrap() = answer.to_owned();
    }

    pub fn next_request(&self) -> String {
        self.requests.recv_timeout(PATIENCE).expect("nothing was fetched")
    }
}
