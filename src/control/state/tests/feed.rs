//! What the dashboard's feed brings, and what it is told.

use tokio::sync::oneshot;

use super::*;
use crate::control::keys::feed::{FromFeed, HeartbeatAnswer, UsageAnswer};

fn pushed(keys: &[&str], revoked: &[&str]) -> FromFeed {
    let jwks = Jwks::parse(jwks(keys, revoked).as_bytes()).unwrap();
    FromFeed::Documents { documents: vec![(TENANT, jwks)], is_complete: true }
}

fn is_known(rig: &mut Rig, token: &str) -> bool {
    let mut checked = rig.ask(|answer| Question::Check { token: token.into(), answer });
    checked.try_recv().is_ok_and(|checked| checked.is_ok())
}

#[test]
fn what_was_fetched_before_the_feed_spoke_does_not_undo_what_it_said() {
    let mut rig = Rig::new(1, |_, _| {});
    rig.turn(vec![refresh(1, "k2")]);
    assert_eq!(rig.fetches(), 1);
    rig.control.heard(rig.now, pushed(&["k2", "k3"], &[]));
    rig.control.fetched(rig.now, TENANT, fetched(&["k2"], &[]));
    assert!(is_known(&mut rig, "key:k3"));
    let answered = rig.taken(0).iter().any(|message| matches!(message, ToShard::KeysRefreshed { ticket: 1 }));
    assert!(answered, "whoever waited for the fetch is answered all the same");
    // The next one begins after what the feed said, and counts.
    rig.pass(KeySettings::default().refresh_interval);
    rig.turn(vec![refresh(2, "k4")]);
    rig.control.fetched(rig.now, TENANT, fetched(&["k4"], &[]));
    assert!(is_known(&mut rig, "key:k4"));
}

#[test]
fn while_the_feed_is_followed_nothing_is_polled_and_keys_stay_trusted() {
    let mut rig = Rig::new(1, |live, _| live.keys.stale_after = 400 * S);
    rig.control.heard(rig.now, pushed(&["k2"], &[]));
    rig.pass(10 * KeySettings::default().poll_interval);
    assert_eq!(rig.fetches(), 0);
    assert!(is_known(&mut rig, "key:k2"));
    rig.control.heard(rig.now, FromFeed::Lost);
    rig.pass(KeySettings::default().poll_interval);
    assert_eq!(rig.fetches(), 1, "the tenants that were pushed are polled now");
}

#[test]
fn a_batch_of_the_feed_reaches_a_shard_as_one_change_with_its_revocations_after() {
    let mut rig = Rig::new(1, |_, _| {});
    let documents = (1..=3).map(|n| {
        let keys = jwks(&[&format!("k{n}")], &[&format!("r{n}")]);
        (uuid::Uuid::from_u128(n), Jwks::parse(keys.as_bytes()).unwrap())
    });
    rig.control.heard(rig.now, FromFeed::Documents { documents: documents.collect(), is_complete: false });
    rig.turn(Vec::new());
    let messages = rig.taken(0);
    assert!(matches!(messages[0], ToShard::Keys { .. }), "{messages:?}");
    assert!(
        messages[1..].iter().all(|message| matches!(message, ToShard::KeyRevoked { .. })),
        "{messages:?}"
    );
    assert_eq!(messages.len(), 4);
}

#[test]
fn a_node_with_a_credential_says_that_it_lives_as_often_as_the_dashboard_wants() {
    fn beats(rig: &mut Rig) -> usize {
        std::iter::from_fn(|| rig.control.poll_effect()).filter(|e| matches!(e, Effect::Heartbeat(_))).count()
    }
    let mut rig = Rig::new(1, |_, _| {});
    rig.pass(60 * S);
    assert_eq!(beats(&mut rig), 0, "without a credential there is nobody to say it to");
    rig.control.heard(rig.now, FromFeed::Enrolled { credential: "secret".into() });
    rig.pass(60 * S);
    assert_eq!(beats(&mut rig), 1, "one at a time");
    let answer = HeartbeatAnswer { state: "active".into(), heartbeat_s: 30 };
    rig.control.heartbeat_answered(rig.now, Ok(answer));
    rig.pass(29 * S);
    assert_eq!(beats(&mut rig), 0);
    rig.pass(S);
    assert_eq!(beats(&mut rig), 1);
}

fn fleet(wanted: &str) -> FromFeed {
    let id = uuid::Uuid::from_u128(1);
    let node = serde_json::json!({
        "id": id, "region": "aws-us-east-1", "publicUrl": "wss://node.example.com", "state": "active", "wanted": wanted,
    });
    FromFeed::Fleet(serde_json::from_value(serde_json::json!({ "self": id, "nodes": [node] })).unwrap())
}

fn health(rig: &mut Rig) -> Health {
    rig.ask(|answer| Question::Health { answer }).try_recv().unwrap().0
}

#[test]
fn the_dashboard_can_have_a_node_drained_and_call_it_off() {
    let mut rig = Rig::new(1, |live, _| live.drain_spread = 7 * S);
    rig.control.heard(rig.now, fleet("active"));
    rig.turn(Vec::new());
    assert_eq!(health(&mut rig), Health::Healthy);
    assert!(rig.taken(0).is_empty());

    rig.control.heard(rig.now, fleet("draining"));
    rig.control.heard(rig.now, fleet("draining"));
    rig.turn(Vec::new());
    let messages = rig.taken(0);
    assert!(matches!(messages[..], [ToShard::Drain { over, round: 1 }] if over == 7 * S), "{messages:?}");
    assert_eq!(health(&mut rig), Health::Draining);
    rig.turn(vec![ToControl::Drained { shard: 0, round: 1 }]);

    rig.control.heard(rig.now, fleet("active"));
    rig.turn(Vec::new());
    let messages = rig.taken(0);
    assert!(matches!(messages[..], [ToShard::Accept]), "{messages:?}");
    assert_eq!(health(&mut rig), Health::Healthy);
}

#[test]
fn a_heartbeats_answer_drains_only_while_the_feed_says_nothing() {
    let draining = || Ok(HeartbeatAnswer { state: "draining".into(), heartbeat_s: 10 });
    let mut rig = Rig::new(1, |_, _| {});
    rig.control.heard(rig.now, fleet("active"));
    rig.control.heartbeat_answered(rig.now, draining());
    assert_eq!(health(&mut rig), Health::Healthy, "the answer is older than what the feed said");
    rig.control.heard(rig.now, FromFeed::Lost);
    rig.control.heartbeat_answered(rig.now, draining());
    assert_eq!(health(&mut rig), Health::Draining);
}

#[test]
fn a_process_that_ends_is_not_called_back_and_waits_for_its_own_drain() {
    let mut rig = Rig::new(1, |_, _| {});
    rig.control.heard(rig.now, fleet("draining"));
    rig.turn(vec![ToControl::Drained { shard: 0, round: 1 }]);
    let (done, mut outcome) = oneshot::channel();
    rig.control.drain(rig.now, S, done);
    rig.turn(Vec::new());
    assert!(outcome.try_recv().is_err(), "an earlier drain's end is not this one's");
    rig.turn(vec![ToControl::Drained { shard: 0, round: 1 }]);
    assert!(outcome.try_recv().is_err());
    rig.control.heard(rig.now, fleet("active"));
    assert_eq!(health(&mut rig), Health::Draining);
    rig.turn(vec![ToControl::Drained { shard: 0, round: 2 }]);
    assert_eq!(outcome.try_recv().unwrap(), DrainOutcome { stragglers: vec![] });
}

#[test]
fn usage_follows_a_heartbeat_and_is_sent_again_until_it_is_taken() {
    fn reports(rig: &mut Rig) -> Vec<(i64, Vec<(u32, u64)>)> {
        let report = |effect| match effect {
            Effect::Usage(report) => {
                let apps = report.apps.iter().map(|app| (app.connections, app.ops)).collect();
                Some((report.sequence, apps))
            }
            _ => None,
        };
        std::iter::from_fn(|| rig.control.poll_effect()).filter_map(report).collect()
    }
    let beat = || Ok(HeartbeatAnswer { state: "active".into(), heartbeat_s: 10 });
    let mut rig = Rig::new(1, |_, _| {});
    rig.turn(vec![reserve(0, 1), ToControl::OpsDone { ops: vec![(APP, 3), (APP, 1)] }]);
    assert!(reports(&mut rig).is_empty());
    rig.control.heartbeat_answered(rig.now, beat());
    assert_eq!(reports(&mut rig), [(1, vec![(1, 4)])]);
    rig.turn(vec![ToControl::OpsDone { ops: vec![(APP, 2)] }]);
    rig.control.usage_answered(rig.now, Ok(UsageAnswer { taken: false }));
    rig.control.heartbeat_answered(rig.now, beat());
    assert_eq!(reports(&mut rig), [(1, vec![(1, 4)])]);
    rig.control.usage_answered(rig.now, Ok(UsageAnswer { taken: true }));
    rig.control.heartbeat_answered(rig.now, beat());
    assert_eq!(reports(&mut rig), [(2, vec![(1, 2)])]);
}

/// A claim of a token that was issued then.
fn claim_of(ticket: u64, issued_unix_s: u64) -> ToControl {
    let claim = Claim { app: APP, connection: true, document: None };
    ToControl::Reserve { shard: 0, ticket, claim, limits: LIMITS, issued_unix_s }
}

/// What the session of a claim is told to go by.
fn granted(messages: &[ToShard]) -> Vec<Option<crate::auth::Limits>> {
    let limits = |message: &ToShard| match message {
        ToShard::Reserved { outcome, .. } => Some(outcome.as_ref().ok().copied()),
        _ => None,
    };
    messages.iter().filter_map(limits).collect()
}

#[test]
fn newer_limits_hold_over_those_of_tokens_that_were_issued_before() {
    let mut rig = Rig::new(1, |_, _| {});
    let limits = crate::auth::Limits {
        connections_max: 1,
        documents_max: 2,
        users_per_document_max: 4,
        ops_per_minute: 10,
    };
    let push = FromFeed::Limits { app: APP, limits, issued_until_unix_s: 100, hold: 60 * S };
    rig.control.heard(rig.now, push);
    rig.turn(vec![claim_of(1, 100), claim_of(2, 0)]);
    assert_eq!(
        granted(&rig.taken(0)),
        [Some(limits), None],
        "users per document are the session's to keep to"
    );
    rig.turn(vec![ToControl::LeaseOps { shard: 0, app: APP, ops_per_minute: 100, wanted: 50 }]);
    assert!(matches!(rig.taken(0)[..], [ToShard::OpsLeased { granted: 10, .. }]));
    rig.now = rig.now.after(60 * S);
    rig.turn(vec![reserve(0, 3)]);
    assert_eq!(granted(&rig.taken(0)), [Some(LIMITS)], "tokens bear the limits themselves by now");
}

#[test]
fn a_token_that_was_issued_after_a_push_brings_newer_limits_for_all() {
    let mut rig = Rig::new(1, |_, _| {});
    let limits = crate::auth::Limits { connections_max: 1, ..LIMITS };
    let push = FromFeed::Limits { app: APP, limits, issued_until_unix_s: 100, hold: 60 * S };
    rig.control.heard(rig.now, push);
    rig.turn(vec![claim_of(1, 90), claim_of(2, 90), claim_of(3, 101), claim_of(4, 90)]);
    assert_eq!(granted(&rig.taken(0)), [Some(limits), None, Some(LIMITS), Some(LIMITS)]);
}

#[test]
fn usage_is_shown_against_the_limits_that_hold() {
    let mut rig = Rig::new(1, |_, _| {});
    rig.turn(vec![reserve(0, 1)]);
    let shown = |rig: &mut Rig| {
        let grant = crate::control::testing::grant();
        let (usage, limits) = rig.ask(|answer| Question::Usage { grant, answer }).try_recv().unwrap();
        (usage.connections, limits)
    };
    assert_eq!(shown(&mut rig), (1, LIMITS));
    let limits = crate::auth::Limits { connections_max: 20, documents_max: 30, ..LIMITS };
    let push = FromFeed::Limits { app: APP, limits, issued_until_unix_s: 100, hold: 60 * S };
    rig.control.heard(rig.now, push);
    assert_eq!(shown(&mut rig), (1, limits), "as the next claim will find them");
}
