//! What is told of a run as data: the page's API and `--json` of the commands that read a run say the same.
//!
//! Fields are added, never given another meaning. A number that isn't finite is `null`.

use crate::{describe::describe, run::Recorded, sweep::TrialRole};
use polestar_core::{Digest, Epoch, Step, TrialId, WorkerId};
use polestar_laws::Coordinates;
use polestar_run::{Cause, SetScore, pool::Machine};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// A run, its trials, and as far as a coordinator of this process leads it, its pool.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct RunStatus {
    /// Name of the run's folder.
    pub run: String,
    /// Its URL.
    pub url: String,
    /// Version of Polestar that says this.
    pub version: String,
    /// Fingerprint of the corpus.
    pub corpus: String,
    /// Who leads it.
    pub leadership: Leadership,
    /// Seconds that all that is left takes at least, once that was measured.
    pub left_seconds: Option<f64>,
    /// The workers; none where this process doesn't lead the run.
    pub pool: Option<PoolView>,
    /// How the store does.
    pub store: StoreView,
    /// The trials, in the order of the plan.
    pub trials: Vec<TrialView>,
}

/// Who leads a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Leadership {
    /// The coordinator that says this: it can be asked to stop.
    Here {
        /// Its epoch.
        epoch: Epoch,
        /// Whether it was asked to end.
        ending: bool,
    },
    /// Another coordinator, as far as the store tells.
    Elsewhere {
        /// Which, for people.
        leader: String,
    },
    /// No coordinator.
    Nobody,
}

/// The workers of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct PoolView {
    /// Workers that train nothing.
    pub idle: usize,
    /// What it was worth that workers stay between generations, in a sentence.
    pub warmth: String,
    /// Workers that are in the pool, by number.
    pub workers: Vec<WorkerView>,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct WorkerView {
    /// Its number.
    pub worker: WorkerId,
    /// Host it runs on.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// What it trains with.
    pub machine: Machine,
    /// What it trains, if anything.
    pub trial: Option<TrialId>,
    /// Whether it will be gone soon.
    pub leaving: bool,
}

/// How the store does, as this process has seen it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct StoreView {
    /// Whether it doesn't answer: what trains goes on, and nothing new begins.
    pub paused: bool,
    /// Results and other facts on their way to it.
    pub unsaved: usize,
    /// What it last didn't take and why, in a sentence; gone once everything is stored.
    pub trouble: Option<String>,
}

/// How far a trial is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrialPhase {
    /// Nothing of it is in the store, and nobody says that it is at work.
    Missing,
    /// It has a checkpoint, and nobody says that it is at work.
    Begun,
    /// It waits for workers, or for the trial that it starts from.
    Waiting,
    /// It has its workers.
    Running,
    /// It is trained; its result is not stored yet.
    Saving,
    /// It has its result.
    Done,
    /// It is not tried again.
    Abandoned,
}

impl TrialPhase {
    /// In a word, as it is written.
    pub fn word(self) -> &'static str {
        match self {
            TrialPhase::Missing => "missing",
            TrialPhase::Begun => "begun",
            TrialPhase::Waiting => "waiting",
            TrialPhase::Running => "running",
            TrialPhase::Saving => "saving",
            TrialPhase::Done => "done",
            TrialPhase::Abandoned => "abandoned",
        }
    }
}

/// A trial.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TrialView {
    /// Its name.
    pub trial: TrialId,
    /// What it is for.
    pub role: TrialRole,
    /// Where it lies on the axes of the sweep.
    pub at: Coordinates,
    /// The trial that it starts from.
    pub after: Option<TrialId>,
    /// Trained parameters.
    pub parameters: u64,
    /// FLOPs that it is planned to take, convention `6ND`.
    pub flops_6nd: f64,
    /// Its folder in the store that all runs share.
    pub folder: String,
    /// How far it is.
    pub phase: TrialPhase,
    /// The same in a sentence, where there is more to say.
    pub says: Option<String>,
    /// Steps done, as last heard of.
    pub step: Step,
    /// Steps of the newest checkpoint.
    pub saved: Step,
    /// All steps.
    pub steps: u64,
    /// Mean training loss of the newest batch that is known.
    pub loss: Option<f64>,
    /// Steps a second, validation and saving included.
    pub steps_per_second: Option<f64>,
    /// Seconds until it is over, at that pace.
    pub left_seconds: Option<f64>,
    /// Workers that train it, by rank.
    pub members: Vec<WorkerId>,
    /// Digest of its final weights, or of its newest checkpoint's.
    pub digest: Option<Digest>,
    /// What it came to, by held-out set; empty until it is done.
    pub scores: BTreeMap<String, SetScore>,
    /// Why it is abandoned.
    pub cause: Option<Cause>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct EventView {
    /// As it is kept.
    #[serde(flatten)]
    pub recorded: Recorded,
    /// In words; empty for what is only for curves.
    pub lines: Vec<String>,
}

impl From<Recorded> for EventView {
    fn from(recorded: Recorded) -> EventView {
        EventView {
            lines: describe(&recorded.entry.entry),
            recorded,
        }
    }
}

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct EventPage {
    /// In order, the oldest first.
    pub entries: Vec<EventView>,
    /// Older ones that are left out here; `coordinator replay RUN --json` has all.
    pub earlier: usize,
    /// Lines of the journal that can't be read.
    pub unreadable: Vec<String>,
}

/// How a trial's figures went with its steps.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CurveView {
    /// Which trial.
    pub trial: TrialId,
    /// Training loss: the mean of the steps since the point before.
    pub points: Vec<CurvePoint>,
    /// Held-out scores along the way.
    pub scored: Vec<ScoredPoint>,
}

/// A point of a training curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CurvePoint {
    /// Steps done.
    pub step: Step,
    /// Mean training loss.
    pub loss: f64,
    /// Mean share of triplets ranked correctly; none for language models.
    pub accuracy: Option<f64>,
}

/// Held-out scores after a step.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ScoredPoint {
    /// Steps done.
    pub step: Step,
    /// Scores by set.
    pub scores: BTreeMap<String, SetScore>,
}

/// New points of one trial's curve.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct StepsView {
    /// Which trial.
    pub trial: TrialId,
    /// The newest steps that fit, the last one always among them.
    pub points: Vec<CurvePoint>,
    /// Triplets a second.
    pub triplets_per_second: f64,
}

/// A checkpoint, whole or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CheckpointView {
    /// Of which trial.
    pub trial: TrialId,
    /// Steps done.
    pub step: Step,
    /// Bytes of all its objects.
    pub bytes: u64,
    /// Ranks that wrote it; none where its manifest isn't readable.
    pub ranks: Option<usize>,
    /// Digest of its weights.
    pub digest: Option<Digest>,
    /// Whether it is whole; what an interrupted save left is not.
    pub committed: bool,
    /// Why its manifest can't be read.
    pub trouble: Option<String>,
}

/// One trial in detail.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TrialDetail {
    /// How far it is.
    pub status: TrialView,
    /// Its curve, in as many points as a large picture shows.
    pub curve: CurveView,
    /// Its checkpoints, newest first.
    pub checkpoints: Vec<CheckpointView>,
}

/// The scaling laws as far as trials are done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct LawsView {
    /// Trials that are no point yet.
    pub missing: usize,
    /// Each law, or why there is none, in a line.
    pub laws: Vec<String>,
    /// What to keep in mind about them.
    pub cautions: Vec<String>,
    /// Figures that there is something to show in, for `/api/figures/NAME`.
    pub figures: Vec<String>,
}

/// What came of a request to act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ActionView {
    /// What happens now, in a sentence.
    pub says: String,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RefusalView {
    /// The reason, and what to do.
    pub error: String,
}
