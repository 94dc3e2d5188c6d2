//! A blocking WebSocket client whose reads have deadlines. The upgrade is written by hand, so that a test can send any
//! head; the frames are tungstenite's.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Bytes, Error, Message as Frame, WebSocket};

use super::http::{self, Response, head_end};
use super::tls::Stream;
use super::{DEADLINE, Server};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// RFC 6455 section 1.3's example.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A WebSocket upgrade in the making.
#[derive(Debug, Clone)]
pub struct Upgrade {
    address: SocketAddr,
    target: String,
    headers: Vec<(String, String)>,
}

/// How an upgrade was answered.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // it is taken apart at once
pub enum Answer {
    Open(Client),
    Refused(Response),
}

impl Upgrade {
    pub fn new(address: SocketAddr, target: &str) -> Self {
        Self { address, target: target.to_owned(), headers: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn origin(self, origin: &str) -> Self {
        self.header("Origin", origin)
    }

    /// `Sec-WebSocket-Protocol: access_token, <token>`.
    pub fn token(self, token: &str) -> Self {
        self.protocols(&format!("access_token, {token}"))
    }

    pub fn protocols(self, protocols: &str) -> Self {
        self.header("Sec-WebSocket-Protocol", protocols)
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// The request head as it goes out.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n",
            self.target, self.address
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Sends the request without waiting for the answer.
    pub fn begin(&self) -> TcpStream {
        let mut stream = http::connect(self.address);
        stream.write_all(&self.head()).expect("the upgrade is sent");
        stream
    }

    /// Sends the request over a connection that is there already.
    #[track_caller]
    pub fn open_over(&self, stream: impl Into<Stream>) -> Client {
        let mut stream = stream.into();
        stream.write_all(&self.head()).expect("the upgrade is sent");
        match Answer::read(stream) {
            Answer::Open(client) => client,
            Answer::Refused(response) => panic!("refused: {} {}", response.status, response.text()),
        }
    }

    #[track_caller]
    pub fn send(&self) -> Answer {
        Answer::read(self.begin())
    }

    /// Like [`Upgrade::send`], for a server that may be gone.
    pub fn try_send(&self) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(&self.head())?;
        Answer::try_read(stream)
    }

    /// The client, or a panic with the refusal.
    #[track_caller]
    pub fn open(&self) -> Client {
        match self.send() {
            Answer::Open(client) => client,
            Answer::Refused(response) => panic!("refused: {} {}", response.status, response.text()),
        }
    }

    /// The refusal of an upgrade that is not finished.
    #[track_caller]
    pub fn refused(&self) -> Response {
        match self.send() {
            Answer::Refused(response) => response,
            Answer::Open(_) => panic!("it was let in"),
        }
    }

    /// The close code and reason of an upgrade that is finished only to be closed.
    #[track_caller]
    pub fn closed(&self) -> (u16, String) {
        self.open().closed()
    }
}

impl Answer {
    /// Reads the answer to an upgrade.
    #[track_caller]
    pub fn read(stream: impl Into<Stream>) -> Self {
        match Self::try_read(stream) {
            Ok(answer) => answer,
            Err(error) => panic!("no answer to the upgrade: {error}"),
        }
    }

    /// Like [`Answer::read`], for a server that may be gone.
    pub fn try_read(stream: impl Into<Stream>) -> std::io::Result<Self> {
        let mut stream = stream.into();
        let mut bytes = Vec::new();
        let end = loop {
            let mut chunk = [0; 4096];
            let count = stream.read(&mut chunk)?;
            if count == 0 {
                let what = format!("closed before it was whole: {bytes:?}");
                return Err(std::io::Error::new(ErrorKind::UnexpectedEof, what));
            }
            bytes.extend_from_slice(&chunk[..count]);
            if let Some(end) = head_end(&bytes) {
                break end;
            }
        };
        let head = Response::parse(&bytes[..end]);
        if head.status != 101 {
            bytes.extend_from_slice(&http::read_to_end(&mut stream));
            return Ok(Self::Refused(Response::parse(&bytes)));
        }
        assert_eq!(head.header("sec-websocket-accept"), Some(ACCEPT));
        let selected_protocol = head.header("sec-websocket-protocol").map(str::to_owned);
        // The default buffers of 128 KiB would make a gigabyte of a few thousand clients.
        let config = WebSocketConfig::default()
            .read_buffer_size(4096)
            .write_buffer_size(0)
            .max_message_size(None)
            .max_frame_size(None);
        let rest = bytes[end..].to_vec();
        let socket = WebSocket::from_partially_read(stream, rest, Role::Client, Some(config));
        Ok(Self::Open(Client { socket, selected_protocol }))
    }
}

/// What a client can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    Binary(Vec<u8>),
    Text(String),
    Ping,
    Pong,
    /// Code 1005 stands for a close frame without one.
    Close(u16, String),
    /// The connection ended, with or without a close frame before.
    Ended,
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Client {
    socket: WebSocket<Stream>,
    pub selected_protocol: Option<String>,
}

impl Client {
    /// A y-websocket connection to a document, with the token as sub-protocol. Nothing is sent yet.
    #[track_caller]
    pub fn join(server: &Server, document: &str, token: &str) -> Self {
        server.upgrade(&format!("/{document}")).token(token).open()
    }

    /// A socket without a document or a token, as a Hocuspocus provider opens it.
    #[track_caller]
    pub fn hocuspocus(server: &Server) -> Self {
        server.upgrade("/").open()
    }

    pub fn stream(&self) -> &TcpStream {
        self.socket.get_ref().tcp()
    }

    /// The connection itself, under the WebSocket.
    pub fn connection(&mut self) -> &mut Stream {
        self.socket.get_mut()
    }

    #[track_caller]
    pub fn send(&mut self, message: &[u8]) {
        self.try_send(message).expect("the message is sent");
    }

    /// Fails when the server has closed.
    pub fn try_send(&mut self, message: &[u8]) -> Result<(), Box<Error>> {
        self.socket.send(Frame::Binary(Bytes::copy_from_slice(message))).map_err(Box::new)
    }

    #[track_caller]
    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Frame::text(text)).expect("the text is sent");
    }

    #[track_caller]
    pub fn ping(&mut self, payload: &[u8]) {
        self.try_ping(payload).expect("the ping is sent");
    }

    /// Fails when the server has closed.
    pub fn try_ping(&mut self, payload: &[u8]) -> Result<(), Box<Error>> {
        self.socket.send(Frame::Ping(Bytes::copy_from_slice(payload))).map_err(Box::new)
    }

    /// Bytes straight onto the socket, framed or not.
    pub fn send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.get_mut().write_all(bytes)
    }

    /// The next thing that comes within `wait`; `None` if nothing does. Pings are answered.
    pub fn try_receive(&mut self, wait: Duration) -> Option<Incoming> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream().set_read_timeout(Some(left)).expect("a read timeout");
            let incoming = match self.socket.read() {
                Ok(Frame::Binary(bytes)) => Incoming::Binary(bytes.to_vec()),
                Ok(Frame::Text(text)) => Incoming::Text(text.as_str().to_owned()),
                Ok(Frame::Ping(_)) => {
                    // The answer is queued; it goes out here. A client that is about to be closed may fail to.
                    let _ = self.socket.flush();
                    Incoming::Ping
                }
                Ok(Frame::Pong(_)) => Incoming::Pong,
                Ok(Frame::Close(frame)) => {
                    let _ = self.socket.flush();
                    frame.map_or(Incoming::Close(1005, String::new()), |frame| {
                        Incoming::Close(frame.code.into(), frame.reason.as_str().to_owned())
                    })
                }
                Ok(Frame::Frame(_)) => continue,
                Err(Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if Instant::now() < until {
                        continue;
                    }
                    return None;
                }
                Err(_) => Incoming::Ended,
            };
            return Some(incoming);
        }
    }

    #[track_caller]
    pub fn receive(&mut self) -> Incoming {
        self.try_receive(DEADLINE).expect("something comes before the deadline")
    }

    /// The next binary message; panics on a close.
    #[track_caller]
    pub fn receive_binary(&mut self) -> Vec<u8> {
        loop {
            match self.receive() {
                Incoming::Binary(bytes) => return bytes,
                Incoming::Ping | Incoming::Pong => {}
                other => panic!("a binary message was expected: {other:?}"),
            }
        }
    }

    /// Reads until the server closes, and says how. Data on the way is passed over.
    #[track_caller]
    pub fn closed(&mut self) -> (u16, String) {
        let until = Instant::now() + DEADLINE;
        loop {
            match self.try_receive(until.saturating_duration_since(Instant::now())) {
                Some(Incoming::Close(code, reason)) => return (code, reason),
                Some(Incoming::Ended) => return (1006, String::new()),
                Some(_) => {}
                None => panic!("the server did not close within {DEADLINE:?}"),
            }
        }
    }

    /// Says goodbye and waits for the answer.
    #[track_caller]
    pub fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.socket.close(Some(frame)).expect("the close frame is sent");
        let _ = self.closed();
    }

    /// Resets the connection once the server has read everything that was sent.
    #[track_caller]
    pub fn reset_after_pong(mut self) {
        self.ping(b"reset");
        while self.receive() != Incoming::Pong {}
        self.reset();
    }

    /// Ends the connection without a word: a TCP reset.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(self.stream());
        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }
}
