//! What was measured, what was left out, and how the numbers came about.

use super::elements::{Column, capitalized, table};
use crate::{
    fits::FinishedTrial,
    report::{Report, ScalingLaw, number},
};
use maud::{Markup, html};

/// Every finished trial with its numbers, and the digests of their weights.
pub(super) fn trials(report: &Report) -> Markup {
    let input = &report.input;
    let row = |trial: &FinishedTrial| {
        let known = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        let mark = |law: &ScalingLaw| match law.has_chosen(&trial.name) {
            true => "●".to_owned(),
            false => String::new(),
        };
        vec![
            trial.name.clone(),
            trial.at.size.clone(),
            known(trial.params.map(number::count)),
            known(trial.tokens.map(number::count)),
            known(trial.flops.map(number::flops)),
            known(trial.at.budget().map(number::flops)),
            trial.at.seed.to_string(),
            format!("{:.4}", trial.loss),
            mark(&report.by_params),
            mark(&report.by_compute),
        ]
    };
    const COLUMNS: [Column; 10] = [
        Column::text("Trial"),
        Column::text("Size"),
        Column::number("N"),
        Column::number("Tokens"),
        Column::number("C (FLOPs)"),
        Column::number("Budget"),
        Column::number("Seed"),
        Column::number("Loss"),
        Column::text("N-law"),
        Column::text("C-law"),
    ];
    let digests = input.digests.iter();
    let digests = digests.map(|(trial, digest)| vec![trial.clone(), digest.clone()]);
    const DIGESTS: [Column; 2] = [Column::text("Trial"), Column::code("Digest")];
    html! {
        h2 { "Trials" }
        @if input.finished.is_empty() {
            p { "No trial has finished." }
        } @else {
            (table(&COLUMNS, input.finished.iter().map(row)))
        }
        @if !input.digests.is_empty() {
            h3 { "Final parameters" }
            p.muted { "Equal runs have equal digests." }
            (table(&DIGESTS, digests))
        }
    }
}

/// Trials that a law is not fitted to, and why.
pub(super) fn left_out(report: &Report) -> Markup {
    let laws = [
        (&report.by_params, "law in parameters"),
        (&report.by_compute, "law in compute"),
    ];
    let laws = laws.map(|(law, name)| (&law.selection.excluded, name));
    const COLUMNS: [Column; 2] = [Column::text("Trial"), Column::text("Reason")];
    html! {
        @if laws.iter().any(|(excluded, _)| !excluded.is_empty()) {
            h2 { "What was left out, and why" }
        }
        @for (excluded, name) in laws {
            @if !excluded.is_empty() {
                h3 { "Not in the " (name) }
                (table(
                    &COLUMNS,
                    excluded.iter().map(|out| vec![out.trial.clone(), capitalized(&out.reason)]),
                ))
            }
        }
    }
}

/// How the laws were fitted, what the numbers count, and what the run was.
pub(super) fn method(report: &Report) -> Markup {
    let input = &report.input;
    let conventions = input.conventions.iter();
    let conventions = conventions.map(|(name, what)| vec![name.clone(), what.clone()]);
    const CONVENTIONS: [Column; 2] = [Column::text("Number"), Column::text("Counts")];
    html! {
        h2 { "How these numbers came about" }
        p {
            "A law is the least-squares line of ln L on ln x. Its intervals come from "
            (number::grouped(report.resamples as u64))
            " seeded bootstrap resamples of the points, \
             and of the seeds within a point where there are several, widened for the smallness of the sample. \
             The law in parameters takes each size at its lowest final loss and so assumes that data did not hold a size back; \
             the law in compute takes the best size of each budget."
        }
        @if !input.conventions.is_empty() {
            h3 { "What the numbers count" }
            (table(&CONVENTIONS, conventions))
        }
        // A table of runs has neither.
        @if !input.run_id.is_empty() { (run_and_corpus(report)) }
    }
}

fn run_and_corpus(report: &Report) -> Markup {
    let input = &report.input;
    let corpus = &input.corpus;
    let fact = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
    let counted = |name: &str, value: u64| vec![name.to_owned(), number::grouped(value)];
    let mut facts = vec![
        fact("Corpus", &corpus.name),
        counted("Policies", corpus.policies),
        counted("Prompts", corpus.prompts),
        counted("Triplets trained on", corpus.triplets_seen),
        counted("Tokens trained on", corpus.tokens_seen),
    ];
    if !input.warmth.is_empty() {
        facts.push(fact("Workers", &input.warmth));
    }
    let digests = [
        fact("Corpus fingerprint", &corpus.fingerprint),
        fact("Configuration digest", &input.config_digest),
        fact("Run", &input.run_id),
    ];
    html! {
        h3 { "Run and corpus" }
        (table(&[Column::text("Fact"), Column::text("Value")], facts))
        (table(&[Column::text("Identity"), Column::code("Value")], digests))
    }
}
