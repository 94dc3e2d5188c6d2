//! From accept to the first byte of a request: who may come in through which listener, what a proxy says, and TLS.

use std::net::IpAddr;
use std::time::Duration;

use rustls::HandshakeKind;

use super::Shard;
use super::handshake::{Expects, Handshake, Port};
use super::places;
use super::poller::Interest;
use super::socket::{ReadOutcome, Socket, Stage};
use crate::engine::slab::Key;
use crate::limits::network::is_in;
use crate::protocol::proxy;
use crate::time::Now;
use crate::tls::Session;

/// Connections taken from the backlog in one turn, so that a storm does not starve who is in.
const ACCEPTS_PER_TURN: usize = 64;

/// Reads of TLS handshakes in one turn: with an RSA key each may take a millisecond, and who is in waits for them. The
/// rest is still there to be read in the next turn.
const TLS_READS_PER_TURN: usize = 16;

/// How long to leave the backlog alone when the process has no descriptor left.
const NO_DESCRIPTOR_PAUSE: Duration = Duration::from_millis(200);

/// The first byte of every TLS connection: a record of the handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// For whoever speaks plain HTTP where TLS is spoken.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 61\r\nConnection: close\r\n\r\n\
    This port speaks TLS: use https:// or wss:// instead of http\n";

impl Shard {
    pub(super) fn accept(&mut self, now: Now, number: usize) {
        for _ in 0..ACCEPTS_PER_TURN {
            if self.places.taken() >= self.settings.pending_handshakes_max {
                // The rest waits in the kernel's queue, where it costs nothing.
                return self.pause_listening(None);
            }
            let Some(listener) = self.listeners.get(number) else { return };
            let (stream, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                    tracing::warn!("cannot accept connections: no file descriptor left; raise LimitNOFILE");
                    return self.pause_listening(Some(now.monotonic + NO_DESCRIPTOR_PAUSE));
                }
                Err(error) => {
                    // The connection was gone before it was accepted; the next one may be fine.
                    tracing::debug!(%error, "a connection was gone before it was accepted");
                    continue;
                }
            };
            let port = if number == 0 && self.tls.is_some() { Port::Tls } else { Port::Plain };
            let proxied = self.settings.proxy_protocol.covers(number);
            if proxied && !is_in(peer.ip(), &self.settings.trusted_proxies) {
                tracing::info!(%peer, "connection closed: a PROXY header is expected, and its address is not in http.trusted_proxies");
                continue;
            }
            let holder = places::holder(&self.settings, peer.ip());
            if !self.places.take(holder, self.settings.pending_handshakes_max) {
                self.refuse_place(peer.ip());
                continue;
            }
            let expects = if proxied { Expects::Proxy { then: port } } else { Expects::First(port) };
            let until = now.monotonic + self.settings.handshake_timeout;
            let stage = Stage::Handshake(Box::new(Handshake::new(expects, holder)));
            match self.add_socket(Socket::new(stream.into(), peer.ip(), stage, None)) {
                Some(key) => {
                    self.deadlines.push(std::cmp::Reverse((until, key)));
                    // The request usually is there already: try before the next turn.
                    self.handshake_readable(now, key);
                }
                None => self.places.give_back(holder),
            }
        }
    }

    /// Too many handshakes of one client are going on: its connection is closed without a word, which costs least.
    fn refuse_place(&mut self, peer: IpAddr) {
        *self.metrics.closes_total.entry(429).or_default() += 1;
        tracing::debug!(%peer, "connection closed: too many handshakes of this address are going on");
    }

    fn pause_listening(&mut self, until: Option<Duration>) {
        self.accept_again_at = until;
        if self.listening {
            for listener in &self.listeners {
                if let Err(error) = self.poller.remove(listener) {
                    tracing::debug!(%error, "a listener was not watched");
                }
            }
            self.listening = false;
        }
    }

    /// Listens again when there is room.
    pub(super) fn resume_listening(&mut self, now: Now) {
        let room = self.places.taken() < self.settings.pending_handshakes_max;
        let wait = self.accept_again_at.is_some_and(|at| now.monotonic < at);
        if self.listening || !room || wait {
            return;
        }
        for (number, listener) in self.listeners.iter().enumerate() {
            if let Err(error) = self.poller.add_listener(listener, number) {
                tracing::warn!(%error, "cannot watch a listener; trying again");
                for listener in &self.listeners[..number] {
                    // It was added just now.
                    let _ = self.poller.remove(listener);
                }
                return;
            }
        }
        self.listening = true;
        self.accept_again_at = None;
    }

    pub(super) fn handshake_readable(&mut self, now: Now, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Stage::Handshake(handshake) = &socket.stage else { return };
        if matches!(handshake.expects, Expects::Tls | Expects::First(Port::Tls)) {
            if self.tls_reads == TLS_READS_PER_TURN {
                return;
            }
            self.tls_reads += 1;
        }
        let outcome = socket.read(&mut self.scratch);
        self.handshake_read(now, key, outcome);
    }

    /// What a read brought lies at the front of the scratch buffer.
    fn handshake_read(&mut self, now: Now, key: Key, outcome: ReadOutcome) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Stage::Handshake(handshake) = &mut socket.stage else { return };
        if handshake.expects == Expects::Tls && self.tls_advanced(now, key) {
            return;
        }
        let Some(Socket { stage: Stage::Handshake(handshake), .. }) = self.sockets.get_mut(key) else {
            return;
        };
        match outcome {
            ReadOutcome::Bytes(count) => {
                self.metrics.bytes_in_total += count as u64;
                handshake.bytes.extend_from_slice(&self.scratch[..count]);
                self.handshake_grew(now, key);
            }
            ReadOutcome::Blocked => {}
            ReadOutcome::Ended => self.drop_socket(key),
        }
    }

    /// More of a handshake's answer can be written.
    pub(super) fn handshake_writable(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        match socket.flush() {
            Ok(_) if socket.outbox.is_empty() => self.set_interest(key, Interest::READ),
            Ok(_) => {}
            Err(_) => self.drop_socket(key),
        }
    }

    /// What has come so far, looked at from where it was left off.
    fn handshake_grew(&mut self, now: Now, key: Key) {
        loop {
            let Some(Socket { stage: Stage::Handshake(handshake), peer, .. }) = self.sockets.get_mut(key)
            else {
                return;
            };
            handshake.expects = match (handshake.expects, handshake.bytes.first()) {
                (_, None) | (Expects::Tls, _) => return,
                (Expects::Request, _) => return self.parse_head(now, key),
                (Expects::Proxy { then }, _) => match proxy::parse(&handshake.bytes) {
                    Ok(None) => return,
                    Ok(Some(header)) => {
                        handshake.bytes.drain(..header.length);
                        *peer = header.client.map_or(*peer, |client| client.ip());
                        let (peer, holder) = (*peer, places::holder(&self.settings, *peer));
                        if !self.places.assign(holder, self.settings.pending_handshakes_max) {
                            self.refuse_place(peer);
                            return self.drop_socket(key);
                        }
                        handshake.holder = holder;
                        Expects::First(then)
                    }
                    Err(error) => {
                        tracing::info!(%peer, "connection closed: {error}");
                        return self.drop_socket(key);
                    }
                },
                (Expects::First(Port::Plain), Some(&TLS_HANDSHAKE)) => {
                    tracing::info!(%peer, "it speaks TLS, and this port plain HTTP: use ws:// or http:// here, or set [tls]");
                    Expects::Request // and that it is none
                }
                (Expects::First(Port::Plain), _) => Expects::Request,
                (Expects::First(Port::Tls), Some(&TLS_HANDSHAKE)) => return self.begin_tls(now, key),
                (Expects::First(Port::Tls), Some(byte)) => {
                    tracing::info!(%peer, "connection closed: it does not speak TLS, which this port is for");
                    if byte.is_ascii_uppercase() {
                        return self.answer_and_close(now, key, SPEAK_TLS);
                    }
                    return self.drop_socket(key);
                }
            };
        }
    }

    fn begin_tls(&mut self, now: Now, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let (Stage::Handshake(handshake), Some(config)) = (&mut socket.stage, &self.tls) else { return };
        let hello = std::mem::take(&mut handshake.bytes);
        handshake.expects = Expects::Tls;
        match Session::beginning_with(config.clone(), &hello) {
            Ok(session) => socket.tls = Some(Box::new(session)),
            Err(error) => {
                tracing::error!(%error, "a TLS session could not begin");
                return self.drop_socket(key);
            }
        }
        let outcome = socket.read(&mut self.scratch);
        self.handshake_read(now, key, outcome);
    }

    /// After a read: whether TLS's handshake failed, or is done, or wants more written. True if the connection is over.
    fn tls_advanced(&mut self, now: Now, key: Key) -> bool {
        let Some(socket) = self.sockets.get_mut(key) else { return true };
        let (Stage::Handshake(handshake), Some(session)) = (&mut socket.stage, &socket.tls) else {
            return true;
        };
        if let Some(error) = &session.failure {
            tracing::info!(peer = %socket.peer, "TLS handshake failed: {error}");
            self.metrics.tls_failures_total += 1;
            // The alert that says why is on its way.
            self.begin_closing(now, key);
            return true;
        }
        if let Some(kind) = session.handshake() {
            handshake.expects = Expects::Request;
            self.metrics.tls_handshakes_total += 1;
            if kind == HandshakeKind::Resumed {
                self.metrics.tls_resumed_total += 1;
            }
        }
        let write = !socket.outbox.is_empty();
        self.set_interest(key, Interest { read: true, write });
        false
    }
}

#[cfg(test)]
mod tests {
    use super::SPEAK_TLS;

    #[test]
    fn the_answer_says_its_own_length() {
        let text = std::str::from_utf8(SPEAK_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
