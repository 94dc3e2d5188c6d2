//! One TCP socket of a shard: what is read from it, what waits to be written to it, and its encryption if it has any.
#![allow(unsafe_code)] // recv and send on a borrowed descriptor, without a std stream around it

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::handshake::Handshake;
use super::poller::Interest;
use crate::protocol::websocket::Reader;
use crate::tls::Session;

/// Where a socket is in its life.
#[derive(Debug)]
pub enum Stage {
    /// Before the upgrade is answered.
    Handshake(Box<Handshake>),
    /// A WebSocket that the engine knows.
    Open(Reader),
    /// The last bytes are on their way; what comes in is thrown away, so that no reset overtakes them.
    Closing { until: Duration },
}

#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    pub peer: IpAddr,
    pub stage: Stage,
    pub interest: Interest,
    pub outbox: Outbox,
    /// The engine was told that the outbox is over its bound.
    pub stalled: bool,
    /// The sending side is shut down.
    pub shut: bool,
    /// `None`: what is read and written goes over the wire as it is.
    pub tls: Option<Box<Session>>,
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    Bytes(usize),
    /// Nothing now.
    Blocked,
    /// The other side is done, or gone.
    Ended,
}

impl Socket {
    #[must_use]
    pub const fn new(fd: OwnedFd, peer: IpAddr, stage: Stage, tls: Option<Box<Session>>) -> Self {
        let (interest, outbox) = (Interest::READ, Outbox(None));
        Self { fd, peer, stage, interest, outbox, stalled: false, shut: false, tls }
    }

    /// Reads once, to the front of the buffer. Encryption may have put something into the outbox.
    pub fn read(&mut self, buffer: &mut [u8]) -> ReadOutcome {
        if self.tls.is_some() { self.read_encrypted(buffer) } else { receive(self.fd.as_raw_fd(), buffer) }
    }

    /// Reads what nobody wants to see any more.
    pub fn discard(&self, buffer: &mut [u8]) -> ReadOutcome {
        receive(self.fd.as_raw_fd(), buffer)
    }

    fn read_encrypted(&mut self, buffer: &mut [u8]) -> ReadOutcome {
        let Some(session) = &mut self.tls else { return ReadOutcome::Ended };
        let room = session.room(buffer);
        if session.failure.is_some() || session.peer_is_done || room.is_empty() {
            return ReadOutcome::Ended;
        }
        let count = match receive(self.fd.as_raw_fd(), room) {
            ReadOutcome::Bytes(count) => count,
            ReadOutcome::Blocked => 0, // what was there before may not have been looked at yet
            ReadOutcome::Ended => return ReadOutcome::Ended,
        };
        let outcome = match session.receive(buffer, count) {
            Ok(0) if session.peer_is_done => ReadOutcome::Ended,
            Ok(0) => ReadOutcome::Blocked,
            Ok(count) => ReadOutcome::Bytes(count),
            Err(_) => ReadOutcome::Ended,
        };
        let output = std::mem::take(&mut session.output);
        match self.send_sealed(&output) {
            Ok(()) => outcome,
            Err(_) => ReadOutcome::Ended,
        }
    }

    /// The other side has said that nothing more comes, which a plain socket only says when it is read again.
    pub fn is_over(&self) -> bool {
        self.tls.as_ref().is_some_and(|session| session.peer_is_done)
    }

    /// What the connection itself has to say, behind what waits already.
    fn send_sealed(&mut self, bytes: &[u8]) -> io::Result<()> {
        let flush = self.outbox.is_empty();
        self.outbox.push(bytes);
        if flush {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what the socket takes now; the rest is queued behind what already waits.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(session) = &mut self.tls {
            let flush = self.outbox.is_empty();
            session.seal(bytes, self.outbox.end()).map_err(io::Error::other)?;
            self.outbox.forget_if_empty();
            if flush {
                self.flush()?;
            }
            return Ok(());
        }
        if !self.outbox.is_empty() {
            self.outbox.push(bytes);
            return Ok(());
        }
        let sent = send(self.fd.as_raw_fd(), bytes)?;
        self.outbox.push(&bytes[sent..]);
        Ok(())
    }

    /// Prepares a write of what comes behind all that is queued.
    pub fn begin_send(&self) -> Sending {
        let at_once = self.outbox.is_empty() && self.tls.is_none();
        Sending { fd: at_once.then(|| self.fd.as_raw_fd()), sent: Ok(0) }
    }

    /// Writes more of what waits; how many bytes that was.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn flush(&mut self) -> io::Result<usize> {
        let mut flushed = 0;
        while !self.outbox.is_empty() {
            let sent = send(self.fd.as_raw_fd(), self.outbox.front())?;
            if sent == 0 {
                break;
            }
            self.outbox.advance(sent);
            flushed += sent;
        }
        Ok(flushed)
    }

    /// Says inside the encryption that no more bytes will follow.
    pub fn say_goodbye(&mut self) {
        let Some(session) = &mut self.tls else { return };
        let mut goodbye = Vec::new();
        session.say_goodbye(&mut goodbye);
        // One who is gone will be found gone when the socket is read.
        let _ = self.send_sealed(&goodbye);
    }

    /// Says that no more bytes will follow (FIN), once everything is written.
    pub fn shut_down(&mut self) {
        if !self.shut {
            self.shut = true;
            // SAFETY: a plain call on an open descriptor; that the peer is gone already is no matter.
            unsafe { libc::shutdown(self.fd.as_raw_fd(), libc::SHUT_WR) };
        }
    }

    #[must_use]
    pub fn into_parts(self) -> (OwnedFd, Option<Box<Session>>) {
        (self.fd, self.tls)
    }
}

/// One of many writes that are carried out one behind the other, with nothing in between that could take time.
#[derive(Debug)]
pub struct Sending {
    /// Its socket's, unless bytes wait there already, or must be encrypted first.
    fd: Option<RawFd>,
    /// How many bytes the kernel took, or that the connection is gone.
    pub sent: io::Result<usize>,
}

impl Default for Sending {
    fn default() -> Self {
        Self { fd: None, sent: Ok(0) }
    }
}

impl Sending {
    pub fn carry_out(&mut self, bytes: &[u8]) {
        if let Some(fd) = self.fd {
            self.sent = send(fd, bytes);
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Bytes that the kernel did not take yet. Most sockets have none, and then it is as small as can be.
#[derive(Debug)]
pub struct Outbox(Option<Box<Waiting>>);

/// Never empty.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// Once this much of the front is sent, the rest moves up.
    const COMPACT_BYTES: usize = 256 << 10;

    #[must_use]
    pub fn len(&self) -> usize {
        self.front().len()
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn front(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |waiting| &waiting.bytes[waiting.sent..])
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.get_or_insert_default().bytes.extend_from_slice(bytes);
        }
    }

    /// Where more can be appended; [`Self::forget_if_empty`] comes after that.
    fn end(&mut self) -> &mut Vec<u8> {
        &mut self.0.get_or_insert_default().bytes
    }

    fn forget_if_empty(&mut self) {
        if self.front().is_empty() {
            self.0 = None;
        }
    }

    fn advance(&mut self, count: usize) {
        let Some(waiting) = &mut self.0 else { return };
        waiting.sent += count;
        if waiting.sent == waiting.bytes.len() {
            self.0 = None;
        } else if waiting.sent >= Self::COMPACT_BYTES && waiting.sent * 2 >= waiting.bytes.len() {
            waiting.bytes.drain(..waiting.sent);
            waiting.sent = 0;
        }
    }
}

fn receive(fd: RawFd, buffer: &mut [u8]) -> ReadOutcome {
    loop {
        // SAFETY: the kernel writes at most `len` bytes into the buffer.
        let count = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
        if count > 0 {
            return ReadOutcome::Bytes(count.cast_unsigned());
        }
        if count == 0 {
            return ReadOutcome::Ended;
        }
        match io::Error::last_os_error().kind() {
            io::ErrorKind::WouldBlock => return ReadOutcome::Blocked,
            io::ErrorKind::Interrupted => {}
            _ => return ReadOutcome::Ended,
        }
    }
}

/// How many bytes the kernel took; 0 if it takes none now.
fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    loop {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the kernel reads at most `len` bytes from the slice.
        let count = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) };
        if count >= 0 {
            return Ok(count.cast_unsigned());
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock => return Ok(0),
            io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn encryption_costs_a_plain_socket_a_pointer() {
        assert_eq!(size_of::<Option<Box<Session>>>(), size_of::<usize>());
    }

    #[test]
    fn what_the_kernel_does_not_take_waits_in_order() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let peer = "127.0.0.1".parse().unwrap();
        let mut socket = Socket::new(near.into(), peer, Stage::Closing { until: Duration::ZERO }, None);
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        for part in sent.chunks(100_000) {
            socket.write(part).unwrap();
        }
        assert!(!socket.outbox.is_empty());
        far.set_nonblocking(true).unwrap();
        let mut received = Vec::new();
        let mut buffer = [0; 65536];
        while received.len() < sent.len() {
            while let Ok(count @ 1..) = far.read(&mut buffer) {
                received.extend_from_slice(&buffer[..count]);
            }
            socket.flush().unwrap();
        }
        assert_eq!(received, sent);
        assert_eq!(socket.outbox.len(), 0);
        assert!(socket.outbox.is_empty(), "it holds no memory");
    }
}
