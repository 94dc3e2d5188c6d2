//! A run in slices by the number of updates typed: does a delivery cost more as the document grows?

use super::room::Room;
use crate::load::{LoadError, Session};
use crate::measure::Latency;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Slice {
    /// Since the first update was due.
    pub from_s: f64,
    pub to_s: f64,
    /// Updates typed into each document at the end of the slice.
    pub updates: u64,
    pub deliveries: u64,
    pub cpu_per_delivery_us: Option<f64>,
    pub resident_bytes: Option<u64>,
    /// Of what was due in the measured window and arrived in this slice.
    pub p99_ms: Option<f64>,
}

#[derive(Debug)]
pub(super) struct Slicer {
    every: u64,
    documents: u64,
    start_ns: u64,
    next: u64,
    from_ns: u64,
    cpu_s: Option<f64>,
    deliveries: u64,
    latency: Latency,
    slices: Vec<Slice>,
}

impl Slicer {
    pub fn new(session: &Session<'_>, every: u32, documents: u32, start_ns: u64) -> Result<Self, LoadError> {
        Ok(Self {
            every: u64::from(every),
            documents: u64::from(documents),
            start_ns,
            next: next_bound(0, u64::from(every)),
            from_ns: start_ns,
            cpu_s: session.cpu()?.map(|cpu| cpu.total_s),
            deliveries: 0,
            latency: Latency::default(),
            slices: Vec::new(),
        })
    }

    /// Ends the slice if `sent` updates (over all documents) are enough, or if it `is_last`.
    pub fn look(
        &mut self,
        session: &Session<'_>,
        sent: u64,
        is_last: bool,
        room: &Room,
    ) -> Result<(), LoadError> {
        let updates = sent / self.documents;
        let sliced = self.slices.last().map_or(0, |slice| slice.updates);
        if updates < self.next && !(is_last && updates > sliced) {
            return Ok(());
        }
        let now_ns = session.clock.now_ns();
        let cpu_s = session.cpu()?.map(|cpu| cpu.total_s);
        let deliveries = room.delivered - self.deliveries;
        let used_s = cpu_s.zip(self.cpu_s).map(|(after, before)| after - before);
        let seconds = |ns: u64| ns.saturating_sub(self.start_ns) as f64 / 1e9;
        self.slices.push(Slice {
            from_s: seconds(self.from_ns),
            to_s: seconds(now_ns),
            updates,
            deliveries,
            cpu_per_delivery_us: used_s.filter(|_| deliveries > 0).map(|s| s * 1e6 / deliveries as f64),
            resident_bytes: session.resident_bytes()?,
            p99_ms: room.latency.since(&self.latency).summary().map(|latency| latency.p99_ms),
        });
        (self.from_ns, self.cpu_s, self.deliveries) = (now_ns, cpu_s, room.delivered);
        self.latency.clone_from(&room.latency);
        self.next = next_bound(updates, self.every);
        Ok(())
    }

    pub fn into_slices(self) -> Vec<Slice> {
        self.slices
    }
}

/// The first of all powers of ten from 1,000 on and all multiples of `every` above `updates`.
fn next_bound(updates: u64, every: u64) -> u64 {
    let mut power = 1_000;
    while power <= updates {
        power *= 10;
    }
    power.min((updates / every + 1) * every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_end_at_powers_of_ten_and_at_multiples() {
        let mut bounds = vec![next_bound(0, 100_000)];
        while bounds.len() < 6 {
            bounds.push(next_bound(bounds[bounds.len() - 1], 100_000));
        }
        assert_eq!(bounds, [1_000, 10_000, 100_000, 200_000, 300_000, 400_000]);
        assert_eq!(next_bound(0, 400), 400);
    }
}
