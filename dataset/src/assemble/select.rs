//! What the first walk counts, and the held-out prompts.

use std::{collections::BTreeMap, sync::Arc};

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::unusable::Obstacles;
use super::{
    Error, Group, InputCounts, Progress, Source, Stage, TOKENIZER_SAMPLE_BYTES,
    TOKENIZER_TEXT_BYTES, walk,
};
use crate::account::{Account, Accounts, InputAccount};
use crate::across::{Across, Pairing, Pairs, References};
use crate::manifest::{Counts, File, FileSplit};
use crate::origin::HeldOut;
use crate::reader::PromptSamples;
use crate::triplet::{Obstacle, PolicySamples, PolicyTable, Task};
use crate::twins::{Resemblances, TwinCount, telling};
use polestar_core::random::Stream;

/// Prompts on which policies are compared, at most.
const TWIN_PROMPTS: usize = 2048;

/// Joins the columns of a strict policy's name.
pub(crate) const COLUMN_SEPARATOR: &str = " | ";

/// The position of a name in an order given by the seed.
pub(crate) fn lot(purpose: &str, seed: u64, name: &str) -> u128 {
    let mut hasher = blake3::Hasher::new_derive_key("polestar dataset lots 1");
    hasher.update(&(purpose.len() as u64).to_le_bytes());
    hasher.update(purpose.as_bytes());
    hasher.update(&seed.to_le_bytes());
    hasher.update(name.as_bytes());
    let mut first = [0; 16];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_be_bytes(first)
}

/// What the first walk finds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Trajectories and cells by policy.
    pub(super) policies: BTreeMap<String, (u64, u64)>,
    pub(super) prompts: u64,
    /// What became of the answers, by input.
    pub(super) inputs: BTreeMap<u32, InputCounts>,
    pub(super) text_bytes: u64,
    /// Texts to train the tokenizer on. They are not saved.
    #[serde(skip)]
    pub(super) sample: Vec<String>,
    /// Which policies repeat each other, where that was asked.
    pub(super) twins: Twins,
    /// Prompts whose cluster is known.
    pub(super) clustered: u64,
}

/// Which policies repeat each other.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Twins {
    /// The policies that were compared. Their positions here are their numbers.
    pub(super) names: Vec<String>,
    pub(super) found: Resemblances,
}

/// What the first walk is asked for beside totals.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) seed: u64,
    /// Texts to train the tokenizer on.
    pub(super) sample: bool,
    /// Which policies repeat each other.
    pub(super) twins: bool,
    /// Where a prompt's cluster is found.
    pub(super) pairing: &'a Pairing,
}

impl Tally {
    /// Walks the source.
    pub(super) async fn count<S: Source>(
        source: &Arc<S>,
        wanted: Wanted<'_>,
        progress: &dyn Fn(Progress),
    ) -> Result<Self, S::Error> {
        let Wanted { seed, sample, .. } = wanted;
        let mut tally = Self::default();
        let mut twins = TwinCounter::new(wanted);
        let share = TOKENIZER_SAMPLE_BYTES as f64 / source.text_bytes().max(1) as f64;
        let threshold = (share.min(1.0) * u64::MAX as f64) as u64;
        let parts = source.parts() as u64;
        let mut walk = walk(source, 0);
        while let Some((part, groups)) = walk.try_next().await? {
            for group in groups {
                tally.prompts += 1;
                for (input, counts) in &group.inputs {
                    *tally.inputs.entry(*input).or_default() += *counts;
                }
                tally.clustered += u64::from(group.cluster(wanted.pairing).is_some());
                twins.compare(&group);
                for answers in group.by_policy() {
                    let (trajectories, cells) =
                        tally.policies.entry(answers[0].policy.clone()).or_default();
                    *trajectories += answers.len() as u64;
                    *cells += u64::from(answers.len() >= 2);
                }
                let ticket = lot("tokenizer", seed, &group.prompt_id) as u64;
                let mut tickets = Stream::new("tokenizer sample", &[ticket]);
                let responses = group.answers.into_iter().map(|answer| answer.response);
                for mut text in std::iter::once(group.prompt.text()).chain(responses) {
                    tally.text_bytes += text.len() as u64;
                    if sample && tickets.word() <= threshold {
                        text.truncate(text.floor_char_boundary(TOKENIZER_TEXT_BYTES));
                        text.shrink_to_fit();
                        tally.sample.push(text);
                    }
                }
            }
            progress(Progress::of(Stage::Count, part as u64 + 1, parts));
        }
        tally.twins = twins.finish();
        Ok(tally)
    }
}

/// Compares policies on some of the prompts.
struct TwinCounter<'a> {
    wanted: Wanted<'a>,
    names: Vec<String>,
    numbers: BTreeMap<String, u32>,
    count: TwinCount,
}

impl<'a> TwinCounter<'a> {
    fn new(wanted: Wanted<'a>) -> Self {
        Self {
            wanted,
            names: vec![],
            numbers: BTreeMap::new(),
            count: TwinCount::new(TWIN_PROMPTS),
        }
    }

    fn compare(&mut self, group: &Group) {
        let lot = lot("twins", self.wanted.seed, &group.prompt_id);
        if !self.wanted.twins || !self.count.wants(lot) {
            return;
        }
        let samples = group.by_policy().map(|answers| PolicySamples {
            policy: self.number(&answers[0].policy),
            samples: answers
                .iter()
                .map(|answer| answer.response.clone())
                .collect(),
        });
        let samples: Vec<PolicySamples> = samples.collect();
        self.count.compare(lot, &telling(&samples));
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    fn finish(self) -> Twins {
        Twins {
            names: self.names,
            found: self.count.finish(),
        }
    }
}

impl Tally {
    /// Totals of a corpus of these files.
    pub(super) fn counts(&self, files: &[File]) -> Counts {
        let usable = |split| {
            let of_split = files.iter().filter(move |file| file.split == split);
            let groups = of_split.flat_map(|file| &file.row_groups);
            groups.map(|group| group.prompts).sum()
        };
        Counts {
            trajectories: files.iter().map(|file| file.rows).sum(),
            prompts: self.prompts,
            train_prompts: usable(FileSplit::Train),
            heldout_prompts: usable(FileSplit::Heldout),
            text_bytes: self.text_bytes,
        }
    }
}

impl Tally {
    /// The accounts of the inputs with what became of their answers; refused unless everything adds up.
    pub(super) fn complete(
        &self,
        inputs: Vec<InputAccount>,
        trajectories: u64,
    ) -> Result<Vec<InputAccount>, Error> {
        let inputs = balanced(inputs, &self.inputs)?;
        let total = Accounts(&inputs).total();
        match total.kept == trajectories {
            true => Ok(inputs),
            false => Err(unbalanced("all inputs", total)),
        }
    }
}

/// The accounts with what became of their answers; refused unless each adds up.
pub(super) fn balanced(
    mut inputs: Vec<InputAccount>,
    grouped: &BTreeMap<u32, InputCounts>,
) -> Result<Vec<InputAccount>, Error> {
    for (number, input) in (0..).zip(&mut inputs) {
        let counts = grouped.get(&number).copied().unwrap_or_default();
        input.account.kept = counts.kept;
        input.account.repeats = counts.repeats;
        input.account.similar = counts.similar;
        input.account.unpaired = counts.unpaired;
        if !input.account.is_balanced() {
            return Err(unbalanced(&input.name, input.account));
        }
    }
    Ok(inputs)
}

fn unbalanced(input: &str, account: Account) -> Error {
    Error::Account {
        input: input.into(),
        account: Box::new(account),
    }
}

/// The held-out prompts: those with the smallest lots, up to the one that makes the number of
/// usable ones exact. (Where triplets pair prompts, a prompt counts as usable here if two policies that may
/// be compared answered it; whether it finds a partner is known when the row groups are.)
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HeldOutPrompts {
    seed: u64,
    /// The last lot, big-endian.
    last: Option<[u8; 16]>,
}

/// What the choice of held-out prompts goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chooser<'a> {
    pub(super) table: &'a PolicyTable,
    pub(super) numbers: &'a BTreeMap<&'a str, u32>,
    pub(super) wanted: HeldOut,
    pub(super) pairs: Pairs,
    pub(super) seed: u64,
}

impl Chooser<'_> {
    /// Why a prompt gives no triplet, as far as it is known before the row groups are.
    fn obstacle(&self, samples: Vec<PolicySamples>) -> Option<Obstacle> {
        if self.pairs == Pairs::SamePrompt {
            return self.table.obstacle(&samples);
        }
        let prompts = [PromptSamples::of_policies(samples, None)];
        let across = Across {
            policies: self.table,
            task: Task::Training,
            prompts: &prompts,
            references: &References::new(&prompts),
        };
        let obstacle = across.obstacle(0);
        obstacle.filter(|obstacle| *obstacle != Obstacle::NoPartner)
    }

    /// Walks the source. The outer error is that no prompt is usable, with what stands in their way.
    pub(super) async fn choose<S: Source>(
        &self,
        source: &Arc<S>,
        progress: &dyn Fn(Progress),
    ) -> Result<Result<HeldOutPrompts, Obstacles>, S::Error> {
        let mut obstacles = Obstacles::default();
        let mut lots = Vec::new();
        let parts = source.parts() as u64;
        let mut walk = walk(source, 0);
        while let Some((part, groups)) = walk.try_next().await? {
            for group in groups {
                match self.obstacle(group.samples(self.numbers)) {
                    None => lots.push(lot("held-out prompt", self.seed, &group.prompt_id)),
                    Some(obstacle) => obstacles.count(obstacle),
                }
            }
            progress(Progress::of(Stage::Choose, part as u64 + 1, parts));
        }
        match lots.is_empty() {
            true => Ok(Err(obstacles)),
            false => Ok(Ok(self.draw(lots)?)),
        }
    }

    fn draw(&self, lots: Vec<u128>) -> Result<HeldOutPrompts, Error> {
        HeldOutPrompts::draw(self.wanted, self.seed, lots)
    }
}

impl HeldOutPrompts {
    /// Draws them among the lots of usable prompts.
    pub(super) fn draw(wanted: HeldOut, seed: u64, mut lots: Vec<u128>) -> Result<Self, Error> {
        let usable = lots.len() as u64;
        let count = match wanted {
            HeldOut::Count(count) => count,
            HeldOut::Fraction(fraction) if (0.0..1.0).contains(&fraction) => {
                (fraction * usable as f64).round() as u64
            }
            HeldOut::Fraction(fraction) => return Err(Error::Fraction { fraction }),
        };
        if count >= usable {
            return Err(Error::HeldOutPrompts {
                asked: count,
                usable,
            });
        }
        lots.sort_unstable();
        let last = count.checked_sub(1).map(|last| lots[last as usize]);
        Ok(Self {
            seed,
            last: last.map(u128::to_be_bytes),
        })
    }

    /// Whether the prompt is held out. Prompts without a triplet among training policies are drawn
    /// alike: they may serve held-out policies.
    pub(super) fn holds(&self, prompt_id: &str) -> bool {
        self.last
            .is_some_and(|last| lot("held-out prompt", self.seed, prompt_id).to_be_bytes() <= last)
    }
}
