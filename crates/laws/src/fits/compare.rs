//! Which of two forms of a law the points speak for: by Akaike's criterion, corrected for few points, and
//! by how well each predicts the points at the largest x without having seen them.

use super::{Bootstrap, Fit, Observation, PowerLaw, Saturating};
use serde::Serialize;

/// The law without a floor beside the one with it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FormComparison {
    /// Each form that could be fitted, best first.
    pub standings: Vec<Standing>,
    /// The law with a floor.
    pub saturating: Fit<Saturating>,
}

/// How a form did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// The form, as a formula.
    pub form: &'static str,
    /// Numbers that were fitted.
    pub parameters: usize,
    /// Akaike's criterion with the correction for few points; `None` if there are too few for it.
    pub aicc: Option<f64>,
    /// Probability that it is the best of those compared (Akaike weight).
    pub weight: Option<f64>,
    /// |predicted / measured - 1| at the largest x, of a fit that hasn't seen it.
    pub held_out: Option<f64>,
}

/// L = c x^e.
pub const POWER: &str = "c x^e";
/// L = E + c x^e.
pub const FLOOR: &str = "E + c x^e";

impl FormComparison {
    /// Sets a fitted power law against the law with a floor on the same points.
    pub fn with_floor(quantity: &str, law: &PowerLaw, bootstrap: Bootstrap) -> FormComparison {
        let points = &law.points;
        let (known, unknown) = without_largest(points);
        let error = |predict: &dyn Fn(f64) -> f64| {
            let errors = unknown.iter().map(|p| predict(p.x) / p.loss - 1.0);
            let error = (errors.sum::<f64>() / unknown.len() as f64).abs();
            error.is_finite().then_some(error)
        };
        let power = PowerLaw::fit(quantity, &known, Bootstrap::NONE).ok();
        let mut standings = vec![Standing {
            form: POWER,
            parameters: 2,
            aicc: aicc(law.residual, points.len(), 2),
            weight: None,
            held_out: power.and_then(|law| error(&|x| law.predict(x))),
        }];
        let fitted = Saturating::fit(quantity, points, bootstrap);
        if let Ok(law) = &fitted {
            let unseen = Saturating::fit(quantity, &known, Bootstrap::NONE).ok();
            standings.push(Standing {
                form: FLOOR,
                parameters: 3,
                aicc: aicc(law.residual, points.len(), 3),
                weight: None,
                held_out: unseen.and_then(|law| error(&|x| law.predict(x))),
            });
        }
        weigh(&mut standings);
        FormComparison {
            standings,
            saturating: fitted.into(),
        }
    }
}

/// The points at the largest x, apart from the others.
fn without_largest(points: &[Observation]) -> (Vec<Observation>, Vec<Observation>) {
    let largest = points.iter().map(|p| p.x).fold(0.0, f64::max);
    points.iter().cloned().partition(|p| p.x < largest)
}

/// Of a least-squares fit with normal residuals: their deviation is one more number that was fitted.
fn aicc(residual: f64, points: usize, parameters: usize) -> Option<f64> {
    let (n, k) = (points as f64, (parameters + 1) as f64);
    let left = n - k - 1.0;
    // What rounding leaves over of an exact fit says nothing.
    let variance = (residual / n).max(1e-24);
    (left > 0.0).then(|| n * variance.ln() + 2.0 * k + 2.0 * k * (k + 1.0) / left)
}

fn weigh(standings: &mut [Standing]) {
    // One without a criterion can't be set against the others.
    if standings.len() > 1 && standings.iter().all(|s| s.aicc.is_some()) {
        let least = standings.iter().filter_map(|s| s.aicc);
        let least = least.fold(f64::INFINITY, f64::min);
        let likely = |s: &Standing| s.aicc.map_or(0.0, |aicc| (0.5 * (least - aicc)).exp());
        let sum: f64 = standings.iter().map(likely).sum();
        for standing in standings.iter_mut() {
            standing.weight = Some(likely(standing) / sum);
        }
        standings.sort_by(|a, b| {
            b.weight
                .partial_cmp(&a.weight)
                .unwrap_or(std::cmp::Ordering::Equal)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fits::planted::Noise;

    fn points(floor: f64) -> Vec<Observation> {
        let mut random = Noise::new(5);
        (0..12)
            .map(|i| {
                let x = 1e4 * 10f64.powf(f64::from(i) / 3.0);
                Observation {
                    label: format!("run-{i}"),
                    x,
                    loss: (floor + 9.0 * x.powf(-0.3)) * (0.003 * random.normal()).exp(),
                }
            })
            .collect()
    }

    #[test]
    fn the_form_that_was_planted_wins() {
        for (floor, best) in [(0.4, FLOOR), (0.0, POWER)] {
            let law = PowerLaw::fit("C", &points(floor), Bootstrap::default()).unwrap();
            let compared = FormComparison::with_floor("C", &law, Bootstrap::default());
            let first = &compared.standings[0];
            assert_eq!(first.form, best, "{compared:?}");
            assert!(compared.standings.len() == 1 || first.weight.unwrap() > 0.5);
            assert!(first.held_out.unwrap() < 0.03);
        }
    }
}
