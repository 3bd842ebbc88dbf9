//! What a report is made from: everything a sweep knows once its trials have ended, gathered by the caller.

use serde::{Deserialize, Serialize};

use super::{CurveScores, Cutting, Discrimination, FineTuned, PairedDifference, PreferenceSet};
use crate::fits::{Curve, FailedTrial, FinishedTrial, Interval};
use polestar_core::{Clustered, cluster};

/// The facts of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReportInput {
    /// Heading, usually the sweep's name.
    pub title: String,
    /// Identity of the run in the store.
    pub run_id: String,
    /// What was trained on.
    pub corpus: Corpus,
    /// Digest of the resolved configuration.
    pub config_digest: String,
    /// When the report was made, as the caller wants it printed.
    pub created: String,
    /// What the numbers count: (name, definition), e.g. what N and C include.
    pub conventions: Vec<(String, String)>,
    /// Trials that have a result.
    pub finished: Vec<FinishedTrial>,
    /// Trials that ended without a result.
    pub failed: Vec<FailedTrial>,
    /// Names of trials that have not ended; any makes the report provisional.
    pub missing: Vec<String>,
    /// Training curves.
    pub curves: Vec<Curve>,
    /// Loss of a model that guesses, where loss is POLAR's. `None` where it is another quantity, which
    /// then is not set beside the paper's laws either.
    #[serde(default)]
    pub chance: Option<f64>,
    /// Whether the sweep was made for the law along its training curves.
    #[serde(default)]
    pub envelope: bool,
    /// Bayes loss of a corpus with a planted optimum, in nats per triplet.
    pub optimum: Option<f64>,
    /// The set whose final losses the laws are fitted to, as `validation` names it; empty where there is none.
    #[serde(default)]
    pub fitted_set: String,
    /// What it is worth that workers stayed between trials, in a sentence; empty where it isn't known.
    #[serde(default)]
    pub warmth: String,
    /// Results on each validation set.
    pub validation: Vec<Validation>,
    /// Trials that fine-tuned weights of others, with what went into these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fine_tuned: Vec<FineTuned>,
    /// Each other trial against the best one on the same triplets, where triplets are known.
    #[serde(default)]
    pub paired: Vec<PairedDifference>,
    /// What the points of training curves are scored on, where they are validated.
    #[serde(default)]
    pub curve_scores: Option<CurveScores>,
    /// What is cut of texts, where that was measured.
    #[serde(default)]
    pub cutting: Option<Cutting>,
    /// The trial of the lowest loss on the fitted set, and what to do with it; none of a table of runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<BestTrial>,
    /// (trial, final digest of its parameters).
    pub digests: Vec<(String, String)>,
    /// The best trial of the largest compute on each held-out set, looked at closely.
    #[serde(default)]
    pub discriminations: Vec<Discrimination>,
    /// Trials on preference benchmarks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<PreferenceSet>,
    /// (name, accuracy) of discriminators without training, on the same task.
    pub baselines: Vec<(String, f64)>,
}

/// The corpus, and how much of it the run saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Corpus {
    /// Its name.
    pub name: String,
    /// Fingerprint of its manifest.
    pub fingerprint: String,
    /// Policies it holds.
    pub policies: u64,
    /// Prompts it holds.
    pub prompts: u64,
    /// Triplets trained on, over all trials.
    pub triplets_seen: u64,
    /// Tokens trained on, over all trials.
    pub tokens_seen: u64,
}

/// The model that one takes from a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BestTrial {
    /// Name of the trial.
    pub trial: String,
    /// The set that it is the best on.
    pub set: String,
    /// Its final loss on it, in nats per triplet.
    pub loss: f64,
    /// Share of triplets ranked correctly, 0..=1.
    pub accuracy: Option<f64>,
    /// URL of its last checkpoint; none where it was removed.
    pub checkpoint: Option<String>,
    /// Commands to go on with: (what for, command).
    pub next: Vec<(String, String)>,
}

/// One trial on one validation set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Name of the trial.
    pub trial: String,
    /// Name of the set, e.g. `held-out policies`.
    pub set: String,
    /// Mean loss in nats per triplet.
    pub loss: f64,
    /// Share of triplets ranked correctly, 0..=1.
    pub accuracy: f64,
    /// Triplets measured on.
    pub triplets: u64,
    /// Prompts that they are of; unknown of what older versions scored.
    #[serde(default)]
    pub prompts: Option<u64>,
    /// Standard error of the loss, clustered by prompt.
    #[serde(default)]
    pub loss_error: Option<f64>,
    /// Standard error of the accuracy, clustered by prompt.
    #[serde(default)]
    pub accuracy_error: Option<f64>,
}

impl Validation {
    /// 95% interval of the loss, prompts being drawn; `None` where they are unknown or too few.
    pub fn loss_interval(&self) -> Option<Interval> {
        let of = self.clustered(self.loss, self.loss_error);
        of.interval().map(Interval::from)
    }

    /// 95% interval of the accuracy, likewise.
    pub fn accuracy_interval(&self) -> Option<Interval> {
        let of = self.clustered(self.accuracy, self.accuracy_error);
        of.share_interval().map(Interval::from)
    }

    fn clustered(&self, mean: f64, error: Option<f64>) -> Clustered {
        Clustered {
            mean,
            error,
            clusters: self.prompts.unwrap_or(0) as usize,
            observations: self.triplets as usize,
        }
    }
}

impl From<cluster::Interval> for Interval {
    fn from(cluster::Interval { lo, hi }: cluster::Interval) -> Self {
        Self { lo, hi }
    }
}
