//! Preference benchmarks through the checkpoints of a run: reading them, scoring, and what is kept of it.
//!
//! [`polestar_eval`] is what is pure of it.

mod benches;
mod checkpoints;
mod embedding;
mod model;

pub use benches::{BenchArg, BenchError, is_plain, read_bench};
pub use checkpoints::{Evaluated, Evaluators, How, Tell};
pub use model::Model;

use crate::run::RunError;
use polestar_eval::RewardError;

/// Why benchmarks can't be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// A benchmark can't be read.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// A checkpoint can't be opened, or its weights not loaded.
    #[error(transparent)]
    Open(#[from] polestar_serve::OpenError),
    /// Scoring failed.
    #[error("{trial} can't be scored on {bench}")]
    Score {
        /// Which checkpoint.
        trial: String,
        /// On what.
        bench: String,
        /// Why.
        #[source]
        source: RewardError,
    },
    /// The run's records.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A run without anything to score.
    #[error(
        "{url} has no finished reward model yet; `coordinator status {url}` shows how far its trials are"
    )]
    NoneFinished {
        /// The run.
        url: String,
    },
}
