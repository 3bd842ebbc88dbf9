//! Polestar's worker: the training engine, the collectives between its ranks, and the agent that
//! joins a coordinator's pool.
//!
//! The one promise that shapes this crate: the weights after step *k* are a pure function of
//! (configuration, corpus, seed). How many ranks there were, how often they died, and where they
//! resumed leaves no trace in the bits. See [`polestar_core::tree`] for the order that makes it so.

pub mod agent;
pub mod allocator;
pub mod collective;
pub mod device;
pub mod engine;
pub mod gpus;
pub mod host;
pub mod norm;
