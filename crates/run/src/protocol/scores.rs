//! Scores and rows of metrics as messages.

use crate::{RewardSpread, SetScore, metrics::Row, proto};
use polestar_core::Step;
use std::collections::{BTreeMap, HashMap};

impl From<RewardSpread> for proto::RewardSpread {
    fn from(rewards: RewardSpread) -> Self {
        proto::RewardSpread {
            mean: rewards.mean,
            deviation: rewards.deviation,
            min: rewards.min,
            max: rewards.max,
        }
    }
}

impl From<proto::RewardSpread> for RewardSpread {
    fn from(rewards: proto::RewardSpread) -> Self {
        RewardSpread {
            mean: rewards.mean,
            deviation: rewards.deviation,
            min: rewards.min,
            max: rewards.max,
        }
    }
}

impl From<SetScore> for proto::SetScore {
    fn from(score: SetScore) -> Self {
        proto::SetScore {
            loss: score.loss,
            accuracy: score.accuracy,
            triplets: score.triplets as u64,
            prompts: score.prompts.map(|prompts| prompts as u64),
            loss_error: score.loss_error,
            accuracy_error: score.accuracy_error,
            margin: score.margin,
            rewards: score.rewards.map(Into::into),
        }
    }
}

impl From<proto::SetScore> for SetScore {
    fn from(score: proto::SetScore) -> Self {
        SetScore {
            loss: score.loss,
            accuracy: score.accuracy,
            triplets: score.triplets as usize,
            prompts: score.prompts.map(|prompts| prompts as usize),
            loss_error: score.loss_error,
            accuracy_error: score.accuracy_error,
            margin: score.margin,
            rewards: score.rewards.map(Into::into),
        }
    }
}

pub(super) fn into_scores(scores: BTreeMap<String, SetScore>) -> HashMap<String, proto::SetScore> {
    scores.into_iter().map(|(k, v)| (k, v.into())).collect()
}

pub(super) fn from_scores(scores: HashMap<String, proto::SetScore>) -> BTreeMap<String, SetScore> {
    scores.into_iter().map(|(k, v)| (k, v.into())).collect()
}

impl From<Row> for proto::MetricsRow {
    fn from(row: Row) -> Self {
        proto::MetricsRow {
            step: row.step.0,
            triplets: row.triplets,
            plain_tokens: row.plain_tokens,
            flops_6nd: row.flops_6nd,
            loss: row.loss,
            accuracy: row.accuracy,
            margin: row.margin,
            lr: row.lr,
            grad_norm: row.grad_norm,
            seconds: row.seconds,
            validation: into_scores(row.validation),
        }
    }
}

impl From<proto::MetricsRow> for Row {
    fn from(row: proto::MetricsRow) -> Self {
        Row {
            step: Step(row.step),
            triplets: row.triplets,
            plain_tokens: row.plain_tokens,
            flops_6nd: row.flops_6nd,
            loss: row.loss,
            accuracy: row.accuracy,
            margin: row.margin,
            lr: row.lr,
            grad_norm: row.grad_norm,
            seconds: row.seconds,
            validation: from_scores(row.validation),
        }
    }
}
