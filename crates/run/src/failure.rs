//! Why a rank, a generation or a trial ended early: as it is reported, kept in the store and shown.
//!
//! A rank reports a [`Failure`]. A [`Blame`] says whose it was. A [`Cause`] is what a generation, or in the end
//! a trial, ended for: the blame that came first, and apart from it those that only suffered.

use polestar_core::{Rank, TrialId, WorkerId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The kind of work in which a rank failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It was asked to stop.
    Abort,
    /// Reading what it is to do.
    Config,
    /// Reading the corpus.
    Data,
    /// Training and scoring.
    Compute,
    /// Talking to the other ranks.
    Collective,
    /// Checkpoints, metrics and scores.
    Storage,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Abort => "abort",
            Phase::Config => "config",
            Phase::Data => "data",
            Phase::Compute => "compute",
            Phase::Collective => "collective",
            Phase::Storage => "storage",
        })
    }
}

/// The last collective operation that a rank completed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LastOperation {
    /// What it does, as in `all-gather`.
    pub kind: String,
    /// Its number in the generation, the same on every rank.
    pub sequence: u64,
    /// The step that was under way.
    pub step: u64,
}

impl fmt::Display for LastOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LastOperation {
            kind,
            sequence,
            step,
        } = self;
        write!(f, "{kind} #{sequence} of step {step}")
    }
}

/// A failure as a rank reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// In which kind of work.
    pub phase: Phase,
    /// What happened and what caused it, in one line.
    pub message: String,
    /// Whether the rank only suffered from another's failure.
    pub collateral: bool,
    /// Whether trying again can help.
    pub retryable: bool,
    /// What the rank and the others had last done together, if a collective operation failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_operation: Option<LastOperation>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed in {}: {}", self.phase, self.message)
    }
}

/// How far a generation is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Its workers open their ports.
    Preparing,
    /// Its ranks connect to each other and load their part of the trial.
    Connecting,
    /// It trains.
    Running,
    /// Its ranks were asked to save and stop.
    Draining,
    /// Its ranks were asked to stop.
    Stopping,
    /// Its ranks come back to a new coordinator.
    Rejoining,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Preparing => "preparing",
            Stage::Connecting => "connecting",
            Stage::Running => "running",
            Stage::Draining => "draining",
            Stage::Stopping => "stopping",
            Stage::Rejoining => "rejoining",
        })
    }
}

/// One worker as one rank of a generation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its rank.
    pub rank: Rank,
    /// The worker.
    pub worker: WorkerId,
    /// Host it runs on, for people.
    pub host: String,
    /// Its process there, for people.
    pub pid: u32,
}

impl Member {
    /// The worker alone, as `worker 3 (host, pid 77)`.
    pub fn place(&self) -> String {
        format!("{} ({}, pid {})", self.worker, self.host, self.pid)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.rank, self.place())
    }
}

/// What was wrong with one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Trouble {
    /// Its stream broke: preemption, a killed process, a dead host.
    Lost,
    /// It didn't answer in time, and was ended.
    Stuck {
        /// What it was to do.
        stage: Stage,
        /// How long it had.
        seconds: u64,
    },
    /// It reported a failure.
    Failed {
        /// Which.
        failure: Failure,
    },
}

/// A member, and what was wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Blame {
    /// Who.
    pub member: Member,
    /// What.
    pub trouble: Trouble,
}

impl Blame {
    /// Whether the member only suffered from another's trouble.
    pub fn is_collateral(&self) -> bool {
        matches!(&self.trouble, Trouble::Failed { failure } if failure.collateral)
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let member = &self.member;
        match &self.trouble {
            Trouble::Lost => write!(f, "{member} was lost: its process or host is gone"),
            Trouble::Stuck { stage, seconds } => {
                write!(
                    f,
                    "{member} was ended: {seconds} s of {stage} without an answer"
                )
            }
            Trouble::Failed { failure } => write!(f, "{member} {failure}"),
        }
    }
}

/// Why a generation ended before its trial did, or why a trial is abandoned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Cause {
    /// Members had trouble.
    Ranks {
        /// The trouble that began it.
        first: Blame,
        /// Other members, in the order of their reports.
        collateral: Vec<Blame>,
    },
    /// The generation as a whole came no further, and nobody in it said why.
    Stalled {
        /// Where.
        stage: Stage,
        /// How long it had.
        seconds: u64,
    },
    /// The trial that it starts from was abandoned.
    Start {
        /// That trial.
        trial: TrialId,
    },
    /// Its result could not be stored.
    Store {
        /// Why, in one line.
        message: String,
        /// Whether trying again can help.
        retryable: bool,
    },
}

impl Cause {
    /// From what is known of the members, in the order in which it became known. The first trouble that is no
    /// collateral began it; without one, the first.
    ///
    /// `None` when nothing is known.
    pub fn of_ranks(mut blames: Vec<Blame>) -> Option<Cause> {
        let own = blames.iter().position(|blame| !blame.is_collateral());
        if blames.is_empty() {
            return None;
        }
        let first = blames.remove(own.unwrap_or(0));
        blames.retain(|blame| blame.member != first.member);
        let collateral = blames;
        Some(Cause::Ranks { first, collateral })
    }

    /// Whether doing the same again can end otherwise. A trial whose start was abandoned fares as that one does.
    pub fn is_retryable(&self) -> bool {
        match self {
            Cause::Ranks { first, .. } => match &first.trouble {
                Trouble::Failed { failure } => failure.retryable,
                Trouble::Lost | Trouble::Stuck { .. } => true,
            },
            Cause::Stalled { .. } | Cause::Start { .. } => true,
            Cause::Store { retryable, .. } => *retryable,
        }
    }

    /// Whether the store was in trouble that passes: it says nothing about the trial.
    pub fn is_store_outage(&self) -> bool {
        match self {
            Cause::Ranks { first, .. } => matches!(
                &first.trouble,
                Trouble::Failed { failure } if failure.phase == Phase::Storage && failure.retryable
            ),
            _ => false,
        }
    }

    /// Whether it was the loss of a worker, rather than a failure of the trial or the program.
    pub fn is_loss(&self) -> bool {
        match self {
            Cause::Ranks { first, .. } => {
                matches!(first.trouble, Trouble::Lost | Trouble::Stuck { .. })
            }
            Cause::Stalled { stage, .. } => *stage == Stage::Rejoining,
            _ => false,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Ranks { first, collateral } => {
                write!(f, "{first}")?;
                // A member may have reported twice.
                let mut others: Vec<&Member> = collateral.iter().map(|b| &b.member).collect();
                others.sort();
                others.dedup();
                if !others.is_empty() {
                    let others: Vec<String> = others.iter().map(ToString::to_string).collect();
                    write!(f, " (affected as well: {})", others.join(", "))?;
                }
                Ok(())
            }
            Cause::Stalled { stage, seconds } => {
                write!(f, "no progress in {seconds} s of {stage}")
            }
            Cause::Start { trial } => write!(f, "it starts from {trial}, which was abandoned"),
            Cause::Store { message, .. } => write!(f, "its result could not be stored: {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blame(rank: u32, trouble: Trouble) -> Blame {
        let member = Member {
            rank: Rank(rank),
            worker: WorkerId(u64::from(rank) + 1),
            host: "h".to_owned(),
            pid: 7,
        };
        Blame { member, trouble }
    }

    #[test]
    fn who_only_suffered_is_told_apart_from_who_began() {
        let failure = |collateral| Failure {
            phase: Phase::Collective,
            message: "peer lost".to_owned(),
            collateral,
            retryable: true,
            last_operation: None,
        };
        let suffered = |rank| {
            let failure = failure(true);
            blame(rank, Trouble::Failed { failure })
        };
        let cause = Cause::of_ranks(vec![
            suffered(0),
            suffered(2),
            blame(1, Trouble::Lost),
            suffered(0),
        ]);
        let cause = cause.expect("four reports");
        assert!(cause.is_loss() && cause.is_retryable());
        assert_eq!(
            cause.to_string(),
            "rank 1 on worker 2 (h, pid 7) was lost: its process or host is gone (affected as well: \
             rank 0 on worker 1 (h, pid 7), rank 2 on worker 3 (h, pid 7))"
        );
        let json = serde_json::to_string(&cause).expect("plain data");
        assert_eq!(
            serde_json::from_str::<Cause>(&json).expect("its own"),
            cause
        );
    }
}
