//! A trial in three parts: what its weights are a function of, how they are scored, and how the work is
//! done.
//!
//! ```text
//! Trial ─┬─ Recipe       decides every bit of the weights; its hash is the trial's identity
//!        ├─ Measurement  decides which scores are taken, never a weight
//!        └─ Execution    memory, traffic, checkpoints: shows nowhere
//! ```
//! The identity is the hash of the whole recipe. Nothing in it is left out, and whatever changes a bit
//! of the weights must be in it: that is why a sum whose order isn't canonical carries its world.

use crate::{
    config::{
        Backend, CheckpointConfig, DeviceTransport, LoaderConfig, MemoryTier, OptimizerConfig,
    },
    placement::{Reduction, Zero},
    schedule::{Schedule, ScheduleError},
};
use polestar_core::{Digest, Objective, Precision, RecipeId, Step, TrialId, WorldSize};
use polestar_dataset::{Packer, PolicyChoice, SampleConfig, SpecialTokens, Split, Weighting};
use polestar_model::ModelConfig;
use serde::{Deserialize, Serialize};

/// Everything that a trial's weights are a function of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What is learnt.
    pub objective: Objective,
    /// Seeds initial weights and the order of triplets.
    pub seed: u64,
    /// Optimizer steps.
    pub steps: u64,
    /// Shape of the model.
    pub model: ModelConfig,
    /// What is learnt from.
    pub data: DataRecipe,
    /// How batches are made.
    pub batch: BatchRecipe,
    /// AdamW and clipping.
    pub optimizer: OptimizerConfig,
    /// Learning rate over time.
    pub schedule: Schedule,
    /// In which arithmetic.
    pub arithmetic: Arithmetic,
    /// Weights to start from instead of fresh ones.
    pub start: Option<StartPoint>,
}

/// Which triplets there are, and in which order they come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// Fingerprint of the corpus: another corpus at its place is refused.
    pub fingerprint: String,
    /// Row groups that are left out, each `FILE#NUMBER`: another corpus, so another answer.
    pub quarantine: Vec<String>,
    /// Trains on some of the policies only.
    pub policies: Option<PolicyChoice>,
    /// Which policies are drawn how often.
    pub weighting: Weighting,
    /// How triplets are cut and packed.
    pub samples: SampleConfig,
    /// Prompts that a lane shuffles among.
    pub window: usize,
}

/// How triplets become global batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchRecipe {
    /// Triplets of a global batch.
    pub triplets: u32,
    /// Lanes that it is cut into: the leaves of the canonical sum.
    pub lanes: u32,
    /// Tokens of one packed row.
    pub pack_tokens: u32,
}

/// In which arithmetic a trial is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arithmetic {
    /// What computes.
    pub backend: Backend,
    /// How operands of matrix products are rounded.
    pub precision: Precision,
    /// In which order the lanes' gradients are added up.
    pub order: Order,
}

/// In which order the lanes' gradients are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// By the tree over lanes: the same bits on any number of ranks, at any ZeRO stage.
    Canonical,
    /// As ranks and stage have it: other bits on another number of ranks or at another stage, which
    /// therefore belong to the recipe.
    Fast {
        /// Ranks.
        world: u32,
        /// What is sharded over them.
        zero: Zero,
    },
}

impl Order {
    /// The order of a trial on `world` ranks at stage `zero`.
    pub fn new(reduction: Reduction, world: u32, zero: Zero) -> Order {
        match reduction {
            Reduction::Canonical => Order::Canonical,
            Reduction::Fast => Order::Fast { world, zero },
        }
    }

    /// The setting behind it.
    pub fn reduction(self) -> Reduction {
        match self {
            Order::Canonical => Reduction::Canonical,
            Order::Fast { .. } => Reduction::Fast,
        }
    }
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Order::Canonical => {
                f.write_str("canonical: the digests don't depend on the number of workers")
            }
            Order::Fast { world, zero } => write!(
                f,
                "fast: the digests hold for {world} workers a trial at {zero}, and for no other number or stage"
            ),
        }
    }
}

/// What a trial is scored on, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// Steps between two evaluations; the last step is always evaluated. 0: only the last.
    pub every: u64,
    /// Triplets of each set.
    pub triplets: usize,
    /// Triplets of each set after the last step, the first `triplets` among them.
    pub final_triplets: usize,
    /// The sets, in the order in which they are scored.
    pub sets: Vec<EvaluationSet>,
}

/// A named set that trials are scored on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationSet {
    /// Its name in metrics, results and reports.
    pub name: String,
    /// Which part of the corpus its triplets come from.
    pub split: Split,
}

impl EvaluationSet {
    /// The sets that every corpus has, by their own names; one may be empty.
    pub fn of_corpus() -> Vec<EvaluationSet> {
        let set = |split: Split| EvaluationSet {
            name: split.name().to_owned(),
            split,
        };
        Split::ALL.map(set).into()
    }
}

impl Measurement {
    /// Sixteen digits that name what a result was measured on: results of one recipe are the same
    /// exactly if these are.
    pub fn id(&self) -> String {
        let json = serde_json::to_vec(self).expect("numbers serialize");
        blake3::hash(&json).to_hex()[..16].to_owned()
    }
}

/// How the work is done. Nothing here changes a bit of the weights or a score, unless other devices are accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Execution {
    /// Object store URL of the corpus.
    pub corpus: String,
    /// What is sharded over the ranks.
    pub zero: Zero,
    /// Whether segments are run again in the backward pass instead of kept.
    pub recompute: bool,
    /// Where the weights lie that the recipe starts from, if they come from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Loading.
    pub loader: LoaderConfig,
    /// Checkpoints.
    pub checkpoint: CheckpointConfig,
    /// Whether ranks keep the state in memory when their generation ends early.
    #[serde(default, skip_serializing_if = "MemoryTier::is_auto")]
    pub memory_tier: MemoryTier,
    /// How vectors go from one rank's GPU to another's.
    #[serde(default, skip_serializing_if = "DeviceTransport::is_auto")]
    pub transport: DeviceTransport,
    /// Whether ranks go on although their devices or libraries aren't those that the trial began with: with `cuda`, bits
    /// depend on the GPU's model and on versions. The one thing here that may show in the weights.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_numerics: bool,
    /// A trial that takes the same steps up to there. It spares work and changes nothing: the weights
    /// are those that this trial reaches alone, bit for bit.
    pub trunk: Option<Trunk>,
}

/// One training run of one model: what a coordinator sends to its workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Its name in the run.
    pub id: TrialId,
    /// What its weights are a function of.
    pub recipe: Recipe,
    /// How it is scored.
    pub measurement: Measurement,
    /// How it is carried out.
    pub execution: Execution,
}

/// Where a trial leaves another one's path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trunk {
    /// The other trial.
    pub recipe: RecipeId,
    /// Steps that both have in common; the trunk keeps this checkpoint.
    pub step: Step,
}

/// Weights to start from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StartPoint {
    /// Another trial's.
    Trial(StartFrom),
    /// A model's from elsewhere.
    Weights(StartWeights),
}

/// The weights of a model in Hugging Face's format, where there is a tensor for one of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartWeights {
    /// Digest of the record of their files, which lies in the store of runs: other files are another answer.
    pub weights: Digest,
}

/// The weights of another trial, where names match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartFrom {
    /// The other trial.
    pub recipe: RecipeId,
    /// Its last step. Exactly this checkpoint is used: an older one would be another answer.
    pub step: Step,
}

/// Why a [`Trial`] can't be trained by these ranks.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum TrialError {
    /// Every rank hosts a lane.
    #[error("{world} ranks can't share {lanes} lanes; raise train.lanes or use fewer workers")]
    TooManyRanks {
        /// Ranks.
        world: u32,
        /// Lanes.
        lanes: u32,
    },
    /// The fast sum gives other bits elsewhere.
    #[error(
        "this trial adds gradients up in the order of {expected} ranks (train.reduction = \"fast\"), and this world has {found}; use as many workers, or \"canonical\""
    )]
    OtherWorld {
        /// The recipe's.
        expected: u32,
        /// This world's.
        found: u32,
    },
    /// The model's sizes don't fit each other.
    #[error(transparent)]
    Model(#[from] polestar_model::ModelError),
    /// The learning rate can't be followed.
    #[error("train.schedule: {0}")]
    Schedule(ScheduleError),
}

impl Recipe {
    /// The hash of all of it.
    pub fn id(&self) -> RecipeId {
        let json = serde_json::to_vec(self).expect("numbers, strings and lists serialize");
        RecipeId::of(&json)
    }

    /// How its triplets are packed, with a corpus' special tokens.
    pub fn packer<'a>(&'a self, special: &'a SpecialTokens) -> Packer<'a> {
        Packer {
            objective: self.objective,
            samples: &self.data.samples,
            special,
            pack_tokens: self.batch.pack_tokens,
        }
    }
}

impl Trial {
    /// Its [recipe's identity](Recipe::id).
    pub fn recipe_id(&self) -> RecipeId {
        self.recipe.id()
    }

    /// Whether a world of ranks can train it.
    ///
    /// # Errors
    /// [`TrialError`] says why not.
    pub fn check(&self, world: WorldSize) -> Result<(), TrialError> {
        self.recipe.model.validate()?;
        let schedule = self.recipe.schedule.validate_for(self.recipe.steps);
        schedule.map_err(TrialError::Schedule)?;
        if world.0 > self.recipe.batch.lanes {
            return Err(TrialError::TooManyRanks {
                world: world.0,
                lanes: self.recipe.batch.lanes,
            });
        }
        match self.recipe.arithmetic.order {
            Order::Fast {
                world: expected, ..
            } if expected != world.0 => Err(TrialError::OtherWorld {
                expected,
                found: world.0,
            }),
            _ => Ok(()),
        }
    }

    /// Whether a checkpoint is committed after `step`.
    pub fn saves(&self, step: Step) -> bool {
        let setting = &self.execution.checkpoint;
        self.is_due(setting.every, step) || setting.at.contains(&step)
    }

    /// Whether the checkpoint after `step` stays for good: a trial that has passed it must have it.
    pub fn is_milestone(&self, step: Step) -> bool {
        let setting = &self.execution.checkpoint;
        let every = setting.keep_every;
        let kept = every > 0 && step.0.is_multiple_of(every);
        self.saves(step) && (kept || setting.at.contains(&step))
    }

    /// Whether something that happens `every` steps, and at the end, happens after `step`.
    pub fn is_due(&self, every: u64, step: Step) -> bool {
        step.0 == self.recipe.steps || (every > 0 && step.0 > 0 && step.0.is_multiple_of(every))
    }
}
