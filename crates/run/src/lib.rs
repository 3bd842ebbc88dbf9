//! What coordinator and workers agree on: trials and their schedule, where parts of a model lie and how
//! much memory that takes, messages, checkpoints, metrics. It links no tensor library.

pub mod checkpoint;
pub mod config;
pub mod event;
pub mod failure;
pub mod lease;
pub mod logged;
pub mod memory;
pub mod metrics;
pub mod outcome;
pub mod placement;
pub mod pool;
pub mod protocol;
pub mod recipe;
pub mod schedule;
pub mod scores;

/// The protocol between coordinator and worker, generated from `proto/pool.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod proto {
    tonic::include_proto!("polestar.pool.v1");
}

pub use config::{MemoryTier, TrainConfig};
pub use event::{Event, Measured, ResumedFrom, StepParts};
pub use failure::{Cause, Failure, LastOperation};
pub use outcome::{Consumed, Outcome, RewardSpread, SetScore};
pub use recipe::{
    Arithmetic, BatchRecipe, DataRecipe, EvaluationSet, Execution, Measurement, Order, Recipe,
    StartFrom, StartPoint, StartWeights, Trial, TrialError, Trunk,
};
