//! A room that repeats every binary message to the others: the ceiling of any server, and of us.
//!
//! No CRDT, no tokens, no documents: the path is the room. It writes once per connection and turn of its
//! loop, as cheaply as a server can, so what the generator reaches against it is the generator's own
//! limit. The tests drive it, honest and hostile ([`Fault`]), in place of a real server.

use crate::event_loop::poller::{Poller, Ready};
use crate::wire::websocket::{BINARY, CLOSE, PING, PONG, accept_key, write_server_header};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SCRATCH_BYTES: usize = 64 * 1024;
/// The listener's token; connections count from 0.
const LISTENER: u64 = u64::MAX;

/// What a hostile relay does to one message, the `nth` of the run, for all who should get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Lose {
        nth: u64,
    },
    Duplicate {
        nth: u64,
    },
    /// Swaps it with the next one of the same sender.
    Delay {
        nth: u64,
    },
}

#[derive(Debug)]
struct Peer {
    stream: TcpStream,
    room: Option<String>, // `None` until the upgrade
    held: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    queued: bool,
    waits_for_writable: bool,
}

#[derive(Debug)]
pub struct Relay {
    listener: TcpListener,
    poller: Poller,
    peers: Vec<Option<Peer>>,
    rooms: HashMap<String, Vec<u32>>,
    queued: Vec<u32>,
    fault: Option<Fault>,
    messages: Arc<AtomicU64>,
    delayed: Option<(u32, Vec<u8>)>,
}

impl Relay {
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let poller = Poller::new()?;
        poller.add(listener.as_fd(), LISTENER, false)?;
        Ok(Self {
            listener,
            poller,
            peers: Vec::new(),
            rooms: HashMap::new(),
            queued: Vec::new(),
            fault: None,
            messages: Arc::default(),
            delayed: None,
        })
    }

    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// How many messages came so far, also while it serves.
    pub fn messages(&self) -> Arc<AtomicU64> {
        self.messages.clone()
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `goes_on` says no; it is asked at least every 100 ms.
    pub fn serve(&mut self, mut goes_on: impl FnMut() -> bool) -> io::Result<()> {
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut ready = Vec::new();
        while goes_on() {
            self.poller.wait(Duration::from_millis(100), &mut ready)?;
            for event in &ready {
                if event.token == LISTENER {
                    self.accept()?;
                } else {
                    self.serve_peer(*event, &mut scratch);
                }
            }
            let mut queued = std::mem::take(&mut self.queued);
            for number in queued.drain(..) {
                if let Some(peer) = self.peers[number as usize].as_mut() {
                    peer.queued = false;
                    self.write(number);
                }
            }
            self.queued = queued;
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.poller.add(stream.as_fd(), self.peers.len() as u64, false)?;
            self.peers.push(Some(Peer {
                stream,
                room: None,
                held: Vec::new(),
                out: Vec::new(),
                written: 0,
                queued: false,
                waits_for_writable: false,
            }));
        }
    }

    fn serve_peer(&mut self, event: Ready, scratch: &mut [u8]) {
        let number = event.token as u32;
        let Some(peer) = self.peers[number as usize].as_mut() else {
            return;
        };
        if event.readable {
            match peer.stream.read(scratch) {
                Ok(0) => return self.remove(number),
                Ok(len) => {
                    let mut held = std::mem::take(&mut peer.held);
                    held.extend_from_slice(&scratch[..len]);
                    match self.take(number, &held) {
                        Some(used) => {
                            held.drain(..used);
                            if let Some(peer) = self.peers[number as usize].as_mut() {
                                peer.held = held;
                            }
                        }
                        None => return self.remove(number),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.remove(number),
            }
        }
        if event.writable {
            self.write(number);
        }
    }

    /// Handles what is whole in `bytes`; how much that was, `None` to end the connection.
    fn take(&mut self, number: u32, bytes: &[u8]) -> Option<usize> {
        let mut used = 0;
        if self.peers[number as usize].as_ref()?.room.is_none() {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                return Some(0);
            };
            self.upgrade(number, std::str::from_utf8(&bytes[..end]).ok()?)?;
            used = end + 4;
        }
        while let Some(frame) = parse_masked(&bytes[used..]) {
            let payload = &bytes[used + frame.header..used + frame.len];
            used += frame.len;
            let mut unmasked = Vec::new();
            let payload = if frame.mask == [0; 4] {
                payload
            } else {
                unmasked
                    .extend(payload.iter().zip(frame.mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
                &unmasked
            };
            match frame.opcode {
                BINARY => self.message(number, payload),
                PING => self.send(number, PONG, payload),
                CLOSE => return None,
                _ => {}
            }
        }
        Some(used)
    }

    fn upgrade(&mut self, number: u32, head: &str) -> Option<()> {
        let mut lines = head.split("\r\n");
        let room = lines.next()?.split(' ').nth(1)?.to_owned();
        let key = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))?
            .1
            .trim();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept_key(key)
        );
        self.rooms.entry(room.clone()).or_default().push(number);
        let peer = self.peers[number as usize].as_mut()?;
        peer.room = Some(room);
        peer.out.extend_from_slice(answer.as_bytes());
        self.queue(number);
        Some(())
    }

    fn message(&mut self, from: u32, payload: &[u8]) {
        let nth = self.messages.fetch_add(1, Ordering::Relaxed) + 1;
        match self.fault {
            Some(Fault::Lose { nth: lost }) if lost == nth => return,
            Some(Fault::Duplicate { nth: twice }) if twice == nth => self.broadcast(from, payload),
            Some(Fault::Delay { nth: late }) if late == nth => {
                self.delayed = Some((from, payload.to_owned()));
                return;
            }
            _ => {}
        }
        self.broadcast(from, payload);
        if let Some((_, late)) = self.delayed.take_if(|(sender, _)| *sender == from) {
            self.broadcast(from, &late);
        }
    }

    fn broadcast(&mut self, from: u32, payload: &[u8]) {
        let Some(room) = self.peers[from as usize].as_ref().and_then(|peer| peer.room.as_ref()) else {
            return;
        };
        let others = self.rooms.get(room).map(Vec::as_slice).unwrap_or_default();
        for &number in others {
            if number == from {
                continue;
            }
            if let Some(peer) = self.peers[number as usize].as_mut() {
                write_server_header(&mut peer.out, BINARY, payload.len());
                peer.out.extend_from_slice(payload);
                if !peer.queued {
                    peer.queued = true;
                    self.queued.push(number);
                }
            }
        }
    }

    fn send(&mut self, number: u32, opcode: u8, payload: &[u8]) {
        if let Some(peer) = self.peers[number as usize].as_mut() {
            write_server_header(&mut peer.out, opcode, payload.len());
            peer.out.extend_from_slice(payload);
            self.queue(number);
        }
    }

    fn queue(&mut self, number: u32) {
        if let Some(peer) = self.peers[number as usize].as_mut()
            && !peer.queued
        {
            peer.queued = true;
            self.queued.push(number);
        }
    }

    fn write(&mut self, number: u32) {
        let Some(peer) = self.peers[number as usize].as_mut() else {
            return;
        };
        while peer.written < peer.out.len() {
            match peer.stream.write(&peer.out[peer.written..]) {
                Ok(written) if written > 0 => peer.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                _ => return self.remove(number),
            }
        }
        let waits = peer.written < peer.out.len();
        if !waits {
            peer.out.clear();
            peer.written = 0;
        }
        if waits != peer.waits_for_writable {
            peer.waits_for_writable = waits;
            if self.poller.modify(peer.stream.as_fd(), u64::from(number), waits).is_err() {
                self.remove(number);
            }
        }
    }

    fn remove(&mut self, number: u32) {
        let Some(peer) = self.peers[number as usize].take() else {
            return;
        };
        if let Some(room) = peer.room
            && let Some(members) = self.rooms.get_mut(&room)
        {
            members.retain(|member| *member != number);
            if members.is_empty() {
                self.rooms.remove(&room);
            }
        }
    }
}

struct MaskedFrame {
    opcode: u8,
    mask: [u8; 4],
    header: usize,
    len: usize,
}

/// A client's frame, if all of it is there. (Fragments are not worth a ceiling's while.)
fn parse_masked(bytes: &[u8]) -> Option<MaskedFrame> {
    let len_byte = bytes.get(1)? & 0x7f;
    let len_bytes = match len_byte {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask: [u8; 4] = bytes.get(2 + len_bytes..6 + len_bytes)?.try_into().ok()?;
    let payload = match len_bytes {
        0 => u64::from(len_byte),
        _ => bytes[2..2 + len_bytes].iter().fold(0, |value, &byte| value << 8 | u64::from(byte)),
    };
    let header = 6 + len_bytes;
    let len = header.checked_add(usize::try_from(payload).ok()?)?;
    (bytes.len() >= len).then_some(MaskedFrame { opcode: bytes[0] & 0x0f, mask, header, len })
}
