//! The choice of a triplet among the trajectories of one prompt: who is the reference's policy,
//! which two samples, and who is the negative.
//!
//! Everything here is a pure function of the samples, the policy table and a key.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::Policy;
use polestar_core::random::Stream;

/// The distinct responses of one policy to one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySamples {
    /// The policy's number.
    pub policy: u32,
    /// Distinct responses, in sample order.
    pub samples: Vec<String>,
}

/// How the reference's policy is drawn among those that a prompt offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// Every eligible policy of the prompt alike.
    #[default]
    Uniform,
    /// Inversely to the number of prompts that have two samples of the policy, so that rare policies
    /// are seen about as often as common ones.
    Balanced,
}

/// What is to be told apart: which policies may be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Reference and negative both come from training policies.
    Training,
    /// The reference comes from a held-out policy, the negative from any other.
    HeldoutPolicies,
}

/// One triplet: two samples of one policy and one of another, as positions among the prompt's policies
/// and in their samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TripletChoice {
    /// The policy of reference and positive.
    pub own: usize,
    /// The reference among its samples.
    pub reference: usize,
    /// The positive among its samples; another one than the reference.
    pub positive: usize,
    /// The policy of the negative; neither the same policy nor an alias.
    pub other: usize,
    /// The negative among the other policy's samples; its text differs from the reference and the
    /// positive.
    pub negative: usize,
}

/// What the choice needs to know of each policy.
#[derive(Debug, Clone)]
pub struct PolicyTable {
    held_out: Vec<bool>,
    /// Policies with the same number are aliases of each other.
    identity: Vec<usize>,
    /// Prompts with at least two distinct samples of each policy.
    cells: Vec<u64>,
    /// Policies that training leaves out.
    left_out: Vec<bool>,
}

/// Some of a corpus's training policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PolicyChoice {
    /// Drawn by a seed. The draws of one seed are nested: a larger one holds every smaller one.
    Drawn {
        /// How many; aliases of each other count once.
        count: u32,
        /// Which.
        seed: u64,
    },
    /// These; aliases of them as well.
    Named {
        /// Their names.
        names: Vec<String>,
    },
}

impl PolicyChoice {
    /// How many.
    pub fn count(&self) -> u32 {
        match self {
            PolicyChoice::Drawn { count, .. } => *count,
            PolicyChoice::Named { names } => names.len() as u32,
        }
    }
}

impl PolicyTable {
    /// Reads the manifest's policies.
    pub fn new(policies: &[Policy]) -> Self {
        let identity = policies.iter().enumerate().map(|(number, policy)| {
            let first = policies[..number].iter().position(|earlier| {
                earlier.aliases.contains(&policy.name) || policy.aliases.contains(&earlier.name)
            });
            first.unwrap_or(number)
        });
        Self {
            held_out: policies.iter().map(|policy| policy.held_out).collect(),
            identity: identity.collect(),
            cells: policies.iter().map(|policy| policy.cells).collect(),
            left_out: vec![false; policies.len()],
        }
    }

    /// Leaves all training policies out but the chosen ones. Validation goes on with all.
    ///
    /// # Errors
    /// How many there are, if the choice is of more, or of too few to compare two.
    pub(crate) fn choose_policies(
        &mut self,
        policies: &[Policy],
        choice: &PolicyChoice,
    ) -> Result<(), u32> {
        let trained = self.training_policies();
        let name = |number: usize| &policies[number].name;
        let chosen: Vec<usize> = match choice {
            PolicyChoice::Drawn { count, seed } => {
                let mut ranked = trained.clone();
                ranked.sort_by_cached_key(|&number| {
                    let mut hasher = blake3::Hasher::new();
                    hasher.update(&seed.to_le_bytes());
                    hasher.update(name(number).as_bytes());
                    *hasher.finalize().as_bytes()
                });
                ranked.into_iter().take(*count as usize).collect()
            }
            PolicyChoice::Named { names } => {
                let named = trained.iter().copied();
                named.filter(|&n| names.contains(name(n))).collect()
            }
        };
        if chosen.len() < 2 || chosen.len() != choice.count() as usize {
            return Err(trained.len() as u32);
        }
        for (left_out, identity) in self.left_out.iter_mut().zip(&self.identity) {
            *left_out = !chosen.contains(identity);
        }
        Ok(())
    }

    /// Policies that training may see, aliases once.
    pub(crate) fn training_policies(&self) -> Vec<usize> {
        (0..self.identity.len())
            .filter(|&number| !self.held_out[number] && self.identity[number] == number)
            .collect()
    }

    /// The policy that stands for this one and its aliases.
    pub(crate) fn identity(&self, policy: u32) -> u32 {
        self.identity[policy as usize] as u32
    }

    /// Whether `other` may be the negative of `policy`.
    fn can_oppose(&self, task: Task, policy: u32, other: u32) -> bool {
        let (policy, other) = (policy as usize, other as usize);
        let allowed = match task {
            Task::Training => {
                let trained = |policy: usize| !self.held_out[policy] && !self.left_out[policy];
                trained(policy) && trained(other)
            }
            Task::HeldoutPolicies => self.held_out[policy],
        };
        allowed && self.identity[policy] != self.identity[other]
    }

    /// Whether a policy can give the reference: two distinct samples, and another policy to oppose it
    /// with a text that it hasn't given itself.
    fn eligible(&self, task: Task, prompt: &[PolicySamples], own: &PolicySamples) -> bool {
        own.samples.len() >= 2
            && prompt.iter().any(|other| {
                self.can_oppose(task, own.policy, other.policy)
                    && other.samples.iter().any(|text| !own.samples.contains(text))
            })
    }

    /// Whether the prompt has a triplet at all.
    pub fn usable(&self, task: Task, prompt: &[PolicySamples]) -> bool {
        prompt.iter().any(|own| self.eligible(task, prompt, own))
    }

    fn weight(&self, weighting: Weighting, policy: u32) -> u64 {
        match weighting {
            Weighting::Uniform => 1,
            // In units of 2^-32, so that the draw needs integers only.
            Weighting::Balanced => (1 << 32) / self.cells[policy as usize].clamp(1, 1 << 32),
        }
    }

    /// The triplet of a prompt for a key, or `None` when the prompt is not usable.
    pub fn choose(
        &self,
        task: Task,
        weighting: Weighting,
        prompt: &[PolicySamples],
        key: &[u64],
    ) -> Option<TripletChoice> {
        let eligible: Vec<usize> = (0..prompt.len())
            .filter(|&own| self.eligible(task, prompt, &prompt[own]))
            .collect();
        if eligible.is_empty() {
            return None;
        }
        let mut stream = Stream::new("triplet", key);
        let weights = eligible
            .iter()
            .map(|&own| self.weight(weighting, prompt[own].policy));
        let own = eligible[stream.weighted(weights)];
        let chosen = &prompt[own];

        let reference = stream.index(chosen.samples.len());
        let mut positive = stream.index(chosen.samples.len() - 1);
        if positive >= reference {
            positive += 1;
        }

        let taken = [&chosen.samples[reference], &chosen.samples[positive]];
        let others: Vec<(usize, Vec<usize>)> = prompt
            .iter()
            .enumerate()
            .filter(|(_, other)| self.can_oppose(task, chosen.policy, other.policy))
            .map(|(number, other)| {
                let distinct = (0..other.samples.len())
                    .filter(|&sample| !taken.contains(&&other.samples[sample]));
                (number, distinct.collect())
            })
            .filter(|(_, distinct): &(_, Vec<usize>)| !distinct.is_empty())
            .collect();
        // Never empty: an eligible policy has an opponent with a text outside of all its own samples.
        let (other, distinct) = &others[stream.index(others.len())];
        let negative = distinct[stream.index(distinct.len())];
        Some(TripletChoice {
            own,
            reference,
            positive,
            other: *other,
            negative,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, cells: u64, held_out: bool, aliases: &[&str]) -> Policy {
        Policy {
            name: name.into(),
            trajectories: 0,
            cells,
            held_out,
            aliases: aliases.iter().map(|&name| name.into()).collect(),
        }
    }

    fn samples(policy: u32, texts: &[&str]) -> PolicySamples {
        PolicySamples {
            policy,
            samples: texts.iter().map(|&text| text.into()).collect(),
        }
    }

    fn table() -> PolicyTable {
        PolicyTable::new(&[
            policy("a", 90, false, &["a2"]),
            policy("a2", 10, false, &["a"]),
            policy("b", 10, false, &[]),
            policy("h", 10, true, &[]),
        ])
    }

    #[test]
    fn every_triplet_keeps_the_rules() {
        let table = table();
        let prompt = [
            samples(0, &["x", "y", "z"]),
            samples(1, &["x", "p"]),
            samples(2, &["x", "y", "q"]),
            samples(3, &["r", "s"]),
        ];
        for task in [Task::Training, Task::HeldoutPolicies] {
            for index in 0..2000 {
                let t = table
                    .choose(task, Weighting::Uniform, &prompt, &[1, 2, index])
                    .unwrap();
                let (own, other) = (&prompt[t.own], &prompt[t.other]);
                assert_ne!(t.reference, t.positive);
                let negative = &other.samples[t.negative];
                assert!(
                    *negative != own.samples[t.reference] && *negative != own.samples[t.positive]
                );
                assert_ne!(own.policy, other.policy);
                assert!(!(own.policy < 2 && other.policy < 2), "aliases met");
                match task {
                    Task::Training => assert!(own.policy != 3 && other.policy != 3),
                    Task::HeldoutPolicies => assert_eq!(own.policy, 3),
                }
                assert_eq!(
                    table.choose(task, Weighting::Uniform, &prompt, &[1, 2, index]),
                    Some(t)
                );
            }
        }
    }

    #[test]
    fn unusable_prompts_are_refused() {
        let table = table();
        let choose = |prompt: &[PolicySamples]| {
            table.choose(Task::Training, Weighting::Uniform, prompt, &[0])
        };
        assert_eq!(choose(&[samples(0, &["x", "y"])]), None, "one policy");
        assert_eq!(
            choose(&[samples(0, &["x", "y"]), samples(1, &["z"])]),
            None,
            "an alias only"
        );
        assert_eq!(
            choose(&[samples(0, &["x"]), samples(2, &["y"])]),
            None,
            "no two samples"
        );
        assert_eq!(
            choose(&[samples(0, &["x", "y"]), samples(2, &["x"])]),
            None,
            "no text of its own"
        );
        assert_eq!(
            choose(&[samples(3, &["x", "y"]), samples(2, &["z"])]),
            None,
            "a held-out policy"
        );
    }

    #[test]
    fn a_choice_of_policies_names_the_key_that_is_wrong() {
        let read = |json: &str| serde_json::from_str::<PolicyChoice>(json);
        for choice in [
            PolicyChoice::Drawn { count: 4, seed: 1 },
            PolicyChoice::Named {
                names: vec!["a".into()],
            },
        ] {
            let json = serde_json::to_string(&choice).unwrap();
            assert_eq!(read(&json).unwrap(), choice);
        }
        let refused = read(r#"{"drawn": {"count": 4, "sed": 1}}"#)
            .unwrap_err()
            .to_string();
        assert!(refused.starts_with("unknown field `sed`"), "{refused}");
    }

    #[test]
    fn balanced_weighting_favours_rare_policies() {
        let table = table();
        let prompt = [samples(0, &["x", "y"]), samples(2, &["p", "q"])];
        let common = |weighting| {
            (0..4000)
                .filter(|&index| {
                    table
                        .choose(Task::Training, weighting, &prompt, &[index])
                        .unwrap()
                        .own
                        == 0
                })
                .count()
        };
        assert!((1850..2150).contains(&common(Weighting::Uniform)));
        assert!(
            (330..470).contains(&common(Weighting::Balanced)),
            "1 : 9 for 90 : 10 cells"
        );
    }
}
