//! The loop of a trial on one rank: batch, gradient, canonical sum, update, score, save.

mod scoring;
mod work;

use super::{
    BurnEngine, Engine, Failure, Kept, LaneInput, OptimizerStep, StepError, StepPlan, Stepper,
    corpora,
    figures::{Figures, StepFigures, sum_figures},
    input::inputs,
    memory_tier::{Key, Snapshot},
    observe::{Meter, MetricsRows, Moment, Observers, Progress, RowReports, StartupTimings},
    replay::Slice,
    resume::{Place, Resumed, data, eval_sets, keeps, resume},
    save::{Committed, Record, Saver},
    timing::Stopwatch,
    validate::EvalSet,
};
use crate::{
    collective::{MeshTransport, Transport},
    device::device,
};
use polestar_core::{Lane, Step, WorldSize};
use polestar_dataset::{Corpus, LanePacks, LoadPlan, Loader};
use polestar_kernels::adamw::AdamW;
use polestar_model::{HeadKind, ModelLayout, count};
use polestar_run::{
    Consumed, Event, Outcome, ResumedFrom, SetScore, Trial, checkpoint::Shape, metrics::Row,
    placement::Sharding, scores::Scored,
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
use tracing::field::Empty;
use work::Clock;

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
    /// What the process has kept of a generation before, and keeps of this one if that ends early.
    pub kept: Kept,
}

/// Trains a trial on the CPU to its end, from the newest state that its ranks have kept or its newest checkpoint.
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
    check(trial, env.collective.world())?;
    let device =
        device(trial.recipe.arithmetic.backend).map_err(|e| Failure::Config(e.to_string()))?;
    let layout = ModelLayout::new(&trial.recipe.model, HeadKind::of(trial.recipe.objective));
    let (recompute, precision) = (trial.execution.recompute, trial.recipe.arithmetic.precision);
    let engine = BurnEngine::new(layout, &device, recompute, precision);
    run_with(trial, env, engine)
}

/// Whether a world of ranks can train a trial.
pub(super) fn check(trial: &Trial, world: WorldSize) -> Result<(), Failure> {
    let checked = trial.check(world);
    checked.map_err(|error| Failure::Config(error.to_string()))
}

/// As [`run`], by this engine, of a trial that was [checked](check).
pub(super) fn run_with<E: Engine, T: Transport<E>>(
    trial: &Trial,
    env: Environment<T>,
    engine: E,
) -> Result<Outcome, Failure> {
    let mut trainer =
        tracing::info_span!("resume").in_scope(|| Trainer::begin(trial, env, engine))?;
    let end = tracing::info_span!("prepare").in_scope(|| trainer.prepare());
    let end = end.and_then(|()| trainer.train());
    let end = end.and_then(|()| tracing::info_span!("finish").in_scope(|| trainer.finish()));
    if let Err(failure) = &end
        && failure.is_retryable()
        && keeps(trial, &trainer.env)
    {
        trainer.keep();
    }
    end
}

/// How the optimizer takes the step after so many.
pub(super) fn optimizer(trial: &Trial, done: Step) -> OptimizerStep {
    let optimizer = &trial.recipe.optimizer;
    OptimizerStep {
        adamw: AdamW {
            lr: optimizer.lr * trial.recipe.schedule.factor(done, trial.recipe.steps),
            beta1: optimizer.betas[0],
            beta2: optimizer.betas[1],
            eps: optimizer.eps,
            weight_decay: optimizer.weight_decay,
        },
        number: done.0 + 1,
        clip: optimizer.clip,
    }
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
    /// Where the state was found.
    from: ResumedFrom,
    /// Damaged checkpoints that were passed over.
    passed_over: Vec<String>,
    /// Rows since the last checkpoint that is known to be committed.
    unstored: Vec<Row>,
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
            // Before the progress of a checkpoint: whoever hears of that has heard of its steps.
            Box::new(RowReports::new()),
            Box::new(Progress::new()),
            Box::new(Meter::new()),
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
        let corpus = corpora::open(trial, &env.runtime, &env.kept)?;
        observers.on(Moment::Prepared("corpus"));
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
            from,
            rows,
            passed_over,
        } = resume(trial, &mut env, &mut stepper, &mut observers)?;
        let shape = Shape::new(stepper.layout(), sharding.world, sharding.rank);
        let trainer = Trainer {
            trial,
            sharding,
            corpus,
            loader: None,
            stepper,
            step,
            consumed,
            from,
            passed_over,
            unstored: rows,
            eval_sets: Vec::new(),
            scores: None,
            triplets: Vec::new(),
            clock: Clock {
                since: begun,
                before: consumed.seconds,
            },
            saver: Saver::new(
                env.run.clone(),
                env.runtime.clone(),
                shape,
                env.collective.means(),
            ),
            observers,
            env,
        };
        Ok(trainer)
    }

    /// What comes between the state and the first step.
    fn prepare(&mut self) -> Result<(), Failure> {
        self.eval_sets = self.eval_sets(self.trial.measurement.triplets)?;
        self.observers.on(Moment::Prepared("held-out sets"));
        self.observers.on(Moment::Begun {
            step: self.step,
            steps: self.trial.recipe.steps,
            from: self.from,
            rows: &self.unstored,
            passed_over: &self.passed_over,
        });
        Ok(())
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

    fn train(&mut self) -> Result<(), Failure> {
        if self.step < self.end() {
            self.loader = Some(self.load());
        }
        if self.from == ResumedFrom::Memory {
            self.catch_up()?;
        }
        while self.step < self.end() {
            if self.env.abort.load(Ordering::SeqCst) {
                return Err(Failure::Aborted);
            }
            let stops = self.step()?;
            if stops && self.step < self.end() {
                self.settle()?;
                return Err(Failure::Drained { step: self.step });
            }
        }
        Ok(())
    }

    /// What was due after the last step of the generation before, and isn't known to have been done.
    fn catch_up(&mut self) -> Result<(), Failure> {
        let step = self.step;
        let last = self.unstored.last().filter(|row| row.step == step);
        let measured = last.is_some_and(|row| !row.validation.is_empty());
        if self.trial.is_due(self.trial.measurement.every, step) && !measured {
            self.evaluate()?;
        }
        if self.trial.saves(step) {
            self.save()?;
        }
        Ok(())
    }

    /// Leaves what this rank has to the generation that comes after this one.
    fn keep(&mut self) {
        self.env.kept.put(vec![Snapshot {
            key: Key::of(self.trial, &self.env.run),
            step: self.step,
            consumed: self.consumed,
            rows: std::mem::take(&mut self.unstored),
            pieces: self.stepper.take_pieces(),
        }]);
    }

    /// One step. Returns whether all ranks stop after it.
    fn step(&mut self) -> Result<bool, Failure> {
        let span = tracing::info_span!(
            "step",
            // OpenTelemetry has no unsigned numbers, here and wherever a span has one.
            polestar.step = (self.step.0 + 1) as i64,
            polestar.seconds.forward = Empty,
            polestar.seconds.backward = Empty,
            polestar.seconds.reduce = Empty,
            polestar.tokens = Empty,
            polestar.sent_bytes = Empty,
        );
        let _entered = span.enter();
        self.env.collective.at_step(Step(self.step.0 + 1));
        let mut watch = Stopwatch::start();
        let batch = tracing::info_span!("data").in_scope(|| self.next_batch());
        let Batch { lanes, mut figures } = batch?;
        self.stepper.parts.data += watch.lap();
        let optimizer = optimizer(self.trial, self.step);
        let scale = 1.0 / self.trial.recipe.batch.triplets as f32;
        let peers = &mut self.env.collective;
        let gradient = tracing::info_span!("gradient")
            .in_scope(|| self.stepper.gradient(peers, &lanes, scale));
        let gradient = gradient.map_err(|error| self.failed(error))?;
        for ((_, figures), scores) in figures.iter_mut().zip(&gradient.scores) {
            figures.score(scores);
        }
        // Before the update: a step that was done has a row.
        let stops = self.env.drain.load(Ordering::SeqCst);
        let _ = watch.lap();
        let StepFigures { figures, stops } =
            sum_figures(&figures, stops, &mut self.env.collective)?;
        self.stepper.parts.reduce += watch.lap();
        let peers = &mut self.env.collective;
        let norm = self.stepper.apply(peers, gradient, &optimizer);
        let norm = norm.map_err(|error| self.failed(error))?;
        self.step = Step(self.step.0 + 1);
        let work = self.work(figures.plain_tokens as u64, &span);
        let row = self.row(figures, f64::from(optimizer.adamw.lr), norm);
        self.unstored.push(row.clone());
        self.observers.on(Moment::Stepped {
            row: &row,
            triplets: self.trial.recipe.batch.triplets,
            is_last: self.step.0 == self.trial.recipe.steps,
            work: &work,
        });
        let mut watch = Stopwatch::start();
        if self.env.slice.is_some() {
            return Ok(stops);
        }
        let step = self.step;
        if self.trial.is_due(self.trial.measurement.every, step) {
            tracing::info_span!("evaluate").in_scope(|| self.evaluate())?;
        }
        self.stepper.parts.evaluate += watch.lap();
        if self.trial.saves(step) || stops {
            tracing::info_span!("save").in_scope(|| self.save())?;
        }
        let peers = &mut self.env.collective;
        let saved = self.saver.advance(self.trial, peers, Duration::ZERO)?;
        self.saved(saved);
        self.stepper.parts.save += watch.lap();
        Ok(stops)
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
        let ranks = self.trial.recipe.objective.ranks();
        Row {
            step: self.step,
            triplets: consumed.triplets,
            plain_tokens: consumed.plain_tokens,
            flops_6nd: count::flops_6nd(&self.trial.recipe.model, consumed.plain_tokens),
            loss: figures.loss / f64::from(batch),
            accuracy: ranks.then(|| figures.right / f64::from(batch)),
            margin: ranks.then(|| figures.margin / f64::from(batch)),
            lr,
            grad_norm,
            seconds: consumed.seconds,
            validation: BTreeMap::new(),
        }
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
        self.saved(saved);
        Ok(())
    }

    fn saved(&mut self, committed: Option<Committed>) {
        let Some(Committed { step, event }) = committed else {
            return;
        };
        self.unstored.retain(|row| row.step > step);
        if let Some(event) = event {
            self.observers.on(Moment::Saved(&event));
        }
    }
}

/// A rank's lanes of a batch.
struct Batch<P> {
    lanes: Vec<LaneInput<P>>,
    /// Of each lane.
    figures: Vec<(Lane, Figures)>,
}
