//! The loop of one core.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod metrics;
