//! The wire, without I/O: bytes in, typed values out, and back.
//!
//! Everything here is a pure function of its arguments. Not here: sockets ([`crate::shard`]), what a message *does*
//! ([`crate::engine`]), and the CRDT (`engine::document`).

pub mod close;
pub mod document;
pub mod lib0;
pub mod message;
pub mod proxy;
pub mod request;
pub mod websocket;
