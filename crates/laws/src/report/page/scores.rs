//! How trials do on held-out triplets, how sure that is, and what of the texts they were shown.

use super::elements::{Column, capitalized, minus, table};
use crate::{
    fits::Interval,
    report::{CutTexts, Discrimination, LengthBand, PairedDifference, Report, Validation, number},
};
use maud::{Markup, html};
use polestar_core::{Clustered, cluster::FEWEST_CLUSTERS};

/// An interval, or why there is none.
pub(super) fn interval(
    found: Option<Interval>,
    prompts: Option<u64>,
    end: fn(f64) -> String,
) -> String {
    match (found, prompts) {
        (Some(Interval { lo, hi }), _) => format!("{} to {}", end(lo), end(hi)),
        (None, None) => "prompts unknown".to_owned(),
        (None, Some(_)) => "too few prompts".to_owned(),
    }
}

pub(super) fn counted(prompts: Option<u64>) -> String {
    prompts.map_or_else(|| "–".to_owned(), number::grouped)
}

fn nats(loss: f64) -> String {
    format!("{loss:.4}")
}

/// Every trial on every set.
pub(super) fn validation(report: &Report) -> Markup {
    let input = &report.input;
    let row = |row: &Validation| {
        vec![
            row.trial.clone(),
            row.set.clone(),
            nats(row.loss),
            interval(row.loss_interval(), row.prompts, nats),
            number::percent(row.accuracy),
            interval(row.accuracy_interval(), row.prompts, number::percent),
            counted(row.prompts),
            number::grouped(row.triplets),
        ]
    };
    const COLUMNS: [Column; 8] = [
        Column::text("Trial"),
        Column::text("Set"),
        Column::number("Loss"),
        Column::number("95%"),
        Column::number("Accuracy"),
        Column::number("95%"),
        Column::number("Prompts"),
        Column::number("Triplets"),
    ];
    let baselines = input
        .baselines
        .iter()
        .map(|(name, accuracy)| vec![name.clone(), number::percent(*accuracy)]);
    const BASELINE: [Column; 2] = [Column::text("Baseline"), Column::number("Accuracy")];
    let of_old = input.validation.iter().any(|row| row.prompts.is_none());
    html! {
        @if !input.validation.is_empty() || !input.baselines.is_empty() {
            h2 { "Validation" }
        }
        @if !input.validation.is_empty() {
            p.muted {
                "Triplets of one prompt are alike, so intervals go by prompts: Student's, with the standard error of the jackknife that \
                 leaves out one prompt at a time; of accuracy Wilson's, with as many triplets as would be worth as much if they were \
                 independent. Fewer than " (FEWEST_CLUSTERS) " prompts give none."
            }
            (table(&COLUMNS, input.validation.iter().map(row)))
            @if of_old {
                p {
                    "Where prompts are unknown, an older version took the scores and didn't count them; remove the trial's "
                    code { "results" } " and launch again to have it scored anew."
                }
            }
        }
        (paired(&input.paired))
        @if !input.baselines.is_empty() {
            p { "Discriminators without training, on the same task; chance is 50%:" }
            (table(&BASELINE, baselines))
        }
        (length(&input.discriminations))
    }
}

/// Every other trial against the best one.
fn paired(found: &[PairedDifference]) -> Markup {
    let row = |of: &PairedDifference| {
        let signed = |value: f64| minus(&format!("{value:+.4}"));
        let points = |value: f64| minus(&format!("{:+.1}", 100.0 * value));
        let ends = |of: Clustered, end: fn(f64) -> String| match of.interval() {
            Some(i) => minus(&format!("{} to {}", end(i.lo), end(i.hi))),
            None => "too few prompts".to_owned(),
        };
        vec![
            of.trials[0].clone(),
            signed(of.loss.mean),
            ends(of.loss, |x| format!("{x:+.4}")),
            points(of.accuracy.mean),
            ends(of.accuracy, |x| format!("{:+.1}", 100.0 * x)),
            number::grouped(of.loss.clusters as u64),
            number::grouped(of.loss.observations as u64),
        ]
    };
    const COLUMNS: [Column; 7] = [
        Column::text("Trial"),
        Column::number("Loss, more"),
        Column::number("95%"),
        Column::number("Accuracy, more (points)"),
        Column::number("95%"),
        Column::number("Prompts"),
        Column::number("Triplets"),
    ];
    html! {
        @if let Some(first) = found.first() {
            h3 { "Against the best on the same triplets" }
            p.muted {
                "How much more each trial has than " (first.trials[1]) " on " (first.set) ", triplet by triplet, by prompt: what \
                 is hard for one is hard for the other, so a difference is far surer than two intervals side by side."
            }
            (table(&COLUMNS, found.iter().map(row)))
        }
    }
}

/// Accuracy by what length says.
fn length(found: &[Discrimination]) -> Markup {
    let row = |set: &str, band: &LengthBand| {
        vec![
            set.to_owned(),
            band.length.clone(),
            number::percent(band.accuracy),
            interval(band.accuracy_95, band.prompts, number::percent),
            counted(band.prompts),
            number::grouped(band.triplets),
        ]
    };
    let rows = found.iter().flat_map(|of| {
        let bands = of.length.bands.iter();
        bands.map(move |band| row(&of.set, band))
    });
    const COLUMNS: [Column; 6] = [
        Column::text("Set"),
        Column::text("Length is"),
        Column::number("Accuracy"),
        Column::number("95%"),
        Column::number("Prompts"),
        Column::number("Triplets"),
    ];
    let cut = found.iter().filter_map(|of| {
        let text = of.length.cut?.of_lengths()?;
        Some(format!("{}: {text}", of.set))
    });
    html! {
        @if let Some(first) = found.first() {
            h3 { "Where length is right, wrong, and silent" }
            p.muted {
                (first.trial) ", by whether the candidate whose length is nearer to the reference's is the right one."
            }
            (table(&COLUMNS, rows))
            @for text in cut {
                p { strong { (capitalized(&text)) "." } }
            }
        }
    }
}

/// What of the texts is cut off.
pub(super) fn cutting(report: &Report) -> Markup {
    let row = |of: &CutTexts| {
        vec![
            of.data.clone(),
            number::percent(of.prompts.share()),
            number::grouped(of.prompts.all),
            number::percent(of.answers.share()),
            number::grouped(of.answers.all),
            number::grouped(of.triplets),
        ]
    };
    const COLUMNS: [Column; 6] = [
        Column::text("Data"),
        Column::number("Prompts cut"),
        Column::number("of"),
        Column::number("Answers cut"),
        Column::number("of"),
        Column::number("Triplets"),
    ];
    html! {
        @if let Some(cutting) = &report.input.cutting {
            h3 { "What was cut" }
            p.muted {
                "A prompt keeps its last " (number::grouped(cutting.max_prompt)) " tokens, an answer its first "
                (number::grouped(cutting.max_response)) ". Counted on the first triplets of training and of each set; \
                 a text that is in several of them counts once."
            }
            (table(&COLUMNS, cutting.texts.iter().map(row)))
        }
    }
}
