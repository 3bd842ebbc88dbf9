//! From a sweep to its trials, as data: printed, compared and executed elsewhere.

use super::{
    Sweep,
    axes::{BatchAxis, LrAxis, TrunkTable},
};
use crate::laws::polar;
use polestar_dataset::{LeftOut, PolicyChoice};
use polestar_model::{ModelConfig, ModelLayout, Preset, count};
use polestar_worker::{
    Objective, StartFrom, Step, TrainConfig, TrialConfig, TrialId, Trunk, WorldSize,
    config::ConfigError,
    memory::{Holding, memory},
    schedule::Schedule,
    sharding::Zero,
};
use serde::{Deserialize, Serialize};

/// All trials of a sweep on one corpus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Fingerprint of the corpus that it was made for.
    pub fingerprint: String,
    /// Mean tokens of a triplet in the plain layout, as measured on the corpus.
    pub tokens_per_triplet: f64,
    /// What the quarantine leaves out of the corpus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
    /// The trials: warm starts first, then by size, length and seed.
    pub trials: Vec<PlannedTrial>,
}

/// One trial and what it is expected to cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedTrial {
    /// What the workers get.
    pub config: TrialConfig,
    /// Name of its size.
    pub size: String,
    /// The budget it was made for, if the sweep has budgets.
    pub budget: Option<f64>,
    /// Whether it is only a start or a trunk for others, and no point of any law.
    pub is_warm_start: bool,
    /// All trained parameters of the reward model.
    pub parameters: u64,
    /// Without the embedding table.
    pub non_embedding: u64,
    /// Expected tokens, plain layout.
    pub plain_tokens: f64,
    /// Expected FLOPs, convention `6ND`.
    pub flops_6nd: f64,
    /// Most bytes of weights, gradients and moments on a rank.
    pub state_bytes: u64,
}

/// Why a sweep can't be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// `sweep.sizes` has a name that nothing has.
    #[error(
        "sweep.sizes has `{name}`; name a preset or a number of parameters such as \"120M\", or define [models.{name}]"
    )]
    Size {
        /// The name.
        name: String,
        /// What is known.
        #[source]
        source: polestar_model::ModelError,
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
        "trial {trial} needs {needs:.1} GiB on each worker, and pool.memory_gib is {has}; {remedy}"
    )]
    Memory {
        /// The trial.
        trial: TrialId,
        /// GiB.
        needs: f64,
        /// GiB.
        has: f64,
        /// What would fit.
        remedy: String,
    },
    /// Two trials would have one name.
    #[error("two trials are called {0}; each axis must list everything once")]
    Twice(TrialId),
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

/// Fewer steps than this are no training.
const MIN_STEPS: u64 = 4;

/// Expands a sweep for a corpus whose triplets have `tokens_per_triplet` tokens on average in the
/// plain layout and whose tokenizer has `vocab` entries.
///
/// # Errors
/// [`PlanError`] names the key and what would do.
pub fn plan(
    sweep: &Sweep,
    fingerprint: &str,
    vocab: u32,
    tokens_per_triplet: f64,
) -> Result<Plan, PlanError> {
    let maker = Maker {
        sweep,
        fingerprint,
        tokens_per_triplet,
    };
    let axes = &sweep.sweep;
    let mut starts = Vec::new();
    let mut trials = Vec::new();
    for size in &axes.sizes {
        let model = model(sweep, size, vocab)?;
        let mut train = sweep.train.clone();
        if let LrAxis::BySize(by_size) = &axes.lr
            && let Some(&lr) = by_size.get(size)
        {
            train.optimizer.lr = lr;
        }
        for &seed in &axes.seeds {
            let start = sweep.warm_start.as_ref().map(|warm| StartFrom {
                trial: TrialId(format!("{size}-start-s{seed}")),
                step: Step(warm.steps),
            });
            if let (Some(warm), Some(start)) = (&sweep.warm_start, &start) {
                let mut train = train.clone();
                if let Some(batch) = warm.batch {
                    train.batch = batch;
                }
                if let Some(optimizer) = &warm.optimizer {
                    train.optimizer = optimizer.clone();
                }
                if let Some(schedule) = &warm.schedule {
                    train.schedule = schedule.clone();
                }
                let stage = Stage {
                    id: start.trial.clone(),
                    objective: warm.objective,
                    train,
                    steps: warm.steps,
                    budget: None,
                    policies: None,
                    start: None,
                    trunk: None,
                };
                starts.push(maker.trial(size, &model, seed, stage, true)?);
            }
            for variant in maker.variants(size, &model, &train)? {
                let Variant { train, suffix, .. } = &variant;
                let stage = |length: &Length| Stage {
                    id: TrialId(format!("{size}-{}{suffix}-s{seed}", length.label)),
                    objective: axes.objective,
                    train: train.clone(),
                    steps: length.steps,
                    budget: length.budget,
                    policies: variant.policies.map(|count| PolicyChoice { count, seed }),
                    start: start.clone(),
                    trunk: None,
                };
                let stages: Vec<Stage> = variant.lengths.iter().map(stage).collect();
                let Some(table) = axes.trunk else {
                    for stage in stages {
                        trials.push(maker.trial(size, &model, seed, stage, false)?);
                    }
                    continue;
                };
                let id = TrialId(format!("{size}-trunk{suffix}-s{seed}"));
                let (trunk, branches) = grow(id, table, stages);
                let mut identity = String::new();
                if let Some(trunk) = trunk {
                    let trunk = maker.trial(size, &model, seed, trunk, true)?;
                    identity = trunk.config.identity();
                    starts.push(trunk);
                }
                for mut branch in branches {
                    if let Some(trunk) = &mut branch.trunk {
                        trunk.identity.clone_from(&identity);
                    }
                    trials.push(maker.trial(size, &model, seed, branch, false)?);
                }
            }
        }
    }
    starts.append(&mut trials);
    let mut names: Vec<&TrialId> = starts.iter().map(|t| &t.config.id).collect();
    names.sort();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(PlanError::Twice(pair[0].clone()));
    }
    Ok(Plan {
        fingerprint: fingerprint.to_owned(),
        tokens_per_triplet,
        left_out: None,
        trials: starts,
    })
}

fn model(sweep: &Sweep, size: &str, vocab: u32) -> Result<ModelConfig, PlanError> {
    if let Some(own) = sweep.models.get(size) {
        let mut model = own.clone();
        model.vocab_size = model.vocab_size.max(vocab);
        return Ok(model);
    }
    if let Some(target) = parameters(size) {
        return Ok(ModelConfig::near(target, vocab));
    }
    Preset::by_name(size)
        .map(|preset| preset.config(vocab))
        .map_err(|source| PlanError::Size {
            name: size.to_owned(),
            source,
        })
}

/// A number of parameters: `120M`, `1.5B`, `64k`.
fn parameters(size: &str) -> Option<u64> {
    let (number, unit) = size.split_at_checked(size.len().checked_sub(1)?)?;
    let unit = match unit {
        "k" => 1e3,
        "M" => 1e6,
        "B" => 1e9,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    (number.is_finite() && number > 0.0).then_some((number * unit).round() as u64)
}

/// The trunk of some trials that differ only in their lengths, and these as its branches. A length so
/// short that it has nothing in common with others stays as it is.
fn grow(id: TrialId, table: TrunkTable, mut branches: Vec<Stage>) -> (Option<Stage>, Vec<Stage>) {
    let shortest = branches.iter().map(|b| b.steps).min().unwrap_or(0);
    let warmup = table
        .warmup
        .unwrap_or_else(|| (0.03 * shortest as f64).ceil() as u64);
    let schedule = |decay| Schedule::WsdSteps {
        warmup,
        decay,
        floor: table.floor,
    };
    let mut left = Vec::new();
    for branch in &mut branches {
        let decay = (table.decay * branch.steps as f64).round().max(1.0) as u64;
        branch.train.schedule = schedule(decay);
        let step = branch.steps.saturating_sub(decay);
        if step > 0 {
            left.push(Step(step));
            branch.trunk = Some(Trunk {
                trial: id.clone(),
                identity: String::new(),
                step: Step(step),
            });
        }
    }
    left.sort();
    left.dedup();
    let (Some(&last), Some(any)) = (left.last(), branches.first()) else {
        return (None, branches);
    };
    let mut train = any.train.clone();
    train.schedule = schedule(0);
    train.checkpoint.at = left;
    let trunk = Stage {
        id,
        train,
        steps: last.0,
        budget: None,
        trunk: None,
        ..any.clone()
    };
    (Some(trunk), branches)
}

struct Maker<'a> {
    sweep: &'a Sweep,
    fingerprint: &'a str,
    tokens_per_triplet: f64,
}

#[derive(Clone)]
struct Stage {
    id: TrialId,
    objective: Objective,
    train: TrainConfig,
    steps: u64,
    budget: Option<f64>,
    policies: Option<PolicyChoice>,
    start: Option<StartFrom>,
    trunk: Option<Trunk>,
}

/// How long a trial is.
#[derive(Clone)]
struct Length {
    label: String,
    budget: Option<f64>,
    steps: u64,
}

/// Trials of one size that differ in their lengths only.
struct Variant {
    /// What tells them from those of another learning rate, batch or number of policies.
    suffix: String,
    train: TrainConfig,
    policies: Option<u32>,
    lengths: Vec<Length>,
}

impl Maker<'_> {
    /// Learning rates, batches and numbers of policies of a size, each with its lengths.
    fn variants(
        &self,
        size: &str,
        model: &ModelConfig,
        train: &TrainConfig,
    ) -> Result<Vec<Variant>, PlanError> {
        let axes = &self.sweep.sweep;
        let batches = match &axes.batch {
            Some(BatchAxis::Each(batches)) => batches.clone(),
            _ => vec![train.batch],
        };
        let rates = match &axes.lr {
            LrAxis::Each(rates) => rates.clone(),
            _ => vec![train.optimizer.lr],
        };
        let policies: Vec<Option<u32>> = match axes.policies.is_empty() {
            true => vec![None],
            false => axes.policies.iter().copied().map(Some).collect(),
        };
        let mut variants = Vec::new();
        for &batch in &batches {
            let lengths = self.lengths(size, model, batch)?;
            for &lr in &rates {
                for &policies in &policies {
                    let mut suffix = String::new();
                    if batches.len() > 1 {
                        suffix += &format!("-b{batch}");
                    }
                    if rates.len() > 1 {
                        suffix += &format!("-lr{lr:e}");
                    }
                    if let Some(count) = policies {
                        suffix += &format!("-p{count}");
                    }
                    let mut train = train.clone();
                    train.batch = batch;
                    train.optimizer.lr = lr;
                    variants.push(Variant {
                        suffix,
                        train,
                        policies,
                        lengths: lengths.clone(),
                    });
                }
            }
        }
        if !self.follows_a_law() {
            return Ok(variants);
        }
        // By the paper's laws every length is a variant of its own.
        let apart = variants.into_iter().flat_map(|variant| {
            let lengths = variant.lengths.clone();
            lengths.into_iter().map(move |length| Variant {
                suffix: variant.suffix.clone(),
                train: variant.train.clone(),
                policies: variant.policies,
                lengths: vec![length],
            })
        });
        let mut variants: Vec<Variant> = apart.collect();
        for variant in &mut variants {
            self.by_law(size, model, variant)?;
        }
        Ok(variants)
    }

    fn follows_a_law(&self) -> bool {
        let axes = &self.sweep.sweep;
        matches!(axes.lr, LrAxis::Law(_)) || matches!(axes.batch, Some(BatchAxis::Law(_)))
    }

    /// Batch and learning rate of one length by the paper's laws: the batch first, rounded to whole
    /// lanes, and as many steps as then make the same number of tokens.
    fn by_law(
        &self,
        size: &str,
        model: &ModelConfig,
        variant: &mut Variant,
    ) -> Result<(), PlanError> {
        let axes = &self.sweep.sweep;
        let parameters = count::parameters(model).total as f64;
        for length in &mut variant.lengths {
            let triplets = length.steps as f64 * f64::from(variant.train.batch);
            let tokens = triplets * self.tokens_per_triplet;
            if let Some(BatchAxis::Law(_)) = axes.batch {
                let lanes = f64::from(variant.train.lanes);
                let lawful = (polar::batch(parameters, tokens) / lanes).round().max(1.0) * lanes;
                variant.train.batch = lawful as u32;
                length.steps = self.enough(size, length.budget, model, lawful as u32, triplets)?;
            }
            if let (LrAxis::Law(_), Some(before)) = (&axes.lr, axes.pretrain_tokens) {
                variant.train.optimizer.lr =
                    polar::learning_rate(parameters, before, tokens) as f32;
            }
        }
        Ok(())
    }

    /// Label, budget and steps of each length on the sweep's axis.
    fn lengths(
        &self,
        size: &str,
        model: &ModelConfig,
        batch: u32,
    ) -> Result<Vec<Length>, PlanError> {
        let axes = &self.sweep.sweep;
        let non_embedding = count::parameters(model).non_embedding as f64;
        let mut lengths = Vec::new();
        for &budget in &axes.budgets {
            let triplets = budget / self.flops(model, 1, 1);
            lengths.push(Length {
                label: format!("{budget:.2e}").replace(".00e", "e"),
                budget: Some(budget),
                steps: self.enough(size, Some(budget), model, batch, triplets)?,
            });
        }
        for &multiple in &axes.tokens_per_parameter {
            let triplets = multiple * non_embedding / self.tokens_per_triplet;
            lengths.push(Length {
                label: format!("{multiple}x"),
                budget: None,
                steps: self.enough(size, None, model, batch, triplets)?,
            });
        }
        for &steps in &axes.steps {
            lengths.push(Length {
                label: format!("{steps}steps"),
                budget: None,
                steps,
            });
        }
        Ok(lengths)
    }

    /// Steps of `batch` triplets that make `triplets`.
    fn enough(
        &self,
        size: &str,
        budget: Option<f64>,
        model: &ModelConfig,
        batch: u32,
        triplets: f64,
    ) -> Result<u64, PlanError> {
        let steps = (triplets / f64::from(batch)).round() as u64;
        if steps >= MIN_STEPS {
            return Ok(steps);
        }
        Err(match budget {
            Some(budget) => PlanError::BudgetTooSmall {
                budget,
                size: size.to_owned(),
                steps,
                enough: self.flops(model, batch, MIN_STEPS),
            },
            None => PlanError::TooShort {
                size: size.to_owned(),
                steps,
                enough: MIN_STEPS as f64 * f64::from(batch) * self.tokens_per_triplet
                    / count::parameters(model).non_embedding as f64,
            },
        })
    }

    fn flops(&self, model: &ModelConfig, batch: u32, steps: u64) -> f64 {
        count::flops_6nd(model, 1) * self.tokens_per_triplet * f64::from(batch) * steps as f64
    }

    fn trial(
        &self,
        size: &str,
        model: &ModelConfig,
        seed: u64,
        stage: Stage,
        is_warm_start: bool,
    ) -> Result<PlannedTrial, PlanError> {
        let sweep = self.sweep;
        let parameters = count::parameters(model);
        let mut stage = stage;
        if let (Some(validations), false) = (sweep.sweep.envelope, is_warm_start) {
            let validation = &mut stage.train.validation;
            validation.every = (stage.steps / u64::from(validations)).max(1);
            validation.triplets = validation.at_the_end();
        }
        let triplets = stage.steps as f64 * f64::from(stage.train.batch);
        let flops_6nd = self.flops(model, stage.train.batch, stage.steps);
        let config = TrialConfig {
            id: stage.id,
            objective: stage.objective,
            seed,
            model: model.clone(),
            steps: stage.steps,
            corpus: sweep.corpus.url.clone(),
            fingerprint: self.fingerprint.to_owned(),
            quarantine: sweep.corpus.quarantine.clone(),
            samples: sweep.samples.clone(),
            weighting: sweep.weighting,
            policies: stage.policies,
            window: sweep.window,
            train: stage.train,
            start: stage.start,
            trunk: stage.trunk,
        };
        config.validate().map_err(|source| PlanError::Config {
            trial: config.id.clone(),
            source,
        })?;
        let layout = ModelLayout::new(model, config.objective.head());
        let state_bytes = self.fitting(&config, &layout)?;
        Ok(PlannedTrial {
            size: size.to_owned(),
            budget: stage.budget,
            is_warm_start,
            parameters: parameters.total,
            non_embedding: parameters.non_embedding,
            plain_tokens: triplets * self.tokens_per_triplet,
            flops_6nd,
            state_bytes,
            config,
        })
    }
}

impl Maker<'_> {
    /// Bytes of state on a rank, if a worker has them.
    fn fitting(&self, config: &TrialConfig, layout: &ModelLayout) -> Result<u64, PlanError> {
        const GIB: f64 = (1_u64 << 30) as f64;
        let (pool, train) = (&self.sweep.pool, &config.train);
        let bytes = |zero, world: u32| {
            let holding = Holding {
                zero,
                world: WorldSize(world.min(train.lanes)),
                lanes: train.lanes,
                reduction: train.reduction,
                recompute: train.recompute,
            };
            memory(layout, holding).total()
        };
        let needs = bytes(train.zero, pool.workers_per_trial);
        let Some(has) = pool.memory_gib else {
            return Ok(needs);
        };
        if needs as f64 <= has * GIB {
            return Ok(needs);
        }
        let most = pool.workers.min(train.lanes);
        let worlds = (pool.workers_per_trial..=most).filter(|world| world.is_power_of_two());
        let stages = [Zero::None, Zero::Optimizer, Zero::Gradient, Zero::Weights];
        let mut ways = worlds.flat_map(|world| stages.map(|zero| (world, zero)));
        let remedy = match ways.find(|&(world, zero)| bytes(zero, world) as f64 <= has * GIB) {
            Some((world, zero)) => format!(
                "train.zero = {} with pool.workers_per_trial = {world} needs {:.1} GiB",
                u8::from(zero),
                bytes(zero, world) as f64 / GIB
            ),
            None => format!(
                "even train.zero = 3 over {most} workers needs {:.1} GiB: leave the size out, or give the pool more workers and the batch as many lanes",
                bytes(Zero::Weights, most) as f64 / GIB
            ),
        };
        Err(PlanError::Memory {
            trial: config.id.clone(),
            needs: needs as f64 / GIB,
            has,
            remedy,
        })
    }
}

impl PlannedTrial {
    /// FLOPs that it takes, apart from those that its trunk has done for it.
    pub fn own_flops(&self) -> f64 {
        let shared = self.config.trunk.as_ref().map_or(0, |trunk| trunk.step.0);
        self.flops_6nd * (1.0 - shared as f64 / self.config.steps.max(1) as f64)
    }
}

impl Plan {
    /// blake3 over the identities of all trials and what their scores are taken on: what the run's
    /// name ends with. Machines, workers and places are not part of it, so the same sweep continues
    /// the same run anywhere.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for trial in &self.trials {
            let validation = &trial.config.train.validation;
            hasher.update(trial.config.id.0.as_bytes());
            hasher.update(trial.config.identity().as_bytes());
            hasher.update(&(validation.triplets as u64).to_le_bytes());
            hasher.update(&(validation.at_the_end() as u64).to_le_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}
