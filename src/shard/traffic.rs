//! An open connection's bytes: reading into the engine, writing a turn out, full queues, and the end.

use std::io;
use std::time::Duration;

use super::Shard;
use super::poller::Interest;
use super::socket::{ReadOutcome, Sending, Socket, Stage};
use crate::engine::event::{Event, Incoming};
use crate::engine::slab::Key;
use crate::protocol::close::Refusal;
use crate::protocol::websocket::{self, FrameLimits, Message};
use crate::time::Now;

/// How long the other side may take to read our last bytes and close.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(3);

impl Shard {
    pub(super) fn socket_ready(&mut self, now: Now, key: Key, readable: bool, writable: bool, hung_up: bool) {
        let Some(socket) = self.sockets.get(key) else { return };
        match socket.stage {
            Stage::Handshake(_) if socket.interest.read => {
                if writable {
                    self.handshake_writable(key);
                }
                if readable || hung_up {
                    self.handshake_readable(now, key);
                }
            }
            // It waits for the control shard and cannot be read meanwhile; its going away is all there is to hear.
            Stage::Handshake(_) => self.drop_socket(key),
            Stage::Open(_) => {
                if writable {
                    self.open_writable(now, key);
                }
                if readable || hung_up {
                    self.open_readable(now, key, hung_up);
                }
            }
            Stage::Closing { .. } => self.closing_ready(key),
        }
    }

    /// Reads once: whatever else there is comes in the next turn, after everybody else had theirs.
    fn open_readable(&mut self, now: Now, key: Key, hung_up: bool) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.stalled && !hung_up {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let outcome = socket.read(&mut scratch);
        let is_over = socket.is_over();
        if socket.tls.is_some() && !socket.outbox.is_empty() {
            let interest = Interest { read: !socket.stalled, write: true };
            self.set_interest(key, interest);
        }
        match outcome {
            ReadOutcome::Bytes(count) => {
                self.metrics.bytes_in_total += count as u64;
                self.feed(now, key, &mut scratch[..count]);
                if is_over {
                    self.dead.push(key);
                }
            }
            ReadOutcome::Blocked => {}
            ReadOutcome::Ended => self.dead.push(key),
        }
        self.scratch = scratch;
    }

    /// Gives bytes to a connection's frame reader, and its messages to the engine.
    pub(super) fn feed(&mut self, now: Now, key: Key, mut bytes: &mut [u8]) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Stage::Open(reader) = &mut socket.stage else { return };
        let mut reader = std::mem::take(reader);
        loop {
            let limits = FrameLimits {
                message_bytes_max: self.engine.message_bytes_max(key),
                fragments_max: u32::try_from(self.settings.fragments_max).unwrap_or(u32::MAX),
            };
            let message = match reader.next(&mut bytes, &limits) {
                Ok(None) => break,
                Ok(Some(Message::Binary(payload))) => Incoming::Binary(payload),
                Ok(Some(Message::Text(_))) => Incoming::Text,
                Ok(Some(Message::Ping(payload))) => Incoming::Ping(payload),
                Ok(Some(Message::Pong(_))) => Incoming::Pong,
                Ok(Some(Message::Close { code, .. })) => {
                    self.engine.handle_event(now, Event::Closed { connection: key });
                    return self.answer_close(now, key, code);
                }
                Err(error) => {
                    self.engine.handle_event(now, Event::Closed { connection: key });
                    return self.close(now, key, &error.into());
                }
            };
            self.engine.handle_event(now, Event::Received { connection: key, message });
            if !self.engine.knows(key) {
                // It was closed, or is about to move: the rest is for the shard it moves to.
                self.unread = Some((key, reader.into_unread(bytes)));
                self.carry_out_effects(now);
                self.unread = None;
                return;
            }
        }
        if let Some(socket) = self.sockets.get_mut(key)
            && let Stage::Open(place) = &mut socket.stage
        {
            *place = reader;
        }
    }

    /// Writes the turn: one write per connection that has something queued, one directly behind the other.
    pub(super) fn transmit(&mut self, now: Now) {
        let mut batch = std::mem::take(&mut self.batch);
        let mut sends = std::mem::take(&mut self.sends);
        while self.engine.poll_transmit(now, &mut batch) {
            let open = |socket: &&Socket| matches!(socket.stage, Stage::Open(_));
            let sockets = batch.iter().map(|(key, _)| self.sockets.get(key).filter(open));
            sends.extend(sockets.map(|socket| socket.map_or_else(Sending::default, Socket::begin_send)));
            for (send, (_, bytes)) in sends.iter_mut().zip(batch.iter()) {
                send.carry_out(bytes);
            }
            for (send, (key, bytes)) in sends.drain(..).zip(batch.iter()) {
                self.wrote(key, bytes, send.sent);
            }
            batch.clear();
        }
        (self.batch, self.sends) = (batch, sends);
    }

    /// What a write came to.
    fn wrote(&mut self, key: Key, bytes: &[u8], sent: io::Result<usize>) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if !matches!(socket.stage, Stage::Open(_)) {
            return;
        }
        let waited = !socket.outbox.is_empty();
        let queued = match sent {
            Ok(_) if socket.tls.is_some() => socket.write(bytes),
            Ok(sent) => {
                socket.outbox.push(&bytes[sent..]);
                Ok(())
            }
            Err(error) => Err(error),
        };
        if queued.is_err() {
            self.dead.push(key);
            return;
        }
        self.metrics.writes_total += 1;
        self.metrics.bytes_out_total += bytes.len() as u64;
        self.metrics.write_bytes.saturating_record(bytes.len() as u64);
        let waiting = socket.outbox.len();
        if waiting == 0 {
            return;
        }
        self.metrics.outbox_bytes_high_water = self.metrics.outbox_bytes_high_water.max(waiting as u64);
        if waiting > self.settings.outbox_bytes_max && !socket.stalled {
            socket.stalled = true;
            self.full.push(key);
        } else if !waited {
            let interest = Interest { read: !socket.stalled, write: true };
            self.set_interest(key, interest);
        }
    }

    fn open_writable(&mut self, now: Now, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Ok(flushed) = socket.flush() else {
            self.dead.push(key);
            return;
        };
        if !socket.outbox.is_empty() {
            if socket.stalled && flushed > 0 {
                self.engine.handle_event(now, Event::Progressed { connection: key });
            }
            return;
        }
        let stalled = std::mem::take(&mut socket.stalled);
        self.set_interest(key, Interest::READ);
        if stalled {
            self.engine.handle_event(now, Event::Resumed { connection: key });
        }
    }

    /// Between turns: who is gone, and whose queue is full. A client that takes nothing is not read either, so that
    /// its answers cannot pile up.
    pub(super) fn tell_engine(&mut self, now: Now) {
        for key in std::mem::take(&mut self.dead) {
            if matches!(self.sockets.get(key).map(|socket| &socket.stage), Some(Stage::Open(_))) {
                self.engine.handle_event(now, Event::Closed { connection: key });
            }
            self.drop_socket(key);
        }
        for key in std::mem::take(&mut self.full) {
            self.set_interest(key, Interest { read: false, write: true });
            self.engine.handle_event(now, Event::Stalled { connection: key });
        }
    }

    pub(super) fn set_interest(&mut self, key: Key, interest: Interest) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.interest == interest {
            return;
        }
        socket.interest = interest;
        if let Err(error) = self.poller.change(&*socket, key, interest) {
            tracing::warn!(%error, "cannot watch a connection");
            self.dead.push(key);
        }
    }

    /// The client said goodbye: so do we (RFC 6455 section 5.5.1).
    fn answer_close(&mut self, now: Now, key: Key, code: Option<u16>) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let mut frame = Vec::new();
        match code {
            Some(code) => websocket::write_close(&mut frame, code, ""),
            None => websocket::write_empty_close(&mut frame),
        }
        match socket.write(&frame) {
            Ok(()) => self.begin_closing(now, key),
            Err(_) => self.drop_socket(key),
        }
    }

    /// Ends a WebSocket with a close frame.
    pub(super) fn close(&mut self, now: Now, key: Key, refusal: &Refusal) {
        self.count_refusal(key, refusal, "connection closed");
        let code = self.close_code(refusal);
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let mut frame = Vec::new();
        websocket::write_close(&mut frame, code, &refusal.reason());
        match socket.write(&frame) {
            Ok(()) => self.begin_closing(now, key),
            Err(_) => self.drop_socket(key),
        }
    }

    /// Lets the last bytes out, and waits for the other side to close too: closing a socket that still has unread
    /// bytes sends a reset, which may overtake what we said last.
    pub(super) fn begin_closing(&mut self, now: Now, key: Key) {
        let until = now.monotonic + CLOSING_TIMEOUT;
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if let Stage::Handshake(handshake) = &socket.stage {
            self.places.give_back(handshake.holder);
        }
        socket.stage = Stage::Closing { until };
        socket.stalled = false;
        self.deadlines.push(std::cmp::Reverse((until, key)));
        socket.say_goodbye();
        let write = !socket.outbox.is_empty();
        if !write {
            socket.shut_down();
        }
        self.set_interest(key, Interest { read: true, write });
    }

    fn closing_ready(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.flush().is_err() {
            return self.drop_socket(key);
        }
        if socket.outbox.is_empty() {
            socket.shut_down();
        }
        let written = socket.outbox.is_empty();
        match socket.discard(&mut self.scratch) {
            ReadOutcome::Ended => self.drop_socket(key),
            ReadOutcome::Bytes(_) | ReadOutcome::Blocked => {
                self.set_interest(key, Interest { read: true, write: !written });
            }
        }
    }

    pub(super) fn drop_socket(&mut self, key: Key) {
        if let Some(socket) = self.take_socket(key)
            && let Stage::Handshake(handshake) = &socket.stage
        {
            self.places.give_back(handshake.holder);
        }
    }

    /// Handshakes that took too long, and closes that nobody answered.
    pub(super) fn check_deadlines(&mut self, now: Now) {
        while let Some(std::cmp::Reverse((at, _))) = self.deadlines.peek()
            && *at <= now.monotonic
        {
            let Some(std::cmp::Reverse((_, key))) = self.deadlines.pop() else { break };
            match self.sockets.get(key).map(|socket| &socket.stage) {
                Some(Stage::Handshake(_)) => {
                    *self.metrics.closes_total.entry(408).or_default() += 1;
                    self.drop_socket(key);
                }
                Some(Stage::Closing { until }) if *until <= now.monotonic => self.drop_socket(key),
                _ => {}
            }
        }
        self.resume_listening(now);
    }
}
