//! A world of one.

use super::{LinkError, Message, Transport};
use crate::{Rank, WorldSize};
use std::time::Duration;

/// The transport of a rank that is alone. Nothing is ever sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

impl Transport for Local {
    fn rank(&self) -> Rank {
        Rank(0)
    }

    fn world(&self) -> WorldSize {
        WorldSize(1)
    }

    fn send(&mut self, to: Rank, _sequence: u64, _payload: &[u8]) -> Result<(), LinkError> {
        Err(LinkError::PeerLost(to))
    }

    fn receive(&mut self, from: Rank, _deadline: Duration) -> Result<Message, LinkError> {
        Err(LinkError::PeerLost(from))
    }
}
