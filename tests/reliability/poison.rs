//! Updates that the pre-scan can't refuse. One that yrs leaves half done: the document is made again from what is kept,
//! and its other clients notice nothing. (A panic of yrs takes the same way; no input is known that causes one behind
//! the pre-scan, so that is shown where the tests can plant one: src/node_tests.rs.)

use wiresocket::protocol::lib0::write_var_u64;

use crate::figure;
use crate::support::wire;
use crate::support::{Client, NodeSetup, Replica, Tenant};

/// A text, then an item whose parent is that text's characters: no shared type. yrs takes the first and then fails.
const HALF: &[u8] = &[1, 2, 9, 0, 4, 1, 1, b't', 1, b'x', 4, 0, 9, 0, 1, b'y', 0];

#[test]
fn a_document_left_half_done_is_made_again_without_dropping_its_other_clients() {
    const ROUNDS: usize = 200;
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let server = NodeSetup::new(&tenant).start();
    let mut typing =
        [Replica::join(&server, "shared", &token), Replica::join_hocuspocus(&server, "shared", &token)];
    for round in 0..ROUNDS {
        let mut hostile = Client::join(&server, "shared", &token);
        typing[0].append("a");
        hostile.send(&wire::update(HALF));
        typing[1].append("b");
        let (code, reason) = hostile.closed();
        assert_eq!((code, reason.as_str()), (1007, "the update cannot be applied"), "round {round}");
    }
    typing[1].wait_for("its acknowledgements", |replica| replica.acknowledged > ROUNDS);
    let whole = |replica: &Replica| replica.text().len() == 2 * ROUNDS;
    typing.iter_mut().for_each(|replica| replica.wait_for("all that was typed", whole));
    assert_eq!(typing[0].text(), typing[1].text());
    let newcomer = Replica::join(&server, "shared", &token);
    assert_eq!(newcomer.text(), typing[0].text(), "and nothing of the half");
    assert!(typing.iter().all(|replica| replica.ended.is_none()));
    figure(
        "a document whose CRDT fails",
        format_args!("made again {ROUNDS} times under two typing clients: 0 dropped, 0 characters lost"),
    );
}

/// Entries of a key, each before the one that came last: a list's front is written in the same way.
fn dear(entries: u64) -> Vec<u8> {
    let mut update = vec![1];
    write_var_u64(&mut update, entries);
    update.extend([9, 0, 0x24, 1, 1, b'm', 1, b'k', 1, b'x']);
    for clock in 1..entries {
        update.extend([0x44, 9]);
        write_var_u64(&mut update, clock - 1);
        update.extend([1, b'x']);
    }
    update.push(0);
    update
}

#[test]
fn an_update_that_would_take_too_long_is_refused_and_others_type_on() {
    let tenant = Tenant::new(1);
    let token = tenant.token().build();
    let server = NodeSetup::new(&tenant).set("node.shards", 1).start();
    let mut typing = Replica::join(&server, "shared", &token);
    for entries in [20_000, 200_000] {
        typing.append("a");
        let mut hostile = Client::join(&server, "shared", &token);
        hostile.send(&wire::update(&dear(entries)));
        let (code, reason) = hostile.closed();
        assert_eq!(
            (code, reason.as_str()),
            (1007, "the update takes too long to apply: send it in smaller parts")
        );
        typing.append("b");
        typing.flush();
    }
    let newcomer = Replica::join(&server, "shared", &token);
    assert_eq!(newcomer.text(), "abab", "and nothing of the refused");
}
