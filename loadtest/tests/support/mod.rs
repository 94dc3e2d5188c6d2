//! A small Yjs server for the tests: y-websocket's protocol over `yrs`, one thread per connection, honest
//! or with one fault of its own ([`Lie`]). It shares no code with the load tester but the framing.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use wiresocket_loadtest::lib0::{Reader, write_var_bytes, write_varuint};
use wiresocket_loadtest::wire::websocket::{BINARY, CLOSE, accept_key, write_server_header};
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{Doc, ReadTxn, StateVector, Transact, Update};

const SYNC: u64 = 0;
const AWARENESS: u64 = 1;

/// What is wrong with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    Honest,
    /// Who comes back gets nothing of what it missed.
    ForgetsWhoReturns,
    /// Newcomers get an empty document.
    HidesTheState,
    /// What a client hands over when asked is thrown away.
    IgnoresHandOver,
    /// Newcomers get other letters than were typed, under the same clocks.
    GarblesTheState,
    /// Everybody is sent other letters than were typed, under the same clocks; the server keeps the right ones.
    GarblesUpdates,
    /// Updates that only delete are thrown away.
    IgnoresDeletions,
    /// Only so many awareness messages are passed on.
    StopsCursors { after: u32 },
    /// Every awareness state is passed on as another one.
    InventsCursors,
    /// Not wrong: the last to connect is told after so many updates that it is too slow.
    ClosesTheLast { after: u32 },
}

#[derive(Default)]
struct Room {
    doc: Doc,
    peers: HashMap<u64, TcpStream>,
    cursors: HashMap<u64, (u64, u64, Vec<u8>)>, // by client: clock, whose connection, state
    updates: u32,
    awareness: u32,
}

#[derive(Default)]
struct Rooms {
    rooms: HashMap<String, Room>,
    connections: u64,
}

pub struct YjsServer {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl YjsServer {
    pub fn start(lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let rooms = Arc::new(Mutex::new(Rooms::default()));
        let accept = move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let rooms = rooms.clone();
                let stream = stream.expect("accepted");
                std::thread::spawn(move || serve(stream, &rooms, lie));
            }
        };
        Self { address, stop, thread: Some(std::thread::spawn(accept)) }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }
}

impl Drop for YjsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address); // wakes it up
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(rooms: &Mutex<Rooms>) -> MutexGuard<'_, Rooms> {
    rooms.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn serve(mut stream: TcpStream, rooms: &Mutex<Rooms>, lie: Lie) {
    let _ = stream.set_nodelay(true);
    let Some((path, mut held)) = upgrade(&mut stream) else { return };
    let number = {
        let mut rooms = lock(rooms);
        rooms.connections += 1;
        let number = rooms.connections;
        let room = rooms.rooms.entry(path.clone()).or_default();
        room.peers.insert(number, stream.try_clone().expect("cloned"));
        let state_vector = room.doc.transact().state_vector().encode_v1();
        let greeting: Vec<Vec<u8>> = std::iter::once(sync(0, &state_vector))
            .chain(room.cursors.iter().map(|(client, (clock, _, state))| cursor(*client, *clock, state)))
            .collect();
        greeting.iter().for_each(|message| send(&mut stream, BINARY, message));
        number
    };
    let mut scratch = vec![0; 64 * 1024];
    'reading: loop {
        while let Some((opcode, payload, len)) = frame(&held) {
            held.drain(..len);
            match opcode {
                BINARY => lock(rooms).message(&path, number, &payload, lie),
                CLOSE => {
                    send(&mut stream, CLOSE, &payload);
                    break 'reading;
                }
                _ => {}
            }
        }
        match stream.read(&mut scratch) {
            Ok(len) if len > 0 => held.extend_from_slice(&scratch[..len]),
            _ => break,
        }
    }
    lock(rooms).leave(&path, number);
}

impl Rooms {
    fn message(&mut self, path: &str, from: u64, payload: &[u8], lie: Lie) {
        let room = self.rooms.get_mut(path).expect("it was entered");
        let mut reader = Reader::new(payload);
        let kind = reader.varuint().expect("a type");
        if kind == AWARENESS {
            return room.awareness(from, reader.var_bytes().expect("an awareness update"), lie);
        }
        assert_eq!(kind, SYNC);
        let step = reader.varuint().expect("a step");
        let body = reader.var_bytes().expect("a body");
        match step {
            0 => room.answer(from, body, lie),
            1 if lie == Lie::IgnoresHandOver => {}
            _ if lie == Lie::IgnoresDeletions && body[0] == 0 => {}
            _ => room.update(from, body, lie),
        }
    }

    fn leave(&mut self, path: &str, number: u64) {
        let room = self.rooms.get_mut(path).expect("it was entered");
        room.peers.remove(&number);
        let gone: Vec<(u64, u64)> = room
            .cursors
            .iter()
            .filter(|(_, (_, owner, _))| *owner == number)
            .map(|(client, (clock, _, _))| (*client, *clock))
            .collect();
        for (client, clock) in gone {
            room.cursors.remove(&client);
            room.broadcast(number, &cursor(client, clock, b"null"));
        }
    }
}

impl Room {
    fn answer(&mut self, to: u64, state_vector: &[u8], lie: Lie) {
        let known = StateVector::decode_v1(state_vector).expect("a state vector");
        let is_new = known.is_empty();
        let mut difference = match lie {
            Lie::ForgetsWhoReturns if !is_new => vec![0, 0],
            Lie::HidesTheState if is_new => vec![0, 0],
            _ => self.doc.transact().encode_diff_v1(&known),
        };
        if lie == Lie::GarblesTheState && is_new {
            garble(&mut difference);
        }
        if let Some(stream) = self.peers.get_mut(&to) {
            send(stream, BINARY, &sync(1, &difference));
        }
    }

    fn update(&mut self, from: u64, update: &[u8], lie: Lie) {
        let before = self.doc.transact().state_vector();
        let decoded = Update::decode_v1(update).expect("a legal update");
        self.doc.transact_mut().apply_update(decoded).expect("applied");
        let is_new = self.doc.transact().state_vector() != before;
        // Deletions alone don't show in the state vector.
        if is_new || update[0] == 0 && update != [0, 0] {
            let mut difference = self.doc.transact().encode_diff_v1(&before);
            if lie == Lie::GarblesUpdates && self.updates == 20 {
                garble(&mut difference);
            }
            self.broadcast(from, &sync(2, &difference));
        }
        self.updates += 1;
        if let Lie::ClosesTheLast { after } = lie
            && self.updates == after
            && let Some(last) = self.peers.keys().max().copied()
            && let Some(mut stream) = self.peers.remove(&last)
        {
            send(&mut stream, CLOSE, &1013u16.to_be_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
    }

    fn awareness(&mut self, from: u64, update: &[u8], lie: Lie) {
        let mut reader = Reader::new(update);
        for _ in 0..reader.varuint().expect("a count") {
            let client = reader.varuint().expect("a client");
            let clock = reader.varuint().expect("a clock");
            let state = reader.var_bytes().expect("a state").to_vec();
            self.awareness += 1;
            match lie {
                Lie::StopsCursors { after } if self.awareness > after => return,
                Lie::InventsCursors => self.broadcast(from, &cursor(client, clock, br#"{"user":"nobody"}"#)),
                _ => self.broadcast(from, &cursor(client, clock, &state)),
            }
            self.cursors.insert(client, (clock, from, state));
        }
    }

    fn broadcast(&mut self, from: u64, message: &[u8]) {
        let others = self.peers.iter_mut().filter(|(number, _)| **number != from);
        others.for_each(|(_, stream)| send(stream, BINARY, message));
    }
}

/// Changes the last letter of an update that deletes nothing.
fn garble(update: &mut [u8]) {
    if let [.., letter, 0] = update
        && letter.is_ascii_lowercase()
    {
        *letter = b'#';
    }
}

fn sync(step: u64, body: &[u8]) -> Vec<u8> {
    let mut message = vec![SYNC as u8, step as u8];
    write_var_bytes(&mut message, body);
    message
}

fn cursor(client: u64, clock: u64, state: &[u8]) -> Vec<u8> {
    let mut update = vec![1];
    write_varuint(&mut update, client);
    write_varuint(&mut update, clock);
    write_var_bytes(&mut update, state);
    let mut message = vec![AWARENESS as u8];
    write_var_bytes(&mut message, &update);
    message
}

/// Whoever can't be reached any more is noticed by its own thread.
fn send(stream: &mut TcpStream, opcode: u8, payload: &[u8]) {
    let mut bytes = Vec::with_capacity(payload.len() + 10);
    write_server_header(&mut bytes, opcode, payload.len());
    bytes.extend_from_slice(payload);
    let _ = stream.write_all(&bytes);
}

/// Answers the upgrade; the path, and what came behind the head.
fn upgrade(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut held = Vec::new();
    let mut scratch = [0; 4096];
    let end = loop {
        if let Some(end) = held.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let len = stream.read(&mut scratch).ok().filter(|len| *len > 0)?;
        held.extend_from_slice(&scratch[..len]);
    };
    let head = String::from_utf8(held[..end].to_vec()).ok()?;
    let path = head.split(' ').nth(1)?.to_owned();
    let key = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))?
        .1;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_key(key)
    );
    stream.write_all(answer.as_bytes()).ok()?;
    Some((path, held.split_off(end + 4)))
}

/// A client's frame, if all of it is there: opcode, payload, length. The load tester's mask is zero.
fn frame(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (len_bytes, short) = match bytes.get(1)? & 0x7f {
        126 => (2, 0),
        127 => (8, 0),
        short => (0, usize::from(short)),
    };
    let header = 6 + len_bytes;
    let long = bytes.get(2..2 + len_bytes)?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
    let len = header + if len_bytes == 0 { short } else { long };
    let payload = bytes.get(header..len)?;
    Some((bytes[0] & 0x0f, payload.to_vec(), len))
}
