//! `[train]` of a sweep file: how its trials are trained.

use crate::{
    Arithmetic, BatchRecipe, EvaluationSet, Execution, Measurement, Order, Trunk,
    placement::{Reduction, Zero},
    schedule::{Schedule, ScheduleError},
};
use polestar_core::{ByteCount, Precision, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What computes a trial. Each has its own rounding: the same trial has other bits on another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// burn's CPU backend with this project's fused operations.
    #[default]
    Flex,
    /// libtorch on the CPU, in builds with the feature `tch`.
    Libtorch,
    /// An NVIDIA GPU, by kernels of this project and cuBLASLt. Needs `precision = "bf16"`.
    Cuda,
    /// burn on wgpu, portable over GPUs and slow beside their own libraries, in builds with the feature `wgpu`.
    #[serde(rename = "burn-wgpu")]
    BurnWgpu,
    /// burn on CUDA, in builds with the feature `burn-cuda`.
    #[serde(rename = "burn-cuda")]
    BurnCuda,
}

impl Backend {
    /// Its name in sweep files.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Flex => "flex",
            Backend::Libtorch => "libtorch",
            Backend::Cuda => "cuda",
            Backend::BurnWgpu => "burn-wgpu",
            Backend::BurnCuda => "burn-cuda",
        }
    }
}

/// How vectors go from one worker's GPU to another's, with `backend = "cuda"`. In canonical order it doesn't show in the
/// weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceTransport {
    /// By NCCL where every worker of a trial has it and a GPU of its own, and nothing that is to be encrypted would go
    /// between hosts; otherwise through host memory.
    #[default]
    Auto,
    /// By NCCL, between hosts too, where it encrypts nothing. A trial that can't have it is refused.
    Nccl,
    /// Through host memory, and the connections of CPU workers.
    Staged,
}

impl DeviceTransport {
    pub(crate) fn is_auto(&self) -> bool {
        *self == DeviceTransport::Auto
    }
}

/// AdamW and gradient clipping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Peak learning rate.
    pub lr: f32,
    /// Decay of the first and second moment.
    #[serde(default = "default_betas")]
    pub betas: [f32; 2],
    /// Added to the root of the second moment.
    #[serde(default = "default_eps")]
    pub eps: f32,
    /// Decoupled weight decay, times the learning rate a step.
    #[serde(default)]
    pub weight_decay: f32,
    /// Largest norm of the global gradient; a longer one is scaled down. 0 turns clipping off.
    #[serde(default = "default_clip")]
    pub clip: f32,
}

fn default_betas() -> [f32; 2] {
    [0.9, 0.95]
}
fn default_eps() -> f32 {
    1e-8
}
fn default_clip() -> f32 {
    1.0
}

/// When the held-out sets are scored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ValidationConfig {
    /// Steps between two validations; the last step is always validated. 0: only the last.
    #[schemars(extend("unit" = "steps"))]
    pub every: u64,
    /// Triplets of each held-out set.
    #[schemars(extend("unit" = "triplets"))]
    pub triplets: usize,
    /// Triplets of each held-out set after the last step, the first `triplets` among them; as many
    /// as `triplets` if not given. Final scores deserve narrower intervals than a curve.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("unit" = "triplets"))]
    pub final_triplets: Option<usize>,
}

impl ValidationConfig {
    /// Triplets of each set after the last step.
    pub fn at_the_end(&self) -> usize {
        self.final_triplets.unwrap_or(self.triplets)
    }
}

impl Default for ValidationConfig {
    fn default() -> Self {
        ValidationConfig {
            every: 0,
            triplets: 512,
            final_triplets: None,
        }
    }
}

/// When checkpoints are committed. They don't change the weights, so a run may be continued with
/// another setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Steps between two checkpoints; the last step is always one. 0: only the last.
    #[schemars(extend("unit" = "steps"))]
    pub every: u64,
    /// How many of the newest are kept, at least 2.
    #[schemars(extend("unit" = "checkpoints"))]
    pub keep: usize,
    /// Those after each multiple of this many steps are kept as well. 0: none.
    #[schemars(extend("unit" = "steps"))]
    pub keep_every: u64,
    /// Steps after which there is one in any case, and stays: others start from it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<u64>", extend("unit" = "steps"))]
    pub at: Vec<Step>,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig {
            every: 500,
            keep: 2,
            keep_every: 0,
            at: Vec::new(),
        }
    }
}

/// Whether workers keep a trial's state in memory for the case that one of them dies. It doesn't show in
/// the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemoryTier {
    /// They do: a trial that loses a worker goes on at most one step before where it was. Where state is
    /// sharded, each worker holds a copy of another one's shard, unless `pool.memory_gib` has no room for it.
    #[default]
    Auto,
    /// They don't: it goes on from its newest checkpoint.
    Off,
}

impl MemoryTier {
    pub(crate) fn is_auto(&self) -> bool {
        *self == MemoryTier::Auto
    }
}

/// How triplets are brought to a worker. It doesn't show in the weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoaderConfig {
    /// Most MiB of decoded row groups that a worker keeps, 64 or more; less makes it read some of them
    /// again.
    pub memory_mib: u64,
}

impl LoaderConfig {
    /// That memory.
    pub fn memory(&self) -> ByteCount {
        ByteCount::from_mib(self.memory_mib)
    }

    fn is_default(&self) -> bool {
        *self == LoaderConfig::default()
    }
}

impl Default for LoaderConfig {
    fn default() -> Self {
        LoaderConfig {
            memory_mib: polestar_dataset::loader::DEFAULT_MEMORY.mib(),
        }
    }
}

/// How a trial is trained, apart from its size and length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Triplets in a global batch.
    #[schemars(extend("unit" = "triplets"))]
    pub batch: u32,
    /// Lanes that a batch is cut into: any number that divides it. No more ranks than lanes can
    /// train a trial.
    #[serde(default = "default_lanes")]
    pub lanes: u32,
    /// Tokens of one packed row: the unit that is in memory at once. A longer triplet gets a row
    /// of its own.
    #[serde(default = "default_pack_tokens")]
    #[schemars(extend("unit" = "tokens"))]
    pub pack_tokens: u32,
    /// Keep only the input of each segment and run it again in the backward pass: less memory,
    /// more time, the same bits.
    #[serde(default)]
    pub recompute: bool,
    /// What is sharded over the ranks of a trial, 0 to 3: less memory, more traffic, the same bits.
    #[serde(default)]
    pub zero: Zero,
    /// In which order lanes are added up: `"canonical"`, or `"fast"`, which gives up the promise of
    /// one answer.
    #[serde(default)]
    pub reduction: Reduction,
    /// What computes: `"flex"`, `"libtorch"`, `"cuda"`, `"burn-wgpu"` or `"burn-cuda"`.
    #[serde(default)]
    pub backend: Backend,
    /// How operands of matrix products are rounded: `"f32"`, not at all, or `"bf16"`. Weights, sums and
    /// everything else are f32 in either case.
    #[serde(default)]
    pub precision: Precision,
    /// AdamW.
    pub optimizer: OptimizerConfig,
    /// Learning rate over time.
    #[serde(default)]
    pub schedule: Schedule,
    /// Held-out scores.
    #[serde(default)]
    pub validation: ValidationConfig,
    /// Checkpoints.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// Loading.
    #[serde(default, skip_serializing_if = "LoaderConfig::is_default")]
    pub loader: LoaderConfig,
    /// Whether workers keep the state in memory for the case that one of them dies: `"auto"`, where there
    /// is room for copies of shards, or `"off"`.
    #[serde(default, skip_serializing_if = "MemoryTier::is_auto")]
    #[schemars(extend("default" = "auto"))]
    pub memory_tier: MemoryTier,
    /// How vectors go between GPUs: `"auto"`, `"nccl"` or `"staged"`, through host memory.
    #[serde(default, skip_serializing_if = "DeviceTransport::is_auto")]
    #[schemars(extend("default" = "auto"))]
    pub transport: DeviceTransport,
    /// Go on although GPUs or libraries aren't those that a trial began with, whose bits are others; as
    /// `launch --accept-numerics`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("default" = false))]
    pub accept_numerics: bool,
}

fn default_lanes() -> u32 {
    8
}
fn default_pack_tokens() -> u32 {
    4096
}

/// Why a [`TrainConfig`] can't be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ConfigError {
    /// Somebody has to do the work.
    #[error("train.lanes is 0; a batch is cut into at least one lane")]
    NoLanes,
    /// Every lane has the same number of triplets.
    #[error(
        "train.batch {batch} can't be cut into {lanes} lanes of equal size; make it a multiple of train.lanes"
    )]
    UnevenBatch {
        /// train.batch
        batch: u32,
        /// train.lanes
        lanes: u32,
    },
    /// A damaged newest checkpoint needs one before it.
    #[error(
        "train.checkpoint.keep is {0}; it must be at least 2, so that a damaged newest checkpoint has one before it"
    )]
    KeepTooFew(usize),
    /// A loader needs some memory, and bytes have to be counted.
    #[error("train.loader.memory_mib is {0}; give 64 to 1048576")]
    LoaderMemory(u64),
    /// WGSL has no bf16 to round to.
    #[error(
        "train.precision = \"bf16\" can't be had with train.backend = \"burn-wgpu\": WGSL has no such numbers; use \"f32\", or another backend"
    )]
    NoBf16,
    /// The device has bf16 products only.
    #[error(
        "train.backend is \"cuda\", whose matrix products have bf16 operands; set train.precision = \"bf16\""
    )]
    CudaPrecision,
    /// There is nothing to choose.
    #[error(
        "train.transport says how vectors go between GPUs of train.backend = \"cuda\", and the backend is \"{0}\"; leave it out"
    )]
    NoDeviceTransport(&'static str),
    /// Nothing could be fitted or compared.
    #[error("train.validation.triplets and final_triplets must be at least 1")]
    NoValidation,
    /// A learning rate that can't be followed.
    #[error("train.schedule: {0}")]
    Schedule(ScheduleError),
    /// The optimizer would do nothing or harm.
    #[error("train.optimizer.{key} is {value}; it must be {must}")]
    Optimizer {
        /// The key.
        key: &'static str,
        /// Its value, as text.
        value: String,
        /// What is allowed.
        must: &'static str,
    },
    /// The model's sizes don't fit each other.
    #[error(transparent)]
    Model(#[from] polestar_model::ModelError),
}

impl ValidationConfig {
    /// What is measured.
    pub fn measurement(&self) -> Measurement {
        Measurement {
            every: self.every,
            triplets: self.triplets,
            final_triplets: self.at_the_end(),
            sets: EvaluationSet::of_corpus(),
        }
    }
}

impl TrainConfig {
    /// Checks what serde can't.
    ///
    /// # Errors
    /// The first thing that is wrong, naming its key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.lanes == 0 {
            return Err(ConfigError::NoLanes);
        }
        if self.batch == 0 || !self.batch.is_multiple_of(self.lanes) {
            return Err(ConfigError::UnevenBatch {
                batch: self.batch,
                lanes: self.lanes,
            });
        }
        if self.backend == Backend::BurnWgpu && self.precision == Precision::Bf16 {
            return Err(ConfigError::NoBf16);
        }
        if self.checkpoint.keep < 2 {
            return Err(ConfigError::KeepTooFew(self.checkpoint.keep));
        }
        if !(64..=1 << 20).contains(&self.loader.memory_mib) {
            return Err(ConfigError::LoaderMemory(self.loader.memory_mib));
        }
        if self.backend == Backend::Cuda && self.precision != Precision::Bf16 {
            return Err(ConfigError::CudaPrecision);
        }
        if self.backend != Backend::Cuda && self.transport != DeviceTransport::Auto {
            return Err(ConfigError::NoDeviceTransport(self.backend.name()));
        }
        let o = &self.optimizer;
        let wrong = |key, value: f32, must| ConfigError::Optimizer {
            key,
            value: value.to_string(),
            must,
        };
        if !(o.lr.is_finite() && o.lr > 0.0) {
            return Err(wrong("lr", o.lr, "a positive number"));
        }
        if o.betas.iter().any(|b| !(0.0..1.0).contains(b)) {
            let [a, b] = o.betas;
            let bad = if (0.0..1.0).contains(&a) { b } else { a };
            return Err(wrong("betas", bad, "two numbers in [0, 1)"));
        }
        if !(o.eps.is_finite() && o.eps > 0.0) {
            return Err(wrong("eps", o.eps, "a positive number"));
        }
        if !(o.weight_decay.is_finite() && o.weight_decay >= 0.0) {
            return Err(wrong(
                "weight_decay",
                o.weight_decay,
                "0 or a positive number",
            ));
        }
        if self.validation.triplets == 0 || self.validation.at_the_end() == 0 {
            return Err(ConfigError::NoValidation);
        }
        self.schedule.validate().map_err(ConfigError::Schedule)?;
        if !(o.clip.is_finite() && o.clip >= 0.0) {
            return Err(wrong("clip", o.clip, "0 or a positive number"));
        }
        Ok(())
    }

    /// How batches are made.
    pub fn batches(&self) -> BatchRecipe {
        BatchRecipe {
            triplets: self.batch,
            lanes: self.lanes,
            pack_tokens: self.pack_tokens,
        }
    }

    /// The arithmetic of a trial that `world` ranks train.
    pub fn arithmetic(&self, world: u32) -> Arithmetic {
        Arithmetic {
            backend: self.backend,
            precision: self.precision,
            order: Order::new(self.reduction, world, self.zero),
        }
    }

    /// How a trial on the corpus at this URL is carried out.
    pub fn execution(&self, corpus: &str, trunk: Option<Trunk>) -> Execution {
        Execution {
            corpus: corpus.to_owned(),
            zero: self.zero,
            recompute: self.recompute,
            weights: None,
            loader: self.loader.clone(),
            checkpoint: self.checkpoint.clone(),
            memory_tier: self.memory_tier,
            transport: self.transport,
            accept_numerics: self.accept_numerics,
            trunk,
        }
    }
}
