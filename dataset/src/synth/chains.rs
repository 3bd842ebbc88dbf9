//! The artificial policies: their words and their transition weights, whole numbers so that
//! sampling and likelihood agree exactly.

use crate::origin::SynthOptions;
use polestar_core::random::Stream;

const CONSONANTS: &[u8] = b"bdfgklmnprstvz";
const VOWELS: &[u8] = b"aeiou";
const SYLLABLES: usize = CONSONANTS.len() * VOWELS.len();

/// Distinct words of two syllables.
pub(super) const MOST_WORDS: u32 = (SYLLABLES * SYLLABLES) as u32;

/// Weights are multiples of 2^-20.
const WEIGHT_UNIT: f64 = (1u64 << 20) as f64;
/// Bounds the log-weights, so that a row's sum stays far below 2^64 and no transition is
/// impossible.
const MOST_LOG_WEIGHT: f64 = 12.0;

/// The words, distinct and pronounceable.
pub(super) fn vocabulary(options: &SynthOptions) -> Vec<String> {
    let order = Stream::new("synth words", &[options.seed]).permutation(MOST_WORDS as usize);
    let syllable = |number: usize| {
        let letters = [
            CONSONANTS[number / VOWELS.len()],
            VOWELS[number % VOWELS.len()],
        ];
        letters.map(char::from)
    };
    let word = |number: u32| {
        let number = number as usize;
        [syllable(number / SYLLABLES), syllable(number % SYLLABLES)]
            .into_iter()
            .flatten()
            .collect()
    };
    order
        .into_iter()
        .take(options.words as usize)
        .map(word)
        .collect()
}

/// A first-order Markov chain over words.
pub(super) struct Chain {
    words: usize,
    /// Row-major weights of the transitions.
    weights: Vec<u64>,
    /// Natural logarithms of the transitions' probabilities.
    log_probabilities: Vec<f64>,
}

/// The chain of every policy. A taste weighs words whatever came before them, which shows in a few
/// words; a habit weighs transitions, which takes longer to notice.
pub(super) fn chains(options: &SynthOptions) -> Vec<Chain> {
    let words = options.words as usize;
    let tilt = |purpose, number: u32, count: usize, strength: f64| -> Vec<f64> {
        let mut stream = Stream::new(purpose, &[options.seed, u64::from(number)]);
        (0..count).map(|_| strength * stream.normal()).collect()
    };
    let base = tilt("synth base", 0, words * words, options.base_strength);
    let tastes: Vec<Vec<f64>> = (0..options.families)
        .map(|family| tilt("synth family", family, words, options.family_strength))
        .collect();
    (0..options.policies)
        .map(|policy| {
            let family = &tastes[(policy % options.families) as usize];
            let own = tilt("synth policy", policy, words, options.own_strength);
            let habit = tilt("synth habit", policy, words * words, options.habit_strength);
            let logits = (0..words * words).map(|at| {
                let next = at % words;
                (base[at] + family[next] + own[next] + habit[at]) / options.temperature
            });
            Chain::new(words, logits)
        })
        .collect()
}

impl Chain {
    fn new(words: usize, logits: impl Iterator<Item = f64>) -> Self {
        // Rounding to whole numbers absorbs the last bits in which platforms' exponentials differ.
        let weight = |logit: f64| {
            let bounded = logit.clamp(-MOST_LOG_WEIGHT, MOST_LOG_WEIGHT);
            (bounded.exp() * WEIGHT_UNIT).round() as u64
        };
        let weights: Vec<u64> = logits.map(weight).collect();
        let rows = weights.chunks(words);
        let log_probabilities = rows.flat_map(|row| {
            let total = (row.iter().sum::<u64>() as f64).ln();
            row.iter().map(move |&weight| (weight as f64).ln() - total)
        });
        Self {
            words,
            log_probabilities: log_probabilities.collect(),
            weights,
        }
    }

    /// The word after `state`.
    pub(super) fn step(&self, state: usize, stream: &mut Stream) -> usize {
        let row = &self.weights[state * self.words..(state + 1) * self.words];
        stream.weighted(row.iter().copied())
    }

    /// ln of the probability of `text` after `state`.
    pub(super) fn log_likelihood(&self, mut state: usize, text: &[usize]) -> f64 {
        let mut sum = 0.0;
        for &word in text {
            sum += self.log_probabilities[state * self.words + word];
            state = word;
        }
        sum
    }
}
