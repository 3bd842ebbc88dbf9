//! Synthesis: a corpus of artificial policies, of any size and without a download, whose
//! discrimination optimum can be computed.
//!
//! A policy is a first-order Markov chain over a small vocabulary of pronounceable words; its
//! response continues the prompt's last word. Policies of one family share a tilt, so that some
//! pairs are easy to tell apart and some are hard. Every parameter is a pure function of the
//! options.

mod chains;
pub mod planted;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::account::{Account, InputAccount};
use crate::across::Pairing;
use crate::assemble::{self, Answer, Group, InputCounts, Recipe, Source, assemble};
use crate::manifest::Manifest;
use crate::origin::{FileLayout, Origin, SynthOptions, SynthOrigin};
use crate::schema::Prompt;
use crate::tokenizer::{self, GivenTokenizer, Tokenizer};
use chains::{Chain, chains, vocabulary};
use polestar_core::random::Stream;
use polestar_store;
use polestar_store::Store;

/// Prompts that are made at a time.
const PROMPTS_PER_PART: u32 = 256;

/// Why a corpus could not be synthesized.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option is out of range.
    #[error("synth option {option} must be {range}")]
    Option {
        /// The option.
        option: &'static str,
        /// What it must be.
        range: String,
    },
    /// The vocabulary does not hold every word as one token.
    #[error(
        "the word '{word}' does not fit a vocabulary of {vocab_size} tokens; raise vocab_size \
         or lower words"
    )]
    Vocabulary {
        /// A word that takes several tokens.
        word: String,
        /// Most tokens.
        vocab_size: u32,
    },
    /// The tokenizer could not be made.
    #[error("could not make the tokenizer")]
    Tokenizer(#[source] tokenizer::Error),
    /// The output is no store.
    #[error("could not open the output")]
    Output(#[source] polestar_store::Error),
    /// The corpus could not be assembled.
    #[error(transparent)]
    Assemble(#[from] assemble::Error),
}

/// Synthesizes a corpus and commits it. The same options give the same bytes.
///
/// # Errors
/// An option out of its range; a vocabulary too small for the words; another corpus in the place; the
/// store's.
pub async fn synth(options: SynthOptions) -> Result<Manifest, Error> {
    check(&options)?;
    let store = Store::open(&options.output).map_err(Error::Output)?;
    let words = vocabulary(&options);
    let tokenizer = word_tokenizer(&words, options.vocab_size)?;
    let names = (0..options.policies)
        .map(|policy| policy_name(&options, policy))
        .collect();
    let source = Arc::new(Artificial {
        chains: chains(&options),
        words,
        names,
        options: options.clone(),
    });
    let made =
        u64::from(options.prompts) * u64::from(options.policies) * u64::from(options.samples);
    let account = Account {
        records: made,
        used: made,
        answers: made,
        ..Account::default()
    };
    let recipe = Recipe {
        heldout_prompts: options.heldout_prompts,
        heldout_named: &[],
        heldout_chosen: options.heldout_policies as usize,
        aliases: &[],
        pairing: Pairing::default(),
        twins: false,
        seed: options.seed,
        vocab_size: options.vocab_size,
        tokenizer: Some(tokenizer),
        pretokenize: false,
        layout: FileLayout::default(),
        origin: Origin::Synth(SynthOrigin::from(&options)),
        inputs: vec![InputAccount {
            name: "synthesis".into(),
            account,
        }],
    };
    assemble(&store, source, recipe, &|_| {}).await
}

/// Numbered so that the order of names is the order of numbers.
fn policy_name(options: &SynthOptions, policy: u32) -> String {
    let width = (options.policies - 1).to_string().len();
    format!("policy-{policy:0width$}")
}

fn check(options: &SynthOptions) -> Result<(), Error> {
    let between = |option, value: u32, least: u32, most: u32| {
        let range = format!("in {least}..={most}, not {value}");
        (least..=most)
            .contains(&value)
            .then_some(())
            .ok_or(Error::Option { option, range })
    };
    between("policies", options.policies, 2, 10_000)?;
    between("families", options.families, 1, options.policies)?;
    between("prompts", options.prompts, 1, u32::MAX)?;
    between("samples", options.samples, 2, 1000)?;
    between("words", options.words, 2, chains::MOST_WORDS)?;
    between("prompt_words", options.prompt_words, 1, 10_000)?;
    between("response_words", options.response_words, 1, 10_000)?;
    let strengths = [
        ("base_strength", options.base_strength),
        ("family_strength", options.family_strength),
        ("own_strength", options.own_strength),
        ("habit_strength", options.habit_strength),
    ];
    for (option, value) in strengths {
        if !(0.0..=10.0).contains(&value) {
            return Err(Error::Option {
                option,
                range: format!("in 0..=10, not {value}"),
            });
        }
    }
    if !(0.05..=100.0).contains(&options.temperature) {
        let range = format!("in 0.05..=100, not {}", options.temperature);
        return Err(Error::Option {
            option: "temperature",
            range,
        });
    }
    Ok(())
}

/// A tokenizer that knows every word, at the start of a text and after a space, as one token.
fn word_tokenizer(words: &[String], vocab_size: u32) -> Result<GivenTokenizer, Error> {
    let texts = words
        .iter()
        .flat_map(|word| [word.clone(), format!(" {word}")]);
    let twice = texts.clone().chain(texts.clone()).collect::<Vec<_>>();
    let bytes = Tokenizer::train(&twice, vocab_size).map_err(Error::Tokenizer)?;
    let tokenizer = Tokenizer::from_bytes(&bytes).map_err(Error::Tokenizer)?;
    for word in texts {
        if tokenizer.encode(&word).map_err(Error::Tokenizer)?.len() != 1 {
            return Err(Error::Vocabulary {
                word: word.trim().into(),
                vocab_size,
            });
        }
    }
    Ok(GivenTokenizer { bytes, tokenizer })
}

/// The trajectories of the chains, made anew on every walk.
struct Artificial {
    options: SynthOptions,
    words: Vec<String>,
    names: Vec<String>,
    chains: Vec<Chain>,
}

impl Artificial {
    fn group(&self, prompt: u32) -> Group {
        let &SynthOptions {
            words,
            prompt_words,
            response_words,
            samples,
            seed,
            ..
        } = &self.options;
        let mut stream = Stream::new("synth prompt", &[seed, u64::from(prompt)]);
        let asked: Vec<usize> = (0..prompt_words)
            .map(|_| stream.index(words as usize))
            .collect();
        let text: Vec<&str> = asked
            .iter()
            .map(|&word| self.words[word].as_str())
            .collect();
        let last = asked[asked.len() - 1];

        let quarter = response_words / 4;
        let mut answers: Vec<Answer> = Vec::new();
        for (policy, chain) in (0u64..).zip(&self.chains) {
            let first = answers.len();
            for sample in 0..samples {
                let key = [seed, u64::from(prompt), policy, u64::from(sample)];
                let mut stream = Stream::new("synth response", &key);
                let length =
                    response_words - quarter + stream.below(u64::from(2 * quarter) + 1) as u32;
                let mut response = String::new();
                let mut state = last;
                for _ in 0..length {
                    state = chain.step(state, &mut stream);
                    response.push(' ');
                    response.push_str(&self.words[state]);
                }
                if answers[first..]
                    .iter()
                    .all(|answer| answer.response != response)
                {
                    let policy = self.names[policy as usize].clone();
                    answers.push(Answer {
                        policy,
                        sample,
                        response,
                        meta: None,
                    });
                }
            }
        }
        let made = samples as usize * self.chains.len();
        let kept = answers.len() as u64;
        let counts = InputCounts {
            kept,
            repeats: made as u64 - kept,
            ..InputCounts::default()
        };
        Group {
            prompt_id: format!("prompt-{prompt:08}"),
            prompt: Prompt::plain(text.join(" ")),
            answers,
            inputs: BTreeMap::from([(0, counts)]),
        }
    }
}

impl Source for Artificial {
    type Error = Error;

    fn parts(&self) -> usize {
        self.options.prompts.div_ceil(PROMPTS_PER_PART) as usize
    }

    fn load(&self, part: usize) -> Result<Vec<Group>, Error> {
        let first = part as u32 * PROMPTS_PER_PART;
        let last = first
            .saturating_add(PROMPTS_PER_PART)
            .min(self.options.prompts);
        Ok((first..last).map(|prompt| self.group(prompt)).collect())
    }

    fn loads_ahead(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn text_bytes(&self) -> u64 {
        let &SynthOptions {
            prompts,
            policies,
            samples,
            response_words,
            ..
        } = &self.options;
        u64::from(prompts)
            * u64::from(policies)
            * u64::from(samples)
            * u64::from(response_words)
            * 5
    }
}
