//! A sweep file: what it may say, and reading it.

mod axes;
mod error;
mod expand;
mod memory;
mod plan;
mod read;
mod trunk;
mod variants;

pub use axes::{Axes, BatchAxis, LrAxis, PaperLaw, TrunkTable};
pub use error::PlanError;
pub use memory::{GIB, Share};
pub use plan::{CorpusFacts, Plan, PlannedTrial, TrialRole, Work, plan};
pub use read::{ReadError, read, read_str};

use crate::control::core::Deadlines;
use polestar_core::Objective;
use polestar_dataset::{
    ColumnMapping, FileLayout, HeldOut, ImportOptions, SampleConfig, SynthOptions, Weighting,
};
use polestar_model::ModelConfig;
use polestar_run::{TrainConfig, config::OptimizerConfig, schedule::Schedule};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// A sweep file, as written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// Name of the sweep: letters, digits, `-` and `_`. First part of the run's folder.
    pub name: String,
    /// Object store URL under which runs lie: `file:///…`, a path, `s3://bucket/prefix`, ….
    pub store: String,
    /// The trajectories.
    pub corpus: CorpusTable,
    /// How triplets are cut and packed.
    #[serde(default)]
    pub samples: SampleConfig,
    /// Which policies are drawn how often.
    #[serde(default)]
    pub weighting: Weighting,
    /// Prompts that a lane shuffles among.
    #[serde(default = "default_window")]
    pub window: usize,
    /// How every trial is trained.
    pub train: TrainConfig,
    /// What is varied.
    pub sweep: Axes,
    /// Models of this file's own, by name, for `sweep.sizes`.
    #[serde(default)]
    pub models: BTreeMap<String, ModelConfig>,
    /// A first stage for every size and seed, from whose weights its trials start.
    pub warm_start: Option<WarmStart>,
    /// The workers.
    #[serde(default)]
    pub pool: PoolTable,
}

fn default_window() -> usize {
    1024
}

/// Where the corpus is, and how it is made if it isn't there yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusTable {
    /// Object store URL of the corpus.
    pub url: String,
    /// Make it from synthetic policies.
    pub synth: Option<SynthOptions>,
    /// Make it from files. `$NAME` at the start of a path is an environment variable.
    pub import: Option<ImportTable>,
    /// Damaged row groups to go on without, each `FILE#NUMBER`. They belong to what the weights are a
    /// function of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<String>,
}

/// `[corpus.import]`: what [`ImportOptions`] says, as far as a sweep needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportTable {
    /// .jsonl, .jsonl.zst, .jsonl.gz or .parquet files.
    pub inputs: Vec<PathBuf>,
    /// Which columns hold what.
    #[serde(default)]
    pub columns: ColumnMapping,
    /// Prompts to validate on: `{ count = 50 }` or `{ fraction = 0.1 }`.
    #[serde(default = "default_heldout_prompts")]
    pub heldout_prompts: HeldOut,
    /// Policies to keep out of training, by name.
    #[serde(default)]
    pub heldout_policies: Vec<String>,
    /// Further policies to keep out, chosen by the seed.
    #[serde(default)]
    pub heldout_policy_count: usize,
    /// Groups of names of one and the same policy.
    #[serde(default)]
    pub aliases: Vec<Vec<String>>,
    /// Decides what is held out.
    #[serde(default)]
    pub seed: u64,
    /// Most tokens of the byte-level BPE that is trained.
    #[serde(default = "default_vocab_size")]
    pub vocab_size: u32,
    /// Whether the corpus stores tokens beside the texts.
    #[serde(default)]
    pub pretokenize: bool,
    /// A tokenizer.json to use instead.
    pub tokenizer: Option<PathBuf>,
    /// Leaves out answers that resemble an earlier one of the same policy at least so much, 0 to 1.
    pub drop_similar: Option<f64>,
    /// Size of row groups and files.
    #[serde(default)]
    pub layout: FileLayout,
    /// Where rows are kept meanwhile, if not in the system's place.
    pub temp_dir: Option<PathBuf>,
}

fn default_heldout_prompts() -> HeldOut {
    HeldOut::Fraction(0.1)
}
fn default_vocab_size() -> u32 {
    8192
}

impl ImportTable {
    /// What the import takes, for a corpus at `output`.
    pub fn options(&self, output: &str) -> ImportOptions {
        ImportOptions {
            inputs: self.inputs.clone(),
            output: output.to_owned(),
            columns: self.columns.clone(),
            heldout_prompts: self.heldout_prompts,
            heldout_policies: self.heldout_policies.clone(),
            heldout_policy_count: self.heldout_policy_count,
            aliases: self.aliases.clone(),
            seed: self.seed,
            vocab_size: self.vocab_size,
            pretokenize: self.pretokenize,
            tokenizer: self.tokenizer.clone(),
            drop_similar: self.drop_similar,
            layout: self.layout,
            temp_dir: self.temp_dir.clone(),
            ..ImportOptions::default()
        }
    }
}

/// The stage before: usually language modelling on the same trajectories.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmStart {
    /// What it learns.
    #[serde(default = "default_warm_objective")]
    pub objective: Objective,
    /// Its length.
    pub steps: u64,
    /// Its batch, if not that of `train`.
    pub batch: Option<u32>,
    /// Its optimizer, if not that of `train`.
    pub optimizer: Option<OptimizerConfig>,
    /// Its schedule, if not that of `train`.
    pub schedule: Option<Schedule>,
}

fn default_warm_objective() -> Objective {
    Objective::Lm
}

/// The pool of workers. Nothing here changes a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolTable {
    /// Worker processes that `launch` starts on this machine.
    #[serde(default = "default_workers")]
    pub workers: u32,
    /// Workers that train one trial together.
    #[serde(default = "default_workers_per_trial")]
    pub workers_per_trial: u32,
    /// Threads of a worker; 0 shares this machine's cores among the workers.
    #[serde(default)]
    pub threads: usize,
    /// A collective that waits longer than this many seconds fails.
    #[serde(default = "default_deadline")]
    pub deadline_seconds: f64,
    /// Failures (not losses of a worker) after which a trial is abandoned.
    #[serde(default = "default_failures")]
    pub failures: u32,
    /// Losses of a worker after which a trial is abandoned.
    #[serde(default = "default_losses")]
    pub losses: u32,
    /// How long silence is waited for, in seconds by what is awaited.
    #[serde(default)]
    pub deadlines: Deadlines,
    /// Memory of a worker for weights, gradients, moments and the copy for checkpoints, in GiB: what
    /// can't fit isn't begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_gib: Option<f64>,
    /// FLOPs a second of one worker, convention `6ND`, as a launch prints them at its end: lets `plan`
    /// tell how long a sweep takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_flops: Option<f64>,
    /// Price of a worker for an hour, in whatever money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_price: Option<f64>,
}

fn default_workers() -> u32 {
    2
}
fn default_workers_per_trial() -> u32 {
    1
}
fn default_deadline() -> f64 {
    600.0
}
fn default_failures() -> u32 {
    2
}
fn default_losses() -> u32 {
    100
}

impl Default for PoolTable {
    fn default() -> Self {
        PoolTable {
            workers: default_workers(),
            workers_per_trial: default_workers_per_trial(),
            threads: 0,
            deadline_seconds: default_deadline(),
            failures: default_failures(),
            losses: default_losses(),
            deadlines: Deadlines::default(),
            memory_gib: None,
            worker_flops: None,
            worker_price: None,
        }
    }
}

#[cfg(test)]
mod tests;
