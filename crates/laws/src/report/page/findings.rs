//! Best sizes, the law in N and D, the law along curves, more policies, and predictions of what was held
//! out.

use super::elements::{Column, capitalized, minus, table};
use crate::{
    fits::{
        Fit, Interval, Parametric,
        isoflop::{Optimal, UNKNOWN_NOISE},
        parametric::{DESCRIPTION, UNDETERMINED},
    },
    report::{PolicyLoss, Report, number},
};
use maud::{Markup, html};

/// The best size of each budget, and how it grows; nothing where the sweep has no budgets.
pub(super) fn valleys(report: &Report) -> Markup {
    let found = &report.analysis;
    let bottoms = found.valleys.iter().map(|valley| {
        let (n, d) = (number::count(valley.n), number::count(valley.d));
        (
            valley.flops,
            [n, d, format!("{:.4}", valley.loss), String::new()],
        )
    });
    let without = found.no_valleys.iter().map(|without| {
        let none = || "–".to_owned();
        let reason = capitalized(&without.reason);
        (without.flops, [none(), none(), none(), reason])
    });
    let mut rows: Vec<(f64, [String; 4])> = bottoms.chain(without).collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let is_empty = rows.is_empty();
    let rows = rows.into_iter().map(|(budget, values)| {
        let budget = number::flops(budget);
        std::iter::once(budget).chain(values).collect()
    });
    const COLUMNS: [Column; 5] = [
        Column::number("Budget (FLOPs)"),
        Column::number("Best N"),
        Column::number("Tokens"),
        Column::number("Loss there"),
        Column::text("If none, why"),
    ];
    html! {
        @if !is_empty {
            h2 { "The best size of each budget" }
            (table(&COLUMNS, rows))
            @match &found.optimal {
                Fit::Fitted(laws) => { (optimal(laws)) }
                Fit::Refused(reason) => { p { "No law of the best size: " (reason) "." } }
            }
        }
    }
}

fn optimal(laws: &Optimal) -> Markup {
    let knows_noise = laws.knows_noise;
    let laws = [("N*", &laws.size), ("D*", &laws.tokens), ("L*", &laws.loss)];
    html! {
        @if !knows_noise {
            p { "Note: " (UNKNOWN_NOISE) "." }
        }
        ul {
            @for (name, law) in laws {
                li {
                    (name) " = " (number::significant(law.coefficient, 3)) " C"
                    sup { (minus(&format!("{:.3}", law.exponent))) }
                    (exponents(law.exponent_interval, 3))
                }
            }
        }
    }
}

/// The interval of an exponent as the end of a clause.
fn exponents(interval: Option<Interval>, decimals: usize) -> String {
    match number::ends(interval, |x| format!("{x:.decimals$}")) {
        ends if ends.is_empty() => ends,
        ends => minus(&format!(", exponent {ends} (95%)")),
    }
}

/// L(N, D), or why there is none.
pub(super) fn parametric(report: &Report) -> Markup {
    html! {
        h2 { "The law in N and D" }
        @match &report.analysis.parametric {
            Fit::Fitted(fit) => { (coefficients(fit, &report.analysis.outliers)) }
            Fit::Refused(reason) => { p { "Not fitted: " (reason) "." } }
        }
    }
}

fn coefficients(fit: &Parametric, outliers: &[String]) -> Markup {
    let (law, interval) = (fit.law, fit.intervals);
    let row = |name: &str, value: f64, interval: Option<Interval>| {
        let number = |x: f64| number::significant(x, 3);
        let ends = match interval {
            None => "not known".to_owned(),
            Some(_) => number::ends(interval, number),
        };
        vec![name.to_owned(), number(value), ends]
    };
    let rows = [
        row("E, irreducible", law.e, interval.e),
        row("A", law.a, interval.a),
        row("α", law.alpha, interval.alpha),
        row("B", law.b, interval.b),
        row("β", law.beta, interval.beta),
        row(
            "β / (α + β), exponent of the best N",
            fit.optimal_exponent,
            fit.optimal_exponent_interval,
        ),
    ];
    const COLUMNS: [Column; 3] = [
        Column::text("Coefficient"),
        Column::number("Value"),
        Column::number("95%"),
    ];
    html! {
        p { "L = E + A / N" sup { "α" } " + B / D" sup { "β" } ", D in tokens:" }
        (table(&COLUMNS, rows))
        @if let Some(reason) = &fit.reason {
            p {
                strong { (UNDETERMINED) ":" }
                " " (reason) ". " (DESCRIPTION) "."
            }
        }
        @if !outliers.is_empty() {
            p { "Far off it, and in it all the same: " (outliers.join(", ")) "." }
        }
    }
}

/// The law along training curves, where the sweep was made for it.
pub(super) fn envelope(report: &Report) -> Markup {
    html! {
        @if let Some(fit) = &report.analysis.envelope {
            h2 { "The law along training curves" }
            p {
                @match fit {
                    Fit::Fitted(law) => {
                        "L = " (number::significant(law.coefficient, 3)) " C"
                        sup { (minus(&format!("{:.4}", law.exponent))) }
                        (exponents(law.exponent_interval, 4))
                        ", by drawing trials; " (law.trials) " trials are lowest somewhere. \
                         Where learning rates fall at the end of a trial, its curve lies above what a shorter trial would reach."
                    }
                    Fit::Refused(reason) => { "Not fitted: " (reason) "." }
                }
            }
            @if let Some(scores) = &report.input.curve_scores {
                p.muted { (scores.text()) }
            }
        }
    }
}

/// Loss against the number of policies, where the sweep varies it.
pub(super) fn policies(report: &Report) -> Markup {
    let found = &report.analysis.by_policies;
    let loss = |of: &PolicyLoss| {
        let apart = of.distance.map(|d| format!(" ({d:.3} apart)"));
        let apart = apart.unwrap_or_default();
        format!("{}{apart}: {:.4}", of.policies, of.loss)
    };
    let rows = found.iter().map(|group| {
        let losses: Vec<String> = group.losses.iter().map(loss).collect();
        let law = match &group.law {
            Fit::Fitted(law) => minus(&format!(
                "{:.3}{}",
                law.exponent,
                number::bracketed(law.exponent_interval, 3)
            )),
            Fit::Refused(reason) => reason.clone(),
        };
        vec![group.trials.clone(), losses.join(", "), law]
    });
    const COLUMNS: [Column; 3] = [
        Column::text("Trials"),
        Column::text("Policies: loss"),
        Column::text("Exponent in policies, 95%"),
    ];
    html! {
        @if !found.is_empty() {
            h2 { "More policies" }
            p { "The same training on fewer and on more policies, scored on all of them." }
            (table(&COLUMNS, rows))
        }
    }
}

/// The largest compute, as laws saw it coming.
pub(super) fn predictions(report: &Report) -> Markup {
    let found = &report.analysis.hold_out;
    let rows = found.iter().map(|held| {
        let band = held
            .band
            .map(|band| format!("{:.4} to {:.4}", band.lo, band.hi));
        let error = 100.0 * (held.predicted / held.measured - 1.0);
        vec![
            held.law.clone(),
            held.trial.clone(),
            format!("{:.4}", held.measured),
            format!("{:.4}", held.predicted),
            minus(&format!("{error:+.1}%")),
            band.unwrap_or_default(),
        ]
    });
    const COLUMNS: [Column; 6] = [
        Column::text("Law"),
        Column::text("Trial"),
        Column::number("Measured"),
        Column::number("Predicted"),
        Column::number("Error"),
        Column::number("95% band of the law"),
    ];
    html! {
        @if !found.is_empty() {
            h3 { "The largest compute, predicted without it" }
            (table(&COLUMNS, rows))
        }
    }
}
