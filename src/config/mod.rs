//! TOML to validated types.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

/// What a shard needs to know of the configuration; replaced as a whole on reload.
#[derive(Debug)]
pub struct ShardSettings {
    pub engine: crate::engine::Settings,
}
