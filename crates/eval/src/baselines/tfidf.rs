//! Similarity of an answer to the reference, or to the prompt where there is none: the cosine of weighted counts of
//! sequences of three and four letters.
//!
//! Weights are ln((1 + n) / (1 + d)) + 1 for a sequence that d of the benchmark's n texts have (answers and what they are
//! compared with, each once), so a benchmark's own texts decide what is rare.

use crate::{
    question::Bench,
    rewards::{Group, RewardError, Rewards},
};
use ahash::{AHashMap, AHashSet};
use rayon::prelude::*;

/// Sequences of so many letters.
const LENGTHS: [usize; 2] = [3, 4];

/// The baseline, with the weights of a benchmark.
#[derive(Debug)]
pub struct TfIdf {
    texts: usize,
    /// How many texts have a sequence, by its hash.
    having: AHashMap<u64, u32>,
}

impl TfIdf {
    /// Counts in how many of a benchmark's texts each sequence is.
    pub fn of(bench: &Bench) -> TfIdf {
        let questions = bench.questions.iter();
        let texts: AHashSet<&str> = questions
            .flat_map(|question| {
                let other = question.reference.as_ref().unwrap_or(&question.prompt);
                question.answers.iter().chain([other]).map(String::as_str)
            })
            .collect();
        let texts: Vec<&str> = texts.into_iter().collect();
        let count = |mut having: AHashMap<u64, u32>, text: &&str| {
            for (sequence, _) in counts(text) {
                *having.entry(sequence).or_default() += 1;
            }
            having
        };
        let merge = |mut into: AHashMap<u64, u32>, from: AHashMap<u64, u32>| {
            for (sequence, texts) in from {
                *into.entry(sequence).or_default() += texts;
            }
            into
        };
        let having = texts.par_iter().fold(AHashMap::default, count);
        TfIdf {
            texts: texts.len(),
            having: having.reduce(AHashMap::default, merge),
        }
    }

    /// A text as a vector of length one, by the hash of the sequence.
    fn vector(&self, text: &str) -> Vec<(u64, f64)> {
        let weight = |(sequence, count): (u64, u32)| {
            let having = self.having.get(&sequence).copied().unwrap_or(0);
            let rare = (1.0 + self.texts as f64) / (1.0 + f64::from(having));
            (sequence, f64::from(count) * (rare.ln() + 1.0))
        };
        let mut vector: Vec<(u64, f64)> = counts(text).into_iter().map(weight).collect();
        let norm = vector
            .iter()
            .map(|(_, value)| value * value)
            .sum::<f64>()
            .sqrt();
        for (_, value) in &mut vector {
            *value /= norm;
        }
        vector
    }
}

impl Rewards for TfIdf {
    fn rewards(&mut self, groups: &[Group<'_>]) -> Result<Vec<Vec<f64>>, RewardError> {
        let similarities = |group: &Group<'_>| {
            let other = self.vector(group.reference.unwrap_or(group.prompt));
            let answers = group.answers.iter();
            answers
                .map(|answer| cosine(&other, &self.vector(answer)))
                .collect()
        };
        Ok(groups.par_iter().map(similarities).collect())
    }
}

/// How often each sequence is in a text, in the order of their hashes: sums don't depend on chance.
fn counts(text: &str) -> Vec<(u64, u32)> {
    let letters: Vec<u32> = text
        .chars()
        .flat_map(char::to_lowercase)
        .map(u32::from)
        .collect();
    let all = LENGTHS.iter().flat_map(|length| letters.windows(*length));
    let mut hashes: Vec<u64> = all.map(hash).collect();
    hashes.sort_unstable();
    let same = hashes.chunk_by(|a, b| a == b);
    same.map(|same| (same[0], same.len() as u32)).collect()
}

/// Distinct for sequences of different letters or lengths, nearly always: FNV's steps over letters, mixed at the end.
fn hash(letters: &[u32]) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64 ^ letters.len() as u64;
    for &letter in letters {
        hash = (hash ^ u64::from(letter)).wrapping_mul(0x0000_0100_0000_01B3);
        hash ^= hash >> 29;
    }
    hash.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn cosine(mut a: &[(u64, f64)], mut b: &[(u64, f64)]) -> f64 {
    let mut sum = 0.0;
    while let (Some((x, one)), Some((y, other))) = (a.first(), b.first()) {
        if x == y {
            sum += one * other;
        }
        if x <= y {
            a = &a[1..];
        }
        if y <= x {
            b = &b[1..];
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::Builder;

    #[test]
    fn what_repeats_the_reference_is_above_what_does_not_and_common_sequences_weigh_little() {
        let mut builder = Builder::default();
        let question = builder.question("which animal?", Some("the zebra of the steppe"));
        for answer in [
            "the horse of the stable",
            "a zebra",
            "the zebra of the steppe",
            "",
        ] {
            builder.answer(question, answer);
        }
        let kind = crate::Kind::Pair {
            better: 1,
            worse: 0,
        };
        builder.task(question, "all".to_owned(), kind);
        let bench = builder.finish();
        let groups = [Group::of(&bench.questions[0], true)];
        let found = TfIdf::of(&bench).rewards(&groups).unwrap();
        let [horse, zebra, same, empty] = found[0][..] else {
            panic!("four answers");
        };
        assert!((same - 1.0).abs() < 1e-12);
        assert!(zebra > 0.0 && horse > 0.0 && same > zebra.max(horse));
        assert_eq!(empty, 0.0);
        // Without the reference it is the prompt that counts.
        let groups = [Group::of(&bench.questions[0], false)];
        let found = TfIdf::of(&bench).rewards(&groups).unwrap();
        assert!(found[0].iter().all(|similarity| *similarity < 0.5));
    }
}
