//! What goes into an engine and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::document::Document;
use super::slab::Key;
use crate::auth::keys::KeySets;
use crate::auth::{Grant, Limits};
use crate::journal::{Contents, Reply};
use crate::limits::{Claim, Exceeded};
use crate::protocol::close::Refusal;
use crate::protocol::document::{AppId, DocumentId, DocumentName};
use crate::protocol::message::Wire;

/// Names a socket of this shard; the shard chooses it.
pub type ConnectionId = Key;

/// Which shard of this node.
pub type ShardIndex = u16;

/// Names a question to the control shard; comes back with the answer.
pub type Ticket = u64;

/// A socket whose upgrade is done, as its shard hands it to the engine.
#[derive(Debug, Default)]
pub struct Opening {
    /// The document its URL names: then it speaks y-websocket. None is decided by the first frame.
    pub document: Option<DocumentName>,
    /// What the token of the upgrade allows, if there was one.
    pub grant: Option<Arc<Grant>>,
    pub origin: Option<Box<str>>,
    /// A y-websocket client that wants to hear which of its updates are stored.
    pub acknowledges: bool,
    /// Messages that were read before the connection moved here.
    pub replay: Vec<Box<[u8]>>,
}

/// One WebSocket message or control frame.
#[derive(Debug, Clone, Copy)]
pub enum Incoming<'a> {
    Binary(&'a [u8]),
    Text,
    Ping(&'a [u8]),
    Pong,
}

#[derive(Debug)]
pub enum Event<'a> {
    Opened {
        connection: ConnectionId,
        opening: Opening,
    },
    Received {
        connection: ConnectionId,
        message: Incoming<'a>,
    },
    /// The socket is gone, in whatever way.
    Closed {
        connection: ConnectionId,
    },
    /// The socket's queue is over its bound: send its sessions nothing new.
    Stalled {
        connection: ConnectionId,
    },
    /// A stalled socket took some of what waits for it: slow, but there.
    Progressed {
        connection: ConnectionId,
    },
    /// The queue is empty again.
    Resumed {
        connection: ConnectionId,
    },
    /// From another shard's engine.
    Mail {
        from: ShardIndex,
        mail: Mail,
    },
    Reserved {
        ticket: Ticket,
        /// The limits that hold for the session: its token's, or newer ones.
        outcome: Result<Limits, Exceeded>,
    },
    OpsLeased {
        app: AppId,
        granted: u32,
        window_ends: Duration,
    },
    KeysRefreshed {
        ticket: Ticket,
    },
    Keys {
        sets: Arc<KeySets>,
    },
    KeyRevoked {
        tenant: Uuid,
        key_id: Arc<str>,
    },
    Drain {
        over: Duration,
    },
    /// A drain is called off.
    Accept,
    /// What the journal says.
    Journal(Reply),
    /// A document that the journal had when this process began. Comes before anything else.
    Recovered {
        id: DocumentId,
        document: Box<Document>,
    },
}

#[derive(Debug)]
pub enum Effect {
    Reserve {
        ticket: Ticket,
        claim: Claim,
        limits: Limits,
        /// When the token with these limits was issued.
        issued_unix_s: u64,
    },
    Release {
        claim: Claim,
    },
    LeaseOps {
        app: AppId,
        ops_per_minute: u32,
        wanted: u32,
    },
    RefreshKeys {
        ticket: Ticket,
        tenant: Uuid,
        key_id: String,
    },
    Mail {
        to: ShardIndex,
        mail: Mail,
    },
    /// The connection's first document lives on another shard: hand its socket over. The engine has forgotten it.
    Move {
        connection: ConnectionId,
        to: ShardIndex,
        opening: Opening,
    },
    /// Records for the journal, in frames. Answered by [`Reply::Stored`] of this number.
    Append {
        number: u64,
        records: Vec<u8>,
        awaited: bool,
    },
    /// All there is in a document, for the journal: [`crate::journal::Command::Keep`].
    Keep {
        document: DocumentId,
        contents: Contents,
        rests: bool,
    },
    /// Is this document in the journal? Answered by [`Reply::Loaded`].
    Load {
        document: DocumentId,
    },
    /// Send a close frame, then end the socket. The engine has forgotten it.
    Close {
        connection: ConnectionId,
        refusal: Refusal,
    },
    /// One document of a Hocuspocus socket was refused in band; the socket stays.
    Denied {
        connection: ConnectionId,
        refusal: Refusal,
    },
}

/// Between two engines: a Hocuspocus socket on one shard, a document on another. `connection` is the socket's key on
/// its own shard, `channel` one document on it.
#[derive(Debug)]
pub struct Mail {
    pub connection: ConnectionId,
    pub body: MailBody,
}

#[derive(Debug)]
pub enum MailBody {
    // to the document's shard
    Open {
        channel: u32,
        session: OpenSession,
    },
    Message {
        channel: u32,
        body: Box<[u8]>,
    },
    Leave {
        channel: u32,
    },
    /// The socket's shard refuses the document from now on; answered by `Ended`.
    End {
        channel: u32,
        refusal: Refusal,
    },
    /// The token of this channel was renewed.
    Renewed {
        channel: u32,
        terms: Terms,
    },
    Stalled,
    Resumed,
    // to the socket's shard
    Deliver {
        frames: Vec<u8>,
    },
    Ended {
        channel: u32,
        refusal: Refusal,
    },
}

/// What a document's shard must know to let a session in.
#[derive(Debug, Clone)]
pub struct OpenSession {
    pub app: AppId,
    pub name: DocumentName,
    pub wire: Wire,
    /// The routing key, where it isn't the name.
    pub key: Option<Box<str>>,
    /// The client said Auth and waits for an answer.
    pub authenticate: bool,
    pub users_max: u32,
    pub terms: Terms,
    /// Wants to hear which of its updates are stored.
    pub acknowledges: bool,
}

/// What a session may do, as its token says; another token may change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub ops_per_minute: u32,
    pub read_only: bool,
}

impl Terms {
    #[must_use]
    pub const fn of(grant: &Grant) -> Self {
        Self { ops_per_minute: grant.limits.ops_per_minute, read_only: grant.permissions.read_only }
    }
}
