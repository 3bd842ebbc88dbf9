//! The two laws, and what they may be compared with.

use super::elements::{capitalized, list, minus};
use crate::{
    fits::{Fit, FormComparison, PowerLaw, compare},
    report::{Quantity, ScalingLaw, number, paper},
};
use maud::{Markup, html};

/// A law, what it predicts, and what to know before trusting it.
pub(super) fn card(law: &ScalingLaw) -> Markup {
    html! {
        section.law {
            h3 {
                @match law.quantity {
                    Quantity::Parameters => { "Loss against model parameters N" }
                    Quantity::Compute => { "Loss against training compute C" }
                }
            }
            @match &law.fit {
                Fit::Fitted(fit) => { (fitted(law.quantity, fit)) }
                Fit::Refused(reason) => {
                    p.formula { "No law yet" }
                    p { (capitalized(reason)) "." }
                }
            }
            @if let Some(comparison) = &law.comparison { (forms(comparison)) }
            @if !law.selection.cautions.is_empty() { (list(&law.selection.cautions)) }
        }
    }
}

fn fitted(quantity: Quantity, fit: &PowerLaw) -> Markup {
    let symbol = quantity.symbol();
    let coefficient = number::significant(fit.coefficient, 3);
    let exponent = minus(&format!("{:.4}", fit.exponent));
    let exponents = number::ends(fit.exponent_interval, |x| minus(&format!("{x:.4}")));
    let coefficients = number::ends(fit.coefficient_interval, |x| number::significant(x, 3));
    let largest = fit.points.iter().map(|point| point.x).fold(0.0, f64::max);
    let ahead = 10.0 * largest;
    let predicted = fit.predict(ahead);
    let band = number::bracketed(fit.band(ahead), 3);
    html! {
        p.formula { "L = " (coefficient) " " (symbol) sup { (exponent) } }
        p {
            @if !exponents.is_empty() {
                "Exponent " (exponents) ", coefficient " (coefficients) " (95%); "
            }
            "R² " (format!("{:.3}", fit.r2)) " over " (fit.points.len()) " points."
        }
        p.muted {
            "Ten times beyond the data, at " (symbol) " = " (quantity.value(ahead)) ", it gives "
            (format!("{predicted:.3}{band}."))
        }
    }
}

/// The law with a floor, and which of the two the points speak for.
fn forms(compared: &FormComparison) -> Markup {
    let best = compared.standings.first();
    let weighed = best.and_then(|best| Some((best.form, best.weight?)));
    html! {
        p.muted {
            @match &compared.saturating {
                Fit::Fitted(law) => {
                    "With a floor it is " (number::significant(law.floor, 3))
                    @if law.floor_interval.is_some() {
                        " (" (number::ends(law.floor_interval, |x| number::significant(x, 3))) ")"
                    }
                    ", exponent " (minus(&format!("{:.3}", law.exponent)))
                    (minus(&number::bracketed(law.exponent_interval, 3))) "."
                }
                Fit::Refused(reason) => { "With a floor: " (reason) "." }
            }
            @if let Some((form, weight)) = weighed {
                " Akaike's criterion speaks for the law "
                @if form == compare::FLOOR { "with" } @else { "without" }
                (format!(" it (weight {weight:.2})."))
            }
        }
    }
}

/// What to know before comparing with the published laws.
pub(super) fn paper() -> Markup {
    let [params, compute] = [paper::BY_PARAMS.text("N"), paper::BY_COMPUTE.text("C")];
    let law = |text: &str| text.trim_start_matches("POLAR paper: ").to_owned();
    html! {
        section.note {
            h3 { "Before comparing with the POLAR paper" }
            p {
                "The paper (arXiv 2507.05197) states L = " (law(&params)) " and L = " (law(&compute)) "."
            }
            (list(paper::WARNING))
        }
    }
}
