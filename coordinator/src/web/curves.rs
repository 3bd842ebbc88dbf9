//! Curves in as many points as a picture can show.

use super::api::{CurvePoint, CurveView, ScoredPoint};
use polestar_core::{Step, TrialId};
use polestar_run::metrics::Row;
use std::collections::BTreeMap;

/// Points of a trial's curve in a picture of all of them.
pub(super) const SMALL: usize = 160;
/// Points of a curve that has a picture of its own.
pub(super) const LARGE: usize = 800;

/// Steps that are kept as they come, of each trial that trains. Beyond it, every other one is dropped.
const MOST_LIVE: usize = 4096;

/// Steps of a trial as they were reported, before they are in the store.
#[derive(Clone, Debug, Default)]
pub(super) struct LiveCurve {
    points: BTreeMap<Step, CurvePoint>,
}

impl LiveCurve {
    /// Adds a step. One that is done again, by a generation that resumed before it, is the same.
    pub(super) fn add(&mut self, point: CurvePoint) {
        self.points.insert(point.step, point);
        if self.points.len() > MOST_LIVE {
            let mut stays = false;
            self.points.retain(|_, _| {
                stays = !stays;
                stays
            });
        }
    }

    /// The newest step.
    pub(super) fn last(&self) -> Option<&CurvePoint> {
        self.points.values().next_back()
    }

    /// Steps after this one.
    fn after(&self, step: Step) -> impl Iterator<Item = CurvePoint> + '_ {
        let later = self.points.values();
        later.filter(move |point| point.step > step).copied()
    }
}

/// What the store has of a trial's curve.
#[derive(Clone, Debug, Default)]
pub(super) struct StoredCurve {
    points: Vec<CurvePoint>,
    scored: Vec<ScoredPoint>,
}

impl StoredCurve {
    /// From a trial's metrics.
    pub(super) fn of(rows: Vec<Row>) -> StoredCurve {
        let mut curve = StoredCurve::default();
        for row in rows {
            curve.points.push(CurvePoint {
                step: row.step,
                loss: row.loss,
                accuracy: row.accuracy,
            });
            if !row.validation.is_empty() {
                curve.scored.push(ScoredPoint {
                    step: row.step,
                    scores: row.validation,
                });
            }
        }
        curve
    }

    /// With what came since, in at most so many points.
    pub(super) fn view(&self, trial: &TrialId, live: Option<&LiveCurve>, most: usize) -> CurveView {
        let last = self.points.last().map_or(Step(0), |point| point.step);
        let mut points = self.points.clone();
        points.extend(live.into_iter().flat_map(|live| live.after(last)));
        CurveView {
            trial: trial.clone(),
            points: thin(&points, most),
            scored: self.scored.clone(),
        }
    }
}

/// At most about so many points: each the mean of the steps since the one before. The first step is one of them.
pub(super) fn thin(points: &[CurvePoint], most: usize) -> Vec<CurvePoint> {
    let Some((first, rest)) = points.split_first() else {
        return Vec::new();
    };
    let window = rest.len().div_ceil(most).max(1);
    let means = rest.chunks(window).map(|window| {
        let count = window.len() as f64;
        let accuracies = window.iter().map(|point| point.accuracy);
        let accuracies: Option<f64> = accuracies.sum();
        CurvePoint {
            step: window[window.len() - 1].step,
            loss: window.iter().map(|point| point.loss).sum::<f64>() / count,
            accuracy: accuracies.map(|sum| sum / count),
        }
    });
    std::iter::once(*first).chain(means).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(step: u64) -> CurvePoint {
        CurvePoint {
            step: Step(step),
            loss: step as f64,
            accuracy: None,
        }
    }

    #[test]
    fn a_long_curve_keeps_its_ends_and_its_mean() {
        let points: Vec<CurvePoint> = (1..=10_001).map(point).collect();
        let thinned = thin(&points, 100);
        assert_eq!(thinned.len(), 101);
        assert_eq!(
            (thinned[0].step, thinned[100].step),
            (Step(1), Step(10_001))
        );
        assert_eq!(thinned[1].loss, (2..=101).sum::<u64>() as f64 / 100.0);
        assert_eq!(thin(&points[..3], 100), points[..3]);

        let mut live = LiveCurve::default();
        points.iter().for_each(|&point| live.add(point));
        assert!(live.points.len() <= MOST_LIVE);
        let stored = StoredCurve {
            points: points[..9_000].to_vec(),
            scored: Vec::new(),
        };
        let all = stored.view(&TrialId("t".to_owned()), Some(&live), usize::MAX);
        assert!(all.points.len() > 9_000 && all.points.is_sorted_by_key(|point| point.step));
    }
}
