//! The bootstrap every law shares: which observations each resample contains.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::interval::Z_95;

/// How many resamples, and from which seed; equal settings give equal draws on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Number of resamples that a fit is repeated on.
    pub resamples: usize,
    /// Seed of the ChaCha8 stream.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            resamples: 2_000,
            seed: 0,
        }
    }
}

/// Observations by what a resample draws together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    members: Vec<Vec<usize>>,
    is_whole: bool,
}

impl Groups {
    /// Runs that differ in their seed only, group by group. As many groups as there are are drawn with replacement, and
    /// within each drawn group as many runs as it has, so both the choice of points and the noise of a seed enter the
    /// spread.
    pub fn of_repeats(members: Vec<Vec<usize>>) -> Self {
        let is_whole = false;
        Self { members, is_whole }
    }

    /// Checkpoints of one run, run by run. They share its seed and its data, so a run is drawn with all of them.
    pub fn of_runs(members: Vec<Vec<usize>>) -> Self {
        let is_whole = true;
        Self { members, is_whole }
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// How many of `observations` are independent: runs, where checkpoints of them are drawn, else each.
    pub(super) fn witnesses(&self, observations: usize) -> usize {
        match self.is_whole {
            true => self.len(),
            false => observations,
        }
    }

    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let mut resample = Vec::new();
        for _ in &self.members {
            let group = &self.members[below(rng, self.members.len())];
            if self.is_whole {
                resample.extend(group);
            } else {
                resample.extend(group.iter().map(|_| group[below(rng, group.len())]));
            }
        }
        resample
    }
}

impl Bootstrap {
    /// No resamples: estimates without intervals.
    pub const NONE: Self = Self {
        resamples: 0,
        seed: 0,
    };

    /// Resampled fits. `fit` gets observation indices (repeated ones for repeated draws) and may decline a resample that
    /// determines nothing, such as one point drawn every time: another takes its place. A `fit` that declines nearly
    /// always yields fewer draws than asked for.
    pub fn draws<T>(&self, groups: &Groups, mut fit: impl FnMut(&[usize]) -> Option<T>) -> Vec<T> {
        let resamples = self.resamples(groups);
        let fitted = resamples.filter_map(|resample| fit(&resample));
        fitted.take(self.resamples).collect()
    }

    /// For each resample a sign for each of `count` runs, one as likely as the other: what a run's noise is multiplied
    /// by (the wild bootstrap). The runs themselves stay where they are.
    pub(super) fn signs(&self, count: usize) -> impl Iterator<Item = Vec<f64>> + use<> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        (0..self.resamples).map(move |_| {
            let sign = |_| if below(&mut rng, 2) == 0 { -1.0 } else { 1.0 };
            (0..count).map(sign).collect()
        })
    }

    /// The resamples themselves, as indices of observations: ten times as many as are asked for, so that some may be
    /// declined. None where a group is empty or there is no group.
    pub fn resamples<'g>(&self, groups: &'g Groups) -> impl Iterator<Item = Vec<usize>> + use<'g> {
        let nothing = groups.is_empty() || groups.members.iter().any(Vec::is_empty);
        let most = match nothing {
            true => 0,
            false => self.resamples.saturating_mul(10),
        };
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        (0..most).map(move |_| groups.draw(&mut rng))
    }
}

/// Factor by which percentile draws of a fit to `points` observations with `parameters` free parameters are spread
/// around the estimate.
///
/// Resampling understates the spread of few points, as dividing a sum of squares by n instead of n - p does, and
/// sqrt(n / (n - p)) puts it right. With one degree of freedom left most resamples fit their points exactly and say next
/// to nothing about the spread; there Student's quantile over the normal one takes its place.
pub fn small_sample_factor(points: usize, parameters: usize) -> f64 {
    const STUDENT_ONE_DEGREE: f64 = 12.7062;
    match points.saturating_sub(parameters) {
        0 | 1 => STUDENT_ONE_DEGREE / Z_95,
        freedom => (points as f64 / freedom as f64).sqrt(),
    }
}

/// A uniform index below `n`.
fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resamples_repeat_with_the_seed_and_keep_groups_together() {
        let groups = Groups::of_repeats(vec![vec![0, 1, 2], vec![3], vec![4, 5]]);
        let draws = |seed| {
            Bootstrap {
                resamples: 200,
                seed,
            }
            .draws(&groups, |runs| Some(runs.to_vec()))
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        let all = draws(7);
        assert_eq!(all.len(), 200);
        // Group sizes are 3, 1 and 2: three drawn groups hold 3 to 9 runs, and the runs of a drawn group stand together.
        assert!(all.iter().all(|runs| (3..=9).contains(&runs.len())));
        assert!((0..6).all(|run| all.iter().any(|runs| runs.contains(&run))));
    }

    #[test]
    fn a_run_is_drawn_with_all_its_checkpoints() {
        let groups = Groups::of_runs(vec![vec![0, 1, 2], vec![3], vec![4, 5]]);
        let bootstrap = Bootstrap {
            resamples: 200,
            seed: 7,
        };
        let count = |drawn: &[usize], of: usize| drawn.iter().filter(|&&at| at == of).count();
        for drawn in bootstrap.draws(&groups, |drawn| Some(drawn.to_vec())) {
            assert_eq!(count(&drawn, 0), count(&drawn, 2));
            assert_eq!(count(&drawn, 4), count(&drawn, 5));
            let runs = count(&drawn, 0) + count(&drawn, 3) + count(&drawn, 4);
            assert_eq!(runs, 3);
        }
    }

    #[test]
    fn declined_resamples_are_replaced_but_not_for_ever() {
        let groups = Groups::of_repeats(vec![vec![0], vec![1]]);
        let options = Bootstrap {
            resamples: 50,
            seed: 1,
        };
        assert_eq!(
            options
                .draws(&groups, |runs| (runs[0] != runs[1]).then_some(()))
                .len(),
            50
        );
        assert!(options.draws(&groups, |_| None::<()>).is_empty());
    }

    #[test]
    fn the_small_sample_factor_fades_as_points_are_added() {
        let factors: Vec<f64> = (3..200)
            .map(|points| small_sample_factor(points, 2))
            .collect();
        assert!(factors.windows(2).all(|pair| pair[0] > pair[1]));
        assert!((factors[1] - 2f64.sqrt()).abs() < 1e-12 && factors[196] < 1.01);
    }
}
