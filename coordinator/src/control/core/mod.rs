//! Who trains what: a pure state machine, `(state, now, event)` to commands.
//!
//! ```text
//!  worker:      ┌─ Joined ─▶ idle ─ Prepare ─▶ in a generation ─ (finished | stopped) ─▶ idle
//!               └─ Left or retired, at any time
//!
//!  generation:  preparing ─ all Ready ─▶ connecting ─ Progress ─▶ running ─ all Finished ─▶ result is stored ─▶ done
//!                   │                        │                      │
//!                   └─ Failed, Left, late ───┴──────────────────────┴─▶ stopping ─ all Stopped, Left or late ─┐
//!                                                                                                             │
//!  trial:       waiting ◀──────────────────── the setback is stored, within its budget ◀──────────────────────┤
//!               abandoned ◀──────────────────── it can't help to try again, or too often ◀────────────────────┘
//! ```
//! A generation is the workers of one trial, by rank. Any change of membership ends it; the trial waits and is
//! regrouped, and its engine resumes from what its workers have in memory, or from the newest checkpoint. Messages of
//! ended generations are ignored. Each stage of a generation has a deadline, so a worker that lives but never answers
//! holds nothing up for ever.
//!
//! Workers outlive a coordinator: what they train goes on, and they rejoin the next one, which takes the
//! generation over. A coordinator forms generations only while it holds the run's lease. A generation can
//! be drained: it saves a checkpoint and ends, which is no setback.
//!
//! Nothing here reads a clock, a socket, the store or a random number: time comes with each event, and what a
//! command comes to is an event again. So every history can be replayed, and equal histories give equal commands.

mod demand;
mod drain;
mod generation;
mod group;
mod lease;
mod pace;
mod persist;
mod pool;
mod rejoin;
mod retry;
mod schedule;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod timers;

pub use pace::Work;
pub use state::{Core, JobError, Options};
pub use status::{Status, TrialState, TrialStatus, Warmth};

use super::journal::Entry;
use crate::{
    launcher::{Ending, LaunchEvent, LaunchId},
    run::{AbandonedTrial, Setback, Spent, TrialResult},
};
use polestar_core::{Generation, Rank, TrialId, WorkerId};
use polestar_run::{Cause, Failure, Outcome, failure::Stage, pool::Machine, protocol::Membership};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, net::SocketAddr, time::Duration};

/// A moment, as the time since the control loop began. Written as seconds, to the millisecond.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(from = "f64", into = "f64")]
pub struct Moment(pub Duration);

impl From<Moment> for f64 {
    fn from(moment: Moment) -> f64 {
        moment.0.as_millis() as f64 / 1e3
    }
}

impl From<f64> for Moment {
    fn from(seconds: f64) -> Moment {
        // What is no time is the beginning.
        Moment(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO))
    }
}

impl Moment {
    /// This much later.
    #[must_use]
    pub fn after(self, wait: Duration) -> Moment {
        Moment(self.0.saturating_add(wait))
    }

    /// Time from an earlier moment to this one.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// How often a trial may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failures that are the trial's or the program's own.
    pub failures: u32,
    /// Losses of a worker: preemption, a killed process, a dead host.
    pub losses: u32,
}

/// How long the loop waits before it takes silence for an answer, in seconds. All are generous: what is really
/// broken mostly says so at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Deadlines {
    /// For a process that was started to join the pool.
    pub joining_seconds: u64,
    /// For the workers of a trial to open their ports.
    pub preparing_seconds: u64,
    /// For a trial's ranks to connect, load and report that they begin.
    pub connecting_seconds: u64,
    /// For a running trial to report a step, a validation or a checkpoint.
    pub progress_seconds: u64,
    /// For a rank that was asked to stop.
    pub stopping_seconds: u64,
    /// For a trial that was asked to save a checkpoint and stop. Then it is only asked to stop.
    pub draining_seconds: u64,
    /// For the store to answer when a result or another fact is written. Then it is asked again.
    pub saving_seconds: u64,
    /// For workers of an earlier coordinator of the run to come back before others take up their trials.
    pub rejoining_seconds: u64,
    /// For a pool to become as large as a trial wants before fewer workers begin it.
    pub shrinking_seconds: u64,
    /// For workers that nothing else needs to stay free before a trial that began with fewer than it wants is
    /// regrouped to have them.
    pub growing_seconds: u64,
    /// For a trial that needs many workers to be overtaken by smaller ones. Then the next free workers are kept
    /// for it.
    pub overtaking_seconds: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            joining_seconds: 300,
            preparing_seconds: 120,
            connecting_seconds: 3600,
            progress_seconds: 7200,
            stopping_seconds: 600,
            draining_seconds: 600,
            saving_seconds: 120,
            rejoining_seconds: 5,
            shrinking_seconds: 30,
            growing_seconds: 10,
            overtaking_seconds: 600,
        }
    }
}

impl Deadlines {
    /// How long a generation may be in a stage without a sign of life.
    fn of_stage(&self, stage: Stage) -> Duration {
        Duration::from_secs(match stage {
            Stage::Preparing => self.preparing_seconds,
            Stage::Connecting => self.connecting_seconds,
            Stage::Running => self.progress_seconds,
            Stage::Draining => self.draining_seconds,
            Stage::Stopping => self.stopping_seconds,
            Stage::Rejoining => self.rejoining_seconds,
        })
    }
}

/// A trial as the scheduler sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its name.
    pub trial: TrialId,
    /// Trial that must be done before.
    pub after: Option<TrialId>,
    /// What it has to do; what takes longest goes first.
    pub work: Work,
    /// Workers that train it together.
    pub world: u32,
    /// Fewest workers that can, if the pool has no more.
    pub least_world: u32,
    /// Whether it shares the pool with other trials that could run, rather than to have all that it wants.
    pub shares: bool,
    /// What is known of it from before.
    pub history: History,
}

/// What earlier coordinators left of a trial.
#[derive(Clone, Debug, PartialEq)]
pub enum History {
    /// It is to be trained, with a budget that may be spent in part.
    Missing(Spent),
    /// It has its result.
    Done,
    /// It was abandoned and is not tried again.
    Abandoned(Cause),
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A worker said something, or its stream began or ended.
    Worker(WorkerId, WorkerEvent),
    /// A worker process began or ended.
    Launcher(LaunchEvent),
    /// What came of a [`Command::Persist`].
    Stored(Ticket, Result<(), StoreTrouble>),
    /// What came of a [`Command::Renew`].
    Lease(LeaseEvent),
    /// Time has passed: a [`Command::WakeAt`] is due.
    Tick,
    /// Somebody wants it to end as soon as nothing is lost by it.
    Drain,
    /// Somebody wants it to end.
    Stop,
    /// Somebody wants an abandoned trial to be tried again.
    Retry(TrialId),
}

/// What became of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// It is ours for its whole time from a moment on.
    Renewed {
        /// When the renewal was asked for.
        asked: Moment,
    },
    /// The store didn't answer as it should; the lease may or may not be renewed.
    Trouble {
        /// What happened, in one line.
        message: String,
    },
    /// Somebody else has it.
    Lost {
        /// Who, for people.
        leader: String,
    },
}

/// What a worker said.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkerEvent {
    /// It joined.
    Joined(Inventory),
    /// It joined, and is at work that an earlier coordinator gave it.
    Rejoined(Inventory, Membership),
    /// It opened its port.
    Ready {
        /// For which generation.
        generation: Generation,
        /// Where peers reach it.
        endpoint: SocketAddr,
    },
    /// Its engine reports.
    Progress {
        /// In which generation.
        generation: Generation,
        /// What.
        event: polestar_run::Event,
    },
    /// It reached the end of its trial.
    Finished {
        /// In which generation.
        generation: Generation,
        /// What came out.
        outcome: Outcome,
    },
    /// It failed.
    Failed {
        /// In which generation.
        generation: Generation,
        /// How.
        failure: Failure,
    },
    /// Its work has ended as asked.
    Stopped {
        /// In which generation.
        generation: Generation,
    },
    /// Its process will be gone soon.
    Leaving,
    /// Its stream broke.
    Left,
}

/// What a worker is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Inventory {
    /// Host it runs on.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// The launcher's name for it, if a launcher started it.
    pub launch: Option<LaunchId>,
    /// What it trains with.
    #[serde(flatten)]
    pub machine: Machine,
}

impl fmt::Display for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        if let Some(address) = self.machine.data_address.filter(|a| !a.is_loopback()) {
            write!(f, " at {address}")?;
        }
        for gpu in self.machine.devices.iter().filter(|d| d.kind != "cpu") {
            write!(f, ", {}", gpu.kind)?;
        }
        write!(f, ", pid {}", self.pid)
    }
}

/// Names one [`Command::Persist`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Ticket(pub u64);

/// Why a fact was not stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreTrouble {
    /// What happened and what caused it, in one line.
    pub message: String,
    /// Whether trying again can help.
    pub retryable: bool,
}

/// What must outlive the coordinator.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A trial is done.
    Done(TrialResult),
    /// A trial is abandoned.
    Abandoned(AbandonedTrial),
    /// A generation ended before its trial.
    Ended(Setback),
}

impl Fact {
    /// The trial that it is about.
    pub fn trial(&self) -> &TrialId {
        match self {
            Fact::Done(result) => &result.outcome.trial,
            Fact::Abandoned(record) => &record.trial,
            Fact::Ended(setback) => &setback.trial,
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Done(result) => write!(f, "the result of {}", result.outcome.trial),
            Fact::Abandoned(record) => write!(f, "that {} is abandoned", record.trial),
            Fact::Ended(setback) => write!(f, "the setback of {}", setback.trial),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Send a worker a message.
    Send(WorkerId, Order),
    /// Store a fact; [`Event::Stored`] answers.
    Persist(Ticket, Fact),
    /// Have this many worker processes: start what is missing, and take out of a queue what is too many.
    Scale(u32),
    /// End a worker's stream and process.
    Retire {
        /// The worker, if it joined.
        worker: Option<WorkerId>,
        /// Its process, if a launcher started it.
        launch: Option<LaunchId>,
        /// Why.
        reason: RetireReason,
        /// How its process is ended.
        ending: Ending,
    },
    /// Renew the lease; [`Event::Lease`] answers.
    Renew,
    /// Let a worker go that wants to.
    Dismiss(WorkerId),
    /// Send [`Event::Tick`] then; in place of any earlier wish.
    WakeAt(Moment),
    /// Tell whoever listens.
    Publish(Entry),
}

/// A message to a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Open a port.
    Prepare {
        /// For which generation.
        generation: Generation,
    },
    /// Connect and train.
    Start {
        /// In which generation.
        generation: Generation,
        /// As which rank.
        rank: Rank,
        /// All ranks' addresses.
        peers: Vec<SocketAddr>,
        /// What.
        trial: TrialId,
    },
    /// Save a checkpoint and stop.
    Drain {
        /// Which generation.
        generation: Generation,
    },
    /// Stop.
    Abort {
        /// Which generation.
        generation: Generation,
        /// Why, for its log, if something went wrong.
        cause: Option<Cause>,
    },
}

/// Why a worker is retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RetireReason {
    /// Its stream broke: a process that is stopped rather than dead would keep its place for ever.
    Left,
    /// It didn't answer in time.
    Stuck {
        /// In which stage of its generation.
        stage: Stage,
        /// How long it had.
        seconds: u64,
    },
    /// It didn't join in time.
    NeverJoined {
        /// How long it had.
        seconds: u64,
    },
}

impl fmt::Display for RetireReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RetireReason::Left => f.write_str("its stream ended"),
            RetireReason::Stuck { stage, seconds } => {
                write!(f, "{seconds} s of {stage} without an answer")
            }
            RetireReason::NeverJoined { seconds } => {
                write!(f, "it didn't join the pool in {seconds} s")
            }
        }
    }
}

/// How the loop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every trial is done or abandoned, and that is stored.
    Complete,
    /// Somebody asked for it.
    Stopped,
    /// Somebody else leads the run.
    Fenced {
        /// Who, for people.
        leader: String,
    },
    /// Worker processes can't be brought to join.
    NoWorkers {
        /// How many failed in a row.
        failed: u32,
        /// What the last one said.
        last: String,
    },
}
