//! A socket of this shard: its wire and its channels, one per document.
//!
//! Not here: letting a channel in ([`super::admission`]), its tokens from then on ([`super::tokens`]), and the times a
//! socket must keep ([`super::deadlines`]).

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::Engine;
use super::event::{ConnectionId, Effect, Incoming, Mail, MailBody, Opening, ShardIndex};
use super::link::{Link, Target};
use super::slab::Key;
use crate::auth::{Grant, TokenError};
use crate::limits::Claim;
use crate::protocol::close::Refusal;
use crate::protocol::document::{AppId, DocumentName};
use crate::protocol::message::{self, Framing, HocuspocusFrame, Message, Wire};
use crate::protocol::websocket;
use crate::time::{Moment, Now};

/// A socket that finished its upgrade.
#[derive(Debug)]
pub struct Connection {
    pub(super) link: Key,
    pub(super) wire: Option<Wire>,
    pub(super) origin: Option<Box<str>>,
    /// What the upgrade's token allows.
    pub(super) grant: Option<Arc<Grant>>,
    pub(super) channels: SmallVec<[Channel; 1]>,
    /// Apps in which this socket holds one of `maxConnections`; `None` while the answer is out.
    pub(super) apps: SmallVec<[AppClaim; 1]>,
    next_channel: u32,
    pub(super) opened_at: Moment,
    pub(super) received_at: Moment,
    pub(super) sent_at: Moment,
    pub(super) pinged_at: Moment,
    /// When it last was refused a document or left one: the beginning of a time without any.
    pub(super) idle_since: Option<Moment>,
    pub(super) drain_at: Option<Moment>,
    /// A y-websocket client that wants to hear which of its updates are stored.
    pub(super) acknowledges: bool,
    /// What it sent while nobody with a valid token was behind it.
    unauthenticated_bytes: usize,
    /// When it is looked at next: of the timers set for it, only the one of this time counts.
    pub(super) check_at: Moment,
}

/// This socket's place in one app's `maxConnections`.
#[derive(Debug)]
pub struct AppClaim {
    grant: Arc<Grant>,
    pub(super) granted: bool,
}

impl AppClaim {
    pub(super) const fn asked(grant: Arc<Grant>) -> Self {
        Self { grant, granted: false }
    }

    pub(super) fn app(&self) -> AppId {
        self.grant.app
    }
}

/// One document of a connection.
#[derive(Debug)]
pub struct Channel {
    pub(super) id: u32,
    /// The Hocuspocus routing key; empty for y-websocket.
    pub(super) key: Box<str>,
    pub(super) grant: Option<Arc<Grant>>,
    pub(super) state: ChannelState,
    /// Messages that came before the channel was open.
    pub(super) held: Vec<Box<[u8]>>,
    pub(super) created_at: Moment,
    pub(super) renewal_asked: bool,
}

#[derive(Debug)]
pub enum ChannelState {
    /// The token's key is being fetched.
    AwaitingKeys,
    /// The claim is with the ledger (`asked`), or waits for another channel's connection claim.
    AwaitingClaim { name: DocumentName, authenticate: bool, asked: bool },
    /// Open, in a room of this shard.
    Local { session: Key, document: u64 },
    /// Open, in a room of another shard.
    Remote { shard: ShardIndex, document: u64 },
    /// Refused; the client may try again with another token.
    Denied,
}

impl Channel {
    pub(super) fn new(
        id: u32,
        key: &str,
        grant: Option<Arc<Grant>>,
        state: ChannelState,
        created_at: Duration,
    ) -> Self {
        let created_at = created_at.into();
        Self { id, key: key.into(), grant, state, held: Vec::new(), created_at, renewal_asked: false }
    }

    pub(super) const fn is_waiting(&self) -> bool {
        matches!(self.state, ChannelState::AwaitingKeys | ChannelState::AwaitingClaim { .. })
    }

    pub(super) const fn is_denied(&self) -> bool {
        matches!(self.state, ChannelState::Denied)
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, ChannelState::Local { .. } | ChannelState::Remote { .. })
    }

    /// What this channel holds of its app's `maxDocuments`.
    fn document_claim(&self) -> Option<Claim> {
        let (ChannelState::Local { document, .. } | ChannelState::Remote { document, .. }) = self.state
        else {
            return None;
        };
        let app = self.grant.as_ref()?.app;
        Some(Claim { app, connection: false, document: Some(document) })
    }
}

impl Connection {
    pub(super) fn channel(&self, id: u32) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.id == id)
    }

    pub(super) fn channel_mut(&mut self, id: u32) -> Option<&mut Channel> {
        self.channels.iter_mut().find(|channel| channel.id == id)
    }

    pub(super) const fn next_channel_id(&mut self) -> u32 {
        self.next_channel += 1;
        self.next_channel
    }

    /// It never asked for a document.
    pub(super) fn awaits_authentication(&self) -> bool {
        self.channels.is_empty() && self.idle_since.is_none()
    }

    /// Somebody with a valid token is behind this socket.
    pub(super) fn is_authenticated(&self) -> bool {
        self.grant.is_some() || self.channels.iter().any(|channel| channel.grant.is_some())
    }
}

impl Engine {
    /// The largest message this connection may send now.
    #[must_use]
    pub fn message_bytes_max(&self, connection: ConnectionId) -> usize {
        match self.connections.get(connection) {
            Some(connection) if connection.is_authenticated() => self.settings.message_bytes_max,
            _ => self.settings.unauthenticated_bytes_max,
        }
    }

    pub(super) fn connection_opened(&mut self, now: Now, id: ConnectionId, opening: Opening) {
        self.counters.connections += 1;
        let link = self.links.insert(Link::new(Target::Socket(id)));
        let at = now.monotonic.into();
        let connection = Connection {
            link,
            wire: opening.document.is_some().then_some(Wire::YWebsocket),
            origin: opening.origin,
            grant: opening.grant,
            channels: SmallVec::new(),
            apps: SmallVec::new(),
            next_channel: 0,
            opened_at: at,
            received_at: at,
            sent_at: at,
            pinged_at: at,
            idle_since: None,
            drain_at: None,
            acknowledges: opening.acknowledges,
            unauthenticated_bytes: 0,
            check_at: Moment::MAX,
        };
        self.connections.insert(id, connection);
        self.check_connection(now, id);
        if self.draining {
            let refusal = self.draining_refusal();
            return self.close_connection(now, id, refusal);
        }
        // A key may be revoked while the socket is on its way here: the shard that checked its token no longer has it.
        if self.connections.get(id).and_then(|c| c.grant.as_ref()).is_some_and(|grant| self.is_revoked(grant))
        {
            return self.close_connection(now, id, TokenError::RevokedKey.into());
        }
        if let Some(name) = opening.document {
            if self.has_journal_failed() {
                let refusal = self.overloaded_refusal();
                return self.close_connection(now, id, refusal);
            }
            return self.open_path_document(now, id, name);
        }
        for message in opening.replay {
            self.connection_received(now, id, Incoming::Binary(&message));
        }
    }

    /// y-websocket: the URL names the document and the upgrade's token lets it in.
    fn open_path_document(&mut self, now: Now, id: ConnectionId, name: DocumentName) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(grant) = connection.grant.clone() else {
            return self.close_connection(now, id, Refusal::MissingToken);
        };
        if let Err(error) = grant.permissions.check(&name) {
            return self.close_connection(now, id, error.into());
        }
        let channel = connection.next_channel_id();
        let state = ChannelState::AwaitingClaim { name, authenticate: false, asked: false };
        connection.channels.push(Channel::new(channel, "", Some(grant), state, now.monotonic));
        self.claim_channel(now, id, channel);
    }

    pub(super) fn connection_received(&mut self, now: Now, id: ConnectionId, message: Incoming<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.received_at = now.monotonic.into();
        let link = connection.link;
        match message {
            Incoming::Binary(bytes) => {
                if let Err(refusal) = self.binary_received(now, id, bytes) {
                    self.close_connection(now, id, refusal);
                }
            }
            Incoming::Text => {
                let refusal =
                    Refusal::Unsupported("Text messages have no meaning here; send binary ones".into());
                self.close_connection(now, id, refusal);
            }
            Incoming::Ping(payload) => {
                if let Some(frames) = self.frames(link) {
                    websocket::write_pong(frames, payload);
                }
            }
            Incoming::Pong => {}
        }
    }

    fn binary_received(&mut self, now: Now, id: ConnectionId, bytes: &[u8]) -> Result<(), Refusal> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        if !connection.is_authenticated() {
            connection.unauthenticated_bytes += bytes.len();
            if connection.unauthenticated_bytes > self.settings.unauthenticated_bytes_max {
                return Err(Refusal::TooBig("Too much was sent without a valid token".into()));
            }
        }
        let wire = *connection.wire.get_or_insert_with(|| Wire::of_first_frame(bytes));
        match wire {
            Wire::YWebsocket => {
                let Some(channel) = connection.channels.first().map(|channel| channel.id) else {
                    return Err(Refusal::InvalidName("The URL names no document: use /<document>".into()));
                };
                self.channel_received(now, id, channel, bytes)
            }
            Wire::Hocuspocus => match HocuspocusFrame::parse(bytes)? {
                HocuspocusFrame::Pong => Ok(()),
                HocuspocusFrame::Ping => {
                    let link = connection.link;
                    if let Some(frames) = self.frames(link) {
                        message::write_pong(frames);
                    }
                    Ok(())
                }
                HocuspocusFrame::Document { key, body } => self.hocuspocus_received(now, id, key, body),
            },
        }
    }

    pub(super) fn hocuspocus_received(
        &mut self,
        now: Now,
        id: ConnectionId,
        key: &str,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let Some(connection) = self.connections.get(id) else { return Ok(()) };
        let found = connection.channels.iter().find(|channel| &*channel.key == key);
        match found {
            Some(channel) if !matches!(channel.state, ChannelState::Denied) => {
                let channel = channel.id;
                self.channel_received(now, id, channel, body)
            }
            _ => self.hocuspocus_opens(now, id, key, body),
        }
    }

    /// One message of one channel, whatever state the channel is in.
    pub(super) fn channel_received(
        &mut self,
        now: Now,
        id: ConnectionId,
        channel_id: u32,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let held_max = self.message_bytes_max(id);
        let Some(channel) = self.connections.get_mut(id).and_then(|c| c.channel_mut(channel_id)) else {
            return Ok(());
        };
        let (session, shard) = match channel.state {
            ChannelState::Local { session, .. } => (Some(session), self.shard),
            ChannelState::Remote { shard, .. } => (None, shard),
            ChannelState::AwaitingKeys | ChannelState::AwaitingClaim { .. } => {
                let held: usize = channel.held.iter().map(|body| body.len()).sum();
                if held + body.len() > held_max {
                    return Err(Refusal::TooBig("Too much was sent before the document was open".into()));
                }
                channel.held.push(body.into());
                return Ok(());
            }
            ChannelState::Denied => return Ok(()),
        };
        match Message::parse(body)? {
            Message::Token { token, .. } => self.renew_token(now, id, channel_id, token),
            Message::Leave => {
                self.leave_channel(now, id, channel_id);
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.channels.retain(|channel| channel.id != channel_id);
                    connection.idle_since = Some(now.monotonic.into());
                }
            }
            Message::BroadcastStateless => {
                return Err(Refusal::Protocol("Only servers send broadcast-stateless messages".into()));
            }
            Message::Stateless | Message::Unknown(_) => {}
            message => match session {
                Some(session) => self.session_received(now, session, message, body),
                None => {
                    let body = MailBody::Message { channel: channel_id, body: body.into() };
                    let mail = Mail { connection: id, body };
                    self.effects.push_back(Effect::Mail { to: shard, mail });
                }
            },
        }
        Ok(())
    }

    /// A document's shard ended a session: by the code, that ends the socket or one document of it.
    pub(super) fn channel_ended(&mut self, now: Now, id: ConnectionId, channel: u32, refusal: Refusal) {
        if refusal.code() < 4000 {
            self.close_connection(now, id, refusal);
        } else {
            self.deny_channel(now, id, channel, refusal);
        }
    }

    /// Refuses one document: in band on a Hocuspocus socket, which stays open; by closing a y-websocket one.
    pub(super) fn deny_channel(&mut self, now: Now, id: ConnectionId, channel_id: u32, refusal: Refusal) {
        let state =
            self.connections.get(id).and_then(|c| c.channel(channel_id)).map(|channel| &channel.state);
        if let Some(&ChannelState::Remote { shard, .. }) = state {
            // The denial must come behind what its shard has sent: that shard ends the session and says so.
            let body = MailBody::End { channel: channel_id, refusal };
            return self.effects.push_back(Effect::Mail { to: shard, mail: Mail { connection: id, body } });
        }
        self.leave_channel(now, id, channel_id);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.wire != Some(Wire::Hocuspocus) {
            return self.close_connection(now, id, refusal);
        }
        connection.idle_since = Some(now.monotonic.into());
        let link = connection.link;
        let Some(channel) = connection.channel_mut(channel_id) else { return };
        channel.state = ChannelState::Denied;
        channel.grant = None;
        channel.held = Vec::new();
        let key = channel.key.clone();
        let reason = format!("{} {}", refusal.code(), refusal.reason());
        if let Some(frames) = self.frames(link) {
            Framing::Hocuspocus { key: &key }.permission_denied(frames, &reason);
        }
        self.effects.push_back(Effect::Denied { connection: id, refusal });
    }

    /// Takes an open channel out of its room and gives its place in `maxDocuments` back.
    pub(super) fn leave_channel(&mut self, now: Now, id: ConnectionId, channel_id: u32) {
        let Some(channel) = self.connections.get_mut(id).and_then(|c| c.channel_mut(channel_id)) else {
            return;
        };
        let claim = channel.document_claim();
        match std::mem::replace(&mut channel.state, ChannelState::Denied) {
            ChannelState::Local { session, .. } => self.session_left(now, session),
            ChannelState::Remote { shard, .. } => {
                let mail = Mail { connection: id, body: MailBody::Leave { channel: channel_id } };
                self.effects.push_back(Effect::Mail { to: shard, mail });
            }
            _ => {}
        }
        if let Some(claim) = claim {
            self.effects.push_back(Effect::Release { claim });
        }
    }

    /// Ends a socket with a close frame.
    pub(super) fn close_connection(&mut self, now: Now, id: ConnectionId, refusal: Refusal) {
        if self.connections.get(id).is_some() {
            self.forget_connection(now, id);
            self.effects.push_back(Effect::Close { connection: id, refusal });
        }
    }

    /// A socket is gone or about to be: its sessions leave and all its claims are released.
    pub(super) fn forget_connection(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        let channels: SmallVec<[u32; 4]> = connection.channels.iter().map(|channel| channel.id).collect();
        for channel in channels {
            self.leave_channel(now, id, channel);
        }
        let Some(connection) = self.connections.remove(id) else { return };
        for app in connection.apps.iter().filter(|claim| claim.granted) {
            let claim = Claim { app: app.app(), connection: true, document: None };
            self.effects.push_back(Effect::Release { claim });
        }
        self.links.remove(connection.link);
    }

    pub(super) fn connection_stalled(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        let link = connection.link;
        self.mail_remote_channels(id, || MailBody::Stalled);
        self.link_stalled(now, link);
        self.schedule_check(now, id);
    }

    pub(super) fn connection_progressed(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        if let Some(link) = self.links.get_mut(connection.link) {
            // The time-out counts from here; the timer finds out when it fires.
            link.stalled_at = link.stalled_at.map(|_| now.monotonic.into());
        }
    }

    pub(super) fn connection_resumed(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        // It was the server that did not read while the client did not: its silence doesn't count.
        connection.received_at = now.monotonic.into();
        let link = connection.link;
        self.mail_remote_channels(id, || MailBody::Resumed);
        self.link_resumed(now, link);
    }

    /// Tells every shard on which this socket has a document.
    fn mail_remote_channels(&mut self, id: ConnectionId, body: impl Fn() -> MailBody) {
        let Some(connection) = self.connections.get(id) else { return };
        let mut shards: SmallVec<[ShardIndex; 4]> = SmallVec::new();
        for channel in &connection.channels {
            if let ChannelState::Remote { shard, .. } = channel.state
                && !shards.contains(&shard)
            {
                shards.push(shard);
            }
        }
        for to in shards {
            self.effects.push_back(Effect::Mail { to, mail: Mail { connection: id, body: body() } });
        }
    }

    pub(super) fn mail_received(&mut self, now: Now, from: ShardIndex, mail: Mail) {
        match mail.body {
            MailBody::Deliver { frames } => {
                let Some(connection) = self.connections.get(mail.connection) else { return };
                let link = connection.link;
                if let Some(queued) = self.frames(link) {
                    queued.extend_from_slice(&frames);
                }
            }
            MailBody::Ended { channel, refusal } => {
                let open = self.connections.get_mut(mail.connection).and_then(|c| c.channel_mut(channel));
                if let Some(open) = open
                    && let ChannelState::Remote { document, .. } = open.state
                {
                    // The other shard has forgotten it already: no need to say goodbye.
                    let app = open.grant.as_ref().map(|grant| grant.app);
                    open.state = ChannelState::Denied;
                    if let Some(app) = app {
                        let claim = Claim { app, connection: false, document: Some(document) };
                        self.effects.push_back(Effect::Release { claim });
                    }
                } else if refusal.code() >= 4000 {
                    return; // this document has ended here too, meanwhile
                }
                self.channel_ended(now, mail.connection, channel, refusal);
            }
            body => self.remote_request(now, from, mail.connection, body),
        }
    }
}
