//! The loop of a trial on one rank: batch, gradient, canonical sum, update, score, save.

use super::{
    BurnEngine, Engine, Failure, LaneInput, OptimizerStep, StepError, StepPlan, Stepper,
    figures::{Figures, StepFigures, sum_figures},
    input::inputs,
    observe::{MetricsRows, Moment, Observers, Progress, StartupTimings},
    replay::Slice,
    resume::{Place, Resumed, data, eval_sets, resume},
    save::{Record, Saver},
    validate::{self, EvalSet, ScoreError},
};
use crate::{
    collective::{MeshTransport, Transport},
    device::device,
};
use polestar_core::{Digest, Lane, Objective, Step};
use polestar_dataset::{Corpus, LanePacks, LoadPlan, Loader};
use polestar_kernels::adamw::AdamW;
use polestar_model::{HeadKind, ModelLayout, count};
use polestar_run::{
    Consumed, Event, Outcome, SetScore, Trial,
    checkpoint::Shape,
    metrics::Row,
    placement::Sharding,
    scores::{self, Scored},
};
use polestar_store::Store;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// What a rank works with.
pub struct Environment<T = MeshTransport> {
    /// The other ranks.
    pub collective: T,
    /// The run's place in the object store.
    pub run: Store,
    /// Runs the store's input and output; the engine itself is a plain thread.
    pub runtime: tokio::runtime::Handle,
    /// Set by somebody else to stop between two steps.
    pub abort: Arc<AtomicBool>,
    /// Set by somebody else to save a checkpoint after a step and stop there: the same step on all ranks.
    pub drain: Arc<AtomicBool>,
    /// Told what happens. Only rank 0 tells.
    pub events: Box<dyn Fn(Event) + Send>,
    /// Only these steps, and nothing is written: no checkpoint, no metrics, no scores.
    pub slice: Option<Slice>,
}

/// Trains a trial to its end, from its newest checkpoint if it has one.
///
/// All ranks of the world call this with the same trial; all return the same outcome, but for the
/// seconds that each counted.
///
/// # Errors
/// [`Failure`] says what happened, in which phase, and whether it began here.
pub fn run<T: Transport<BurnEngine>>(
    trial: &Trial,
    env: Environment<T>,
) -> Result<Outcome, Failure> {
    trial
        .check(env.collective.world())
        .map_err(|e| Failure::Config(e.to_string()))?;
    let device =
        device(trial.recipe.arithmetic.backend).map_err(|e| Failure::Config(e.to_string()))?;
    let layout = ModelLayout::new(&trial.recipe.model, HeadKind::of(trial.recipe.objective));
    let (recompute, precision) = (trial.execution.recompute, trial.recipe.arithmetic.precision);
    let engine = BurnEngine::new(layout, &device, recompute, precision);
    let mut trainer = Trainer::begin(trial, env, engine)?;
    while trainer.step < trainer.end() {
        if trainer.env.abort.load(Ordering::SeqCst) {
            return Err(Failure::Aborted);
        }
        let stops = trainer.step()?;
        if stops && trainer.step < trainer.end() {
            return Err(trainer.drain());
        }
    }
    trainer.finish()
}

struct Trainer<'a, E: Engine, T> {
    trial: &'a Trial,
    env: Environment<T>,
    sharding: Sharding,
    corpus: Arc<Corpus>,
    /// None where there is nothing left to train.
    loader: Option<Loader>,
    stepper: Stepper<E>,
    /// Steps done.
    step: Step,
    consumed: Consumed,
    eval_sets: Vec<EvalSet<E::Pack>>,
    /// The newest evaluation.
    scores: Option<Evaluation>,
    /// Of the last step, what became of every triplet.
    triplets: Vec<Scored>,
    clock: Clock,
    saver: Saver,
    observers: Observers,
}

/// What the sets came to after a step.
struct Evaluation {
    step: Step,
    /// Of all of their triplets.
    scores: BTreeMap<String, SetScore>,
    /// Of those that are scored at every evaluation.
    along: BTreeMap<String, SetScore>,
}

/// Seconds of this generation, on top of those before it.
struct Clock {
    since: Instant,
    before: f64,
}

impl Clock {
    fn seconds(&self) -> f64 {
        self.before + self.since.elapsed().as_secs_f64()
    }
}

/// What is told of a trial: rank 0 tells, and keeps its metrics.
fn observers<T: Transport<E>, E: Engine>(trial: &Trial, env: &mut Environment<T>) -> Observers {
    let tell = std::mem::replace(&mut env.events, Box::new(|_| {}));
    let tell: Box<dyn Fn(Event) + Send> = match env.collective.rank().0 {
        0 => tell,
        _ => Box::new(|_| {}),
    };
    Observers::new(
        vec![
            Box::new(StartupTimings::new()),
            Box::new(MetricsRows::new(env.run.clone(), trial.clone())),
            Box::new(Progress::new()),
        ],
        tell,
    )
}

impl<'a, E: Engine, T: Transport<E>> Trainer<'a, E, T> {
    fn begin(
        trial: &'a Trial,
        mut env: Environment<T>,
        engine: E,
    ) -> Result<Trainer<'a, E, T>, Failure> {
        let begun = Instant::now();
        let mut observers = observers::<T, E>(trial, &mut env);
        let corpus = env
            .runtime
            .block_on(Corpus::open_with(
                &trial.execution.corpus,
                &trial.recipe.data.quarantine,
                trial.recipe.data.policies.clone(),
            ))
            .map_err(data)?;
        observers.on(Moment::Prepared("corpus"));
        let found = corpus.fingerprint().to_string();
        if found != trial.recipe.data.fingerprint {
            return Err(Failure::OtherCorpus {
                url: trial.execution.corpus.clone(),
                found,
                expected: trial.recipe.data.fingerprint.clone(),
            });
        }
        let sharding = Sharding {
            zero: trial.execution.zero,
            world: env.collective.world(),
            rank: env.collective.rank(),
        };
        let plan = StepPlan {
            sharding,
            lanes: trial.recipe.batch.lanes,
            reduction: trial.recipe.arithmetic.order.reduction(),
        };
        let mut stepper = Stepper::new(engine, plan);
        let Resumed {
            step,
            consumed,
            passed_over,
        } = resume(trial, &mut env, &mut stepper, &mut observers)?;
        let shape = Shape::new(stepper.layout(), sharding.world, sharding.rank);
        let mut trainer = Trainer {
            trial,
            sharding,
            corpus,
            loader: None,
            stepper,
            step,
            consumed,
            eval_sets: Vec::new(),
            scores: None,
            triplets: Vec::new(),
            clock: Clock {
                since: begun,
                before: consumed.seconds,
            },
            saver: Saver::new(env.run.clone(), env.runtime.clone(), shape),
            observers,
            env,
        };
        trainer.eval_sets = trainer.eval_sets(trial.measurement.triplets)?;
        trainer.observers.on(Moment::Prepared("held-out sets"));
        trainer.observers.on(Moment::Begun {
            step,
            steps: trial.recipe.steps,
            passed_over: &passed_over,
        });
        if step < trainer.end() {
            trainer.loader = Some(trainer.load());
        }
        Ok(trainer)
    }

    /// The sets that the trial is scored on, with so many triplets each.
    fn eval_sets(&self, count: usize) -> Result<Vec<EvalSet<E::Pack>>, Failure> {
        let place = Place {
            sharding: &self.sharding,
            engine: self.stepper.engine(),
        };
        eval_sets(self.trial, &self.env, &self.corpus, &place, count)
    }

    /// The step after which there is nothing left to do.
    fn end(&self) -> Step {
        self.env
            .slice
            .map_or(Step(self.trial.recipe.steps), |slice| slice.until)
    }

    fn load(&self) -> Loader {
        let recipe = &self.trial.recipe;
        Loader::start(
            Arc::clone(&self.corpus),
            LoadPlan {
                seed: recipe.seed,
                batch: recipe.batch.triplets,
                lanes: recipe.batch.lanes,
                hosted: self.sharding.lanes(recipe.batch.lanes),
                start: self.step,
                objective: recipe.objective,
                samples: recipe.data.samples.clone(),
                pack_tokens: recipe.batch.pack_tokens,
                weighting: recipe.data.weighting,
                window: recipe.data.window,
                memory: self.trial.execution.loader.memory(),
            },
        )
    }

    /// One step. Returns whether all ranks stop after it.
    fn step(&mut self) -> Result<bool, Failure> {
        let Batch { lanes, mut figures } = self.next_batch()?;
        let optimizer = OptimizerStep {
            adamw: self.adamw(),
            number: self.step.0 + 1,
            clip: self.trial.recipe.optimizer.clip,
        };
        let scale = 1.0 / self.trial.recipe.batch.triplets as f32;
        let outcome = self
            .stepper
            .step(&mut self.env.collective, &lanes, scale, &optimizer)
            .map_err(|error| self.failed(error))?;
        for ((_, figures), scores) in figures.iter_mut().zip(&outcome.scores) {
            figures.score(scores);
        }
        let stops = self.env.drain.load(Ordering::SeqCst);
        let StepFigures { figures, stops } =
            sum_figures(&figures, stops, &mut self.env.collective)?;
        self.step = Step(self.step.0 + 1);
        let row = self.row(figures, f64::from(optimizer.adamw.lr), outcome.norm);
        self.observers.on(Moment::Stepped {
            row: &row,
            triplets: self.trial.recipe.batch.triplets,
            is_last: self.step.0 == self.trial.recipe.steps,
        });
        if self.env.slice.is_some() {
            return Ok(stops);
        }
        let step = self.step;
        if self.trial.is_due(self.trial.measurement.every, step) {
            self.evaluate()?;
        }
        if self.trial.saves(step) || stops {
            self.save()?;
        }
        let peers = &mut self.env.collective;
        let saved = self.saver.advance(self.trial, peers, Duration::ZERO)?;
        self.saved(saved.as_ref());
        Ok(stops)
    }

    /// Waits until the checkpoint of this step is committed.
    fn drain(mut self) -> Failure {
        match self.settle() {
            Ok(()) => Failure::Drained { step: self.step },
            Err(error) => error,
        }
    }

    /// This rank's lanes of the next batch, on the device, and what is known of them before they are
    /// computed.
    fn next_batch(&mut self) -> Result<Batch<E::Pack>, Failure> {
        let loader = self.loader.as_mut();
        let loader = loader.expect("a trial with steps to do has a loader");
        let batch = loader.next().map_err(data)?;
        self.observers.on(Moment::Loaded);
        let (mut lanes, mut figures) = (Vec::new(), Vec::new());
        for LanePacks { lane, packs, cost } in batch.lanes {
            figures.push((lane, Figures::of(cost)));
            let engine = self.stepper.engine();
            let packs = inputs(packs).into_iter().map(|p| engine.upload(p));
            lanes.push(LaneInput {
                lane,
                packs: packs.collect(),
            });
        }
        Ok(Batch { lanes, figures })
    }

    /// The optimizer's settings for the next step.
    fn adamw(&self) -> AdamW {
        let optimizer = &self.trial.recipe.optimizer;
        AdamW {
            lr: optimizer.lr
                * self
                    .trial
                    .recipe
                    .schedule
                    .factor(self.step, self.trial.recipe.steps),
            beta1: optimizer.betas[0],
            beta2: optimizer.betas[1],
            eps: optimizer.eps,
            weight_decay: optimizer.weight_decay,
        }
    }

    fn failed(&self, error: StepError) -> Failure {
        let step = self.step;
        match error {
            StepError::NotFinite { lane, source } => Failure::NotFinite { step, lane, source },
            StepError::Norm(norm) => Failure::Norm { step, norm },
            StepError::Collective(error) => Failure::Collective(error),
        }
    }

    /// The step's row of metrics.
    fn row(&mut self, figures: Figures, lr: f64, grad_norm: f64) -> Row {
        let batch = self.trial.recipe.batch.triplets;
        let consumed = &mut self.consumed;
        consumed.triplets += u64::from(batch);
        consumed.plain_tokens += figures.plain_tokens as u64;
        consumed.packed_tokens += figures.packed_tokens as u64;
        consumed.attention_pairs += figures.pairs as u64;
        consumed.seconds = self.clock.seconds();
        let ranks = self.trial.recipe.objective == Objective::Polar;
        Row {
            step: self.step,
            triplets: consumed.triplets,
            plain_tokens: consumed.plain_tokens,
            flops_6nd: count::flops_6nd(&self.trial.recipe.model, consumed.plain_tokens),
            loss: figures.loss / f64::from(batch),
            accuracy: ranks.then(|| figures.right / f64::from(batch)),
            lr,
            grad_norm,
            seconds: consumed.seconds,
            validation: BTreeMap::new(),
        }
    }

    fn evaluate(&mut self) -> Result<(), Failure> {
        let validation = &self.trial.measurement;
        let is_last = self.step.0 == self.trial.recipe.steps;
        if is_last && validation.final_triplets != validation.triplets {
            self.eval_sets = self.eval_sets(validation.final_triplets)?;
        }
        let (mut scores, mut along) = (BTreeMap::new(), BTreeMap::new());
        self.triplets.clear();
        for set in &self.eval_sets {
            let scored = validate::score(set, &mut self.stepper, &mut self.env.collective);
            let outcomes = scored.map_err(|error| match error {
                ScoreError::NotFinite(source) => Failure::NotFiniteScore {
                    step: self.step,
                    set: set.name().to_owned(),
                    source,
                },
                ScoreError::Collective(error) => Failure::Collective(error),
                ScoreError::Truncated => Failure::Data(error.to_string()),
            })?;
            let name = || set.name().to_owned();
            scores.insert(name(), outcomes.score(set, set.triplets().len()));
            along.insert(name(), outcomes.score(set, validation.triplets));
            if is_last {
                let scored = set.triplets().iter().zip(outcomes.margins);
                self.triplets.extend(scored.map(|(triplet, margin)| Scored {
                    set: name(),
                    triplet: triplet.clone(),
                    margin,
                }));
            }
        }
        self.observers.on(Moment::Evaluated {
            step: self.step,
            scores: &scores,
            along: &along,
        });
        self.scores = Some(Evaluation {
            step: self.step,
            scores,
            along,
        });
        Ok(())
    }

    /// Begins a save. It is committed behind the next steps; only one is under way at a time.
    fn save(&mut self) -> Result<(), Failure> {
        self.settle()?;
        self.consumed.seconds = self.clock.seconds();
        let record = Record {
            step: self.step,
            consumed: self.consumed,
            before_commit: self.observers.before_commit(),
        };
        self.saver.begin(self.trial, &self.stepper, record);
        Ok(())
    }

    /// Waits for the save that is under way.
    fn settle(&mut self) -> Result<(), Failure> {
        let abort = &self.env.abort;
        let aborted = || abort.load(Ordering::SeqCst);
        let peers = &mut self.env.collective;
        let saved = self.saver.settle(self.trial, peers, aborted)?;
        self.saved(saved.as_ref());
        Ok(())
    }

    fn saved(&mut self, event: Option<&Event>) {
        if let Some(event) = event {
            self.observers.on(Moment::Saved(event));
        }
    }

    /// Digest of the weights, of which all replicas must be alike.
    fn digest(&mut self) -> Result<Digest, Failure> {
        let ours = self.stepper.replica_checksum().to_le_bytes();
        let all = self.env.collective.exchange(&ours)?;
        if all.iter().any(|theirs| theirs[..] != ours) {
            return Err(Failure::diverged(self.step, &all));
        }
        Ok(self.stepper.digest(&mut self.env.collective)?)
    }

    fn finish(mut self) -> Result<Outcome, Failure> {
        // A generation that only repeats the end of a dead one has no scores yet.
        let scored = self.scores.as_ref().map(|evaluation| evaluation.step);
        if self.env.slice.is_none() && scored != Some(self.step) {
            self.evaluate()?;
        }
        self.settle()?;
        if !self.triplets.is_empty() && self.env.collective.rank().0 == 0 {
            let (run, trial) = (&self.env.run, self.trial);
            let written = scores::write(run, trial, &self.triplets);
            self.env.runtime.block_on(written)?;
        }
        // A slice is not scored.
        let (validation, along) = match self.scores.take() {
            Some(Evaluation { scores, along, .. }) => (scores, along),
            None => (BTreeMap::new(), BTreeMap::new()),
        };
        let digest = self.digest()?;
        let consumed = self.consumed;
        Ok(Outcome {
            trial: self.trial.id.clone(),
            steps: self.step.0,
            digest,
            validation,
            along,
            consumed,
            flops_6nd: count::flops_6nd(&self.trial.recipe.model, consumed.plain_tokens),
            flops_executed: count::flops_executed(
                &self.trial.recipe.model,
                consumed.packed_tokens,
                consumed.attention_pairs,
            ),
        })
    }
}

/// A rank's lanes of a batch.
struct Batch<P> {
    lanes: Vec<LaneInput<P>>,
    /// Of each lane.
    figures: Vec<(Lane, Figures)>,
}
