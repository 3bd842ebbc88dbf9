//! Fine-tunings beside the pre-training that each began with: what preference accuracy owes to compute.

use super::{Report, Validation};
use crate::fits::FinishedTrial;
use serde::{Deserialize, Serialize};

/// A trial that fine-tuned the weights of another one. Its size, tokens and compute among the finished trials
/// are those of the pre-training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FineTuned {
    /// Name of the trial.
    pub trial: String,
    /// Name of the trial whose weights it started from.
    pub start: String,
    /// FLOPs of the pre-training, convention `6ND`.
    pub flops: f64,
    /// Tokens of the pre-training, plain layout.
    pub tokens: f64,
    /// FLOPs of the fine-tuning itself, convention `6ND`.
    pub own_flops: f64,
}

/// A fine-tuning with its score.
pub(super) struct Tuned<'a> {
    pub(super) tuned: &'a FineTuned,
    pub(super) trial: &'a FinishedTrial,
    pub(super) score: &'a Validation,
}

/// Fine-tunings that have a score on the set that is looked at, by the compute that went into their starts.
pub(super) fn tuned(report: &Report) -> Vec<Tuned<'_>> {
    let input = &report.input;
    let all = input.fine_tuned.iter().filter_map(|tuned| {
        let mut trials = input.finished.iter();
        let mut scores = input.validation.iter();
        Some(Tuned {
            tuned,
            trial: trials.find(|trial| trial.name == tuned.trial)?,
            score: scores
                .find(|score| score.trial == tuned.trial && score.set == input.fitted_set)?,
        })
    });
    let mut all: Vec<Tuned<'_>> = all.collect();
    all.sort_by(|a, b| {
        let by_compute = a.tuned.flops.total_cmp(&b.tuned.flops);
        by_compute.then_with(|| a.tuned.trial.cmp(&b.tuned.trial))
    });
    all
}

/// The finding in a sentence: the best one, with its interval.
pub(super) fn finding(tuned: &[Tuned<'_>]) -> String {
    let best = tuned
        .iter()
        .max_by(|a, b| a.score.accuracy.total_cmp(&b.score.accuracy));
    let Some(Tuned {
        tuned: best, score, ..
    }) = best
    else {
        return "No fine-tuning has been scored yet.".to_owned();
    };
    let interval = super::number::ends(score.accuracy_interval(), super::number::percent);
    let interval = match interval.is_empty() {
        true => String::new(),
        false => format!(" (95%: {interval})"),
    };
    format!(
        "{} fine-tunings; the most accurate ranks {} of held-out pairs rightly{interval}: {}, from {} FLOPs of pre-training",
        tuned.len(),
        super::number::percent(score.accuracy),
        best.trial,
        super::number::flops(best.flops)
    )
}
