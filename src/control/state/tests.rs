mod feed;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Control, Effect, Health, Parts, Question};
use crate::control::keys::Jwks;
use crate::control::keys::source::KeyFiles;
use crate::control::keys::source::{FetchError, Fetched};
use crate::control::messages::{ToControl, ToShard};
use crate::control::overload::{Mark, Marks};
use crate::control::settings::{Bounds, KeySettings, Live};
use crate::control::testing::{APP, KnownKeys, LIMITS, TENANT, jwks, key_functions, live, make_verifier};
use crate::control::{DrainOutcome, Mailbox};
use crate::limits::{Claim, Exceeded, Meter, Rates};
use crate::shard::metrics::ShardMetrics;
use crate::time::Now;

const S: Duration = Duration::from_secs(1);

/// A shard's mailbox: whether it has room, and the batches it took.
#[derive(Default)]
struct Inbox {
    is_full: AtomicBool,
    batches: Mutex<VecDeque<Vec<ToShard>>>,
}

/// A control shard without threads, sockets or clock.
struct Rig {
    control: Control,
    now: Now,
    inboxes: Vec<Arc<Inbox>>,
    rss: Arc<AtomicU64>,
}

impl Rig {
    fn new(shards: usize, change: impl FnOnce(&mut Live, &mut Bounds)) -> Self {
        let inboxes: Vec<Arc<Inbox>> = (0..shards).map(|_| Arc::default()).collect();
        let mailbox = |inbox: &Arc<Inbox>| -> Mailbox {
            let inbox = Arc::clone(inbox);
            Arc::new(move |batch| {
                if inbox.is_full.load(Ordering::Relaxed) {
                    return Err(batch);
                }
                inbox.batches.lock().unwrap().push_back(batch);
                Ok(())
            })
        };
        let known = KnownKeys::default();
        let (mut live, mut bounds) = (live(), Bounds::default());
        live.keys =
            KeySettings { jwks_url: "http://unused/{tenantId}".parse().ok(), ..KeySettings::default() };
        change(&mut live, &mut bounds);
        let rss = Arc::new(AtomicU64::new(0));
        let reading = Arc::clone(&rss);
        let parts = Parts {
            live,
            bounds,
            make_verifier: make_verifier(&known),
            key_functions: key_functions(&known),
            mailboxes: inboxes.iter().map(mailbox).collect(),
            rss_bytes: Box::new(move || Some(reading.load(Ordering::Relaxed))),
            certificate: None,
            meter: Some(Meter::new(5)),
        };
        let now = Now { monotonic: 100 * S, unix_s: 1_000_000 };
        let mut control = Control::new(parts, now);
        let preloaded = Jwks::parse(jwks(&["k1"], &[]).as_bytes()).unwrap();
        control.preload(vec![(TENANT, preloaded)], KeyFiles::default()).unwrap();
        let mut rig = Self { control, now, inboxes, rss };
        rig.turn(Vec::new());
        for shard in 0..shards {
            assert!(matches!(rig.taken(shard)[..], [ToShard::Keys { .. }, ToShard::Report]));
            rig.report(shard, ShardMetrics::default());
        }
        rig
    }

    fn turn(&mut self, messages: Vec<ToControl>) {
        for message in messages {
            self.control.handle(self.now, message);
        }
        self.control.handle_timeout(self.now);
        self.control.settle(self.now);
    }

    /// Lets time pass in steps of the control shard's own timeouts, shards staying silent.
    fn pass(&mut self, by: Duration) {
        let end = self.now.after(by);
        while self.now.monotonic < end.monotonic {
            let due = self.control.poll_timeout(self.now).clamp(self.now.monotonic + S / 1000, end.monotonic);
            self.now = self.now.after(due - self.now.monotonic);
            self.turn(Vec::new());
        }
    }

    fn report(&mut self, shard: usize, metrics: ShardMetrics) {
        self.turn(vec![ToControl::Metrics { shard: shard as u16, metrics: Box::new(metrics) }]);
    }

    /// Everything the shard has been sent since the last call.
    fn taken(&self, shard: usize) -> Vec<ToShard> {
        self.inboxes[shard].batches.lock().unwrap().drain(..).flatten().collect()
    }

    fn fetches(&mut self) -> usize {
        std::iter::from_fn(|| self.control.poll_effect())
            .filter(|e| matches!(e, Effect::Fetch { .. }))
            .count()
    }

    fn ask<T>(&mut self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> oneshot::Receiver<T> {
        let (answer, answered) = oneshot::channel();
        self.control.question(self.now, question(answer));
        self.turn(Vec::new());
        answered
    }
}

fn reserve(shard: u16, ticket: u64) -> ToControl {
    let claim = Claim { app: APP, connection: true, document: None };
    ToControl::Reserve { shard, ticket, claim, limits: LIMITS, issued_unix_s: 0 }
}

fn outcomes(messages: &[ToShard]) -> Vec<(u64, bool)> {
    let outcome = |message: &ToShard| match message {
        ToShard::Reserved { ticket, outcome } => Some((*ticket, outcome.is_ok())),
        _ => None,
    };
    messages.iter().filter_map(outcome).collect()
}

#[test]
fn answers_keep_the_order_of_the_questions_and_go_out_as_one_batch() {
    let mut rig = Rig::new(2, |_, _| {});
    rig.turn((0..12).map(|ticket| reserve((ticket % 2) as u16, ticket)).collect());
    for shard in 0..2 {
        assert_eq!(rig.inboxes[shard as usize].batches.lock().unwrap().len(), 1);
        let expected: Vec<_> = (0..6).map(|n| n * 2 + shard).map(|t| (t, t < 8)).collect();
        assert_eq!(outcomes(&rig.taken(shard as usize)), expected, "maxConnections is 8");
    }
}

#[test]
fn a_refused_claim_names_the_limit_and_a_release_makes_room() {
    let mut rig = Rig::new(1, |_, _| {});
    rig.turn((0..9).map(|ticket| reserve(0, ticket)).collect());
    let last = rig.taken(0).pop();
    let limit = Exceeded::Connections { limit: 8 };
    assert!(matches!(last, Some(ToShard::Reserved { ticket: 8, outcome: Err(e) }) if e == limit), "{last:?}");
    let claim = Claim { app: APP, connection: true, document: None };
    rig.turn(vec![ToControl::Release { claim }, reserve(0, 10)]);
    assert_eq!(outcomes(&rig.taken(0)), [(10, true)]);
}

#[test]
fn ops_leases_of_all_shards_share_one_window() {
    let mut rig = Rig::new(2, |_, _| {});
    let lease = |shard| ToControl::LeaseOps { shard, app: APP, ops_per_minute: 100, wanted: 70 };
    rig.turn(vec![lease(0), lease(1)]);
    let granted = |messages: Vec<ToShard>| match messages[..] {
        [ToShard::OpsLeased { granted, window_ends, .. }] => (granted, window_ends),
        _ => panic!("{messages:?}"),
    };
    assert_eq!(granted(rig.taken(0)), (70, 160 * S));
    assert_eq!(granted(rig.taken(1)), (30, 160 * S));
}

#[test]
fn upgrades_are_admitted_by_address() {
    let mut rig = Rig::new(1, |live, _| live.rates = Rates { upgrades_per_minute: 1, ..Rates::UNLIMITED });
    let admit = |ticket| ToControl::Admit { shard: 0, ticket, ip: [203, 0, 113, 9].into() };
    rig.turn(vec![admit(1), admit(2)]);
    let messages = rig.taken(0);
    assert!(
        matches!(
            messages[..],
            [ToShard::Admitted { ticket: 1, allowed: true }, ToShard::Admitted { ticket: 2, allowed: false }]
        ),
        "{messages:?}"
    );
}

#[test]
fn a_question_whose_answer_could_not_be_kept_takes_no_room_in_the_ledger() {
    let mut rig = Rig::new(2, |_, bounds| bounds.backlog_max = 3);
    rig.inboxes[0].is_full.store(true, Ordering::Relaxed);
    rig.turn((0..9).map(|ticket| reserve(0, ticket)).collect());
    assert_eq!(rig.control.ledger.usage(APP).connections, 3);
    // Another shard is not held up by it.
    rig.turn(vec![reserve(1, 50)]);
    assert_eq!(outcomes(&rig.taken(1)), [(50, true)]);
    rig.inboxes[0].is_full.store(false, Ordering::Relaxed);
    rig.turn(Vec::new());
    assert_eq!(outcomes(&rig.taken(0)), [(0, true), (1, true), (2, true)]);
}

#[test]
fn a_full_mailbox_is_tried_again_soon_and_degrades_the_node_while_it_stays_full() {
    let mut rig = Rig::new(1, |_, bounds| bounds.report_interval = 3600 * S);
    rig.inboxes[0].is_full.store(true, Ordering::Relaxed);
    rig.turn(vec![reserve(0, 1)]);
    assert!(rig.control.poll_timeout(rig.now) <= rig.now.monotonic + S / 100);
    assert_eq!(rig.control.health(), Health::Healthy);
    rig.pass(3 * S);
    assert_eq!(rig.control.health(), Health::Degraded);
    rig.inboxes[0].is_full.store(false, Ordering::Relaxed);
    rig.turn(Vec::new());
    assert_eq!(rig.control.health(), Health::Healthy);
    assert!(rig.control.poll_timeout(rig.now) > rig.now.monotonic + S);
}

#[test]
fn a_silent_shard_degrades_the_node_until_it_answers() {
    let mut rig = Rig::new(2, |_, _| {});
    rig.pass(S);
    rig.report(1, ShardMetrics::default());
    for _ in 0..7 {
        rig.pass(S);
        rig.report(1, ShardMetrics::default());
    }
    assert_eq!(rig.control.health(), Health::Degraded);
    assert!(rig.taken(0).len() <= 4, "a silent shard is flooded with reports");
    let mut page = rig.ask(|answer| Question::Metrics { answer });
    rig.report(1, ShardMetrics::default());
    assert!(page.try_recv().is_ok(), "a scrape waits for a shard that is known to be silent");
    for _ in 0..4 {
        rig.report(0, ShardMetrics::default());
    }
    assert_eq!(rig.control.health(), Health::Healthy);
}

#[test]
fn a_reload_is_done_when_every_shard_has_its_settings() {
    let mut rig = Rig::new(2, |_, bounds| bounds.report_interval = 3600 * S);
    let reload = |rig: &mut Rig| {
        let (done, outcome) = oneshot::channel();
        rig.control.reload(rig.now, &live());
        rig.control.reloaded(rig.now, Ok(()), done);
        rig.turn(Vec::new());
        outcome
    };
    let mut outcome = reload(&mut rig);
    for shard in 0..2 {
        assert!(matches!(rig.taken(shard)[..], [ToShard::Settings { .. }, ToShard::Report]));
        assert!(outcome.try_recv().is_err(), "shard {shard} may not have them");
        rig.report(shard, ShardMetrics::default());
    }
    assert!(matches!(outcome.try_recv(), Ok(Ok(()))));
    // Reports that it owes from before say nothing of these settings.
    for _ in 0..9 {
        drop(rig.ask(|answer| Question::Metrics { answer }));
    }
    let mut outcome = reload(&mut rig);
    rig.report(0, ShardMetrics::default());
    for _ in 0..4 {
        rig.report(1, ShardMetrics::default());
    }
    assert!(outcome.try_recv().is_err());
    rig.pass(6 * S);
    match outcome.try_recv() {
        Ok(Err(error)) => assert!(error.to_string().contains("[0, 1]"), "{error}"),
        other => panic!("{other:?}"),
    }
}

fn shed(messages: &[ToShard]) -> Vec<bool> {
    let shed = |message: &ToShard| match message {
        ToShard::Shed { on } => Some(*on),
        _ => None,
    };
    messages.iter().filter_map(shed).collect()
}

#[test]
fn a_node_at_its_connection_mark_sheds_and_recovers_by_itself() {
    let mark = Some(Mark::of(100, 80, 75));
    let mut rig = Rig::new(2, |live, _| live.marks = Marks { connections: mark, rss_bytes: None });
    let open = |connections| ShardMetrics { connections, ..ShardMetrics::default() };
    rig.report(0, open(40));
    rig.report(1, open(40));
    assert_eq!(
        (rig.control.health(), shed(&rig.taken(0)), shed(&rig.taken(1))),
        (Health::Overloaded, vec![true], vec![true])
    );
    rig.report(1, open(37));
    assert_eq!(rig.control.health(), Health::Overloaded);
    rig.report(1, open(34));
    assert_eq!((rig.control.health(), shed(&rig.taken(0))), (Health::Healthy, vec![false]));
}

#[test]
fn a_storm_is_seen_in_the_ledger_before_the_shards_report_it() {
    let mark = Some(Mark { shed_at: 5, recover_at: 3 });
    let mut rig = Rig::new(1, |live, _| live.marks = Marks { connections: mark, rss_bytes: None });
    rig.turn((0..5).map(|ticket| reserve(0, ticket)).collect());
    assert_eq!(shed(&rig.taken(0)), [true]);
}

#[test]
fn memory_is_looked_at_with_every_report() {
    let mark = Some(Mark { shed_at: 1000, recover_at: 900 });
    let mut rig = Rig::new(1, |live, _| live.marks = Marks { connections: None, rss_bytes: mark });
    rig.rss.store(1000, Ordering::Relaxed);
    rig.pass(S);
    assert_eq!(rig.control.health(), Health::Overloaded);
    rig.rss.store(800, Ordering::Relaxed);
    rig.pass(S);
    assert_eq!(rig.control.health(), Health::Healthy);
}

#[test]
fn a_drain_that_shards_do_not_finish_ends_and_names_them() {
    let mut rig = Rig::new(3, |_, bounds| bounds.drain_slack = 5 * S);
    let (done, mut outcome) = oneshot::channel();
    rig.control.drain(rig.now, 10 * S, done);
    rig.turn(vec![ToControl::Drained { shard: 1, round: 1 }]);
    rig.pass(14 * S);
    assert!(outcome.try_recv().is_err(), "the drain ended too soon");
    assert_eq!(rig.control.health(), Health::Draining);
    rig.pass(S);
    assert_eq!(outcome.try_recv(), Ok(DrainOutcome { stragglers: vec![0, 2] }));
}

#[test]
fn a_second_drain_joins_the_first() {
    let mut rig = Rig::new(1, |_, _| {});
    let (first, mut first_outcome) = oneshot::channel();
    let (second, mut second_outcome) = oneshot::channel();
    rig.control.drain(rig.now, S, first);
    rig.control.drain(rig.now, S, second);
    rig.turn(vec![ToControl::Drained { shard: 0, round: 1 }]);
    let drains = rig.taken(0).iter().filter(|m| matches!(m, ToShard::Drain { .. })).count();
    assert_eq!(drains, 1);
    let expected = Ok(DrainOutcome { stragglers: vec![] });
    assert_eq!((first_outcome.try_recv(), second_outcome.try_recv()), (expected.clone(), expected));
}

#[test]
fn a_scrape_waits_for_every_shard_but_not_for_ever() {
    let mut rig = Rig::new(2, |_, bounds| bounds.report_interval = 3600 * S);
    let mut page = rig.ask(|answer| Question::Metrics { answer });
    rig.report(0, ShardMetrics { documents: 2, ..ShardMetrics::default() });
    assert!(page.try_recv().is_err(), "a shard has not answered yet");
    rig.report(1, ShardMetrics { documents: 3, ..ShardMetrics::default() });
    assert!(page.try_recv().unwrap().contains("wiresocket_documents_active 5\n"));

    let mut page = rig.ask(|answer| Question::Metrics { answer });
    rig.report(0, ShardMetrics { documents: 4, ..ShardMetrics::default() });
    rig.pass(S);
    let page = page.try_recv().unwrap();
    assert!(page.contains("wiresocket_shard_up{shard=\"1\"} 0\n"), "{page}");
    assert!(page.contains("wiresocket_documents_active 7\n"), "the silent shard's last figure counts");
}

fn refresh(ticket: u64, key_id: &str) -> ToControl {
    ToControl::RefreshKeys { shard: 0, ticket, tenant: TENANT, key_id: key_id.into() }
}

fn fetched(keys: &[&str], revoked: &[&str]) -> Result<Fetched, FetchError> {
    let jwks = Jwks::parse(jwks(keys, revoked).as_bytes()).unwrap();
    Ok(Fetched::New { jwks, entity_tag: None })
}

#[test]
fn tickets_share_a_fetch_and_are_answered_after_the_new_keys() {
    let mut rig = Rig::new(1, |_, _| {});
    rig.turn(vec![refresh(1, "k2"), refresh(2, "k3")]);
    rig.turn(vec![refresh(3, "k2")]);
    assert_eq!((rig.fetches(), rig.taken(0).len()), (1, 0));
    rig.control.fetched(rig.now, TENANT, fetched(&["k2"], &[]));
    rig.turn(vec![refresh(4, "k2"), refresh(5, "k9")]);
    let messages = rig.taken(0);
    assert!(matches!(messages[0], ToShard::Keys { .. }), "{messages:?}");
    let ticket = |m: &ToShard| match m {
        ToShard::KeysRefreshed { ticket } => *ticket,
        _ => panic!("{m:?}"),
    };
    // 4 is known by now and 5 comes too soon for another fetch: both are answered at once.
    assert_eq!(messages[1..].iter().map(ticket).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(rig.fetches(), 0);
}

#[test]
fn a_revoked_key_is_taken_from_the_sets_before_its_sessions_end_and_never_asked_for_again() {
    let mut rig = Rig::new(2, |_, _| {});
    rig.control.fetched(rig.now, TENANT, fetched(&["k2"], &["k1"]));
    rig.turn(vec![refresh(1, "k1")]);
    let messages = rig.taken(1);
    assert!(matches!(messages[..], [ToShard::Keys { .. }, ToShard::KeyRevoked { .. }]), "{messages:?}");
    assert!(matches!(rig.taken(0)[..], [_, _, ToShard::KeysRefreshed { ticket: 1 }]));
    assert_eq!(rig.fetches(), 0);
}

#[test]
fn a_token_with_an_unknown_key_is_checked_again_after_one_fetch() {
    let mut rig = Rig::new(1, |_, _| {});
    let mut checked = rig.ask(|answer| Question::Check { token: "key:k2".into(), answer });
    assert!(checked.try_recv().is_err() && rig.fetches() == 1);
    rig.control.fetched(rig.now, TENANT, fetched(&["k2"], &[]));
    assert!(checked.try_recv().unwrap().is_ok());
    let mut checked = rig.ask(|answer| Question::Check { token: "key:k3".into(), answer });
    assert!(checked.try_recv().unwrap().is_err(), "refused at once: one refresh per interval");
}

#[test]
fn a_tenant_for_which_there_are_no_keys_is_not_polled() {
    let mut rig = Rig::new(1, |_, _| {});
    let stranger = uuid::Uuid::from_u128(99);
    rig.turn(vec![ToControl::RefreshKeys { shard: 0, ticket: 1, tenant: stranger, key_id: "x".into() }]);
    assert_eq!(rig.fetches(), 1);
    rig.control.fetched(rig.now, stranger, fetched(&[], &[]));
    rig.pass(2 * KeySettings::default().poll_interval);
    assert_eq!(rig.fetches(), 0);
}

#[test]
fn a_tenant_whose_keys_a_token_brought_in_is_polled_from_then_on() {
    let mut rig = Rig::new(1, |_, _| {});
    rig.turn(vec![refresh(1, "k2")]);
    rig.fetches();
    rig.control.fetched(rig.now, TENANT, fetched(&["k2"], &[]));
    rig.pass(KeySettings::default().poll_interval);
    assert_eq!(rig.fetches(), 1);
}

#[test]
fn keys_that_cannot_be_fetched_for_too_long_are_no_longer_trusted_until_they_are_fetched_again() {
    let mut rig = Rig::new(1, |live, _| {
        live.keys.tenants = vec![TENANT];
        live.keys.poll_interval = 100 * S;
        live.keys.stale_after = 250 * S;
    });
    let is_known = |rig: &mut Rig| {
        let mut checked = rig.ask(|answer| Question::Check { token: "key:k2".into(), answer });
        rig.control.fetched(rig.now, TENANT, Ok(Fetched::Same)); // whatever the check has asked for
        checked.try_recv().unwrap().is_ok()
    };
    rig.control.fetched(rig.now, TENANT, fetched(&["k2"], &[]));
    assert!(is_known(&mut rig));
    rig.pass(200 * S);
    assert!(rig.control.store.is_decided(TENANT, "k2"));
    rig.pass(101 * S);
    assert!(!rig.control.store.is_decided(TENANT, "k2"), "stale keys are still trusted");
    assert!(rig.control.store.is_decided(TENANT, "k1"), "keys of another source are");
    rig.control.fetched(rig.now, TENANT, fetched(&["k2"], &[]));
    assert!(is_known(&mut rig));
}
