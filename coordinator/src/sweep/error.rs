//! Why a sweep can't be planned.

use super::variants::{MAX_STEPS, MIN_STEPS};
use polestar_core::{ByteCount, TrialId};
use polestar_run::config::ConfigError;

/// Why a sweep can't be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// `sweep.sizes` has a name that nothing has.
    #[error(
        "sweep.sizes has `{name}`{hint}; name a preset or a number of parameters such as \"120M\", or define [models.{name}]"
    )]
    Size {
        /// The name.
        name: String,
        /// What was probably meant, as a question.
        hint: String,
        /// What is known.
        #[source]
        source: polestar_model::ModelError,
    },
    /// The weights to start from have another shape.
    #[error(
        "sweep.sizes has `{name}`, and start.weights have another shape; name \"start\", which has theirs"
    )]
    StartShape {
        /// The size.
        name: String,
    },
    /// The weights to start from would be another model on sequences so long.
    #[error(
        "samples.max_prompt and samples.max_response make sequences of up to {longest} tokens, and start.weights are good up to {limit}: {why}. Lower them"
    )]
    StartLimit {
        /// Tokens of the longest sequence.
        longest: u64,
        /// Most tokens.
        limit: u64,
        /// Why.
        why: &'static str,
    },
    /// No shape has about so many parameters.
    #[error(
        "sweep.sizes has \"{name}\", and no shape comes near that; the nearest is \"{nearest}\""
    )]
    Far {
        /// The size.
        name: String,
        /// What there is.
        nearest: String,
    },
    /// More steps than anybody trains.
    #[error(
        "size `{size}` with {length} would be more than {MAX_STEPS:.0e} steps, which nobody can train; give a smaller one"
    )]
    TooLong {
        /// The size.
        size: String,
        /// Which length of the sweep.
        length: String,
    },
    /// A budget is too small to train anything.
    #[error(
        "sweep.budgets: {budget:.3e} FLOPs are {steps} steps of size `{size}`; a trial needs at least {MIN_STEPS}. Raise the budget to {enough:.1e}, lower train.batch or leave out the size"
    )]
    BudgetTooSmall {
        /// The budget.
        budget: f64,
        /// The size.
        size: String,
        /// How many steps it pays for.
        steps: u64,
        /// What would do.
        enough: f64,
    },
    /// A token multiple is too small to train anything.
    #[error(
        "sweep.tokens_per_parameter: {steps} steps of size `{size}`; a trial needs at least {MIN_STEPS}. Raise it to {enough:.1}, lower train.batch or leave out the size"
    )]
    TooShort {
        /// The size.
        size: String,
        /// How many steps there would be.
        steps: u64,
        /// What would do.
        enough: f64,
    },
    /// More than a worker can hold.
    #[error(
        "trial {trial} needs {:.1} GiB on each worker, and pool.memory_gib is {has}; {remedy}",
        needs.gib()
    )]
    Memory {
        /// The trial.
        trial: TrialId,
        /// What it needs.
        needs: ByteCount,
        /// GiB.
        has: f64,
        /// What would fit.
        remedy: String,
    },
    /// Not so many policies can be placed by how they write.
    #[error(
        "sweep.policies asks for {count} that lie {spread} each other, and {placed} training policies have answers enough to tell; ask for fewer"
    )]
    Spread {
        /// Asked for.
        count: u32,
        /// How.
        spread: &'static str,
        /// There are.
        placed: usize,
    },
    /// Two trials would have one name.
    #[error("two trials are called {0}; each axis must list everything once")]
    Twice(TrialId),
    /// Two trials would train the same weights, and count twice.
    #[error(
        "trials {0} and {1} are one and the same: as many steps of one shape on the same data, though the sweep writes them differently. Leave one out"
    )]
    Same(TrialId, TrialId),
    /// A trial's configuration doesn't hold.
    #[error("trial {trial} can't be trained as it is configured")]
    Config {
        /// The trial.
        trial: TrialId,
        /// Why.
        #[source]
        source: ConfigError,
    },
}
