//! From the first byte of a request to an open WebSocket: the request head, the IP bucket, the token, the Origin, the hand-over.
//!
//! A step that needs the control shard's word leaves the handshake waiting, unread, until the answer comes; the
//! handshake's deadline holds meanwhile.

use super::Shard;
use super::mailbox::{HandOver, Letter};
use super::poller::Interest;
use super::socket::{Socket, Stage};
use crate::auth::{TokenError, origin};
use crate::config::Rejection;
use crate::control::messages::ToControl;
use crate::engine::event::{Event, Opening};
use crate::engine::slab::Key;
use crate::limits::client_address;
use crate::protocol::close::Refusal;
use crate::protocol::document::DocumentId;
use crate::protocol::request::{self, HeadLimits, RefusalBody, Route, Status, Upgrade};
use crate::protocol::websocket::{self, Reader};
use crate::time::Now;

impl Shard {
    pub(super) fn add_socket(&mut self, socket: Socket) -> Option<Key> {
        let key = self.sockets.insert(socket);
        let socket = self.sockets.get(key)?;
        if let Err(error) = self.poller.add(socket, key, Interest::READ) {
            tracing::warn!(%error, "cannot watch a new connection");
            self.sockets.remove(key);
            return None;
        }
        Some(key)
    }

    pub(super) fn parse_head(&mut self, now: Now, key: Key) {
        let limits =
            HeadLimits { head_bytes_max: self.settings.request_head_bytes_max, ..self.head_limits() };
        let Some(Socket { stage: Stage::Handshake(handshake), .. }) = self.sockets.get_mut(key) else {
            return;
        };
        match request::parse(&handshake.bytes, &limits) {
            Ok(Status::Incomplete) => {}
            Ok(Status::Complete(head)) if head.upgrade.is_none() => self.hand_to_control(key),
            Ok(Status::Complete(head)) => {
                handshake.bytes.drain(..head.head_len);
                handshake.head = Some(Box::new(head));
                self.believe_proxies(key);
                self.admit(now, key);
            }
            Err(error) => {
                let mut response = Vec::new();
                error.write_response(&mut response);
                let Some(socket) = self.sockets.get(key) else { return };
                tracing::info!(peer = %socket.peer, %error, "request refused");
                self.answer_and_close(now, key, &response);
            }
        }
    }

    /// A target may take the whole head: tokens travel in it.
    fn head_limits(&self) -> HeadLimits {
        HeadLimits { target_bytes_max: self.settings.request_head_bytes_max, ..HeadLimits::default() }
    }

    /// A request that is not an upgrade is the control shard's.
    fn hand_to_control(&mut self, key: Key) {
        let Some(mut socket) = self.take_socket(key) else { return };
        self.metrics.http_requests_total += 1;
        let peer = socket.peer;
        let read = match &mut socket.stage {
            Stage::Handshake(handshake) => {
                self.places.give_back(handshake.holder);
                std::mem::take(&mut handshake.bytes)
            }
            _ => Vec::new(),
        };
        let (socket, tls) = socket.into_parts();
        self.to_control.push(ToControl::Http { socket, tls, read, peer });
    }

    /// From here on the peer is who the request came from, as far as trusted proxies say so: that address has a bucket, and
    /// is in the log.
    fn believe_proxies(&mut self, key: Key) {
        let Some(Socket { stage: Stage::Handshake(handshake), peer, .. }) = self.sockets.get_mut(key) else {
            return;
        };
        let forwarded_for = handshake.head.as_ref().and_then(|head| head.forwarded_for.as_deref());
        let values = forwarded_for.map(str::as_bytes).into_iter();
        *peer = client_address(*peer, values, &self.settings.trusted_proxies);
    }

    /// First question: may this node, and this address, take one more?
    fn admit(&mut self, now: Now, key: Key) {
        if self.draining {
            let refusal = Refusal::Draining { retry_after_s: self.retry_after_s() };
            return self.refuse(now, key, &refusal);
        }
        if self.shedding {
            let refusal = Refusal::Overloaded { retry_after_s: self.retry_after_s() };
            return self.refuse(now, key, &refusal);
        }
        if !self.settings.upgrades_limited {
            return self.authenticate(now, key, true);
        }
        let Some(ip) = self.sockets.get(key).map(|socket| socket.peer) else { return };
        let ticket = self.engine.next_ticket();
        self.wait_for(key, ticket);
        self.to_control.push(ToControl::Admit { shard: self.index, ticket, ip });
    }

    fn retry_after_s(&mut self) -> u32 {
        let base = u32::try_from(self.settings.retry_after.as_secs()).unwrap_or(u32::MAX).max(1);
        base + self.engine.jitter(u64::from(base)) as u32
    }

    /// Leaves a socket unread until the control shard has answered.
    fn wait_for(&mut self, key: Key, ticket: u64) {
        self.awaiting.insert(ticket, key);
        self.set_interest(key, Interest { read: false, write: false });
    }

    pub(super) fn admitted(&mut self, now: Now, key: Key, allowed: bool) {
        self.set_interest(key, Interest::READ);
        if allowed {
            return self.authenticate(now, key, true);
        }
        let mut response = Vec::new();
        let message = "Too many connections from this address: try again in a minute";
        let body = RefusalBody { code: 429, error: "rate_limited", message };
        request::refusal_response(&mut response, 429, &[("Retry-After", "60")], &body);
        if let Some(socket) = self.sockets.get(key) {
            tracing::info!(peer = %socket.peer, status = 429, "handshake refused: too many from this address");
        }
        *self.metrics.closes_total.entry(429).or_default() += 1;
        self.answer_and_close(now, key, &response);
    }

    pub(super) fn keys_refreshed(&mut self, now: Now, key: Key) {
        self.set_interest(key, Interest::READ);
        self.authenticate(now, key, false);
    }

    /// Second question: whose token is it? `may_refresh`: an unknown key is worth one look at the key source.
    fn authenticate(&mut self, now: Now, key: Key, may_refresh: bool) {
        let Some(upgrade) = self.upgrade(key).cloned() else { return };
        let grant = match &upgrade.token {
            None => match &upgrade.route {
                // A Hocuspocus client may bring its token in its first message.
                Route::Root => None,
                Route::Document(_) | Route::InvalidName(_) => {
                    return self.refuse(now, key, &Refusal::MissingToken);
                }
            },
            Some(token) => match self.engine.verify(now, &token.value) {
                Ok(grant) => Some(grant),
                Err(TokenError::UnknownKey { tenant, key_id }) if may_refresh => {
                    let ticket = self.engine.next_ticket();
                    self.wait_for(key, ticket);
                    let shard = self.index;
                    self.to_control.push(ToControl::RefreshKeys { shard, ticket, tenant, key_id });
                    return;
                }
                Err(error) => return self.refuse(now, key, &error.into()),
            },
        };
        if let Some(grant) = &grant {
            let origin = upgrade.origin.as_deref();
            if let Err(error) =
                origin::check(&grant.allowed_domains, origin, self.settings.engine.require_origin)
            {
                return self.refuse(now, key, &error.into());
            }
        }
        let document = match upgrade.route {
            Route::InvalidName(error) => {
                return self.refuse(now, key, &Refusal::InvalidName(error.to_string().into()));
            }
            Route::Document(ref name) => {
                let allowed = grant.as_ref().map_or(Ok(()), |grant| grant.permissions.check(name));
                if let Err(error) = allowed {
                    return self.refuse(now, key, &error.into());
                }
                Some(name.clone())
            }
            Route::Root => None,
        };
        let opening = Opening {
            document,
            grant,
            origin: upgrade.origin.clone(),
            acknowledges: upgrade.acknowledges,
            replay: Vec::new(),
        };
        self.upgrade_socket(now, key, &upgrade, opening);
    }

    fn upgrade(&self, key: Key) -> Option<&Upgrade> {
        match &self.sockets.get(key)?.stage {
            Stage::Handshake(handshake) => handshake.upgrade(),
            _ => None,
        }
    }

    /// Answers 101, then opens the connection here or hands it to the shard of its document.
    fn upgrade_socket(&mut self, now: Now, key: Key, upgrade: &Upgrade, opening: Opening) {
        let mut response = Vec::with_capacity(256);
        request::accept_response(&mut response, &upgrade.key, upgrade.protocol);
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.write(&response).is_err() || !socket.outbox.is_empty() {
            return self.drop_socket(key);
        }
        self.metrics.bytes_out_total += response.len() as u64;
        let owner = match (&opening.grant, &opening.document) {
            (Some(grant), Some(name)) => {
                DocumentId { app: grant.app, name: name.clone() }.shard(self.shards.len() as u16)
            }
            _ => self.index,
        };
        let stage = std::mem::replace(&mut socket.stage, Stage::Open(Reader::new()));
        let Stage::Handshake(handshake) = stage else { return };
        self.places.give_back(handshake.holder);
        let unread = handshake.bytes;
        if owner != self.index {
            return self.hand_over(key, owner, unread, opening);
        }
        self.open(now, key, opening, unread);
    }

    fn open(&mut self, now: Now, key: Key, opening: Opening, mut unread: Vec<u8>) {
        self.engine.handle_event(now, Event::Opened { connection: key, opening });
        if !unread.is_empty() {
            self.feed(now, key, &mut unread);
        }
        // It said goodbye in TLS together with its request: no more bytes will come that would say so again.
        if self.sockets.get(key).is_some_and(Socket::is_over) {
            self.dead.push(key);
        }
    }

    /// Sends a connection to the shard that owns its document.
    pub(super) fn hand_over(&mut self, key: Key, to: u16, unread: Vec<u8>, opening: Opening) {
        let Some(socket) = self.take_socket(key) else { return };
        self.metrics.handovers_out_total += 1;
        let peer = socket.peer;
        let (socket, tls) = socket.into_parts();
        let hand_over = HandOver { socket, tls, peer, unread, opening };
        self.post(to, Letter::HandOver(Box::new(hand_over)));
    }

    /// Takes in a connection that another shard accepted.
    pub(super) fn handed_over(&mut self, now: Now, hand_over: HandOver) {
        self.metrics.handovers_in_total += 1;
        let HandOver { socket, tls, peer, unread, opening } = hand_over;
        if let Some(key) = self.add_socket(Socket::new(socket, peer, Stage::Open(Reader::new()), tls)) {
            self.open(now, key, opening, unread);
        }
    }

    /// Refuses an upgrade: with a status where the client can read one, else by finishing the upgrade and closing.
    fn refuse(&mut self, now: Now, key: Key, refusal: &Refusal) {
        let Some(upgrade) = self.upgrade(key) else { return };
        let status_allowed = matches!(refusal.code(), 4001..=4003 | 1012 | 1013);
        let close = match self.settings.rejection {
            _ if !status_allowed => true,
            Rejection::Auto => upgrade.origin.is_some(),
            Rejection::Close => true,
            Rejection::Status => false,
        };
        let mut response = Vec::new();
        if close {
            request::accept_response(&mut response, &upgrade.key, upgrade.protocol);
            websocket::write_close(&mut response, self.close_code(refusal), &refusal.reason());
        } else {
            request::write_refusal(&mut response, refusal);
        }
        self.count_refusal(key, refusal, "handshake refused");
        self.answer_and_close(now, key, &response);
    }

    pub(super) fn close_code(&self, refusal: &Refusal) -> u16 {
        if self.settings.permanent_close_codes { refusal.permanent_code() } else { refusal.code() }
    }

    /// One line per refusal, never with a token.
    pub(super) fn count_refusal(&mut self, key: Key, refusal: &Refusal, what: &'static str) {
        *self.metrics.closes_total.entry(refusal.code()).or_default() += 1;
        let peer = self.sockets.get(key).map(|socket| socket.peer);
        tracing::info!(
            peer = peer.map(tracing::field::display),
            code = refusal.code(),
            reason = refusal.reason(),
            "{what}"
        );
    }

    pub(super) fn answer_and_close(&mut self, now: Now, key: Key, response: &[u8]) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.write(response).is_err() {
            return self.drop_socket(key);
        }
        self.metrics.bytes_out_total += response.len() as u64;
        self.begin_closing(now, key);
    }

    /// Takes a socket out of this shard altogether.
    pub(super) fn take_socket(&mut self, key: Key) -> Option<Socket> {
        let socket = self.sockets.remove(key)?;
        if let Err(error) = self.poller.remove(&socket) {
            tracing::debug!(%error, "a connection was not watched");
        }
        Some(socket)
    }
}
