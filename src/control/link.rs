//! The way to one shard: what waits for its mailbox, and whether it still answers.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::messages::{ShardIndex, ToShard};
use super::settings::Bounds;
use crate::shard::metrics::ShardMetrics;

/// Puts messages into a shard's mailbox, in order, and wakes the shard. Gives back what did not fit; must not block.
pub type Mailbox = Arc<dyn Fn(Vec<ToShard>) -> Result<(), Vec<ToShard>> + Send + Sync>;

/// Reports a shard may owe before it is asked for no more of them.
const REPORTS_OWED_MAX: u64 = 4;

pub(super) struct ShardLink {
    pub index: ShardIndex,
    mailbox: Mailbox,
    /// This turn's messages, after those that the mailbox gave back.
    outbox: Vec<ToShard>,
    full_since: Option<Duration>,
    reports_asked: u64,
    reports_answered: u64,
    /// When the oldest report that is still owed was asked for, as far as known.
    owes_since: Option<Duration>,
    silent: bool,
    stuck: bool,
    pub drained: bool,
    pub metrics: Option<Arc<ShardMetrics>>,
    /// Questions of this shard that went unanswered because its backlog was full.
    pub unanswered_total: u64,
    /// Times this shard was found silent or its mailbox stuck.
    pub faults_total: u64,
}

impl ShardLink {
    pub fn new(index: ShardIndex, mailbox: Mailbox) -> Self {
        Self {
            index,
            mailbox,
            outbox: Vec::new(),
            full_since: None,
            reports_asked: 0,
            reports_answered: 0,
            owes_since: None,
            silent: false,
            stuck: false,
            drained: false,
            metrics: None,
            unanswered_total: 0,
            faults_total: 0,
        }
    }

    /// Whether one more answer fits. A question that comes when none does is not decided at all: an answer that could
    /// not be delivered would hold a reservation for ever.
    pub fn has_room(&mut self, bounds: &Bounds) -> bool {
        let has_room = self.outbox.len() < bounds.backlog_max;
        self.unanswered_total += u64::from(!has_room);
        has_room
    }

    /// Queues a message for the end of this turn.
    ///
    /// Of the messages that carry a whole state, only the newest is kept, in the place of the older one: whatever was
    /// said after the older one still finds a state at least as new.
    pub fn send(&mut self, message: ToShard) {
        let replaced = match &message {
            ToShard::Keys { .. } => self.find(|m| matches!(m, ToShard::Keys { .. })),
            ToShard::Settings { .. } => self.find(|m| matches!(m, ToShard::Settings { .. })),
            ToShard::Shed { .. } => self.find(|m| matches!(m, ToShard::Shed { .. })),
            _ => None,
        };
        match replaced {
            Some(older) => *older = message,
            None => self.outbox.push(message),
        }
    }

    fn find(&mut self, is_it: fn(&ToShard) -> bool) -> Option<&mut ToShard> {
        self.outbox.iter_mut().find(|message| is_it(message))
    }

    /// Hands this turn's messages over, as one batch.
    pub fn flush(&mut self, now: Duration) {
        if self.outbox.is_empty() {
            return;
        }
        match (self.mailbox)(mem::take(&mut self.outbox)) {
            Ok(()) => self.full_since = None,
            Err(kept) => {
                self.outbox = kept;
                self.full_since.get_or_insert(now);
            }
        }
    }

    pub fn backlog(&self) -> usize {
        self.outbox.len()
    }

    /// Asks for the shard's figures, unless it owes too many already; the number to wait for with [`Self::has_reported`].
    pub fn ask_report(&mut self, now: Duration) -> u64 {
        if self.reports_asked - self.reports_answered < REPORTS_OWED_MAX {
            self.reports_asked += 1;
            self.owes_since.get_or_insert(now);
            self.send(ToShard::Report);
        }
        self.reports_asked
    }

    /// Asks for one more report, however many it owes: once that is there, the shard has read all that was sent before.
    pub fn ask_report_behind(&mut self, now: Duration) -> u64 {
        self.reports_asked += 1;
        self.owes_since.get_or_insert(now);
        self.send(ToShard::Report);
        self.reports_asked
    }

    pub fn has_reported(&self, number: u64) -> bool {
        self.reports_answered >= number
    }

    pub fn reported(&mut self, now: Duration, metrics: ShardMetrics) {
        self.metrics = Some(Arc::new(metrics));
        self.reports_answered = (self.reports_answered + 1).min(self.reports_asked);
        self.owes_since = (self.reports_answered < self.reports_asked).then_some(now);
    }

    /// Looks whether the shard has been silent, or its mailbox full, for too long; says so once.
    pub fn check(&mut self, now: Duration, bounds: &Bounds) {
        let exceeds = |since: Option<Duration>, max| since.is_some_and(|since| now - since > max);
        let silent = exceeds(self.owes_since, bounds.silence_max);
        let stuck = exceeds(self.full_since, bounds.mailbox_full_max);
        if silent && !self.silent {
            self.faults_total += 1;
            tracing::error!(shard = self.index, "a shard does not answer; the node reports degraded");
        }
        if stuck && !self.stuck {
            self.faults_total += 1;
            let backlog = self.outbox.len();
            tracing::error!(
                shard = self.index,
                backlog,
                "a shard's mailbox stays full; the node reports degraded"
            );
        }
        if (self.silent || self.stuck) && !silent && !stuck {
            tracing::info!(shard = self.index, "the shard answers again");
        }
        (self.silent, self.stuck) = (silent, stuck);
    }

    pub fn is_well(&self) -> bool {
        !self.silent && !self.stuck
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// A mailbox with room for as many messages as the number says.
    fn mailbox(room: &Arc<AtomicUsize>, taken: &Arc<Mutex<Vec<ToShard>>>) -> Mailbox {
        let (room, taken) = (Arc::clone(room), Arc::clone(taken));
        Arc::new(move |mut messages| {
            let fits = messages.len().min(room.load(Ordering::Relaxed));
            let rest = messages.split_off(fits);
            taken.lock().unwrap().extend(messages);
            if rest.is_empty() { Ok(()) } else { Err(rest) }
        })
    }

    fn link(room: usize) -> (ShardLink, Arc<AtomicUsize>, Arc<Mutex<Vec<ToShard>>>) {
        let (room, taken) = (Arc::new(AtomicUsize::new(room)), Arc::default());
        (ShardLink::new(0, mailbox(&room, &taken)), room, taken)
    }

    fn tickets(taken: &Mutex<Vec<ToShard>>) -> Vec<u64> {
        let ticket = |m: &ToShard| match m {
            ToShard::KeysRefreshed { ticket } => Some(*ticket),
            _ => None,
        };
        taken.lock().unwrap().iter().filter_map(ticket).collect()
    }

    #[test]
    fn what_a_full_mailbox_gives_back_goes_first_next_time() {
        let (mut link, room, taken) = link(2);
        for ticket in 0..4 {
            link.send(ToShard::KeysRefreshed { ticket });
        }
        link.flush(S);
        assert_eq!((tickets(&taken), link.backlog()), (vec![0, 1], 2));
        link.send(ToShard::KeysRefreshed { ticket: 4 });
        room.store(9, Ordering::Relaxed);
        link.flush(S);
        assert_eq!((tickets(&taken), link.backlog()), (vec![0, 1, 2, 3, 4], 0));
    }

    #[test]
    fn of_the_states_that_wait_only_the_newest_is_kept_in_the_oldest_place() {
        let (mut link, room, taken) = link(0);
        link.send(ToShard::Shed { on: true });
        link.send(ToShard::KeysRefreshed { ticket: 1 });
        link.send(ToShard::Shed { on: false });
        room.store(9, Ordering::Relaxed);
        link.flush(S);
        let taken = taken.lock().unwrap();
        assert!(matches!(taken[..], [ToShard::Shed { on: false }, ToShard::KeysRefreshed { ticket: 1 }]));
    }

    #[test]
    fn a_mailbox_that_stays_full_is_a_fault_until_it_empties() {
        let (mut link, room, _taken) = link(0);
        let bounds = Bounds::default();
        link.send(ToShard::Report);
        link.flush(S);
        link.check(S + bounds.mailbox_full_max, &bounds);
        assert!(link.is_well());
        link.check(2 * S + bounds.mailbox_full_max, &bounds);
        assert!(!link.is_well() && link.faults_total == 1);
        room.store(1, Ordering::Relaxed);
        link.flush(9 * S);
        link.check(9 * S, &bounds);
        assert!(link.is_well());
    }

    #[test]
    fn a_shard_that_owes_a_report_for_too_long_is_silent_until_it_answers() {
        let (mut link, _room, _taken) = link(99);
        let bounds = Bounds::default();
        for n in 0..10 {
            link.ask_report(n * S);
        }
        assert_eq!(link.reports_asked, REPORTS_OWED_MAX);
        link.check(10 * S, &bounds);
        assert!(!link.is_well());
        for _ in 0..REPORTS_OWED_MAX {
            link.reported(10 * S, ShardMetrics::default());
        }
        link.check(11 * S, &bounds);
        assert!(link.is_well() && link.has_reported(REPORTS_OWED_MAX));
    }
}
