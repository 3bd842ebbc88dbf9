//! Between the protocol's generated messages and the types that the rest of Polestar knows.
//!
//! Into a message always works. Out of one may not, as every field of a message may be absent: a
//! [`ProtocolError`] names it.

mod measured;
mod membership;
mod scores;

pub use membership::Membership;

use crate::{
    Consumed, Event, Outcome, ResumedFrom,
    failure::{Blame, Cause, Failure, LastOperation, Member, Phase, Stage, Trouble},
    proto,
};
use polestar_core::{Digest, Epoch, Generation, Rank, Step, TrialId, WorkerId, digest::NotADigest};
use scores::{from_scores, into_scores};

/// Version of a trial's bytes in [`proto::Trial`]: JSON of [`crate::Trial`].
pub const TRIAL_FORMAT: u32 = 1;

/// Why a message can't be understood. Both ends are of one version, so it is a bug or somebody else's program.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A field that is always set is absent.
    #[error("a message has no {field}")]
    Missing {
        /// Which.
        field: &'static str,
    },
    /// A number that stands for nothing.
    #[error("a message has {value} as its {field}, which means nothing to this version")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: i32,
    },
    /// A text that should be a digest.
    #[error("a message has a digest that is none")]
    Digest(#[from] NotADigest),
}

fn present<T>(field: &'static str, value: Option<T>) -> Result<T, ProtocolError> {
    value.ok_or(ProtocolError::Missing { field })
}

/// The generation of a message that always has one.
///
/// # Errors
/// [`ProtocolError::Missing`].
pub fn generation(message: Option<proto::Generation>) -> Result<Generation, ProtocolError> {
    let found = present("generation", message)?;
    Ok(Generation {
        epoch: Epoch(found.epoch),
        number: found.number,
    })
}

impl From<Generation> for proto::Generation {
    fn from(generation: Generation) -> Self {
        proto::Generation {
            epoch: generation.epoch.0,
            number: generation.number,
        }
    }
}

impl From<Event> for proto::progress::Event {
    fn from(event: Event) -> Self {
        use proto::progress::Event as Message;
        match event {
            Event::Begun {
                step,
                steps,
                from,
                seconds,
                passed_over,
            } => Message::Begun(proto::Begun {
                step: step.0,
                steps,
                from: proto::ResumedFrom::from(from).into(),
                seconds,
                passed_over,
            }),
            Event::Stepped {
                step,
                loss,
                accuracy,
                triplets_per_second,
            } => Message::Stepped(proto::Stepped {
                step: step.0,
                loss,
                accuracy,
                triplets_per_second,
            }),
            Event::Validated { step, scores } => Message::Validated(proto::Validated {
                step: step.0,
                scores: into_scores(scores),
            }),
            Event::Rows { rows } => Message::Rows(proto::Rows {
                rows: rows.into_iter().map(Into::into).collect(),
            }),
            Event::Saved {
                step,
                digest,
                seconds,
                behind,
            } => Message::Saved(proto::Saved {
                step: step.0,
                digest: digest.into(),
                seconds,
                behind,
            }),
            Event::Measured(measured) => Message::Measured(measured.into()),
            Event::Underway { parts } => {
                let part = |(name, seconds)| proto::StartupPart { name, seconds };
                Message::Underway(proto::Underway {
                    parts: parts.into_iter().map(part).collect(),
                })
            }
        }
    }
}

impl TryFrom<proto::progress::Event> for Event {
    type Error = ProtocolError;

    fn try_from(message: proto::progress::Event) -> Result<Self, ProtocolError> {
        use proto::progress::Event as Message;
        Ok(match message {
            Message::Begun(m) => Event::Begun {
                step: Step(m.step),
                steps: m.steps,
                from: resumed_from(m.from)?,
                seconds: m.seconds,
                passed_over: m.passed_over,
            },
            Message::Stepped(m) => Event::Stepped {
                step: Step(m.step),
                loss: m.loss,
                accuracy: m.accuracy,
                triplets_per_second: m.triplets_per_second,
            },
            Message::Validated(m) => Event::Validated {
                step: Step(m.step),
                scores: from_scores(m.scores),
            },
            Message::Rows(m) => Event::Rows {
                rows: m.rows.into_iter().map(Into::into).collect(),
            },
            Message::Saved(m) => Event::Saved {
                step: Step(m.step),
                digest: Digest::try_from(m.digest)?,
                seconds: m.seconds,
                behind: m.behind,
            },
            Message::Measured(m) => Event::Measured(m.try_into()?),
            Message::Underway(m) => Event::Underway {
                parts: m.parts.into_iter().map(|p| (p.name, p.seconds)).collect(),
            },
        })
    }
}

impl From<Outcome> for proto::Outcome {
    fn from(outcome: Outcome) -> Self {
        let consumed = outcome.consumed;
        proto::Outcome {
            trial: outcome.trial.0,
            steps: outcome.steps,
            digest: outcome.digest.into(),
            validation: into_scores(outcome.validation),
            along: into_scores(outcome.along),
            consumed: Some(proto::Consumed {
                triplets: consumed.triplets,
                plain_tokens: consumed.plain_tokens,
                packed_tokens: consumed.packed_tokens,
                attention_pairs: consumed.attention_pairs,
                seconds: consumed.seconds,
            }),
            flops_6nd: outcome.flops_6nd,
            flops_executed: outcome.flops_executed,
        }
    }
}

impl TryFrom<proto::Outcome> for Outcome {
    type Error = ProtocolError;

    fn try_from(message: proto::Outcome) -> Result<Self, ProtocolError> {
        let consumed = present("outcome.consumed", message.consumed)?;
        Ok(Outcome {
            trial: TrialId(message.trial),
            steps: message.steps,
            digest: Digest::try_from(message.digest)?,
            validation: from_scores(message.validation),
            along: from_scores(message.along),
            consumed: Consumed {
                triplets: consumed.triplets,
                plain_tokens: consumed.plain_tokens,
                packed_tokens: consumed.packed_tokens,
                attention_pairs: consumed.attention_pairs,
                seconds: consumed.seconds,
            },
            flops_6nd: message.flops_6nd,
            flops_executed: message.flops_executed,
        })
    }
}

impl From<Phase> for proto::Phase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Abort => proto::Phase::Abort,
            Phase::Config => proto::Phase::Config,
            Phase::Data => proto::Phase::Data,
            Phase::Compute => proto::Phase::Compute,
            Phase::Collective => proto::Phase::Collective,
            Phase::Storage => proto::Phase::Storage,
        }
    }
}

fn phase(value: i32) -> Result<Phase, ProtocolError> {
    let field = "phase";
    let unknown = ProtocolError::Unknown { field, value };
    match proto::Phase::try_from(value) {
        Ok(proto::Phase::Abort) => Ok(Phase::Abort),
        Ok(proto::Phase::Config) => Ok(Phase::Config),
        Ok(proto::Phase::Data) => Ok(Phase::Data),
        Ok(proto::Phase::Compute) => Ok(Phase::Compute),
        Ok(proto::Phase::Collective) => Ok(Phase::Collective),
        Ok(proto::Phase::Storage) => Ok(Phase::Storage),
        Ok(proto::Phase::Unspecified) | Err(_) => Err(unknown),
    }
}

impl From<ResumedFrom> for proto::ResumedFrom {
    fn from(from: ResumedFrom) -> Self {
        match from {
            ResumedFrom::Nothing => proto::ResumedFrom::Nothing,
            ResumedFrom::Store => proto::ResumedFrom::Store,
            ResumedFrom::Memory => proto::ResumedFrom::Memory,
        }
    }
}

fn resumed_from(value: i32) -> Result<ResumedFrom, ProtocolError> {
    let field = "from";
    let unknown = ProtocolError::Unknown { field, value };
    match proto::ResumedFrom::try_from(value) {
        Ok(proto::ResumedFrom::Nothing) => Ok(ResumedFrom::Nothing),
        Ok(proto::ResumedFrom::Store) => Ok(ResumedFrom::Store),
        Ok(proto::ResumedFrom::Memory) => Ok(ResumedFrom::Memory),
        Ok(proto::ResumedFrom::Unspecified) | Err(_) => Err(unknown),
    }
}

impl From<LastOperation> for proto::LastOperation {
    fn from(operation: LastOperation) -> Self {
        let LastOperation {
            kind,
            sequence,
            step,
        } = operation;
        proto::LastOperation {
            kind,
            sequence,
            step,
        }
    }
}

impl From<proto::LastOperation> for LastOperation {
    fn from(operation: proto::LastOperation) -> Self {
        LastOperation {
            kind: operation.kind,
            sequence: operation.sequence,
            step: operation.step,
        }
    }
}

impl From<Failure> for proto::Failure {
    fn from(failure: Failure) -> Self {
        proto::Failure {
            phase: proto::Phase::from(failure.phase).into(),
            message: failure.message,
            collateral: failure.collateral,
            retryable: failure.retryable,
            last_operation: failure.last_operation.map(Into::into),
        }
    }
}

impl TryFrom<proto::Failure> for Failure {
    type Error = ProtocolError;

    fn try_from(message: proto::Failure) -> Result<Self, ProtocolError> {
        Ok(Failure {
            phase: phase(message.phase)?,
            message: message.message,
            collateral: message.collateral,
            retryable: message.retryable,
            last_operation: message.last_operation.map(Into::into),
        })
    }
}

impl From<Stage> for proto::Stage {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Preparing => proto::Stage::Preparing,
            Stage::Connecting => proto::Stage::Connecting,
            Stage::Running => proto::Stage::Running,
            Stage::Draining => proto::Stage::Draining,
            Stage::Stopping => proto::Stage::Stopping,
            Stage::Rejoining => proto::Stage::Rejoining,
        }
    }
}

fn stage(value: i32) -> Result<Stage, ProtocolError> {
    let field = "stage";
    let unknown = ProtocolError::Unknown { field, value };
    match proto::Stage::try_from(value) {
        Ok(proto::Stage::Preparing) => Ok(Stage::Preparing),
        Ok(proto::Stage::Connecting) => Ok(Stage::Connecting),
        Ok(proto::Stage::Running) => Ok(Stage::Running),
        Ok(proto::Stage::Draining) => Ok(Stage::Draining),
        Ok(proto::Stage::Stopping) => Ok(Stage::Stopping),
        Ok(proto::Stage::Rejoining) => Ok(Stage::Rejoining),
        Ok(proto::Stage::Unspecified) | Err(_) => Err(unknown),
    }
}

fn stuck(stage: Stage, seconds: u64) -> proto::Stuck {
    let stage = proto::Stage::from(stage).into();
    proto::Stuck { stage, seconds }
}

impl From<Blame> for proto::Blame {
    fn from(blame: Blame) -> Self {
        use proto::blame::Trouble as Message;
        let trouble = match blame.trouble {
            Trouble::Lost => Message::Lost(proto::Lost {}),
            Trouble::Stuck { stage, seconds } => Message::Stuck(stuck(stage, seconds)),
            Trouble::Failed { failure } => Message::Failed(failure.into()),
        };
        let member = blame.member;
        proto::Blame {
            member: Some(proto::Member {
                rank: member.rank.0,
                worker: member.worker.0,
                host: member.host,
                pid: member.pid,
            }),
            trouble: Some(trouble),
        }
    }
}

impl TryFrom<proto::Blame> for Blame {
    type Error = ProtocolError;

    fn try_from(message: proto::Blame) -> Result<Self, ProtocolError> {
        use proto::blame::Trouble as Message;
        let member = present("blame.member", message.member)?;
        let trouble = match present("blame.trouble", message.trouble)? {
            Message::Lost(proto::Lost {}) => Trouble::Lost,
            Message::Stuck(m) => Trouble::Stuck {
                stage: stage(m.stage)?,
                seconds: m.seconds,
            },
            Message::Failed(failure) => Trouble::Failed {
                failure: failure.try_into()?,
            },
        };
        let member = Member {
            rank: Rank(member.rank),
            worker: WorkerId(member.worker),
            host: member.host,
            pid: member.pid,
        };
        Ok(Blame { member, trouble })
    }
}

impl From<Cause> for proto::Cause {
    fn from(cause: Cause) -> Self {
        use proto::cause::Cause as Message;
        let cause = match cause {
            Cause::Ranks { first, collateral } => Message::Ranks(proto::RanksCause {
                first: Some(first.into()),
                collateral: collateral.into_iter().map(Into::into).collect(),
            }),
            Cause::Stalled { stage, seconds } => Message::Stalled(stuck(stage, seconds)),
            Cause::Start { trial } => Message::Start(proto::StartCause { trial: trial.0 }),
            Cause::Store { message, retryable } => {
                Message::Store(proto::StoreCause { message, retryable })
            }
        };
        proto::Cause { cause: Some(cause) }
    }
}

impl TryFrom<proto::Cause> for Cause {
    type Error = ProtocolError;

    fn try_from(message: proto::Cause) -> Result<Self, ProtocolError> {
        use proto::cause::Cause as Message;
        Ok(match present("cause", message.cause)? {
            Message::Ranks(m) => Cause::Ranks {
                first: present("cause.first", m.first)?.try_into()?,
                collateral: m
                    .collateral
                    .into_iter()
                    .map(TryInto::try_into)
                    .collect::<Result<_, _>>()?,
            },
            Message::Stalled(m) => Cause::Stalled {
                stage: stage(m.stage)?,
                seconds: m.seconds,
            },
            Message::Start(m) => Cause::Start {
                trial: TrialId(m.trial),
            },
            Message::Store(m) => Cause::Store {
                message: m.message,
                retryable: m.retryable,
            },
        })
    }
}

#[cfg(test)]
mod tests;
