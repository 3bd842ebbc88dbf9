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

/// Why a prompt gives no triplet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// One policy answered it.
    OnePolicy,
    /// Several did, none of them with two distinct answers.
    NoPair,
    /// It would give one if no policy were held out.
    HeldOut,
    /// It would give one if its policies weren't aliases of each other.
    Aliases,
    /// No other policy gives an answer that the policy with two answers doesn't give.
    EqualAnswers,
    /// No policy that answered it answered another prompt near it, where the reference is to come from
    /// one.
    NoPartner,
}

impl Obstacle {
    /// The obstacle in words, after "because".
    pub fn because(self) -> &'static str {
        match self {
            Self::OnePolicy => "one policy only answered it",
            Self::NoPair => "no policy gave two distinct answers to it",
            Self::HeldOut => "the policies that could give it are held out",
            Self::Aliases => "its policies are aliases of each other",
            Self::EqualAnswers => "its policies give the same answers",
            Self::NoPartner => {
                "no policy that answered it answered another prompt of its row group and cluster"
            }
        }
    }
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
    /// Prompts at which each policy can give the reference, about.
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

    /// Reads the manifest's policies for triplets whose reference answers another prompt: one answer to a
    /// prompt suffices there, so it is answers that make a policy common.
    pub(crate) fn across_prompts(policies: &[Policy]) -> Self {
        Self {
            cells: policies.iter().map(|policy| policy.trajectories).collect(),
            ..Self::new(policies)
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
    pub(crate) fn can_oppose(&self, task: Task, policy: u32, other: u32) -> bool {
        let (policy, other) = (policy as usize, other as usize);
        let allowed = match task {
            Task::Training => self.trains(policy as u32) && self.trains(other as u32),
            Task::HeldoutPolicies => self.held_out[policy],
        };
        allowed && self.identity[policy] != self.identity[other]
    }

    /// Whether a policy is trained on.
    pub(crate) fn trains(&self, policy: u32) -> bool {
        !self.held_out[policy as usize] && !self.left_out[policy as usize]
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

    /// Why a prompt gives no triplet of training policies; `None` where it gives one.
    pub(crate) fn obstacle(&self, prompt: &[PolicySamples]) -> Option<Obstacle> {
        let task = Task::Training;
        if self.usable(task, prompt) {
            return None;
        }
        if prompt.len() < 2 {
            return Some(Obstacle::OnePolicy);
        }
        if prompt.iter().all(|given| given.samples.len() < 2) {
            return Some(Obstacle::NoPair);
        }
        let policies = self.identity.len();
        let trained = Self {
            held_out: vec![false; policies],
            left_out: vec![false; policies],
            ..self.clone()
        };
        let strangers = Self {
            identity: (0..policies).collect(),
            ..self.clone()
        };
        let both = Self {
            identity: strangers.identity.clone(),
            ..trained.clone()
        };
        Some(if trained.usable(task, prompt) {
            Obstacle::HeldOut
        } else if strangers.usable(task, prompt) {
            Obstacle::Aliases
        } else if both.usable(task, prompt) {
            Obstacle::HeldOut
        } else {
            Obstacle::EqualAnswers
        })
    }

    pub(crate) fn weight(&self, weighting: Weighting, policy: u32) -> u64 {
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
mod tests;
