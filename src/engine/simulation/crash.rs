//! What goes wrong with the node itself: its end at any moment, its return on the disk that is left, with another number
//! of shards; a disk that fails; a wall clock that is set.

use std::collections::BTreeMap;

use super::client::End;
use super::world::{Level, Random, World, engines};
use crate::engine::slab::Slab;
use crate::journal::log::{Log, LogSettings, OpenError};
use crate::journal::memory::{Faults, Memory};
use crate::limits::{Ledger, OpsWindows, PushedLimits};

/// How a node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// What was written is there.
    Kill,
    /// What was synced is there, and any part of the rest.
    PowerCut,
}

impl World {
    pub fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// The node ends now, and begins again. Its clients notice, or have read the last that it said before.
    pub fn crash(&mut self, crash: Crash, shards: u16) {
        self.count(if crash == Crash::Kill { "kill -9" } else { "power cut" });
        for socket in 0..self.sockets.len() {
            if self.sockets[socket].end.is_some() {
                continue;
            }
            if self.sockets[socket].reads && self.random.one_in(2) {
                self.sockets[socket].read();
                self.note_stored(socket);
            }
            let lost = &mut self.sockets[socket];
            (lost.end, lost.place, lost.stalled) = (Some(End::Lost), None, false);
            lost.outgoing.clear();
        }
        let disk = self.journal.take().map(|log| log.storage().clone());
        let disk = disk.map(|disk| self.disk_after(crash, &disk)).unwrap_or_default();
        let disk = self.die_in_recovery(crash, shards, disk);
        self.begin_again(shards, disk);
        self.check_recovered();
    }

    fn disk_after(&mut self, crash: Crash, disk: &Memory) -> Memory {
        if crash == Crash::Kill {
            return disk.after_kill();
        }
        let random = &mut self.random;
        disk.after_tearing(|unsynced| tear(random, unsynced))
    }

    fn log_settings(&self, shards: u16) -> Option<LogSettings> {
        let Level { syncs, segment_bytes } = self.level;
        let retention = self.engines[0].settings().retention?;
        Some(LogSettings { syncs, segment_bytes, retention, shards, seed: 1 })
    }

    /// Some processes don't get through their recovery. What they leave must be as good.
    fn die_in_recovery(&mut self, crash: Crash, shards: u16, mut disk: Memory) -> Memory {
        let Some(settings) = self.log_settings(shards) else { return disk };
        self.spoil(&disk, settings);
        while self.random.one_in(4) {
            let death = (self.random.below(8) as usize, self.random.below(64) as usize);
            disk.faults = Faults { death: Some(death), ..Faults::default() };
            match Log::open(&mut disk, settings) {
                Ok(_) | Err(OpenError::Storage { .. }) => {}
                Err(damaged) => panic!("{damaged}"),
            }
            self.count("crash in recovery");
            disk = self.disk_after(crash, &disk);
        }
        disk
    }

    /// A byte of a segment that another one stands behind is not what was written: that must not pass.
    fn spoil(&mut self, disk: &Memory, settings: LogSettings) {
        let mut disk = disk.clone();
        disk.faults = Faults::default();
        let numbers = disk.numbers();
        let [earlier @ .., _] = &numbers[..] else { return };
        if earlier.is_empty() || !self.random.one_in(4) {
            return;
        }
        let segment = *self.random.pick(earlier);
        let bytes = disk.bytes_mut(segment);
        let at = self.random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 + self.random.below(255) as u8;
        self.count("flipped byte");
        let opened = Log::open(disk, settings);
        assert!(matches!(opened, Err(OpenError::Damaged { .. })), "damage passes: {segment}, byte {at}");
    }

    fn begin_again(&mut self, shards: u16, disk: Memory) {
        let settings = self.engines[0].settings().clone();
        let seed = self.random.below(u64::MAX);
        let (journal, recovered) = Self::open_journal(shards, &settings, self.level, disk);
        self.counted_before = self.counters();
        self.engines = engines(shards, &settings, seed, &self.newest_keys);
        self.journal = journal;
        self.ledger = Ledger::new();
        self.pushed = PushedLimits::default();
        self.windows = OpsWindows::new();
        self.leased_in = BTreeMap::new();
        self.connections = (0..shards).map(|_| Slab::default()).collect();
        self.pipes.clear();
        self.open_turns.clear();
        (self.mute, self.holds_commits, self.died) = (false, false, false);
        self.recover(recovered);
    }

    /// Something is wrong with the disk from some call on, soon.
    pub fn fail_disk(&mut self) {
        let (kind, soon) = (self.random.below(6), self.random.below(6) as usize);
        let written = self.random.below(200) as usize;
        let Some(disk) = self.journal.as_mut().map(Log::storage_mut) else { return };
        let (faults, fault) = match kind {
            0 => (Faults { append: Some((disk.appends + soon, written)), ..disk.faults }, "full disk"),
            1 => (Faults { sync: Some(disk.syncs + soon), ..disk.faults }, "failed sync"),
            2 => (Faults { create: Some(disk.creates + soon / 3), ..disk.faults }, "failed create"),
            3 => (Faults { remove: Some(disk.removes), ..disk.faults }, "failed remove"),
            4 => (Faults { read: Some(disk.reads + soon / 3), ..disk.faults }, "failed read"),
            _ => (Faults { death: Some((disk.calls + soon, written)), ..disk.faults }, "crash in a write"),
        };
        disk.faults = faults;
        self.count(fault);
    }

    /// The disk is as it should be, or the journal has noticed that it isn't.
    pub fn has_failed(&self) -> bool {
        self.died || self.journal.as_ref().is_some_and(|log| log.failure().is_some())
    }

    /// Somebody sets the wall clock.
    pub fn set_wall_clock(&mut self, by_s: i64) {
        self.count(if by_s < 0 { "clock set back" } else { "clock set forward" });
        self.wall_ahead_s += by_s;
        self.now.unix_s = self.now.unix_s.saturating_add_signed(by_s);
    }
}

/// Of what was not synced any part is there, and in the middle of it a piece may not be.
fn tear(random: &mut Random, unsynced: &mut Vec<u8>) {
    if unsynced.is_empty() || random.one_in(3) {
        return;
    }
    unsynced.truncate(random.below(unsynced.len() as u64 + 1) as usize);
    if !unsynced.is_empty() && random.one_in(3) {
        let from = random.below(unsynced.len() as u64) as usize;
        let until = unsynced.len().min(from + 1 + random.below(64) as usize);
        unsynced[from..until].fill(0);
    }
}
