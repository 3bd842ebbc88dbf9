//! How much of triplets' texts [`SampleConfig`](crate::SampleConfig) cuts off, counted.

use std::collections::BTreeMap;

use crate::inspect::Share;
use crate::sample::TokenTriplet;

/// Prompts and answers that are shown in part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cuts {
    /// Prompts, each once.
    pub prompts: Share,
    /// Answers, each once: references, positives and negatives.
    pub answers: Share,
    /// Triplets that they are of.
    pub triplets: u64,
}

impl Cuts {
    /// Counts what was cut of these triplets.
    pub fn of(triplets: &[TokenTriplet]) -> Self {
        let mut prompts = BTreeMap::new();
        let mut answers = BTreeMap::new();
        for triplet in triplets {
            let source = &triplet.source;
            let id = source.prompt_id.as_str();
            let cut = |whole: u32, shown: &[u32]| whole as usize > shown.len();
            prompts.insert(id, cut(source.prompt_tokens, &triplet.prompt));
            for (policy, answer, shown) in [
                (triplet.policy, source.reference, &triplet.reference),
                (triplet.policy, source.positive, &triplet.positive),
                (triplet.other, source.negative, &triplet.negative),
            ] {
                answers.insert((id, policy, answer.sample), cut(answer.tokens, shown));
            }
        }
        Self {
            prompts: share(prompts.into_values()),
            answers: share(answers.into_values()),
            triplets: triplets.len() as u64,
        }
    }
}

fn share(cut: impl Iterator<Item = bool>) -> Share {
    cut.fold(Share::default(), |share, cut| Share {
        some: share.some + u64::from(cut),
        all: share.all + 1,
    })
}
