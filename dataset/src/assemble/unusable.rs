//! Why no prompt gives a triplet, and what can be done about it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use futures::TryStreamExt;

use super::select::COLUMN_SEPARATOR;
use super::{Group, Source, walk};
use crate::across::Pairs;
use crate::triplet::Obstacle;

/// More columns have too many subsets to count them all.
const MOST_COLUMNS: usize = 6;
/// Choices of columns that an error suggests.
const SUGGESTED: usize = 4;

/// What stands in the way of how many prompts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Obstacles(BTreeMap<Obstacle, u64>);

impl Obstacles {
    pub(crate) fn count(&mut self, obstacle: Obstacle) {
        *self.0.entry(obstacle).or_default() += 1;
    }

    /// Whether nothing stands in the way of any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn all(&self) -> u64 {
        self.0.values().sum()
    }

    fn of(&self, obstacle: Obstacle) -> u64 {
        self.0.get(&obstacle).copied().unwrap_or(0)
    }

    /// The commonest.
    fn chief(&self) -> Option<Obstacle> {
        let commonest = self.0.iter().max_by_key(|(_, count)| **count);
        commonest.map(|(&obstacle, _)| obstacle)
    }
}

impl fmt::Display for Obstacles {
    /// "3 because one policy only answered it, 2 because …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.0.iter();
        let each = each.map(|(obstacle, count)| format!("{count} because {}", obstacle.because()));
        f.write_str(&each.collect::<Vec<_>>().join(", "))
    }
}

/// Fewer columns for the policy, and the prompts that would give a triplet then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coarser {
    /// The columns.
    pub columns: Vec<String>,
    /// The usable prompts.
    pub prompts: u64,
}

/// Why no prompt gives a triplet, with the ways on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unusable {
    /// What stands in the way.
    pub obstacles: Obstacles,
    /// Coarser policies that would give triplets, the best first.
    pub coarser: Vec<Coarser>,
    /// Prompts that would give one across prompts, about: those that two policies answered.
    pub across: u64,
    /// How the pairs were to be made.
    pub pairs: Pairs,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let obstacles = &self.obstacles;
        let prompts = obstacles.all();
        let cause = match obstacles.chief() {
            Some(Obstacle::NoPair) if obstacles.of(Obstacle::NoPair) == prompts => {
                "every policy has one distinct answer to a prompt"
            }
            Some(obstacle) => obstacle.because(),
            None => "there are none",
        };
        write!(f, "no prompt can give a triplet: {cause}")?;
        match self.pairs {
            Pairs::SamePrompt => write!(
                f,
                " (a triplet needs two distinct answers of one policy to a prompt, and another policy's answer \
                 to the same prompt"
            )?,
            Pairs::AcrossPrompts => write!(
                f,
                " (across prompts a triplet needs answers of two policies to a prompt, and one of them to \
                 another prompt of the same row group and cluster"
            )?,
        }
        let ways = (1..).zip(self.ways());
        let ways: Vec<String> = ways
            .map(|(number, way)| format!("({number}) {way}"))
            .collect();
        write!(
            f,
            "; of {prompts} prompts: {obstacles}). Ways on: {}",
            ways.join("; ")
        )?;
        let chief = obstacles.chief();
        match matches!(chief, Some(Obstacle::OnePolicy | Obstacle::NoPair)) {
            true => f.write_str(
                ". Preference data (chosen and rejected answers, or answers with scores) says nothing of \
                 policies: --labelled imports it, for fine-tuning",
            ),
            false => Ok(()),
        }
    }
}

impl Unusable {
    fn ways(&self) -> Vec<String> {
        let mut ways = Vec::new();
        let coarser = self.coarser.iter().take(SUGGESTED).map(|coarser| {
            let columns = coarser.columns.join(",");
            format!("--policy {columns} ({} usable prompts)", coarser.prompts)
        });
        let coarser: Vec<String> = coarser.collect();
        if !coarser.is_empty() {
            ways.push(format!("coarser policies: {}", coarser.join(", ")));
        }
        let chief = self.obstacles.chief();
        if self.pairs == Pairs::SamePrompt && self.across > 0 {
            ways.push(format!(
                "--pairs across-prompts ({} prompts): the reference is then the policy's answer to another \
                 prompt (--cluster COLUMN: to one of the same kind)",
                self.across
            ));
        }
        ways.push(match chief {
            Some(Obstacle::OnePolicy) => {
                "answers of several policies to the same prompts; columns that make policies differ (model, \
                 temperature) belong into --policy COLUMN,COLUMN"
            }
            Some(Obstacle::HeldOut) => {
                "hold fewer policies out (--heldout-policy, --heldout-policies)"
            }
            Some(Obstacle::Aliases) => "fewer aliases (--alias)",
            Some(Obstacle::NoPartner) => {
                "larger row groups (--row-group-rows), or a coarser --cluster"
            }
            _ => "sample every policy at least twice at each prompt",
        }
        .into());
        ways
    }
}

/// The ways on from no usable prompt, found by walking the source once more.
pub(super) async fn ways_on<S: Source>(
    source: &Arc<S>,
    obstacles: Obstacles,
    columns: &[String],
    pairs: Pairs,
) -> Result<Unusable, S::Error> {
    let mut found = Unusable {
        obstacles,
        pairs,
        ..Unusable::default()
    };
    let subsets = match columns.len() {
        2..=MOST_COLUMNS if pairs == Pairs::SamePrompt => 1..(1_usize << columns.len()) - 1,
        _ => 0..0,
    };
    let mut usable = vec![0_u64; subsets.len()];
    let mut walk = walk::walk(source, 0);
    while let Some((_, groups)) = walk.try_next().await? {
        for group in &groups {
            let mut answered = group.by_policy();
            found.across += u64::from(answered.nth(1).is_some());
            for (subset, usable) in subsets.clone().zip(&mut usable) {
                *usable += u64::from(gives_a_triplet(group, subset, columns.len()));
            }
        }
    }
    let coarser = subsets.zip(usable).filter(|(_, prompts)| *prompts > 0);
    found.coarser = coarser
        .map(|(subset, prompts)| {
            let kept = columns.iter().enumerate();
            let kept = kept.filter(|(column, _)| subset >> column & 1 == 1);
            Coarser {
                columns: kept.map(|(_, column)| column.clone()).collect(),
                prompts,
            }
        })
        .collect();
    // Of equals the one that keeps more columns.
    found
        .coarser
        .sort_by_key(|it| std::cmp::Reverse((it.prompts, it.columns.len())));
    Ok(found)
}

/// Whether a prompt has a triplet if the policy is made of a subset of its columns.
fn gives_a_triplet(group: &Group, subset: usize, columns: usize) -> bool {
    let mut policies: BTreeMap<Vec<&str>, BTreeSet<&str>> = BTreeMap::new();
    for answer in &group.answers {
        let parts: Vec<&str> = answer.policy.split(COLUMN_SEPARATOR).collect();
        // A value that holds the separator itself can't be told from two columns.
        if parts.len() != columns {
            return false;
        }
        let kept = parts.into_iter().enumerate();
        let kept = kept.filter(|(column, _)| subset >> column & 1 == 1);
        let answers = policies.entry(kept.map(|(_, part)| part).collect());
        answers.or_default().insert(&answer.response);
    }
    policies.iter().any(|(name, own)| {
        let mut others = policies.iter().filter(|(other, _)| *other != name);
        own.len() >= 2 && others.any(|(_, theirs)| !theirs.is_subset(own))
    })
}
