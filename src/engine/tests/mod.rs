//! The engine as its shard sees it, one behaviour a test, and then all of them at random ([`schedules`]).

mod admission;
mod client;
mod documents;
mod greeting;
mod keeping;
mod permissions;
mod presence;
mod relaying;
mod schedules;
mod sockets;
mod tokens;
pub(crate) mod world;
