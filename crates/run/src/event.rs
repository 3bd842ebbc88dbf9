//! What ranks report while they train.

use crate::{SetScore, metrics::Row};
use polestar_core::{Digest, Step};
use polestar_store::Traffic;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, ops::AddAssign};

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

/// Seconds of steps by what they went to, on the thread that trains: where a device computes, waiting for it counts
/// where it is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepParts {
    /// Waiting for the batch and bringing it to the device.
    pub data: f64,
    /// Passes from the embedding to the loss.
    pub forward: f64,
    /// Passes back.
    pub backward: f64,
    /// Waiting for other ranks: gradients, norms, weights.
    pub reduce: f64,
    /// The update.
    pub optimizer: f64,
    /// Copying what is saved, and waiting for a save before it.
    pub save: f64,
    /// Scoring held-out sets.
    pub evaluate: f64,
}

impl StepParts {
    /// Each with its name.
    pub fn named(&self) -> [(&'static str, f64); 7] {
        [
            ("data", self.data),
            ("forward", self.forward),
            ("backward", self.backward),
            ("reduce", self.reduce),
            ("optimizer", self.optimizer),
            ("save", self.save),
            ("evaluate", self.evaluate),
        ]
    }
}

impl AddAssign for StepParts {
    fn add_assign(&mut self, other: StepParts) {
        self.data += other.data;
        self.forward += other.forward;
        self.backward += other.backward;
        self.reduce += other.reduce;
        self.optimizer += other.optimizer;
        self.save += other.save;
        self.evaluate += other.evaluate;
    }
}

/// What steps came to since the last report, as rank 0 saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// Steps done.
    pub until: Step,
    /// Steps of this report: the last ones before that.
    pub steps: u64,
    /// Seconds that they took, all told.
    pub seconds: f64,
    /// Of which these.
    pub parts: StepParts,
    /// Tokens of the plain layout, of the whole world.
    pub tokens: u64,
    /// FLOPs, convention `6ND`, of the whole world.
    pub flops_6nd: f64,
    /// Ranks.
    pub world: u32,
    /// Bytes that rank 0 sent to ranks of its host.
    pub sent_here: u64,
    /// Bytes that rank 0 sent to other hosts.
    pub sent_away: u64,
    /// What its process asked of object stores.
    pub store: Traffic,
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
    /// Where the time of steps went. It comes right after one of them was told.
    Measured(Measured),
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
            // The step has been told.
            Event::Measured(_) | Event::Rows { .. } | Event::Underway { .. } => None,
        }
    }

    /// Whether a later one says as much, or the store does, where rows of metrics are with the next checkpoint: it need
    /// not be kept, and a listener that is slow may miss it.
    pub fn is_superseded(&self) -> bool {
        matches!(
            self,
            Event::Stepped { .. } | Event::Rows { .. } | Event::Measured(_)
        )
    }
}
