//! Polestar's worker: the training engine, the collectives between its ranks, checkpoints, and the
//! agent that joins a coordinator's pool.
//!
//! The one promise that shapes this crate: the weights after step *k* are a pure function of
//! (configuration, corpus, seed). How many ranks there were, how often they died, and where they
//! resumed leaves no trace in the bits. See [`reduce`] for the order that makes it so.

pub mod agent;
pub mod checkpoint;
pub mod collective;
pub mod config;
pub mod digest;
pub mod engine;
pub mod ids;
pub mod memory;
pub mod metrics;
pub mod norm;
pub mod reduce;
pub mod schedule;
pub mod scores;
pub mod sharding;

/// The protocol between coordinator and worker, generated from `proto/pool.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod proto {
    tonic::include_proto!("polestar.pool.v1");
}

pub use config::{Objective, StartFrom, TrainConfig, TrialConfig, Trunk};
pub use digest::Digest;
pub use ids::{Generation, Lane, Rank, Step, TrialId, WorldSize};
