//! Checkpoints through benchmarks, one after another: a model is loaded once, and a baseline scored once.

use super::{BenchArg, EvaluateError, Model, read_bench};
use crate::{
    run::{EvaluationRecord, Run},
    sweep::TrialRole,
};
use polestar_core::{Digest, Objective, TrialId};
use polestar_eval::{Evaluation, Evaluator, Format, Options, Phase};
use polestar_serve::Checkpoint;
use serde::Serialize;
use std::sync::Arc;

/// What a checkpoint came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluated {
    /// The trial's name, where a run was given, or the checkpoint.
    pub name: String,
    /// Where it lies.
    pub url: String,
    /// Steps done.
    pub step: u64,
    /// Digest of its weights.
    pub digest: Digest,
    /// Compute of its training, of a run's trial.
    pub flops: Option<f64>,
    /// Its parameters, of a run's trial.
    pub parameters: Option<u64>,
    /// One a benchmark.
    pub evaluations: Vec<Evaluation>,
}

/// How checkpoints are evaluated.
#[derive(Clone, Default)]
pub struct How {
    /// Where the corpus is now, if it was moved.
    pub corpus: Option<String>,
    /// Whether to score without references, too.
    pub without_reference: bool,
    /// Whom to tell how far it is.
    pub tell: Option<Tell>,
}

/// Tells who scores what, and how far that is.
pub type Tell = Arc<dyn Fn(&str, &Phase<'_>) + Send + Sync>;

/// Benchmarks that were read, their baselines scored.
#[derive(Clone, Debug)]
pub struct Evaluators(Arc<Vec<Evaluator>>);

impl Evaluators {
    /// Reads benchmarks, and scores the baselines on them if they are wanted.
    ///
    /// # Errors
    /// [`EvaluateError::Bench`].
    pub async fn read(
        benches: Vec<(BenchArg, Option<Format>)>,
        baselines: bool,
    ) -> Result<Evaluators, EvaluateError> {
        let read = move || {
            let read = benches.iter().map(|(arg, format)| {
                let (format, bench) = read_bench(arg, *format)?;
                let name = &arg.name;
                Ok(Evaluator::new(name, format, bench, baselines, &mut |_| {}))
            });
            read.collect::<Result<Vec<_>, EvaluateError>>()
        };
        Ok(Evaluators(Arc::new(blocking(read).await?)))
    }

    /// Scores one checkpoint, which is called `name`, on all of them.
    ///
    /// # Errors
    /// [`EvaluateError::Open`], [`EvaluateError::Score`].
    pub async fn checkpoint(
        &self,
        name: &str,
        checkpoint: &Checkpoint,
        how: &How,
    ) -> Result<Evaluated, EvaluateError> {
        let all = (0..self.0.len()).collect();
        self.score(name, checkpoint, all, how).await
    }

    /// Scores the last checkpoint of every finished reward model of a run, and keeps what they come to in the run.
    ///
    /// # Errors
    /// [`EvaluateError`]; what was scored before is kept.
    pub async fn run(&self, run: &Run, how: &How) -> Result<Vec<Evaluated>, EvaluateError> {
        let mut evaluated = Vec::new();
        for trial in finished(run).await? {
            let all = (0..self.0.len()).collect();
            evaluated.push(self.trial(run, &trial, all, how).await?);
        }
        match evaluated.is_empty() {
            true => Err(EvaluateError::NoneFinished {
                url: run.folder.url().to_owned(),
            }),
            false => Ok(evaluated),
        }
    }

    /// As [`Evaluators::run`], but only what isn't kept already. Returns how many evaluations that were.
    ///
    /// # Errors
    /// [`EvaluateError`]; what was scored before is kept.
    pub async fn missing(&self, run: &Run, how: &How) -> Result<usize, EvaluateError> {
        let digests: Vec<Digest> = self.0.iter().map(Evaluator::digest).collect();
        let mut made = 0;
        for trial in finished(run).await? {
            let mut missing = Vec::new();
            for (at, evaluator) in self.0.iter().enumerate() {
                let kept = run.evaluation(evaluator.name(), &trial.id).await?;
                let is_same = |kept: &EvaluationRecord| {
                    kept.weights == trial.weights && kept.benchmark == digests[at]
                };
                if !kept.as_ref().is_some_and(is_same) {
                    missing.push(at);
                }
            }
            made += missing.len();
            if !missing.is_empty() {
                self.trial(run, &trial, missing, how).await?;
            }
        }
        Ok(made)
    }

    async fn trial(
        &self,
        run: &Run,
        trial: &Finished,
        benches: Vec<usize>,
        how: &How,
    ) -> Result<Evaluated, EvaluateError> {
        let url = format!("{}#{}@{}", run.folder.url(), trial.id, trial.steps);
        let checkpoint = Checkpoint::open(&url).await?;
        let numbers = benches.clone();
        let mut evaluated = self.score(&trial.id.0, &checkpoint, benches, how).await?;
        evaluated.flops = Some(trial.flops);
        evaluated.parameters = Some(trial.parameters);
        for (at, evaluation) in numbers.into_iter().zip(&evaluated.evaluations) {
            let (weights, bench) = (evaluated.digest, self.0[at].digest());
            let record =
                EvaluationRecord::new(trial.id.clone(), weights, bench, evaluation.clone());
            run.record_evaluation(&record).await?;
        }
        Ok(evaluated)
    }

    async fn score(
        &self,
        name: &str,
        checkpoint: &Checkpoint,
        benches: Vec<usize>,
        how: &How,
    ) -> Result<Evaluated, EvaluateError> {
        let baselines = self.0.iter().any(Evaluator::has_baselines);
        let mut model = Model::load(checkpoint, how.corpus.as_deref(), baselines).await?;
        let (evaluators, name) = (self.clone(), name.to_owned());
        let (tell, options) = (how.tell.clone(), how.options());
        let called = name.clone();
        let work = move || {
            let score = |at: usize| {
                let evaluator = &evaluators.0[at];
                let mut progress = |phase: Phase<'_>| {
                    if let Some(tell) = &tell {
                        tell(&format!("{called} on {}", evaluator.name()), &phase);
                    }
                };
                let found = evaluator.evaluate(&mut model, &options, &mut progress);
                let mut found = found.map_err(|source| EvaluateError::Score {
                    trial: called.clone(),
                    bench: evaluator.name().to_owned(),
                    source,
                })?;
                found.notes.extend(model.what_was_cut());
                Ok(found)
            };
            let scored = benches.into_iter().map(score);
            scored.collect::<Result<Vec<Evaluation>, EvaluateError>>()
        };
        Ok(Evaluated {
            name,
            url: checkpoint.url(),
            step: checkpoint.step().0,
            digest: *checkpoint.digest(),
            flops: None,
            parameters: None,
            evaluations: blocking(work).await?,
        })
    }
}

impl How {
    fn options(&self) -> Options {
        Options {
            model: "model".to_owned(),
            without_reference: self.without_reference,
        }
    }
}

/// A trial that ended with a reward model.
struct Finished {
    id: TrialId,
    weights: Digest,
    steps: u64,
    flops: f64,
    parameters: u64,
}

/// The trials of a run's laws that are done, in the order of the plan.
async fn finished(run: &Run) -> Result<Vec<Finished>, EvaluateError> {
    let results = run.results().await?;
    let planned = run.record.plan.trials.iter();
    let models = planned.filter(|trial| {
        let is_point = trial.role == TrialRole::Point;
        is_point && trial.config.recipe.objective != Objective::Lm
    });
    let finished = models.filter_map(|trial| {
        let outcome = &results.get(&trial.config.id)?.outcome;
        Some(Finished {
            id: trial.config.id.clone(),
            weights: outcome.digest,
            steps: outcome.steps,
            // Of a fine-tuned model that of its pre-training, as in the report.
            flops: trial
                .pretraining
                .as_ref()
                .map_or(outcome.flops_6nd, |of| of.flops_6nd),
            parameters: trial.parameters,
        })
    });
    Ok(finished.collect())
}

/// A thread of its own for what computes for long.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
