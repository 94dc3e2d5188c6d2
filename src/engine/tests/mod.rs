//! The engine as its shard sees it, one behaviour a test. All of them at random: [`super::simulation`].

mod admission;
mod documents;
mod greeting;
mod keeping;
mod permissions;
mod presence;
mod relaying;
mod sockets;
mod tokens;

use super::simulation::{client, world};
