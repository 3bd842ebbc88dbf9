//! What the noise of runs makes of the bottoms of their budgets.
//!
//! A run lies off its budget's curve by its noise. Each resample keeps all runs where they are and turns the noise of
//! some of them round, a training with all its checkpoints in whatever budgets, and finds the bottoms again. Drawing
//! runs with replacement would leave sizes out, and with them the valleys.

use super::{
    Bottom, Budget, Method, Run, Valley, interpolated, lowest, parabola, reach, sizes, tokens,
    valley,
};
use crate::fits::{
    Bootstrap, bootstrap::small_sample_factor, minimize::least_squares, power::PointNoise,
};

/// Below this share of a run's noise being visible beside its curve, none of it is.
const LEAST_VISIBLE: f64 = 1e-6;

/// Resamples of which this share has all bottoms speak for all of them.
const ENOUGH: f64 = 0.9;

/// The budgets that have a bottom, with the noise of their runs.
pub(super) struct Noise {
    curves: Vec<Curve>,
    /// One more than the largest number of a training.
    trainings: usize,
    spread: f64,
}

/// A budget's curve and what lies off it.
struct Curve {
    flops: f64,
    method: Method,
    /// The curve at each size that it goes through.
    sizes: Vec<Run>,
    /// Off the curve.
    runs: Vec<Deviation>,
}

/// How far a run lies off its curve.
struct Deviation {
    /// Place of its size.
    size: usize,
    training: usize,
    /// Of loss; as large as noise is, not as what of it a curve leaves to be seen.
    noise: f64,
}

impl Noise {
    /// `None` where a curve goes through all its runs, which then say nothing of their noise.
    pub(super) fn of(budgets: &[Budget], method: Method) -> Option<Self> {
        let with_bottom = budgets
            .iter()
            .filter(|budget| valley(budget, method).is_ok());
        let curves = with_bottom.map(|budget| Curve::of(budget, method));
        let curves: Vec<Curve> = curves.collect::<Option<_>>()?;
        let runs: usize = curves.iter().map(|curve| curve.runs.len()).sum();
        let parameters = curves.iter().map(|curve| match method {
            Method::Parabola => 3,
            Method::Akima => curve.sizes.len(),
        });
        let all = budgets.iter().flat_map(|budget| &budget.trainings);
        Some(Self {
            spread: small_sample_factor(runs, parameters.sum()),
            trainings: all.max()? + 1,
            curves,
        })
    }

    /// The bottoms of every resample; `None` where many have none: the valleys are too flat for their noise.
    pub(super) fn draws(&self, bootstrap: Bootstrap) -> Option<Draws> {
        let bottoms = |signs: Vec<f64>| -> Option<Vec<Valley>> {
            let curves = self.curves.iter();
            curves.map(|curve| curve.drawn(&signs)).collect()
        };
        let signs = bootstrap.signs(self.trainings);
        let valleys: Vec<Vec<Valley>> = signs.filter_map(bottoms).collect();
        let enough = ENOUGH * bootstrap.resamples as f64;
        (valleys.len() as f64 >= enough).then_some(Draws {
            valleys,
            spread: self.spread,
        })
    }
}

/// Bottoms of all budgets, resample by resample.
pub(super) struct Draws {
    valleys: Vec<Vec<Valley>>,
    spread: f64,
}

impl Draws {
    /// The noise of one quantity of the bottoms.
    pub(super) fn of_points(&self, of: fn(&Valley) -> f64) -> PointNoise {
        let logs = |valleys: &Vec<Valley>| valleys.iter().map(|v| of(v).ln()).collect();
        PointNoise {
            draws: self.valleys.iter().map(logs).collect(),
            spread: self.spread,
        }
    }
}

impl Curve {
    fn of(budget: &Budget, method: Method) -> Option<Self> {
        let all = sizes(budget);
        let near = match method {
            Method::Parabola => all[reach(&all, lowest(&all))].to_vec(),
            Method::Akima => all,
        };
        let fitted = match method {
            Method::Parabola => through(&near)?,
            Method::Akima => near.iter().map(|size| size.loss).collect(),
        };
        let leverages = match method {
            Method::Parabola => leverages(&near)?,
            Method::Akima => vec![1.0; near.len()],
        };
        let place = |run: &Run| near.iter().position(|size| size.n == run.n);
        let mut repeats = vec![0_u32; near.len()];
        for size in budget.runs.iter().filter_map(place) {
            repeats[size] += 1;
        }
        let mut runs = Vec::new();
        for (run, &training) in budget.runs.iter().zip(&budget.trainings) {
            let Some(size) = place(run) else {
                continue;
            };
            // Of the variance of a run's noise, what is left beside a curve that was drawn to its size's mean.
            let visible = 1.0 - leverages[size] / f64::from(repeats[size]);
            if visible < LEAST_VISIBLE {
                return None;
            }
            let noise = (run.loss - fitted[size]) / visible.sqrt();
            runs.push(Deviation {
                size,
                training,
                noise,
            });
        }
        let on_curve = near
            .iter()
            .zip(&fitted)
            .map(|(&size, &loss)| Run { loss, ..size });
        Some(Self {
            flops: budget.flops,
            method,
            sizes: on_curve.collect(),
            runs,
        })
    }

    /// The bottom where the noise of each training has another sign.
    fn drawn(&self, signs: &[f64]) -> Option<Valley> {
        let mut noise = vec![(0.0, 0.0); self.sizes.len()];
        for run in &self.runs {
            let (sum, count) = &mut noise[run.size];
            *sum += signs[run.training] * run.noise;
            *count += 1.0;
        }
        let sizes = self.sizes.iter().zip(&noise);
        let sizes: Vec<Run> = sizes
            .map(|(size, (sum, count))| Run {
                loss: size.loss + sum / count,
                ..*size
            })
            .collect();
        let bottom = match self.method {
            // Through the sizes that it went through, wherever the lowest loss is now.
            Method::Parabola => parabola(&sizes, self.middle()),
            Method::Akima => match lowest(&sizes) {
                at if at > 0 && at + 1 < sizes.len() => interpolated(&sizes, at),
                _ => return None,
            },
        };
        let Bottom {
            x,
            loss,
            curvature,
            sizes: count,
        } = bottom.ok()?;
        let valley = Valley {
            flops: self.flops,
            n: x.exp(),
            d: tokens(&sizes, x),
            loss,
            curvature,
            sizes: count,
        };
        (loss > 0.0).then_some(valley)
    }

    /// A place from which the parabola reaches all sizes.
    fn middle(&self) -> usize {
        self.sizes.len() / 2
    }
}

/// The parabola in ln N through some sizes, at each of them.
fn through(sizes: &[Run]) -> Option<Vec<f64>> {
    let middle = sizes[sizes.len() / 2].n.ln();
    let powers = |size: &Run| {
        let x = size.n.ln() - middle;
        [1.0, x, x * x]
    };
    let [height, slope, bend] = least_squares(sizes.iter().map(|size| (powers(size), size.loss)))?;
    let at = |size: &Run| {
        let [one, x, square] = powers(size);
        height * one + slope * x + bend * square
    };
    Some(sizes.iter().map(at).collect())
}

/// How much of itself each size makes the parabola follow: 1 where it goes through it whatever it is.
fn leverages(sizes: &[Run]) -> Option<Vec<f64>> {
    let of = |size: usize| {
        let unit = |(at, run): (usize, &Run)| Run {
            loss: f64::from(u8::from(at == size)),
            ..*run
        };
        let alone: Vec<Run> = sizes.iter().enumerate().map(unit).collect();
        Some(through(&alone)?[size])
    };
    (0..sizes.len()).map(of).collect()
}

#[cfg(test)]
mod tests;
