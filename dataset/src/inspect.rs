//! A look at a corpus: policies, prompts, response lengths, and policies that look like aliases of
//! each other.

use std::collections::BTreeMap;
use std::fmt;

use crate::corpus::{Corpus, Error};
use crate::manifest::{Counts, FileSplit};
use crate::reader::PromptCells;

/// Responses that are tokenized for the statistics, of each policy.
const TOKENIZED: usize = 32;
/// Shorter responses are the same by chance.
const TELLING_CHARS: usize = 20;
/// Two policies are suspect from this share of equal responses on shared prompts,
const SUSPICIOUS_SHARE: f64 = 0.05;
/// and from this many.
const SUSPICIOUS_PROMPTS: u64 = 3;

/// What a corpus looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Where it lies.
    pub url: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Its totals.
    pub counts: Counts,
    /// Tokens in the tokenizer.
    pub vocab_size: u32,
    /// Files, row groups and their bytes.
    pub storage: (usize, usize, u64),
    /// All policies, by name.
    pub policies: Vec<PolicyView>,
    /// Pairs that look like one policy under two names, the most suspicious first.
    pub suspects: Vec<Suspects>,
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

/// Two policies that often give the very same response.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspects {
    /// Their names.
    pub policies: [String; 2],
    /// Prompts on which some response of both is the same.
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
pub async fn inspect(corpus: &Corpus) -> Result<Inspection, Error> {
    let manifest = corpus.manifest();
    let mut lengths: Vec<(Vec<usize>, Vec<usize>)> =
        vec![Default::default(); manifest.policies.len()];
    let mut pairs = Pairs::default();
    let places = [FileSplit::Train, FileSplit::Heldout]
        .into_iter()
        .flat_map(|split| manifest.row_groups(split));
    for (file, row_group, _) in places {
        let group = corpus.row_group(file, row_group).await?;
        for prompt in &group.prompts {
            pairs.count(prompt);
            for cell in &prompt.cells {
                let (chars, tokens) = &mut lengths[cell.policy as usize];
                chars.extend(cell.samples.iter().map(|text| text.chars().count()));
                if let Some(text) = cell.samples.first().filter(|_| tokens.len() < TOKENIZED) {
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
        .0
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
        vocab_size: manifest.tokenizer.vocab_size,
        storage: (
            files.len(),
            files.iter().map(|file| file.row_groups.len()).sum(),
            files.iter().map(|file| file.bytes).sum(),
        ),
        policies: policies.collect(),
        suspects,
    })
}

/// For every pair of policies: prompts with an equal response, and shared prompts.
#[derive(Default)]
struct Pairs(BTreeMap<(u32, u32), (u64, u64)>);

impl Pairs {
    fn count(&mut self, prompt: &PromptCells) {
        let mut givers: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for cell in &prompt.cells {
            for text in cell
                .samples
                .iter()
                .filter(|text| text.len() >= TELLING_CHARS)
            {
                givers.entry(text).or_default().push(cell.policy);
            }
        }
        let mut equal: Vec<(u32, u32)> = givers
            .values()
            .flat_map(|policies| ordered_pairs(policies))
            .collect();
        equal.sort_unstable();
        equal.dedup();
        for pair in equal {
            self.0.entry(pair).or_default().0 += 1;
        }
        let present: Vec<u32> = prompt.cells.iter().map(|cell| cell.policy).collect();
        for pair in ordered_pairs(&present) {
            self.0.entry(pair).or_default().1 += 1;
        }
    }
}

fn ordered_pairs(policies: &[u32]) -> impl Iterator<Item = (u32, u32)> {
    let firsts = policies.iter().enumerate();
    firsts.flat_map(|(at, &a)| policies[at + 1..].iter().map(move |&b| (a, b)))
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            trajectories,
            duplicates,
            prompts,
            train_prompts,
            heldout_prompts,
            text_bytes,
        } = self.counts;
        let (files, row_groups, bytes) = self.storage;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(f, "corpus        {}", self.url)?;
        writeln!(f, "fingerprint   {}", self.fingerprint)?;
        writeln!(
            f,
            "trajectories  {trajectories} distinct ({duplicates} repeated ones left out)"
        )?;
        writeln!(
            f,
            "prompts       {prompts}: {train_prompts} to train on, {heldout_prompts} held out, \
             the rest without a triplet"
        )?;
        writeln!(
            f,
            "text          {:.1} MiB in {files} files, {row_groups} row groups, {:.1} MiB",
            mib(text_bytes),
            mib(bytes)
        )?;
        writeln!(f, "tokenizer     {} tokens", self.vocab_size)?;
        let held_out = self
            .policies
            .iter()
            .filter(|policy| policy.held_out)
            .count();
        writeln!(
            f,
            "policies      {}, {held_out} of them held out\n",
            self.policies.len()
        )?;

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
        if !self.suspects.is_empty() {
            writeln!(
                f,
                "\nThese give the very same response unusually often; if they are one policy, \
                 import with aliases:"
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
