//! The policies of a corpus: which are aliases, which are held out, and why.

use polestar_core::near::likeness;
use std::collections::{BTreeMap, BTreeSet};

use super::select::{COLUMN_SEPARATOR, Tally, lot};
use super::{Error, Recipe};
use crate::across::Pairs;
use crate::manifest::Policy;
use crate::pattern::matches;
use crate::twins::{HeldOutPolicies, HeldOutPolicy, Likeness, PassedOver, Reason};

/// Names that an error suggests.
const SUGGESTED: usize = 5;

/// Which policies are held out and which are aliases, as asked for.
pub(super) struct PolicySelection<'a> {
    /// Names and patterns.
    pub(super) named: &'a [String],
    pub(super) chosen: usize,
    pub(super) aliases: &'a [Vec<String>],
    pub(super) pairs: Pairs,
    pub(super) seed: u64,
}

/// The policies that give the same answers as each other, by name.
struct Twins<'t> {
    /// Of every policy those that are hardly another, and how often they repeat it.
    twins: BTreeMap<&'t str, Vec<(&'t str, Likeness)>>,
    /// Of every policy all that ever repeat it.
    alike: BTreeMap<&'t str, Vec<(&'t str, Likeness)>>,
}

impl<'t> Twins<'t> {
    fn of(tally: &'t Tally, aliases: &BTreeMap<String, BTreeSet<String>>) -> Self {
        let mut found = Self {
            twins: BTreeMap::new(),
            alike: BTreeMap::new(),
        };
        let (names, counted) = (&tally.twins.names, &tally.twins.found);
        for pair in &counted.pairs {
            let [a, b] = [pair.policies.0, pair.policies.1].map(|n| names[n as usize].as_str());
            if aliases.get(a).is_some_and(|names| names.contains(b)) {
                continue;
            }
            for (one, other) in [(a, b), (b, a)] {
                let likeness = Likeness {
                    policy: other.to_owned(),
                    equal: pair.equal,
                    prompts: pair.prompts,
                };
                if counted.twins(pair) {
                    let twins = found.twins.entry(one).or_default();
                    twins.push((other, likeness.clone()));
                }
                found.alike.entry(one).or_default().push((other, likeness));
            }
        }
        found
    }

    /// Of these the one that is most alike.
    fn closest(
        among: &BTreeMap<&'t str, Vec<(&'t str, Likeness)>>,
        name: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Option<Likeness> {
        let all = among.get(name).into_iter().flatten();
        let all = all.filter(|(other, _)| wanted(other));
        let closest = all.max_by(|(_, a), (_, b)| a.share().total_cmp(&b.share()));
        closest.map(|(_, likeness)| likeness.clone())
    }
}

/// A choice in the making.
struct Choice<'t> {
    aliases: BTreeMap<String, BTreeSet<String>>,
    twins: Twins<'t>,
    held_out: BTreeMap<String, Reason>,
    passed_over: BTreeSet<&'t str>,
}

impl<'t> Choice<'t> {
    fn holds(&self, name: &str) -> bool {
        self.held_out.contains_key(name)
    }

    /// Holds a policy out with its aliases: they are the same policy.
    fn hold(&mut self, name: &str, reason: Reason) {
        for alias in self.aliases.get(name).into_iter().flatten() {
            if alias != name && !self.held_out.contains_key(alias) {
                let reason = Reason::AliasOf(name.to_owned());
                self.held_out.insert(alias.clone(), reason);
            }
        }
        self.held_out.entry(name.to_owned()).or_insert(reason);
    }

    /// The policy, its twins, their twins and so on, all with their aliases.
    fn group(&self, name: &'t str) -> BTreeSet<String> {
        let mut group = BTreeSet::new();
        let mut open = vec![name.to_owned()];
        while let Some(next) = open.pop() {
            if group.insert(next.clone()) {
                let twins = self.twins.twins.get(next.as_str()).into_iter().flatten();
                open.extend(twins.map(|(twin, _)| (*twin).to_owned()));
                open.extend(self.aliases.get(&next).into_iter().flatten().cloned());
            }
        }
        group
    }

    /// Whether no twin of the policy or of an alias would be trained on.
    fn has_no_twin(&self, name: &str) -> bool {
        let mut names = vec![name];
        names.extend(
            self.aliases
                .get(name)
                .into_iter()
                .flatten()
                .map(String::as_str),
        );
        let mut twins = names
            .iter()
            .filter_map(|name| self.twins.twins.get(*name))
            .flatten();
        twins.all(|(twin, _)| self.holds(twin))
    }

    /// What was chosen, in words.
    fn record(&self, compared_prompts: u64) -> HeldOutPolicies {
        let trained = |other: &str| !self.holds(other);
        let policies = self.held_out.iter().map(|(name, reason)| HeldOutPolicy {
            name: name.clone(),
            reason: reason.clone(),
            closest: Twins::closest(&self.twins.alike, name, trained),
            twin_trained: Twins::closest(&self.twins.twins, name, trained).is_some(),
        });
        let passed_over = self.passed_over.iter().filter(|name| !self.holds(name));
        let passed_over = passed_over.filter_map(|name| {
            Some(PassedOver {
                name: (*name).to_owned(),
                twin: Twins::closest(&self.twins.twins, name, trained)?,
            })
        });
        HeldOutPolicies {
            policies: policies.collect(),
            passed_over: passed_over.collect(),
            compared_prompts,
        }
    }
}

impl<'a> PolicySelection<'a> {
    pub(super) fn of(recipe: &Recipe<'a>) -> Self {
        Self {
            named: recipe.heldout_named,
            chosen: recipe.heldout_chosen,
            aliases: recipe.aliases,
            pairs: recipe.pairing.pairs,
            seed: recipe.seed,
        }
    }

    /// Whether there is anything to hold out.
    pub(super) fn holds_some(&self) -> bool {
        self.chosen > 0 || !self.named.is_empty()
    }

    /// The policy table, and what was held out.
    pub(super) fn table(&self, tally: &Tally) -> Result<(Vec<Policy>, HeldOutPolicies), Error> {
        let aliases = self.alias_sets(tally)?;
        let mut choice = Choice {
            twins: Twins::of(tally, &aliases),
            aliases,
            held_out: BTreeMap::new(),
            passed_over: BTreeSet::new(),
        };
        for by in self.named {
            for policy in like("--heldout-policy (heldout_policies)", by, tally)? {
                choice.hold(policy, Reason::Named(by.clone()));
            }
        }
        self.choose(tally, &mut choice)?;
        let table = tally.policies.iter();
        let table = table.map(|(name, &(trajectories, cells))| Policy {
            name: name.clone(),
            trajectories,
            cells,
            held_out: choice.holds(name),
            aliases: (choice.aliases.get(name).into_iter().flatten())
                .filter(|other| *other != name)
                .cloned()
                .collect(),
        });
        Ok((table.collect(), choice.record(tally.twins.found.prompts)))
    }

    /// Holds out as many as the seed is to choose: first those without a twin that is trained on, in the
    /// order of their lots, then whole groups of twins, each of which counts as one. A group of more than a
    /// quarter of all policies is none that is held out.
    fn choose<'t>(&self, tally: &'t Tally, choice: &mut Choice<'t>) -> Result<(), Error> {
        let measure = |name: &str| {
            let (trajectories, cells) = tally.policies[name];
            match self.pairs {
                Pairs::SamePrompt => cells,
                Pairs::AcrossPrompts => trajectories,
            }
        };
        let names = || tally.policies.keys().map(String::as_str);
        let mut cells: Vec<u64> = names().map(measure).filter(|&cells| cells > 0).collect();
        cells.sort_unstable();
        let median = cells.get(cells.len() / 2).copied().unwrap_or(1);
        let mut eligible: Vec<&'t str> = names().collect();
        eligible.retain(|name| measure(name) >= median && !choice.holds(name));
        eligible.sort_by_cached_key(|name| lot("held-out policy", self.seed, name));
        let mut taken = 0;
        for &name in &eligible {
            // An earlier choice may have taken this one along as its alias.
            if taken == self.chosen || choice.holds(name) {
                continue;
            }
            if choice.has_no_twin(name) {
                taken += 1;
                choice.hold(name, Reason::Chosen);
            } else {
                choice.passed_over.insert(name);
            }
        }
        for &name in &eligible {
            let group = choice.group(name);
            if taken == self.chosen || choice.holds(name) || 4 * group.len() > names().count() {
                continue;
            }
            taken += 1;
            choice.hold(name, Reason::Chosen);
            for twin in &group {
                choice.hold(twin, Reason::TwinOf(name.to_owned()));
            }
        }
        if taken < self.chosen {
            return Err(Error::HeldOutPolicies {
                asked: self.chosen,
                eligible: taken,
                twins: eligible.iter().filter(|name| !choice.holds(name)).count(),
            });
        }
        Ok(())
    }

    /// For every policy that has aliases, all names of it. An alias that lacks a strict policy's
    /// further columns stands for all policies that begin with it; of these, the ones with equal
    /// further columns are each other's aliases.
    fn alias_sets(&self, tally: &Tally) -> Result<BTreeMap<String, BTreeSet<String>>, Error> {
        let mut sets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for names in self.aliases {
            let mut by_columns: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
            for name in names {
                for policy in matching("--alias (aliases)", name, tally)? {
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
fn matching<'t>(flag: &'static str, name: &str, tally: &'t Tally) -> Result<Vec<&'t str>, Error> {
    let begins = |policy: &str| {
        let rest = policy.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(COLUMN_SEPARATOR))
    };
    found(flag, name, tally, begins)
}

/// The policies that a name stands for, or else a pattern, in which `*` is any text: of the whole name, or of a
/// strict policy's first columns.
fn like<'t>(flag: &'static str, pattern: &str, tally: &'t Tally) -> Result<Vec<&'t str>, Error> {
    let named = matching(flag, pattern, tally);
    if named.is_ok() || !pattern.contains('*') {
        return named;
    }
    let fits = |policy: &str| {
        let ends = policy.match_indices(COLUMN_SEPARATOR).map(|(at, _)| at);
        let mut ends = ends.chain([policy.len()]);
        ends.any(|end| matches(&policy[..end], pattern))
    };
    found(flag, pattern, tally, fits)
}

fn found<'t>(
    flag: &'static str,
    name: &str,
    tally: &'t Tally,
    fits: impl Fn(&str) -> bool,
) -> Result<Vec<&'t str>, Error> {
    let all = tally.policies.keys().map(String::as_str);
    let found: Vec<&str> = all.clone().filter(|policy| fits(policy)).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    // A strict policy may be meant by its first columns.
    let wanted = name.replace('*', "");
    let score = |policy: &str| {
        let columns = policy.split(COLUMN_SEPARATOR).next().unwrap_or(policy);
        likeness(&wanted, policy).max(likeness(&wanted, columns))
    };
    let mut nearest: Vec<&str> = all.collect();
    nearest.sort_by(|a, b| score(b).total_cmp(&score(a)));
    nearest.truncate(SUGGESTED);
    Err(Error::UnknownPolicy {
        flag,
        name: name.into(),
        policies: tally.policies.len(),
        nearest: nearest.join("', '"),
    })
}

#[cfg(test)]
mod tests;
