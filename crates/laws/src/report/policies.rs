//! How loss falls with the number of policies that a model was trained on, all else being equal.

use crate::{
    coordinates::grouped,
    fits::{Bootstrap, FinishedTrial, Fit, Observation, PowerLaw},
};
use serde::Serialize;

/// Trials that differ in nothing but how many policies they were trained on, and in their seeds.
#[derive(Clone, Debug, Serialize)]
pub struct ByPolicies {
    /// What they have in common.
    pub trials: String,
    /// One entry a trial, ascending in policies.
    pub losses: Vec<PolicyLoss>,
    /// L = c · P^e.
    pub law: Fit<PowerLaw>,
}

/// The loss of one trial on some of the policies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PolicyLoss {
    /// Policies that it was trained on.
    pub policies: u32,
    /// Mean distance between them, if they were chosen by it.
    pub distance: Option<f64>,
    /// Final validation loss.
    pub loss: f64,
}

/// Every group of trials with at least two numbers of policies, or with policies chosen by their distance.
pub(super) fn by_policies(trials: &[&FinishedTrial]) -> Vec<ByPolicies> {
    let chosen = trials
        .iter()
        .filter_map(|trial| Some((trial.at.policies?.count, *trial)));
    let groups = grouped(chosen, |(_, a), (_, b)| {
        a.at.differs_in_policy_count_only(&b.at)
    });
    groups.into_iter().filter_map(law).collect()
}

/// The law of one group, whose trials come with their numbers of policies.
fn law(mut group: Vec<(u32, &FinishedTrial)>) -> Option<ByPolicies> {
    group.sort_by_key(|(count, _)| *count);
    let (fewest, first) = group[0];
    let several = group.iter().any(|(count, _)| *count != fewest);
    let observations: Vec<Observation> = group
        .iter()
        .map(|(count, trial)| Observation {
            label: trial.name.clone(),
            x: f64::from(*count),
            loss: trial.loss,
        })
        .collect();
    let losses = group.iter().map(|&(policies, trial)| PolicyLoss {
        policies,
        distance: trial.distance,
        loss: trial.loss,
    });
    (several || first.distance.is_some()).then(|| ByPolicies {
        trials: first.at.without_policy_count(),
        losses: losses.collect(),
        law: PowerLaw::fit("policies", &observations, Bootstrap::default()).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Coordinates, Length, Policies, Spread};

    fn trial(count: u32, seed: u64, loss: f64) -> FinishedTrial {
        FinishedTrial {
            // A name that says nothing true: another number of policies, another seed.
            name: format!("s-4000steps-p{seed}-s{count}"),
            at: Coordinates {
                size: "s".into(),
                length: Length::Steps(4000),
                batch: Some(32),
                lr: Some(1e-3),
                policies: Some(Policies {
                    count,
                    spread: Spread::Any,
                }),
                seed,
            },
            params: Some(1.0),
            flops: Some(1.0),
            tokens: Some(1.0),
            distance: None,
            run: None,
            loss,
        }
    }

    #[test]
    fn seeds_share_a_law_in_the_number_of_policies_whatever_they_are_called() {
        let loss = |count: u32, noise: f64| 0.8 * f64::from(count).powf(-0.2) + noise;
        let mut trials = Vec::new();
        for count in [2, 4, 8, 16] {
            trials.push(trial(count, 1, loss(count, 0.001)));
            trials.push(trial(count, 2, loss(count, -0.001)));
        }
        // Another learning rate is another law.
        let mut other = trial(4, 1, 0.1);
        other.at.lr = Some(5e-3);
        trials.push(other);
        let found = by_policies(&trials.iter().collect::<Vec<_>>());
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].trials,
            "s, 4000 steps, batch 32, learning rate 1e-3"
        );
        assert_eq!(found[0].losses.len(), 8);
        let law = found[0].law.fitted().unwrap();
        assert!((law.exponent + 0.2).abs() < 0.01);
        let one: Vec<&FinishedTrial> = trials.iter().take(2).collect();
        assert!(
            by_policies(&one).is_empty(),
            "one number of policies says nothing"
        );
    }
}
