//! Fine-tunings beside what went into the weights that they started from.

use super::elements::{Column, table};
use super::scores::{counted, interval};
use crate::report::{
    Report, number,
    tuned::{Tuned, finding, tuned},
};
use maud::{Markup, html};

/// Every fine-tuning with its score, by pre-training compute.
pub(super) fn table_of(report: &Report) -> Markup {
    let found = tuned(report);
    let row = |it: &Tuned<'_>| {
        let known = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        vec![
            it.tuned.trial.clone(),
            it.tuned.start.clone(),
            known(it.trial.params.map(number::count)),
            number::count(it.tuned.tokens),
            number::flops(it.tuned.flops),
            number::flops(it.tuned.own_flops),
            number::percent(it.score.accuracy),
            interval(
                it.score.accuracy_interval(),
                it.score.prompts,
                number::percent,
            ),
            counted(it.score.prompts),
            number::grouped(it.score.triplets),
        ]
    };
    const COLUMNS: [Column; 10] = [
        Column::text("Trial"),
        Column::text("Starts from"),
        Column::number("N"),
        Column::number("Pre-training tokens"),
        Column::number("Pre-training FLOPs"),
        Column::number("Fine-tuning FLOPs"),
        Column::number("Accuracy"),
        Column::number("95%"),
        Column::number("Prompts"),
        Column::number("Pairs"),
    ];
    html! {
        @if !found.is_empty() {
            h2 { "Preference accuracy against pre-training compute" }
            p { (finding(&found)) "." }
            (table(&COLUMNS, found.iter().map(row)))
        }
    }
}
