//! Means of observations that come in clusters, and how sure they are.
//!
//! Triplets of one prompt share how hard that prompt is: a thousand triplets of a dozen prompts say little more
//! than the dozen. The standard error is therefore the delete-one-cluster jackknife, which stays right where
//! clusters are few and of uneven sizes (CV3 of MacKinnon, Nielsen and Webb, 2023), and intervals are Student's
//! with one degree of freedom less than there are clusters. Where clusters have one observation each, this is
//! the usual interval of a mean.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Fewest clusters that an interval is given for: the spread of fewer is anybody's guess.
pub const FEWEST_CLUSTERS: usize = 5;

/// A mean over observations that come in clusters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clustered {
    /// Mean of all observations: a cluster weighs as much as it has of them. 0 of none.
    pub mean: f64,
    /// Standard error of the mean, clusters being drawn; none of fewer than two.
    pub error: Option<f64>,
    /// Clusters.
    pub clusters: usize,
    /// Observations.
    pub observations: usize,
}

/// A closed interval of 95%.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub lo: f64,
    /// Upper end.
    pub hi: f64,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    values: f64,
    count: usize,
}

impl Clustered {
    /// Observations, each with the cluster that it is of. Sums follow the order of clusters, and within one that
    /// of the observations.
    pub fn of<K: Ord>(observations: impl IntoIterator<Item = (K, f64)>) -> Clustered {
        let mut clusters: BTreeMap<K, Sum> = BTreeMap::new();
        for (cluster, value) in observations {
            let sum = clusters.entry(cluster).or_default();
            sum.values += value;
            sum.count += 1;
        }
        let all = clusters.values().fold(Sum::default(), |all, sum| Sum {
            values: all.values + sum.values,
            count: all.count + sum.count,
        });
        let mean = all.values / all.count.max(1) as f64;
        let number = clusters.len();
        let error = (number > 1).then(|| {
            let without = |sum: &Sum| (all.values - sum.values) / (all.count - sum.count) as f64;
            let squares = clusters.values().map(|sum| (without(sum) - mean).powi(2));
            let number = number as f64;
            ((number - 1.0) / number * squares.sum::<f64>()).sqrt()
        });
        Clustered {
            mean,
            error,
            clusters: number,
            observations: all.count,
        }
    }

    /// Where the mean lies; `None` of fewer than [`FEWEST_CLUSTERS`] clusters.
    pub fn interval(&self) -> Option<Interval> {
        let half = student_95(self.clusters)? * self.error?;
        Some(Interval {
            lo: self.mean - half,
            hi: self.mean + half,
        })
    }

    /// Where a mean of zeros and ones lies: Wilson's interval with as many observations as would be worth as much
    /// if they were independent, and Student's quantile (Dean and Pagano, 2015). It stays within 0 to 1. `None` of
    /// fewer than [`FEWEST_CLUSTERS`] clusters.
    pub fn share_interval(&self) -> Option<Interval> {
        let (t, error, share) = (student_95(self.clusters)?, self.error?, self.mean);
        let variance = share * (1.0 - share);
        // Where all are alike there is no spread to go by: each cluster counts as one observation.
        let worth = match variance > 0.0 {
            true => (variance / (error * error)).min(self.observations as f64),
            false => self.clusters as f64,
        };
        let k = t * t / worth;
        let centre = (share + k / 2.0) / (1.0 + k);
        let half = (k * variance + k * k / 4.0).max(0.0).sqrt() / (1.0 + k);
        Some(Interval {
            lo: (centre - half).max(0.0),
            hi: (centre + half).min(1.0),
        })
    }
}

/// Student's quantile of a two-sided 95% interval from so many clusters, by its expansion about the normal one; it
/// is good to a thousandth from four degrees of freedom on.
fn student_95(clusters: usize) -> Option<f64> {
    const Z: f64 = 1.959_963_984_540_054;
    if clusters < FEWEST_CLUSTERS {
        return None;
    }
    let freedom = (clusters - 1) as f64;
    let odd = |coefficients: &[f64]| {
        let sum = coefficients
            .iter()
            .rev()
            .fold(0.0, |sum, c| sum * Z * Z + c);
        sum * Z
    };
    let terms = [
        odd(&[1.0, 1.0]) / 4.0,
        odd(&[3.0, 16.0, 5.0]) / 96.0,
        odd(&[-15.0, 17.0, 19.0, 3.0]) / 384.0,
        odd(&[-945.0, -1920.0, 1482.0, 776.0, 79.0]) / 92_160.0,
    ];
    Some(
        Z + terms
            .iter()
            .rev()
            .fold(0.0, |sum, term| (sum + term) / freedom),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn students_quantiles_are_those_of_the_tables() {
        for (clusters, quantile) in [(5, 2.7764), (6, 2.5706), (11, 2.2281), (31, 2.0423)] {
            let found = student_95(clusters).unwrap();
            assert!((found - quantile).abs() < 1e-3, "{clusters}: {found}");
        }
        assert_eq!(student_95(4), None);
    }

    #[test]
    fn clusters_of_one_give_the_usual_interval_of_a_mean() {
        let values = [3.0, 5.0, 4.0, 8.0, 5.0];
        let found = Clustered::of(values.into_iter().enumerate());
        // Variance 3.5 of a sample of five.
        assert!((found.error.unwrap() - (3.5f64 / 5.0).sqrt()).abs() < 1e-12);
        assert_eq!(
            (found.mean, found.clusters, found.observations),
            (5.0, 5, 5)
        );
        let few = Clustered::of(values[..4].iter().copied().enumerate());
        assert_eq!((few.interval(), few.share_interval()), (None, None));
    }

    #[test]
    fn a_share_of_all_or_none_is_not_certain() {
        let all = Clustered::of((0..300).map(|at| (at % 6, 1.0)));
        let interval = all.share_interval().unwrap();
        assert!(interval.hi > 0.999 && interval.lo < 0.6, "{interval:?}");
        let even = Clustered::of((0..300).map(|at| (at % 6, f64::from(at / 6 % 2))));
        let interval = even.share_interval().unwrap();
        assert!(interval.lo > 0.4 && interval.hi < 0.6, "{interval:?}");
    }

    /// How often of `draws` an interval holds the truth, for triplets whose prompts differ: by cluster, as shares by
    /// cluster, and as if triplets were independent.
    fn coverage(prompts: u64, draws: u64) -> [f64; 3] {
        let mut held = [0u32; 3];
        for draw in 0..draws {
            let mut stream = Stream::new("prompt effects", &[prompts, draw]);
            let (mut losses, mut ranked) = (Vec::new(), Vec::new());
            for prompt in 0..prompts {
                let effect = 0.4 * stream.normal();
                let likely = 0.2 + 0.6 * (stream.below(1000) as f64 / 999.0);
                for _ in 0..10 + stream.below(20) {
                    losses.push((prompt, 0.6 + effect + 0.5 * stream.normal()));
                    let right = (stream.below(1 << 20) as f64) < likely * f64::from(1 << 20);
                    ranked.push((prompt, f64::from(u8::from(right))));
                }
            }
            let loss = Clustered::of(losses.iter().copied());
            let alone = Clustered::of(losses.iter().map(|&(_, x)| x).enumerate());
            let share = Clustered::of(ranked.iter().copied());
            let holds = |interval: Option<Interval>, truth: f64| {
                u32::from(interval.is_some_and(|i| i.lo <= truth && truth <= i.hi))
            };
            held[0] += holds(loss.interval(), 0.6);
            held[1] += holds(share.share_interval(), 0.5);
            held[2] += holds(alone.interval(), 0.6);
        }
        held.map(|held| f64::from(held) / draws as f64)
    }

    #[test]
    fn ninety_five_of_a_hundred_intervals_hold_the_truth_where_independence_would_fail() {
        for prompts in [6, 12, 40] {
            let [loss, share, independent] = coverage(prompts, 1000);
            assert!((0.93..0.975).contains(&loss), "{prompts}: loss {loss}");
            assert!((0.93..0.975).contains(&share), "{prompts}: share {share}");
            assert!(independent < 0.6, "{prompts}: {independent}");
        }
    }
}
