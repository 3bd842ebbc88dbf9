//! The training engine: one rank's part in one trial.

mod backend;
mod burn;
mod contract;
mod corpora;
#[cfg(feature = "cuda")]
mod cuda;
mod figures;
mod gradient;
mod initial;
mod input;
mod made_up;
mod memory_tier;
mod numerics;
mod observe;
mod pass;
mod replay;
mod resume;
mod rewards;
mod save;
mod speed;
mod step;
#[cfg(test)]
mod testing;
mod timing;
mod trainer;
mod validate;

pub use backend::run_on_mesh;
pub use burn::BurnEngine;
pub use contract::{
    Engine, Fence, GradientStore, NotFinite, ParameterStore, Scores, SegmentState, Update,
};
#[cfg(feature = "cuda")]
pub use cuda::{CudaEngine, CudaEngineError};
pub use initial::{InitialError, InitialWeights};
pub use input::{LaneInput, pack_input};
pub use made_up::MadeUp;
pub use memory_tier::Kept;
pub use pass::PassError;
pub use replay::{Slice, replay};
pub use resume::VALIDATION_SEED;
pub use rewards::{RewardError, rewards};
pub use speed::{Probe, SpeedError};
pub use step::{OptimizerStep, StepError, StepOutcome, StepPlan, Stepper};
pub use trainer::{Environment, run};

use crate::collective::CollectiveError;
use polestar_core::{Lane, Step, chain};
use polestar_run::{LastOperation, checkpoint, failure::Phase};

/// Why a rank stopped before the end.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The coordinator asked for it.
    #[error("aborted by the coordinator")]
    Aborted,
    /// A checkpoint of this step is committed, and all ranks stopped there as they were asked to.
    #[error("saved at step {} and stopped, as the coordinator asked", step.0)]
    Drained {
        /// Steps done.
        step: Step,
    },
    /// The trial can't be trained as it is written.
    #[error("{0}")]
    Config(String),
    /// The corpus can't be read.
    #[error("{0}")]
    Data(String),
    /// The corpus isn't the one this run began with.
    #[error(
        "the corpus at {url} has fingerprint {found}, this run began with {expected}; put the old corpus back or start a new run"
    )]
    OtherCorpus {
        /// Where.
        url: String,
        /// Its fingerprint.
        found: String,
        /// The run's.
        expected: String,
    },
    /// A loss or gradient is no longer a number.
    #[error("step {}, {lane}: a number is not finite any more. The last good checkpoint is kept; try a lower train.optimizer.lr", step.0)]
    NotFinite {
        /// The step that failed.
        step: Step,
        /// The lane in which it was noticed.
        lane: Lane,
        /// Where.
        #[source]
        source: NotFinite,
    },
    /// The devices compute other bits.
    #[error(
        "{who} computes with {found}, and {whose} was {expected}: the same trial has other bits there. Use the same devices and libraries, or --accept-numerics to go on with a result that nobody can repeat bit for bit"
    )]
    OtherNumerics {
        /// Whose device is another one.
        who: String,
        /// What it is.
        found: String,
        /// What it is compared with.
        whose: String,
        /// What that was.
        expected: String,
    },
    /// A held-out loss is no longer a number.
    #[error("step {}, {set}: a number is not finite any more. The last good checkpoint is kept; try a lower train.optimizer.lr", step.0)]
    NotFiniteScore {
        /// The step after which it was scored.
        step: Step,
        /// The held-out set.
        set: String,
        /// Where.
        #[source]
        source: NotFinite,
    },
    /// The global gradient is not finite although every lane's was.
    #[error("step {}: the norm of the global gradient is {norm}. The last good checkpoint is kept; try a lower train.optimizer.lr", step.0)]
    Norm {
        /// The step that failed.
        step: Step,
        /// The norm.
        norm: f64,
    },
    /// The ranks' weights differ: a bug or broken hardware, never to be trained on.
    #[error("step {}: the ranks' weights differ ({digests}); the promise of one answer is broken on this hardware", step.0)]
    Diverged {
        /// The step at which it was noticed.
        step: Step,
        /// Every rank's digest.
        digests: String,
    },
    /// Communication between ranks.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// The object store.
    #[error(transparent)]
    Storage(#[from] checkpoint::Error),
    /// Writing metrics.
    #[error(transparent)]
    Metrics(#[from] polestar_run::metrics::Error),
    /// The weights to start from.
    #[error(transparent)]
    Weights(#[from] polestar_hf::Error),
}

impl From<InitialError> for Failure {
    fn from(error: InitialError) -> Failure {
        match error {
            InitialError::Checkpoint(source) => Failure::Storage(source),
            InitialError::Weights(source) => Failure::Weights(source),
            InitialError::NoPlace => Failure::Config(error.to_string()),
        }
    }
}

impl Failure {
    /// The checksums of the ranks' weights, each 8 bytes, differ.
    fn diverged(step: Step, checksums: &[Vec<u8>]) -> Failure {
        let hex = |sum: &Vec<u8>| sum.iter().rev().map(|byte| format!("{byte:02x}")).collect();
        Failure::Diverged {
            step,
            digests: checksums
                .iter()
                .map(hex)
                .collect::<Vec<String>>()
                .join(", "),
        }
    }

    /// In which kind of work it happened.
    pub fn phase(&self) -> Phase {
        match self {
            Failure::Aborted | Failure::Drained { .. } => Phase::Abort,
            Failure::Config(_) | Failure::OtherNumerics { .. } => Phase::Config,
            Failure::Data(_) | Failure::OtherCorpus { .. } | Failure::Weights(_) => Phase::Data,
            Failure::NotFinite { .. }
            | Failure::NotFiniteScore { .. }
            | Failure::Norm { .. }
            | Failure::Diverged { .. } => Phase::Compute,
            Failure::Collective(_) => Phase::Collective,
            Failure::Storage(_) | Failure::Metrics(_) => Phase::Storage,
        }
    }

    /// As the coordinator is told.
    pub fn report(&self) -> polestar_run::Failure {
        polestar_run::Failure {
            phase: self.phase(),
            message: chain(self),
            collateral: self.is_collateral(),
            retryable: self.is_retryable(),
            last_operation: self.last_operation(),
        }
    }

    /// What the ranks had last done together, if it is known.
    fn last_operation(&self) -> Option<LastOperation> {
        let Failure::Collective(error) = self else {
            return None;
        };
        let last = error.record.last_done()?;
        Some(LastOperation {
            kind: last.name.to_owned(),
            sequence: last.sequence,
            step: last.step,
        })
    }

    /// Whether this rank only noticed another one's failure.
    pub fn is_collateral(&self) -> bool {
        matches!(
            self,
            Failure::Aborted | Failure::Drained { .. } | Failure::Collective(_)
        )
    }

    /// Whether doing the same again can end otherwise. Training is deterministic: a loss that was
    /// not a number will not be one next time, and another corpus stays another corpus.
    pub fn is_retryable(&self) -> bool {
        use checkpoint::Error as Saving;
        match self {
            Failure::Aborted
            | Failure::Drained { .. }
            | Failure::Data(_)
            | Failure::Collective(_)
            | Failure::Metrics(_) => true,
            Failure::Storage(error) => !matches!(
                error,
                Saving::Conflict { .. }
                    | Saving::OtherRecipe { .. }
                    | Saving::NoStart { .. }
                    | Saving::Panicked { .. }
                    | Saving::Format { .. }
            ),
            Failure::Weights(error) => error.is_passing(),
            Failure::Config(_)
            | Failure::OtherCorpus { .. }
            | Failure::OtherNumerics { .. }
            | Failure::NotFinite { .. }
            | Failure::NotFiniteScore { .. }
            | Failure::Norm { .. }
            | Failure::Diverged { .. } => false,
        }
    }
}
