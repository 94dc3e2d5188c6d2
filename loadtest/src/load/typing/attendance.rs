//! Who is there, who is away, and who is coming back.
//!
//! A seat is a reader's or writer's place for the whole run; its connection may end and another one
//! take its place. So many seats as the scenario says come back at the same time; how long each takes
//! counts from when it was to come back, whether or not it had to wait for its turn.

use crate::measure::{Latency, LatencySummary};
use serde::Serialize;
use std::collections::VecDeque;

/// Why a seat was away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Storm,
    Churn,
    Stall,
}

const CAUSES: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Here,
    Away,
    Returning { due_ns: u64, cause: Cause },
}

/// What coming back was like.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ReturnResult {
    pub returns: u64,
    /// From the instant it was to come back to its step 2.
    pub rejoin: Option<LatencySummary>,
}

impl From<&Latency> for ReturnResult {
    fn from(rejoin: &Latency) -> Self {
        Self { returns: rejoin.count(), rejoin: rejoin.summary() }
    }
}

#[derive(Debug)]
pub struct Attendance {
    presence: Vec<Presence>, // by seat
    waiting: VecDeque<u32>,  // to return, for their turn
    under_way: u32,
    not_here: u32,
    at_once: u32,
    rejoin: [Latency; CAUSES],
}

impl Attendance {
    pub fn new(seats: u32, at_once: u32) -> Self {
        Self {
            presence: vec![Presence::Here; seats as usize],
            waiting: VecDeque::new(),
            under_way: 0,
            not_here: 0,
            at_once,
            rejoin: Default::default(),
        }
    }

    pub fn is_here(&self, seat: u32) -> bool {
        self.presence[seat as usize] == Presence::Here
    }

    pub fn is_returning(&self, seat: u32) -> bool {
        matches!(self.presence[seat as usize], Presence::Returning { .. })
    }

    pub fn are_all_here(&self) -> bool {
        self.not_here == 0
    }

    /// How many are away or on their way.
    pub fn not_here(&self) -> u32 {
        self.not_here
    }

    pub fn leave(&mut self, seat: u32) {
        match std::mem::replace(&mut self.presence[seat as usize], Presence::Away) {
            Presence::Here => self.not_here += 1,
            Presence::Away => {}
            Presence::Returning { .. } => {
                // One that still waits for its turn has no connection under way.
                if let Some(at) = self.waiting.iter().position(|waiting| *waiting == seat) {
                    self.waiting.remove(at);
                } else {
                    self.under_way -= 1;
                }
            }
        }
    }

    /// The seat, which is away, is to come back at `due_ns`, as soon as it is its turn.
    pub fn come_back(&mut self, seat: u32, due_ns: u64, cause: Cause) {
        self.presence[seat as usize] = Presence::Returning { due_ns, cause };
        self.waiting.push_back(seat);
    }

    /// A seat whose turn it is to connect.
    pub fn next_to_connect(&mut self) -> Option<u32> {
        let seat = (self.under_way < self.at_once).then(|| self.waiting.pop_front()).flatten()?;
        self.under_way += 1;
        Some(seat)
    }

    /// The seat has its step 2.
    pub fn synced(&mut self, seat: u32, now_ns: u64) {
        if let Presence::Returning { due_ns, cause } = self.presence[seat as usize] {
            self.presence[seat as usize] = Presence::Here;
            self.rejoin[cause as usize].record_ns(now_ns.saturating_sub(due_ns));
            self.under_way -= 1;
            self.not_here -= 1;
        }
    }

    /// How long coming back took.
    pub fn rejoin(&self, cause: Cause) -> &Latency {
        &self.rejoin[cause as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_come_back_at_once_and_their_time_counts_from_when_they_should() {
        let mut attendance = Attendance::new(4, 2);
        (0..3).for_each(|seat| attendance.leave(seat));
        (0..3).for_each(|seat| attendance.come_back(seat, 1_000_000, Cause::Storm));
        assert_eq!(attendance.next_to_connect(), Some(0));
        assert_eq!(attendance.next_to_connect(), Some(1));
        assert_eq!(attendance.next_to_connect(), None);
        attendance.synced(0, 4_000_000);
        assert_eq!(attendance.next_to_connect(), Some(2));
        assert!(attendance.is_here(0) && attendance.is_here(3) && attendance.is_returning(1));
        attendance.leave(1); // it failed
        attendance.synced(2, 6_000_000);
        assert_eq!(attendance.not_here(), 1);
        let result = ReturnResult::from(attendance.rejoin(Cause::Storm));
        assert_eq!((result.returns, result.rejoin.expect("measured").max_ms.round()), (2, 5.0));
        assert_eq!(attendance.rejoin(Cause::Churn).count(), 0);
    }

    #[test]
    fn who_leaves_while_waiting_gives_its_turn_away() {
        let mut attendance = Attendance::new(2, 1);
        (0..2).for_each(|seat| attendance.leave(seat));
        (0..2).for_each(|seat| attendance.come_back(seat, 0, Cause::Churn));
        attendance.leave(0);
        assert_eq!(attendance.next_to_connect(), Some(1));
        attendance.synced(1, 1);
        assert!(!attendance.are_all_here());
    }
}
