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

impl Bootstrap {
    /// No resamples: estimates without intervals.
    pub const NONE: Self = Self {
        resamples: 0,
        seed: 0,
    };

    /// Resampled fits, two levels deep: as many groups as there are, drawn with replacement, and within each drawn group
    /// as many runs as it has. A group is the runs that differ in their seed only, so both the choice of points and the
    /// luck of a seed enter the spread.
    ///
    /// `fit` gets observation indices (repeated ones for repeated draws) and may decline a resample that determines
    /// nothing, such as one point drawn every time: another takes its place. A `fit` that declines nearly always yields
    /// fewer draws than asked for.
    pub fn draws<T>(
        &self,
        groups: &[Vec<usize>],
        mut fit: impl FnMut(&[usize]) -> Option<T>,
    ) -> Vec<T> {
        let mut draws = Vec::with_capacity(self.resamples);
        if groups.iter().any(Vec::is_empty) || groups.is_empty() {
            return draws;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut resample = Vec::new();
        for _ in 0..self.resamples.saturating_mul(10) {
            if draws.len() == self.resamples {
                break;
            }
            resample.clear();
            for _ in groups {
                let group = &groups[below(&mut rng, groups.len())];
                resample.extend(group.iter().map(|_| group[below(&mut rng, group.len())]));
            }
            draws.extend(fit(&resample));
        }
        draws
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
        let groups = vec![vec![0, 1, 2], vec![3], vec![4, 5]];
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
    fn declined_resamples_are_replaced_but_not_for_ever() {
        let groups = vec![vec![0], vec![1]];
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
