//! How loss falls with the number of policies that a model was trained on, all else being equal.

use super::analysis::told;
use crate::fits::{Bootstrap, Observation, Point, PowerLaw};
use serde::Serialize;
use std::collections::BTreeMap;

/// Trials that differ in nothing but how many policies they saw.
#[derive(Clone, Debug, Serialize)]
pub struct ByPolicies {
    /// What they have in common, as in their names.
    pub trials: String,
    /// Of each trial the number of policies, their mean distance if they were chosen by it, and the loss.
    pub losses: Vec<(u32, Option<f64>, f64)>,
    /// L = c · P^e.
    pub law: Option<PowerLaw>,
    /// Why there is none.
    pub refused: Option<String>,
}

/// Every group of trials with at least two numbers of policies, or with policies chosen by their distance.
pub(super) fn by_policies(points: &[&Point]) -> Vec<ByPolicies> {
    let mut groups: BTreeMap<&str, Vec<(u32, &Point)>> = BTreeMap::new();
    for point in points {
        let Some(count) = point.policies else {
            continue;
        };
        let count_in_name = format!("-p{count}");
        let cell = point.cell();
        let common = cell.strip_suffix(&count_in_name).unwrap_or(cell);
        groups.entry(common).or_default().push((count, point));
    }
    let law = |(trials, mut group): (&str, Vec<(u32, &Point)>)| {
        group.sort_by_key(|(count, _)| *count);
        let several = group.iter().any(|(count, _)| *count != group[0].0);
        let observations: Vec<Observation> = group
            .iter()
            .map(|(count, point)| Observation {
                label: point.trial.clone(),
                x: f64::from(*count),
                loss: point.loss,
            })
            .collect();
        let fit = PowerLaw::fit("policies", &observations, Bootstrap::default());
        let (law, refused) = told(fit);
        (several || group[0].1.distance.is_some()).then(|| ByPolicies {
            trials: trials.to_owned(),
            losses: group
                .iter()
                .map(|(n, p)| (*n, p.distance, p.loss))
                .collect(),
            law,
            refused,
        })
    };
    groups.into_iter().filter_map(law).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(count: u32, seed: u64, loss: f64) -> Point {
        Point {
            trial: format!("s-4000steps-p{count}-s{seed}"),
            size: "s".into(),
            params: 1,
            flops: 1.0,
            tokens: 1.0,
            budget: None,
            policies: Some(count),
            distance: None,
            seed,
            loss,
        }
    }

    #[test]
    fn seeds_share_a_law_in_the_number_of_policies() {
        let loss = |count: u32, noise: f64| 0.8 * f64::from(count).powf(-0.2) + noise;
        let mut points = Vec::new();
        for count in [2, 4, 8, 16] {
            points.push(point(count, 1, loss(count, 0.001)));
            points.push(point(count, 2, loss(count, -0.001)));
        }
        let found = by_policies(&points.iter().collect::<Vec<_>>());
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].trials.as_str(), found[0].losses.len()),
            ("s-4000steps", 8)
        );
        let law = found[0].law.as_ref().unwrap();
        assert!((law.exponent + 0.2).abs() < 0.01);
        let one: Vec<&Point> = points.iter().take(2).collect();
        assert!(
            by_policies(&one).is_empty(),
            "one number of policies says nothing"
        );
    }
}
