//! Compute and sizes of a table as the grid that they were meant as: achieved FLOPs differ from their budget by a
//! rounding of steps, and parameters by what is counted.

use super::{Quantity, Table};
use crate::fits::buckets::Buckets;

/// Achieved compute lies this near to its neighbours of one budget.
const BUDGET: f64 = 0.02;

/// Parameters of one size lie this near to each other.
const SIZE: f64 = 1e-3;

/// Sizes that make a budget one of an isoFLOP grid.
const SIZES: usize = 3;

/// What rows are taken for.
#[derive(Clone, Debug, Default)]
pub(super) struct Grid {
    /// C of each row, or its budget.
    pub(super) c: Option<Vec<f64>>,
    /// N of each row, or its size.
    pub(super) n: Option<Vec<f64>>,
    /// Whether C are budgets that several rows share.
    pub(super) has_budgets: bool,
    /// Whether most rows are of budgets with three sizes and more.
    pub(super) is_isoflop: bool,
    /// What was taken for one and isn't quite, a sentence each.
    pub(super) notes: Vec<String>,
}

impl Grid {
    pub(super) fn of(table: &Table) -> Self {
        let mut notes = Vec::new();
        let sizes = table.column(Quantity::N).map(|n| {
            let near = Buckets::near(n, SIZE).unwrap_or_else(|| Buckets::exact(n));
            if near.spread > 0.0 {
                notes.push(note("N", &near, "sizes"));
            }
            near
        });
        let mut grid = Self {
            n: sizes.as_ref().map(Buckets::values),
            ..Self::default()
        };
        if let Some(c) = table.column(Quantity::C) {
            let exact = Buckets::exact(c);
            let near = Buckets::near(c, BUDGET);
            let near = near.filter(|near| is_isoflop(near, sizes.as_ref()));
            let budgets = match near {
                Some(near) if !is_isoflop(&exact, sizes.as_ref()) => {
                    notes.push(note("C", &near, "budgets"));
                    near
                }
                _ => exact,
            };
            grid.has_budgets = budgets.middles.len() < c.len();
            grid.is_isoflop = is_isoflop(&budgets, sizes.as_ref());
            grid.c = Some(budgets.values());
        }
        grid.notes = notes;
        grid
    }

    /// Whether sizes go up and down as compute grows: models of many sizes, of which no row is a best one.
    pub(super) fn is_of_models(&self) -> bool {
        /// A best size that is measured with noise may fall a little, now and then.
        const FALL: f64 = 0.8;
        const FALLS: usize = 5;
        let (Some(c), Some(n)) = (&self.c, &self.n) else {
            return false;
        };
        let mut order: Vec<usize> = (0..c.len()).collect();
        order.sort_by(|&a, &b| c[a].total_cmp(&c[b]));
        let falls = order
            .windows(2)
            .filter(|pair| n[pair[1]] < FALL * n[pair[0]]);
        FALLS * falls.count() > c.len()
    }
}

fn note(quantity: &str, buckets: &Buckets, what: &str) -> String {
    format!(
        "{quantity} differs by up to {:.2}% between rows that are taken for one; there are {} {what}, each counted as its mean",
        100.0 * buckets.spread,
        buckets.middles.len()
    )
}

/// Whether half of the rows and more are of budgets at which several sizes compete.
fn is_isoflop(budgets: &Buckets, sizes: Option<&Buckets>) -> bool {
    let Some(sizes) = sizes else {
        return false;
    };
    let mut of_budget: Vec<Vec<usize>> = vec![Vec::new(); budgets.middles.len()];
    for (&budget, &size) in budgets.of.iter().zip(&sizes.of) {
        of_budget[budget].push(size);
    }
    let competing = of_budget.into_iter().map(|mut sizes| {
        let rows = sizes.len();
        sizes.sort_unstable();
        sizes.dedup();
        if sizes.len() < SIZES { 0 } else { rows }
    });
    2 * competing.sum::<usize>() >= budgets.of.len()
}
