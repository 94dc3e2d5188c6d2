pub mod auth;
pub mod config;
pub mod control;
pub mod dev;
pub mod engine;
pub mod limits;
pub mod protocol;
pub mod shard;
