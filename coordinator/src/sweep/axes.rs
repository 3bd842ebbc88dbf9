//! What a sweep varies.

use polestar_core::Objective;
use polestar_laws::{Policies, Spread};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The axes of a sweep. Every size is combined with every length, learning rate, batch, number of
/// policies and seed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Axes {
    /// What the trials learn.
    pub objective: Objective,
    /// Names of presets or of `models`, or numbers of non-embedding parameters: `"120M"`, `"1.5B"`. None with
    /// `[start]`.
    pub sizes: Vec<String>,
    /// Compute budgets in FLOPs, convention `6ND` (non-embedding parameters, plain tokens).
    #[schemars(extend("unit" = "FLOPs"))]
    pub budgets: Vec<f64>,
    /// Or: numbers of optimizer steps.
    #[schemars(extend("unit" = "steps"))]
    pub steps: Vec<u64>,
    /// Or: plain tokens for each non-embedding parameter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("unit" = "tokens/parameter"))]
    pub tokens_per_parameter: Vec<f64>,
    /// Seeds of initial weights and order, and of the choice among policies.
    pub seeds: Vec<u64>,
    /// Peak learning rate where it isn't `train.optimizer.lr`.
    pub lr: LrAxis,
    /// Batch where it isn't `train.batch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("unit" = "triplets"))]
    pub batch: Option<BatchAxis>,
    /// Tokens that the weights to start from were pre-trained on as a language model: the paper's law
    /// of learning rates needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("unit" = "tokens"))]
    pub pretrain_tokens: Option<f64>,
    /// Numbers of policies to train on, each a choice by the trial's seed that holds the smaller ones.
    /// Empty: all. Warm starts always see all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("unit" = "policies"))]
    pub policies: Vec<u32>,
    /// How the policies of each number lie: drawn by the seed (`"any"`), close together or far apart, by how
    /// differently they write. Empty: drawn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub distance: Vec<Spread>,
    /// Validations along each trial, for the law in compute along training curves (their lower envelope). Each
    /// scores as many triplets as the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("unit" = "validations"))]
    pub envelope: Option<u32>,
    /// Warm-up, constant rate, decay: the lengths of a size share a trunk and only their decays are
    /// trained apart. Takes the place of `train.schedule`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk: Option<TrunkTable>,
}

impl Default for Axes {
    fn default() -> Self {
        Axes {
            objective: Objective::Polar,
            sizes: Vec::new(),
            budgets: Vec::new(),
            steps: Vec::new(),
            tokens_per_parameter: Vec::new(),
            seeds: vec![1],
            lr: LrAxis::default(),
            batch: None,
            pretrain_tokens: None,
            policies: Vec::new(),
            distance: Vec::new(),
            envelope: None,
            trunk: None,
        }
    }
}

/// `sweep.lr`.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum BatchAxis {
    /// `"polar"`: the paper's law.
    Law(PaperLaw),
    /// Every trial with each of them.
    Each(Vec<u32>),
}

/// By whose law.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaperLaw {
    /// That of the POLAR paper.
    Polar,
}

/// `sweep.trunk`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrunkTable {
    /// Steps that the learning rate rises; 3% of the shortest length if not given.
    #[schemars(extend("unit" = "steps"))]
    pub warmup: Option<u64>,
    /// Fraction of each length that it falls at the end.
    pub decay: f64,
    /// Last learning rate over the peak.
    pub floor: f32,
}

impl Default for TrunkTable {
    fn default() -> Self {
        TrunkTable {
            warmup: None,
            decay: 0.2,
            floor: 0.0,
        }
    }
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
}
