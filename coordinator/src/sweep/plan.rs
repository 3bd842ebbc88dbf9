//! From a sweep to its trials, as data: printed, compared and executed elsewhere.

use super::{
    PlanError, Sweep, WarmStart,
    axes::LrAxis,
    memory::{GIB, Share},
    trunk::grow,
    variants::{Duration, Variant},
};
use polestar_core::{Objective, RecipeId, Step, TrialId, digest::hex};
use polestar_dataset::{LeftOut, PolicyChoice, PolicyDistances};
use polestar_laws::{Coordinates, Length, Policies, Spread};
use polestar_model::{HeadKind, ModelConfig, ModelLayout, Preset, count};
use polestar_run::{
    DataRecipe, Recipe, StartFrom, TrainConfig, Trial, Trunk, config::ConfigError, placement::Zero,
};
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

/// What a trial is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialRole {
    /// Others start from its last weights; no point of any law.
    Start,
    /// Others leave its path before it ends; no point of any law.
    Trunk,
    /// A point of the laws.
    Point,
}

/// One trial and what it is expected to cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedTrial {
    /// What the workers get.
    pub config: Trial,
    /// The identity of its recipe: where it lies in the store, for readers who can't hash it.
    pub recipe_id: RecipeId,
    /// Where it lies on the sweep's axes: what laws group it by.
    pub at: Coordinates,
    /// What it is for.
    pub role: TrialRole,
    /// The trial whose checkpoint it begins from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<TrialId>,
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
    let mut trials = Trials::default();
    for size in &axes.sizes {
        let model = model(sweep, size, corpus.vocab)?;
        let mut train = sweep.train.clone();
        if let LrAxis::BySize(by_size) = &axes.lr
            && let Some(&lr) = by_size.get(size)
        {
            train.optimizer.lr = lr;
        }
        let variants = maker.variants(size, &model, &train)?;
        for &seed in &axes.seeds {
            let of = Family {
                size,
                model: &model,
                seed,
            };
            let mut start = None;
            if let Some(warm) = &sweep.warm_start {
                let trial = maker.start(of, warm, &train)?;
                start = Some(Begin::after(&trial));
                trials.before.push(trial);
            }
            for variant in &variants {
                maker.lengths_of(of, variant, start.as_ref(), &mut trials)?;
            }
        }
    }
    let Trials { mut before, points } = trials;
    before.extend(points);
    let mut names: Vec<&TrialId> = before.iter().map(|t| &t.config.id).collect();
    names.sort();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(PlanError::Twice(pair[0].clone()));
    }
    Ok(Plan {
        fingerprint: corpus.fingerprint.clone(),
        tokens_per_triplet: corpus.tokens_per_triplet,
        left_out: None,
        trials: before,
    })
}

/// The trials of a plan while it is made.
#[derive(Default)]
struct Trials {
    /// Starts and trunks: what others wait for.
    before: Vec<PlannedTrial>,
    points: Vec<PlannedTrial>,
}

/// A trial whose last weights others start from.
struct Begin {
    trial: TrialId,
    weights: StartFrom,
}

impl Begin {
    fn after(start: &PlannedTrial) -> Begin {
        Begin {
            trial: start.config.id.clone(),
            weights: StartFrom {
                recipe: start.config.recipe_id(),
                step: Step(start.config.recipe.steps),
            },
        }
    }
}

/// What the trials of one size and seed have in common.
#[derive(Clone, Copy)]
pub(super) struct Family<'a> {
    size: &'a str,
    model: &'a ModelConfig,
    seed: u64,
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

/// What tells a trial from the others of its size and seed.
#[derive(Clone)]
pub(super) struct Stage {
    pub id: TrialId,
    pub role: TrialRole,
    pub objective: Objective,
    pub train: TrainConfig,
    pub steps: u64,
    /// `steps` on the sweep's axis.
    pub length: Length,
    /// `policies` on the sweep's axis.
    pub chosen: Option<Policies>,
    pub policies: Option<PolicyChoice>,
    pub start: Option<StartFrom>,
    pub trunk: Option<Trunk>,
    /// The trial that `trunk`, or else `start`, speaks of.
    pub after: Option<TrialId>,
    /// Where it leaves its trunk, before that is planned.
    pub leaves: Option<Step>,
}

impl Maker<'_> {
    /// Mean tokens of a triplet, plain layout.
    pub(super) fn tokens_per_triplet(&self) -> f64 {
        self.corpus.tokens_per_triplet
    }

    /// Policies that lie as they should, by name where the seed doesn't draw them.
    fn choice(&self, chosen: Policies, seed: u64) -> Result<PolicyChoice, PlanError> {
        let Policies { count, spread } = chosen;
        let distances = self.corpus.distances.as_ref();
        let named = |of: fn(&PolicyDistances, usize) -> Option<Vec<String>>| {
            distances.and_then(|distances| of(distances, count as usize))
        };
        let (names, spread) = match spread {
            Spread::Any => return Ok(PolicyChoice::Drawn { count, seed }),
            Spread::Near => (named(PolicyDistances::near), "near"),
            Spread::Far => (named(PolicyDistances::far), "far from"),
        };
        let names = names.ok_or_else(|| PlanError::Spread {
            count,
            spread,
            placed: distances.map_or(0, |distances| distances.names().len()),
        })?;
        Ok(PolicyChoice::Named { names })
    }

    /// The trial whose last weights the others of its family start from.
    fn start(
        &self,
        of: Family<'_>,
        warm: &WarmStart,
        train: &TrainConfig,
    ) -> Result<PlannedTrial, PlanError> {
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
            id: TrialId(format!("{}-start-s{}", of.size, of.seed)),
            role: TrialRole::Start,
            objective: warm.objective,
            train,
            steps: warm.steps,
            length: Length::Steps(warm.steps),
            chosen: None,
            policies: None,
            start: None,
            trunk: None,
            after: None,
            leaves: None,
        };
        self.trial(of, stage)
    }

    /// The trials of a variant, one a length, and the trunk that they share if they share one.
    fn lengths_of(
        &self,
        of: Family<'_>,
        variant: &Variant,
        start: Option<&Begin>,
        trials: &mut Trials,
    ) -> Result<(), PlanError> {
        let Family { size, seed, .. } = of;
        let policies = match variant.policies {
            Some(chosen) => Some(self.choice(chosen, seed)?),
            None => None,
        };
        let stage = |duration: &Duration| Stage {
            id: TrialId(format!(
                "{size}-{}{}-s{seed}",
                duration.label, variant.suffix
            )),
            role: TrialRole::Point,
            objective: self.sweep.sweep.objective,
            train: variant.train.clone(),
            steps: duration.steps,
            length: duration.length,
            chosen: variant.policies,
            policies: policies.clone(),
            start: start.map(|start| start.weights.clone()),
            trunk: None,
            after: start.map(|start| start.trial.clone()),
            leaves: None,
        };
        let stages: Vec<Stage> = variant.lengths.iter().map(stage).collect();
        let Some(table) = self.sweep.sweep.trunk else {
            for stage in stages {
                trials.points.push(self.trial(of, stage)?);
            }
            return Ok(());
        };
        let id = TrialId(format!("{size}-trunk{}-s{seed}", variant.suffix));
        let (trunk, branches) = grow(id, table, stages);
        let trunk = match trunk {
            Some(trunk) => Some(self.trial(of, trunk)?),
            None => None,
        };
        for mut branch in branches {
            if let (Some(trunk), Some(step)) = (&trunk, branch.leaves) {
                // A trunk comes after the start that both have.
                branch.after = Some(trunk.config.id.clone());
                branch.trunk = Some(Trunk {
                    recipe: trunk.config.recipe_id(),
                    step,
                });
            }
            trials.points.push(self.trial(of, branch)?);
        }
        trials.before.extend(trunk);
        Ok(())
    }

    fn trial(&self, of: Family<'_>, stage: Stage) -> Result<PlannedTrial, PlanError> {
        let Family { size, model, .. } = of;
        let sweep = self.sweep;
        let parameters = count::parameters(model);
        let mut stage = stage;
        if let (Some(validations), TrialRole::Point) = (sweep.sweep.envelope, stage.role) {
            let validation = &mut stage.train.validation;
            validation.every = (stage.steps / u64::from(validations)).max(1);
            validation.triplets = validation.at_the_end();
        }
        let triplets = stage.steps as f64 * f64::from(stage.train.batch);
        let flops_6nd = self.flops(model, stage.train.batch, stage.steps);
        let all = |per_triplet: f64| (triplets * per_triplet) as u64;
        let distance = match (&stage.policies, &self.corpus.distances) {
            (Some(PolicyChoice::Named { names }), Some(distances)) => distances.mean(names),
            _ => None,
        };
        let failed = |source| PlanError::Config {
            trial: stage.id.clone(),
            source,
        };
        stage.train.validate().map_err(failed)?;
        model
            .validate()
            .map_err(|source| failed(ConfigError::Model(source)))?;
        let state_bytes = self.fitting(&stage, model)?;
        let work = self.work(stage.objective);
        let at = Coordinates {
            size: size.to_owned(),
            length: stage.length,
            batch: Some(stage.train.batch),
            lr: Some(stage.train.optimizer.lr),
            policies: stage.chosen,
            seed: of.seed,
        };
        let (role, after) = (stage.role, stage.after.clone());
        let config = self.config(of, stage);
        Ok(PlannedTrial {
            at,
            role,
            after,
            parameters: parameters.total,
            non_embedding: parameters.non_embedding,
            plain_tokens: triplets * self.tokens_per_triplet(),
            distance,
            flops_6nd,
            flops_executed: count::flops_executed(model, all(work.tokens), all(work.pairs)),
            state_bytes,
            recipe_id: config.recipe_id(),
            config,
        })
    }

    /// What of the corpus an objective packs.
    fn work(&self, objective: Objective) -> Work {
        match objective {
            Objective::Polar => self.corpus.polar,
            Objective::Lm => self.corpus.lm,
        }
    }

    /// What the workers get.
    fn config(&self, of: Family<'_>, stage: Stage) -> Trial {
        let sweep = self.sweep;
        let train = stage.train;
        let world = sweep.pool.workers_per_trial.min(train.lanes);
        Trial {
            id: stage.id,
            recipe: Recipe {
                objective: stage.objective,
                seed: of.seed,
                steps: stage.steps,
                model: of.model.clone(),
                data: DataRecipe {
                    fingerprint: self.corpus.fingerprint.clone(),
                    quarantine: sweep.corpus.quarantine.clone(),
                    policies: stage.policies,
                    weighting: sweep.weighting,
                    samples: sweep.samples.clone(),
                    window: sweep.window,
                },
                batch: train.batches(),
                optimizer: train.optimizer.clone(),
                schedule: train.schedule.clone(),
                arithmetic: train.arithmetic(world),
                start: stage.start,
            },
            measurement: train.validation.measurement(),
            execution: train.execution(&sweep.corpus.url, stage.trunk),
        }
    }

    /// Bytes of state on a rank, if a worker has them.
    fn fitting(&self, stage: &Stage, model: &ModelConfig) -> Result<u64, PlanError> {
        let layout = &ModelLayout::new(model, HeadKind::of(stage.objective));
        let (pool, train) = (&self.sweep.pool, &stage.train);
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
            trial: stage.id.clone(),
            needs: needs as f64 / GIB,
            has,
            remedy,
        })
    }
}

impl PlannedTrial {
    /// FLOPs that it takes, apart from those that its trunk has done for it.
    pub fn own_flops(&self) -> f64 {
        let shared = self
            .config
            .execution
            .trunk
            .as_ref()
            .map_or(0, |trunk| trunk.step.0);
        self.flops_6nd * (1.0 - shared as f64 / self.config.recipe.steps.max(1) as f64)
    }
}

impl Plan {
    /// blake3 over what each trial's weights are a function of and what it is measured on: what the
    /// run's name ends with. Machines, workers and places are not part of it, nor is the order in which
    /// the sweep lists its axes, so the same sweep continues the same run anywhere.
    pub fn digest(&self) -> String {
        let name = |trial: &PlannedTrial| {
            let trial = &trial.config;
            let (recipe, measurement) = (trial.recipe_id(), trial.measurement.id());
            format!("{} {recipe} {measurement}\n", trial.id)
        };
        let mut names: Vec<String> = self.trials.iter().map(name).collect();
        names.sort();
        hex(names.concat().as_bytes())
    }
}
