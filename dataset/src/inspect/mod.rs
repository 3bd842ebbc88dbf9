//! A look at a corpus: policies, prompts, response lengths, policies that look like aliases of each
//! other, answers that nearly repeat each other, and held-out prompts that nearly repeat trained ones.

mod leaks;
mod show;

use std::fmt;

use crate::account::InputAccount;
use crate::across::Pairs;
use crate::assemble::{Obstacles, lot};
use crate::corpus::{Corpus, Error};
use crate::manifest::{Counts, FileSplit};
use crate::reader::{PromptGroup, PromptSamples};
use crate::twins::{Pair, Telling, TwinCount, telling};
use leaks::Leaks;
pub(crate) use leaks::beginning;

/// Responses that are tokenized for the statistics, of each policy.
const TOKENIZED: usize = 32;
/// Prompts on which policies are compared.
const COMPARED: usize = 4096;

/// What a corpus looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Where it lies.
    pub url: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Its totals.
    pub counts: Counts,
    /// What became of the records that it was made from.
    pub inputs: Vec<InputAccount>,
    /// Tokens in the tokenizer.
    pub vocab_size: u32,
    /// Files, row groups and their bytes.
    pub storage: (usize, usize, u64),
    /// Which answers make a pair.
    pub pairs: Pairs,
    /// The column by which prompts are clustered, for pairs across prompts.
    pub cluster: Option<String>,
    /// Why the other prompts give no training triplet.
    pub obstacles: Obstacles,
    /// Answers, and prompts, of white space only.
    pub blank: (u64, u64),
    /// All policies, by name.
    pub policies: Vec<PolicyView>,
    /// Pairs that look like one policy under two names, the most suspicious first.
    pub suspects: Vec<Suspects>,
    /// Pairs of a held-out policy and one that is trained on, which often give the same answers: the first
    /// isn't new. The most suspicious first.
    pub policy_leaks: Vec<Suspects>,
    /// Prompts on which policies were compared.
    pub compared: u64,
    /// Pairs of answers of one policy to one prompt, and how many of them are nearly equal: no model
    /// learns from these who wrote them.
    pub same_policy: Share,
    /// Held-out prompts, and how many of them nearly equal one that is trained on.
    pub leaks: Share,
    /// Some of those.
    pub leaking: Vec<Leak>,
}

/// A held-out prompt that nearly repeats one that is trained on: the id of each, and how it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// The held-out one.
    pub heldout: (String, String),
    /// The one that is trained on.
    pub trained: (String, String),
}

/// So many of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// These.
    pub some: u64,
    /// Of these.
    pub all: u64,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = 100.0 * self.some as f64 / self.all.max(1) as f64;
        write!(f, "{} of {} ({percent:.1} %)", self.some, self.all)
    }
}

/// One policy.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyView {
    /// Its name.
    pub name: String,
    /// Whether it is kept out of training.
    pub held_out: bool,
    /// Its aliases.
    pub aliases: usize,
    /// Distinct trajectories.
    pub trajectories: u64,
    /// Prompts to which it gave at least two distinct answers.
    pub cells: u64,
    /// Characters of a response.
    pub chars: Quantiles,
    /// Tokens of a response, over the first few.
    pub tokens: Quantiles,
}

/// Median, 90 % and largest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// Half are at most this.
    pub half: usize,
    /// Nine of ten are at most this.
    pub most: usize,
    /// The largest.
    pub all: usize,
}

impl Quantiles {
    fn of(mut values: Vec<usize>) -> Self {
        values.sort_unstable();
        let at = |percent: usize| {
            values
                .get((values.len().saturating_sub(1)) * percent / 100)
                .copied()
                .unwrap_or(0)
        };
        Self {
            half: at(50),
            most: at(90),
            all: at(100),
        }
    }
}

/// Two policies that often give the very same response, or nearly.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspects {
    /// Their names.
    pub policies: [String; 2],
    /// Prompts on which some response of both is the same or nearly.
    pub equal: u64,
    /// Prompts to which both gave an answer of 40 letters.
    pub shared: u64,
}

impl Suspects {
    /// Of these prompts the share with the same answers.
    pub fn share(&self) -> f64 {
        self.equal as f64 / self.shared.max(1) as f64
    }
}

/// Reads the whole corpus, one row group at a time.
///
/// # Errors
/// [`Error::Read`] for a row group that can't be read; [`Error::Tokenize`].
pub async fn inspect(corpus: &Corpus) -> Result<Inspection, Error> {
    let manifest = corpus.manifest();
    let mut survey = Survey::new(corpus);
    // Held-out prompts first: few enough to be remembered.
    let places = [FileSplit::Heldout, FileSplit::Train]
        .into_iter()
        .flat_map(|split| manifest.row_groups(split));
    for (place, _) in places {
        let group = corpus.row_group(place).await?;
        survey.row_group(manifest.files[place.file].split, &group)?;
    }
    Ok(survey.finish())
}

/// An inspection in the making.
struct Survey<'a> {
    corpus: &'a Corpus,
    /// Of each policy, in characters and in tokens.
    lengths: Vec<(Vec<usize>, Vec<usize>)>,
    twins: TwinCount,
    leaks: Leaks,
    same_policy: Share,
    obstacles: Obstacles,
    blank: (u64, u64),
}

impl<'a> Survey<'a> {
    fn new(corpus: &'a Corpus) -> Self {
        Self {
            corpus,
            lengths: vec![Default::default(); corpus.manifest().policies.len()],
            twins: TwinCount::new(COMPARED),
            leaks: Leaks::default(),
            same_policy: Share::default(),
            obstacles: Obstacles::default(),
            blank: (0, 0),
        }
    }

    fn row_group(&mut self, split: FileSplit, group: &PromptGroup) -> Result<(), Error> {
        for (at, prompt) in group.prompts.iter().enumerate() {
            self.leaks.count(split, prompt);
            self.answers(prompt)?;
            if let Some(obstacle) = group.obstacle(at, self.corpus.policies()) {
                self.obstacles.count(obstacle);
            }
        }
        Ok(())
    }

    fn answers(&mut self, prompt: &PromptSamples) -> Result<(), Error> {
        let blank = |text: &String| text.trim().is_empty();
        self.blank.1 += u64::from(blank(&prompt.text));
        for answers in &prompt.policies {
            let (chars, tokens) = &mut self.lengths[answers.policy as usize];
            chars.extend(answers.samples.iter().map(|text| text.chars().count()));
            self.blank.0 += answers.samples.iter().filter(|text| blank(text)).count() as u64;
            if let Some(text) = answers.samples.first().filter(|_| tokens.len() < TOKENIZED) {
                let encoded = self.corpus.tokenizer().encode(text);
                let encoded = encoded.map_err(|source| self.corpus.untokenized(prompt, source));
                tokens.push(encoded?.len());
            }
        }
        let telling = telling(&prompt.policies);
        for answers in telling.chunk_by(|a, b| a.policy == b.policy) {
            self.one_policy(answers);
        }
        let lot = lot("twins", 0, &prompt.id);
        if self.twins.wants(lot) {
            self.twins.compare(lot, &telling);
        }
        Ok(())
    }

    /// Counts near copies.
    fn one_policy(&mut self, answers: &[Telling<'_>]) {
        for (at, one) in answers.iter().enumerate() {
            let near = answers[at + 1..].iter().filter(|other| one.repeats(other));
            self.same_policy.some += near.count() as u64;
            self.same_policy.all += (answers.len() - at - 1) as u64;
        }
    }

    fn finish(self) -> Inspection {
        let manifest = self.corpus.manifest();
        let found = self.twins.finish();
        let policy = |number: u32| &manifest.policies[number as usize];
        let named = |pair: &Pair| {
            let (a, b) = pair.policies;
            // Of a held-out and a trained one the held-out one comes first.
            let (a, b) = match policy(b).held_out && !policy(a).held_out {
                true => (b, a),
                false => (a, b),
            };
            Suspects {
                policies: [a, b].map(|number| policy(number).name.clone()),
                equal: pair.equal,
                shared: pair.prompts,
            }
        };
        let twins = found.pairs.iter().filter(|pair| {
            let (a, b) = (policy(pair.policies.0), policy(pair.policies.1));
            found.twins(pair) && !a.aliases.contains(&b.name)
        });
        let mut twins: Vec<(bool, Suspects)> = twins
            .map(|pair| {
                let (a, b) = pair.policies;
                (policy(a).held_out != policy(b).held_out, named(pair))
            })
            .collect();
        twins.sort_by(|(_, a), (_, b)| b.share().total_cmp(&a.share()));
        let (leaks, suspects): (Vec<_>, Vec<_>) = twins.into_iter().partition(|(leaks, _)| *leaks);
        let pairing = manifest.pairing();
        let files = &manifest.files;
        Inspection {
            url: self.corpus.url().into(),
            fingerprint: self.corpus.fingerprint().to_string(),
            counts: manifest.counts,
            inputs: manifest.inputs.clone(),
            vocab_size: manifest.tokenizer.vocab_size,
            storage: (
                files.len(),
                files.iter().map(|file| file.row_groups.len()).sum(),
                files.iter().map(|file| file.bytes).sum(),
            ),
            pairs: pairing.pairs,
            cluster: pairing.cluster,
            obstacles: self.obstacles,
            blank: self.blank,
            policies: views(self.corpus, self.lengths),
            suspects: suspects.into_iter().map(|(_, pair)| pair).collect(),
            policy_leaks: leaks.into_iter().map(|(_, pair)| pair).collect(),
            compared: found.prompts,
            same_policy: self.same_policy,
            leaks: self.leaks.share(),
            leaking: self.leaks.named(),
        }
    }
}

fn views(corpus: &Corpus, lengths: Vec<(Vec<usize>, Vec<usize>)>) -> Vec<PolicyView> {
    let policies = corpus.manifest().policies.iter().zip(lengths);
    let view = policies.map(|(policy, (chars, tokens))| PolicyView {
        name: policy.name.clone(),
        held_out: policy.held_out,
        aliases: policy.aliases.len(),
        trajectories: policy.trajectories,
        cells: policy.cells,
        chars: Quantiles::of(chars),
        tokens: Quantiles::of(tokens),
    });
    view.collect()
}
