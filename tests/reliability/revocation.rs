//! A revoked key ends every session that it opened.

use std::time::Instant;

use serde_json::json;

use crate::support::keys::jwks_of;
use crate::support::{Client, NodeSetup, Replica, Tenant};
use crate::{figure, p99_and_max};

#[test]
fn a_thousand_sessions_of_a_revoked_key_end() {
    const SESSIONS: usize = 1000;
    let tenant = Tenant::new(1);
    let (bad, good) = (tenant.with_key(1), tenant.with_key(2));
    let server = NodeSetup::without_keys()
        .key_set(&tenant.id.to_string(), jwks_of([&bad, &good]))
        .set("node.shards", 4)
        .start();
    let token = bad.token().build();
    let mut sessions: Vec<Client> =
        (0..SESSIONS).map(|n| Client::join(&server, &format!("doc-{}", n % 50), &token)).collect();
    server.wait_for_metric("wiresocket_connections_active", SESSIONS as f64);
    let mut other = Replica::join(&server, "doc-0", &good.token().build());
    let mut jwks = jwks_of([&good]);
    jwks["revoked"] = json!([bad.key_id]);
    server.write_keys(&tenant, &jwks);
    let began = Instant::now();
    server.signal(libc::SIGHUP);
    let mut times = Vec::new();
    for session in &mut sessions {
        assert_eq!(session.closed(), (4002, "Key revoked".to_owned()));
        times.push(began.elapsed());
    }
    other.append("still in");
    other.flush();
    let (p99, max) = p99_and_max(times);
    figure(
        "key revocation",
        format_args!(
            "{SESSIONS} sessions on 4 shards closed {max:.1?} after the signal, p99 {p99:.1?} (as one client reads them); others stay"
        ),
    );
}
