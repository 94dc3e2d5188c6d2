//! One connection: from the upgrade over authentication and synchronisation to live updates.
//!
//! A client holds no document. It turns bytes into [`Event`]s for a [`Handler`], and what the handler
//! sends into bytes of one outgoing batch, which the event loop writes once per turn. Bytes are read
//! from the loop's scratch buffer; only an unfinished frame is copied here.

use crate::lib0::Malformed;
use crate::target::Target;
use crate::tokens::Tokens;
use crate::wire::websocket::{
    BINARY, CLOSE, CONTINUATION, FrameError, PING, PONG, Parsed, UpgradeError, parse, parse_upgrade,
    write_frame,
};
use crate::wire::{Message, Protocol, hocuspocus};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use thiserror::Error;

/// Buffers above this are given back once they are empty.
const KEPT_BYTES_MAX: usize = 16 * 1024;
/// An acknowledged message whose latency nobody asked for.
const NOT_MEASURED: u64 = u64::MAX;

/// Why a connection ended before we closed it.
#[derive(Debug, Error)]
pub enum Ended {
    #[error("cannot connect or exchange bytes: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Upgrade(#[from] UpgradeError),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the server sent {0}")]
    Malformed(#[from] Malformed),
    #[error("the server sent a frame with opcode {0:#x}, binary was due")]
    Opcode(u8),
    #[error("the server closed the connection: {code} {reason}")]
    Closed { code: u16, reason: String },
    #[error("the server closed the connection without a close frame")]
    Cut,
    #[error("the server denied the document: {0}")]
    Denied(String),
    #[error("the server closed the document")]
    DocumentClosed,
    #[error("the server acknowledged a message that was never sent")]
    UnexpectedAck,
}

/// What happened on a connection.
#[derive(Debug)]
pub enum Event<'a> {
    /// The server's step 2 (empty for a relay): the client is live.
    Synced(&'a [u8]),
    /// A step 2 after the first one.
    State(&'a [u8]),
    Update(&'a [u8]),
    Awareness(&'a [u8]),
    /// The server's step 1. Must be answered with [`Client::send_step_2`].
    StateAsked(&'a [u8]),
    /// The message that was due at `due_ns` is taken, or refused.
    Ack {
        accepted: bool,
        due_ns: Option<u64>,
    },
    /// The connection is gone; nothing more comes from it.
    Ended(Ended),
}

pub trait Handler {
    /// `now_ns` is when the bytes had been read.
    fn event(&mut self, client: &mut Client, now_ns: u64, event: Event<'_>);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Upgrading,
    Authenticating,
    Syncing,
    Live,
    Ended,
}

#[derive(Debug)]
pub struct Client {
    /// The load's own number for it.
    pub number: u32,
    stream: TcpStream,
    protocol: Protocol,
    document: Rc<str>,
    accept: Rc<str>,
    token: Arc<str>,
    tokens: Tokens,
    state_vector: Box<[u8]>,
    phase: Phase,
    was_live: bool,
    partial: Vec<u8>,
    fragments: Vec<u8>,
    out: Vec<u8>,
    out_written: usize,
    unacknowledged: VecDeque<u64>,
    pub(crate) waits_for_writable: bool,
    pub(crate) is_paused: bool,
    pub(crate) queued: bool,
    pub bytes_received: u64,
    pub messages_received: u64,
}

impl Client {
    /// Adopts a connecting, non-blocking socket and queues the upgrade request on it. Once connected it
    /// asks for what `state_vector` lacks.
    pub fn new(
        number: u32,
        stream: TcpStream,
        target: &Target,
        document: Rc<str>,
        accept: Rc<str>,
        token: Arc<str>,
        state_vector: Box<[u8]>,
    ) -> Self {
        let mut out = Vec::with_capacity(512);
        target.write_request(&mut out, &document, &token);
        Self {
            number,
            stream,
            protocol: target.protocol,
            document,
            accept,
            token,
            tokens: target.tokens.clone(),
            state_vector,
            phase: Phase::Upgrading,
            was_live: false,
            partial: Vec::new(),
            fragments: Vec::new(),
            out,
            out_written: 0,
            unacknowledged: VecDeque::new(),
            waits_for_writable: false,
            is_paused: false,
            queued: false,
            bytes_received: 0,
            messages_received: 0,
        }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Has it been synced, whatever became of it since?
    pub fn was_live(&self) -> bool {
        self.was_live
    }

    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Queues an update that was due at `due_ns`.
    #[inline]
    pub fn send_update(&mut self, update: &[u8], due_ns: u64) {
        self.protocol.write_update(&mut self.out, &self.document, update);
        if self.protocol.acknowledges() {
            self.unacknowledged.push_back(due_ns);
        }
    }

    /// Answers [`Event::StateAsked`].
    pub fn send_step_2(&mut self, update: &[u8]) {
        self.protocol.write_step_2(&mut self.out, &self.document, update);
        if self.protocol.acknowledges() {
            self.unacknowledged.push_back(NOT_MEASURED);
        }
    }

    /// Says that we are still here, if there is something to be here for.
    pub fn send_keep_alive(&mut self) {
        if self.phase == Phase::Live {
            self.protocol.write_keep_alive(&mut self.out, &self.document);
        }
    }

    /// Hands in a newer token; whether the connection was ready for that.
    pub fn send_token(&mut self, token: &Arc<str>) -> bool {
        if self.phase == Phase::Live {
            self.token = token.clone();
            self.protocol.write_token(&mut self.out, &self.document, token);
        }
        self.phase == Phase::Live
    }

    /// Queues an awareness update.
    pub fn send_awareness(&mut self, update: &[u8]) {
        self.protocol.write_awareness(&mut self.out, &self.document, update);
    }

    /// Says goodbye, as a browser tab that is closed.
    pub fn send_close(&mut self) {
        const NORMAL_CLOSURE: u16 = 1000;
        write_frame(&mut self.out, CLOSE, &NORMAL_CLOSURE.to_be_bytes());
    }

    /// Messages the server has not yet acknowledged (always 0 where it never does).
    pub fn unacknowledged(&self) -> usize {
        self.unacknowledged.len()
    }

    pub fn has_output(&self) -> bool {
        self.out_written < self.out.len()
    }

    /// Writes what is queued; what the socket doesn't take stays queued.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.out_written < self.out.len() {
            match self.stream.write(&self.out[self.out_written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.out_written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out_written = 0;
        release_if_large(&mut self.out);
        self.out.clear();
        Ok(())
    }

    /// Reads once into `scratch`; how many bytes there were, `None` if none are there now.
    pub fn read(&mut self, scratch: &mut [u8]) -> Result<Option<usize>, Ended> {
        match self.stream.read(scratch) {
            Ok(0) => Err(Ended::Cut),
            Ok(len) => {
                self.bytes_received += len as u64;
                Ok(Some(len))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes bytes as they came.
    pub fn receive(&mut self, bytes: &[u8], now_ns: u64, handler: &mut impl Handler) {
        if let Err(ended) = self.consume(bytes, now_ns, handler) {
            self.end(ended, now_ns, handler);
        }
    }

    pub fn end(&mut self, ended: Ended, now_ns: u64, handler: &mut impl Handler) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Ended;
            handler.event(self, now_ns, Event::Ended(ended));
        }
    }

    fn consume(&mut self, mut bytes: &[u8], now_ns: u64, handler: &mut impl Handler) -> Result<(), Ended> {
        if self.phase == Phase::Upgrading {
            self.partial.extend_from_slice(bytes);
            let head = std::mem::take(&mut self.partial);
            let Some(len) = parse_upgrade(&head, &self.accept)? else {
                self.partial = head;
                return Ok(());
            };
            self.upgraded(now_ns, handler);
            return self.consume(&head[len..], now_ns, handler);
        }
        while !self.partial.is_empty() {
            let Parsed::Incomplete { needed } = parse(&self.partial)? else {
                let frame = std::mem::take(&mut self.partial);
                self.consume_frames(&frame, now_ns, handler)?;
                self.partial = frame;
                release_if_large(&mut self.partial);
                self.partial.clear();
                break;
            };
            if bytes.is_empty() {
                return Ok(());
            }
            let (taken, rest) = bytes.split_at(bytes.len().min(needed - self.partial.len()));
            self.partial.reserve(needed - self.partial.len());
            self.partial.extend_from_slice(taken);
            bytes = rest;
        }
        let used = self.consume_frames(bytes, now_ns, handler)?;
        self.partial.extend_from_slice(&bytes[used..]);
        Ok(())
    }

    /// Handles every whole frame of `bytes`; how many bytes they were.
    #[inline]
    fn consume_frames(
        &mut self,
        bytes: &[u8],
        now_ns: u64,
        handler: &mut impl Handler,
    ) -> Result<usize, Ended> {
        let mut used = 0;
        while used < bytes.len() {
            let Parsed::Frame { opcode, finished, payload, len } = parse(&bytes[used..])? else {
                break;
            };
            used += len;
            if opcode == BINARY && finished {
                self.message(payload, now_ns, handler)?;
            } else {
                self.rare_frame(opcode, finished, payload, now_ns, handler)?;
            }
        }
        Ok(used)
    }

    #[cold]
    fn rare_frame(
        &mut self,
        opcode: u8,
        finished: bool,
        payload: &[u8],
        now_ns: u64,
        handler: &mut impl Handler,
    ) -> Result<(), Ended> {
        match opcode {
            PING => {
                write_frame(&mut self.out, PONG, payload);
                Ok(())
            }
            PONG => Ok(()),
            CLOSE => Err(Ended::Closed {
                code: payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]])),
                reason: String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned(),
            }),
            BINARY | CONTINUATION => {
                self.fragments.extend_from_slice(payload);
                if finished {
                    let whole = std::mem::take(&mut self.fragments);
                    self.message(&whole, now_ns, handler)?;
                }
                Ok(())
            }
            _ => Err(Ended::Opcode(opcode)),
        }
    }

    fn upgraded(&mut self, now_ns: u64, handler: &mut impl Handler) {
        match self.protocol {
            Protocol::YWebsocket => self.ask_for_state(),
            Protocol::Hocuspocus => {
                self.phase = Phase::Authenticating;
                hocuspocus::write_auth(&mut self.out, &self.document, &self.token);
            }
            Protocol::Relay => {
                (self.phase, self.was_live) = (Phase::Live, true);
                handler.event(self, now_ns, Event::Synced(&crate::update::EMPTY));
            }
        }
    }

    fn ask_for_state(&mut self) {
        self.phase = Phase::Syncing;
        self.protocol.write_step_1(&mut self.out, &self.document, &self.state_vector);
    }

    #[inline]
    fn message(&mut self, payload: &[u8], now_ns: u64, handler: &mut impl Handler) -> Result<(), Ended> {
        self.messages_received += 1;
        let event = match self.protocol.parse(&self.document, payload)? {
            Message::Update(update) => Event::Update(update),
            Message::Awareness(update) => Event::Awareness(update),
            Message::Ack { accepted } => {
                let due_ns = self.unacknowledged.pop_front().ok_or(Ended::UnexpectedAck)?;
                Event::Ack { accepted, due_ns: (due_ns != NOT_MEASURED).then_some(due_ns) }
            }
            Message::Step2(update) if self.phase == Phase::Syncing => {
                (self.phase, self.was_live) = (Phase::Live, true);
                Event::Synced(update)
            }
            Message::Step2(update) => Event::State(update),
            Message::Step1(state_vector) => Event::StateAsked(state_vector),
            Message::Authenticated { .. } => {
                match self.phase {
                    Phase::Authenticating => self.ask_for_state(),
                    Phase::Live => self.tokens.note_accepted(),
                    _ => {}
                }
                return Ok(());
            }
            Message::Denied(reason) => return Err(Ended::Denied(reason.to_owned())),
            Message::Closed => return Err(Ended::DocumentClosed),
            Message::Ping => {
                hocuspocus::write_pong(&mut self.out);
                return Ok(());
            }
            Message::Other => return Ok(()),
        };
        handler.event(self, now_ns, event);
        Ok(())
    }
}

fn release_if_large(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEPT_BYTES_MAX {
        *buffer = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::EMPTY_STATE_VECTOR;
    use crate::wire::websocket::{KEY, accept_key, write_server_header};
    use std::net::TcpListener;

    #[derive(Default)]
    struct Log(Vec<String>);

    impl Handler for Log {
        fn event(&mut self, client: &mut Client, _now_ns: u64, event: Event<'_>) {
            if let Event::StateAsked(_) = event {
                client.send_step_2(&crate::update::EMPTY);
            }
            self.0.push(match event {
                Event::Synced(state) => format!("synced {}", state.len()),
                Event::State(state) => format!("state {}", state.len()),
                Event::Update(update) => format!("update {}", update.len()),
                Event::Awareness(update) => format!("awareness {}", update.len()),
                Event::StateAsked(_) => "asked".to_owned(),
                Event::Ack { accepted, due_ns } => format!("ack {accepted} {due_ns:?}"),
                Event::Ended(ended) => format!("ended: {ended}"),
            });
        }
    }

    fn client(protocol: Protocol) -> (Client, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let stream = TcpStream::connect(address).expect("connected");
        let (peer, _) = listener.accept().expect("accepted");
        let target = Target::new(&format!("ws://{address}"), protocol, None, None, None).expect("a target");
        let client = Client::new(
            0,
            stream,
            &target,
            "doc".into(),
            accept_key(KEY).into(),
            "tok".into(),
            EMPTY_STATE_VECTOR.into(),
        );
        (client, peer)
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_server_header(&mut out, BINARY, payload.len());
        out.extend_from_slice(payload);
        out
    }

    fn answer() -> Vec<u8> {
        format!("HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: {}\r\n\r\n", accept_key(KEY)).into_bytes()
    }

    /// A session as y-websocket serves it, with a message longer than any read.
    fn y_websocket_session() -> Vec<u8> {
        let mut bytes = answer();
        bytes.extend(frame(&[0, 0, 1, 0]));
        bytes.extend(frame(&[0, 1, 2, 0, 0]));
        let mut long = vec![0, 2];
        crate::lib0::write_var_bytes(&mut long, &vec![7; 100_000]);
        bytes.extend(frame(&long));
        bytes.extend([0x89, 1, b'p']); // a ping
        bytes.extend([0x02, 3, 0, 2, 4, 0x80, 4, 1, 2, 3, 4]); // an update in two fragments
        bytes.extend(frame(&[0, 2, 1, 5]));
        bytes.extend([0x88, 4, 0x0f, 0xa2, b'n', b'o']);
        bytes
    }

    #[test]
    fn a_session_reads_the_same_however_its_bytes_are_cut() {
        let bytes = y_websocket_session();
        let expected = [
            "asked",
            "synced 2",
            "update 100000",
            "update 4",
            "update 1",
            "ended: the server closed the connection: 4002 no",
        ];
        for step in [1, 2, 3, 7, 130, 4096, 65536, bytes.len()] {
            let (mut client, _peer) = client(Protocol::YWebsocket);
            let mut log = Log::default();
            for piece in bytes.chunks(step) {
                client.receive(piece, 1, &mut log);
            }
            assert_eq!(log.0, expected, "in steps of {step}");
            assert_eq!(client.messages_received, 5);
        }
    }

    #[test]
    fn hocuspocus_authenticates_then_syncs_and_its_acks_are_matched_in_order() {
        let (mut client, mut peer) = client(Protocol::Hocuspocus);
        let mut log = Log::default();
        client.receive(&answer(), 1, &mut log);
        client.receive(&frame(b"\x03doc\x02\x02\x0aread-write"), 1, &mut log);
        client.receive(&frame(b"\x03doc\x00\x01\x02\x00\x00"), 1, &mut log);
        client.receive(&frame(b"\x03doc\x04\x00\x01\x00"), 1, &mut log);
        client.send_update(&[1], 77);
        client.receive(&frame(b"\x03doc\x08\x01"), 1, &mut log);
        client.receive(&frame(b"\x03doc\x08\x01"), 1, &mut log);
        client.receive(&frame(b"\x03doc\x08\x01"), 1, &mut log);
        assert_eq!(
            log.0,
            [
                "synced 2",
                "asked",
                "ack true None",
                "ack true Some(77)",
                "ended: the server acknowledged a message that was never sent",
            ]
        );
        client.flush().expect("written");
        drop(client);
        let mut sent = Vec::new();
        peer.read_to_end(&mut sent).expect("read");
        let auth = b"\x03doc\x02\x00\x03tok\x054.7.0";
        assert!(sent.windows(auth.len()).any(|window| window == auth));
    }

    #[test]
    fn pings_are_answered_and_keep_alives_sent_once_live() {
        let (mut client, mut peer) = client(Protocol::Hocuspocus);
        let mut log = Log::default();
        client.send_keep_alive(); // too early: nothing is sent
        client.receive(&answer(), 1, &mut log);
        client.receive(&frame(b"\x03doc\x02\x02\x0aread-write"), 1, &mut log);
        client.receive(&frame(b"\x03doc\x00\x01\x02\x00\x00"), 1, &mut log);
        client.receive(&frame(b"\x09"), 1, &mut log);
        client.send_keep_alive();
        client.flush().expect("written");
        drop(client);
        let mut sent = Vec::new();
        peer.read_to_end(&mut sent).expect("read");
        let expected = b"\x82\x81\0\0\0\0\x0a\x82\x87\0\0\0\0\x03doc\x01\x01\x00";
        assert!(sent.ends_with(expected));
        assert_eq!(sent.windows(4).filter(|at| at == b"\x01\x01\x00\x82").count(), 0);
    }

    #[test]
    fn a_refused_upgrade_says_why() {
        let (mut client, _peer) = client(Protocol::YWebsocket);
        let mut log = Log::default();
        client.receive(b"HTTP/1.1 401 Unauthorized\r\n\r\n{\"code\":4001}", 1, &mut log);
        assert_eq!(log.0, ["ended: the server refused the upgrade: 401 Unauthorized {\"code\":4001}"]);
    }
}
