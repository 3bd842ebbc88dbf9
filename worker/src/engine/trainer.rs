//! The loop of a trial on one rank: batch, gradient, canonical sum, update, score, save.

use super::{
    Compute, Failure, LaneInput, StepError, StepPlan, Stepper,
    batch::inputs,
    figures::{Figures, sum_figures},
    replay::Slice,
    saving::Saver,
    start::{Laps, data, held_out, resume},
    validate::{self, HeldOut, ScoreError},
};
use crate::collective::Collective;
use crate::device::device;
use polestar_core::{Digest, Step};
use polestar_dataset::{Corpus, LanePacks, LoadPlan, Loader};
use polestar_kernels::adamw::AdamW;
use polestar_model::{HeadKind, ModelLayout, count};
use polestar_run::{Consumed, Event, Outcome, SetScore};
use polestar_run::{
    Trial,
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
pub struct Environment {
    /// The other ranks.
    pub collective: Collective,
    /// The run's place in the object store.
    pub run: Store,
    /// Runs the store's input and output; the engine itself is a plain thread.
    pub runtime: tokio::runtime::Handle,
    /// Set by somebody else to stop between two steps.
    pub abort: Arc<AtomicBool>,
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
pub fn run(trial: &Trial, env: Environment) -> Result<Outcome, Failure> {
    trial
        .check(env.collective.world())
        .map_err(|e| Failure::Config(e.to_string()))?;
    let mut trainer = Trainer::begin(trial, env)?;
    let end = trainer.end();
    while trainer.step < end {
        if trainer.env.abort.load(Ordering::SeqCst) {
            return Err(Failure::Aborted);
        }
        trainer.step()?;
    }
    trainer.finish()
}

struct Trainer<'a> {
    trial: &'a Trial,
    env: Environment,
    sharding: Sharding,
    corpus: Arc<Corpus>,
    loader: Option<Loader>,
    stepper: Stepper,
    /// Steps done.
    step: Step,
    consumed: Consumed,
    held_out: Vec<HeldOut>,
    /// Rows since the last checkpoint.
    rows: Vec<Row>,
    /// Scores of the newest validation and its step.
    scores: Option<(Step, BTreeMap<String, SetScore>)>,
    /// Of the last step, what became of every triplet.
    triplets: Vec<Scored>,
    resumed_at: Step,
    clock: Clock,
    saver: Saver,
    /// What came before the first step, until it is told.
    laps: Option<Laps>,
}

/// Seconds of this generation, on top of those before it, and the pace of reports.
struct Clock {
    since: Instant,
    before: f64,
    reported: Instant,
    triplets: u64,
}

impl Clock {
    fn seconds(&self) -> f64 {
        self.before + self.since.elapsed().as_secs_f64()
    }
}

impl<'a> Trainer<'a> {
    fn begin(trial: &'a Trial, mut env: Environment) -> Result<Trainer<'a>, Failure> {
        let begun = Instant::now();
        let mut laps = Laps::new();
        let corpus = env
            .runtime
            .block_on(Corpus::open_with(
                &trial.execution.corpus,
                &trial.recipe.data.quarantine,
                trial.recipe.data.policies.clone(),
            ))
            .map_err(data)?;
        laps.lap("corpus");
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
        let layout = ModelLayout::new(&trial.recipe.model, HeadKind::of(trial.recipe.objective));
        let device = device(trial.recipe.arithmetic.backend);
        let device = device.map_err(|e| Failure::Config(e.to_string()))?;
        let compute = Compute::new(
            layout,
            &device,
            trial.execution.recompute,
            trial.recipe.arithmetic.precision,
        );
        let plan = StepPlan {
            sharding,
            lanes: trial.recipe.batch.lanes,
            reduction: trial.recipe.arithmetic.order.reduction(),
        };
        let mut stepper = Stepper::new(compute, plan);
        let (step, consumed, passed_over) = resume(trial, &mut env, &mut stepper, &mut laps)?;
        let held_out = held_out(trial, &env, &corpus, trial.measurement.triplets)?;
        laps.lap("held-out sets");
        let shape = Shape::new(stepper.layout(), sharding.world, sharding.rank);
        let saver = Saver::new(env.run.clone(), env.runtime.clone(), shape);
        let clock = Clock {
            since: begun,
            before: consumed.seconds,
            reported: Instant::now(),
            triplets: 0,
        };
        if env.collective.rank().0 == 0 {
            (env.events)(Event::Begun {
                step,
                steps: trial.recipe.steps,
                seconds: begun.elapsed().as_secs_f64(),
                passed_over,
            });
        }
        let mut trainer = Trainer {
            trial,
            env,
            sharding,
            corpus,
            loader: None,
            stepper,
            step,
            consumed,
            held_out,
            rows: Vec::new(),
            scores: None,
            triplets: Vec::new(),
            resumed_at: step,
            clock,
            saver,
            laps: Some(laps),
        };
        if trainer.step < trainer.end() {
            trainer.loader = Some(trainer.load());
        }
        Ok(trainer)
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

    fn step(&mut self) -> Result<(), Failure> {
        let Some(loader) = self.loader.as_mut() else {
            return Ok(());
        };
        let (mut lanes, mut figures) = (Vec::new(), Vec::new());
        let batch = loader.next().map_err(data)?;
        if let Some(laps) = &mut self.laps {
            laps.lap("data");
        }
        for LanePacks { lane, packs, cost } in batch.lanes {
            figures.push((lane, Figures::of(cost)));
            let packs = inputs(packs);
            lanes.push(LaneInput { lane, packs });
        }
        let adamw = self.adamw();
        let optimizer = (&adamw, self.step.0 + 1, self.trial.recipe.optimizer.clip);
        let scale = 1.0 / self.trial.recipe.batch.triplets as f32;
        let (scores, norm) = self
            .stepper
            .step(&mut self.env.collective, &lanes, scale, optimizer)
            .map_err(|error| self.failed(error))?;
        for ((_, figures), scores) in figures.iter_mut().zip(&scores) {
            figures.score(scores);
        }
        let figures = sum_figures(&figures, &mut self.env.collective)?;
        self.step = Step(self.step.0 + 1);
        if let Some(mut laps) = self.laps.take() {
            laps.lap("step");
            self.tell(Event::Underway { parts: laps.parts });
        }

        self.record(figures, f64::from(adamw.lr), norm);
        let step = self.step;
        if self.env.slice.is_some() {
            return Ok(());
        }
        if self.trial.is_due(self.trial.measurement.every, step) {
            self.validate()?;
        }
        if self.trial.saves(step) {
            self.save()?;
        }
        self.report(step, figures);
        let collective = &mut self.env.collective;
        let saved = self.saver.advance(self.trial, collective, Duration::ZERO)?;
        saved.into_iter().for_each(|event| self.tell(event));
        Ok(())
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

    fn record(&mut self, figures: Figures, lr: f64, grad_norm: f64) {
        let batch = self.trial.recipe.batch.triplets;
        let accuracy = self.accuracy(figures);
        let consumed = &mut self.consumed;
        consumed.triplets += u64::from(batch);
        consumed.plain_tokens += figures.plain_tokens as u64;
        consumed.packed_tokens += figures.packed_tokens as u64;
        consumed.attention_pairs += figures.pairs as u64;
        consumed.seconds = self.clock.seconds();
        self.clock.triplets += u64::from(batch);
        self.rows.push(Row {
            step: self.step,
            triplets: consumed.triplets,
            plain_tokens: consumed.plain_tokens,
            flops_6nd: count::flops_6nd(&self.trial.recipe.model, consumed.plain_tokens),
            loss: figures.loss / f64::from(batch),
            accuracy,
            lr,
            grad_norm,
            seconds: consumed.seconds,
            validation: BTreeMap::new(),
        });
    }

    fn accuracy(&self, figures: Figures) -> Option<f64> {
        let ranked = self.trial.recipe.objective == polestar_core::Objective::Polar;
        ranked.then(|| figures.right / f64::from(self.trial.recipe.batch.triplets))
    }

    fn validate(&mut self) -> Result<(), Failure> {
        let validation = &self.trial.measurement;
        let at_the_end = validation.final_triplets;
        if self.step.0 == self.trial.recipe.steps && at_the_end != validation.triplets {
            self.held_out = held_out(self.trial, &self.env, &self.corpus, at_the_end)?;
        }
        let mut scores = BTreeMap::new();
        self.triplets.clear();
        for set in &self.held_out {
            let scored = validate::score(set, &mut self.stepper, &mut self.env.collective);
            let (score, margins) = scored.map_err(|error| match error {
                ScoreError::NotFinite(source) => Failure::NotFiniteScore {
                    step: self.step,
                    set: set.name,
                    source,
                },
                ScoreError::Collective(error) => Failure::Collective(error),
                ScoreError::Truncated => Failure::Data(error.to_string()),
            })?;
            scores.insert(set.name.to_owned(), score);
            if self.step.0 == self.trial.recipe.steps {
                let scored = set.triplets.iter().zip(margins);
                self.triplets.extend(scored.map(|(triplet, margin)| Scored {
                    set: set.name.to_owned(),
                    triplet: *triplet,
                    margin,
                }));
            }
        }
        if let Some(row) = self.rows.last_mut() {
            row.validation.clone_from(&scores);
        }
        self.tell(Event::Validated {
            step: self.step,
            scores: scores.clone(),
        });
        self.scores = Some((self.step, scores));
        Ok(())
    }

    /// Begins a save. It is committed behind the next steps; only one is under way at a time.
    fn save(&mut self) -> Result<(), Failure> {
        self.settle()?;
        self.consumed.seconds = self.clock.seconds();
        let rows = std::mem::take(&mut self.rows);
        let at = (self.step, self.consumed);
        self.saver.begin(self.trial, &self.stepper, at, rows);
        Ok(())
    }

    /// Waits for the save that is under way.
    fn settle(&mut self) -> Result<(), Failure> {
        let abort = &self.env.abort;
        let aborted = || abort.load(Ordering::SeqCst);
        let collective = &mut self.env.collective;
        let saved = self.saver.settle(self.trial, collective, aborted)?;
        saved.into_iter().for_each(|event| self.tell(event));
        Ok(())
    }

    /// Digest of the weights, of which all replicas must be alike.
    fn digest(&mut self) -> Result<Digest, Failure> {
        let replicas = self.stepper.replicas();
        let all = self.env.collective.gather_bytes(&replicas.to_le_bytes())?;
        if all.iter().any(|sum| sum[..] != replicas.to_le_bytes()) {
            return Err(Failure::Diverged {
                step: self.step,
                digests: all
                    .iter()
                    .map(|sum| format!("{sum:02x?}"))
                    .collect::<Vec<_>>()
                    .join(", "),
            });
        }
        Ok(self.stepper.digest(&mut self.env.collective)?)
    }

    /// Reports at most about five times a second, and always the first and the last step.
    fn report(&mut self, step: Step, figures: Figures) {
        let since = self.clock.reported.elapsed().as_secs_f64();
        let first = step.0 == self.resumed_at.0 + 1;
        if since < 0.2 && !first && step.0 < self.trial.recipe.steps {
            return;
        }
        let loss = figures.loss / f64::from(self.trial.recipe.batch.triplets);
        self.tell(Event::Stepped {
            step,
            loss,
            accuracy: self.accuracy(figures),
            triplets_per_second: self.clock.triplets as f64 / since.max(1e-9),
        });
        self.clock.triplets = 0;
        self.clock.reported = Instant::now();
    }

    fn tell(&self, event: Event) {
        if self.env.collective.rank().0 == 0 {
            (self.env.events)(event);
        }
    }

    fn finish(mut self) -> Result<Outcome, Failure> {
        // A generation that only repeats the end of a dead one has no scores yet.
        let scored = self.scores.as_ref().map(|(step, _)| *step);
        if self.env.slice.is_none() && scored != Some(self.step) {
            self.validate()?;
        }
        self.settle()?;
        if !self.triplets.is_empty() && self.env.collective.rank().0 == 0 {
            let (run, trial) = (&self.env.run, self.trial);
            let written = scores::write(run, trial, &self.triplets);
            self.env.runtime.block_on(written)?;
        }
        let (_, validation) = self.scores.take().unwrap_or_default();
        let digest = self.digest()?;
        let consumed = self.consumed;
        Ok(Outcome {
            trial: self.trial.id.clone(),
            steps: self.step.0,
            digest,
            validation,
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
