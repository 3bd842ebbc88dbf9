//! From a sweep to its trials, as data: printed, compared and executed elsewhere.

use super::{
    PlanError, Sweep,
    axes::{LrAxis, Spread},
    memory::{GIB, Share},
    trunk::grow,
    variants::{Length, Variant},
};
use polestar_core::{Objective, Step, TrialId};
use polestar_dataset::{LeftOut, PolicyChoice, PolicyDistances};
use polestar_model::{HeadKind, ModelConfig, ModelLayout, Preset, count};
use polestar_run::{StartFrom, TrainConfig, TrialConfig, Trunk, placement::Zero};
use serde::{Deserialize, Serialize};

/// What a plan has to know of the corpus.
#[derive(Clone, Debug)]
pub struct CorpusFacts {
    /// Names its content.
    pub fingerprint: String,
    /// Entries of its tokenizer.
    pub vocab: u32,
    /// Mean tokens of a triplet, plain layout.
    pub tokens_per_triplet: f64,
    /// What a triplet comes to when policies are discriminated.
    pub polar: Work,
    /// What it comes to as a language model.
    pub lm: Work,
    /// How far apart its policies write, if the sweep varies that.
    pub distances: Option<PolicyDistances>,
}

/// What a triplet comes to, on average, where a shared prefix is packed once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Tokens.
    pub tokens: f64,
    /// (query, key) pairs that attention looks at.
    pub pairs: f64,
}

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
    /// Mean distance between the policies it trains on, where the sweep chose them by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<f64>,
    /// Expected tokens, plain layout.
    pub plain_tokens: f64,
    /// Expected FLOPs, convention `6ND`.
    pub flops_6nd: f64,
    /// Expected FLOPs, convention `executed`; 0 in plans of versions that didn't tell.
    #[serde(default)]
    pub flops_executed: f64,
    /// Most bytes of weights, gradients and moments on a rank.
    pub state_bytes: u64,
}

/// Expands a sweep for a corpus.
///
/// # Errors
/// [`PlanError`] names the key and what would do.
pub fn plan(sweep: &Sweep, corpus: &CorpusFacts) -> Result<Plan, PlanError> {
    let maker = Maker { sweep, corpus };
    let axes = &sweep.sweep;
    let mut starts = Vec::new();
    let mut trials = Vec::new();
    for size in &axes.sizes {
        let model = model(sweep, size, corpus.vocab)?;
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
                let policies = match variant.policies {
                    Some((spread, count)) => Some(maker.choice(spread, count, seed)?),
                    None => None,
                };
                let stage = |length: &Length| Stage {
                    id: TrialId(format!("{size}-{}{suffix}-s{seed}", length.label)),
                    objective: axes.objective,
                    train: train.clone(),
                    steps: length.steps,
                    budget: length.budget,
                    policies: policies.clone(),
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
        fingerprint: corpus.fingerprint.clone(),
        tokens_per_triplet: corpus.tokens_per_triplet,
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

/// Makes trials of a sweep on a corpus.
pub(super) struct Maker<'a> {
    pub sweep: &'a Sweep,
    corpus: &'a CorpusFacts,
}

/// What tells a trial from the others of its size.
#[derive(Clone)]
pub(super) struct Stage {
    pub id: TrialId,
    pub objective: Objective,
    pub train: TrainConfig,
    pub steps: u64,
    pub budget: Option<f64>,
    pub policies: Option<PolicyChoice>,
    pub start: Option<StartFrom>,
    pub trunk: Option<Trunk>,
}

impl Maker<'_> {
    /// Mean tokens of a triplet, plain layout.
    pub(super) fn tokens_per_triplet(&self) -> f64 {
        self.corpus.tokens_per_triplet
    }

    /// Policies that lie as they should, by name where the seed doesn't draw them.
    fn choice(&self, spread: Spread, count: u32, seed: u64) -> Result<PolicyChoice, PlanError> {
        let distances = self.corpus.distances.as_ref();
        let chosen = |of: fn(&PolicyDistances, usize) -> Option<Vec<String>>| {
            distances.and_then(|distances| of(distances, count as usize))
        };
        let (names, spread) = match spread {
            Spread::Any => return Ok(PolicyChoice::Drawn { count, seed }),
            Spread::Near => (chosen(PolicyDistances::near), "near"),
            Spread::Far => (chosen(PolicyDistances::far), "far from"),
        };
        let names = names.ok_or_else(|| PlanError::Spread {
            count,
            spread,
            placed: distances.map_or(0, |distances| distances.names().len()),
        })?;
        Ok(PolicyChoice::Named { names })
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
        let work = match stage.objective {
            Objective::Polar => self.corpus.polar,
            Objective::Lm => self.corpus.lm,
        };
        let all = |per_triplet: f64| (triplets * per_triplet) as u64;
        let distance = match (&stage.policies, &self.corpus.distances) {
            (Some(PolicyChoice::Named { names }), Some(distances)) => distances.mean(names),
            _ => None,
        };
        let config = TrialConfig {
            id: stage.id,
            objective: stage.objective,
            seed,
            model: model.clone(),
            steps: stage.steps,
            corpus: sweep.corpus.url.clone(),
            fingerprint: self.corpus.fingerprint.clone(),
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
        let layout = ModelLayout::new(model, HeadKind::of(config.objective));
        let state_bytes = self.fitting(&config, &layout)?;
        Ok(PlannedTrial {
            size: size.to_owned(),
            budget: stage.budget,
            is_warm_start,
            parameters: parameters.total,
            non_embedding: parameters.non_embedding,
            plain_tokens: triplets * self.tokens_per_triplet(),
            distance,
            flops_6nd,
            flops_executed: count::flops_executed(model, all(work.tokens), all(work.pairs)),
            state_bytes,
            config,
        })
    }

    /// Bytes of state on a rank, if a worker has them.
    fn fitting(&self, config: &TrialConfig, layout: &ModelLayout) -> Result<u64, PlanError> {
        let (pool, train) = (&self.sweep.pool, &config.train);
        let own = Share {
            world: pool.workers_per_trial.min(train.lanes),
            zero: train.zero,
        };
        let needs = own.bytes(layout, train);
        let Some(has) = pool.memory_gib.filter(|has| needs as f64 > has * GIB) else {
            return Ok(needs);
        };
        let most = pool.workers.min(train.lanes);
        let gib = |share: Share| share.bytes(layout, train) as f64 / GIB;
        let worlds = pool.workers_per_trial..=most;
        let remedy = match Share::smallest(worlds, has * GIB, layout, train) {
            Some(share) => format!(
                "train.zero = {} with pool.workers_per_trial = {} needs {:.1} GiB",
                u8::from(share.zero),
                share.world,
                gib(share)
            ),
            None => format!(
                "even train.zero = 3 over {most} workers needs {:.1} GiB: leave the size out, or give the pool more workers and the batch as many lanes",
                gib(Share {
                    world: most,
                    zero: Zero::Weights
                })
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
