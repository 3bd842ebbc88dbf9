//! What a sweep varies.

use polestar_core::Objective;
use polestar_laws::{Policies, Spread};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The axes of a sweep. Every size is combined with every length, learning rate, batch, number of
/// policies and seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axes {
    /// What the trials learn.
    #[serde(default = "default_objective")]
    pub objective: Objective,
    /// Names of presets or of `models`, or numbers of non-embedding parameters: `"120M"`, `"1.5B"`.
    pub sizes: Vec<String>,
    /// Compute budgets in FLOPs, convention `6ND` (non-embedding parameters, plain tokens).
    #[serde(default)]
    pub budgets: Vec<f64>,
    /// Or: numbers of optimizer steps.
    #[serde(default)]
    pub steps: Vec<u64>,
    /// Or: plain tokens for each non-embedding parameter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens_per_parameter: Vec<f64>,
    /// Seeds of initial weights and order, and of the choice among policies.
    #[serde(default = "default_seeds")]
    pub seeds: Vec<u64>,
    /// Peak learning rate where it isn't `train.optimizer.lr`.
    #[serde(default)]
    pub lr: LrAxis,
    /// Batch where it isn't `train.batch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchAxis>,
    /// Tokens that the weights to start from were pre-trained on as a language model: the paper's law
    /// of learning rates needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrain_tokens: Option<f64>,
    /// Numbers of policies to train on, each a choice by the trial's seed that holds the smaller ones.
    /// Empty: all. Warm starts always see all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<u32>,
    /// How the policies of each number lie: drawn by the seed (`"any"`), close together or far apart, by how
    /// differently they write. Empty: drawn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distance: Vec<Spread>,
    /// Validations along each trial, for the law in compute along training curves (their lower envelope). Each
    /// scores as many triplets as the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<u32>,
    /// Warm-up, constant rate, decay: the lengths of a size share a trunk and only their decays are
    /// trained apart. Takes the place of `train.schedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk: Option<TrunkTable>,
}

fn default_objective() -> Objective {
    Objective::Polar
}
fn default_seeds() -> Vec<u64> {
    vec![1]
}

/// `sweep.lr`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LrAxis {
    /// `"polar"`: the paper's law.
    Law(PaperLaw),
    /// Every trial with each of them.
    Each(Vec<f32>),
    /// By size, for those that are named.
    BySize(BTreeMap<String, f32>),
}

impl Default for LrAxis {
    fn default() -> LrAxis {
        LrAxis::BySize(BTreeMap::new())
    }
}

/// `sweep.batch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BatchAxis {
    /// `"polar"`: the paper's law.
    Law(PaperLaw),
    /// Every trial with each of them.
    Each(Vec<u32>),
}

/// By whose law.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaperLaw {
    /// That of the POLAR paper.
    Polar,
}

/// `sweep.trunk`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrunkTable {
    /// Steps that the learning rate rises; 3% of the shortest length if not given.
    pub warmup: Option<u64>,
    /// Fraction of each length that it falls at the end.
    #[serde(default = "default_decay")]
    pub decay: f64,
    /// Last learning rate over the peak.
    #[serde(default)]
    pub floor: f32,
}

fn default_decay() -> f64 {
    0.2
}

impl Axes {
    /// Every choice among policies.
    pub(super) fn choices(&self) -> Vec<Option<Policies>> {
        if self.policies.is_empty() {
            return vec![None];
        }
        let spreads: &[Spread] = match self.distance.is_empty() {
            true => &[Spread::Any],
            false => &self.distance,
        };
        let counts = self.policies.iter();
        counts
            .flat_map(|&count| {
                let spreads = spreads.iter();
                spreads.map(move |&spread| Some(Policies { count, spread }))
            })
            .collect()
    }

    /// Whether policies are chosen by how differently they write.
    pub fn needs_distances(&self) -> bool {
        self.distance.iter().any(|spread| *spread != Spread::Any)
    }

    /// Checks what serde can't.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.sizes.is_empty() || self.seeds.is_empty() {
            return Err("sweep.sizes and sweep.seeds need at least one entry each".into());
        }
        let lengths = [
            self.budgets.is_empty(),
            self.steps.is_empty(),
            self.tokens_per_parameter.is_empty(),
        ];
        if lengths.iter().filter(|empty| !**empty).count() != 1 {
            return Err(
                "give one of sweep.budgets (FLOPs), sweep.steps and sweep.tokens_per_parameter, \
                 and not both or all"
                    .into(),
            );
        }
        let positive = |x: &f64| x.is_finite() && *x > 0.0;
        if let Some(bad) = self.budgets.iter().find(|b| !positive(b)) {
            return Err(format!(
                "sweep.budgets has {bad}; a budget is a positive number of FLOPs"
            ));
        }
        if let Some(bad) = self.tokens_per_parameter.iter().find(|b| !positive(b)) {
            return Err(format!(
                "sweep.tokens_per_parameter has {bad}; it must be a positive number"
            ));
        }
        if self.steps.contains(&0) {
            return Err("sweep.steps has 0; a trial needs at least one step".into());
        }
        match &self.lr {
            LrAxis::BySize(by_size) => {
                if let Some(size) = by_size.keys().find(|s| !self.sizes.contains(s)) {
                    return Err(format!("sweep.lr.{size}: sweep.sizes has no `{size}`"));
                }
            }
            LrAxis::Each(rates) if rates.is_empty() => {
                return Err("sweep.lr is an empty list; leave it out or name a rate".into());
            }
            LrAxis::Law(_) if !self.pretrain_tokens.as_ref().is_some_and(positive) => {
                return Err(
                    "sweep.lr = \"polar\" needs sweep.pretrain_tokens: how many tokens the weights \
                     to start from were trained on as a language model"
                        .into(),
                );
            }
            _ => {}
        }
        match &self.batch {
            Some(BatchAxis::Each(batches)) if batches.is_empty() => {
                return Err("sweep.batch is an empty list; leave it out or name a batch".into());
            }
            Some(BatchAxis::Law(_)) if !self.steps.is_empty() => {
                return Err(
                    "sweep.batch = \"polar\" follows from the tokens, and sweep.steps from the batch: \
                     give sweep.budgets or sweep.tokens_per_parameter instead of steps"
                        .into(),
                );
            }
            _ => {}
        }
        if self.policies.iter().any(|&count| count < 2) {
            return Err("sweep.policies: a triplet compares two, so at least 2 are needed".into());
        }
        if !self.distance.is_empty() && self.policies.is_empty() {
            return Err(
                "sweep.distance says how chosen policies lie; say in sweep.policies how many"
                    .into(),
            );
        }
        if let Some(validations) = self.envelope {
            if validations < 4 {
                return Err(format!(
                    "sweep.envelope is {validations}; a curve needs at least 4 validations, and a good one 20"
                ));
            }
            if self.trunk.is_some() {
                return Err(
                    "sweep.envelope reads the law off each curve, sweep.trunk shares curves among \
                     lengths: use one of them"
                        .into(),
                );
            }
        }
        if let Some(trunk) = &self.trunk {
            if !(trunk.decay > 0.0 && trunk.decay <= 1.0) {
                return Err(format!(
                    "sweep.trunk.decay is {}; it is a fraction of each length, above 0 and at most 1",
                    trunk.decay
                ));
            }
            let by_length =
                matches!(self.lr, LrAxis::Law(_)) || matches!(self.batch, Some(BatchAxis::Law(_)));
            if by_length {
                return Err(
                    "sweep.trunk: with \"polar\" every length has a learning rate or batch of its \
                     own, so there is no trunk to share; give lists or leave the trunk out"
                        .into(),
                );
            }
        }
        Ok(())
    }
}
