//! The planted optimum: how well the triplets of a synthetic corpus can be told apart by one who
//! knows the policies.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::corpus::{self, Corpus};
use crate::origin::Origin;
use crate::sample::{SampleConfig, TokenTriplet};
use crate::sampler::Split;
use crate::tokenizer;

use super::chains::{Chain, chains, vocabulary};

/// Why the optimum could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The triplets could not be had.
    #[error("could not read the validation triplets")]
    Triplets(#[source] corpus::Error),
    /// A word could not be tokenized.
    #[error("could not tokenize the word '{word}'")]
    Word {
        /// The word.
        word: String,
        /// What went wrong.
        source: tokenizer::Error,
    },
    /// A token is no word of the vocabulary.
    #[error("token {token} is no word of the synthetic vocabulary; synthesize the corpus anew")]
    Token {
        /// The token.
        token: u32,
    },
}

/// What the best discriminator reaches on a set of triplets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Optimum {
    /// Mean of -ln P(the positive is the mate): no reward model can be expected to lose less.
    pub loss: f64,
    /// Share of triplets where the positive is the likelier mate.
    pub accuracy: f64,
    /// Triplets.
    pub triplets: usize,
}

/// A triplet in words: the last word of the prompt, if any of it is shown, and the three responses.
#[derive(Debug, Clone, PartialEq, Eq)]
struct WordTriplet {
    before: Option<usize>,
    reference: Vec<usize>,
    positive: Vec<usize>,
    negative: Vec<usize>,
}

/// The optimum on exactly the triplets that [`Corpus::validation`] returns for the same arguments,
/// as far as clipping leaves them visible. `None` when the corpus is not synthetic or has no such
/// split.
///
/// The prior is the triplets' own: reference and negative come from any two different policies that
/// the split admits, all pairs alike. That samples of a policy are distinct is left out of account,
/// which matters for responses of a few words only.
///
/// # Errors
/// Those of [`Corpus::validation`]; a token that is none of the words'.
pub async fn planted_optimum(
    corpus: &Corpus,
    split: Split,
    count: usize,
    seed: u64,
    samples: &SampleConfig,
) -> Result<Option<Optimum>, Error> {
    let Origin::Synth(origin) = &corpus.manifest().origin else {
        return Ok(None);
    };
    let triplets = corpus
        .validation(split, count, seed, samples)
        .await
        .map_err(Error::Triplets)?;
    if triplets.is_empty() {
        return Ok(None);
    }
    let options = origin.options();
    let chains = chains(options);
    let lexicon = Lexicon::new(corpus, &vocabulary(options))?;
    let triplets: Result<Vec<WordTriplet>, Error> = triplets
        .iter()
        .map(|triplet| lexicon.words(triplet))
        .collect();

    let held_out = |policy: &usize| corpus.manifest().policies[*policy].held_out;
    let all = 0..chains.len();
    let (mates, others): (Vec<usize>, Vec<usize>) = match split {
        Split::HeldoutPrompts => {
            let known: Vec<usize> = all.filter(|policy| !held_out(policy)).collect();
            (known.clone(), known)
        }
        Split::HeldoutPolicies => (all.clone().filter(held_out).collect(), all.collect()),
    };
    let oracle = Oracle {
        chains,
        mates,
        others,
        words: options.words as usize,
    };
    Ok(Some(oracle.optimum(&triplets?)))
}

/// What one who knows the policies knows: their chains, and who may be whom.
struct Oracle {
    chains: Vec<Chain>,
    /// Policies that may have given reference and positive.
    mates: Vec<usize>,
    /// Policies that may have given the negative.
    others: Vec<usize>,
    words: usize,
}

impl Oracle {
    /// ln (S / S'), exact, with S the sum of p_a(A) p_a(X) p_b(Y) over mates a and others b ≠ a,
    /// and S' the same with X and Y exchanged: X is the mate with probability S / (S + S').
    fn margin(&self, triplet: &WordTriplet) -> f64 {
        // A prompt of which nothing is shown leaves its last word open: any word, all alike.
        let starts = triplet.before.map_or(0..self.words, |word| word..word + 1);
        let (mut right, mut wrong) = (Vec::new(), Vec::new());
        for start in starts {
            let likelihood = |text: &[usize]| -> Vec<f64> {
                let chains = self.chains.iter();
                chains
                    .map(|chain| chain.log_likelihood(start, text))
                    .collect()
            };
            let a = likelihood(&triplet.reference);
            let (x, y) = (likelihood(&triplet.positive), likelihood(&triplet.negative));
            for &mate in &self.mates {
                for &other in self.others.iter().filter(|&&other| other != mate) {
                    right.push(a[mate] + x[mate] + y[other]);
                    wrong.push(a[mate] + y[mate] + x[other]);
                }
            }
        }
        log_sum_exp(&right) - log_sum_exp(&wrong)
    }

    fn optimum(&self, triplets: &[WordTriplet]) -> Optimum {
        let (mut loss, mut correct) = (0.0, 0.0);
        for triplet in triplets {
            let margin = self.margin(triplet);
            loss += negative_log_sigmoid(margin);
            correct += match margin.total_cmp(&0.0) {
                Ordering::Greater => 1.0,
                Ordering::Equal => 0.5,
                Ordering::Less => 0.0,
            };
        }
        let count = triplets.len() as f64;
        Optimum {
            loss: loss / count,
            accuracy: correct / count,
            triplets: triplets.len(),
        }
    }
}

/// -ln of the logistic function, without overflow.
fn negative_log_sigmoid(margin: f64) -> f64 {
    (-margin).max(0.0) + (-margin.abs()).exp().ln_1p()
}

fn log_sum_exp(terms: &[f64]) -> f64 {
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest
        + terms
            .iter()
            .map(|term| (term - largest).exp())
            .sum::<f64>()
            .ln()
}

/// Tokens as words: each word is one token at the start of a text, and another after a space.
struct Lexicon(BTreeMap<u32, usize>);

impl Lexicon {
    fn new(corpus: &Corpus, words: &[String]) -> Result<Self, Error> {
        let mut known = BTreeMap::new();
        for (number, word) in words.iter().enumerate() {
            for text in [word.clone(), format!(" {word}")] {
                let tokens = corpus.tokenizer().encode(&text);
                let tokens = tokens.map_err(|source| Error::Word {
                    word: word.clone(),
                    source,
                })?;
                if let [token] = tokens[..] {
                    known.insert(token, number);
                }
            }
        }
        Ok(Self(known))
    }

    fn words(&self, triplet: &TokenTriplet) -> Result<WordTriplet, Error> {
        let word = |token: &u32| {
            self.0
                .get(token)
                .copied()
                .ok_or(Error::Token { token: *token })
        };
        let text = |tokens: &[u32]| tokens.iter().map(word).collect::<Result<Vec<_>, _>>();
        Ok(WordTriplet {
            before: triplet.prompt.last().map(word).transpose()?,
            reference: text(&triplet.reference)?,
            positive: text(&triplet.positive)?,
            negative: text(&triplet.negative)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::SynthOptions;
    use polestar_core::random::Stream;

    /// On triplets drawn as the prior says, an exact posterior is calibrated: its surprise is its
    /// entropy, and it is right as often as it believes.
    #[test]
    fn the_posterior_is_calibrated() {
        let options = SynthOptions::default();
        let (policies, words) = (options.policies as usize, options.words as usize);
        let oracle = Oracle {
            chains: chains(&options),
            mates: (0..policies).collect(),
            others: (0..policies).collect(),
            words,
        };
        let mut stream = Stream::new("calibration", &[]);
        let triplets: Vec<WordTriplet> = (0..4000)
            .map(|_| {
                let before = stream.index(words);
                let mate = stream.index(policies);
                let other = (mate + 1 + stream.index(policies - 1)) % policies;
                let mut text = |policy: usize| {
                    let mut state = before;
                    let mut next = || {
                        state = oracle.chains[policy].step(state, &mut stream);
                        state
                    };
                    (0..16).map(|_| next()).collect()
                };
                WordTriplet {
                    before: Some(before),
                    reference: text(mate),
                    positive: text(mate),
                    negative: text(other),
                }
            })
            .collect();
        let found = oracle.optimum(&triplets);
        let (mut entropy, mut confidence) = (0.0, 0.0);
        for triplet in &triplets {
            let margin = oracle.margin(triplet);
            let (right, wrong) = (negative_log_sigmoid(margin), negative_log_sigmoid(-margin));
            entropy += (-right).exp() * right + (-wrong).exp() * wrong;
            confidence += (-right.min(wrong)).exp();
        }
        let count = triplets.len() as f64;
        let (entropy, confidence) = (entropy / count, confidence / count);
        assert!(
            (found.loss - entropy).abs() < 0.03,
            "{found:?}, entropy {entropy}"
        );
        assert!(
            (found.accuracy - confidence).abs() < 0.015,
            "{found:?}, believed {confidence}"
        );

        let guess = Oracle {
            mates: vec![0, 1],
            others: vec![0, 1],
            ..oracle
        };
        assert!(
            guess.optimum(&triplets).loss > found.loss + 0.1,
            "knowing less costs"
        );
    }
}
