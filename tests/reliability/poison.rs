//! An update that the pre-scan can't refuse and that yrs leaves half done: the document is made again from what is kept,
//! and its other clients notice nothing. (A panic of yrs takes the same way; no input is known that causes one behind
//! the pre-scan, so that is shown where the tests can plant one: src/node_tests.rs.)

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
