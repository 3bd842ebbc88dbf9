//! Trials on preference benchmarks.

use super::elements::{Column, table};
use crate::report::{PreferenceScore, PreferenceSet, Report, number};
use maud::{Markup, html};

/// A table a benchmark.
pub(super) fn preference(report: &Report) -> Markup {
    let sets = &report.input.preferences;
    html! {
        @if !sets.is_empty() {
            h2 { "Preference accuracy" }
            p.muted {
                "How often a trial's final weights give the better answer the higher reward. Judgements of one prompt are alike, so \
                 intervals of 95% go by prompts. Baselines need no training and judge the same pairs: the longer answer, and the one that \
                 shares more letter sequences with the reference, or with the prompt where there is none."
            }
            @for set in sets { (of(report, set)) }
        }
    }
}

fn of(report: &Report, set: &PreferenceSet) -> Markup {
    let has_references = set
        .trials
        .iter()
        .any(|score| score.without_reference.is_some());
    let row = |score: &PreferenceScore| {
        let finished = report
            .input
            .finished
            .iter()
            .find(|trial| trial.name == score.trial);
        let flops = finished.and_then(|trial| trial.flops);
        let interval = score.interval.as_ref().map_or_else(
            || "too few prompts".to_owned(),
            |i| format!("{} to {}", number::percent(i.lo), number::percent(i.hi)),
        );
        let mut cells = vec![
            score.trial.clone(),
            flops.map_or_else(|| "–".to_owned(), number::flops),
            number::percent(score.accuracy),
            interval,
        ];
        if has_references {
            let without = score.without_reference;
            cells.push(without.map_or_else(|| "–".to_owned(), number::percent));
        }
        cells
    };
    let baseline = |(name, accuracy): &(String, f64)| {
        let mut cells = vec![
            name.clone(),
            "–".to_owned(),
            number::percent(*accuracy),
            "–".to_owned(),
        ];
        if has_references {
            cells.push("–".to_owned());
        }
        cells
    };
    let mut columns = vec![
        Column::text("Scorer"),
        Column::number("Compute"),
        Column::number("Accuracy"),
        Column::number("95%"),
    ];
    if has_references {
        columns.push(Column::number("Without reference"));
    }
    let rows = set.trials.iter().map(row);
    html! {
        h3 { (set.name) }
        p { (set.finding()) "." }
        p.muted {
            (number::grouped(set.judgements)) " judgements of " (number::grouped(set.prompts)) " prompts, " (set.averaging) "."
        }
        (table(&columns, rows.chain(set.baselines.iter().map(baseline))))
    }
}
