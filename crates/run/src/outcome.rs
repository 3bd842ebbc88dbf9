//! What a trial comes to: scores, digest, and what it consumed.

use polestar_core::{Digest, TrialId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a model does on one held-out set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetScore {
    /// Mean loss.
    pub loss: f64,
    /// Fraction of triplets whose positive got the higher reward (ties count half); none for
    /// language models.
    pub accuracy: Option<f64>,
    /// Triplets scored.
    pub triplets: usize,
}

/// What has gone through a trial so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Consumed {
    /// Triplets.
    pub triplets: u64,
    /// Tokens of the plain layout.
    pub plain_tokens: u64,
    /// Tokens that really went through the model.
    pub packed_tokens: u64,
    /// (query, key) pairs that attention looked at.
    pub attention_pairs: u64,
    /// Wall-clock seconds of training steps, validation and saving, over all generations.
    pub seconds: f64,
}

/// A complete trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which.
    pub trial: TrialId,
    /// Steps done.
    pub steps: u64,
    /// Digest of the final weights.
    pub digest: Digest,
    /// Scores by held-out set after the last step.
    pub validation: BTreeMap<String, SetScore>,
    /// What it took.
    pub consumed: Consumed,
    /// FLOPs by convention `6ND`.
    pub flops_6nd: f64,
    /// FLOPs by convention `executed`.
    pub flops_executed: f64,
}
