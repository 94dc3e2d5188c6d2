//! A shard's documents and sessions: events in, effects out.

pub mod prescan;
pub mod settings;

pub use settings::Settings;
