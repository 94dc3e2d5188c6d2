//! The document's side of a session whose socket is on another shard: mail in, mail out.

use super::Engine;
use super::event::{ConnectionId, Effect, Mail, MailBody, OpenSession, ShardIndex};
use super::link::{Link, Target};
use super::slab::Key;
use crate::protocol::message::Message;
use crate::time::Now;

impl Engine {
    /// Mail from the shard of a Hocuspocus socket that has a document here.
    pub(super) fn remote_request(
        &mut self,
        now: Now,
        from: ShardIndex,
        connection: ConnectionId,
        body: MailBody,
    ) {
        if let MailBody::Open { channel, session } = body {
            return self.remote_opens(now, from, connection, channel, session);
        }
        let Some(&link) = self.remote_links.get(&(from, connection)) else { return };
        let sessions = self.links.get(link).map(|link| link.sessions.clone()).unwrap_or_default();
        let find = |engine: &Self, channel: u32| {
            let of_channel = |key: &Key| engine.sessions.get(*key).is_some_and(|s| s.channel == channel);
            sessions.iter().copied().find(of_channel)
        };
        match body {
            MailBody::Message { channel, body } => {
                if let (Some(session), Ok(message)) = (find(self, channel), Message::parse(&body)) {
                    self.session_received(now, session, message, &body);
                }
            }
            MailBody::Leave { channel } => {
                if let Some(session) = find(self, channel) {
                    self.session_left(now, session);
                }
            }
            MailBody::End { channel, refusal } => {
                if let Some(session) = find(self, channel) {
                    self.end_session(now, session, refusal);
                }
            }
            MailBody::Renewed { channel, terms } => {
                if let Some(session) = find(self, channel) {
                    self.session_renewed(session, terms);
                }
            }
            MailBody::Stalled => self.link_stalled(now, link),
            MailBody::Resumed => self.link_resumed(now, link),
            MailBody::Open { .. } | MailBody::Deliver { .. } | MailBody::Ended { .. } => {}
        }
    }

    fn remote_opens(
        &mut self,
        now: Now,
        from: ShardIndex,
        connection: ConnectionId,
        channel: u32,
        open: OpenSession,
    ) {
        let target = Target::Shard { shard: from, connection };
        let links = &mut self.links;
        let link =
            *self.remote_links.entry((from, connection)).or_insert_with(|| links.insert(Link::new(target)));
        if let Err(refusal) = self.open_session(now, link, channel, open) {
            if self.links.get(link).is_some_and(|link| link.sessions.is_empty()) {
                self.links.remove(link);
                self.remote_links.remove(&(from, connection));
            }
            let mail = Mail { connection, body: MailBody::Ended { channel, refusal } };
            self.effects.push_back(Effect::Mail { to: from, mail });
        }
    }
}
