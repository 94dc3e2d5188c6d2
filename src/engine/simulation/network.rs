//! The network between the shards, the control shard and the journal: it delays what it carries and reorders it between,
//! never within, pairs. The control shard and the journal's thread, as far as they answer.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::world::{OTHER_TENANT, TENANT, World};
use crate::auth::{KeySets, Limits};
use crate::engine::event::{Event, Mail, Opening, ShardIndex, Ticket};
use crate::journal::log::Log;
use crate::journal::memory::Memory;
use crate::journal::{Command, Reply};
use crate::limits::{Claim, Exceeded};
use crate::protocol::document::AppId;

/// The control shard's place in the network.
pub(super) const CONTROL: ShardIndex = u16::MAX;

/// The journal's place in it.
pub(super) const JOURNAL: ShardIndex = u16::MAX - 1;

/// What it carries.
pub(super) enum Letter {
    Mail(Mail),
    HandOver { socket: usize, opening: Opening },
    Reserve { ticket: Ticket, claim: Claim, limits: Limits, issued_unix_s: u64 },
    Release(Claim),
    LeaseOps { app: AppId, ops_per_minute: u32, wanted: u32 },
    RefreshKeys { ticket: Ticket },
    Reserved { ticket: Ticket, outcome: Result<Limits, Exceeded> },
    OpsLeased { app: AppId, granted: u32, window_ends: Duration },
    KeysRefreshed { ticket: Ticket },
    Keys(Arc<KeySets>),
    KeyRevoked { tenant: Uuid, key_id: Arc<str> },
    Drain { over: Duration },
    Accept,
    Journal(Reply),
    Command(Command),
}

impl World {
    /// The key of this name, of both tenants.
    pub fn revoke(&mut self, key_id: &str) {
        for tenant in [TENANT, OTHER_TENANT] {
            self.newest_keys = Arc::new(self.newest_keys.without_key(tenant, key_id));
            for shard in self.shards() {
                self.send(CONTROL, shard, Letter::Keys(Arc::clone(&self.newest_keys)));
                self.send(CONTROL, shard, Letter::KeyRevoked { tenant, key_id: key_id.into() });
            }
        }
    }

    pub fn set_keys(&mut self, sets: Arc<KeySets>) {
        for shard in self.shards() {
            self.send(CONTROL, shard, Letter::Keys(Arc::clone(&sets)));
        }
    }

    pub fn drain(&mut self, over: Duration) {
        for shard in self.shards() {
            self.send(CONTROL, shard, Letter::Drain { over });
        }
    }

    pub fn call_off_drain(&mut self) {
        for shard in self.shards() {
            self.send(CONTROL, shard, Letter::Accept);
        }
    }

    fn control(&mut self, from: ShardIndex, letter: Letter) {
        let answer = match letter {
            Letter::Release(claim) => return self.ledger.release(claim),
            _ if self.mute => return,
            Letter::Reserve { ticket, claim, limits, issued_unix_s } => {
                let limits = self.pushed.over(self.now.monotonic, claim.app, limits, issued_unix_s);
                let outcome = self.ledger.reserve(claim, limits).map(|()| limits);
                let usage = self.ledger.usage(claim.app);
                assert!(outcome.is_err() || !claim.connection || usage.connections <= limits.connections_max);
                assert!(outcome.is_err() || usage.documents <= limits.documents_max.max(usage.documents));
                Letter::Reserved { ticket, outcome }
            }
            Letter::LeaseOps { app, ops_per_minute, wanted } => {
                let lease = self.windows.lease(self.now.monotonic, app, ops_per_minute, wanted);
                *self.leased.entry(app).or_default() += u64::from(lease.granted);
                let of_window = self.leased_in.entry((app, lease.window_ends)).or_default();
                *of_window += u64::from(lease.granted);
                assert!(*of_window <= u64::from(ops_per_minute), "ops of one minute");
                Letter::OpsLeased { app, granted: lease.granted, window_ends: lease.window_ends }
            }
            Letter::RefreshKeys { ticket } => {
                self.send(CONTROL, from, Letter::Keys(Arc::clone(&self.newest_keys)));
                Letter::KeysRefreshed { ticket }
            }
            _ => unreachable!("the control shard is sent no such letter"),
        };
        self.send(CONTROL, from, answer);
    }

    // --- the network

    pub(super) fn shards(&self) -> std::ops::Range<ShardIndex> {
        0..u16::try_from(self.engines.len()).unwrap()
    }

    pub(super) fn send(&mut self, from: ShardIndex, to: ShardIndex, letter: Letter) {
        let delay = if self.delay_ms_max == 0 { 0 } else { self.random.below(self.delay_ms_max + 1) };
        let pipe = self.pipes.entry((from, to)).or_default();
        let last = pipe.back().map_or(Duration::ZERO, |(due, _)| *due);
        pipe.push_back((last.max(self.now.monotonic + Duration::from_millis(delay)), letter));
    }

    /// Delivers what is due between two, in one turn of the receiver.
    pub(super) fn deliver(&mut self, from: ShardIndex, to: ShardIndex) {
        while let Some(pipe) = self.pipes.get_mut(&(from, to)) {
            let Some((_, letter)) = pipe.pop_front_if(|(due, _)| *due <= self.now.monotonic) else { break };
            self.deliver_letter(from, to, letter);
            if self.chaotic && self.random.one_in(3) {
                break;
            }
        }
        if to != CONTROL && to != JOURNAL {
            self.end_of_turn(usize::from(to));
        }
    }

    pub(super) fn deliver_letter(&mut self, from: ShardIndex, to: ShardIndex, letter: Letter) {
        if to == CONTROL {
            return self.control(from, letter);
        }
        let shard = usize::from(to);
        match letter {
            Letter::Command(command) => {
                self.journal().handle(command);
                self.hear_journal();
            }
            Letter::Mail(mail) => self.hear(shard, Event::Mail { from, mail }),
            Letter::HandOver { socket, opening } => self.handed_over(shard, socket, opening),
            Letter::Reserved { ticket, outcome } => self.hear(shard, Event::Reserved { ticket, outcome }),
            Letter::OpsLeased { app, granted, window_ends } => {
                self.hear(shard, Event::OpsLeased { app, granted, window_ends });
            }
            Letter::KeysRefreshed { ticket } => self.hear(shard, Event::KeysRefreshed { ticket }),
            Letter::Keys(sets) => self.hear(shard, Event::Keys { sets }),
            Letter::KeyRevoked { tenant, key_id } => self.hear(shard, Event::KeyRevoked { tenant, key_id }),
            Letter::Drain { over } => self.hear(shard, Event::Drain { over }),
            Letter::Accept => self.hear(shard, Event::Accept),
            Letter::Journal(reply) => self.hear(shard, Event::Journal(reply)),
            _ => unreachable!("no shard is sent such a letter"),
        }
    }

    /// What the journal has gathered is stored, and the shards will hear of it.
    pub fn commit(&mut self) {
        let Some(log) = self.journal.as_mut().filter(|_| !self.died) else { return };
        log.commit();
        self.hear_journal();
        self.maintain();
    }

    /// The journal looks what is over, as it does once a second too.
    pub(super) fn maintain(&mut self) {
        let Some(log) = self.journal.as_mut().filter(|_| !self.died) else { return };
        log.maintain(self.now.unix_s);
        self.hear_journal();
    }

    /// A load is answered at once; what else there is waits for the commit.
    fn hear_journal(&mut self) {
        self.died |= self.journal().storage().is_dead();
        while let Some((shard, reply)) = self.journal().poll_reply().filter(|_| !self.died) {
            self.send(JOURNAL, shard, Letter::Journal(reply));
        }
    }

    /// Of the journal's word on its way that something is stored: whether somebody waits for it.
    pub fn stored_letters(&self) -> Vec<bool> {
        let letters = self.pipes.iter().filter(|((from, _), _)| *from == JOURNAL).flat_map(|(_, pipe)| pipe);
        let stored = letters.filter_map(|(_, letter)| match letter {
            Letter::Journal(Reply::Stored { awaited, .. }) => Some(*awaited),
            _ => None,
        });
        stored.collect()
    }

    /// An answer of the journal's is on its way.
    pub fn journal_answers(&self) -> bool {
        self.pipes.iter().any(|((from, _), pipe)| *from == JOURNAL && !pipe.is_empty())
    }

    /// What the disk has when the process is killed now.
    pub fn disk_after_kill(&self) -> Memory {
        self.journal.as_ref().expect("something is kept").storage().after_kill()
    }

    /// What the disk has when the power goes now.
    pub fn disk_after_power_cut(&self) -> Memory {
        self.journal.as_ref().expect("something is kept").storage().after_power_cut(|_| 0)
    }

    /// Everything on disk is something else from now on.
    pub fn spoil_disk(&mut self) {
        let storage = self.journal().storage_mut();
        for number in storage.numbers() {
            storage.bytes_mut(number).iter_mut().for_each(|byte| *byte ^= 0xff);
        }
    }

    pub(super) fn journal(&mut self) -> &mut Log<Memory> {
        self.journal.as_mut().expect("an engine without a journal keeps nothing")
    }

    fn handed_over(&mut self, shard: usize, socket: usize, opening: Opening) {
        let connection = self.connections[shard].insert(socket);
        let index = u16::try_from(shard).unwrap();
        self.sockets[socket].place = Some((index, connection));
        self.hear(shard, Event::Opened { connection, opening });
        if self.sockets[socket].end.is_some() {
            self.sockets[socket].place = None;
            self.connections[shard].remove(connection);
            self.hear(shard, Event::Closed { connection });
        }
    }
}
