//! A sweep file: what it may say, and reading it.

mod axes;
mod check;
mod error;
mod expand;
mod explain;
#[cfg(test)]
pub(crate) mod fixture;
mod law_or_values;
mod memory;
mod plan;
mod read;
mod schema;
mod sizes;
mod start;
mod telemetry;
mod trunk;
mod variants;
mod workers;
mod world;

pub use axes::{Axes, BatchAxis, LrAxis, PaperLaw, TrunkTable};
pub use error::PlanError;
pub use memory::{Share, State};
pub use plan::{
    CorpusFacts, Plan, PlannedTrial, StartFacts, TrialRole, Work, longest_sequence, plan,
};
pub use read::{ReadError, check, read, read_str};
pub use schema::schema;
pub use start::{Pretraining, StartTable, StartTrial};
pub use telemetry::{OtlpProtocol, TelemetryTable};
pub use workers::{NotAPool, Workers};
pub use world::{WorkersPerTrial, least_world};

use crate::{
    control::core::Deadlines,
    launcher::{LauncherKind, SlurmTable},
};
use polestar_core::{ByteCount, Objective};
use polestar_dataset::{ImportOptions, SampleConfig, SynthOptions, Weighting};
use polestar_eval::Format as BenchFormat;
use polestar_model::ModelConfig;
use polestar_run::{
    TrainConfig, config::OptimizerConfig, pool::CertificateFiles, schedule::Schedule,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// A sweep file, as written.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
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
    #[schemars(extend("unit" = "prompts"))]
    pub window: usize,
    /// How every trial is trained.
    pub train: TrainConfig,
    /// What is varied.
    pub sweep: Axes,
    /// Models of this file's own, by name, for `sweep.sizes`.
    #[serde(default)]
    pub models: BTreeMap<String, ModelConfig>,
    /// Weights that every trial, or its warm start, begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartTable>,
    /// A first stage for every size and seed, from whose weights its trials start.
    pub warm_start: Option<WarmStart>,
    /// Preference benchmarks that the final weights of every trial are scored on when all are trained. They decide no
    /// weights, and may be added later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluation: Vec<EvaluationSet>,
    /// The workers.
    #[serde(default)]
    pub pool: PoolTable,
    /// Where what happens is exported to.
    #[serde(default, skip_serializing_if = "TelemetryTable::is_default")]
    pub telemetry: TelemetryTable,
}

/// A preference benchmark of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluationSet {
    /// What it is called in the report: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Its file, folder, pattern or URL.
    pub url: String,
    /// Whose file it is, where its keys don't say.
    pub format: Option<BenchFormat>,
}

fn default_window() -> usize {
    1024
}

/// Where the corpus is, and how it is made if it isn't there yet.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorpusTable {
    /// Object store URL of the corpus.
    pub url: String,
    /// Make it from synthetic policies.
    pub synth: Option<SynthOptions>,
    /// Make it from files.
    pub import: Option<ImportOptions>,
    /// Damaged row groups to go on without, each `FILE#NUMBER`. They belong to what the weights are a
    /// function of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<String>,
}

/// The stage before: usually language modelling on the same trajectories.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WarmStart {
    /// What it learns.
    #[serde(default = "default_warm_objective")]
    pub objective: Objective,
    /// Its length.
    #[schemars(extend("unit" = "steps"))]
    pub steps: u64,
    /// Its batch, if not that of `train`.
    #[schemars(extend("unit" = "triplets"))]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoolTable {
    /// Workers of the pool: processes that `launch` starts on this machine, or how many are expected to join; with
    /// `"gpus"`, one that `launch` starts for each GPU of this machine, which sees no other.
    pub workers: Workers,
    /// Where workers come from: `local` has `launch` start them on this machine, `join` waits for those that are
    /// started elsewhere with `coordinator worker join`, `slurm` submits them as jobs. Without it, `join` if there is
    /// `listen`, otherwise `local`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launcher: Option<LauncherKind>,
    /// Where workers of other hosts join: `ADDRESS[:PORT]`, with an address, an interface's name or a network such as
    /// `10.1.0.0/16`. Without it, only processes of this machine can; with `slurm`, all addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// File with the token that lets workers in; made if it isn't there. Without it, `POLESTAR_TOKEN` holds the
    /// token; with `slurm`, a file in its folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Workers that train one trial together: a number, or `"auto"`. With `"auto"` each trial has a worker of its own
    /// while there are more trials than workers, and towards the end they share what is free. If the pool stays
    /// smaller than a trial wants, it begins with what there is, and is regrouped when more come.
    pub workers_per_trial: WorkersPerTrial,
    /// Threads of a worker; 0 shares this machine's cores among the workers.
    pub threads: usize,
    /// A site's certificates, for TLS that goes by them instead of by the token alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<CertificateFiles>,
    /// A collective that waits longer than this many seconds fails.
    pub deadline_seconds: f64,
    /// Failures (not losses of a worker) after which a trial is abandoned.
    pub failures: u32,
    /// Losses of a worker after which a trial is abandoned.
    pub losses: u32,
    /// How long silence is waited for, in seconds by what is awaited.
    pub deadlines: Deadlines,
    /// How long a coordinator leads without being heard of, in seconds. After half as long again another one may
    /// take its place.
    pub lease_seconds: u64,
    /// How long workers go on without a coordinator before they end.
    pub grace_seconds: u64,
    /// Whether metrics are also written for other programs while trials train: TensorBoard's event files and CSV, in
    /// the run's folder under `metrics`.
    pub metrics_files: bool,
    /// Memory of a worker for weights, gradients, moments and the copy for checkpoints, in GiB: what
    /// can't fit isn't begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_gib: Option<f64>,
    /// FLOPs a second of one worker, convention `6ND`, as a launch prints them at its end: lets `plan`
    /// tell how long a sweep takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("unit" = "FLOP/s"))]
    pub worker_flops: Option<f64>,
    /// Price of a worker for an hour, in whatever money.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_price: Option<f64>,
    /// How workers are submitted to SLURM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slurm: Option<SlurmTable>,
}

impl PoolTable {
    /// Memory of a worker, where it is limited.
    pub fn memory(&self) -> Option<ByteCount> {
        self.memory_gib.map(ByteCount::from_gib)
    }

    /// Most workers that train one trial of so many lanes together.
    pub fn largest_world(&self, lanes: u32) -> u32 {
        self.workers_per_trial.most(self.workers.number(), lanes)
    }

    /// Where workers come from, said or not.
    pub fn launcher_kind(&self) -> LauncherKind {
        let unsaid = match self.listen {
            Some(_) => LauncherKind::Join,
            None => LauncherKind::Local,
        };
        self.launcher.unwrap_or(unsaid)
    }
}

impl Default for PoolTable {
    fn default() -> Self {
        PoolTable {
            workers: Workers::Fixed(2),
            launcher: None,
            listen: None,
            token_file: None,
            tls: None,
            workers_per_trial: WorkersPerTrial::one(),
            threads: 0,
            deadline_seconds: 600.0,
            failures: 2,
            losses: 100,
            deadlines: Deadlines::default(),
            lease_seconds: 15,
            grace_seconds: 120,
            metrics_files: true,
            memory_gib: None,
            worker_flops: None,
            worker_price: None,
            slurm: None,
        }
    }
}

#[cfg(test)]
mod tests;
