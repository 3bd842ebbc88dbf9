//! Intervals: two ends with a stated meaning.

use serde::{Deserialize, Serialize};

/// Normal quantile of a two-sided 95% interval.
pub(super) const Z_95: f64 = 1.959_963_984_540_054;

/// A closed interval; 95% wherever this crate reports one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub lo: f64,
    /// Upper end.
    pub hi: f64,
}

impl Interval {
    /// The central 95% of `draws`, which come in any order; `None` when there are none, or when an end is beyond all
    /// numbers: an interval that is printed has two ends.
    pub fn percentile(mut draws: Vec<f64>) -> Option<Self> {
        draws.sort_by(f64::total_cmp);
        let found = Self {
            lo: quantile(&draws, 0.025)?,
            hi: quantile(&draws, 0.975)?,
        };
        (found.lo.is_finite() && found.hi.is_finite()).then_some(found)
    }

    /// The same, stretched as far as `estimate`: resamples of few points can all lie to one side of it.
    pub(super) fn spanning(self, estimate: f64) -> Self {
        Self {
            lo: self.lo.min(estimate),
            hi: self.hi.max(estimate),
        }
    }

    /// The part of it that lies between two bounds.
    pub(super) fn within(self, lowest: f64, highest: f64) -> Self {
        Self {
            lo: self.lo.clamp(lowest, highest),
            hi: self.hi.clamp(lowest, highest),
        }
    }

    /// Both ends `factor` times as far from `estimate`.
    pub(super) fn widened(self, estimate: f64, factor: f64) -> Self {
        let moved = |end: f64| estimate + factor * (end - estimate);
        Self {
            lo: moved(self.lo),
            hi: moved(self.hi),
        }
    }

    /// Whether `value` lies inside, ends included.
    pub fn contains(&self, value: f64) -> bool {
        self.lo <= value && value <= self.hi
    }
}

/// Quantile `q` of ascending values, interpolated linearly between order statistics.
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let at = q * (sorted.len().checked_sub(1)?) as f64;
    let below = sorted[at.floor() as usize];
    let above = sorted[at.ceil() as usize];
    // Between equal values there is nothing to interpolate, even if both are infinite.
    Some(if below == above {
        below
    } else {
        below + (above - below) * at.fract()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_leaves_a_fortieth_on_each_side() {
        let draws = (0..=1000).rev().map(f64::from).collect();
        assert_eq!(
            Interval::percentile(draws),
            Some(Interval {
                lo: 25.0,
                hi: 975.0
            })
        );
        assert_eq!(Interval::percentile(Vec::new()), None);
        // What has no end is no interval.
        for wild in [f64::INFINITY, f64::NAN] {
            assert_eq!(Interval::percentile(vec![1.0, 2.0, wild, wild]), None);
        }
    }
}
