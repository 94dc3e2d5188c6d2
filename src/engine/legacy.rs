//! What a client sent before it left, while its app's ops were being leased: sent is sent, so it is applied all the
//! same, within the same limit, as soon as the lease is there. Only of clients that may write: nobody asks here any more.
//!
//! Bounded for an app by what one session may hold ([`super::ops::OpsMeter::inherit`]); a document that is gone by then
//! takes it along.

use super::Engine;
use super::keeping::Stand;
use super::ops::Verdict;
use super::prescan;
use super::slab::Key;
use crate::protocol::document::AppId;
use crate::protocol::message::Message;
use crate::time::Now;

/// Messages of one session that left, in order.
#[derive(Debug)]
pub struct Legacy {
    pub room: Key,
    pub ops_per_minute: u32,
    pub messages: Vec<Box<[u8]>>,
}

impl Legacy {
    pub fn bytes(&self) -> usize {
        self.messages.iter().map(|body| body.len()).sum()
    }
}

impl Engine {
    /// The app's ops were leased: apply what waited for them.
    pub(super) fn apply_legacies(&mut self, now: Now, app: AppId) {
        let mut legacies = std::mem::take(&mut self.meter(app).legacies).into_iter();
        for mut legacy in legacies.by_ref() {
            let (room, ops_per_minute) = (legacy.room, legacy.ops_per_minute);
            let count =
                legacy.messages.iter().take_while(|body| self.apply_left(now, app, room, body)).count();
            self.ask_for_ops(now, app, ops_per_minute);
            if count < legacy.messages.len() {
                legacy.messages.drain(..count);
                self.meter(app).legacies.push(legacy);
                break;
            }
        }
        self.meter(app).legacies.extend(legacies);
    }

    /// Whether this message is done with; `false` if it waits for the next lease.
    fn apply_left(&mut self, now: Now, app: AppId, room: Key, body: &[u8]) -> bool {
        let Ok(Message::StepTwo(update) | Message::Update(update)) = Message::parse(body) else {
            return true;
        };
        if prescan::scan(update, &prescan::ScanLimits::default(), &mut self.scan).is_err() {
            return true;
        }
        if self.rooms.get(room).is_none_or(|room| room.stand == Stand::Loading) {
            return true;
        }
        match self.meter(app).verdict(now.monotonic) {
            Verdict::Pass => {}
            Verdict::Wait => return false,
            Verdict::Exceeded => return true,
        }
        self.counters.updates_in += 1;
        // Nobody is there to be told what is wrong with it.
        let _ = self.apply(now, room, app, None, update);
        true
    }
}
