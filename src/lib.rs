//! WireSocket: a multi-tenant, token-guarded, thread-per-core sync server for Yjs documents.
//!
//! The map, from the bottom up (dependencies point one way, towards `protocol`):
//!
//! | module | pure | what it holds |
//! | --- | --- | --- |
//! | [`protocol`] | yes | document names, WebSocket frames, request heads, sync and Hocuspocus messages, close codes |
//! | [`auth`] | yes | claims, key sets, token verification and its cache, Origin rules |
//! | [`limits`] | yes | the ledger of reservations, ops windows, per-IP buckets |
//! | [`engine`] | yes | a shard's documents and sessions: events in, effects out |
//! | [`journal`] | core | what makes an acknowledged update outlive the process: one log for all shards |
//! | [`shard`] | no | the loop of one core: sockets, handshakes, hand-overs, mailboxes |
//! | [`control`] | no | what is global to a node: HTTP, keys, ledger, metrics |
//! | [`dashboard`] | no | tenants, apps, plans, keys, OAuth 2 tokens, on SQLite or PostgreSQL |
//! | [`tls`] | no | certificates from files, and a connection's encryption |
//! | [`config`] | no | TOML to validated types |
//! | [`node`], [`dev`] | no | start-up, reload and shutdown of the whole |
//! | [`mint`] | no | `wiresocket token`: tokens and key pairs for operators |
//! | [`secret_file`] | no | files with private keys and credentials, refused if everybody can read them |
//!
//! A pure module imports no runtime, socket, file, clock, lock, atomic or randomness: time and keys are arguments.
//! `clippy.toml` lists what is forbidden there; the modules marked "no" opt out, each at its own top.

pub mod auth;
pub mod config;
pub mod control;
pub mod dashboard;
pub mod dev;
pub mod engine;
pub mod journal;
pub mod limits;
pub mod logging;
pub mod mint;
pub mod node;
pub mod playground;
pub mod protocol;
pub mod secret_file;
pub mod shard;
pub mod splitmix;
pub mod time;
pub mod tls;
