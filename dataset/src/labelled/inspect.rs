//! A look at a labelled corpus: its subsets, how long their answers are, and how far length alone gets.

use std::collections::BTreeSet;
use std::fmt;

use crate::account::{Accounts, InputAccount};
use crate::corpus::{Corpus, Error};
use crate::manifest::{Counts, FileSplit};
use crate::reader::PromptSamples;

/// What a labelled corpus looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledInspection {
    /// Where it lies.
    pub url: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// The fingerprint of the corpus whose tokenizer it has.
    pub tokenizer_of: Option<String>,
    /// Its totals; trajectories are pairs.
    pub counts: Counts,
    /// What became of the records that it was made from.
    pub inputs: Vec<InputAccount>,
    /// Tokens in the tokenizer.
    pub vocab_size: u32,
    /// Pairs whose prompt has the same pair the other way round.
    pub contradicted: u64,
    /// All subsets, by name.
    pub subsets: Vec<SubsetView>,
}

/// One subset.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SubsetView {
    /// Its name.
    pub name: String,
    /// Pairs to train on.
    pub train: u64,
    /// Pairs to validate on.
    pub heldout: u64,
    /// Pairs that have a reference.
    pub referenced: u64,
    /// Pairs whose chosen answer is the longer one; one of equal length counts a half.
    pub longer: f64,
    /// Mean characters of the references that are there, the chosen and the rejected answers.
    pub chars: [f64; 3],
}

impl SubsetView {
    /// All of its pairs.
    pub fn pairs(&self) -> u64 {
        self.train + self.heldout
    }

    fn count(&mut self, split: FileSplit, pair: &PromptSamples) {
        match split {
            FileSplit::Train => self.train += 1,
            FileSplit::Heldout => self.heldout += 1,
        }
        let [reference, chosen] = [0, 1].map(|at| pair.policies[0].samples[at].chars().count());
        let rejected = pair.policies[1].samples[0].chars().count();
        self.referenced += u64::from(reference > 0);
        self.longer += match chosen.cmp(&rejected) {
            std::cmp::Ordering::Less => 0.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Greater => 1.0,
        };
        for (sum, length) in self.chars.iter_mut().zip([reference, chosen, rejected]) {
            *sum += length as f64;
        }
    }

    fn means(mut self) -> Self {
        let pairs = self.pairs().max(1) as f64;
        self.chars[0] /= self.referenced.max(1) as f64;
        self.chars[1] /= pairs;
        self.chars[2] /= pairs;
        self
    }
}

/// Reads the whole corpus, one row group at a time.
///
/// # Errors
/// [`Error::Read`] for a row group that can't be read.
pub async fn inspect_labelled(corpus: &Corpus) -> Result<LabelledInspection, Error> {
    let manifest = corpus.manifest();
    let named = manifest.policies.iter().map(|subset| SubsetView {
        name: subset.name.clone(),
        ..SubsetView::default()
    });
    let mut subsets: Vec<SubsetView> = named.collect();
    let mut contradicted = 0;
    for split in [FileSplit::Train, FileSplit::Heldout] {
        for (place, _) in manifest.row_groups(split) {
            let group = corpus.row_group(place).await?;
            // The pairs of a prompt are in one row group.
            for pairs in group.prompts.chunk_by(|a, b| a.id == b.id) {
                let mut preferred = BTreeSet::new();
                for pair in pairs {
                    let [chosen, rejected] =
                        [&pair.policies[0].samples[1], &pair.policies[1].samples[0]];
                    contradicted += u64::from(preferred.contains(&(rejected, chosen)));
                    preferred.insert((chosen, rejected));
                    subsets[pair.policies[0].policy as usize].count(split, pair);
                }
            }
        }
    }
    Ok(LabelledInspection {
        url: corpus.url().into(),
        fingerprint: corpus.fingerprint().to_string(),
        tokenizer_of: manifest.tokenizer_of().map(ToString::to_string),
        counts: manifest.counts,
        inputs: manifest.inputs.clone(),
        vocab_size: manifest.tokenizer.vocab_size,
        contradicted,
        subsets: subsets.into_iter().map(SubsetView::means).collect(),
    })
}

impl LabelledInspection {
    /// Share of all pairs whose chosen answer is the longer one.
    fn longer(&self) -> f64 {
        let longer: f64 = self.subsets.iter().map(|subset| subset.longer).sum();
        longer / self.counts.trajectories.max(1) as f64
    }
}

/// Subsets that are listed one by one.
const MOST_LISTED: usize = 30;

impl fmt::Display for LabelledInspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(
            f,
            "{}: labelled, fingerprint {}",
            self.url, self.fingerprint
        )?;
        writeln!(
            f,
            "{} pairs on {} prompts; {} to train on, {} held out with their prompts",
            counts.trajectories, counts.prompts, counts.train_prompts, counts.heldout_prompts
        )?;
        match &self.tokenizer_of {
            Some(corpus) => writeln!(
                f,
                "tokenizer of corpus {corpus}, {} tokens",
                self.vocab_size
            )?,
            None => writeln!(f, "tokenizer of its own, {} tokens", self.vocab_size)?,
        }
        write!(f, "{}", Accounts(&self.inputs))?;
        writeln!(
            f,
            "the chosen answer is the longer one in {:.3} of all pairs",
            self.longer()
        )?;
        if self.contradicted > 0 {
            writeln!(
                f,
                "{} pairs contradict another one of the same prompt: what one prefers the other rejects",
                self.contradicted
            )?;
        }
        writeln!(f, "subsets ({})", self.subsets.len())?;
        let mut largest: Vec<&SubsetView> = self.subsets.iter().collect();
        largest.sort_by_key(|subset| std::cmp::Reverse(subset.pairs()));
        for subset in largest.iter().take(MOST_LISTED) {
            let [reference, chosen, rejected] = subset.chars;
            writeln!(
                f,
                "  {}: {} pairs ({} held out), {} with a reference; chosen longer in {:.3}; mean characters of \
                 reference {reference:.0}, chosen {chosen:.0}, rejected {rejected:.0}",
                subset.name,
                subset.pairs(),
                subset.heldout,
                subset.referenced,
                subset.longer / subset.pairs().max(1) as f64,
            )?;
        }
        match largest.len().saturating_sub(MOST_LISTED) {
            0 => Ok(()),
            more => writeln!(f, "  … and {more} smaller ones"),
        }
    }
}
