//! `opsPerMinute` as the engine uses it: which sessions wait for a lease, and what happens when it comes.

use std::time::Duration;

use smallvec::SmallVec;

use super::Engine;
use super::event::Effect;
use super::ops::{ANSWER_TIMEOUT, OpsMeter, Verdict};
use super::slab::Key;
use super::timers::Timer;
use crate::protocol::document::AppId;
use crate::time::Now;

impl Engine {
    pub(super) fn meter(&mut self, app: AppId) -> &mut OpsMeter {
        self.meters.entry(app).or_default()
    }

    /// May one more op pass? A session that must wait is noted with the meter.
    pub(super) fn ops_verdict(&mut self, now: Now, app: AppId, ops_per_minute: u32, key: Key) -> Verdict {
        let verdict = self.meter(app).verdict(now.monotonic);
        if verdict == Verdict::Wait {
            self.meter(app).waiting.push(key);
            self.ask_for_ops(now, app, ops_per_minute);
        }
        verdict
    }

    /// By app, the ops that have changed documents since this was last asked. An app may come twice.
    pub fn take_ops(&mut self) -> Vec<(AppId, u64)> {
        let mut ops = std::mem::take(&mut self.ops_done);
        ops.extend(
            self.meters.iter_mut().map(|(&app, meter)| (app, meter.take_done())).filter(|(_, n)| *n > 0),
        );
        ops
    }

    /// Leases ops ahead of need.
    pub(super) fn ask_for_ops(&mut self, now: Now, app: AppId, ops_per_minute: u32) {
        let wanted = OpsMeter::lot(ops_per_minute, self.shards);
        if self.meter(app).ask(now.monotonic, ops_per_minute, wanted) {
            self.effects.push_back(Effect::LeaseOps { app, ops_per_minute, wanted });
            self.timers.set(now.monotonic + ANSWER_TIMEOUT, Timer::OpsWindow);
        }
    }

    /// Windows end, and questions for ops may have stayed unanswered.
    pub(super) fn check_meters(&mut self, now: Now) {
        let mut again: SmallVec<[(AppId, u32); 4]> = SmallVec::new();
        self.meters.retain(|&app, meter| {
            if meter.is_unanswered(now.monotonic) {
                again.push((app, meter.ops_per_minute()));
            }
            let stays = !meter.is_idle(now.monotonic);
            let done = if stays { 0 } else { meter.take_done() };
            if done > 0 {
                self.ops_done.push((app, done));
            }
            stays
        });
        for (app, ops_per_minute) in again {
            self.ask_for_ops(now, app, ops_per_minute);
        }
    }

    pub(super) fn ops_leased(&mut self, now: Now, app: AppId, granted: u32, window_ends: Duration) {
        let meter = self.meter(app);
        let is_new = window_ends > meter.window_ends();
        let (waiting, rooms) = meter.leased(granted, window_ends);
        let ops_per_minute = meter.ops_per_minute();
        if is_new {
            self.timers.set(window_ends, Timer::OpsWindow);
        }
        for room in rooms {
            self.retry_parked(now, room, app, ops_per_minute);
        }
        for key in waiting {
            self.release_held(now, key);
        }
        self.apply_legacies(now, app);
    }
}
