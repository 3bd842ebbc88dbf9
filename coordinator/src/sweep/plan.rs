//! From a sweep to its trials, as data: printed, compared and executed elsewhere.

use super::Sweep;
use polestar_dataset::LeftOut;
use polestar_model::{ModelConfig, ModelLayout, Preset, count};
use polestar_worker::{
    Objective, StartFrom, Step, TrainConfig, TrialConfig, TrialId, WorldSize,
    config::ConfigError,
    memory::{Holding, memory},
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
    /// Whether it is only a start for others.
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
    #[error("sweep.sizes has `{name}`; name a preset, or define [models.{name}]")]
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
    /// Two trials would have one name.
    #[error("two trials are called {0}; sizes, budgets, steps and seeds must each be listed once")]
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
        if let Some(&lr) = axes.lr.get(size) {
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
                    start: None,
                };
                starts.push(maker.trial(size, &model, seed, stage, true)?);
            }
            for (label, budget, steps) in maker.lengths(size, &model)? {
                let stage = Stage {
                    id: TrialId(format!("{size}-{label}-s{seed}")),
                    objective: axes.objective,
                    train: train.clone(),
                    steps,
                    budget,
                    start: start.clone(),
                };
                trials.push(maker.trial(size, &model, seed, stage, false)?);
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
    Preset::by_name(size)
        .map(|preset| preset.config(vocab))
        .map_err(|source| PlanError::Size {
            name: size.to_owned(),
            source,
        })
}

struct Maker<'a> {
    sweep: &'a Sweep,
    fingerprint: &'a str,
    tokens_per_triplet: f64,
}

struct Stage {
    id: TrialId,
    objective: Objective,
    train: TrainConfig,
    steps: u64,
    budget: Option<f64>,
    start: Option<StartFrom>,
}

impl Maker<'_> {
    /// Label, budget and steps of each length on the sweep's axis.
    fn lengths(
        &self,
        size: &str,
        model: &ModelConfig,
    ) -> Result<Vec<(String, Option<f64>, u64)>, PlanError> {
        let axes = &self.sweep.sweep;
        let per_step = self.flops(model, self.sweep.train.batch, 1);
        let mut lengths = Vec::new();
        for &budget in &axes.budgets {
            let steps = (budget / per_step).round() as u64;
            if steps < MIN_STEPS {
                return Err(PlanError::BudgetTooSmall {
                    budget,
                    size: size.to_owned(),
                    steps,
                    enough: per_step * MIN_STEPS as f64,
                });
            }
            lengths.push((
                format!("{budget:.2e}").replace(".00e", "e"),
                Some(budget),
                steps,
            ));
        }
        for &steps in &axes.steps {
            lengths.push((format!("{steps}steps"), None, steps));
        }
        Ok(lengths)
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
            window: sweep.window,
            train: stage.train,
            start: stage.start,
        };
        config.validate().map_err(|source| PlanError::Config {
            trial: config.id.clone(),
            source,
        })?;
        let layout = ModelLayout::new(model, config.objective.head());
        let holding = Holding {
            zero: config.train.zero,
            world: WorldSize(sweep.pool.workers_per_trial.min(config.train.lanes)),
            lanes: config.train.lanes,
            reduction: config.train.reduction,
            recompute: config.train.recompute,
        };
        let state_bytes = memory(&layout, holding).total();
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
