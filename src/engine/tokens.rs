//! A connection's tokens while it lives: their end, their renewal, and revoked keys.

use std::sync::Arc;

use smallvec::SmallVec;
use uuid::Uuid;

use super::Engine;
use super::admission::TokenCheck;
use super::connection::ChannelState;
use super::event::{ConnectionId, Effect, Mail, MailBody, Terms};
use crate::auth::Grant;
use crate::auth::keys::Lookup;
use crate::protocol::close::Refusal;
use crate::protocol::document::DocumentName;
use crate::protocol::message::{self, Framing, Wire};
use crate::time::Now;

impl Engine {
    /// Asks for new tokens in time, and ends what has none.
    pub(super) fn check_tokens(&mut self, now: Now, id: ConnectionId) {
        let mut expired: SmallVec<[u32; 4]> = SmallVec::new();
        let mut ask: SmallVec<[Box<str>; 1]> = SmallVec::new();
        let settings = &self.settings;
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (link, wire) = (connection.link, connection.wire);
        for channel in connection.channels.iter_mut().filter(|channel| channel.is_open()) {
            let Some(grant) = &channel.grant else { continue };
            let left_s = settings.token_left_s(grant, now);
            if settings.close_on_token_expiry && left_s == 0 {
                expired.push(channel.id);
            } else if wire == Some(Wire::Hocuspocus)
                && !channel.renewal_asked
                && left_s <= settings.renew_before.as_secs()
            {
                channel.renewal_asked = true;
                ask.push(channel.key.clone());
            }
        }
        for key in ask {
            if let Some(frames) = self.frames(link) {
                Framing::Hocuspocus { key: &key }.request_token(frames);
            }
        }
        for channel in expired {
            self.deny_channel(now, id, channel, Refusal::InvalidToken("Token expired".into()));
        }
    }

    /// A client handed in another token for a document it has open.
    pub(super) fn renew_token(&mut self, now: Now, id: ConnectionId, channel_id: u32, token: &str) {
        match self.check_token(now, id, token) {
            TokenCheck::Valid(grant) => self.token_renewed(now, id, channel_id, grant),
            TokenCheck::Refused(refusal) => self.deny_channel(now, id, channel_id, refusal),
            TokenCheck::UnknownKey { tenant, key_id } => {
                self.ask_for_keys(now, id, channel_id, token, tenant, key_id)
            }
        }
    }

    /// The other token is good; a newer one takes the place of the one at hand.
    pub(super) fn token_renewed(&mut self, now: Now, id: ConnectionId, channel_id: u32, renewed: Arc<Grant>) {
        let Some(channel) = self.connections.get_mut(id).and_then(|c| c.channel_mut(channel_id)) else {
            return;
        };
        let Some(grant) = &channel.grant else { return };
        if grant.app != renewed.app {
            let refusal = Refusal::Forbidden("The new token is for another app".into());
            return self.deny_channel(now, id, channel_id, refusal);
        }
        if renewed.expires_unix_s <= grant.expires_unix_s {
            return;
        }
        let terms = Terms::of(&renewed);
        let name = match &channel.state {
            // A y-websocket client has no routing key; its document is always here.
            ChannelState::Local { session, .. } => {
                let room = self.sessions.get(*session).and_then(|session| self.rooms.get(session.room));
                room.map(|room| room.id.name.clone())
            }
            ChannelState::AwaitingClaim { name, .. } => Some(name.clone()),
            _ => DocumentName::parse(message::name_of_key(&channel.key)).ok(),
        };
        let Some(name) = name else { return };
        if let Err(error) = renewed.permissions.check(&name) {
            return self.deny_channel(now, id, channel_id, error.into());
        }
        channel.grant = Some(renewed);
        channel.renewal_asked = false;
        match channel.state {
            ChannelState::Local { session, .. } => self.session_renewed(session, terms),
            ChannelState::Remote { shard, .. } => {
                let body = MailBody::Renewed { channel: channel_id, terms };
                self.effects.push_back(Effect::Mail { to: shard, mail: Mail { connection: id, body } });
            }
            _ => {}
        }
    }

    pub(super) fn is_revoked(&self, grant: &Grant) -> bool {
        self.verifier.keys().lookup(grant.app.tenant, &grant.key_id) == Lookup::Revoked
    }

    pub(super) fn key_revoked(&mut self, now: Now, tenant: Uuid, key_id: &str) {
        let mut ended: Vec<(ConnectionId, u32)> = Vec::new();
        let signed = |grant: &Arc<Grant>| grant.app.tenant == tenant && &*grant.key_id == key_id;
        let ids: Vec<ConnectionId> = self.connections.keys().collect();
        for id in ids {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            if connection.grant.as_ref().is_some_and(signed) {
                connection.grant = None;
            }
            for channel in &connection.channels {
                if channel.grant.as_ref().is_some_and(signed) {
                    ended.push((id, channel.id));
                }
            }
        }
        for (id, channel) in ended {
            self.deny_channel(now, id, channel, Refusal::InvalidToken("Key revoked".into()));
        }
    }
}
