//! Loss by pair of policies, as a heat map.

use super::length::basis;
use super::model::{Body, Cell, Figure, Grid, Key, Legend};
use super::palette::{GRID, heat};
use crate::report::{Discrimination, Pair, Report, number};

/// Loss at which the scale ends: chance is a third of it, and what is worse than twice chance and more is all one colour.
const WORST: f64 = 2.0;
/// Losses whose colours the legend names.
const NAMED: [f64; 7] = [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, WORST];

/// The figure of one held-out set; `None` with fewer than two policies.
pub(super) fn pairs(report: &Report, found: &Discrimination, name: &'static str) -> Option<Figure> {
    let policies = found.policies();
    if policies.len() < 2 {
        return None;
    }
    let cells = policies.iter().map(|policy| {
        let row = policies.iter().map(|other| {
            let mut pairs = found.pairs.iter();
            let pair = pairs.find(|pair| pair.policy == *policy && pair.other == *other)?;
            Some(cell(pair))
        });
        row.collect()
    });
    let mut legend = Legend::default();
    legend.add(Key::Heading, "mean loss (chance: 0.69)");
    for loss in NAMED {
        let more = if loss == WORST { " and more" } else { "" };
        let text = format!("{}{more}", number::significant(loss, 2));
        legend.add(Key::Cell(heat(loss / WORST)), text);
    }
    legend.add(Key::Cell(GRID), "no triplet");
    let which = match found.by_family {
        true => " (families with the most triplets)",
        false => "",
    };
    let what = match found.by_family {
        true => {
            " Families of policies: what stands before the first | or @, those with the most triplets."
        }
        false => "",
    };
    Some(Figure {
        name,
        title: format!("Loss by pair of policies, {}", found.set),
        badge: report.progress(),
        finding: format!(
            "{}; rows: policy of reference and positive, columns: of the negative{which}",
            found.trial
        ),
        caption: format!(
            "A dark cell is a pair that the model can't distinguish; few triplets make a noisy cell, so point at it before believing it.{what}"
        ),
        body: Body::Grid(Grid {
            names: policies.iter().map(|&name| name.to_owned()).collect(),
            cells: cells.collect(),
        }),
        legend,
        notes: Vec::new(),
        source: report.source(),
    })
}

fn cell(pair: &Pair) -> Cell {
    Cell {
        color: heat(pair.loss / WORST),
        reading: format!(
            "{} against {}\nloss {:.3}, accuracy {}\n{}",
            pair.policy,
            pair.other,
            pair.loss,
            number::percent(pair.accuracy),
            basis(pair.triplets, pair.prompts)
        ),
    }
}
