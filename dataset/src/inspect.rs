//! A look at a corpus: policies, prompts, response lengths, policies that look like aliases of each
//! other, answers that nearly repeat each other, and held-out prompts that nearly repeat trained ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rayon::prelude::*;

use crate::account::{Accounts, InputAccount};
use crate::corpus::{Corpus, Error};
use crate::manifest::{Counts, FileSplit};
use crate::reader::PromptSamples;
use crate::similarity::Sketch;

/// Responses that are tokenized for the statistics, of each policy.
const TOKENIZED: usize = 32;
/// Shorter responses are the same by chance.
const TELLING_CHARS: usize = 20;
/// Two policies are suspect from this share of equal responses on shared prompts,
const SUSPICIOUS_SHARE: f64 = 0.05;
/// and from this many.
const SUSPICIOUS_PROMPTS: u64 = 3;
/// Texts that resemble each other at least so much are nearly copies.
const NEARLY_EQUAL: f64 = 0.9;
/// Leaks that are named.
const NAMED_LEAKS: usize = 10;

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
    /// What may surprise about the tokenizer.
    pub tokenizer_notes: Vec<String>,
    /// Files, row groups and their bytes.
    pub storage: (usize, usize, u64),
    /// All policies, by name.
    pub policies: Vec<PolicyView>,
    /// Pairs that look like one policy under two names, the most suspicious first.
    pub suspects: Vec<Suspects>,
    /// Pairs of answers of one policy to one prompt, and how many of them are nearly equal: no model
    /// learns from these who wrote them.
    pub same_policy: Share,
    /// Held-out prompts, and how many of them nearly equal one that is trained on.
    pub leaks: Share,
    /// Some of those: held-out prompt, training prompt, by id.
    pub leaking: Vec<(String, String)>,
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
    /// Prompts with two distinct samples.
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
    /// Prompts that both answered.
    pub shared: u64,
}

impl Suspects {
    fn share(&self) -> f64 {
        self.equal as f64 / self.shared as f64
    }
}

/// Reads the whole corpus, one row group at a time.
///
/// # Errors
/// [`Error::Read`] for a row group that can't be read; [`Error::Tokenize`].
pub async fn inspect(corpus: &Corpus) -> Result<Inspection, Error> {
    let manifest = corpus.manifest();
    let mut lengths: Vec<(Vec<usize>, Vec<usize>)> =
        vec![Default::default(); manifest.policies.len()];
    let mut pairs = Pairs::default();
    let mut leaks = Leaks::default();
    // Held-out prompts first: few enough to be remembered.
    let places = [FileSplit::Heldout, FileSplit::Train]
        .into_iter()
        .flat_map(|split| manifest.row_groups(split));
    for (place, _) in places {
        let group = corpus.row_group(place).await?;
        for prompt in &group.prompts {
            pairs.count(prompt);
            leaks.count(manifest.files[place.file].split, prompt);
            for answers in &prompt.policies {
                let (chars, tokens) = &mut lengths[answers.policy as usize];
                chars.extend(answers.samples.iter().map(|text| text.chars().count()));
                if let Some(text) = answers.samples.first().filter(|_| tokens.len() < TOKENIZED) {
                    let encoded = corpus.tokenizer().encode(text);
                    tokens.push(
                        encoded
                            .map_err(|source| corpus.untokenized(prompt, source))?
                            .len(),
                    );
                }
            }
        }
    }
    let policies = manifest
        .policies
        .iter()
        .zip(lengths)
        .map(|(policy, (chars, tokens))| PolicyView {
            name: policy.name.clone(),
            held_out: policy.held_out,
            aliases: policy.aliases.len(),
            trajectories: policy.trajectories,
            cells: policy.cells,
            chars: Quantiles::of(chars),
            tokens: Quantiles::of(tokens),
        });
    let name = |policy: u32| &manifest.policies[policy as usize];
    let mut suspects: Vec<Suspects> = pairs
        .policies
        .into_iter()
        .filter(|&((a, b), _)| !name(a).aliases.contains(&name(b).name))
        .map(|((a, b), (equal, shared))| Suspects {
            policies: [a, b].map(|p| name(p).name.clone()),
            equal,
            shared,
        })
        .filter(|pair| pair.equal >= SUSPICIOUS_PROMPTS && pair.share() >= SUSPICIOUS_SHARE)
        .collect();
    suspects.sort_by(|a, b| b.share().total_cmp(&a.share()));
    let files = &manifest.files;
    Ok(Inspection {
        url: corpus.url().into(),
        fingerprint: corpus.fingerprint().to_string(),
        counts: manifest.counts,
        inputs: manifest.inputs.clone(),
        vocab_size: manifest.tokenizer.vocab_size,
        tokenizer_notes: corpus.tokenizer().notes().to_vec(),
        storage: (
            files.len(),
            files.iter().map(|file| file.row_groups.len()).sum(),
            files.iter().map(|file| file.bytes).sum(),
        ),
        policies: policies.collect(),
        suspects,
        same_policy: pairs.same_policy,
        leaks: Share {
            some: leaks.found.len() as u64,
            all: leaks.heldout.len() as u64,
        },
        leaking: leaks.named(),
    })
}

/// Answers that are equal or nearly.
#[derive(Default)]
struct Pairs {
    /// For every pair of policies: prompts with such answers, and shared prompts.
    policies: BTreeMap<(u32, u32), (u64, u64)>,
    same_policy: Share,
}

impl Pairs {
    fn count(&mut self, prompt: &PromptSamples) {
        let mut answers: Vec<(u32, &str)> = Vec::new();
        for given in &prompt.policies {
            let samples = given.samples.iter().map(String::as_str);
            answers.extend(samples.map(|text| (given.policy, text)));
        }
        answers.retain(|(_, text)| text.len() >= TELLING_CHARS);
        let texts = answers.par_iter();
        let sketches: Vec<Sketch> = texts.map(|(_, text)| Sketch::of(text)).collect();
        let mut alike = BTreeSet::new();
        for (at, &(policy, text)) in answers.iter().enumerate() {
            for (&(other, theirs), sketch) in answers[at + 1..].iter().zip(&sketches[at + 1..]) {
                let near = text == theirs || sketches[at].resembles(sketch, NEARLY_EQUAL);
                if policy == other {
                    self.same_policy.all += 1;
                    self.same_policy.some += u64::from(near);
                } else if near {
                    alike.insert((policy, other));
                }
            }
        }
        for pair in alike {
            self.policies.entry(pair).or_default().0 += 1;
        }
        let present: Vec<u32> = prompt.policies.iter().map(|given| given.policy).collect();
        for pair in ordered_pairs(&present) {
            self.policies.entry(pair).or_default().1 += 1;
        }
    }
}

/// Held-out prompts that nearly repeat one that is trained on.
#[derive(Default)]
struct Leaks {
    heldout: Vec<(String, Sketch)>,
    /// Which of them share a key.
    by_key: BTreeMap<u64, Vec<usize>>,
    /// The first training prompt that each nearly repeats.
    found: BTreeMap<usize, String>,
}

impl Leaks {
    /// Held-out prompts come first.
    fn count(&mut self, split: FileSplit, prompt: &PromptSamples) {
        let sketch = Sketch::of(&prompt.text);
        if split == FileSplit::Heldout {
            for &key in sketch.keys() {
                self.by_key.entry(key).or_default().push(self.heldout.len());
            }
            self.heldout.push((prompt.id.clone(), sketch));
            return;
        }
        let sharing = sketch.keys().iter().filter_map(|key| self.by_key.get(key));
        let sharing: BTreeSet<usize> = sharing.flatten().copied().collect();
        for at in sharing {
            if self.found.contains_key(&at) {
                continue;
            }
            if self.heldout[at].1.resembles(&sketch, NEARLY_EQUAL) {
                self.found.insert(at, prompt.id.clone());
            }
        }
    }

    fn named(&self) -> Vec<(String, String)> {
        let pairs = self.found.iter().take(NAMED_LEAKS);
        let pairs = pairs.map(|(&at, trained)| (self.heldout[at].0.clone(), trained.clone()));
        pairs.collect()
    }
}

fn ordered_pairs(policies: &[u32]) -> impl Iterator<Item = (u32, u32)> {
    let firsts = policies.iter().enumerate();
    firsts.flat_map(|(at, &a)| policies[at + 1..].iter().map(move |&b| (a, b)))
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_totals(f)?;
        self.write_policies(f)?;
        self.write_warnings(f)
    }
}

impl Inspection {
    fn write_totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            trajectories,
            prompts,
            train_prompts,
            heldout_prompts,
            text_bytes,
        } = self.counts;
        let (files, row_groups, bytes) = self.storage;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(f, "corpus        {}", self.url)?;
        writeln!(f, "fingerprint   {}", self.fingerprint)?;
        writeln!(f, "trajectories  {trajectories}")?;
        for line in Accounts(&self.inputs).to_string().lines() {
            writeln!(f, "              {line}")?;
        }
        writeln!(
            f,
            "near copies   {} pairs of one policy's answers to a prompt",
            self.same_policy
        )?;
        writeln!(
            f,
            "prompts       {prompts}: {train_prompts} to train on, {heldout_prompts} held out, \
             the rest without a triplet"
        )?;
        writeln!(
            f,
            "leaks         {} held-out prompts nearly repeat one that is trained on",
            self.leaks
        )?;
        writeln!(
            f,
            "text          {:.1} MiB in {files} files, {row_groups} row groups, {:.1} MiB",
            mib(text_bytes),
            mib(bytes)
        )?;
        writeln!(f, "tokenizer     {} tokens", self.vocab_size)?;
        for note in &self.tokenizer_notes {
            writeln!(f, "              {note}")?;
        }
        let held_out = self
            .policies
            .iter()
            .filter(|policy| policy.held_out)
            .count();
        writeln!(
            f,
            "policies      {}, {held_out} of them held out\n",
            self.policies.len()
        )
    }

    fn write_policies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .policies
            .iter()
            .map(|policy| policy.name.chars().count())
            .max()
            .unwrap_or(0)
            .max(6);
        writeln!(
            f,
            "{:width$}  {:>12}  {:>7}  {:>20}  {:>17}",
            "policy", "trajectories", "cells", "chars 50/90/100 %", "tokens 50/90/100 %"
        )?;
        for policy in &self.policies {
            let quantiles = |q: Quantiles| format!("{}/{}/{}", q.half, q.most, q.all);
            let mark = match (policy.held_out, policy.aliases) {
                (false, 0) => String::new(),
                (true, 0) => "  held out".into(),
                (held_out, aliases) => format!(
                    "{}  {aliases} aliases",
                    if held_out { "  held out" } else { "" }
                ),
            };
            writeln!(
                f,
                "{:width$}  {:>12}  {:>7}  {:>20}  {:>17}{mark}",
                policy.name,
                policy.trajectories,
                policy.cells,
                quantiles(policy.chars),
                quantiles(policy.tokens),
            )?;
        }
        Ok(())
    }

    fn write_warnings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.leaking.is_empty() {
            writeln!(
                f,
                "\nThese held-out prompts nearly repeat one that is trained on, so their scores \
                 flatter:"
            )?;
            for (heldout, trained) in &self.leaking {
                writeln!(f, "  {heldout}  ~  {trained}")?;
            }
            let more = self.leaks.some.saturating_sub(self.leaking.len() as u64);
            if more > 0 {
                writeln!(f, "  and {more} more")?;
            }
        }
        if !self.suspects.is_empty() {
            writeln!(
                f,
                "\nThese give the same response, or nearly, unusually often; if they are one \
                 policy, import with aliases:"
            )?;
            for pair in &self.suspects {
                let [a, b] = &pair.policies;
                writeln!(
                    f,
                    "  {:>5.1} %  {a}  ~  {b}  ({} of {} prompts)",
                    100.0 * pair.share(),
                    pair.equal,
                    pair.shared
                )?;
            }
        }
        Ok(())
    }
}
