//! Which connection gets its newer token next, evenly spread: a server must not see all of them at once.

use crate::target::Target;
use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Renewal {
    generation: u64,
    pending: VecDeque<u32>,
    next_ns: u64,
    interval_ns: u64,
}

impl Renewal {
    pub fn new(target: &Target) -> Self {
        Self { generation: target.tokens.generation(), pending: VecDeque::new(), next_ns: 0, interval_ns: 0 }
    }

    /// The connection whose turn it is, of `connections` in all.
    #[inline]
    pub fn next(&mut self, target: &Target, now_ns: u64, connections: u32) -> Option<u32> {
        if target.tokens.generation() != self.generation {
            self.begin(target, now_ns, connections);
        }
        if self.pending.is_empty() || now_ns < self.next_ns {
            return None;
        }
        self.next_ns += self.interval_ns;
        self.pending.pop_front()
    }

    #[cold]
    fn begin(&mut self, target: &Target, now_ns: u64, connections: u32) {
        self.generation = target.tokens.generation();
        if target.renews_in_band {
            self.pending = (0..connections).collect();
            self.next_ns = now_ns;
            self.interval_ns =
                (target.tokens.spread().as_nanos() as u64 / u64::from(connections.max(1))).max(1);
        }
    }

    /// It was not ready: after the others.
    pub fn postpone(&mut self, number: u32) {
        self.pending.push_back(number);
    }
}
