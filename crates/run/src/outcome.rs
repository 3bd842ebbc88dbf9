//! What a trial comes to: scores, digest, and what it consumed.

use polestar_core::{
    Clustered, Digest, TrialId,
    cluster::{FEWEST_CLUSTERS, Interval},
    tree::tree_sum,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// How a model does on one held-out set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SetScore {
    /// Mean loss.
    pub loss: f64,
    /// Fraction of triplets whose positive got the higher reward (ties count half); none for
    /// language models.
    pub accuracy: Option<f64>,
    /// Triplets scored.
    pub triplets: usize,
    /// Prompts that they are of; none in records of versions that didn't count them.
    #[serde(default)]
    pub prompts: Option<usize>,
    /// Standard error of the loss, [clustered](Clustered) by prompt; none of one prompt alone.
    #[serde(default)]
    pub loss_error: Option<f64>,
    /// Standard error of the accuracy, likewise.
    #[serde(default)]
    pub accuracy_error: Option<f64>,
    /// Mean reward of the positive minus reward of the negative; none for language models, and in records of versions
    /// that didn't keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// The rewards themselves, of positives and negatives together; none likewise, and where the engine doesn't
    /// read them back from its device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewards: Option<RewardSpread>,
}

/// How rewards lie. They are as the model gives them: only differences within a prompt mean something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RewardSpread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation of all of them.
    pub deviation: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl RewardSpread {
    /// Of these rewards; `None` of none. Added up by the tree, so that every rank says the same.
    pub fn of(rewards: &[f64]) -> Option<RewardSpread> {
        let min = rewards.iter().copied().reduce(f64::min)?;
        let max = rewards.iter().copied().reduce(f64::max)?;
        let count = rewards.len() as f64;
        let mean = tree_sum(rewards) / count;
        let squares: Vec<f64> = rewards.iter().map(|r| (r - mean) * (r - mean)).collect();
        Some(RewardSpread {
            mean,
            deviation: (tree_sum(&squares) / count).sqrt(),
            min,
            max,
        })
    }
}

impl SetScore {
    /// 95% interval of the loss, prompts being drawn; `None` where they are unknown or too few.
    pub fn loss_interval(&self) -> Option<Interval> {
        self.clustered(self.loss, self.loss_error).interval()
    }

    /// 95% interval of the accuracy, likewise.
    pub fn accuracy_interval(&self) -> Option<Interval> {
        let of = self.clustered(self.accuracy?, self.accuracy_error);
        of.share_interval()
    }

    fn clustered(&self, mean: f64, error: Option<f64>) -> Clustered {
        Clustered {
            mean,
            error,
            clusters: self.prompts.unwrap_or(0),
            observations: self.triplets,
        }
    }

    /// What it rests on: `512 triplets of 50 prompts`, and why there are no intervals where there are none.
    pub fn basis(&self) -> String {
        let triplets = self.triplets;
        match self.prompts {
            None => {
                format!("{triplets} triplets, prompts not counted by the version that scored them")
            }
            Some(1) => format!("{triplets} triplets of 1 prompt, too few for an interval"),
            Some(few) if few < FEWEST_CLUSTERS => {
                format!("{triplets} triplets of {few} prompts, too few for an interval")
            }
            Some(prompts) => format!("{triplets} triplets of {prompts} prompts"),
        }
    }
}

impl fmt::Display for SetScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.4}", self.loss)?;
        if let Some(Interval { lo, hi }) = self.loss_interval() {
            write!(f, " ({lo:.4} to {hi:.4})")?;
        }
        if let Some(accuracy) = self.accuracy {
            write!(f, " acc {accuracy:.3}")?;
        }
        if let Some(Interval { lo, hi }) = self.accuracy_interval() {
            write!(f, " ({lo:.3} to {hi:.3})")?;
        }
        write!(f, ", {}", self.basis())
    }
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
    /// The same on those triplets only that were scored along the way: the last point of the trial's curves. Empty
    /// in records of versions that ended a curve with other triplets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub along: BTreeMap<String, SetScore>,
    /// What it took.
    pub consumed: Consumed,
    /// FLOPs by convention `6ND`.
    pub flops_6nd: f64,
    /// FLOPs by convention `executed`.
    pub flops_executed: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_says_what_it_rests_on_and_how_sure_it_is() {
        let score = SetScore {
            loss: 0.65,
            accuracy: Some(0.6),
            triplets: 512,
            prompts: Some(50),
            loss_error: Some(0.01),
            accuracy_error: Some(0.025),
            ..SetScore::default()
        };
        assert_eq!(
            score.to_string(),
            "0.6500 (0.6299 to 0.6701) acc 0.600 (0.549 to 0.649), 512 triplets of 50 prompts"
        );
        let few = SetScore {
            prompts: Some(3),
            ..score
        };
        assert_eq!(
            few.to_string(),
            "0.6500 acc 0.600, 512 triplets of 3 prompts, too few for an interval"
        );
        // As versions wrote it that knew nothing of prompts.
        let old = r#"{"loss": 0.65, "accuracy": 0.6, "triplets": 512}"#;
        let old: SetScore = serde_json::from_str(old).unwrap();
        assert!(old.loss_interval().is_none() && old.basis().contains("not counted"));
    }
}
