//! The law in compute along training curves: at every compute the lowest loss that any trial had reached when
//! it had spent so much. This is how the POLAR paper draws its law in compute.
//!
//! A few trials give many places, and neighbouring places belong to one trial. The intervals therefore come
//! from drawing trials, not places. A trial whose learning rate falls at its end is above its own best on the
//! way there: for the envelope, rates should stay constant after the warm-up.

use super::{
    Bootstrap, Curve, FitError, Groups, Interval, Observation, PowerLaw,
    bootstrap::small_sample_factor,
};
use serde::Serialize;

/// The law through the lower envelope of some training curves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Envelope {
    /// Places of the envelope, ascending in compute; the label is the trial that is lowest there.
    pub points: Vec<Observation>,
    /// c of L = c · C^e.
    pub coefficient: f64,
    /// e.
    pub exponent: f64,
    /// Its 95% interval, by drawing trials; `None` where nothing was resampled.
    pub exponent_interval: Option<Interval>,
    /// Share of the variance of ln L.
    pub r2: f64,
    /// Trials that are lowest somewhere.
    pub trials: usize,
}

/// Places at which the envelope is taken, evenly in ln C.
const PLACES: usize = 24;
/// Trials that must be lowest somewhere: fewer are one curve's shape, not a law.
const TRIALS: usize = 3;

impl Envelope {
    /// Fits the law to the envelope of the curves' validations.
    ///
    /// # Errors
    /// Fewer than three trials that are lowest somewhere.
    pub fn fit(curves: &[Curve], bootstrap: Bootstrap) -> Result<Envelope, FitError> {
        let tracks: Vec<Track> = curves.iter().map(Track::of).collect();
        let all: Vec<&Track> = tracks.iter().collect();
        let points = lowest(&all);
        let mut names: Vec<&str> = points.iter().map(|p| p.label.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let trials = names.len();
        if trials < TRIALS {
            return Err(FitError::TooFewPoints {
                quantity: "trials on the envelope of the training curves".into(),
                found: trials,
                needed: TRIALS,
            });
        }
        let law = PowerLaw::fit("training FLOPs", &points, Bootstrap::NONE)?;
        // Trials that are lowest nowhere are drawn as well: which ones are lowest is part of the noise.
        let groups = Groups::of_runs((0..tracks.len()).map(|i| vec![i]).collect());
        let draws = bootstrap.draws(&groups, |drawn| {
            let drawn: Vec<&Track> = drawn.iter().map(|&i| &tracks[i]).collect();
            PowerLaw::fit("training FLOPs", &lowest(&drawn), Bootstrap::NONE).ok()
        });
        let exponents = draws.iter().map(|law| law.exponent).collect();
        let at = law.exponent;
        let factor = small_sample_factor(trials, 2);
        let exponent_interval =
            Interval::percentile(exponents).map(|i| i.widened(at, factor).spanning(at));
        Ok(Envelope {
            points,
            coefficient: law.coefficient,
            exponent: law.exponent,
            exponent_interval,
            r2: law.r2,
            trials,
        })
    }

    /// Loss the law gives at `flops`.
    pub fn predict(&self, flops: f64) -> f64 {
        self.coefficient * flops.powf(self.exponent)
    }
}

/// The validations of one curve that have logarithms: FLOPs spent and loss, in order of training.
struct Track<'a> {
    trial: &'a str,
    points: Vec<(f64, f64)>,
}

impl<'a> Track<'a> {
    fn of(curve: &'a Curve) -> Self {
        let measured = curve.points.iter();
        let measured = measured.filter_map(|point| Some((point.flops, point.val_loss?)));
        let positive = |x: f64| x.is_finite() && x > 0.0;
        Self {
            trial: &curve.trial,
            points: measured
                .filter(|(x, y)| positive(*x) && positive(*y))
                .collect(),
        }
    }
}

/// The envelope, from where a second trial joins to where the last ends.
fn lowest(tracks: &[&Track]) -> Vec<Observation> {
    let mut starts: Vec<f64> = tracks
        .iter()
        .filter_map(|t| Some(t.points.first()?.0))
        .collect();
    starts.sort_by(f64::total_cmp);
    let ends = tracks.iter().filter_map(|t| Some(t.points.last()?.0));
    let (Some(&from), to) = (starts.get(1), ends.fold(0.0, f64::max)) else {
        return Vec::new();
    };
    let place = |i: usize| from * (to / from).powf(i as f64 / (PLACES - 1) as f64);
    let at = |x: f64| {
        let losses = tracks.iter().filter_map(|t| Some((t, loss(t, x)?)));
        losses.min_by(|a, b| a.1.total_cmp(&b.1))
    };
    (0..PLACES)
        .filter_map(|i| {
            let (track, loss) = at(place(i))?;
            Some(Observation {
                label: track.trial.to_owned(),
                x: place(i),
                loss,
            })
        })
        .collect()
}

/// A track's loss at a compute that it passed, by a line in logarithms between its points.
fn loss(track: &Track, flops: f64) -> Option<f64> {
    // The last place is the last point's own, but for rounding.
    let within = |a: f64, b: f64| a <= flops * (1.0 + 1e-9) && flops <= b * (1.0 + 1e-9);
    let pair = track
        .points
        .windows(2)
        .find(|pair| within(pair[0].0, pair[1].0))?;
    let [(x0, y0), (x1, y1)] = [pair[0], pair[1]].map(|(x, y)| (x.ln(), y.ln()));
    let share = ((flops.ln() - x0) / (x1 - x0)).clamp(0.0, 1.0);
    Some((y0 + share * (y1 - y0)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fits::CurvePoint;

    /// Five sizes of a law whose best use of compute gives L = c C^-0.1, each trained well past its best.
    fn planted() -> Vec<Curve> {
        (0..5)
            .map(|size| {
                let best = 1e12 * 10f64.powi(size);
                let points = (-8..=8).map(|i| {
                    let flops = best * 10f64.powf(f64::from(i) / 8.0);
                    let off = (flops / best).ln();
                    CurvePoint {
                        step: (i + 9) as u64,
                        tokens: flops,
                        flops,
                        train_loss: None,
                        val_loss: Some(20.0 * flops.powf(-0.1) * (1.0 + 0.004 * off * off)),
                        val_accuracy: None,
                    }
                });
                Curve {
                    trial: format!("size-{size}"),
                    size: size.to_string(),
                    params: 10f64.powi(size),
                    points: points.collect(),
                }
            })
            .collect()
    }

    #[test]
    fn the_envelope_of_planted_curves_has_the_planted_exponent() {
        let law = Envelope::fit(&planted(), Bootstrap::default()).unwrap();
        assert!((law.exponent + 0.1).abs() < 0.005, "{law:?}");
        assert!(law.exponent_interval.unwrap().contains(-0.1), "{law:?}");
        assert_eq!((law.trials, law.points.len()), (5, PLACES));
        assert!((law.predict(1e14) / (20.0 * 1e14f64.powf(-0.1)) - 1.0).abs() < 0.02);
    }

    #[test]
    fn two_curves_are_no_law() {
        let refusal = Envelope::fit(&planted()[..2], Bootstrap::default()).unwrap_err();
        assert!(refusal.to_string().contains("at least 3"), "{refusal}");
    }
}
