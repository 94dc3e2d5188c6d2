//! The times a connection must keep: authentication, keep-alive, ping, silence, stall, token, drain.
//!
//! At most one timer of a connection counts, the one of its `check_at`.

use std::time::Duration;

use super::Engine;
use super::connection::{ChannelState, Connection};
use super::event::ConnectionId;
use super::timers::Timer;
use crate::protocol::close::Refusal;
use crate::protocol::message::{Framing, Wire};
use crate::protocol::websocket;
use crate::time::{Moment, Now};

impl Engine {
    /// Looks at everything a connection must keep, and sets the timer for the next look.
    pub(super) fn check_connection(&mut self, now: Now, id: ConnectionId) {
        let at = now.monotonic;
        if let Some(refusal) = self.overdue(at, id) {
            return self.close_connection(now, id, refusal);
        }
        let Some(connection) = self.connections.get(id) else { return };
        let settings = &self.settings;
        let link = connection.link;
        let ping_due = at >= connection.received_at.max(connection.pinged_at) + settings.ping_interval;
        let keep_alive_due = at >= connection.sent_at + settings.keep_alive_interval;
        let keep_alive = match connection.wire {
            Some(Wire::YWebsocket) => Some("".into()),
            Some(Wire::Hocuspocus) => {
                connection.channels.iter().find(|c| c.is_open()).map(|channel| channel.key.clone())
            }
            None => None,
        };
        if ping_due {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.pinged_at = at.into();
            }
            if let Some(frames) = self.frames(link) {
                websocket::write_ping(frames, &[]);
            }
        }
        if keep_alive_due {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.sent_at = at.into();
            }
            if let (Some(key), Some(frames)) = (keep_alive, self.frames(link)) {
                framing(&key).keep_alive(frames);
            }
        }
        self.check_tokens(now, id);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.check_at = Moment::MAX;
            self.schedule_check(now, id);
        }
    }

    /// A connection's timer fired; an earlier one may have done its work.
    pub(super) fn connection_timer(&mut self, now: Now, id: ConnectionId) {
        if self.connections.get(id).is_some_and(|connection| connection.check_at <= now.monotonic.into()) {
            self.check_connection(now, id);
        }
    }

    /// Something changed that may have to be looked at sooner: a channel with a token's end, a drain, a stall.
    pub(super) fn schedule_check(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        let next = self.next_check(now, connection);
        if let Some(connection) = self.connections.get_mut(id)
            && Moment::from(next) < connection.check_at
        {
            connection.check_at = next.into();
            self.timers.set(next, Timer::Connection(id));
        }
    }

    /// Why this connection must end now, if it must.
    fn overdue(&mut self, at: Duration, id: ConnectionId) -> Option<Refusal> {
        let connection = self.connections.get(id)?;
        let settings = &self.settings;
        if connection.drain_at.is_some_and(|due| Moment::from(at) >= due) {
            return Some(self.draining_refusal());
        }
        if connection.awaits_authentication() && at >= connection.opened_at + settings.authentication_timeout
        {
            return Some(Refusal::MissingToken);
        }
        let waits_since = connection.channels.iter().filter(|c| c.is_waiting()).map(|c| c.created_at).min();
        if waits_since.is_some_and(|since| at >= since + settings.authentication_timeout) {
            // The control shard has not answered: it is overwhelmed.
            return Some(self.overloaded_refusal());
        }
        let only_denied = connection.channels.iter().all(|c| matches!(c.state, ChannelState::Denied));
        if only_denied && connection.idle_since.is_some_and(|since| at >= since + settings.idle_timeout) {
            return Some(Refusal::Normal("No document is open".into()));
        }
        match self.links.get(connection.link).and_then(|link| link.stalled_at) {
            // It is not read while it takes nothing, so nobody knows whether it is silent.
            Some(since) => (at >= since + settings.stall_timeout).then(|| self.overloaded_refusal()),
            None => (at >= connection.received_at + settings.idle_timeout)
                .then(|| Refusal::Normal("Idle timeout".into())),
        }
    }

    /// When the next deadline of this connection may be. Looking too early is harmless.
    fn next_check(&self, now: Now, connection: &Connection) -> Duration {
        let settings = &self.settings;
        let mut next = (connection.received_at.max(connection.pinged_at) + settings.ping_interval)
            .min(connection.sent_at + settings.keep_alive_interval);
        if connection.awaits_authentication() {
            next = next.min(connection.opened_at + settings.authentication_timeout);
        }
        for channel in connection.channels.iter().filter(|channel| channel.is_waiting()) {
            next = next.min(channel.created_at + settings.authentication_timeout);
        }
        if let Some(drain_at) = connection.drain_at {
            next = next.min(drain_at + Duration::ZERO);
        }
        next = next.min(match self.links.get(connection.link).and_then(|link| link.stalled_at) {
            Some(since) => since + settings.stall_timeout,
            None => connection.received_at + settings.idle_timeout,
        });
        for channel in &connection.channels {
            let Some(grant) = &channel.grant else { continue };
            let left_s = settings.token_left_s(grant, now);
            let asks = connection.wire == Some(Wire::Hocuspocus) && !channel.renewal_asked;
            let in_s = if asks {
                left_s.saturating_sub(settings.renew_before.as_secs())
            } else if settings.close_on_token_expiry {
                left_s
            } else {
                continue; // nothing follows from its end
            };
            next = next.min(now.monotonic + Duration::from_secs(in_s));
        }
        next.max(now.monotonic + Duration::from_millis(50))
    }

    /// Nobody comes in any more, and everybody is asked to leave at a time of their own within `over`.
    pub(super) fn drain(&mut self, now: Now, over: Duration) {
        self.draining = true;
        let over_ms = u64::try_from(over.as_millis()).unwrap_or(u64::MAX).max(1);
        let ids: Vec<ConnectionId> = self.connections.keys().collect();
        for id in ids {
            let at = now.monotonic + Duration::from_millis(self.jitter(over_ms));
            if let Some(connection) = self.connections.get_mut(id) {
                connection.drain_at = Some(at.into());
            }
            self.schedule_check(now, id);
        }
    }

    /// Whoever has not been asked to leave yet stays.
    pub(super) fn call_off_drain(&mut self) {
        self.draining = false;
        let ids: Vec<ConnectionId> = self.connections.keys().collect();
        for id in ids {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.drain_at = None;
            }
        }
    }

    pub(super) fn draining_refusal(&mut self) -> Refusal {
        Refusal::Draining { retry_after_s: 1 + self.jitter(5) as u32 }
    }

    pub(super) fn overloaded_refusal(&mut self) -> Refusal {
        Refusal::Overloaded { retry_after_s: 5 + self.jitter(10) as u32 }
    }
}

/// The framing of a channel's key: y-websocket has none.
fn framing(key: &str) -> Framing<'_> {
    if key.is_empty() { Framing::YWebsocket } else { Framing::Hocuspocus { key } }
}
