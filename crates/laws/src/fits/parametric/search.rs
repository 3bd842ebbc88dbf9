//! The search for the law that is best for some runs.
//!
//! For given α and β the law is linear in E, A and B. A grid over (α, β) is searched by solving those three for what is
//! nowhere negative (variable projection, weighted so that residuals are relative); the best places are then refined in
//! all five variables by [`minimize`] with the analytic gradient of the Huber loss. The grid finds the valley whatever
//! the start, the refinement its bottom.
//!
//! A resample looks around in the same grid, and besides begins at the law of all runs. That alone would not do: where
//! E has gone to zero the slope along ln E is zero too, and no search that begins there ever leaves.

use super::Coefficients;
use crate::fits::{
    Run,
    minimize::{Minimum, minimize, solve},
};

/// Residuals of ln L beyond this count by their size rather than by its square: a tenth of a percent.
pub const HUBER: f64 = 1e-3;

/// The steepest exponent that is looked for, several times as steep as any that was measured.
pub(super) const STEEPEST: f64 = 5.0;

/// Exponents tried: from a law that is all but flat to one steeper than any that was measured.
const GRID: [f64; 12] = [
    0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.65, 0.9, 1.3,
];

/// Places of the grid that are refined.
const REFINED: usize = 6;

/// Places of the grid that a resample looks at more closely.
const LOOKED_AT: usize = 4;

/// A part of the law that is nothing at a start is given this share of the loss, so that it can grow.
const LIFTED: f64 = 0.01;

/// A part smaller than this share of the loss has gone to zero.
const NOTHING: f64 = 1e-6;

/// (ln of A's part at the middle N, ln of B's part at the middle D, ln E, α, β): parts are positive whatever the search
/// tries, and the exponents turn the law about its middle.
pub(super) type Place = [f64; 5];

/// Runs in the form in which the law is fitted.
pub(super) struct Search {
    rows: Vec<Row>,
    /// ln N and ln D that rows are relative to.
    middle: [f64; 2],
    /// Mean of ln L.
    loss: f64,
    /// For each exponent of the grid and each row N^-α / L.
    sizes: Vec<Vec<f64>>,
    /// D^-β / L.
    lengths: Vec<Vec<f64>>,
}

/// Logarithms, of N and D relative to their middles.
#[derive(Clone, Copy)]
struct Row {
    n: f64,
    d: f64,
    loss: f64,
}

/// Rows that were drawn, each once, with how often.
struct Sample<'a> {
    search: &'a Search,
    rows: Vec<(usize, f64)>,
}

impl Search {
    pub(super) fn of(runs: &[Run]) -> Self {
        let mean = |of: fn(&Run) -> f64| {
            runs.iter().map(|run| of(run).ln()).sum::<f64>() / runs.len() as f64
        };
        let middle = [mean(|r| r.n), mean(|r| r.d)];
        let row = |run: &Run| Row {
            n: run.n.ln() - middle[0],
            d: run.d.ln() - middle[1],
            loss: run.loss.ln(),
        };
        let rows: Vec<Row> = runs.iter().map(row).collect();
        let powers = |of: fn(&Row) -> f64| {
            let power = |exponent: &f64| {
                let row = |row: &Row| (-exponent * of(row) - row.loss).exp();
                rows.iter().map(row).collect()
            };
            GRID.iter().map(power).collect()
        };
        Self {
            middle,
            loss: mean(|r| r.loss),
            sizes: powers(|row| row.n),
            lengths: powers(|row| row.d),
            rows,
        }
    }

    /// The best law of all runs.
    pub(super) fn best(&self) -> Option<Minimum<5>> {
        let sample = self.sample(0..self.rows.len());
        let mut starts: Vec<(f64, Place)> = sample
            .starts()
            .into_iter()
            .map(|(_, at)| (sample.objective(&at).0, at))
            .collect();
        starts.retain(|(value, _)| value.is_finite());
        starts.sort_by(|a, b| a.0.total_cmp(&b.0));
        starts.truncate(REFINED);
        let minima = starts.into_iter().map(|(_, at)| {
            let first = sample.minimum(at);
            // Once more with the curvature at the bottom: Huber's loss bends at every point.
            sample.minimum(first.at)
        });
        lowest(minima)
    }

    /// The best law of a resample, given the place of the law of all runs.
    pub(super) fn again(&self, drawn: &[usize], best: Place) -> Option<Minimum<5>> {
        let sample = self.sample(drawn.iter().copied());
        let mut starts = sample.starts();
        starts.sort_by(|a, b| a.0.total_cmp(&b.0));
        starts.truncate(LOOKED_AT);
        let around = starts
            .into_iter()
            .map(|(_, at)| (sample.objective(&at).0, at))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let starts = around.map(|(_, at)| at).into_iter().chain([best]);
        let found = lowest(starts.map(|at| sample.minimum(at)))?;
        lowest([sample.minimum(found.at)].into_iter())
    }

    /// A place as a law.
    pub(super) fn law(&self, [a, b, e, alpha, beta]: Place) -> Coefficients {
        let [n, d] = self.middle;
        Coefficients {
            e: if e - self.loss < NOTHING.ln() {
                0.0
            } else {
                e.exp()
            },
            a: (a + alpha * n).exp(),
            b: (b + beta * d).exp(),
            alpha,
            beta,
        }
    }

    fn sample(&self, drawn: impl Iterator<Item = usize>) -> Sample<'_> {
        let mut times = vec![0.0; self.rows.len()];
        drawn.for_each(|at| times[at] += 1.0);
        let rows = times.into_iter().enumerate();
        Sample {
            search: self,
            rows: rows.filter(|(_, times)| *times > 0.0).collect(),
        }
    }
}

fn lowest(minima: impl Iterator<Item = Minimum<5>>) -> Option<Minimum<5>> {
    minima
        .filter(|m| m.value.is_finite() && m.at.iter().all(|x| x.is_finite()))
        .min_by(|a, b| a.value.total_cmp(&b.value))
}

impl Sample<'_> {
    fn minimum(&self, at: Place) -> Minimum<5> {
        minimize(at, self.curvature(&at), |at| self.objective(at))
    }

    /// Sum of Huber losses of ln L, and its gradient.
    fn objective(&self, at: &Place) -> (f64, Place) {
        let (mut value, mut gradient) = (0.0, [0.0; 5]);
        let within = |exponent: f64| (0.0..=STEEPEST).contains(&exponent);
        if !(within(at[3]) && within(at[4])) {
            return (f64::INFINITY, gradient);
        }
        let e = at[2].exp();
        for &(row, times) in &self.rows {
            let row = &self.search.rows[row];
            let (shares, sum) = parts(row, at, e);
            let r = sum - row.loss;
            let slope = r.clamp(-HUBER, HUBER);
            value += times * slope * (r - 0.5 * slope);
            for (g, j) in gradient.iter_mut().zip(jacobian(row, shares)) {
                *g += times * slope * j;
            }
        }
        (value, gradient)
    }

    /// Inverse of JᵀWJ, W being Huber's weights: about how far each variable should go.
    fn curvature(&self, at: &Place) -> [Place; 5] {
        let mut matrix = [[0.0; 5]; 5];
        let e = at[2].exp();
        for &(row, times) in &self.rows {
            let row = &self.search.rows[row];
            let (shares, sum) = parts(row, at, e);
            let r = (sum - row.loss).abs();
            let weight = times * if r > HUBER { HUBER / r } else { 1.0 };
            let j = jacobian(row, shares);
            for (row, x) in matrix.iter_mut().zip(j) {
                for (cell, y) in row.iter_mut().zip(j) {
                    *cell += weight * x * y;
                }
            }
        }
        for (i, row) in matrix.iter_mut().enumerate() {
            row[i] *= 1.0 + 1e-9;
            row[i] += 1e-12;
        }
        // The inverse is symmetric, so its columns are its rows.
        std::array::from_fn(|column| {
            let unit = std::array::from_fn(|i| if i == column { 1.0 } else { 0.0 });
            solve(matrix, unit).unwrap_or(unit)
        })
    }

    /// A place for each pair of exponents of the grid, and what squares of relative residuals it leaves over.
    fn starts(&self) -> Vec<(f64, Place)> {
        let Search { sizes, lengths, .. } = self.search;
        let inverse: Vec<f64> = self.search.rows.iter().map(|r| (-r.loss).exp()).collect();
        let ones = vec![1.0; inverse.len()];
        let sum = |a: &[f64], b: &[f64]| {
            let products = self.rows.iter().map(|&(at, times)| times * a[at] * b[at]);
            products.sum::<f64>()
        };
        let moments = |column: &Vec<f64>| Moments {
            square: sum(column, column),
            by_e: sum(column, &inverse),
            right: sum(column, &ones),
        };
        let e = moments(&inverse);
        let all = sum(&ones, &ones);
        let by_d: Vec<Moments> = lengths.iter().map(moments).collect();
        let mut starts = Vec::with_capacity(GRID.len() * GRID.len());
        for (column, alpha) in sizes.iter().zip(GRID) {
            let n = moments(column);
            for ((other, d), beta) in lengths.iter().zip(&by_d).zip(GRID) {
                let both = sum(column, other);
                let matrix = [
                    [n.square, both, n.by_e],
                    [both, d.square, d.by_e],
                    [n.by_e, d.by_e, e.square],
                ];
                let right = [n.right, d.right, e.right];
                if let Some((gained, parts)) = nonnegative(matrix, right) {
                    let [a, b, e] = parts.map(|part| self.lifted(part));
                    starts.push((all - gained, [a, b, e, alpha, beta]));
                }
            }
        }
        starts
    }

    /// ln of a part of the law, made large enough to be felt.
    fn lifted(&self, part: f64) -> f64 {
        part.max(LIFTED * self.search.loss.exp()).ln()
    }
}

/// Sums of products of a column with itself, with the column of E, and with the right side.
struct Moments {
    square: f64,
    by_e: f64,
    right: f64,
}

/// The least squares solution without negative parts, and by how much it lowers the sum of squares. `None` where two
/// parts would have to go.
fn nonnegative(matrix: [[f64; 3]; 3], right: [f64; 3]) -> Option<(f64, [f64; 3])> {
    let gained = |x: [f64; 3]| x.iter().zip(right).map(|(x, r)| x * r).sum::<f64>();
    if let Some(x) = solve(matrix, right).filter(|x| x.iter().all(|part| *part > 0.0)) {
        return Some((gained(x), x));
    }
    let without = |gone: usize| {
        let [i, j] = [(gone + 1) % 3, (gone + 2) % 3];
        let reduced = [[matrix[i][i], matrix[i][j]], [matrix[j][i], matrix[j][j]]];
        let [x, y] = solve(reduced, [right[i], right[j]])?;
        let mut parts = [0.0; 3];
        (parts[i], parts[j]) = (x, y);
        (x > 0.0 && y > 0.0).then(|| (gained(parts), parts))
    };
    let found = (0..3).filter_map(without);
    found.max_by(|a, b| a.0.total_cmp(&b.0))
}

/// The law's three parts for one row as shares of their sum, and ln of that.
fn parts(row: &Row, &[a, b, _, alpha, beta]: &Place, e: f64) -> ([f64; 3], f64) {
    let [a, b] = [(a - alpha * row.n).exp(), (b - beta * row.d).exp()];
    let sum = a + b + e;
    let share = 1.0 / sum;
    ([a * share, b * share, e * share], sum.ln())
}

/// How ln L moves with each variable.
fn jacobian(row: &Row, [a, b, e]: [f64; 3]) -> Place {
    [a, b, e, -a * row.n, -b * row.d]
}
