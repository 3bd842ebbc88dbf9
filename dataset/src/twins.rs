//! Policies whose answers repeat each other's: how often two of them give the same answer to the same
//! prompt, or nearly, and which policies an import held out in view of that.
//!
//! Right answers to closed questions are everyone's, so three things make the rule robust: answers of fewer
//! than 40 letters don't count; at least 3 prompts must have equal answers; and the share of such prompts,
//! among those to which both gave an answer that counts, must stand out from the share that is usual between
//! two policies of the corpus.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::triplet::PolicySamples;
use polestar_core::similarity::Sketch;

/// Shorter answers, in letters, count for nothing.
const TELLING_LETTERS: usize = 40;
/// Texts that resemble each other at least so much are nearly copies.
pub(crate) const NEARLY_EQUAL: f64 = 0.9;
/// Twins have so many prompts with equal answers,
const LEAST_PROMPTS: u64 = 3;
/// and at least this share of them.
const LEAST_SHARE: f64 = 0.1;

/// How often two policies give the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Likeness {
    /// The other policy.
    pub policy: String,
    /// Prompts to which some answer of both is the same, or nearly.
    pub equal: u64,
    /// Prompts to which both gave an answer of 40 letters.
    pub prompts: u64,
}

impl Likeness {
    /// From 0 to 1.
    pub fn share(&self) -> f64 {
        self.equal as f64 / self.prompts.max(1) as f64
    }
}

impl fmt::Display for Likeness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, the same answers to {} of {} prompts ({:.1} %)",
            self.policy,
            self.equal,
            self.prompts,
            100.0 * self.share()
        )
    }
}

/// Why a policy is held out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It was named, by this name or pattern.
    Named(String),
    /// The seed chose it.
    Chosen,
    /// It is an alias of a policy that is held out.
    AliasOf(String),
    /// It is a twin of a policy that the seed chose.
    TwinOf(String),
}

/// A policy that is held out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOutPolicy {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: Reason,
    /// The trained policy that most often gives the same answers, if one does at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closest: Option<Likeness>,
    /// Whether that policy is a twin: then this one is not new.
    #[serde(default, skip_serializing_if = "crate::origin::is_false")]
    pub twin_trained: bool,
}

/// A policy that the seed's lot fell on and that is trained on all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassedOver {
    /// Its name.
    pub name: String,
    /// The twin because of which it was passed over.
    pub twin: Likeness,
}

/// What an import held out of the policies, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOutPolicies {
    /// Those held out, by name.
    pub policies: Vec<HeldOutPolicy>,
    /// Those not held out because of a twin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<PassedOver>,
    /// Prompts on which answers were compared.
    pub compared_prompts: u64,
}

/// Lines of a list that are shown.
const SHOWN: usize = 10;

impl fmt::Display for HeldOutPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (held, prompts) = (self.policies.len(), self.compared_prompts);
        writeln!(
            f,
            "{held} policies held out (answers compared on {prompts} prompts):"
        )?;
        for policy in &self.policies {
            let why = match &policy.reason {
                Reason::Named(by) if *by == policy.name => "named".into(),
                Reason::Named(by) => format!("named by '{by}'"),
                Reason::Chosen => "chosen by the seed".into(),
                Reason::AliasOf(name) => format!("an alias of {name}"),
                Reason::TwinOf(name) => format!("a twin of {name}"),
            };
            let closest = match &policy.closest {
                None => "no trained policy gives the same answers".into(),
                Some(twin) if policy.twin_trained => format!("ITS TWIN IS TRAINED ON: {twin}"),
                Some(closest) => format!("closest: {closest}"),
            };
            writeln!(f, "  {}: {why}; {closest}", policy.name)?;
        }
        if self.policies.iter().any(|policy| policy.twin_trained) {
            writeln!(
                f,
                "  scores on a policy whose twin is trained on flatter: hold the twin out as well \
                 (--heldout-policy TWIN), or, if both are one policy, say so (--alias NAME=TWIN)"
            )?;
        }
        if !self.passed_over.is_empty() {
            let passed = self.passed_over.len();
            writeln!(f, "{passed} policies not held out because of a twin:")?;
        }
        for PassedOver { name, twin } in self.passed_over.iter().take(SHOWN) {
            writeln!(f, "  {name} ~ {twin}")?;
        }
        match self.passed_over.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more"),
        }
    }
}

/// An answer that counts, and whose.
pub(crate) struct Telling<'a> {
    pub(crate) policy: u32,
    text: &'a str,
    sketch: Sketch,
}

impl Telling<'_> {
    /// Whether the two are the same, or nearly.
    pub(crate) fn repeats(&self, other: &Self) -> bool {
        self.text == other.text || self.sketch.resembles(&other.sketch, NEARLY_EQUAL)
    }
}

/// The answers to a prompt that count, in the order of their policies.
pub(crate) fn telling(policies: &[PolicySamples]) -> Vec<Telling<'_>> {
    let answers = policies.iter().flat_map(|given| {
        let texts = given.samples.iter().map(|text| text.trim());
        let long = texts.filter(|text| text.chars().nth(TELLING_LETTERS - 1).is_some());
        long.map(move |text| (given.policy, text))
    });
    let answers: Vec<(u32, &str)> = answers.collect();
    let sketched = answers.par_iter().map(|&(policy, text)| Telling {
        policy,
        text,
        sketch: Sketch::of(text),
    });
    sketched.collect()
}

/// Counts over prompts which policies give the same answers: over those with the smallest lots, so that the
/// work is bounded and the answer has nothing to do with the order of the prompts.
#[derive(Debug)]
pub(crate) struct TwinCount {
    most: usize,
    prompts: BTreeMap<u128, Compared>,
}

/// One prompt.
#[derive(Debug)]
struct Compared {
    /// Policies with an answer that counts.
    telling: BTreeSet<u32>,
    /// Pairs of them with the same answer, the smaller number first.
    alike: BTreeSet<(u32, u32)>,
}

/// Two policies, the smaller number first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pair {
    pub(crate) policies: (u32, u32),
    /// Prompts with the same answer.
    pub(crate) equal: u64,
    /// Prompts to which both gave an answer that counts.
    pub(crate) prompts: u64,
}

impl Pair {
    pub(crate) fn share(&self) -> f64 {
        self.equal as f64 / self.prompts.max(1) as f64
    }
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Resemblances {
    /// Pairs with at least one prompt of the same answer.
    pub(crate) pairs: Vec<Pair>,
    /// The median share over all pairs that share at least 3 prompts.
    pub(crate) usual: f64,
    /// Prompts compared.
    pub(crate) prompts: u64,
}

impl TwinCount {
    /// Counts over at most so many prompts.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            prompts: BTreeMap::new(),
        }
    }

    /// Whether a prompt with this lot is to be compared.
    pub(crate) fn wants(&self, lot: u128) -> bool {
        let last = self.prompts.last_key_value();
        self.prompts.len() < self.most || last.is_some_and(|(&last, _)| lot < last)
    }

    /// Compares the answers to a prompt.
    pub(crate) fn compare(&mut self, lot: u128, answers: &[Telling<'_>]) {
        let mut compared = Compared {
            telling: answers.iter().map(|answer| answer.policy).collect(),
            alike: BTreeSet::new(),
        };
        // Texts that resemble each other share one of their smallest hashes.
        let mut by_key: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (at, answer) in answers.iter().enumerate() {
            let earlier: BTreeSet<usize> = (answer.sketch.keys().iter())
                .filter_map(|key| by_key.get(key))
                .flatten()
                .copied()
                .collect();
            for other in earlier.into_iter().map(|earlier| &answers[earlier]) {
                let pair = (
                    answer.policy.min(other.policy),
                    answer.policy.max(other.policy),
                );
                if pair.0 != pair.1 && !compared.alike.contains(&pair) && answer.repeats(other) {
                    compared.alike.insert(pair);
                }
            }
            for &key in answer.sketch.keys() {
                by_key.entry(key).or_default().push(at);
            }
        }
        self.prompts.insert(lot, compared);
        if self.prompts.len() > self.most {
            self.prompts.pop_last();
        }
    }

    /// What was found.
    pub(crate) fn finish(self) -> Resemblances {
        let mut equal: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        // Of each policy a bit a prompt.
        let words = self.prompts.len().div_ceil(64);
        let mut answered: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for (number, compared) in self.prompts.values().enumerate() {
            for &pair in &compared.alike {
                *equal.entry(pair).or_default() += 1;
            }
            for &policy in &compared.telling {
                let bits = answered.entry(policy).or_insert_with(|| vec![0; words]);
                bits[number / 64] |= 1 << (number % 64);
            }
        }
        let (mut pairs, mut shares) = (Vec::new(), Vec::new());
        for (&a, a_bits) in &answered {
            for (&b, b_bits) in answered.range(a + 1..) {
                let common = a_bits.iter().zip(b_bits);
                let pair = Pair {
                    policies: (a, b),
                    equal: equal.get(&(a, b)).copied().unwrap_or(0),
                    prompts: common.map(|(a, b)| u64::from((a & b).count_ones())).sum(),
                };
                if pair.prompts >= LEAST_PROMPTS {
                    shares.push(pair.share());
                }
                if pair.equal > 0 {
                    pairs.push(pair);
                }
            }
        }
        shares.sort_unstable_by(f64::total_cmp);
        Resemblances {
            pairs,
            usual: shares.get(shares.len() / 2).copied().unwrap_or(0.0),
            prompts: self.prompts.len() as u64,
        }
    }
}

impl Resemblances {
    /// Whether two policies repeat each other so often that they are hardly two.
    pub(crate) fn twins(&self, pair: &Pair) -> bool {
        // Three times what is usual, or half of the way from there to always, whichever comes first.
        let usual = self.usual;
        let unusual = (3.0 * usual).min((1.0 + usual) / 2.0).max(LEAST_SHARE);
        pair.equal >= LEAST_PROMPTS && pair.share() >= unusual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six policies; `answer` says what each answers to each prompt.
    fn counted(prompts: u32, most: usize, answer: impl Fn(u32, u32) -> String) -> Resemblances {
        let mut count = TwinCount::new(most);
        for prompt in 0..prompts {
            let given = (0..6).map(|policy| PolicySamples {
                policy,
                samples: vec![answer(prompt, policy)],
            });
            let given: Vec<PolicySamples> = given.collect();
            let lot = u128::from(prompt * 7 % prompts);
            if count.wants(lot) {
                count.compare(lot, &telling(&given));
            }
        }
        count.finish()
    }

    fn own_words(prompt: u32, policy: u32) -> String {
        let word = |n: u32| format!("{policy}x{}", prompt * 31 + n * 7);
        (0..12).map(word).collect::<Vec<_>>().join(" ")
    }

    fn twins(found: &Resemblances) -> Vec<(u32, u32)> {
        let twins = found.pairs.iter().filter(|pair| found.twins(pair));
        twins.map(|pair| pair.policies).collect()
    }

    #[test]
    fn twins_are_found_whatever_is_right() {
        // Policies 1 and 4 agree on every fourth prompt but for a full stop.
        let found = counted(40, 100, |prompt, policy| match (prompt % 4, policy) {
            (0, 1) => own_words(prompt, 4) + ".",
            _ => own_words(prompt, policy),
        });
        assert_eq!((twins(&found), found.prompts), (vec![(1, 4)], 40));
        assert_eq!((found.pairs[0].equal, found.pairs[0].prompts), (10, 40));

        // Short right answers are everyone's, and so are long ones.
        let short = counted(40, 100, |prompt, _| format!("The answer is {prompt}."));
        assert_eq!((twins(&short), short.pairs.len()), (vec![], 0));
        let long = counted(40, 100, |prompt, policy| match prompt % 2 {
            0 => own_words(prompt, 9),
            _ => own_words(prompt, policy),
        });
        assert_eq!((twins(&long), long.usual), (vec![], 0.5));
        // Among them, who agrees always stands out.
        let both = counted(40, 100, |prompt, policy| match (prompt % 2, policy) {
            (0, _) => own_words(prompt, 9),
            (_, 2) => own_words(prompt, 3),
            _ => own_words(prompt, policy),
        });
        assert_eq!(twins(&both), [(2, 3)]);
    }

    #[test]
    fn a_sample_of_the_prompts_is_compared_whatever_their_order() {
        let agreeing = |prompt: u32, policy| match prompt * 7 % 40 < 10 && policy == 1 {
            true => own_words(prompt, 4),
            false => own_words(prompt, policy),
        };
        let found = counted(40, 10, agreeing);
        assert_eq!((found.pairs[0].equal, found.pairs[0].prompts), (10, 10));
        assert_eq!((twins(&found), found.prompts), (vec![(1, 4)], 10));
    }
}
