//! The load tester's own relay, honest or hostile, on a thread of the test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use wiresocket_loadtest::relay::{Fault, Relay};

/// Stops when it is dropped; nobody listens at its address then.
pub struct RelayServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    messages: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl RelayServer {
    pub fn start(fault: Option<Fault>) -> Self {
        let mut relay = Relay::bind(([127, 0, 0, 1], 0).into()).expect("a port");
        if let Some(fault) = fault {
            relay = relay.with_fault(fault);
        }
        let address = relay.address().expect("its address");
        let messages = relay.messages();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let serve = move || {
            relay.serve(|| !stopped.load(Ordering::Relaxed)).expect("the relay serves");
        };
        Self { address, stop, messages, thread: Some(std::thread::spawn(serve)) }
    }

    /// How many messages it has got so far.
    #[allow(dead_code, reason = "not every test that has a relay asks")]
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }
}

impl Drop for RelayServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
