//! Both wires in one document, and the test harness itself.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, unsafe_code)]

mod support;

use support::{NodeSetup, Replica, Server, Tenant};

#[test]
fn editors_of_both_wires_share_a_document() {
    let tenant = Tenant::new(1);
    let server = NodeSetup::new(&tenant).start();
    let token = tenant.token().build();
    let mut first = Replica::join(&server, "notes", &token);
    let mut second = Replica::join_hocuspocus(&server, "notes", &token);
    first.append("Hello");
    second.wait_for_text("Hello");
    second.append(" world");
    first.wait_for_text("Hello world");
    second.wait_for("an acknowledgement", |replica| replica.acknowledged > 0);
    let mut late = Replica::join(&server, "notes", &token);
    late.wait_for_text("Hello world");
}

#[test]
fn dev_says_where_it_is_and_its_token_works() {
    let server = Server::dev(2);
    let mut editor = Replica::join(&server, "notes", &server.dev_token());
    editor.append("x");
    editor.flush();
    let mut other = Replica::join(&server, "notes", &server.dev_token());
    other.wait_for_text("x");
    assert!(server.rss_bytes() > 0);
    assert_eq!(server.metrics().get("wiresocket_connections_total"), 2.0);
    drop((editor, other));
    assert_eq!(server.terminate().code(), Some(0));
}
