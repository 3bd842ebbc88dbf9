//! Whether runs can determine L(N, D) at all, whatever their losses are, and whether a resample of them still can.

use super::ParametricError;
use crate::fits::{Run, buckets::classes};

const FEWEST: usize = 8;

/// E, A and α are three numbers, and so are E, B and β.
const FEWEST_VALUES: usize = 3;

/// Sizes and lengths closer than this are one to a law.
const ALIKE: f64 = 0.01;

/// Lengths that follow the sizes to within this, in ln D, say of N and D together what they do and of neither alone.
const IN_STEP: f64 = 0.05;

/// Losses that differ by less, in ln L, are one.
const FLAT: f64 = 1e-6;

/// Which of the runs have the same size and which the same length.
pub(super) struct Design {
    sizes: Vec<usize>,
    lengths: Vec<usize>,
}

impl Design {
    /// Looks at runs.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub(super) fn of(runs: &[Run]) -> Result<Self, ParametricError> {
        check_numbers(runs)?;
        if runs.len() < FEWEST {
            return Err(ParametricError::TooFew(runs.len()));
        }
        let values = |of: fn(&Run) -> f64| runs.iter().map(of).collect::<Vec<f64>>();
        let design = Self {
            sizes: classes(&values(|r| r.n), ALIKE),
            lengths: classes(&values(|r| r.d), ALIKE),
        };
        for (quantity, other, more, classes) in [
            ("N", "D", "sizes", &design.sizes),
            ("D", "N", "lengths", &design.lengths),
        ] {
            let found = classes.iter().max().map_or(0, |last| last + 1);
            if found < FEWEST_VALUES {
                return Err(ParametricError::FewValues {
                    quantity,
                    other,
                    more,
                    found,
                });
            }
        }
        let logs = values(|r| r.loss.ln());
        let (least, most) = logs
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), &x| {
                (lo.min(x), hi.max(x))
            });
        if most - least < FLAT {
            return Err(ParametricError::Flat(runs[0].loss));
        }
        match step(runs) {
            Some(exponent) => Err(ParametricError::InStep(exponent)),
            None => Ok(design),
        }
    }

    /// Whether a resample has enough different sizes and lengths.
    pub(super) fn determines(&self, drawn: &[usize]) -> bool {
        has_several(&self.sizes, drawn) && has_several(&self.lengths, drawn)
    }
}

fn has_several(classes: &[usize], drawn: &[usize]) -> bool {
    let mut seen: [Option<usize>; FEWEST_VALUES] = [None; FEWEST_VALUES];
    for &at in drawn {
        let class = Some(classes[at]);
        if seen.contains(&class) {
            continue;
        }
        match seen.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = class,
            None => return true,
        }
    }
    seen.iter().all(Option::is_some)
}

fn check_numbers(runs: &[Run]) -> Result<(), ParametricError> {
    let usable = |x: f64| x.is_finite() && x > 0.0;
    for (i, run) in runs.iter().enumerate() {
        let &Run { n, d, loss } = run;
        if !(usable(n) && usable(d) && usable(loss)) {
            let row = i + 1;
            return Err(ParametricError::NotPositive { row, n, d, loss });
        }
    }
    Ok(())
}

/// The exponent with which D follows N, if it does. Where D falls as N grows, as at one budget, losses have a bottom
/// and tell the two apart.
fn step(runs: &[Run]) -> Option<f64> {
    let count = runs.len() as f64;
    let mean = |of: fn(&Run) -> f64| runs.iter().map(|r| of(r).ln()).sum::<f64>() / count;
    let (n, d) = (mean(|r| r.n), mean(|r| r.d));
    let (mut nn, mut nd, mut dd) = (0.0, 0.0, 0.0);
    for run in runs {
        let (x, y) = (run.n.ln() - n, run.d.ln() - d);
        nn += x * x;
        nd += x * y;
        dd += y * y;
    }
    let exponent = nd / nn;
    let left = ((dd - exponent * nd).max(0.0) / count).sqrt();
    // Lengths that hardly differ from each other follow nothing.
    let follows = left < 0.1 * (dd / count).sqrt();
    (exponent > 0.0 && follows && left < IN_STEP).then_some(exponent)
}
