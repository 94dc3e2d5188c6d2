//! All connections of a run on one thread: one wait, one read per ready socket, one write per
//! connection and turn.
//!
//! The loop owns the clients and the scratch buffer they read into. It knows nothing of scenarios: a
//! load calls [`EventLoop::turn`] until it is content.

pub mod poller;
mod renewal;

use crate::client::{Client, Ended, Handler};
use crate::measure::Clock;
use crate::target::Target;
use crate::update::EMPTY_STATE_VECTOR;
use crate::wire::websocket::{KEY, accept_key};
use poller::{Poller, Ready};
use renewal::Renewal;
use socket2::{Domain, Protocol as Transport, SockRef, Socket, Type};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

const SCRATCH_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub struct EventLoop {
    clock: Clock,
    target: Target,
    poller: Poller,
    ready: Vec<Ready>,
    scratch: Box<[u8]>,
    clients: Vec<Option<Client>>,
    queued: Vec<u32>,
    accept: Rc<str>,
    renewal: Renewal,
    source_addresses: u32,
    receive_buffer_bytes: Option<usize>,
    keep_alive_ns: u64,
    keep_alives: VecDeque<(u64, u32)>, // when and whose, soonest first
    bytes_received: u64,
    messages_received: u64,
}

impl EventLoop {
    /// Connections leave from 127.0.0.1 and so on, `source_addresses` of them in turn, if that is more
    /// than one (the server must be on loopback then): each has its own range of ports.
    /// Each says every `keep_alive` that it is still there.
    pub fn new(
        clock: Clock,
        target: Target,
        source_addresses: u32,
        keep_alive: Duration,
    ) -> io::Result<Self> {
        Ok(Self {
            clock,
            poller: Poller::new()?,
            ready: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            clients: Vec::new(),
            queued: Vec::new(),
            accept: accept_key(KEY).into(),
            renewal: Renewal::new(&target),
            target,
            source_addresses,
            receive_buffer_bytes: None,
            keep_alive_ns: keep_alive.as_nanos() as u64,
            keep_alives: VecDeque::new(),
            bytes_received: 0,
            messages_received: 0,
        })
    }

    /// Opens a connection for `document` and someone who has nothing of it; its number is the count of
    /// those opened before.
    pub fn connect(&mut self, document: Rc<str>) -> io::Result<u32> {
        let number = self.add_seat();
        self.connect_again(number, document, EMPTY_STATE_VECTOR.into())?;
        Ok(number)
    }

    /// A number for connections to come, without any as yet.
    pub fn add_seat(&mut self) -> u32 {
        let number = self.clients.len() as u32;
        self.clients.push(None);
        let keep_alive_ns = self.clock.now_ns() + self.keep_alive_ns;
        self.keep_alives.push_back((keep_alive_ns, number));
        number
    }

    /// Opens a connection under a number whose former one is closed, for someone who has what
    /// `state_vector` says. Not to be called by a handler.
    pub fn connect_again(
        &mut self,
        number: u32,
        document: Rc<str>,
        state_vector: Box<[u8]>,
    ) -> io::Result<()> {
        self.close(number);
        let stream = self.open_socket(number)?;
        self.poller.add(stream.as_fd(), u64::from(number), true)?;
        let (accept, token) = (self.accept.clone(), self.target.token(number));
        let mut client = Client::new(number, stream, &self.target, document, accept, token, state_vector);
        client.waits_for_writable = true;
        self.clients[number as usize] = Some(client);
        Ok(())
    }

    /// Connections opened from now on may hold so many bytes that nobody has read (the kernel rounds).
    pub fn set_receive_buffer(&mut self, bytes: Option<usize>) {
        self.receive_buffer_bytes = bytes;
    }

    /// Ends a connection as an unplugged cable with a bad ending does: what is queued on either side is
    /// lost, the server gets a reset.
    pub fn reset(&mut self, number: u32) {
        if let Some(client) = self.clients[number as usize].as_ref() {
            // Should it fail, the connection is closed in the ordinary way.
            let _ = SockRef::from(client.stream()).set_linger(Some(Duration::ZERO));
        }
        self.close(number);
    }

    /// Says goodbye and closes.
    pub fn leave(&mut self, number: u32) {
        if let Some(client) = self.clients[number as usize].as_mut() {
            client.send_close();
            // Who doesn't hear it sees the connection end.
            let _ = client.flush();
        }
        self.close(number);
    }

    /// Stops reading: what the server sends piles up. Writing goes on.
    pub fn pause(&mut self, number: u32) -> io::Result<()> {
        let Some(client) = self.clients[number as usize].as_mut() else {
            return Ok(());
        };
        client.is_paused = true;
        self.poller.ignore_input(client.stream().as_fd(), u64::from(number), client.waits_for_writable)
    }

    pub fn resume(&mut self, number: u32) -> io::Result<()> {
        let Some(client) = self.clients[number as usize].as_mut() else {
            return Ok(());
        };
        client.is_paused = false;
        self.poller.modify(client.stream().as_fd(), u64::from(number), client.waits_for_writable)
    }

    /// Reads up to `bytes_max` for someone who is paused.
    pub fn sip(&mut self, number: u32, bytes_max: usize, handler: &mut impl Handler) {
        let Some(client) = self.clients[number as usize].as_mut() else {
            return;
        };
        let sip = bytes_max.min(SCRATCH_BYTES);
        if read(client, &mut self.scratch[..sip], &self.clock, handler) {
            self.close(number);
        }
    }

    fn open_socket(&self, number: u32) -> io::Result<TcpStream> {
        let socket =
            Socket::new(Domain::for_address(self.target.address), Type::STREAM, Some(Transport::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = self.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        if self.source_addresses > 1 || self.target.first_source > 0 {
            let last = 1 + self.target.first_source + number % self.source_addresses;
            let source = Ipv4Addr::from(0x7f00_0000 + last);
            socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
        }
        match socket.connect(&self.target.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(socket.into())
    }

    /// The client to send something with, if it is still connected: its output goes out this turn.
    #[inline]
    pub fn client(&mut self, number: u32) -> Option<&mut Client> {
        let client = self.clients.get_mut(number as usize)?.as_mut()?;
        if !client.queued {
            client.queued = true;
            self.queued.push(number);
        }
        Some(client)
    }

    /// Clients still connected.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter().flatten()
    }

    pub fn close(&mut self, number: u32) {
        if let Some(client) = self.clients[number as usize].take() {
            self.bytes_received += client.bytes_received;
            self.messages_received += client.messages_received;
        }
    }

    /// Bytes and protocol messages received on all connections so far.
    pub fn received(&self) -> (u64, u64) {
        self.clients().fold((self.bytes_received, self.messages_received), |(bytes, messages), client| {
            (bytes + client.bytes_received, messages + client.messages_received)
        })
    }

    /// Writes what is queued, waits until something is ready or `until_ns`, and reads that.
    pub fn turn(&mut self, until_ns: u64, handler: &mut impl Handler) -> io::Result<()> {
        let now_ns = self.clock.now_ns();
        self.keep_alive(now_ns);
        self.renew_tokens(now_ns);
        self.flush(handler)?;
        let timeout = Duration::from_nanos(until_ns.saturating_sub(now_ns));
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.wait(timeout, &mut ready)?;
        for event in &ready {
            self.serve(*event, handler)?;
        }
        self.ready = ready;
        self.flush(handler)
    }

    #[inline]
    fn keep_alive(&mut self, now_ns: u64) {
        while let Some(&(due_ns, number)) = self.keep_alives.front() {
            if due_ns > now_ns {
                return;
            }
            self.keep_alives.pop_front();
            self.keep_alives.push_back((due_ns + self.keep_alive_ns, number));
            if let Some(client) = self.client(number) {
                client.send_keep_alive();
            }
        }
    }

    #[inline]
    fn renew_tokens(&mut self, now_ns: u64) {
        while let Some(number) = self.renewal.next(&self.target, now_ns, self.clients.len() as u32) {
            let token = self.target.token(number);
            match self.client(number).map(|client| client.send_token(&token)) {
                Some(true) => self.target.tokens.note_handed_over(),
                Some(false) => self.renewal.postpone(number),
                None => {} // whoever comes next has the newer one
            }
        }
    }

    #[inline]
    fn serve(&mut self, event: Ready, handler: &mut impl Handler) -> io::Result<()> {
        let number = event.token as u32;
        let Some(client) = self.clients[number as usize].as_mut() else {
            return Ok(());
        };
        let mut gone = false;
        if event.readable {
            gone = read(client, &mut self.scratch, &self.clock, handler);
        }
        if !gone && event.writable {
            gone = self.write(number, handler)?;
        }
        if gone {
            self.close(number);
        } else if let Some(client) = self.clients[number as usize].as_mut()
            && client.has_output()
            && !client.queued
        {
            client.queued = true;
            self.queued.push(number);
        }
        Ok(())
    }

    /// One write for each client that has something to say.
    pub fn flush(&mut self, handler: &mut impl Handler) -> io::Result<()> {
        let mut queued = std::mem::take(&mut self.queued);
        for number in queued.drain(..) {
            let Some(client) = self.clients[number as usize].as_mut() else {
                continue;
            };
            client.queued = false;
            if !client.waits_for_writable && client.has_output() && self.write(number, handler)? {
                self.close(number);
            }
        }
        self.queued = queued;
        Ok(())
    }

    /// Writes; whether the connection is gone. Watches for room exactly while something is left.
    fn write(&mut self, number: u32, handler: &mut impl Handler) -> io::Result<bool> {
        let Some(client) = self.clients[number as usize].as_mut() else {
            return Ok(false);
        };
        if let Err(error) = client.flush() {
            client.end(Ended::Io(error), self.clock.now_ns(), handler);
            return Ok(true);
        }
        let waits = client.has_output();
        if waits != client.waits_for_writable {
            client.waits_for_writable = waits;
            let (socket, token) = (client.stream().as_fd(), u64::from(number));
            if client.is_paused {
                self.poller.ignore_input(socket, token, waits)?;
            } else {
                self.poller.modify(socket, token, waits)?;
            }
        }
        Ok(false)
    }
}

/// Reads once (what is left makes the socket ready again); whether the connection is gone.
#[inline]
fn read(client: &mut Client, scratch: &mut [u8], clock: &Clock, handler: &mut impl Handler) -> bool {
    match client.read(scratch) {
        Ok(Some(len)) => {
            client.receive(&scratch[..len], clock.now_ns(), handler);
            client.has_ended()
        }
        Ok(None) => false,
        Err(ended) => {
            client.end(ended, clock.now_ns(), handler);
            true
        }
    }
}
