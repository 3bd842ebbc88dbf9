//! Who trains what: a pure state machine from events to commands.
//!
//! ```text
//!  worker:  ┌─ Joined ─▶ idle ─ Prepare ─▶ in a group ─ (done | stopped) ─▶ idle
//!           └─ Left, at any time
//!
//!  group:   preparing ── all Ready ──▶ running ── all Finished ──▶ trial done
//!               │                         │
//!               └── Failed or Left ───────┴──▶ stopping ── all Stopped or Left ──▶ trial waits
//!                                                                                  or is given up
//! ```
//! A group is one *generation*: the workers of one trial, by rank. Any change of membership ends
//! the generation; the trial waits and is regrouped, and its engine resumes from the newest
//! checkpoint. Messages of ended generations are ignored.
//!
//! Nothing here reads a clock, a socket or a random number, so every history can be replayed.

mod group;
mod state;
#[cfg(test)]
mod tests;

pub use state::{Cluster, Limits};

use polestar_core::{Generation, Rank, TrialId};
use serde::Serialize;
use std::fmt;

/// A worker of the pool, numbered as they join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct WorkerId(pub u64);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}", self.0)
    }
}

/// A trial as the scheduler sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its name.
    pub trial: TrialId,
    /// Trial that must be done before.
    pub after: Option<TrialId>,
    /// Predicted cost in any unit; the costliest goes first.
    pub cost: f64,
    /// Workers that train it together.
    pub world: u32,
    /// Already done in an earlier launch.
    pub done: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A worker joined.
    Joined {
        /// Its number.
        worker: WorkerId,
        /// For messages.
        host: String,
        /// For messages.
        pid: u32,
    },
    /// A worker's stream broke.
    Left(WorkerId),
    /// A worker opened its port.
    Ready {
        /// Who.
        worker: WorkerId,
        /// For which group.
        generation: Generation,
        /// Where peers reach it.
        address: String,
    },
    /// A rank reached the end of its trial.
    Finished {
        /// Who.
        worker: WorkerId,
        /// In which group.
        generation: Generation,
        /// Outcome as JSON.
        outcome: String,
    },
    /// A rank failed.
    Failed {
        /// Who.
        worker: WorkerId,
        /// In which group.
        generation: Generation,
        /// How.
        failure: Failure,
    },
    /// A rank's work has ended as asked.
    Stopped {
        /// Who.
        worker: WorkerId,
        /// In which group.
        generation: Generation,
    },
}

/// A failure as a rank reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// data, compute, collective, storage, …
    pub phase: String,
    /// What happened.
    pub message: String,
    /// Whether the rank only suffered from another's failure.
    pub collateral: bool,
    /// Whether trying again can help.
    pub retryable: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Ask a worker to open its port.
    Prepare {
        /// Whom.
        worker: WorkerId,
        /// For which group.
        generation: Generation,
    },
    /// Ask a worker to connect and train.
    Start {
        /// Whom.
        worker: WorkerId,
        /// In which group.
        generation: Generation,
        /// As which rank.
        rank: Rank,
        /// All ranks' addresses.
        peers: Vec<String>,
        /// What.
        trial: TrialId,
    },
    /// Ask a worker to stop.
    Abort {
        /// Whom.
        worker: WorkerId,
        /// Which group.
        generation: Generation,
        /// Why, for its log.
        reason: String,
    },
    /// Record a finished trial.
    Record {
        /// Which.
        trial: TrialId,
        /// Outcome of rank 0 as JSON.
        outcome: String,
        /// Failures on the way.
        failures: u32,
        /// Losses of a worker on the way.
        losses: u32,
    },
    /// A trial has a setback; it will be tried again.
    Retry {
        /// Which.
        trial: TrialId,
        /// First cause and collateral, as sentences.
        story: String,
    },
    /// A trial is given up.
    GiveUp {
        /// Which.
        trial: TrialId,
        /// First cause and collateral, as sentences.
        story: String,
    },
}

/// How far a trial is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Status {
    /// Why it waits.
    Waiting(String),
    /// Its group.
    Running(Generation),
    /// Finished.
    Done,
    /// Why it was given up.
    GivenUp(String),
}
