//! What is known of a socket between accept and the answer to its upgrade. No I/O here.

use crate::protocol::request::{Head, Upgrade};

/// A handshake in progress.
#[derive(Debug, Default)]
pub struct Handshake {
    /// The head as far as it came; then what came behind it.
    pub bytes: Vec<u8>,
    /// Set once the head is complete and an answer of the control shard is awaited.
    pub head: Option<Box<Head>>,
}

impl Handshake {
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), head: None }
    }

    /// The upgrade that waits for an answer.
    #[must_use]
    pub fn upgrade(&self) -> Option<&Upgrade> {
        self.head.as_ref()?.upgrade.as_ref()
    }
}
