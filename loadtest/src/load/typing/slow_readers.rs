//! Readers who stop reading for a while: which seats, and what became of them.

use crate::client::Ended;
use crate::measure::LatencySummary;
use crate::scenario::SlowReaders;
use serde::Serialize;
use std::collections::HashSet;

/// "Try again later": how a server says that a reader was too slow.
const TRY_AGAIN_LATER: u16 = 1013;

#[derive(Debug, Clone, Serialize)]
pub struct SlowReaderResult {
    pub slow_readers: u32,
    /// Of the others, who read on: updates that were due while readers were stalled.
    pub live_latency: Option<LatencySummary>,
    /// Closed by the server with 1013; they came back.
    pub closed_1013: u32,
    /// Closed by the server with another code.
    pub closed_otherwise: u32,
    /// Cut without a close frame.
    pub cut: u32,
    /// How long those closed took to be back, from the end of the stall (or their end, if later).
    pub rejoin: Option<LatencySummary>,
    /// The server's resident memory: before the stall, and the most during it and after.
    pub resident_before_bytes: Option<u64>,
    pub resident_peak_bytes: Option<u64>,
}

#[derive(Debug)]
pub(super) struct SlowSeats {
    clients: u32,
    per_document: u32,
    /// May they lose their connection now?
    pub is_stalled: bool,
    fallen: HashSet<u32>,
    pub closed_1013: u32,
    pub closed_otherwise: u32,
    pub cut: u32,
}

impl SlowSeats {
    pub fn new(slow: Option<&SlowReaders>, clients: u32) -> Self {
        Self {
            clients,
            per_document: slow.map_or(0, |slow| slow.per_document),
            is_stalled: false,
            fallen: HashSet::new(),
            closed_1013: 0,
            closed_otherwise: 0,
            cut: 0,
        }
    }

    /// The last seats of each document.
    #[inline]
    pub fn contains(&self, seat: u32) -> bool {
        self.per_document > 0 && seat % self.clients >= self.clients - self.per_document
    }

    /// Once, since the stall began.
    pub fn may_fall(&self, seat: u32) -> bool {
        self.is_stalled && self.contains(seat) && !self.fallen.contains(&seat)
    }

    pub fn fell(&mut self, seat: u32, ended: &Ended) {
        self.fallen.insert(seat);
        match ended {
            Ended::Closed { code: TRY_AGAIN_LATER, .. } => self.closed_1013 += 1,
            Ended::Closed { .. } => self.closed_otherwise += 1,
            _ => self.cut += 1,
        }
    }
}
