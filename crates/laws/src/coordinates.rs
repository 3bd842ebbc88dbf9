//! Where a trial lies on the axes of its sweep. Laws group trials by these, never by their names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The place of a trial on every axis that a sweep can vary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Coordinates {
    /// Name of the model size.
    pub size: String,
    /// How long it was trained.
    pub length: Length,
    /// Triplets of a step. `None` where a table of runs doesn't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// Peak learning rate. `None` where a table of runs doesn't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f32>,
    /// The choice among policies that it was trained on. `None`: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<Policies>,
    /// Seed of initial weights and order.
    pub seed: u64,
}

/// How long a trial is trained, in the words of its sweep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// A compute budget in FLOPs that sizes compete at.
    Budget(f64),
    /// Optimizer steps.
    Steps(u64),
    /// Tokens for each non-embedding parameter.
    TokensPerParameter(f64),
    /// FLOPs that were spent, in a table of runs that have no budget in common.
    Flops(f64),
}

/// A choice among the policies of a corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Policies {
    /// How many.
    pub count: u32,
    /// How they lie to each other.
    pub spread: Spread,
}

/// How chosen policies lie to each other, by how differently they write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// As the seed draws them.
    Any,
    /// Close together.
    Near,
    /// Far apart.
    Far,
}

impl Coordinates {
    /// The compute budget in FLOPs, if the sweep has budgets.
    pub fn budget(&self) -> Option<f64> {
        match self.length {
            Length::Budget(flops) => Some(flops),
            _ => None,
        }
    }

    /// Whether both are the same amount of training of one size. What else may differ between them is a
    /// matter of choice, so the better one speaks for that size and length.
    pub fn is_same_training(&self, other: &Self) -> bool {
        // Of two batches the larger one makes more of the same number of steps.
        let same_batch = !matches!(self.length, Length::Steps(_)) || self.batch == other.batch;
        self.size == other.size && self.length == other.length && same_batch
    }

    /// Whether batch, learning rate and policies are the same.
    pub fn is_same_setting(&self, other: &Self) -> bool {
        self.batch == other.batch && self.lr == other.lr && self.policies == other.policies
    }

    /// Whether the two differ in nothing but their seeds.
    pub fn differs_in_seed_only(&self, other: &Self) -> bool {
        self.size == other.size && self.length == other.length && self.is_same_setting(other)
    }

    /// Whether the two differ in nothing but their seeds and how many policies they were trained on.
    pub fn differs_in_policy_count_only(&self, other: &Self) -> bool {
        let spread = |at: &Self| at.policies.map(|policies| policies.spread);
        self.size == other.size
            && self.length == other.length
            && self.batch == other.batch
            && self.lr == other.lr
            && spread(self) == spread(other)
    }

    /// Batch, learning rate and policies as a clause, as far as they are known.
    pub fn setting(&self) -> String {
        let batch = self.batch.map(|batch| format!("batch {batch}"));
        let lr = self.lr.map(|lr| format!("learning rate {lr:e}"));
        let policies = self.policies.map(|chosen| match chosen.spread {
            Spread::Any => format!("{} policies", chosen.count),
            spread => format!("{} policies {spread}", chosen.count),
        });
        let known: Vec<String> = batch.into_iter().chain(lr).chain(policies).collect();
        match known.is_empty() {
            true => "the same setting".to_owned(),
            false => known.join(", "),
        }
    }

    /// What trials have in common that differ in their seeds and numbers of policies only.
    pub fn without_policy_count(&self) -> String {
        let mut parts = vec![self.size.clone(), self.length.to_string()];
        parts.extend(self.batch.map(|batch| format!("batch {batch}")));
        parts.extend(self.lr.map(|lr| format!("learning rate {lr:e}")));
        let spread = self.policies.map(|chosen| chosen.spread);
        parts.extend(spread.filter(|s| *s != Spread::Any).map(|s| s.to_string()));
        parts.join(", ")
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Budget(flops) | Self::Flops(flops) => write!(f, "{flops:.2e} FLOPs"),
            Self::Steps(steps) => write!(f, "{steps} steps"),
            Self::TokensPerParameter(tokens) => write!(f, "{tokens} tokens a parameter"),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "drawn by the seed",
            Self::Near => "close together",
            Self::Far => "far apart",
        })
    }
}

/// Items that belong together, in the order in which they are first met. `together` must be an
/// equivalence.
pub(crate) fn grouped<T>(
    items: impl IntoIterator<Item = T>,
    together: impl Fn(&T, &T) -> bool,
) -> Vec<Vec<T>> {
    let mut groups: Vec<Vec<T>> = Vec::new();
    for item in items {
        match groups.iter_mut().find(|group| together(&group[0], &item)) {
            Some(group) => group.push(item),
            None => groups.push(vec![item]),
        }
    }
    groups
}
