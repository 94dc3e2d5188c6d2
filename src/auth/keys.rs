//! The preloaded key sets.

/// Every tenant's verification keys.
#[derive(Debug, Default)]
pub struct KeySets {}
