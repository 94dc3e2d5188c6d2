//! How documents travel: the protocols of the servers that can be driven, behind one enum.
//!
//! A protocol here is only bytes: it writes whole WebSocket frames into a buffer and reads the payload
//! of one. What to send when is the business of [`crate::client`].

pub mod hocuspocus;
pub mod websocket;
pub mod y_websocket;

use crate::lib0::Malformed;

/// Sync messages, the same inside every protocol.
pub(crate) const STEP_1: u64 = 0;
pub(crate) const STEP_2: u64 = 1;
pub(crate) const UPDATE: u64 = 2;

/// An awareness update about no client at all.
const NOBODY: [u8; 1] = [0];

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// `WebsocketProvider`: one document per connection, named by the path.
    YWebsocket,
    /// `HocuspocusProvider`: every frame names its document, authentication comes first.
    Hocuspocus,
    /// A room that repeats every message to the others and knows nothing of Yjs: y-websocket's
    /// update messages, no synchronisation. The ceiling no Yjs server can pass.
    Relay,
}

/// What the payload of one frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// The server asks for whatever its state vector lacks.
    Step1(&'a [u8]),
    /// The server's answer to our step 1: an update with all that we lack.
    Step2(&'a [u8]),
    Update(&'a [u8]),
    Authenticated {
        read_only: bool,
    },
    Denied(&'a str),
    /// One of our update (or step 2) messages was taken, or refused.
    Ack {
        accepted: bool,
    },
    /// The server ends this document on this connection.
    Closed,
    /// The server asks whether we are there.
    Ping,
    /// An awareness update: who is here, with their cursors.
    Awareness(&'a [u8]),
    /// Whatever isn't measured.
    Other,
}

impl Protocol {
    #[inline]
    pub fn parse<'a>(self, document: &str, payload: &'a [u8]) -> Result<Message<'a>, Malformed> {
        match self {
            Self::YWebsocket | Self::Relay => y_websocket::parse(payload),
            Self::Hocuspocus => hocuspocus::parse(document, payload),
        }
    }

    /// Appends a frame with our state vector.
    pub fn write_step_1(self, out: &mut Vec<u8>, document: &str, state_vector: &[u8]) {
        self.write_sync(out, document, STEP_1, state_vector);
    }

    /// Appends a frame that answers the server's step 1.
    pub fn write_step_2(self, out: &mut Vec<u8>, document: &str, update: &[u8]) {
        self.write_sync(out, document, STEP_2, update);
    }

    /// Appends a frame with an update.
    #[inline]
    pub fn write_update(self, out: &mut Vec<u8>, document: &str, update: &[u8]) {
        self.write_sync(out, document, UPDATE, update);
    }

    #[inline]
    fn write_sync(self, out: &mut Vec<u8>, document: &str, kind: u64, body: &[u8]) {
        match self {
            Self::YWebsocket | Self::Relay => y_websocket::write_sync(out, kind, body),
            Self::Hocuspocus => hocuspocus::write_sync(out, document, kind, body),
        }
    }

    /// Appends an awareness message about nobody: servers drop those who are silent for long.
    pub fn write_keep_alive(self, out: &mut Vec<u8>, document: &str) {
        self.write_awareness(out, document, &NOBODY);
    }

    /// Appends a frame with an awareness update.
    pub fn write_awareness(self, out: &mut Vec<u8>, document: &str, update: &[u8]) {
        match self {
            Self::YWebsocket | Self::Relay => y_websocket::write_awareness(out, update),
            Self::Hocuspocus => hocuspocus::write_awareness(out, document, update),
        }
    }

    /// Appends a newer token for a connection that lives. Of the servers that speak y-websocket, only
    /// WireSocket has a message for it.
    pub fn write_token(self, out: &mut Vec<u8>, document: &str, token: &str) {
        match self {
            Self::YWebsocket => y_websocket::write_token(out, token),
            Self::Hocuspocus => hocuspocus::write_auth(out, document, token),
            Self::Relay => {}
        }
    }

    /// Does the server say which of our updates it has taken?
    pub fn acknowledges(self) -> bool {
        self == Self::Hocuspocus
    }

    /// The path where documents are found unless the user says otherwise.
    pub fn default_path(self) -> &'static str {
        match self {
            Self::YWebsocket | Self::Relay => "/{document}",
            Self::Hocuspocus => "/",
        }
    }
}
