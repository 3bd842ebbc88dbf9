//! A benchmark through a model and the baselines.

use crate::{
    baselines::{Length, TfIdf},
    formats::Format,
    judge::{Judged, judge},
    published::{Published, published},
    question::{Account, Bench},
    rewards::{Group, RewardError, Rewards},
    summary::{Accuracy, Row, Tasks},
};
use serde::{Deserialize, Serialize};

/// What to evaluate.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the benchmark is called.
    pub name: String,
    /// What the model is called.
    pub model: String,
    /// Whether to score without references, too, where there are any.
    pub without_reference: bool,
    /// Whether to score the baselines.
    pub baselines: bool,
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

/// Scores a benchmark with a model and the baselines.
///
/// # Errors
/// The model's; or a reward that is no finite number, or isn't one an answer.
pub fn evaluate(
    format: Format,
    bench: &Bench,
    model: &mut dyn Rewards,
    options: &Options,
    progress: &mut dyn FnMut(Phase<'_>),
) -> Result<Evaluation, RewardError> {
    let tasks = Tasks::of(format, bench);
    let has_references = bench.account.references > 0;
    let mut scored: Vec<(ScorerResult, Vec<Judged>)> = Vec::new();
    let mut score = |name: &str, rewards: &mut dyn Rewards, is_model: bool, with: bool| {
        let judged = judge_all(format, bench, rewards, (name, with), progress)?;
        let result = ScorerResult {
            name: name.to_owned(),
            is_model,
            with_reference: with && has_references,
            accuracies: tasks.accuracies(&judged),
            tied: tasks.tied(&judged),
        };
        scored.push((result, judged));
        Ok::<(), RewardError>(())
    };
    score(&options.model, model, true, true)?;
    if has_references && options.without_reference {
        score(
            &format!("{}, no reference", options.model),
            model,
            true,
            false,
        )?;
    }
    if options.baselines {
        score("length", &mut Length, false, true)?;
        score("TF-IDF", &mut TfIdf::of(bench), false, true)?;
    }
    let (ours, others) = scored.split_first().expect("the model was scored");
    let differences = others.iter().map(|(theirs, judged)| Difference {
        less: theirs.name.clone(),
        by: tasks.differences(&ours.1, judged),
    });
    Ok(Evaluation {
        name: options.name.clone(),
        format,
        averaging: format.averaging().to_owned(),
        ties: format.ties().to_string(),
        account: bench.account.clone(),
        rows: tasks.rows(),
        differences: differences.collect(),
        scorers: scored.into_iter().map(|(result, _)| result).collect(),
        published: published(format),
    })
}

fn judge_all(
    format: Format,
    bench: &Bench,
    rewards: &mut dyn Rewards,
    (name, with_reference): (&str, bool),
    progress: &mut dyn FnMut(Phase<'_>),
) -> Result<Vec<Judged>, RewardError> {
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
