//! The power law L = c · x^e: least squares of ln L on ln x, with bootstrap intervals.
//!
//! On planted laws with log-normal noise the 95% intervals hold the true exponent in 93 to 96 of 100 cases for 3 to 16
//! points of one run each, and in 98 or more with three runs a point: resampling points and seeds counts the seeds'
//! noise twice, which errs on the cautious side.

mod measured;

pub(super) use measured::PointNoise;

use serde::{Deserialize, Serialize};

use super::bootstrap::{Bootstrap, Groups, small_sample_factor};
use super::interval::Interval;

/// Distinct x that a fit needs: two determine the line, the third is what could contradict it.
const DISTINCT_X: usize = 3;

/// One loss at one x (parameters, FLOPs, tokens …).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Name of the trial, for messages.
    pub label: String,
    /// The scaled quantity; runs of equal x count as repetitions of one point.
    pub x: f64,
    /// Loss in nats.
    pub loss: f64,
}

/// Why a power law was not fitted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FitError {
    /// Too few different x.
    #[error(
        "this law needs at least {needed} different values of {quantity}, and there {} {found}: add trials at other values",
        if *found == 1 { "is" } else { "are" }
    )]
    TooFewPoints {
        /// What x counts, e.g. `parameters`.
        quantity: String,
        /// Distinct x at hand.
        found: usize,
        /// Distinct x it takes.
        needed: usize,
    },
    /// No floor above zero makes the fit better.
    #[error(
        "the losses don't flatten over these {quantity}, so nothing is known of a floor; the power law without one says all they say"
    )]
    NoFloor {
        /// What x counts.
        quantity: String,
    },
    /// The law can't be written down.
    #[error(
        "the line through these points is so steep (exponent {exponent:.1}) that its value at {quantity} = 1 is no number; is this the right column?"
    )]
    TooSteep {
        /// What x counts.
        quantity: String,
        /// The line's slope.
        exponent: f64,
    },
    /// A logarithm can't be taken.
    #[error(
        "{label}: {quantity} = {x} and loss = {loss} must both be finite and above zero; leave this point out or repeat the trial"
    )]
    NotPositive {
        /// The trial.
        label: String,
        /// What x counts.
        quantity: String,
        /// Its x.
        x: f64,
        /// Its loss.
        loss: f64,
    },
}

/// A fitted law L = coefficient · x^exponent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PowerLaw {
    /// c: the loss the law gives at x = 1.
    pub coefficient: f64,
    /// e: negative when loss falls with x.
    pub exponent: f64,
    /// Share of the variance of ln L that the law explains; 0 when the losses don't vary.
    pub r2: f64,
    /// Sum of squared residuals of ln L, weighted.
    pub residual: f64,
    /// 95% interval of the coefficient; `None` where nothing was resampled.
    pub coefficient_interval: Option<Interval>,
    /// 95% interval of the exponent; `None` where nothing was resampled.
    pub exponent_interval: Option<Interval>,
    /// What was fitted.
    pub points: Vec<Observation>,
    /// (ln c, e) of every resample, already spread for the small sample.
    #[serde(skip)]
    draws: Vec<Line>,
}

/// ln L = intercept + slope · ln x.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    intercept: f64,
    slope: f64,
}

impl Line {
    fn at(&self, x: f64) -> f64 {
        (self.intercept + self.slope * x.ln()).exp()
    }

    /// Another line, `factor` times as far from this one.
    fn spread(&self, other: Self, factor: f64) -> Self {
        Self {
            intercept: self.intercept + factor * (other.intercept - self.intercept),
            slope: self.slope + factor * (other.slope - self.slope),
        }
    }
}

impl PowerLaw {
    /// Fits the law to `points`; `quantity` says in messages what x counts.
    ///
    /// # Errors
    /// A point without a logarithm, named, or fewer than three distinct x.
    pub fn fit(
        quantity: &str,
        points: &[Observation],
        bootstrap: Bootstrap,
    ) -> Result<Self, FitError> {
        Self::fit_weighted(quantity, points, &vec![1.0; points.len()], bootstrap)
    }

    /// As [`PowerLaw::fit`], each squared residual counting with its weight: one over the square of a standard
    /// deviation of ln y, say.
    ///
    /// # Errors
    /// As [`PowerLaw::fit`].
    pub fn fit_weighted(
        quantity: &str,
        points: &[Observation],
        weights: &[f64],
        bootstrap: Bootstrap,
    ) -> Result<Self, FitError> {
        let groups = Groups::of_repeats(group_by_x(points));
        Self::fit_grouped(quantity, points, weights, &groups, bootstrap)
    }

    /// As [`PowerLaw::fit_weighted`] where it is known which points belong together, such as checkpoints of one run.
    ///
    /// # Errors
    /// As [`PowerLaw::fit`].
    pub fn fit_grouped(
        quantity: &str,
        points: &[Observation],
        weights: &[f64],
        groups: &Groups,
        bootstrap: Bootstrap,
    ) -> Result<Self, FitError> {
        check(quantity, points)?;
        let distinct = group_by_x(points).len();
        let logs: Vec<Weighted> = points
            .iter()
            .zip(weights)
            .map(|(point, &weight)| (point.x.ln(), point.loss.ln(), weight))
            .collect();
        let line = if distinct < DISTINCT_X {
            None
        } else {
            least_squares(logs.iter().copied())
        };
        let Some(line) = line else {
            return Err(FitError::TooFewPoints {
                quantity: quantity.to_owned(),
                found: distinct,
                needed: DISTINCT_X,
            });
        };
        let coefficient = line.intercept.exp();
        if !coefficient.is_normal() {
            return Err(FitError::TooSteep {
                quantity: quantity.to_owned(),
                exponent: line.slope,
            });
        }

        let spread = small_sample_factor(groups.witnesses(points.len()), 2);
        let mut draws = bootstrap.draws(groups, |runs| {
            least_squares(runs.iter().map(|&run| logs[run]))
        });
        for draw in &mut draws {
            *draw = line.spread(*draw, spread);
        }
        let law = Self {
            coefficient,
            exponent: line.slope,
            r2: explained(&logs, line),
            residual: residual(&logs, line),
            coefficient_interval: None,
            exponent_interval: None,
            points: points.to_vec(),
            draws: Vec::new(),
        };
        Ok(law.drawn(line, draws))
    }

    /// The law with these draws, already spread, and the intervals that they make.
    fn drawn(self, line: Line, draws: Vec<Line>) -> Self {
        let interval = |of: fn(&Line) -> f64| {
            let found = Interval::percentile(draws.iter().map(of).collect())?;
            Some(found.spanning(of(&line)))
        };
        Self {
            coefficient_interval: interval(|draw| draw.intercept.exp()),
            exponent_interval: interval(|draw| draw.slope),
            draws,
            ..self
        }
    }

    /// Loss the law gives at `x`.
    pub fn predict(&self, x: f64) -> f64 {
        self.coefficient * x.powf(self.exponent)
    }

    /// 95% band of the law itself at `x` (not of a single further run, which also has its own noise). `None` where
    /// nothing was resampled.
    pub fn band(&self, x: f64) -> Option<Interval> {
        let found = Interval::percentile(self.draws.iter().map(|draw| draw.at(x)).collect())?;
        Some(found.spanning(self.predict(x)))
    }

    /// What to know before trusting a law of losses, as a sentence; `unit` names its x.
    pub fn caution(&self, unit: &str) -> Option<String> {
        let reach = self.exponent_interval.map_or(self.exponent, |i| i.hi);
        (reach >= 0.0).then(|| {
            format!(
                "The 95% interval of the exponent reaches {reach:.4}: these points do not show that loss falls with {unit}."
            )
        })
    }
}

/// Whether every point has logarithms.
pub(super) fn check(quantity: &str, points: &[Observation]) -> Result<(), FitError> {
    let usable = |value: f64| value.is_finite() && value > 0.0;
    let bad = points
        .iter()
        .find(|point| !usable(point.x) || !usable(point.loss));
    match bad {
        None => Ok(()),
        Some(bad) => Err(FitError::NotPositive {
            label: bad.label.clone(),
            quantity: quantity.to_owned(),
            x: bad.x,
            loss: bad.loss,
        }),
    }
}

/// Indices of equal x, ascending in x.
pub(super) fn group_by_x(points: &[Observation]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| points[a].x.total_cmp(&points[b].x));
    order
        .chunk_by(|&a, &b| points[a].x == points[b].x)
        .map(<[usize]>::to_vec)
        .collect()
}

/// (ln x, ln y, weight).
type Weighted = (f64, f64, f64);

/// The least-squares line, or `None` when all x coincide.
fn least_squares(logs: impl Iterator<Item = Weighted> + Clone) -> Option<Line> {
    let n: f64 = logs.clone().map(|(_, _, w)| w).sum();
    let (sum_x, sum_y) = logs
        .clone()
        .fold((0.0, 0.0), |(sx, sy), (x, y, w)| (sx + w * x, sy + w * y));
    let (mean_x, mean_y) = (sum_x / n, sum_y / n);
    let (sxx, sxy) = logs.fold((0.0, 0.0), |(sxx, sxy), (x, y, w)| {
        let dx = x - mean_x;
        (sxx + w * dx * dx, sxy + w * dx * (y - mean_y))
    });
    // Rounding leaves equal x a spread of some ulps; a real one is many orders larger.
    (sxx > 1e-18 * n * (1.0 + mean_x * mean_x)).then(|| {
        let slope = sxy / sxx;
        Line {
            intercept: mean_y - slope * mean_x,
            slope,
        }
    })
}

/// R² of `line` in log-log space.
fn explained(logs: &[Weighted], line: Line) -> f64 {
    let weights: f64 = logs.iter().map(|(_, _, w)| w).sum();
    let mean = logs.iter().map(|(_, y, w)| w * y).sum::<f64>() / weights;
    let total: f64 = logs.iter().map(|(_, y, w)| w * (y - mean).powi(2)).sum();
    if total > 0.0 {
        1.0 - residual(logs, line) / total
    } else {
        0.0
    }
}

/// What `line` leaves over.
fn residual(logs: &[Weighted], line: Line) -> f64 {
    let squares = logs
        .iter()
        .map(|(x, y, w)| w * (y - line.intercept - line.slope * x).powi(2));
    squares.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fits::planted::Noise;

    const EXPONENT: f64 = -0.08;

    /// `sizes` points over two decades, `seeds` runs each, with log-normal noise of standard deviation `noise`.
    fn planted(sizes: usize, seeds: usize, noise: f64, stream: u64) -> Vec<Observation> {
        let mut random = Noise::new(stream);
        let at = |size: usize| 1e4 * 100f64.powf(size as f64 / (sizes - 1) as f64);
        (0..sizes * seeds)
            .map(|run| {
                let x = at(run / seeds);
                Observation {
                    label: format!("run-{run}"),
                    x,
                    loss: 1.3 * x.powf(EXPONENT) * (noise * random.normal()).exp(),
                }
            })
            .collect()
    }

    fn covered(sizes: usize, seeds: usize) -> usize {
        (0..400)
            .filter(|&stream| {
                let points = planted(sizes, seeds, 0.01, stream);
                let law = PowerLaw::fit(
                    "parameters",
                    &points,
                    Bootstrap {
                        resamples: 400,
                        seed: stream,
                    },
                )
                .unwrap();
                let coefficient = law.coefficient_interval.unwrap();
                law.exponent_interval.unwrap().contains(EXPONENT)
                    && coefficient.contains(law.coefficient)
            })
            .count()
    }

    #[test]
    fn intervals_cover_a_planted_exponent_about_as_often_as_they_claim() {
        for sizes in [3, 4, 6, 12] {
            let hits = covered(sizes, 1);
            assert!((372..=388).contains(&hits), "{sizes} sizes: {hits} of 400");
        }
        // Resampling points and seeds both errs on the cautious side.
        assert!(covered(5, 3) >= 372);
    }

    #[test]
    fn a_law_without_noise_is_recovered_exactly() {
        let law =
            PowerLaw::fit("parameters", &planted(4, 2, 0.0, 0), Bootstrap::default()).unwrap();
        assert!((law.exponent - EXPONENT).abs() < 1e-12 && (law.coefficient - 1.3).abs() < 1e-10);
        assert!((law.r2 - 1.0).abs() < 1e-12);
        assert!((law.predict(1e9) - 1.3 * 1e9f64.powf(EXPONENT)).abs() < 1e-10);
        let width = |interval: Option<Interval>| interval.map(|i| i.hi - i.lo).unwrap();
        assert!(width(law.band(1e9)) < 1e-10 && width(law.exponent_interval) < 1e-10);
    }

    #[test]
    fn equal_inputs_give_equal_laws_and_the_band_holds_the_line() {
        let points = planted(5, 1, 0.02, 3);
        let fit = || PowerLaw::fit("parameters", &points, Bootstrap::default()).unwrap();
        assert_eq!(fit(), fit());
        let law = fit();
        for x in [1e4, 1e5, 1e6, 1e8] {
            assert!(law.band(x).unwrap().contains(law.predict(x)));
        }
        let width = |x| law.band(x).map(|band| band.hi - band.lo).unwrap();
        assert!(width(1e9) > width(1e5));
        let unsampled = PowerLaw::fit("parameters", &points, Bootstrap::NONE).unwrap();
        assert_eq!(
            (unsampled.exponent_interval, unsampled.band(1e9)),
            (None, None)
        );
    }

    #[test]
    fn refusals_say_what_is_needed_and_name_the_point() {
        let two = planted(2, 5, 0.01, 0);
        let refusal = PowerLaw::fit("parameters", &two, Bootstrap::default()).unwrap_err();
        assert_eq!(
            refusal,
            FitError::TooFewPoints {
                quantity: "parameters".into(),
                found: 2,
                needed: 3
            }
        );
        assert!(
            refusal
                .to_string()
                .contains("at least 3 different values of parameters")
        );

        for loss in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
            let mut points = planted(4, 1, 0.01, 0);
            points[2].loss = loss;
            let refusal = PowerLaw::fit("FLOPs", &points, Bootstrap::default()).unwrap_err();
            assert!(refusal.to_string().starts_with("run-2: FLOPs"), "{refusal}");
        }
    }
}
