//! Which trials enter a law, and why the others don't.
//!
//! The runs of a *candidate* have one size, length and setting (batch, learning rate, policies); they
//! differ in their seeds and enter or stay out together. Of the settings of a size and length the one of
//! lowest mean loss is the candidate.

use super::{FailedTrial, FinishedTrial, Observation};
use crate::coordinates::grouped;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A trial that stays out of a law.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excluded {
    /// Name of the trial.
    pub trial: String,
    /// Why, as a clause a person can read.
    pub reason: String,
}

/// The trials of one law.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Selection {
    /// What the law is fitted to.
    pub chosen: Vec<Observation>,
    /// What it is not fitted to; every trial is in one of the two lists.
    pub excluded: Vec<Excluded>,
    /// What a reader should know before trusting the choice, one sentence each.
    pub cautions: Vec<String>,
}

/// Trials of the law in parameters, leaving out what is no better than `chance`: for each size the
/// candidate of lowest loss, which is its largest budget unless training longer stopped helping.
pub fn by_params(
    trials: &[FinishedTrial],
    failed: &[FailedTrial],
    chance: Option<f64>,
) -> Selection {
    let (candidates, mut selection) = candidates(trials, failed, chance);
    // A table may not say how large its models are.
    for candidate in candidates.iter().filter(|c| c.params.is_none()) {
        selection.exclude(candidate, "its number of parameters is not known");
    }
    let sized = candidates.iter().filter_map(|c| Some((c.params?, c)));
    let sizes = grouped(sized, |a, b| a.0 == b.0 && a.1.size == b.1.size);
    for of_size in sizes {
        let params = of_size[0].0;
        let of_size: Vec<&Candidate> = of_size.into_iter().map(|(_, c)| c).collect();
        let best = lowest(&of_size);
        for candidate in &of_size {
            if std::ptr::eq(*candidate, best) {
                selection.choose(candidate, params);
                continue;
            }
            let (size, loss, best_loss) = (best.size, candidate.loss, best.loss);
            selection.exclude(
                candidate,
                &format!(
                    "not the lowest loss of size {size}: {loss:.4} here, {best_loss:.4} at its best"
                ),
            );
        }
        if let Some(compute) = best.compute()
            && of_size.iter().any(|c| c.compute() > Some(compute))
        {
            selection.cautions.push(format!(
                "Size {} did best at {compute:.2e} FLOPs, not at its largest compute: longer training stopped helping.",
                best.size
            ));
        }
    }
    selection
}

/// Trials of the law in compute: for each budget the size of lowest loss. Trials without a budget enter
/// when no other trial reached a loss as low with no more compute.
pub fn by_compute(
    trials: &[FinishedTrial],
    failed: &[FailedTrial],
    chance: Option<f64>,
) -> Selection {
    let (candidates, mut selection) = candidates(trials, failed, chance);
    // Positive floats sort as their bits do.
    let mut budgets: BTreeMap<u64, Vec<&Candidate>> = BTreeMap::new();
    for candidate in &candidates {
        let Some(flops) = candidate.flops else {
            selection.exclude(candidate, "its compute is not known");
            continue;
        };
        if let Some(budget) = candidate.budget {
            budgets.entry(budget.to_bits()).or_default().push(candidate);
            continue;
        }
        let better = candidates
            .iter()
            .filter(|other| other.flops.is_some_and(|spent| spent <= flops))
            .filter(|other| other.loss <= candidate.loss)
            // Strictly better in one of the two: a candidate does not beat itself, nor an equal one.
            .filter(|other| other.flops < candidate.flops || other.loss < candidate.loss)
            .min_by(|a, b| a.loss.total_cmp(&b.loss));
        match better {
            None => selection.choose(candidate, flops),
            Some(other) => selection.exclude(
                candidate,
                &format!(
                    "size {} reached {:.4} with no more compute, this one {:.4}",
                    other.size, other.loss, candidate.loss
                ),
            ),
        }
    }
    for (bits, at_budget) in budgets {
        let budget = f64::from_bits(bits);
        let best = lowest(&at_budget);
        for candidate in &at_budget {
            if std::ptr::eq(*candidate, best) {
                selection.choose(candidate, candidate.flops.unwrap_or(budget));
                continue;
            }
            selection.exclude(
                candidate,
                &format!(
                    "not the best size at its budget of {budget:.2e} FLOPs: {} reached {:.4}, this one {:.4}",
                    best.size, best.loss, candidate.loss
                ),
            );
        }
        let tried = trials.iter().filter(|t| t.at.budget() == Some(budget));
        let left_out = tried.filter(|t| unusable(t, chance).is_some()).collect();
        let tried = AtBudget {
            budget,
            entered: &at_budget,
            left_out,
        };
        selection.cautions.extend(tried.caution(best));
    }
    selection
}

/// The trials of the best setting of every size and length, in the order of `trials`; trials whose loss
/// or compute is no number above zero are none of them.
pub fn best_settings(trials: &[FinishedTrial]) -> Vec<&FinishedTrial> {
    let (candidates, _) = candidates(trials, &[], None);
    let kept: Vec<&FinishedTrial> = candidates.into_iter().flat_map(|c| c.runs).collect();
    let is_kept = |trial: &&FinishedTrial| kept.iter().any(|other| std::ptr::eq(*other, *trial));
    trials.iter().filter(is_kept).collect()
}

/// The runs of one size and length at their best setting.
struct Candidate<'a> {
    size: &'a str,
    params: Option<f64>,
    budget: Option<f64>,
    /// Mean over the runs, so that they share one x; `None` where one of them doesn't say.
    flops: Option<f64>,
    /// Mean over the runs.
    loss: f64,
    runs: Vec<&'a FinishedTrial>,
}

impl<'a> Candidate<'a> {
    fn of(runs: Vec<&'a FinishedTrial>) -> Self {
        let count = runs.len() as f64;
        let flops: Option<f64> = runs.iter().map(|run| run.flops).sum();
        Self {
            size: &runs[0].at.size,
            params: runs[0].params,
            budget: runs[0].at.budget(),
            flops: flops.map(|sum| sum / count),
            loss: runs.iter().map(|run| run.loss).sum::<f64>() / count,
            runs,
        }
    }

    fn compute(&self) -> Option<f64> {
        self.budget.or(self.flops)
    }
}

impl Selection {
    fn choose(&mut self, candidate: &Candidate, x: f64) {
        let observations = candidate.runs.iter().map(|run| Observation {
            label: run.name.clone(),
            x,
            loss: run.loss,
        });
        self.chosen.extend(observations);
    }

    fn exclude(&mut self, candidate: &Candidate, reason: &str) {
        for run in &candidate.runs {
            self.exclude_trial(&run.name, reason);
        }
    }

    fn exclude_trial(&mut self, trial: &str, reason: impl Into<String>) {
        self.excluded.push(Excluded {
            trial: trial.to_owned(),
            reason: reason.into(),
        });
    }
}

/// What a law may choose from, by size and then compute, and a selection that already lists what can't
/// enter any.
fn candidates<'a>(
    trials: &'a [FinishedTrial],
    failed: &[FailedTrial],
    chance: Option<f64>,
) -> (Vec<Candidate<'a>>, Selection) {
    let mut selection = Selection::default();
    let mut usable = Vec::new();
    for trial in trials {
        match unusable(trial, chance) {
            Some(reason) => selection.exclude_trial(&trial.name, reason),
            None => usable.push(trial),
        }
    }
    for trial in failed {
        selection.exclude_trial(&trial.name, format!("trial failed: {}", trial.reason));
    }
    let mut candidates = Vec::new();
    let same_training = |a: &&FinishedTrial, b: &&FinishedTrial| {
        a.params == b.params && a.at.is_same_training(&b.at)
    };
    for training in grouped(usable, same_training) {
        let settings = grouped(training, |a, b| a.at.is_same_setting(&b.at));
        let settings: Vec<Candidate> = settings.into_iter().map(Candidate::of).collect();
        let best = settings
            .iter()
            .map(|c| c.loss)
            .fold(f64::INFINITY, f64::min);
        // The first of equals: the others say that it was as good.
        let mut found: Option<Candidate> = None;
        for setting in settings {
            match &found {
                None if setting.loss == best => found = Some(setting),
                _ => selection.exclude(
                    &setting,
                    &format!(
                        "another setting of this size and length did as well or better: {best:.4} there, {:.4} with {}",
                        setting.loss,
                        setting.runs[0].at.setting()
                    ),
                ),
            }
        }
        candidates.extend(found);
    }
    candidates.sort_by(|a, b| {
        let params = |c: &Candidate| c.params.unwrap_or(0.0);
        params(a)
            .total_cmp(&params(b))
            .then_with(|| a.size.cmp(b.size))
            .then_with(|| {
                let compute = |c: &Candidate| c.compute().unwrap_or(0.0);
                compute(a).total_cmp(&compute(b))
            })
    });
    (candidates, selection)
}

/// Why a trial can't enter any law, if it can't.
fn unusable(trial: &FinishedTrial, chance: Option<f64>) -> Option<String> {
    let positive = |value: f64| value.is_finite() && value > 0.0;
    if !positive(trial.loss) {
        return Some(format!(
            "loss {} is not a finite number above zero",
            trial.loss
        ));
    }
    if !trial.flops.is_none_or(positive) || !trial.at.budget().is_none_or(positive) {
        return Some("its FLOPs or budget are not above zero".to_owned());
    }
    let chance = chance.filter(|chance| trial.loss >= *chance)?;
    Some(format!(
        "loss {:.4} is not below chance ({chance:.4})",
        trial.loss
    ))
}

/// The candidate of lowest loss; the first of equals.
fn lowest<'a, 'b>(candidates: &[&'a Candidate<'b>]) -> &'a Candidate<'b> {
    let by_loss = |a: &&Candidate, b: &&Candidate| a.loss.total_cmp(&b.loss);
    let best = candidates.iter().copied().min_by(by_loss);
    best.expect("a group has at least the candidate that began it")
}

/// What was tried at one budget.
struct AtBudget<'a, 'b> {
    budget: f64,
    /// What competes.
    entered: &'b [&'b Candidate<'a>],
    /// Trials that can't, whatever their size.
    left_out: Vec<&'a FinishedTrial>,
}

impl AtBudget<'_, '_> {
    /// A best size with no larger or no smaller one beside it may not be the best there is.
    fn caution(&self, best: &Candidate) -> Option<String> {
        let smaller = |params: Option<f64>| params < best.params;
        let larger = |params: Option<f64>| params > best.params;
        let entered = |is_it: &dyn Fn(Option<f64>) -> bool| {
            self.entered.iter().any(|other| is_it(other.params))
        };
        let name = &best.size;
        let (found, beyond) = match (entered(&smaller), entered(&larger)) {
            (true, true) => return None,
            (false, false) => {
                let others = self.sizes(|params| params != best.params);
                let found = match others.is_empty() {
                    true => format!("only size {name} was tried"),
                    false => format!("only size {name} can enter"),
                };
                (found, others)
            }
            (false, true) => {
                let others = self.sizes(smaller);
                let found = format!("the best size, {name}, is the smallest");
                (found + tried_or_left(&others), others)
            }
            (true, false) => {
                let others = self.sizes(larger);
                let found = format!("the best size, {name}, is the largest");
                (found + tried_or_left(&others), others)
            }
        };
        let beyond = match beyond.is_empty() {
            true => String::new(),
            false => format!(" ({} was tried and left out)", beyond.join(", ")),
        };
        Some(format!(
            "At {:.2e} FLOPs {found}{beyond}: the optimum may lie beyond it, and the law through it above the true one.",
            self.budget
        ))
    }

    /// Sizes of which no trial enters, by their parameters.
    fn sizes(&self, is_it: impl Fn(Option<f64>) -> bool) -> Vec<&str> {
        let has_entered = |size: &str| self.entered.iter().any(|c| c.size == size);
        let left_out = self.left_out.iter();
        let left_out = left_out.filter(|t| is_it(t.params) && !has_entered(&t.at.size));
        let mut sizes: Vec<&str> = left_out.map(|t| t.at.size.as_str()).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}

fn tried_or_left(others: &[&str]) -> &'static str {
    match others.is_empty() {
        true => " tried",
        false => " that can enter",
    }
}

#[cfg(test)]
mod tests;
