//! Waiting for what the links don't carry, with what the links know: who is gone, and that it is to stop.

use super::{
    Cause, CollectiveError, LinkError, Mesh,
    operation::{Core, Kind},
};
use polestar_core::Rank;
use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

/// Turns without a pause: most of what is waited for is there within some ten microseconds.
const TURNS: u32 = 500;
/// Between two later turns, unless a connection ends.
const PAUSE: Duration = Duration::from_micros(50);
/// What a peer had sent before it left may still arrive so much later: at a trial's end, one is the first to leave.
const GRACE: Duration = Duration::from_secs(2);

/// How an operation of other means than the links is waited for.
pub(super) struct Watch<'a> {
    mesh: &'a Mesh,
    deadline: Duration,
}

impl Core {
    /// Runs an operation that goes by other means than the links; numbered, recorded and failing as any.
    pub(super) fn watched<T>(
        &mut self,
        kind: Kind,
        bytes: usize,
        body: impl FnOnce(&Watch<'_>) -> Result<T, Cause>,
    ) -> Result<T, CollectiveError> {
        self.recorded(kind, bytes, |core, _| {
            body(&Watch {
                mesh: core.mesh(),
                deadline: core.deadline(),
            })
        })
    }
}

impl Watch<'_> {
    /// Asks until the answer is yes.
    ///
    /// # Errors
    /// The question's own; [`LinkError`] when a peer has left or the generation is aborted;
    /// [`Cause::NcclDeadline`] when it takes too long.
    pub(super) fn until(&self, mut done: impl FnMut() -> Result<bool, Cause>) -> Result<(), Cause> {
        let begun = Instant::now();
        let mut gone: Option<(Rank, Instant)> = None;
        let mut turns = 0;
        loop {
            if done()? {
                return Ok(());
            }
            if self.mesh.aborter.aborted.load(Ordering::Relaxed) {
                return Err(LinkError::Aborted.into());
            }
            if turns < TURNS {
                turns += 1;
                thread::yield_now();
                continue;
            }
            gone = match gone {
                None => self.mesh.gone(PAUSE).map(|rank| (rank, Instant::now())),
                already => {
                    thread::yield_now();
                    already
                }
            };
            let now = Instant::now();
            match gone {
                Some((rank, since)) if now - since > GRACE.min(self.deadline) => {
                    return Err(LinkError::PeerLost(rank).into());
                }
                _ if now - begun > self.deadline => {
                    let seconds = self.deadline.as_secs_f64().ceil() as u64;
                    return Err(Cause::NcclDeadline { seconds });
                }
                _ => {}
            }
        }
    }
}
