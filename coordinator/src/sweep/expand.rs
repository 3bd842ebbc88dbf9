//! The trials of a sweep, made one by one: starts, trunks and points.

use super::{
    CorpusFacts, PlanError, PlannedTrial, StartTrial, Sweep, TrialRole, WarmStart, Work,
    memory::{Share, State},
    trunk::grow,
    variants::{Duration, Variant},
};
use polestar_core::{ByteCount, Objective, Step, TrialId};
use polestar_dataset::{PolicyChoice, PolicyDistances};
use polestar_laws::{Coordinates, Length, Policies, Spread};
use polestar_model::{HeadKind, ModelConfig, ModelLayout, count};
use polestar_run::{
    DataRecipe, MemoryTier, Recipe, StartFrom, StartPoint, StartWeights, TrainConfig, Trial, Trunk,
    config::ConfigError, placement::Zero,
};

/// The trials of a plan while it is made.
#[derive(Default)]
pub(super) struct Trials {
    /// Starts and trunks: what others wait for.
    pub(super) before: Vec<PlannedTrial>,
    pub(super) points: Vec<PlannedTrial>,
}

/// A trial whose last weights others start from.
pub(super) struct Begin {
    /// The trial to wait for, if it is one of this sweep.
    trial: Option<TrialId>,
    weights: StartFrom,
}

impl Begin {
    pub(super) fn after(start: &PlannedTrial) -> Begin {
        Begin {
            trial: Some(start.config.id.clone()),
            weights: StartFrom {
                recipe: start.recipe_id,
                step: Step(start.config.recipe.steps),
            },
        }
    }

    pub(super) fn at(start: &StartTrial) -> Begin {
        Begin {
            trial: None,
            weights: start.weights.clone(),
        }
    }
}

/// What the trials of one size and seed have in common.
#[derive(Clone, Copy)]
pub(super) struct Family<'a> {
    pub(super) size: &'a str,
    pub(super) model: &'a ModelConfig,
    pub(super) seed: u64,
    /// Weights from elsewhere that it starts from.
    pub(super) start: Option<&'a StartTrial>,
}

/// Makes trials of a sweep on a corpus.
pub(super) struct Maker<'a> {
    pub sweep: &'a Sweep,
    pub(super) corpus: &'a CorpusFacts,
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
    pub start: Option<StartPoint>,
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

    /// The weights from elsewhere that the sweep starts from.
    fn imported(&self) -> Option<StartPoint> {
        let start = self.corpus.start.as_ref()?;
        let weights = start.digest;
        Some(StartPoint::Weights(StartWeights { weights }))
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
    pub(super) fn start(
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
            start: self.imported(),
            trunk: None,
            after: None,
            leaves: None,
        };
        self.trial(of, stage)
    }

    /// The trials of a variant, one a length, and the trunk that they share if they share one.
    pub(super) fn lengths_of(
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
            start: match start {
                Some(start) => Some(StartPoint::Trial(start.weights.clone())),
                None => self.imported(),
            },
            trunk: None,
            after: start.and_then(|start| start.trial.clone()),
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
                    recipe: trunk.recipe_id,
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
        let schedule = stage.train.schedule.validate_for(stage.steps);
        schedule.map_err(|source| failed(ConfigError::Schedule(source)))?;
        model
            .validate()
            .map_err(|source| failed(ConfigError::Model(source)))?;
        let state_bytes = self.fitting(&mut stage, model)?;
        let work = self.work(stage.objective);
        let at = Coordinates {
            size: size.to_owned(),
            length: stage.length,
            batch: Some(stage.train.batch),
            lr: Some(stage.train.optimizer.lr),
            policies: stage.chosen,
            seed: of.seed,
        };
        let pretraining = of.start.map(|start| start.pretraining.clone());
        let (role, after) = (stage.role, stage.after.clone());
        let config = self.config(of, stage);
        Ok(PlannedTrial {
            at,
            role,
            after,
            pretraining,
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
            Objective::Polar | Objective::Sft => self.corpus.polar,
            Objective::Lm => self.corpus.lm,
        }
    }

    /// What the workers get.
    fn config(&self, of: Family<'_>, stage: Stage) -> Trial {
        let sweep = self.sweep;
        let train = stage.train;
        let world = sweep.pool.largest_world(train.lanes);
        let mut execution = train.execution(&sweep.corpus.url, stage.trunk);
        execution.weights = match (&stage.start, &sweep.start) {
            (Some(StartPoint::Weights(_)), Some(table)) => table.weights.clone(),
            _ => of.start.map(|start| start.store.clone()),
        };
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
            execution,
        }
    }

    /// The state on a rank, if a worker has room for it. Copies of other ranks' shards are left out where they are
    /// all that doesn't fit.
    fn fitting(&self, stage: &mut Stage, model: &ModelConfig) -> Result<ByteCount, PlanError> {
        let layout = &ModelLayout::new(model, HeadKind::of(stage.objective));
        let (pool, train) = (&self.sweep.pool, &stage.train);
        let own = Share {
            world: pool.largest_world(train.lanes),
            zero: train.zero,
        };
        let samples = &self.sweep.samples;
        let state = &State {
            layout,
            train,
            samples,
        };
        let (needs, least) = (own.memory(state), own.least_memory(state));
        let too_much = |needs: ByteCount| pool.memory().filter(|has| needs > *has);
        if too_much(needs).is_none() {
            return Ok(needs);
        }
        let (Some(has), Some(given)) = (too_much(least), pool.memory_gib) else {
            stage.train.memory_tier = MemoryTier::Off;
            return Ok(least);
        };
        let most = pool.workers.number().min(train.lanes);
        let gib = |share: Share| share.least_memory(state).gib();
        let worlds = own.world..=most;
        let remedy = match Share::smallest(worlds, has, state) {
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
            needs: least,
            has: given,
            remedy,
        })
    }
}
