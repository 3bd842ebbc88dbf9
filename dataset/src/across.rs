//! Pairs across prompts: triplets of a corpus that has one answer of each policy to each prompt. The
//! reference is the policy's answer to another prompt, the two candidates answer this one.
//!
//! ```text
//! same prompt      [BOS] P REF(P) <split> P | POS(P) | NEG(P)
//! across prompts   [BOS] Q REF(Q) <split> P | POS(P) | NEG(P)
//! ```
//! The other prompt is of the same row group, the unit of reading, and of the same cluster if the corpus has
//! clusters. So a triplet costs no further read, and stays a pure function of the row group and a key; and
//! since a file holds prompts of one split only, no triplet crosses the line between them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::manifest::Policy;
use crate::reader::PromptSamples;
use crate::triplet::{Obstacle, PolicySamples, PolicyTable, Task, TripletChoice, Weighting};
use polestar_core::random::Stream;

/// Which answers are the reference and the positive of a triplet.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Pairs {
    /// Two answers of one policy to the same prompt.
    #[default]
    SamePrompt,
    /// The reference answers another prompt of the same cluster; one answer of each policy to each prompt
    /// suffices.
    AcrossPrompts,
}

impl Pairs {
    /// Whether pairs are what they are if nobody says anything.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a corpus's triplets are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Pairing {
    pub(crate) pairs: Pairs,
    /// Key in the rows' meta by which prompts are clustered.
    pub(crate) cluster: Option<String>,
}

impl Pairing {
    /// What is to be known of the policies.
    pub(crate) fn policy_table(&self, policies: &[Policy]) -> PolicyTable {
        match self.pairs {
            Pairs::SamePrompt => PolicyTable::new(policies),
            Pairs::AcrossPrompts => PolicyTable::across_prompts(policies),
        }
    }

    /// The cluster that a row's meta names.
    pub(crate) fn cluster_of(&self, meta: Option<&str>) -> Option<String> {
        let mut meta: Value = serde_json::from_str(meta?).ok()?;
        match meta.get_mut(self.cluster.as_ref()?)?.take() {
            Value::Null => None,
            Value::String(name) => Some(name),
            other => Some(other.to_string()),
        }
    }
}

/// Where the answers of each policy are that may be references, among the prompts of one row group.
#[derive(Debug, Default)]
pub(crate) struct References {
    /// The number of every prompt's cluster.
    clusters: Vec<usize>,
    /// By cluster and policy: prompts, and the policy's position in each.
    answered: BTreeMap<(usize, u32), Vec<(usize, usize)>>,
}

impl References {
    pub(crate) fn new(prompts: &[PromptSamples]) -> Self {
        let mut found = Self::default();
        let mut numbers: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        for (at, prompt) in prompts.iter().enumerate() {
            let next = numbers.len();
            let cluster = *numbers.entry(prompt.cluster.as_deref()).or_insert(next);
            found.clusters.push(cluster);
            for (position, given) in prompt.policies.iter().enumerate() {
                let answered = found.answered.entry((cluster, given.policy)).or_default();
                answered.push((at, position));
            }
        }
        found
    }
}

/// Where an answer stands in a row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The prompt that it answers.
    pub(crate) prompt: usize,
    /// Its policy among that prompt's.
    pub(crate) policy: usize,
    /// Which of the policy's samples.
    pub(crate) sample: usize,
}

/// Where the three answers of a triplet stand in a row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Places {
    /// Of the same policy as the positive.
    pub(crate) reference: Place,
    /// An answer to the triplet's prompt.
    pub(crate) positive: Place,
    /// Another policy's answer to the triplet's prompt.
    pub(crate) negative: Place,
}

impl Places {
    /// Of a triplet of the one prompt at a position.
    pub(crate) fn at(prompt: usize, choice: &TripletChoice) -> Self {
        let place = |policy, sample| Place {
            prompt,
            policy,
            sample,
        };
        Self {
            reference: place(choice.own, choice.reference),
            positive: place(choice.own, choice.positive),
            negative: place(choice.other, choice.negative),
        }
    }
}

/// The prompts of a row group with the policies that may be compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Across<'a> {
    pub(crate) policies: &'a PolicyTable,
    pub(crate) task: Task,
    pub(crate) prompts: &'a [PromptSamples],
    pub(crate) references: &'a References,
}

impl<'a> Across<'a> {
    /// Whether the prompt at a position has a triplet at all.
    pub(crate) fn usable(&self, at: usize) -> bool {
        let mut given = self.prompts[at].policies.iter();
        given.any(|own| self.eligible(at, own))
    }

    /// Why the prompt at a position gives no training triplet; `None` where it gives one.
    pub(crate) fn obstacle(&self, at: usize) -> Option<Obstacle> {
        if self.usable(at) {
            return None;
        }
        let given = &self.prompts[at].policies;
        if given.len() < 2 {
            return Some(Obstacle::OnePolicy);
        }
        if !given.iter().any(|own| self.meets(at, own)) {
            let trained = given.iter().filter(|own| self.policies.trains(own.policy));
            return Some(match trained.count() {
                0 | 1 => Obstacle::HeldOut,
                _ => Obstacle::Aliases,
            });
        }
        let opposed: Vec<&'a PolicySamples> = given
            .iter()
            .filter(|own| self.opposing(at, own).next().is_some())
            .collect();
        let partnered = |own: &&'a PolicySamples| self.fresh(at, own).next().is_some();
        Some(match opposed.is_empty() || opposed.iter().any(partnered) {
            true => Obstacle::EqualAnswers,
            false => Obstacle::NoPartner,
        })
    }

    /// The triplet of a prompt for a key, or `None` when the prompt is not usable.
    pub(crate) fn choose(&self, weighting: Weighting, at: usize, key: &[u64]) -> Option<Places> {
        let given = &self.prompts[at].policies;
        let eligible: Vec<usize> = (0..given.len())
            .filter(|&own| self.eligible(at, &given[own]))
            .collect();
        if eligible.is_empty() {
            return None;
        }
        let mut stream = Stream::new("triplet across prompts", key);
        let weights = eligible
            .iter()
            .map(|&own| self.policies.weight(weighting, given[own].policy));
        let own = eligible[stream.weighted(weights)];
        let chosen = &given[own];

        let references: Vec<Place> = self.fresh(at, chosen).collect();
        // A prompt with several answers is no likelier than one with a single one.
        let partners: Vec<&[Place]> = references.chunk_by(|a, b| a.prompt == b.prompt).collect();
        let partner = partners[stream.index(partners.len())];
        let reference = partner[stream.index(partner.len())];
        let positive = stream.index(chosen.samples.len());

        let taken = [self.text(reference), chosen.samples[positive].as_str()];
        let others = given.iter().enumerate().filter_map(|(number, other)| {
            let differs = |&sample: &usize| !taken.contains(&other.samples[sample].as_str());
            let can = self
                .policies
                .can_oppose(self.task, chosen.policy, other.policy);
            let distinct: Vec<usize> = match can {
                true => (0..other.samples.len()).filter(differs).collect(),
                false => vec![],
            };
            (!distinct.is_empty()).then_some((number, distinct))
        });
        let others: Vec<(usize, Vec<usize>)> = others.collect();
        // Never empty: an eligible policy is opposed by a text that is none of its own, nor a reference.
        let (other, distinct) = &others[stream.index(others.len())];
        let place = |policy, sample| Place {
            prompt: at,
            policy,
            sample,
        };
        Some(Places {
            reference,
            positive: place(own, positive),
            negative: place(*other, distinct[stream.index(distinct.len())]),
        })
    }

    fn text(&self, reference: Place) -> &'a str {
        let prompt = &self.prompts[reference.prompt];
        &prompt.policies[reference.policy].samples[reference.sample]
    }

    /// Whether a policy can give the reference: it answered another prompt otherwise than this one, and is
    /// opposed here by a text that it gave to none of these prompts.
    fn eligible(&self, at: usize, own: &'a PolicySamples) -> bool {
        let given_elsewhere = |text: &str| {
            self.fresh(at, own)
                .any(|reference| self.text(reference) == text)
        };
        self.fresh(at, own).next().is_some()
            && self.opposing(at, own).any(|text| !given_elsewhere(text))
    }

    /// Texts of other policies that this one didn't give to the prompt.
    fn opposing(&self, at: usize, own: &'a PolicySamples) -> impl Iterator<Item = &'a str> {
        let this = *self;
        let others = this.prompts[at].policies.iter();
        let others = others.filter(move |other| {
            this.policies
                .can_oppose(this.task, own.policy, other.policy)
        });
        others
            .flat_map(|other| &other.samples)
            .filter(move |text| !own.samples.contains(text))
            .map(String::as_str)
    }

    /// Whether another policy of the prompt may oppose this one, whatever it says.
    fn meets(&self, at: usize, own: &PolicySamples) -> bool {
        let mut others = self.prompts[at].policies.iter();
        others.any(|other| {
            self.policies
                .can_oppose(self.task, own.policy, other.policy)
        })
    }

    /// What a policy answered to other prompts of the cluster and not to this one.
    fn fresh(&self, at: usize, own: &'a PolicySamples) -> impl Iterator<Item = Place> {
        let this = *self;
        let cluster = this.references.clusters[at];
        let answered = this.references.answered.get(&(cluster, own.policy));
        let elsewhere = answered.into_iter().flatten();
        let elsewhere = elsewhere.filter(move |(prompt, _)| *prompt != at);
        elsewhere.flat_map(move |&(prompt, policy)| {
            let samples = &this.prompts[prompt].policies[policy].samples;
            let fresh = samples.iter().enumerate();
            let fresh = fresh.filter(move |(_, text)| !own.samples.contains(text));
            fresh.map(move |(sample, _)| Place {
                prompt,
                policy,
                sample,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, held_out: bool, aliases: &[&str]) -> Policy {
        Policy {
            name: name.into(),
            trajectories: 9,
            cells: 0,
            held_out,
            aliases: aliases.iter().map(|&name| name.into()).collect(),
        }
    }

    fn table() -> PolicyTable {
        PolicyTable::across_prompts(&[
            policy("a", false, &["a2"]),
            policy("a2", false, &["a"]),
            policy("b", false, &[]),
            policy("h", true, &[]),
        ])
    }

    fn prompt(cluster: &str, given: &[(u32, &[&str])]) -> PromptSamples {
        let policies = given.iter().map(|&(policy, texts)| PolicySamples {
            policy,
            samples: texts.iter().map(|&text| text.into()).collect(),
        });
        PromptSamples::of_policies(policies.collect(), Some(cluster.into()))
    }

    #[test]
    fn every_triplet_keeps_the_rules_and_uses_what_there_is() {
        let prompts = [
            prompt(
                "code",
                &[(0, &["a0"]), (1, &["a0'"]), (2, &["b0"]), (3, &["h0"])],
            ),
            prompt("code", &[(0, &["a1"]), (2, &["b1", "b1'"]), (3, &["h1"])]),
            prompt("code", &[(0, &["a2"]), (2, &["b1"]), (3, &["h2"])]),
            prompt("poem", &[(0, &["a3"]), (2, &["b3"])]),
        ];
        let (table, references) = (table(), References::new(&prompts));
        let mut met = std::collections::BTreeSet::new();
        for task in [Task::Training, Task::HeldoutPolicies] {
            let across = Across {
                policies: &table,
                task,
                prompts: &prompts,
                references: &references,
            };
            assert!(!across.usable(3), "it is alone in its cluster");
            assert_eq!(across.choose(Weighting::Uniform, 3, &[0]), None);
            for (at, index) in (0..3).flat_map(|at| (0..500).map(move |index| (at, index))) {
                let found = across.choose(Weighting::Balanced, at, &[7, index]).unwrap();
                assert_eq!(
                    across.choose(Weighting::Balanced, at, &[7, index]),
                    Some(found)
                );
                let policy = |place: Place| &prompts[place.prompt].policies[place.policy];
                let (own, other) = (policy(found.positive), policy(found.negative));
                assert_eq!((found.positive.prompt, found.negative.prompt), (at, at));
                assert!(found.reference.prompt != at && found.reference.prompt != 3);
                assert_eq!(policy(found.reference).policy, own.policy);
                let texts = [found.reference, found.positive, found.negative]
                    .map(|place| &policy(place).samples[place.sample]);
                assert!(texts[0] != texts[1] && texts[0] != texts[2] && texts[1] != texts[2]);
                assert!(own.policy > 1 || other.policy > 1, "aliases met");
                match task {
                    Task::Training => assert!(own.policy != 3 && other.policy != 3),
                    Task::HeldoutPolicies => assert_eq!(own.policy, 3),
                }
                met.insert((at, own.policy, other.policy, found.reference.prompt));
            }
        }
        // Of the training triplets of prompt 0 both policies, and both partners of each.
        for reference in [1, 2] {
            assert!(met.contains(&(0, 0, 2, reference)) && met.contains(&(0, 2, 0, reference)));
        }
    }

    #[test]
    fn an_obstacle_is_named() {
        let prompts = [
            prompt("x", &[(0, &["one"]), (2, &["two"])]),
            prompt("x", &[(0, &["three"])]),
            prompt("x", &[(0, &["four"]), (1, &["five"])]),
            prompt("x", &[(2, &["six"]), (3, &["seven"])]),
            prompt("y", &[(0, &["one"]), (2, &["two"])]),
            prompt("x", &[(0, &["same"]), (2, &["same"])]),
        ];
        let (table, references) = (table(), References::new(&prompts));
        let across = Across {
            policies: &table,
            task: Task::Training,
            prompts: &prompts,
            references: &references,
        };
        let expected = [
            None,
            Some(Obstacle::OnePolicy),
            Some(Obstacle::Aliases),
            Some(Obstacle::HeldOut),
            Some(Obstacle::NoPartner),
            Some(Obstacle::EqualAnswers),
        ];
        for (at, obstacle) in expected.into_iter().enumerate() {
            assert_eq!(across.obstacle(at), obstacle, "{at}");
        }
    }

    #[test]
    fn a_cluster_is_what_the_meta_names() {
        let pairing = Pairing {
            pairs: Pairs::AcrossPrompts,
            cluster: Some("task".into()),
        };
        let of = |meta| pairing.cluster_of(Some(meta));
        assert_eq!(of(r#"{"task": "code", "k": 1}"#).as_deref(), Some("code"));
        assert_eq!(of(r#"{"task": 7}"#).as_deref(), Some("7"));
        assert_eq!((of(r#"{"task": null}"#), of("{}")), (None, None));
        assert_eq!(pairing.cluster_of(None), None);
    }
}
