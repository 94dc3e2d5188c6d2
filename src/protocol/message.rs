//! The messages of both wires: y-websocket's and Hocuspocus'. They share their bodies (y-protocols) and differ in
//! what stands before them.
//!
//! | wire | a frame |
//! | --- | --- |
//! | y-websocket | type, body |
//! | Hocuspocus | routing key (a string), type, body; or a bare `09` (ping), `0a` (pong) |
//!
//! Sources: y-protocols `PROTOCOL.md` (sync 0, awareness 1, auth 2, query awareness 3); Hocuspocus' `MessageType`.
//! Not here: WebSocket framing ([`super::websocket`]) and the contents of an update.

use super::close::Refusal;
use super::lib0::{self, Lib0Error, Reader};
use super::websocket::{self, Opcode};

/// What stands in front of a message, and so which clients can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    YWebsocket,
    Hocuspocus,
}

const SYNC: u8 = 0;
const AWARENESS: u8 = 1;
const AUTH: u8 = 2;
const QUERY_AWARENESS: u8 = 3;
const SYNC_REPLY: u8 = 4;
const STATELESS: u8 = 5;
const BROADCAST_STATELESS: u8 = 6;
const CLOSE: u8 = 7;
const SYNC_STATUS: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const STEP_ONE: u8 = 0;
const STEP_TWO: u8 = 1;
const UPDATE: u8 = 2;

const AUTH_TOKEN: u8 = 0;
/// `messagePermissionDenied` of y-protocols' auth.js, whose only message this is.
const Y_AUTH_DENIED: u8 = 0;
const AUTH_DENIED: u8 = 1;
const AUTH_GRANTED: u8 = 2;

/// What a client says about one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// "This is my state vector": wants what it lacks.
    StepOne(&'a [u8]),
    /// The answer to the server's own step 1: an update.
    StepTwo(&'a [u8]),
    Update(&'a [u8]),
    Awareness(&'a [u8]),
    QueryAwareness,
    /// A token in band; `version` comes only from Hocuspocus providers since 4.
    Token {
        token: &'a str,
        version: Option<&'a str>,
    },
    /// Hocuspocus' application messages, which this server has no use for.
    Stateless,
    /// Only servers send this one.
    BroadcastStateless,
    /// The client leaves this document; the socket stays.
    Leave,
    /// A type this server does not know: an application's own. Ignored, as other servers do.
    Unknown(u64),
}

/// One Hocuspocus frame, taken apart as far as its routing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HocuspocusFrame<'a> {
    Ping,
    Pong,
    /// `key` is the document's name, or name NUL session id; `body` parses as a [`Message`].
    Document {
        key: &'a str,
        body: &'a [u8],
    },
}

/// Why a frame is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("not lib0: {0}")]
    Encoding(#[from] Lib0Error),
    #[error("unknown sync step {0}")]
    SyncStep(u64),
    #[error("unknown auth message {0}")]
    AuthKind(u64),
    #[error("an empty message")]
    Empty,
}

impl From<MessageError> for Refusal {
    fn from(error: MessageError) -> Self {
        Self::Protocol(format!("Malformed message: {error}").into())
    }
}

impl<'a> Message<'a> {
    /// Parses a message without its routing key. Bytes behind a message are ignored, as y-protocols does.
    ///
    /// # Errors
    /// [`MessageError`]; nothing in the bytes is trusted.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(bytes);
        if reader.is_empty() {
            return Err(MessageError::Empty);
        }
        let kind = reader.var_u64()?;
        let Ok(small) = u8::try_from(kind) else { return Ok(Self::Unknown(kind)) };
        Ok(match small {
            SYNC | SYNC_REPLY => match reader.var_u64()? {
                0 => Self::StepOne(reader.var_bytes()?),
                1 => Self::StepTwo(reader.var_bytes()?),
                2 => Self::Update(reader.var_bytes()?),
                other => return Err(MessageError::SyncStep(other)),
            },
            AWARENESS => Self::Awareness(reader.var_bytes()?),
            AUTH => match reader.var_u64()? {
                0 => Self::Token {
                    token: reader.var_str()?,
                    version: if reader.is_empty() { None } else { Some(reader.var_str()?) },
                },
                other => return Err(MessageError::AuthKind(other)),
            },
            QUERY_AWARENESS => Self::QueryAwareness,
            STATELESS => Self::Stateless,
            BROADCAST_STATELESS => Self::BroadcastStateless,
            CLOSE => Self::Leave,
            _ => Self::Unknown(kind),
        })
    }
}

impl<'a> HocuspocusFrame<'a> {
    /// Takes the routing key off a frame.
    ///
    /// # Errors
    /// [`MessageError`] if there is no non-empty key or nothing behind it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MessageError> {
        match bytes {
            [PING] => return Ok(Self::Ping),
            [PONG] => return Ok(Self::Pong),
            _ => {}
        }
        let mut reader = Reader::new(bytes);
        let key = reader.var_str()?;
        let body = reader.remaining();
        if key.is_empty() || body.is_empty() {
            return Err(MessageError::Empty);
        }
        Ok(Self::Document { key, body })
    }
}

impl Wire {
    /// Which wire a client speaks that named no document in its URL, by its first frame: a Hocuspocus frame begins
    /// with a non-empty routing key, y-websocket's first message is always a sync message (type 0).
    #[must_use]
    pub fn of_first_frame(bytes: &[u8]) -> Self {
        if bytes.first() == Some(&SYNC) { Self::YWebsocket } else { Self::Hocuspocus }
    }
}

/// The document's name within a routing key (`name` or `name NUL sessionId`).
#[must_use]
pub fn name_of_key(key: &str) -> &str {
    key.split_once('\0').map_or(key, |(name, _session)| name)
}

/// Writes messages as complete WebSocket frames, in one client's framing.
#[derive(Debug, Clone, Copy)]
pub enum Framing<'a> {
    YWebsocket,
    Hocuspocus { key: &'a str },
}

impl Framing<'_> {
    fn prefix_len(&self) -> usize {
        match self {
            Self::YWebsocket => 0,
            Self::Hocuspocus { key } => lib0::var_bytes_len(key.len()),
        }
    }

    /// The frame's header, the routing key and the type; `body_len` bytes must follow.
    fn begin(&self, out: &mut Vec<u8>, kind: u8, body_len: usize) {
        websocket::write_header(out, Opcode::Binary, self.prefix_len() + 1 + body_len);
        if let Self::Hocuspocus { key } = self {
            lib0::write_var_str(out, key);
        }
        out.push(kind);
    }

    fn sync(&self, out: &mut Vec<u8>, step: u8, payload: &[u8]) {
        self.begin(out, SYNC, 1 + lib0::var_bytes_len(payload.len()));
        out.push(step);
        lib0::write_var_bytes(out, payload);
    }

    /// The server's state vector: asks the client for what the server lacks.
    pub fn step_one(&self, out: &mut Vec<u8>, state_vector: &[u8]) {
        self.sync(out, STEP_ONE, state_vector);
    }

    /// The answer to a client's step 1; the client is in sync after it.
    pub fn step_two(&self, out: &mut Vec<u8>, update: &[u8]) {
        self.sync(out, STEP_TWO, update);
    }

    pub fn update(&self, out: &mut Vec<u8>, update: &[u8]) {
        self.sync(out, UPDATE, update);
    }

    /// An awareness update: its encoded entries.
    pub fn awareness(&self, out: &mut Vec<u8>, entries: &[u8]) {
        self.begin(out, AWARENESS, lib0::var_bytes_len(entries.len()));
        lib0::write_var_bytes(out, entries);
    }

    /// Tells a Hocuspocus client that it is in. y-websocket has no such message.
    pub fn authenticated(&self, out: &mut Vec<u8>, scope: &str) {
        self.begin(out, AUTH, 1 + lib0::var_bytes_len(scope.len()));
        out.push(AUTH_GRANTED);
        lib0::write_var_str(out, scope);
    }

    /// Tells a client that it is not allowed, and why; the socket stays open. A Hocuspocus client is out of the document
    /// then, a y-websocket client shows the reason on its console.
    pub fn permission_denied(&self, out: &mut Vec<u8>, reason: &str) {
        self.begin(out, AUTH, 1 + lib0::var_bytes_len(reason.len()));
        out.push(match self {
            Self::YWebsocket => Y_AUTH_DENIED,
            Self::Hocuspocus { .. } => AUTH_DENIED,
        });
        lib0::write_var_str(out, reason);
    }

    /// Asks a Hocuspocus client (3 and later answer) for a fresh token.
    pub fn request_token(&self, out: &mut Vec<u8>) {
        self.begin(out, AUTH, 1);
        out.push(AUTH_TOKEN);
    }

    /// Acknowledges one step 2 or update of a Hocuspocus client: `stored` once it is durable.
    pub fn sync_status(&self, out: &mut Vec<u8>, stored: bool) {
        self.begin(out, SYNC_STATUS, 1);
        out.push(u8::from(stored));
    }

    /// An awareness update without entries: data that changes nothing, for clients that time out on silence.
    pub fn keep_alive(&self, out: &mut Vec<u8>) {
        self.awareness(out, &[0]);
    }
}

/// A client's Auth message without its routing key, as a server passes it on to itself.
pub fn write_token(out: &mut Vec<u8>, token: &str) {
    out.extend_from_slice(&[AUTH, AUTH_TOKEN]);
    lib0::write_var_str(out, token);
}

/// Answers a Hocuspocus ping, which names no document.
pub fn write_pong(out: &mut Vec<u8>) {
    websocket::write_header(out, Opcode::Binary, 1);
    out.push(PONG);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn messages_are_parsed_by_type_and_step() {
        assert_eq!(Message::parse(&[0, 0, 1, 0]), Ok(Message::StepOne(&[0])));
        assert_eq!(Message::parse(&[0, 1, 2, 0, 0]), Ok(Message::StepTwo(&[0, 0])));
        assert_eq!(Message::parse(&[4, 2, 2, 0, 0]), Ok(Message::Update(&[0, 0])));
        assert_eq!(Message::parse(&[1, 1, 0]), Ok(Message::Awareness(&[0])));
        assert_eq!(Message::parse(&[3]), Ok(Message::QueryAwareness));
        assert_eq!(Message::parse(&[7]), Ok(Message::Leave));
        assert_eq!(Message::parse(&[100, 1, 2]), Ok(Message::Unknown(100)));
        assert_eq!(Message::parse(&[2, 0, 1, b't']), Ok(Message::Token { token: "t", version: None }));
        assert_eq!(
            Message::parse(&[2, 0, 1, b't', 1, b'4']),
            Ok(Message::Token { token: "t", version: Some("4") })
        );
    }

    #[test]
    fn wrong_bytes_are_errors() {
        assert_eq!(Message::parse(&[]), Err(MessageError::Empty));
        assert_eq!(Message::parse(&[0, 9, 0]), Err(MessageError::SyncStep(9)));
        assert_eq!(Message::parse(&[2, 1, 0]), Err(MessageError::AuthKind(1)));
        assert!(matches!(Message::parse(&[0, 2, 0xff, 0xff, 0x7f]), Err(MessageError::Encoding(_))));
    }

    #[test]
    fn a_bare_nine_is_a_ping_and_a_nine_byte_key_is_not() {
        assert_eq!(HocuspocusFrame::parse(&[9]), Ok(HocuspocusFrame::Ping));
        assert_eq!(
            HocuspocusFrame::parse(b"\x09documents\x03"),
            Ok(HocuspocusFrame::Document { key: "documents", body: &[3] })
        );
        assert_eq!(HocuspocusFrame::parse(b"\x01a"), Err(MessageError::Empty));
    }

    #[test]
    fn the_first_byte_tells_the_wires_apart() {
        assert_eq!(Wire::of_first_frame(&[0, 0, 1, 0]), Wire::YWebsocket);
        assert_eq!(Wire::of_first_frame(b"\x01a\x02\x00"), Wire::Hocuspocus);
    }

    #[test]
    fn a_routing_key_may_carry_a_session() {
        assert_eq!(name_of_key("notes"), "notes");
        assert_eq!(name_of_key("notes\0abc"), "notes");
    }

    #[test]
    fn frames_carry_their_length_and_key() {
        assert_eq!(frame(|out| Framing::YWebsocket.keep_alive(out)), [0x82, 3, 1, 1, 0]);
        assert_eq!(
            frame(|out| Framing::Hocuspocus { key: "ab" }.sync_status(out, true)),
            [0x82, 5, 2, b'a', b'b', 8, 1]
        );
        let update = vec![7u8; 300];
        let bytes = frame(|out| Framing::YWebsocket.update(out, &update));
        assert_eq!(&bytes[..8], [0x82, 126, 1, 48, 0, 2, 0xac, 2]);
        assert_eq!(bytes.len(), 4 + 304);
    }
}
