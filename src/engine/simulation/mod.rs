//! A whole node under one seed.

pub mod client;
mod inspect;
mod network;
mod schedule;
mod turns;
pub mod world;
