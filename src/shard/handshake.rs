//! What is known of a socket between accept and the answer to its upgrade. No I/O here.

use super::places::Holder;
use crate::protocol::request::{Head, Upgrade};

/// A handshake in progress.
#[derive(Debug)]
pub struct Handshake {
    /// The head as far as it came; then what came behind it.
    pub bytes: Vec<u8>,
    /// Set once the head is complete and an answer of the control shard is awaited.
    pub head: Option<Box<Head>>,
    pub expects: Expects,
    /// Whose place it takes.
    pub holder: Holder,
}

/// What the next byte must belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expects {
    /// A header in which a proxy says whose connection it is.
    Proxy { then: Port },
    /// The first byte.
    First(Port),
    /// TLS's own handshake.
    Tls,
    /// A request head.
    Request,
}

/// What a listening socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    Plain,
    Tls,
}

impl Handshake {
    #[must_use]
    pub const fn new(expects: Expects, holder: Holder) -> Self {
        Self { bytes: Vec::new(), head: None, expects, holder }
    }

    /// The upgrade that waits for an answer.
    #[must_use]
    pub fn upgrade(&self) -> Option<&Upgrade> {
        self.head.as_ref()?.upgrade.as_ref()
    }
}
