//! The choice of a triplet among the trajectories of one prompt: who is the reference's policy,
//! which two samples, and who is the negative.
//!
//! Everything here is a pure function of the samples, the policy table and a key.

use serde::{Deserialize, Serialize};

use crate::manifest::Policy;
use polestar_core::random::Stream;

/// The distinct responses of one policy to one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// The policy's number.
    pub policy: u32,
    /// Distinct responses, in sample order.
    pub samples: Vec<String>,
}

/// How the reference's policy is drawn among those that a prompt offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// Every eligible policy of the prompt alike.
    #[default]
    Uniform,
    /// Inversely to the policy's number of cells in the corpus, so that rare policies are seen
    /// about as often as common ones.
    Balanced,
}

/// Which policies may meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contest {
    /// Reference and negative both come from training policies.
    Training,
    /// The reference comes from a held-out policy, the negative from any other.
    HeldoutPolicies,
}

/// One triplet: two samples of one cell and one of another, as positions in the prompt's cells and
/// in their samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TripletChoice {
    /// The cell of reference and positive.
    pub cell: usize,
    /// The reference among that cell's samples.
    pub reference: usize,
    /// The positive among that cell's samples; another one than the reference.
    pub positive: usize,
    /// The cell of the negative; neither the same policy nor an alias.
    pub other: usize,
    /// The negative among the other cell's samples; its text differs from the reference and the
    /// positive.
    pub negative: usize,
}

/// What the choice needs to know of each policy.
#[derive(Debug, Clone)]
pub struct Roles {
    held_out: Vec<bool>,
    /// Policies with the same number are aliases of each other.
    identity: Vec<usize>,
    cells: Vec<u64>,
    /// Policies that training leaves out.
    left_out: Vec<bool>,
}

/// Some of a corpus's training policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
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

impl Roles {
    /// Reads the roles from the policy table.
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
    fn may_meet(&self, contest: Contest, policy: u32, other: u32) -> bool {
        let (policy, other) = (policy as usize, other as usize);
        let allowed = match contest {
            Contest::Training => {
                let trained = |policy: usize| !self.held_out[policy] && !self.left_out[policy];
                trained(policy) && trained(other)
            }
            Contest::HeldoutPolicies => self.held_out[policy],
        };
        allowed && self.identity[policy] != self.identity[other]
    }

    /// Whether the cell can give the reference: two distinct samples, and somebody to meet whose
    /// text it can't have given itself.
    fn eligible(&self, contest: Contest, cells: &[Cell], cell: &Cell) -> bool {
        cell.samples.len() >= 2
            && cells.iter().any(|other| {
                self.may_meet(contest, cell.policy, other.policy)
                    && other
                        .samples
                        .iter()
                        .any(|text| !cell.samples.contains(text))
            })
    }

    /// Whether the prompt has a triplet at all.
    pub fn usable(&self, contest: Contest, cells: &[Cell]) -> bool {
        cells.iter().any(|cell| self.eligible(contest, cells, cell))
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
        contest: Contest,
        weighting: Weighting,
        cells: &[Cell],
        key: &[u64],
    ) -> Option<TripletChoice> {
        let eligible: Vec<usize> = (0..cells.len())
            .filter(|&cell| self.eligible(contest, cells, &cells[cell]))
            .collect();
        if eligible.is_empty() {
            return None;
        }
        let mut stream = Stream::new("triplet", key);
        let weights = eligible
            .iter()
            .map(|&cell| self.weight(weighting, cells[cell].policy));
        let cell = eligible[stream.weighted(weights)];
        let chosen = &cells[cell];

        let reference = stream.index(chosen.samples.len());
        let mut positive = stream.index(chosen.samples.len() - 1);
        if positive >= reference {
            positive += 1;
        }

        let taken = [&chosen.samples[reference], &chosen.samples[positive]];
        let others: Vec<(usize, Vec<usize>)> = cells
            .iter()
            .enumerate()
            .filter(|(_, other)| self.may_meet(contest, chosen.policy, other.policy))
            .map(|(number, other)| {
                let distinct = (0..other.samples.len())
                    .filter(|&sample| !taken.contains(&&other.samples[sample]));
                (number, distinct.collect())
            })
            .filter(|(_, distinct): &(_, Vec<usize>)| !distinct.is_empty())
            .collect();
        // Never empty: an eligible cell has somebody to meet with a text outside of all its own
        // samples.
        let (other, distinct) = &others[stream.index(others.len())];
        let negative = distinct[stream.index(distinct.len())];
        Some(TripletChoice {
            cell,
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

    fn cell(policy: u32, samples: &[&str]) -> Cell {
        Cell {
            policy,
            samples: samples.iter().map(|&text| text.into()).collect(),
        }
    }

    fn roles() -> Roles {
        Roles::new(&[
            policy("a", 90, false, &["a2"]),
            policy("a2", 10, false, &["a"]),
            policy("b", 10, false, &[]),
            policy("h", 10, true, &[]),
        ])
    }

    #[test]
    fn every_triplet_keeps_the_rules() {
        let roles = roles();
        let cells = [
            cell(0, &["x", "y", "z"]),
            cell(1, &["x", "p"]),
            cell(2, &["x", "y", "q"]),
            cell(3, &["r", "s"]),
        ];
        for contest in [Contest::Training, Contest::HeldoutPolicies] {
            for index in 0..2000 {
                let t = roles
                    .choose(contest, Weighting::Uniform, &cells, &[1, 2, index])
                    .unwrap();
                let (own, other) = (&cells[t.cell], &cells[t.other]);
                assert_ne!(t.reference, t.positive);
                let negative = &other.samples[t.negative];
                assert!(
                    *negative != own.samples[t.reference] && *negative != own.samples[t.positive]
                );
                assert_ne!(own.policy, other.policy);
                assert!(!(own.policy < 2 && other.policy < 2), "aliases met");
                match contest {
                    Contest::Training => assert!(own.policy != 3 && other.policy != 3),
                    Contest::HeldoutPolicies => assert_eq!(own.policy, 3),
                }
                assert_eq!(
                    roles.choose(contest, Weighting::Uniform, &cells, &[1, 2, index]),
                    Some(t)
                );
            }
        }
    }

    #[test]
    fn unusable_prompts_are_refused() {
        let roles = roles();
        let choose =
            |cells: &[Cell]| roles.choose(Contest::Training, Weighting::Uniform, cells, &[0]);
        assert_eq!(choose(&[cell(0, &["x", "y"])]), None, "one policy");
        assert_eq!(
            choose(&[cell(0, &["x", "y"]), cell(1, &["z"])]),
            None,
            "an alias only"
        );
        assert_eq!(
            choose(&[cell(0, &["x"]), cell(2, &["y"])]),
            None,
            "no two samples"
        );
        assert_eq!(
            choose(&[cell(0, &["x", "y"]), cell(2, &["x"])]),
            None,
            "no text of its own"
        );
        assert_eq!(
            choose(&[cell(3, &["x", "y"]), cell(2, &["z"])]),
            None,
            "a held-out policy"
        );
    }

    #[test]
    fn balanced_weighting_favours_rare_policies() {
        let roles = roles();
        let cells = [cell(0, &["x", "y"]), cell(2, &["p", "q"])];
        let common = |weighting| {
            (0..4000)
                .filter(|&index| {
                    roles
                        .choose(Contest::Training, weighting, &cells, &[index])
                        .unwrap()
                        .cell
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
