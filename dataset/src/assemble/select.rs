//! The choices that hold for a whole corpus: the policy table with aliases and held-out policies,
//! the held-out prompts, the tokenizer's texts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::{
    Error, Progress, Recipe, Source, Stage, TOKENIZER_SAMPLE_BYTES, TOKENIZER_TEXT_BYTES, walk,
};
use crate::manifest::{Counts, File, FileSplit, Policy};
use crate::origin::HeldOut;
use crate::triplet::{PolicyTable, Task};
use polestar_core::random::Stream;

/// Joins the columns of a strict policy's name.
pub(crate) const COLUMN_SEPARATOR: &str = " | ";

/// The position of a name in an order given by the seed.
fn lot(purpose: &str, seed: u64, name: &str) -> u128 {
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
    policies: BTreeMap<String, (u64, u64)>,
    prompts: u64,
    duplicates: u64,
    near_duplicates: u64,
    text_bytes: u64,
    /// Texts to train the tokenizer on.
    pub(super) sample: Vec<String>,
}

impl Tally {
    /// Walks the source; collects a sample of the texts only if asked to.
    pub(super) async fn count<S: Source>(
        source: &Arc<S>,
        seed: u64,
        sample: bool,
        progress: &dyn Fn(Progress),
    ) -> Result<Self, S::Error> {
        let mut tally = Self::default();
        let share = TOKENIZER_SAMPLE_BYTES as f64 / source.text_bytes().max(1) as f64;
        let threshold = (share.min(1.0) * u64::MAX as f64) as u64;
        let parts = source.parts() as u64;
        let mut walk = walk(source, 0);
        while let Some((part, groups)) = walk.try_next().await? {
            for group in groups {
                tally.prompts += 1;
                tally.duplicates += group.duplicates;
                tally.near_duplicates += group.near_duplicates;
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
        Ok(tally)
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
            duplicates: self.duplicates,
            near_duplicates: self.near_duplicates,
            prompts: self.prompts,
            train_prompts: usable(FileSplit::Train),
            heldout_prompts: usable(FileSplit::Heldout),
            text_bytes: self.text_bytes,
        }
    }
}

/// Which policies are held out and which are aliases, as asked for.
pub(super) struct PolicySelection<'a> {
    pub(super) named: &'a [String],
    pub(super) chosen: usize,
    pub(super) aliases: &'a [Vec<String>],
    pub(super) seed: u64,
}

impl<'a> PolicySelection<'a> {
    pub(super) fn of(recipe: &Recipe<'a>) -> Self {
        Self {
            named: recipe.heldout_named,
            chosen: recipe.heldout_chosen,
            aliases: recipe.aliases,
            seed: recipe.seed,
        }
    }

    /// The policy table. A held-out policy takes its aliases along: they are the same policy.
    pub(super) fn table(&self, tally: &Tally) -> Result<Vec<Policy>, Error> {
        let aliases = self.alias_sets(tally)?;
        let with_aliases = |name: &str| {
            let mut names = aliases.get(name).cloned().unwrap_or_default();
            names.insert(name.to_owned());
            names
        };
        let mut held_out = BTreeSet::new();
        for name in self.named {
            for policy in matching("heldout_policies", name, tally)? {
                held_out.append(&mut with_aliases(policy));
            }
        }

        let mut cells: Vec<u64> = tally
            .policies
            .values()
            .map(|&(_, cells)| cells)
            .filter(|&cells| cells > 0)
            .collect();
        cells.sort_unstable();
        let median = cells.get(cells.len() / 2).copied().unwrap_or(1);
        let mut eligible: Vec<&String> = tally.policies.keys().collect();
        eligible.retain(|&name| tally.policies[name].1 >= median && !held_out.contains(name));
        eligible.sort_by_cached_key(|name| lot("held-out policy", self.seed, name));
        let mut taken = 0;
        for name in &eligible {
            // An earlier choice may have taken this one along as its alias.
            if taken < self.chosen && !held_out.contains(*name) {
                taken += 1;
                held_out.append(&mut with_aliases(name));
            }
        }
        if taken < self.chosen {
            return Err(Error::HeldOutPolicies {
                asked: self.chosen,
                eligible: eligible.len(),
            });
        }

        let table = tally
            .policies
            .iter()
            .map(|(name, &(trajectories, cells))| Policy {
                name: name.clone(),
                trajectories,
                cells,
                held_out: held_out.contains(name),
                aliases: with_aliases(name)
                    .into_iter()
                    .filter(|other| other != name)
                    .collect(),
            });
        Ok(table.collect())
    }

    /// For every policy that has aliases, all names of it. An alias that lacks a strict policy's
    /// further columns stands for all policies that begin with it; of these, the ones with equal
    /// further columns are each other's aliases.
    fn alias_sets(&self, tally: &Tally) -> Result<BTreeMap<String, BTreeSet<String>>, Error> {
        let mut sets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for names in self.aliases {
            let mut by_columns: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
            for name in names {
                for policy in matching("aliases", name, tally)? {
                    by_columns
                        .entry(&policy[name.len()..])
                        .or_default()
                        .insert(policy.to_owned());
                }
            }
            for same in by_columns.into_values() {
                // A policy that two groups name joins them.
                let earlier = same
                    .iter()
                    .filter_map(|name| sets.get(name))
                    .flatten()
                    .cloned();
                let union: BTreeSet<String> = earlier.chain(same.iter().cloned()).collect();
                for name in &union {
                    sets.insert(name.clone(), union.clone());
                }
            }
        }
        Ok(sets)
    }
}

/// The policies that a name stands for: itself, or all strict policies whose first columns it
/// gives.
fn matching<'t>(what: &'static str, name: &str, tally: &'t Tally) -> Result<Vec<&'t str>, Error> {
    let begins = |policy: &&str| {
        let rest = policy.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(COLUMN_SEPARATOR))
    };
    let found: Vec<&str> = tally
        .policies
        .keys()
        .map(String::as_str)
        .filter(begins)
        .collect();
    if found.is_empty() {
        let some: Vec<&str> = tally.policies.keys().map(String::as_str).take(8).collect();
        let more = if tally.policies.len() > some.len() {
            ", ..."
        } else {
            ""
        };
        let known = format!(
            "{} policies: {}{more}",
            tally.policies.len(),
            some.join(", ")
        );
        return Err(Error::UnknownPolicy {
            what,
            name: name.into(),
            known,
        });
    }
    Ok(found)
}

/// The held-out prompts: those with the smallest lots, up to the one that makes the number of
/// usable ones exact.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HeldOutPrompts {
    seed: u64,
    /// The last lot, big-endian.
    last: Option<[u8; 16]>,
}

impl HeldOutPrompts {
    pub(super) async fn choose<S: Source>(
        source: &Arc<S>,
        table: &PolicyTable,
        numbers: &BTreeMap<&str, u32>,
        wanted: HeldOut,
        seed: u64,
        progress: &dyn Fn(Progress),
    ) -> Result<Self, S::Error> {
        let (mut prompts, mut one_policy, mut no_pair) = (0, 0, 0);
        let mut lots = Vec::new();
        let parts = source.parts() as u64;
        let mut walk = walk(source, 0);
        while let Some((part, groups)) = walk.try_next().await? {
            for group in groups {
                prompts += 1;
                let samples = group.samples(numbers);
                if table.usable(Task::Training, &samples) {
                    lots.push(lot("held-out prompt", seed, &group.prompt_id));
                } else if samples.len() < 2 {
                    one_policy += 1;
                } else if samples.iter().all(|of| of.samples.len() < 2) {
                    no_pair += 1;
                }
            }
            progress(Progress::of(Stage::Choose, part as u64 + 1, parts));
        }
        let usable = lots.len() as u64;
        if usable == 0 {
            let rest = prompts - one_policy - no_pair;
            return Err(Error::NoUsablePrompt {
                prompts,
                one_policy,
                no_pair,
                rest,
            }
            .into());
        }
        let count = match wanted {
            HeldOut::Count(count) => count,
            HeldOut::Fraction(fraction) if (0.0..1.0).contains(&fraction) => {
                (fraction * usable as f64).round() as u64
            }
            HeldOut::Fraction(fraction) => return Err(Error::Fraction { fraction }.into()),
        };
        if count >= usable {
            return Err(Error::HeldOutPrompts {
                asked: count,
                usable,
            }
            .into());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        let names = [
            "a | hot",
            "a | cold",
            "a2 | hot",
            "a2 | warm",
            "b",
            "c",
            "d",
        ];
        let policies = names.into_iter().map(|name| (name.to_owned(), (10, 5)));
        Tally {
            policies: policies.collect(),
            ..Tally::default()
        }
    }

    fn table(named: &[&str], chosen: usize, aliases: &[&[&str]]) -> Result<Vec<Policy>, Error> {
        let owned = |names: &[&str]| {
            names
                .iter()
                .map(|name| name.to_string())
                .collect::<Vec<_>>()
        };
        let aliases: Vec<_> = aliases.iter().map(|names| owned(names)).collect();
        PolicySelection {
            named: &owned(named),
            chosen,
            aliases: &aliases,
            seed: 1,
        }
        .table(&tally())
    }

    #[test]
    fn aliases_meet_where_their_further_columns_agree() {
        let table = table(&[], 0, &[&["a", "a2"], &["b", "c"], &["c", "d"]]).unwrap();
        let aliases: BTreeMap<&str, String> = table
            .iter()
            .map(|policy| (policy.name.as_str(), policy.aliases.join(",")))
            .collect();
        assert_eq!(aliases["a | hot"], "a2 | hot");
        assert_eq!(
            (aliases["a | cold"].as_str(), aliases["a2 | warm"].as_str()),
            ("", "")
        );
        assert_eq!(
            (aliases["b"].as_str(), aliases["d"].as_str()),
            ("c,d", "b,c")
        );
    }

    #[test]
    fn held_out_policies_take_their_aliases_along() {
        let held = |table: Vec<Policy>| -> Vec<String> {
            table
                .into_iter()
                .filter(|policy| policy.held_out)
                .map(|policy| policy.name)
                .collect()
        };
        assert_eq!(
            held(table(&["a | hot"], 0, &[&["a", "a2"]]).unwrap()),
            ["a | hot", "a2 | hot"]
        );
        assert_eq!(
            held(table(&["a"], 0, &[]).unwrap()),
            ["a | cold", "a | hot"]
        );
        assert_eq!(held(table(&["b"], 3, &[]).unwrap()).len(), 4);
        assert!(matches!(
            table(&[], 8, &[]),
            Err(Error::HeldOutPolicies {
                asked: 8,
                eligible: 7
            })
        ));
        let unknown = table(&["nobody"], 0, &[]).unwrap_err().to_string();
        assert!(
            unknown.contains("'nobody'") && unknown.contains("a2 | hot"),
            "{unknown}"
        );
    }
}
