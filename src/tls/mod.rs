//! TLS for the node and the dashboard: certificates from files, taken anew when they change, and a connection's state.
//!
//! Invariants: [`Session`] does no I/O and is a plain owned value, so a connection can move to another thread with it.
//! All connections of a process share one [`rustls::ServerConfig`] for its whole life: tickets stay good when the
//! certificate changes, and connections that are open don't notice. The only lock here is read once in each full
//! handshake and written when a file has changed.
//!
//! Deliberately absent: client certificates, several names with a certificate each, OCSP stapling, 0-RTT (a token in it
//! could be replayed), kernel TLS.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod certificate;
mod identity;
mod session;
mod validity;

pub use certificate::{CertificateError, TlsFiles};
pub use identity::{Expiry, Identity, LOOK_EVERY};
pub use session::{BUFFER_BYTES_MIN, Session};
