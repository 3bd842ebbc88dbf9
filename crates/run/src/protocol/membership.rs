//! What a worker is at when it looks for another coordinator.

use super::{ProtocolError, generation};
use crate::proto;
use polestar_core::{Generation, Rank, Step, TrialId};
use serde::Serialize;

/// A rank of a generation that goes on while its worker looks for a coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Membership {
    /// The generation.
    pub generation: Generation,
    /// What it trains.
    pub trial: TrialId,
    /// The worker's place in it.
    pub rank: Rank,
    /// Ranks that it has.
    pub world: u32,
    /// Steps done, as far as the worker knows.
    pub step: Step,
}

impl From<Membership> for proto::Membership {
    fn from(membership: Membership) -> Self {
        proto::Membership {
            generation: Some(membership.generation.into()),
            trial: membership.trial.0,
            rank: membership.rank.0,
            world: membership.world,
            step: membership.step.0,
        }
    }
}

impl TryFrom<proto::Membership> for Membership {
    type Error = ProtocolError;

    fn try_from(message: proto::Membership) -> Result<Self, ProtocolError> {
        Ok(Membership {
            generation: generation(message.generation)?,
            trial: TrialId(message.trial),
            rank: Rank(message.rank),
            world: message.world,
            step: Step(message.step),
        })
    }
}
