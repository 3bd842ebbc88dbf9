//! The power law with a floor, L = E + c · x^e: what remains however large x becomes.
//!
//! Least squares of ln L, as for the law without a floor, so that the two can be compared. For a given
//! exponent the law is linear in E and c: a grid of exponents is solved for those two, the best place is
//! refined in all three. A resample that shows no floor counts as one of floor zero: left out, it would make
//! every floor look sure.

use super::{
    Bootstrap, FitError, Groups, Interval, Observation,
    bootstrap::small_sample_factor,
    minimize::{least_squares, minimize, solve},
    power::{check, group_by_x},
};
use serde::Serialize;

/// Distinct x that three numbers need, and one more that could contradict them.
const DISTINCT_X: usize = 4;

/// Exponents tried, as they fall.
const GRID: [f64; 14] = [
    0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.27, 0.35, 0.45, 0.6, 0.8, 1.1, 1.6, 2.5,
];

/// The steepest fall that is a law and no step from one loss to another.
const STEEPEST: f64 = 5.0;

/// A floor so small a part of the lowest loss is none: the search walked it down as far as it went.
const NOTHING: f64 = 1e-4;

/// A fitted law L = floor + coefficient · x^exponent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Saturating {
    /// E: the loss that no x goes below.
    pub floor: f64,
    /// c.
    pub coefficient: f64,
    /// e, negative.
    pub exponent: f64,
    /// 95% interval of the floor; `None` where nothing was resampled.
    pub floor_interval: Option<Interval>,
    /// 95% interval of the exponent; `None` where nothing was resampled.
    pub exponent_interval: Option<Interval>,
    /// Sum of squared residuals of ln L.
    pub residual: f64,
    #[serde(skip)]
    draws: Vec<FlooredLaw>,
    #[serde(skip)]
    spread: f64,
}

/// (ln E, ln c at the middle of x, e): scales are positive whatever the search tries. Without a floor ln E is -∞.
#[derive(Clone, Copy, Debug, PartialEq)]
struct FlooredLaw {
    logs: [f64; 3],
    middle: f64,
}

impl FlooredLaw {
    fn at(&self, x: f64) -> f64 {
        let [floor, scale, exponent] = self.logs;
        floor.exp() + (scale + exponent * (x.ln() - self.middle)).exp()
    }

    fn floor(&self) -> f64 {
        self.logs[0].exp()
    }

    fn exponent(&self) -> f64 {
        self.logs[2]
    }
}

impl Saturating {
    /// Fits the law to `points`; `quantity` says in messages what x counts.
    ///
    /// # Errors
    /// A point without a logarithm, fewer than four distinct x, or losses that don't flatten.
    pub fn fit(
        quantity: &str,
        points: &[Observation],
        bootstrap: Bootstrap,
    ) -> Result<Saturating, FitError> {
        check(quantity, points)?;
        let groups = group_by_x(points);
        let distinct = groups.len();
        if distinct < DISTINCT_X {
            return Err(FitError::TooFewPoints {
                quantity: quantity.to_owned(),
                found: distinct,
                needed: DISTINCT_X,
            });
        }
        let logs: Vec<(f64, f64)> = points.iter().map(|p| (p.x.ln(), p.loss.ln())).collect();
        let all: Vec<usize> = (0..points.len()).collect();
        let least = points.iter().map(|p| p.loss).fold(f64::INFINITY, f64::min);
        let has_floor = |curve: &FlooredLaw| curve.floor() > NOTHING * least;
        let found = best(&logs, &all)
            .filter(|(curve, _)| has_floor(curve) && curve.exponent() > -0.98 * STEEPEST);
        let (best, residual) = found.ok_or_else(|| FitError::NoFloor {
            quantity: quantity.to_owned(),
        })?;
        let groups = Groups::of_repeats(groups);
        let draws = bootstrap.draws(&groups, |runs| match self::best(&logs, runs) {
            Some((curve, _)) if has_floor(&curve) => Some(curve),
            _ => without_floor(&logs, runs),
        });
        let spread = small_sample_factor(points.len(), 3);
        let interval = |of: fn(&FlooredLaw) -> f64| {
            let at = of(&best);
            let found = Interval::percentile(draws.iter().map(of).collect())?;
            Some(found.widened(at, spread).spanning(at))
        };
        let [_, scale, exponent] = best.logs;
        Ok(Saturating {
            floor: best.floor(),
            coefficient: (scale - exponent * best.middle).exp(),
            exponent,
            floor_interval: interval(FlooredLaw::floor).map(|i| i.within(0.0, f64::MAX)),
            exponent_interval: interval(FlooredLaw::exponent),
            residual,
            draws,
            spread,
        })
    }

    /// Loss the law gives at `x`.
    pub fn predict(&self, x: f64) -> f64 {
        self.floor + self.coefficient * x.powf(self.exponent)
    }

    /// 95% band of the law itself at `x`; `None` where nothing was resampled.
    pub fn band(&self, x: f64) -> Option<Interval> {
        let at = self.predict(x);
        let found = Interval::percentile(self.draws.iter().map(|draw| draw.at(x)).collect())?;
        Some(found.widened(at, self.spread).spanning(at))
    }
}

/// The best curve through the drawn points and its sum of squares. `None` where every floor above zero
/// makes it worse.
fn best(logs: &[(f64, f64)], drawn: &[usize]) -> Option<(FlooredLaw, f64)> {
    let middle = drawn.iter().map(|&i| logs[i].0).sum::<f64>() / drawn.len() as f64;
    let project = |exponent: f64| {
        let rows = drawn.iter().map(|&i| {
            let (x, loss) = logs[i];
            let weight = (-loss).exp();
            ([weight, (exponent * (x - middle)).exp() * weight], 1.0)
        });
        let [floor, scale] = least_squares(rows)?;
        (floor > 0.0 && scale > 0.0).then(|| [floor.ln(), scale.ln(), exponent])
    };
    let objective = |at: &[f64; 3]| {
        let (mut value, mut gradient) = (0.0, [0.0; 3]);
        if at[2] < -STEEPEST {
            return (f64::INFINITY, gradient);
        }
        for &i in drawn {
            let (x, loss) = logs[i];
            let (r, jacobian) = residual(at, x - middle, loss);
            value += r * r;
            for (g, j) in gradient.iter_mut().zip(jacobian) {
                *g += 2.0 * r * j;
            }
        }
        (value, gradient)
    };
    let starts = GRID.iter().filter_map(|exponent| project(-exponent));
    let start = starts.min_by(|a, b| objective(a).0.total_cmp(&objective(b).0))?;
    let found = minimize(start, curvature(logs, drawn, middle, &start), objective);
    let curve = FlooredLaw {
        logs: found.at,
        middle,
    };
    let is_law = found.at.iter().all(|x| x.is_finite()) && curve.exponent() < 0.0;
    is_law.then_some((curve, found.value))
}

/// The power law through the drawn points, as one of floor zero. `None` where all of them have one x.
fn without_floor(logs: &[(f64, f64)], drawn: &[usize]) -> Option<FlooredLaw> {
    let middle = drawn.iter().map(|&i| logs[i].0).sum::<f64>() / drawn.len() as f64;
    let spread = drawn.iter().map(|&i| (logs[i].0 - middle).abs());
    if spread.fold(0.0, f64::max) < 1e-9 * middle.abs().max(1.0) {
        return None;
    }
    let rows = drawn
        .iter()
        .map(|&i| ([1.0, logs[i].0 - middle], logs[i].1));
    let [scale, exponent] = least_squares(rows)?;
    Some(FlooredLaw {
        logs: [f64::NEG_INFINITY, scale, exponent],
        middle,
    })
}

/// ln of the curve at a place minus ln of the loss there, and how it moves with each variable.
fn residual(&[floor, scale, exponent]: &[f64; 3], x: f64, loss: f64) -> (f64, [f64; 3]) {
    let term = scale + exponent * x;
    let top = floor.max(term);
    let (a, b) = ((floor - top).exp(), (term - top).exp());
    let share = b / (a + b);
    let r = top + (a + b).ln() - loss;
    (r, [1.0 - share, share, share * x])
}

/// Inverse of 2JᵀJ: about how far each variable should go.
fn curvature(logs: &[(f64, f64)], drawn: &[usize], middle: f64, at: &[f64; 3]) -> [[f64; 3]; 3] {
    let mut matrix = [[0.0; 3]; 3];
    for &i in drawn {
        let (x, loss) = logs[i];
        let (_, jacobian) = residual(at, x - middle, loss);
        for (row, a) in matrix.iter_mut().zip(jacobian) {
            for (cell, b) in row.iter_mut().zip(jacobian) {
                *cell += 2.0 * a * b;
            }
        }
    }
    for (i, row) in matrix.iter_mut().enumerate() {
        row[i] = row[i] * (1.0 + 1e-9) + 1e-12;
    }
    // The inverse is symmetric, so its columns are its rows.
    std::array::from_fn(|column| {
        let unit = std::array::from_fn(|i| if i == column { 1.0 } else { 0.0 });
        solve(matrix, unit).unwrap_or(unit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fits::planted::Noise;

    /// Twelve points over four decades of L = 0.4 + 9 x^-0.3.
    fn planted(noise: f64, stream: u64) -> Vec<Observation> {
        let mut random = Noise::new(stream);
        let at = |i: i32| 1e4 * 10f64.powf(f64::from(i) / 3.0);
        (0..12)
            .map(|i| Observation {
                label: format!("run-{i}"),
                x: at(i),
                loss: (0.4 + 9.0 * at(i).powf(-0.3)) * (noise * random.normal()).exp(),
            })
            .collect()
    }

    #[test]
    fn a_floor_without_noise_is_recovered() {
        let law = Saturating::fit("C", &planted(0.0, 0), Bootstrap::default()).unwrap();
        for (found, planted) in [
            (law.floor, 0.4),
            (law.coefficient, 9.0),
            (law.exponent, -0.3),
        ] {
            assert!((found / planted - 1.0).abs() < 1e-4, "{law:?}");
        }
        assert!((law.predict(1e12) - 0.4 - 9.0 * 1e12f64.powf(-0.3)).abs() < 1e-5);
    }

    #[test]
    fn intervals_hold_a_planted_floor_and_exponent_as_often_as_they_claim() {
        let (mut floor, mut exponent) = (0, 0);
        for stream in 0..400 {
            let bootstrap = Bootstrap {
                resamples: 300,
                seed: stream,
            };
            let law = Saturating::fit("C", &planted(0.01, stream), bootstrap).unwrap();
            floor += usize::from(law.floor_interval.unwrap().contains(0.4));
            exponent += usize::from(law.exponent_interval.unwrap().contains(-0.3));
        }
        assert!(
            (372..=388).contains(&floor),
            "E: {floor} of 400, {exponent}"
        );
        assert!((372..=388).contains(&exponent), "e: {exponent} of 400");
    }

    #[test]
    fn a_floor_that_the_points_hardly_show_may_be_zero() {
        let mut hits = 0;
        for stream in 0..100 {
            // The floor is a tenth of the lowest loss, the noise a third of that.
            let mut random = Noise::new(stream);
            let mut points = planted(0.0, 0);
            for point in &mut points {
                let loss = 0.04 + 9.0 * point.x.powf(-0.3);
                point.loss = loss * (0.03 * random.normal()).exp();
            }
            let bootstrap = Bootstrap {
                resamples: 200,
                seed: stream,
            };
            // Where no floor is found none is claimed.
            let law = Saturating::fit("C", &points, bootstrap);
            hits += usize::from(law.is_ok_and(|law| law.floor_interval.unwrap().lo > 0.04));
        }
        assert!(
            hits <= 5,
            "the floor is shut out by {hits} of 100 intervals"
        );
    }

    #[test]
    fn losses_that_do_not_flatten_have_no_floor() {
        let mut steeper = planted(0.0, 0);
        for point in &mut steeper {
            point.loss = (1.0 - 0.005 * point.x.ln().powi(2)).exp();
        }
        let refusal = Saturating::fit("C", &steeper, Bootstrap::default()).unwrap_err();
        assert!(refusal.to_string().contains("don't flatten"), "{refusal}");
        // A step from one loss to another is no law, however well a steep one goes through it.
        let mut step = planted(0.0, 0);
        for (at, point) in step.iter_mut().enumerate() {
            point.loss = if at < 1 { 4.0 } else { 2.0 };
        }
        let refusal = Saturating::fit("C", &step, Bootstrap::default()).unwrap_err();
        assert!(refusal.to_string().contains("don't flatten"), "{refusal}");
        let few = &planted(0.0, 0)[..3];
        let refusal = Saturating::fit("C", few, Bootstrap::default()).unwrap_err();
        assert!(refusal.to_string().contains("at least 4"), "{refusal}");
    }
}
