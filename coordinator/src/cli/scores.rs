//! Held-out scores for a terminal: every set of every trial, with intervals by prompt.

use super::table::table;
use crate::{
    run::{TrialResult, set_title},
    sweep::Plan,
};
use polestar_core::{
    TrialId,
    cluster::{FEWEST_CLUSTERS, Interval},
};
use polestar_run::SetScore;
use std::collections::BTreeMap;

/// What finished trials came to on the sets that they were scored on; empty if none has finished.
pub(super) fn score_table(plan: &Plan, results: &BTreeMap<TrialId, TrialResult>) -> String {
    let mut rows = Vec::new();
    let (mut few, mut unknown) = (false, false);
    for trial in &plan.trials {
        let Some(result) = results.get(&trial.config.id) else {
            continue;
        };
        for set in &trial.config.measurement.sets {
            // A set that the corpus has nothing for is not scored.
            let Some(score) = result.outcome.validation.get(&set.name) else {
                continue;
            };
            few |= score
                .prompts
                .is_some_and(|prompts| prompts < FEWEST_CLUSTERS);
            unknown |= score.prompts.is_none();
            rows.push(row(&trial.config.id, &set.name, score));
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let head = [
        "trial", "set", "loss", "95%", "accuracy", "95%", "triplets", "prompts",
    ];
    let mut text = format!(
        "held-out scores, intervals by prompt:\n{}",
        table(&head, &rows)
    );
    if few {
        text += &format!("fewer than {FEWEST_CLUSTERS} prompts are too few for an interval\n");
    }
    if unknown {
        text += "where prompts are unknown, an older version took the scores and didn't count them; remove the trial's \
                 results and launch again to have it scored anew\n";
    }
    text
}

fn row(trial: &TrialId, set: &str, score: &SetScore) -> Vec<String> {
    let interval = |found: Option<Interval>, decimals: usize| match found {
        Some(Interval { lo, hi }) => format!("{lo:.decimals$} to {hi:.decimals$}"),
        None => "-".to_owned(),
    };
    let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        trial.0.clone(),
        set_title(set),
        format!("{:.4}", score.loss),
        interval(score.loss_interval(), 4),
        known(score.accuracy.map(|accuracy| format!("{accuracy:.3}"))),
        interval(score.accuracy_interval(), 3),
        score.triplets.to_string(),
        score
            .prompts
            .map_or_else(|| "unknown".to_owned(), |n| n.to_string()),
    ]
}
