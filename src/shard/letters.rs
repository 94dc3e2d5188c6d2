//! What a shard says to the others and hears from them: letters in, the engine's effects out.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;

use super::Shard;
use super::mailbox::Letter;
use super::socket::Stage;
use super::token_policy;
use crate::control::messages::{ToControl, ToShard};
use crate::engine::event::{Effect, Event};
use crate::journal::Command;
use crate::time::Now;

/// Letters read in one turn, so that sockets get theirs too.
const LETTERS_PER_TURN: usize = 4096;

impl Shard {
    /// Reads the mailbox; returns how many letters there were.
    pub(super) fn take_letters(&mut self, now: Now) -> usize {
        for count in 0..LETTERS_PER_TURN {
            match self.mailbox.take() {
                None => return count,
                Some(Letter::Control(message)) => self.control_said(now, message),
                Some(Letter::Engine { from, mail }) => {
                    self.engine.handle_event(now, Event::Mail { from, mail });
                }
                Some(Letter::HandOver(hand_over)) => self.handed_over(now, *hand_over),
                Some(Letter::Journal(reply)) => self.engine.handle_event(now, Event::Journal(reply)),
            }
        }
        LETTERS_PER_TURN
    }

    fn control_said(&mut self, now: Now, message: ToShard) {
        let event = match message {
            ToShard::Reserved { ticket, outcome } => Event::Reserved { ticket, outcome },
            ToShard::OpsLeased { app, granted, window_ends } => {
                Event::OpsLeased { app, granted, window_ends }
            }
            ToShard::Admitted { ticket, allowed } => {
                if let Some(key) = self.awaiting.remove(&ticket) {
                    self.admitted(now, key, allowed);
                }
                return;
            }
            ToShard::KeysRefreshed { ticket } => match self.awaiting.remove(&ticket) {
                Some(key) => return self.keys_refreshed(now, key),
                None => Event::KeysRefreshed { ticket },
            },
            ToShard::Keys { sets } => Event::Keys { sets },
            ToShard::KeyRevoked { tenant, key_id } => Event::KeyRevoked { tenant, key_id },
            ToShard::Report => {
                let metrics = Box::new(self.report());
                self.to_control.push(ToControl::Metrics { shard: self.index, metrics });
                let ops = self.engine.take_ops();
                if !ops.is_empty() {
                    self.to_control.push(ToControl::OpsDone { ops });
                }
                return;
            }
            ToShard::Shed { on } => {
                self.shedding = on;
                return;
            }
            ToShard::Drain { over, round } => {
                (self.draining, self.drain_round, self.drained_said) = (true, round, false);
                Event::Drain { over }
            }
            ToShard::Accept => {
                self.draining = false;
                Event::Accept
            }
            ToShard::Settings { settings } => {
                self.engine.replace_settings(settings.engine.clone(), token_policy(&settings));
                self.settings = Arc::clone(&settings);
                return;
            }
            ToShard::Stop => {
                self.stopping = true;
                return;
            }
        };
        self.engine.handle_event(now, event);
    }

    pub(super) fn carry_out_effects(&mut self, now: Now) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Reserve { ticket, claim, limits, issued_unix_s } => {
                    let shard = self.index;
                    self.to_control.push(ToControl::Reserve { shard, ticket, claim, limits, issued_unix_s });
                }
                Effect::Release { claim } => self.to_control.push(ToControl::Release { claim }),
                Effect::LeaseOps { app, ops_per_minute, wanted } => {
                    let shard = self.index;
                    self.to_control.push(ToControl::LeaseOps { shard, app, ops_per_minute, wanted });
                }
                Effect::RefreshKeys { ticket, tenant, key_id } => {
                    let shard = self.index;
                    self.to_control.push(ToControl::RefreshKeys { shard, ticket, tenant, key_id });
                }
                Effect::Mail { to, mail } => self.post(to, Letter::Engine { from: self.index, mail }),
                Effect::Move { connection, to, opening } => {
                    let unread = match self.unread.take() {
                        Some((key, unread)) if key == connection => unread,
                        other => {
                            self.unread = other;
                            self.unread_of(connection)
                        }
                    };
                    self.hand_over(connection, to, unread, opening);
                }
                Effect::Append { number, records, awaited } => {
                    let shard = self.index;
                    self.to_journal.push_back(Command::Append { shard, number, records, awaited });
                }
                Effect::Keep { document, contents, rests } => {
                    self.to_journal.push_back(Command::Keep { shard: self.index, document, contents, rests });
                }
                Effect::Load { document } => {
                    self.to_journal.push_back(Command::Load { shard: self.index, document });
                }
                Effect::Close { connection, refusal } => self.close(now, connection, &refusal),
                Effect::Denied { connection, refusal } => {
                    self.count_refusal(connection, &refusal, "document refused");
                }
            }
        }
    }

    /// What a connection's frame reader holds of a message that is not whole.
    fn unread_of(&mut self, connection: crate::engine::slab::Key) -> Vec<u8> {
        match self.sockets.get_mut(connection).map(|socket| &mut socket.stage) {
            Some(Stage::Open(reader)) => std::mem::take(reader).into_unread(&[]),
            _ => Vec::new(),
        }
    }

    /// Sends a letter to another shard, in order behind those that did not fit before.
    pub(super) fn post(&mut self, to: u16, letter: Letter) {
        let to = usize::from(to);
        let (Some(backlog), Some(shard)) = (self.backlog.get_mut(to), self.shards.get(to)) else { return };
        if !backlog.is_empty() {
            return backlog.push_back(letter);
        }
        if let Err(letter) = shard.send(letter) {
            self.metrics.mailbox_full_total += 1;
            backlog.push_back(letter);
        }
    }

    pub(super) fn send_backlog(&mut self) {
        for (backlog, shard) in self.backlog.iter_mut().zip(&self.shards) {
            send_all(backlog, |letter| shard.send(letter));
        }
    }

    /// What the journal has no room for it gets with the next turn's.
    pub(super) fn send_to_journal(&mut self) {
        if let Some(journal) = &self.journal {
            send_all(&mut self.to_journal, |command| journal.send(command));
        }
    }

    /// One batch per turn. A control shard that has no room gets it with the next turn's.
    pub(super) fn send_to_control(&mut self) {
        if self.to_control.is_empty() {
            return;
        }
        match self.control.try_send(std::mem::take(&mut self.to_control)) {
            Ok(()) => {}
            Err(TrySendError::Full(batch)) => {
                self.metrics.mailbox_full_total += 1;
                self.to_control = batch;
            }
            Err(TrySendError::Closed(_)) => {
                if !self.stopping {
                    tracing::error!("the control shard is gone; this shard stops too");
                }
                self.stopping = true;
            }
        }
    }
}

fn send_all<T>(backlog: &mut VecDeque<T>, send: impl Fn(T) -> Result<(), T>) {
    while let Some(letter) = backlog.pop_front() {
        if let Err(letter) = send(letter) {
            return backlog.push_front(letter);
        }
    }
}
