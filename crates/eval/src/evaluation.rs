//! A benchmark through a model and the baselines.

use crate::{
    baselines::{EMBEDDING, Length, TfIdf},
    formats::Format,
    judge::{Judged, judge},
    published::{Published, published},
    question::{Account, Bench},
    rewards::{Group, RewardError, Rewards},
    summary::{Accuracy, Row, Tasks},
};
use polestar_core::Digest;
use serde::{Deserialize, Serialize};

/// What a model is called, and how it is asked.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the model is called.
    pub model: String,
    /// Whether to score without references, too, where there are any.
    pub without_reference: bool,
}

/// What is being done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase<'a> {
    /// Who scores.
    pub scorer: &'a str,
    /// Answers scored so far.
    pub answers: u64,
    /// Of how many.
    pub of: u64,
}

/// A benchmark, and how its scorers did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// What it is called.
    pub name: String,
    /// Whose file it is.
    pub format: Format,
    /// How its one number comes about.
    pub averaging: String,
    /// What equal rewards are worth.
    pub ties: String,
    /// What became of its records.
    pub account: Account,
    /// What the numbers are of.
    pub rows: Vec<Row>,
    /// The model first, then the baselines.
    pub scorers: Vec<ScorerResult>,
    /// The model less each of the others, task by task.
    pub differences: Vec<Difference>,
    /// Numbers of others, for context: none of them was measured here.
    pub published: Vec<Published>,
    /// What else is to be known of it, in sentences.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What a scorer came to, by row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScorerResult {
    /// Who scored.
    pub name: String,
    /// Whether it is what was to be evaluated.
    pub is_model: bool,
    /// Whether it saw references, where there were any.
    pub with_reference: bool,
    /// Accuracies, one a row.
    pub accuracies: Vec<Accuracy>,
    /// Tasks that equal rewards decided, one a row.
    pub tied: Vec<u64>,
}

/// A paired difference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Who was taken from the first scorer.
    pub less: String,
    /// By row.
    pub by: Vec<Accuracy>,
}

/// Answers that are scored before progress is told.
const CHUNK: usize = 256;

/// Tells how far a scorer is.
pub type Progress<'a> = &'a mut dyn FnMut(Phase<'_>);

/// A benchmark that models can be evaluated on, one after another.
#[derive(Debug)]
pub struct Evaluator {
    name: String,
    format: Format,
    bench: Bench,
    tasks: Tasks,
    baselines: Vec<(ScorerResult, Vec<Judged>)>,
}

impl Evaluator {
    /// With what a benchmark is called, and what was read of it. `baselines` says whether to score them, which is
    /// done here, once.
    pub fn new(
        name: &str,
        format: Format,
        bench: Bench,
        baselines: bool,
        progress: Progress<'_>,
    ) -> Evaluator {
        let mut evaluator = Evaluator {
            name: name.to_owned(),
            format,
            tasks: Tasks::of(format, &bench),
            bench,
            baselines: Vec::new(),
        };
        if baselines {
            let mut tf_idf = TfIdf::of(&evaluator.bench);
            let scorers: [(&str, &mut dyn Rewards); 2] =
                [("length", &mut Length), ("TF-IDF", &mut tf_idf)];
            for (name, scorer) in scorers {
                let scored = evaluator.score(scorer, Scoring::baseline(name), progress);
                let scored = scored.expect("baselines give finite rewards, one an answer");
                evaluator.baselines.push(scored);
            }
        }
        evaluator
    }

    /// What the benchmark is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether baselines stand beside its models.
    pub fn has_baselines(&self) -> bool {
        !self.baselines.is_empty()
    }

    /// What was read.
    pub fn bench(&self) -> &Bench {
        &self.bench
    }

    /// Identity of what is asked: of all texts and judgements, whatever file they came in.
    pub fn digest(&self) -> Digest {
        let all = serde_json::to_vec(&(self.format, &self.bench.questions));
        Digest::of(&all.expect("texts and numbers serialize"))
    }

    /// Scores the benchmark with a model, beside the baselines.
    ///
    /// # Errors
    /// The model's; or a reward that is no finite number, or isn't one an answer.
    pub fn evaluate(
        &self,
        model: &mut dyn Rewards,
        options: &Options,
        progress: Progress<'_>,
    ) -> Result<Evaluation, RewardError> {
        let name = &options.model;
        let whole = Scoring {
            name,
            is_model: true,
            with_reference: true,
        };
        let mut scored = vec![self.score(model, whole, progress)?];
        if self.bench.account.references > 0 && options.without_reference {
            let without = Scoring {
                name: &format!("{name}, no reference"),
                with_reference: false,
                ..whole
            };
            scored.push(self.score(model, without, progress)?);
        }
        let mut own = Vec::new();
        if !self.baselines.is_empty()
            && let Some(embedding) = model.embedding()
        {
            own.push(self.score(embedding, Scoring::baseline(EMBEDDING), progress)?);
        }
        let others = scored[1..].iter().chain(&self.baselines).chain(&own);
        let differences = others.map(|(theirs, judged)| Difference {
            less: theirs.name.clone(),
            by: self.tasks.differences(&scored[0].1, judged),
        });
        let differences = differences.collect();
        let baselines = self.baselines.iter().map(|(result, _)| result.clone());
        Ok(Evaluation {
            name: self.name.clone(),
            format: self.format,
            averaging: self.format.averaging().to_owned(),
            ties: self.format.ties().to_string(),
            account: self.bench.account.clone(),
            rows: self.tasks.rows(),
            differences,
            scorers: scored
                .into_iter()
                .map(|(result, _)| result)
                .chain(baselines)
                .chain(own.into_iter().map(|(result, _)| result))
                .collect(),
            published: published(self.format),
            notes: Vec::new(),
        })
    }

    /// What a scorer came to.
    fn score(
        &self,
        rewards: &mut dyn Rewards,
        scorer: Scoring<'_>,
        progress: Progress<'_>,
    ) -> Result<(ScorerResult, Vec<Judged>), RewardError> {
        let (format, bench) = (self.format, &self.bench);
        let judged = judge_all(format, bench, rewards, scorer, progress)?;
        let result = ScorerResult {
            name: scorer.name.to_owned(),
            is_model: scorer.is_model,
            with_reference: scorer.with_reference && bench.account.references > 0,
            accuracies: self.tasks.accuracies(&judged),
            tied: self.tasks.tied(&judged),
        };
        Ok((result, judged))
    }
}

/// Who gives rewards, and what it is shown.
#[derive(Clone, Copy)]
struct Scoring<'a> {
    /// What it is called.
    name: &'a str,
    is_model: bool,
    /// Whether it sees references, where there are some.
    with_reference: bool,
}

impl Scoring<'_> {
    fn baseline(name: &str) -> Scoring<'_> {
        Scoring {
            name,
            is_model: false,
            with_reference: true,
        }
    }
}

fn judge_all(
    format: Format,
    bench: &Bench,
    rewards: &mut dyn Rewards,
    scorer: Scoring<'_>,
    progress: Progress<'_>,
) -> Result<Vec<Judged>, RewardError> {
    let Scoring {
        name,
        with_reference,
        ..
    } = scorer;
    let (mut judged, mut answers) = (Vec::new(), 0);
    let mut left = &bench.questions[..];
    while !left.is_empty() {
        let mut chunk = 0;
        let fits = |question: &&crate::Question| {
            let before = chunk;
            chunk += question.answers.len();
            before < CHUNK
        };
        let (now, later) = left.split_at(left.iter().take_while(fits).count());
        let groups: Vec<Group<'_>> = now
            .iter()
            .map(|question| Group::of(question, with_reference))
            .collect();
        let given = rewards.rewards(&groups)?;
        if given.len() != now.len() {
            return Err(format!(
                "{name} gave {} groups rewards, not {}",
                given.len(),
                now.len()
            )
            .into());
        }
        for (question, rewards) in now.iter().zip(&given) {
            check(name, question, rewards)?;
            let tasks = question.tasks.iter();
            judged.extend(tasks.map(|task| judge(&task.kind, rewards, format.ties())));
            answers += rewards.len() as u64;
        }
        progress(Phase {
            scorer: name,
            answers,
            of: bench.account.answers,
        });
        left = later;
    }
    Ok(judged)
}

fn check(name: &str, question: &crate::Question, rewards: &[f64]) -> Result<(), RewardError> {
    let beginning: String = question.prompt.chars().take(60).collect();
    if rewards.len() != question.answers.len() {
        let (given, wanted) = (rewards.len(), question.answers.len());
        return Err(
            format!("{name} gave {given} rewards to {wanted} answers to '{beginning}…'").into(),
        );
    }
    match rewards.iter().find(|reward| !reward.is_finite()) {
        Some(reward) => Err(format!(
            "{name} gave an answer to '{beginning}…' the reward {reward}, which can't be compared"
        )
        .into()),
        None => Ok(()),
    }
}

impl Evaluation {
    /// The benchmark's one number, of the model.
    pub fn overall(&self) -> Option<Accuracy> {
        let model = self.scorers.iter().find(|scorer| scorer.is_model)?;
        model.accuracies.first().copied()
    }
}

#[cfg(test)]
mod tests;
