//! The engine as its shard sees it, one behaviour a test. All of them at random: [`super::simulation`].

mod acknowledging;
mod admission;
mod documents;
mod greeting;
mod keeping;
mod permissions;
mod presence;
mod relaying;
mod resting;
mod sockets;
mod tokens;

use super::simulation::{client, world};
