//! IsoFLOP valleys: for each compute budget the size at which loss is lowest, by a parabola through the
//! losses near the lowest one, in ln N.

use serde::Serialize;

/// The loss of a model of one size, trained with one budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Compute.
    pub flops: f64,
    /// Parameters.
    pub n: f64,
    /// Loss in nats.
    pub loss: f64,
}

/// The bottom of one budget's losses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Valley {
    /// The budget.
    pub flops: f64,
    /// Parameters at the bottom.
    pub n: f64,
    /// Loss there.
    pub loss: f64,
    /// Half the second derivative of loss by ln N: how sure the place of the bottom is.
    pub curvature: f64,
    /// Sizes that the parabola went through.
    pub sizes: usize,
}

/// A budget without a bottom, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NoValley {
    /// The budget.
    pub flops: f64,
    /// A sentence: what is missing.
    pub reason: String,
}

/// Sizes on each side of the lowest loss that the parabola goes through: further away a valley is no
/// parabola any more.
const REACH: usize = 3;

/// The valley of every budget, ascending, and the budgets that have none.
pub fn valleys(cells: &[Cell]) -> (Vec<Valley>, Vec<NoValley>) {
    let mut cells = cells.to_vec();
    cells.sort_by(|a, b| a.flops.total_cmp(&b.flops).then(a.n.total_cmp(&b.n)));
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    for budget in cells.chunk_by(|a, b| a.flops == b.flops) {
        match valley(budget) {
            Ok(valley) => found.push(valley),
            Err(reason) => refused.push(NoValley {
                flops: budget[0].flops,
                reason,
            }),
        }
    }
    (found, refused)
}

fn valley(budget: &[Cell]) -> Result<Valley, String> {
    if budget.len() < 3 {
        let sizes = budget.len();
        return Err(format!(
            "{sizes} sizes determine no parabola; train at least 3"
        ));
    }
    let by_loss = |(_, a): &(usize, &Cell), (_, b): &(usize, &Cell)| a.loss.total_cmp(&b.loss);
    let lowest = budget.iter().enumerate().min_by(by_loss);
    let at = lowest.map_or(0, |(at, _)| at);
    if at == 0 || at + 1 == budget.len() {
        let (edge, more) = match at {
            0 => ("smallest", "smaller"),
            _ => ("largest", "larger"),
        };
        return Err(format!(
            "loss is lowest at the {edge} size, {:.3e}; train {more} ones",
            budget[at].n
        ));
    }
    let near = &budget[at.saturating_sub(REACH)..(at + REACH + 1).min(budget.len())];
    // Around the lowest point, so that the three sums of powers are of one size.
    let middle = budget[at].n.ln();
    let rows = near.iter().map(|cell| {
        let x = cell.n.ln() - middle;
        ([1.0, x, x * x], cell.loss)
    });
    let solved = super::minimize::least_squares(rows);
    let [height, slope, curvature] = solved.ok_or("all runs have the same size")?;
    if curvature <= 0.0 {
        return Err("its losses bend downwards: they are too noisy, or too close together".into());
    }
    let x = -slope / (2.0 * curvature);
    let n = (middle + x).exp();
    if n < near[0].n || n > near[near.len() - 1].n {
        return Err("the parabola's bottom lies outside the sizes that were trained".into());
    }
    Ok(Valley {
        flops: budget[0].flops,
        n,
        loss: height + slope * x / 2.0,
        curvature,
        sizes: near.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(flops: f64, best: f64, sizes: std::ops::Range<i32>) -> Vec<Cell> {
        let cell = |i: i32| {
            let n = 1e6 * 2f64.powi(i);
            let loss = 2.0 + 0.03 * (n / best).ln().powi(2);
            Cell { flops, n, loss }
        };
        sizes.map(cell).collect()
    }

    #[test]
    fn a_parabola_is_found_again() {
        let mut cells = budget(1e18, 5e6, 0..6);
        cells.extend(budget(1e19, 2e7, 1..8));
        let (found, refused) = valleys(&cells);
        assert!(refused.is_empty());
        for (valley, best) in found.iter().zip([5e6, 2e7]) {
            assert!((valley.n / best - 1.0).abs() < 1e-9, "{valley:?}");
            assert!((valley.loss - 2.0).abs() < 1e-9 && (valley.curvature - 0.03).abs() < 1e-9);
        }
    }

    #[test]
    fn a_budget_without_a_bottom_is_refused_with_what_would_help() {
        let reason = |cells: &[Cell]| valleys(cells).1.remove(0).reason;
        assert!(reason(&budget(1.0, 1e9, 0..5)).contains("train larger ones"));
        assert!(reason(&budget(1.0, 1e3, 0..5)).contains("train smaller ones"));
        assert!(reason(&budget(1.0, 2e6, 0..2)).contains("at least 3"));
    }
}
