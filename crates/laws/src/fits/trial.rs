//! Trials as laws see them: where they lie, what they cost, and their losses.

use crate::Coordinates;
use serde::{Deserialize, Serialize};

/// The outcome of one finished trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinishedTrial {
    /// Its name. It names the trial to a reader and groups nothing.
    #[serde(rename = "trial")]
    pub name: String,
    /// Where it lies on the axes of its sweep.
    pub at: Coordinates,
    /// The training that it is a checkpoint of, in a table that has several of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Parameters, as the sweep's conventions count them. `None` where a table of runs doesn't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<f64>,
    /// FLOPs spent in training, as the sweep's conventions count them. `None` where a table of runs doesn't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops: Option<f64>,
    /// Tokens trained on. `None` where a table of runs doesn't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<f64>,
    /// Mean distance between its policies, where they were chosen by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<f64>,
    /// Final validation loss in nats per triplet.
    pub loss: f64,
}

impl FinishedTrial {
    /// What sizes compete at: the budget in FLOPs, or what was spent where there is none.
    pub fn compute(&self) -> Option<f64> {
        self.at.budget().or(self.flops)
    }

    /// In the order of compute; what is not known of comes first.
    pub fn cmp_compute(&self, other: &Self) -> std::cmp::Ordering {
        let known = |trial: &Self| trial.compute().unwrap_or(0.0);
        known(self).total_cmp(&known(other))
    }

    /// Whether the two are one training that differs in its seed only.
    pub fn repeats(&self, other: &Self) -> bool {
        // In a table sizes may have names that are too short to distinguish them.
        self.params == other.params && self.at.differs_in_seed_only(&other.at)
    }

    /// Its loss at its N and D, where both are known.
    pub fn run(&self) -> Option<Run> {
        Some(Run {
            n: self.params?,
            d: self.tokens?,
            loss: self.loss,
        })
    }
}

/// A trial that ended without a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedTrial {
    /// Its name.
    #[serde(rename = "trial")]
    pub name: String,
    /// The first cause.
    pub reason: String,
}

/// One loss of a model of N parameters after D tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Parameters.
    pub n: f64,
    /// Tokens.
    pub d: f64,
    /// Loss in nats.
    pub loss: f64,
}

/// One trial's losses along its training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Name of the trial.
    pub trial: String,
    /// Name of its model size.
    pub size: String,
    /// Its parameters.
    pub params: f64,
    /// In order of training.
    pub points: Vec<CurvePoint>,
}

/// What was measured at one step; validation is measured less often than training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Optimizer steps done.
    pub step: u64,
    /// Tokens trained on so far.
    pub tokens: f64,
    /// FLOPs spent so far.
    pub flops: f64,
    /// Mean loss of the batches since the point before.
    pub train_loss: Option<f64>,
    /// Loss on the validation set.
    pub val_loss: Option<f64>,
    /// Share of validation triplets ranked correctly.
    pub val_accuracy: Option<f64>,
}
