//! What happens while people type: some stop reading, some are cut off, some come and go.
//!
//! Every instant is fixed before the run, whatever the server does meanwhile.

use super::attendance::Cause;
use super::room::Room;
use crate::event_loop::EventLoop;
use crate::load::{LoadError, Session, seconds_ns};
use crate::scenario::Typing;
use std::collections::VecDeque;
use std::ops::Range;

/// How often a reader that is slowed down takes what it may.
const SIP_INTERVAL_NS: u64 = 50_000_000;
/// How often the server's memory is looked at while readers are stalled.
const MEMORY_INTERVAL_NS: u64 = 100_000_000;
/// Those who leave are chosen all over: by steps of about this share of all readers.
const GOLDEN_SHARE: f64 = 0.618;

#[derive(Debug)]
struct Storm {
    at_ns: u64,
    share: f64,
    reset: bool,
}

#[derive(Debug)]
struct Churn {
    readers: Vec<u32>,
    step: usize,
    next: usize,
    departures: u64,
    interval_ns: f64,
    start_ns: u64,
    end_ns: u64,
    away_ns: u64,
    returns: VecDeque<(u64, u32)>, // when, and who; soonest first
}

#[derive(Debug)]
struct Stall {
    from_ns: u64,
    to_ns: u64,
    bytes_per_sip: usize,
    next_sip_ns: u64,
}

#[derive(Debug)]
pub(super) struct Disturbances {
    storm: Option<Storm>,
    churn: Option<Churn>,
    stall: Option<Stall>,
    stalled: Option<Stall>, // going on
    end_ns: u64,
    memory_ns: u64,
    pub resident_before_bytes: Option<u64>,
    pub resident_peak_bytes: Option<u64>,
}

impl Disturbances {
    pub fn new(typing: &Typing, room: &Room) -> Self {
        let (start_ns, end_ns) = (room.window_ns.start, room.window_ns.end);
        let storm = typing.storm.as_ref().map(|storm| Storm {
            at_ns: start_ns + seconds_ns(storm.at_s),
            share: storm.share,
            reset: storm.reset,
        });
        let churn = typing.churn.as_ref().map(|churn| {
            let reads_only = |seat: &u32| seat % room.clients >= room.writers && !room.slow.contains(*seat);
            let readers: Vec<u32> = (0..room.seats()).filter(reads_only).collect();
            Churn {
                step: coprime_step(readers.len()),
                readers,
                next: 0,
                departures: 0,
                interval_ns: 1e9 / churn.rate,
                start_ns,
                end_ns,
                away_ns: seconds_ns(churn.away_s),
                returns: VecDeque::new(),
            }
        });
        let stall = typing.slow_readers.as_ref().map(|slow| Stall {
            from_ns: start_ns + seconds_ns(slow.at_s),
            to_ns: start_ns + seconds_ns(slow.at_s + slow.for_s),
            bytes_per_sip: (u64::from(slow.bytes_per_s) * SIP_INTERVAL_NS / 1_000_000_000) as usize,
            next_sip_ns: u64::MAX,
        });
        let churn_end_ns = churn.as_ref().map_or(0, |churn| churn.end_ns + churn.away_ns);
        let stall_end_ns = stall.as_ref().map_or(0, |stall| stall.to_ns);
        Self {
            storm,
            churn,
            end_ns: churn_end_ns.max(stall_end_ns),
            stall,
            stalled: None,
            memory_ns: if typing.slow_readers.is_some() { 0 } else { u64::MAX },
            resident_before_bytes: None,
            resident_peak_bytes: None,
        }
    }

    /// When something is to be done next.
    pub fn next_ns(&self) -> u64 {
        let storm_ns = self.storm.as_ref().map_or(u64::MAX, |storm| storm.at_ns);
        let churn_ns = self.churn.as_ref().map_or(u64::MAX, Churn::next_ns);
        let stall_ns = self.stall.as_ref().map_or(u64::MAX, |stall| stall.from_ns);
        let stalled_ns = self.stalled.as_ref().map_or(u64::MAX, |stall| stall.next_sip_ns.min(stall.to_ns));
        storm_ns.min(churn_ns).min(stall_ns).min(stalled_ns).min(self.memory_ns)
    }

    /// When readers are to be stalled.
    pub fn stall_ns(&self) -> Range<u64> {
        self.stall.as_ref().map_or(0..0, |stall| stall.from_ns..stall.to_ns)
    }

    /// When the last of them is to be over.
    pub fn end_ns(&self) -> u64 {
        self.end_ns
    }

    /// Has everything happened that was to happen?
    pub fn are_over(&self) -> bool {
        self.storm.is_none()
            && self.stall.is_none()
            && self.stalled.is_none()
            && self.churn.as_ref().is_none_or(|churn| churn.next_ns() == u64::MAX)
    }

    /// Does what is due, and connects those who come back.
    pub fn run(
        &mut self,
        now_ns: u64,
        session: &Session<'_>,
        event_loop: &mut EventLoop,
        room: &mut Room,
    ) -> Result<(), LoadError> {
        if now_ns >= self.memory_ns {
            self.memory_ns = now_ns + MEMORY_INTERVAL_NS;
            self.resident_peak_bytes = self.resident_peak_bytes.max(session.resident_bytes()?);
        }
        if let Some(stall) = self.stall.take_if(|stall| stall.from_ns <= now_ns) {
            self.resident_before_bytes = session.resident_bytes()?;
            self.stalled = Some(start_stall(stall, event_loop, room)?);
        }
        if let Some(stall) = &mut self.stalled {
            sip(stall, now_ns, event_loop, room);
        }
        if self.stalled.take_if(|stall| stall.to_ns <= now_ns).is_some() {
            for seat in (0..room.seats()).filter(|seat| room.slow.contains(*seat)) {
                event_loop.resume(seat).map_err(LoadError::EventLoop)?;
            }
        }
        if self.stalled.is_none() {
            for seat in std::mem::take(&mut room.fallen) {
                room.come_back(seat, now_ns, Cause::Stall);
            }
        }
        if let Some(storm) = self.storm.take_if(|storm| storm.at_ns <= now_ns) {
            break_out(&storm, event_loop, room);
        }
        if let Some(churn) = &mut self.churn {
            churn.run(now_ns, event_loop, room);
        }
        room.connect_returning(session, event_loop)
    }
}

fn start_stall(mut stall: Stall, event_loop: &mut EventLoop, room: &mut Room) -> Result<Stall, LoadError> {
    room.slow.is_stalled = true;
    for seat in (0..room.seats()).filter(|seat| room.slow.contains(*seat)) {
        event_loop.pause(seat).map_err(LoadError::EventLoop)?;
    }
    if stall.bytes_per_sip > 0 {
        stall.next_sip_ns = stall.from_ns;
    }
    Ok(stall)
}

fn sip(stall: &mut Stall, now_ns: u64, event_loop: &mut EventLoop, room: &mut Room) {
    if stall.next_sip_ns > now_ns {
        return;
    }
    stall.next_sip_ns = now_ns + SIP_INTERVAL_NS;
    for seat in 0..room.seats() {
        if room.slow.contains(seat) {
            event_loop.sip(seat, stall.bytes_per_sip, room);
        }
    }
}

/// Cuts the share of all who are there, evenly spread; all are to come back at once.
fn break_out(storm: &Storm, event_loop: &mut EventLoop, room: &mut Room) {
    let cut = |seat: u32| (f64::from(seat + 1) * storm.share) as u32 > (f64::from(seat) * storm.share) as u32;
    for seat in 0..room.seats() {
        if cut(seat) && room.attendance.is_here(seat) && !room.slow.contains(seat) {
            room.leave(seat, storm.reset, event_loop);
            room.come_back(seat, storm.at_ns, Cause::Storm);
        }
    }
}

impl Churn {
    fn departure_ns(&self) -> u64 {
        let due_ns = self.start_ns + (self.departures as f64 * self.interval_ns) as u64;
        if due_ns < self.end_ns { due_ns } else { u64::MAX }
    }

    fn next_ns(&self) -> u64 {
        self.returns.front().map_or(u64::MAX, |(due_ns, _)| *due_ns).min(self.departure_ns())
    }

    fn run(&mut self, now_ns: u64, event_loop: &mut EventLoop, room: &mut Room) {
        while self.departure_ns() <= now_ns {
            let due_ns = self.departure_ns();
            self.departures += 1;
            if let Some(seat) = self.choose(room) {
                room.leave(seat, false, event_loop);
                self.returns.push_back((due_ns + self.away_ns, seat));
            }
        }
        while let Some((due_ns, seat)) = self.returns.pop_front_if(|(due_ns, _)| *due_ns <= now_ns) {
            room.come_back(seat, due_ns, Cause::Churn);
        }
    }

    /// The next one who is there.
    fn choose(&mut self, room: &Room) -> Option<u32> {
        (0..self.readers.len()).find_map(|_| {
            let seat = self.readers[self.next];
            self.next = (self.next + self.step) % self.readers.len();
            room.attendance.is_here(seat).then_some(seat)
        })
    }
}

/// A step that comes by all of `len` before it repeats.
fn coprime_step(len: usize) -> usize {
    let divisor = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let first = ((len as f64 * GOLDEN_SHARE) as usize).max(1);
    (first..=len.max(1)).find(|step| divisor(*step, len) == 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_comes_by_everyone() {
        for len in 1..200 {
            let step = coprime_step(len);
            let mut seen = vec![false; len];
            (0..len).for_each(|nth| seen[nth * step % len] = true);
            assert!(seen.into_iter().all(|seen| seen), "{len}: {step}");
        }
    }
}
