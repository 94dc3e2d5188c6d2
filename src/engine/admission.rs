//! Letting a channel in: its token, its place in the app's limits, then its room, here or on another shard.
//!
//! Each step may wait for the control shard; what the client sends meanwhile is held on the channel.

use std::sync::Arc;
use std::time::Duration;

use super::connection::{AppClaim, Channel, ChannelState};
use super::event::{ConnectionId, Effect, Mail, MailBody, OpenSession, Opening, Terms, Ticket};
use super::{Engine, Question};
use crate::auth::origin;
use crate::auth::{Grant, Limits, TokenError};
use crate::limits::{Claim, Exceeded};
use crate::protocol::close::Refusal;
use crate::protocol::document::{DocumentId, DocumentName};
use crate::protocol::lib0;
use crate::protocol::message::{self, Framing, Message, Wire};
use crate::time::Now;

/// How long a question is remembered that may never be answered: a claim that is granted after all must be released.
const QUESTION_REMEMBERED: Duration = Duration::from_secs(300);

/// Fewer questions than this are not looked through for such ones.
const QUESTIONS_MIN: usize = 1024;

/// The longest routing key: a name, a NUL and a session id, with room to spare.
const KEY_BYTES_MAX: usize = 1024;

/// What a look at a token says.
pub(super) enum TokenCheck {
    Valid(Arc<Grant>),
    /// Its key may be newer than our set: ask once.
    UnknownKey {
        tenant: uuid::Uuid,
        key_id: String,
    },
    Refused(Refusal),
}

impl Engine {
    /// A Hocuspocus client speaks of a document that is not open on its socket.
    pub(super) fn hocuspocus_opens(
        &mut self,
        now: Now,
        id: ConnectionId,
        key: &str,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let message = Message::parse(body)?;
        let documents_max = self.settings.documents_per_connection_max;
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let denied = connection.channels.iter().position(|channel| &*channel.key == key);
        let token = match message {
            Message::Token { token, .. } => Some(token),
            // Provider 2 sends no Auth when it has no token; its first word is then step 1.
            Message::StepOne(_) if denied.is_none() => None,
            // A client doesn't fall silent at once when it is denied or has left; what it still says changes nothing.
            _ => return Ok(()),
        };
        if let Some(at) = denied {
            connection.channels.remove(at);
        }
        if key.len() > KEY_BYTES_MAX {
            let refusal = Refusal::InvalidName("The document's routing key is too long".into());
            return self.refuse_unkept(now, id, key, refusal);
        }
        if connection.channels.len() >= documents_max {
            // Documents that were denied are kept only as long as there is room.
            let Some(at) = connection.channels.iter().position(Channel::is_denied) else {
                let why = format!("One connection carries at most {documents_max} documents");
                return self.refuse_unkept(now, id, key, Refusal::Forbidden(why.into()));
            };
            connection.channels.remove(at);
        }
        let channel_id = connection.next_channel_id();
        let grant = connection.grant.clone();
        connection.channels.push(Channel::new(channel_id, key, None, ChannelState::Denied, now.monotonic));
        if let Err(error) = DocumentName::parse(message::name_of_key(key)) {
            self.deny_channel(now, id, channel_id, Refusal::InvalidName(error.to_string().into()));
            return Ok(());
        }
        if self.has_journal_failed() {
            // In band: who is in other documents on this socket stays there.
            let refusal = self.overloaded_refusal();
            self.deny_channel(now, id, channel_id, refusal);
            return Ok(());
        }
        match (token, grant) {
            (Some(token), _) if !token.is_empty() => self.authenticate(now, id, channel_id, token),
            // The upgrade was let in with it, which may be long ago.
            (_, Some(grant))
                if self.settings.close_on_token_expiry && self.settings.token_left_s(&grant, now) == 0 =>
            {
                self.deny_channel(now, id, channel_id, Refusal::InvalidToken("Token expired".into()));
            }
            (token, Some(grant)) => {
                // The upgrade's token counts for a client that sends none of its own (provider 2) or an empty one.
                let first = token.is_none().then_some(body);
                self.admit_channel(now, id, channel_id, grant, token, first);
            }
            (_, None) => self.deny_channel(now, id, channel_id, Refusal::MissingToken),
        }
        Ok(())
    }

    /// Refuses a document in band and keeps nothing of it.
    fn refuse_unkept(
        &mut self,
        now: Now,
        id: ConnectionId,
        key: &str,
        refusal: Refusal,
    ) -> Result<(), Refusal> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        connection.idle_since = Some(now.monotonic.into());
        let link = connection.link;
        let reason = format!("{} {}", refusal.code(), refusal.reason());
        if let Some(frames) = self.frames(link) {
            Framing::Hocuspocus { key }.permission_denied(frames, &reason);
        }
        self.effects.push_back(Effect::Denied { connection: id, refusal });
        Ok(())
    }

    /// Checks a token and the Origin rule that comes with it.
    pub(super) fn check_token(&mut self, now: Now, id: ConnectionId, token: &str) -> TokenCheck {
        let grant = match self.verifier.verify(now.unix_s, token) {
            Ok(grant) => grant,
            Err(TokenError::UnknownKey { tenant, key_id }) => {
                return TokenCheck::UnknownKey { tenant, key_id };
            }
            Err(error) => return TokenCheck::Refused(error.into()),
        };
        let origin = self.connections.get(id).and_then(|connection| connection.origin.as_deref());
        match origin::check(&grant.allowed_domains, origin, self.settings.require_origin) {
            Ok(()) => TokenCheck::Valid(grant),
            Err(error) => TokenCheck::Refused(error.into()),
        }
    }

    fn authenticate(&mut self, now: Now, id: ConnectionId, channel_id: u32, token: &str) {
        match self.check_token(now, id, token) {
            TokenCheck::Valid(grant) => self.admit_channel(now, id, channel_id, grant, Some(token), None),
            TokenCheck::Refused(refusal) => self.deny_channel(now, id, channel_id, refusal),
            TokenCheck::UnknownKey { tenant, key_id } => {
                if let Some(channel) = self.connections.get_mut(id).and_then(|c| c.channel_mut(channel_id)) {
                    channel.state = ChannelState::AwaitingKeys;
                }
                self.ask_for_keys(now, id, channel_id, token, tenant, key_id);
            }
        }
    }

    pub(super) fn ask_for_keys(
        &mut self,
        now: Now,
        id: ConnectionId,
        channel: u32,
        token: &str,
        tenant: uuid::Uuid,
        key_id: String,
    ) {
        let asked_at = now.monotonic;
        let question = Question::Keys { connection: id, channel, token: token.into(), asked_at };
        let ticket = self.ask(now, question);
        self.effects.push_back(Effect::RefreshKeys { ticket, tenant, key_id });
    }

    /// Notes a question to the control shard.
    fn ask(&mut self, now: Now, question: Question) -> Ticket {
        if self.questions.len() >= self.questions_max {
            let is_fresh = |question: &Question| {
                let (Question::Claim { asked_at, .. } | Question::Keys { asked_at, .. }) = question;
                now.monotonic < *asked_at + QUESTION_REMEMBERED
            };
            self.questions.retain(|_, question| is_fresh(question));
            self.questions_max = (self.questions.len() * 2).max(QUESTIONS_MIN);
        }
        let ticket = self.next_ticket();
        self.questions.insert(ticket, question);
        ticket
    }

    /// The key set is as new as it gets: what is still unknown now is refused.
    pub(super) fn keys_refreshed(&mut self, now: Now, ticket: Ticket) {
        let Some(Question::Keys { connection: id, channel: channel_id, token, .. }) =
            self.questions.remove(&ticket)
        else {
            return;
        };
        let check = self.check_token(now, id, &token);
        let Some(channel) = self.connections.get_mut(id).and_then(|c| c.channel_mut(channel_id)) else {
            return;
        };
        let awaiting = matches!(channel.state, ChannelState::AwaitingKeys);
        if channel.is_denied() {
            return; // a newer token for a document that ended meanwhile
        }
        match check {
            TokenCheck::Valid(grant) if awaiting => {
                self.admit_channel(now, id, channel_id, grant, Some(&token), None);
            }
            TokenCheck::Valid(grant) => self.token_renewed(now, id, channel_id, grant),
            TokenCheck::Refused(refusal) => self.deny_channel(now, id, channel_id, refusal),
            TokenCheck::UnknownKey { tenant, key_id } => {
                let refusal = TokenError::UnknownKey { tenant, key_id }.into();
                self.deny_channel(now, id, channel_id, refusal);
            }
        }
    }

    /// The token is good: claim the channel's place, or hand the socket to the shard of its first document.
    fn admit_channel(
        &mut self,
        now: Now,
        id: ConnectionId,
        channel_id: u32,
        grant: Arc<Grant>,
        token: Option<&str>,
        first: Option<&[u8]>,
    ) {
        let (shard, shards) = (self.shard, self.shards);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let link_is_empty = self.links.get(connection.link).is_some_and(|link| link.frames.is_empty());
        let alone = connection.channels.len() == 1 && connection.apps.is_empty() && link_is_empty;
        let Some(channel) = connection.channel_mut(channel_id) else { return };
        let Ok(name) = DocumentName::parse(message::name_of_key(&channel.key)) else { return };
        if let Err(error) = grant.permissions.check(&name) {
            return self.deny_channel(now, id, channel_id, error.into());
        }
        let document = DocumentId { app: grant.app, name };
        if let Some(first) = first {
            channel.held.insert(0, first.into());
        }
        let to = document.shard(shards);
        if to != shard && alone {
            let replay = replay(channel, token);
            let opening = Opening {
                document: None,
                grant: connection.grant.clone(),
                origin: connection.origin.take(),
                acknowledges: connection.acknowledges,
                replay,
            };
            self.forget_connection(now, id);
            self.effects.push_back(Effect::Move { connection: id, to, opening });
            return;
        }
        channel.grant = Some(grant);
        channel.state =
            ChannelState::AwaitingClaim { name: document.name, authenticate: token.is_some(), asked: false };
        self.claim_channel(now, id, channel_id);
    }

    /// Asks the ledger for a channel's place. Only one question at a time carries a socket's place in
    /// `maxConnections`: the channels behind it wait for that answer.
    pub(super) fn claim_channel(&mut self, now: Now, id: ConnectionId, channel_id: u32) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(channel) = connection.channel_mut(channel_id) else { return };
        let Some(grant) = channel.grant.clone() else { return };
        let ChannelState::AwaitingClaim { name, asked, .. } = &channel.state else { return };
        if *asked {
            return;
        }
        let document = DocumentId { app: grant.app, name: name.clone() }.stable_hash();
        let app_claim = connection.apps.iter().find(|claim| claim.app() == grant.app);
        let needs_connection = match app_claim {
            Some(AppClaim { granted: false, .. }) => return,
            Some(AppClaim { granted: true, .. }) => false,
            None => true,
        };
        if needs_connection {
            connection.apps.push(AppClaim::asked(grant.clone()));
        }
        if let Some(Channel { state: ChannelState::AwaitingClaim { asked, .. }, .. }) =
            connection.channel_mut(channel_id)
        {
            *asked = true;
        }
        let claim = Claim { app: grant.app, connection: needs_connection, document: Some(document) };
        let asked_at = now.monotonic;
        let ticket = self.ask(now, Question::Claim { connection: id, channel: channel_id, claim, asked_at });
        let Grant { limits, issued_unix_s, .. } = *grant;
        self.effects.push_back(Effect::Reserve { ticket, claim, limits, issued_unix_s });
    }

    pub(super) fn claim_answered(&mut self, now: Now, ticket: Ticket, outcome: Result<Limits, Exceeded>) {
        let Some(Question::Claim { connection: id, channel: channel_id, claim, .. }) =
            self.questions.remove(&ticket)
        else {
            return;
        };
        let Some(connection) = self.connections.get_mut(id) else {
            // The client left while the question was out.
            if outcome.is_ok() {
                self.effects.push_back(Effect::Release { claim });
            }
            return;
        };
        if claim.connection {
            match outcome {
                Ok(_) => {
                    for app in connection.apps.iter_mut().filter(|held| held.app() == claim.app) {
                        app.granted = true;
                    }
                }
                Err(_) => connection.apps.retain(|held| held.app() != claim.app),
            }
        }
        let waits = connection
            .channel(channel_id)
            .is_some_and(|channel| matches!(channel.state, ChannelState::AwaitingClaim { asked: true, .. }));
        match outcome {
            Ok(limits) if waits => self.open_channel(now, id, channel_id, limits),
            Ok(_) => {
                let claim = Claim { connection: false, ..claim };
                self.effects.push_back(Effect::Release { claim });
            }
            Err(exceeded) if waits => self.deny_channel(now, id, channel_id, exceeded.into()),
            Err(_) => {}
        }
        self.claim_waiting(now, id);
    }

    /// Channels that waited for another channel's answer ask now.
    fn claim_waiting(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        let waiting: smallvec::SmallVec<[u32; 4]> = connection
            .channels
            .iter()
            .filter(|channel| matches!(channel.state, ChannelState::AwaitingClaim { asked: false, .. }))
            .map(|channel| channel.id)
            .collect();
        for channel in waiting {
            self.claim_channel(now, id, channel);
        }
    }

    /// The place is ours: enter the room, under the limits that hold now, and deliver what was held.
    fn open_channel(&mut self, now: Now, id: ConnectionId, channel_id: u32, limits: Limits) {
        let (own, shards) = (self.shard, self.shards);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (link, wire) = (connection.link, connection.wire.unwrap_or(Wire::YWebsocket));
        let acknowledges = wire == Wire::Hocuspocus || connection.acknowledges;
        let Some(channel) = connection.channel_mut(channel_id) else { return };
        let Some(grant) = channel.grant.clone() else { return };
        let ChannelState::AwaitingClaim { name, authenticate, .. } = &channel.state else { return };
        let document = DocumentId { app: grant.app, name: name.clone() };
        let (shard, hash) = (document.shard(shards), document.stable_hash());
        let key =
            (&*channel.key != document.name.as_str() && !channel.key.is_empty()).then(|| channel.key.clone());
        let open = OpenSession {
            app: document.app,
            name: document.name,
            wire,
            key,
            authenticate: *authenticate,
            users_max: limits.users_per_document_max,
            terms: Terms { ops_per_minute: limits.ops_per_minute, ..Terms::of(&grant) },
            acknowledges,
        };
        let held = std::mem::take(&mut channel.held);
        let routing_key = channel.key.clone();
        if shard == own {
            match self.open_session(now, link, channel_id, open) {
                Ok(session) => {
                    self.set_state(id, channel_id, ChannelState::Local { session, document: hash })
                }
                Err(refusal) => {
                    let claim = Claim { app: grant.app, connection: false, document: Some(hash) };
                    self.effects.push_back(Effect::Release { claim });
                    return self.channel_ended(now, id, channel_id, refusal);
                }
            }
        } else {
            self.set_state(id, channel_id, ChannelState::Remote { shard, document: hash });
            let body = MailBody::Open { channel: channel_id, session: open };
            self.effects.push_back(Effect::Mail { to: shard, mail: Mail { connection: id, body } });
            if self.links.get(link).is_some_and(|link| link.stalled_at.is_some()) {
                let mail = Mail { connection: id, body: MailBody::Stalled };
                self.effects.push_back(Effect::Mail { to: shard, mail });
            }
        }
        self.schedule_check(now, id);
        for body in held {
            // By its key, not the channel: what was held may leave the document and open it anew.
            let taken = match wire {
                Wire::YWebsocket => self.channel_received(now, id, channel_id, &body),
                Wire::Hocuspocus => self.hocuspocus_received(now, id, &routing_key, &body),
            };
            if let Err(refusal) = taken {
                return self.close_connection(now, id, refusal);
            }
        }
    }

    fn set_state(&mut self, id: ConnectionId, channel_id: u32, state: ChannelState) {
        if let Some(channel) = self.connections.get_mut(id).and_then(|c| c.channel_mut(channel_id)) {
            channel.state = state;
        }
    }
}

/// The frames with which a channel begins anew on another shard: its Auth, then what was held.
fn replay(channel: &mut Channel, token: Option<&str>) -> Vec<Box<[u8]>> {
    let frame = |body: &[u8]| {
        let mut frame = Vec::with_capacity(channel.key.len() + body.len() + 2);
        lib0::write_var_str(&mut frame, &channel.key);
        frame.extend_from_slice(body);
        frame.into_boxed_slice()
    };
    let auth = token.map(|token| {
        let mut body = Vec::with_capacity(token.len() + 4);
        message::write_token(&mut body, token);
        frame(&body)
    });
    auth.into_iter().chain(channel.held.iter().map(|body| frame(body))).collect()
}

impl From<Exceeded> for Refusal {
    fn from(exceeded: Exceeded) -> Self {
        match exceeded {
            Exceeded::Connections { limit } => Self::ConnectionLimit { limit },
            Exceeded::Documents { limit, active } => Self::DocumentLimit { limit, active },
        }
    }
}
