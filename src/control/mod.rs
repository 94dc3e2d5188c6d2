//! The control shard: what is global to a node.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod messages;
