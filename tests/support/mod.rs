//! What the end-to-end tests share: the real binary, keys and tokens of test tenants, and clients that speak both wires.
//!
//! Nothing here sleeps to let something happen: reads carry a deadline, and what cannot be read is polled with
//! [`eventually`]. Everything listens on loopback, on a port that the kernel chose, so tests run side by side.
#![allow(dead_code, unused_imports, unsafe_code, clippy::disallowed_types, clippy::disallowed_methods)]

pub mod client;
pub mod cluster;
pub mod dashboard;
pub mod http;
pub mod jwks;
pub mod keys;
pub mod metrics;
pub mod replica;
pub mod server;
pub mod tls;
pub mod wire;

use std::time::{Duration, Instant};

pub use self::client::{Answer, Client, Incoming, Upgrade};
pub use self::cluster::Cluster;
pub use self::dashboard::{DashboardServer, StoppedDashboard};
pub use self::keys::{Tenant, Token, test_key};
pub use self::metrics::Metrics;
pub use self::replica::Replica;
pub use self::server::{NodeSetup, Server};

/// How long anything may take on a busy machine before a test gives up.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Asks until there is an answer; panics with `what` when there is none in time.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for a condition.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || holds().then_some(()));
}
