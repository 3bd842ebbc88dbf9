//! What ranks report while they train.

use crate::{SetScore, metrics::Row};
use polestar_core::{Digest, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// Where a generation found the state that it goes on with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResumedFrom {
    /// Nowhere: it begins with step 0.
    Nothing,
    /// A checkpoint in the store.
    #[default]
    Store,
    /// What workers kept in memory when the generation before ended.
    Memory,
}

impl fmt::Display for ResumedFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ResumedFrom::Nothing => "nothing",
            ResumedFrom::Store => "the store",
            ResumedFrom::Memory => "memory",
        })
    }
}

/// What the engine tells while it works. For people and records, never for decisions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Training begins or goes on.
    Begun {
        /// Steps already done.
        step: Step,
        /// All steps.
        steps: u64,
        /// Where its state was found.
        #[serde(default)]
        from: ResumedFrom,
        /// Seconds since the rank was started.
        seconds: f64,
        /// Damaged checkpoints that were passed over, each a sentence.
        passed_over: Vec<String>,
    },
    /// An optimizer step is done.
    Stepped {
        /// Steps done.
        step: Step,
        /// Mean loss of the batch.
        loss: f64,
        /// Fraction of triplets ranked rightly; none for language models.
        accuracy: Option<f64>,
        /// Triplets a second since the last report.
        triplets_per_second: f64,
    },
    /// A held-out set was scored.
    Validated {
        /// Steps done.
        step: Step,
        /// Scores by set.
        scores: BTreeMap<String, SetScore>,
    },
    /// Steps whose rows of metrics are complete, each step of a generation once and in order: what the store
    /// gets with the next checkpoint, told before.
    Rows {
        /// The rows.
        rows: Vec<Row>,
    },
    /// A checkpoint is committed.
    Saved {
        /// Steps done.
        step: Step,
        /// Digest of the weights.
        digest: Digest,
        /// Seconds that training stood still for it.
        seconds: f64,
        /// Seconds from its beginning to its commit, behind the steps.
        behind: f64,
    },
    /// The first step of a generation is done.
    Underway {
        /// What came before it, and it: what was done and its seconds, in order.
        parts: Vec<(String, f64)>,
    },
}

impl Event {
    /// Steps done when it happened, where that is part of it.
    pub fn step(&self) -> Option<Step> {
        match self {
            Event::Begun { step, .. }
            | Event::Stepped { step, .. }
            | Event::Validated { step, .. }
            | Event::Saved { step, .. } => Some(*step),
            Event::Rows { .. } | Event::Underway { .. } => None,
        }
    }
}
