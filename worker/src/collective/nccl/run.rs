//! What NCCL is given, and how its end is waited for: on the thread of the operations.

use super::super::{
    Cause, CollectiveError, LaneSum, Neighbours,
    operation::{Core, Kind},
    plan::{GatherPhase, Topology},
    watch::Watch,
};
use super::rounds::{Exchange, Place, Rounds};
use polestar_kernels::cuda::{
    Device, DeviceVec, Event, Span, View,
    nccl::{Communicator, Message, NcclError},
};
use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a device has to let go of memory after an abort.
const SETTLED: Duration = Duration::from_secs(10);

/// A rank's end of a generation's communicator.
pub(super) struct Nccl {
    pub(super) device: Device,
    pub(super) communicator: Arc<Communicator>,
    pub(super) me: usize,
    pub(super) topology: Topology,
    /// [`Topology::most_delegated`] of it.
    pub(super) delegated: usize,
    pub(super) staging: DeviceVec<f32>,
    /// The version, as text.
    pub(super) version: String,
}

impl From<NcclError> for Cause {
    fn from(error: NcclError) -> Cause {
        Cause::Nccl {
            reason: error.to_string(),
        }
    }
}

impl Nccl {
    /// Runs an operation on device memory that it has for itself, and gives the memory back. After a failure the communicator
    /// is aborted, and memory that the device doesn't let go of isn't used again.
    pub(super) fn run<B>(
        &self,
        core: &mut Core,
        what: (Kind, usize),
        buffers: B,
        operation: impl FnOnce(&Nccl, &Watch<'_>, &B) -> Result<(), Cause>,
    ) -> Result<B, CollectiveError> {
        let (kind, bytes) = what;
        let done = core.watched(kind, bytes, |watch| operation(self, watch, &buffers));
        match done {
            Ok(()) => Ok(buffers),
            Err(error) => {
                self.communicator.abort();
                if !self.settles() {
                    tracing::error!(
                        "the device didn't end what NCCL was doing; its memory is lost to this process"
                    );
                    std::mem::forget(buffers);
                }
                Err(error)
            }
        }
    }

    fn settles(&self) -> bool {
        let (end, begun) = (self.device.communicated(), Instant::now());
        while !end.is_done() {
            if begun.elapsed() > SETTLED {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    /// Adds up partial sums by the lanes' tree.
    pub(super) fn sum(
        &self,
        watch: &Watch<'_>,
        complete: &Event,
        sum: &LaneSum,
        [local, sums]: [&[DeviceVec<f32>]; 2],
    ) -> Result<(), Cause> {
        let staging = self.staging.view();
        let rounds = Rounds::new(self.me, &self.topology, self.delegated, sum, staging.len());
        let view = |place: &Place| -> View<f32> {
            match place {
                Place::Local { vector, range } => local[*vector].view().slice(range.clone()),
                Place::Staged(range) => staging.slice(range.clone()),
                Place::Sum { node, range } => sums[*node].view().slice(range.clone()),
            }
        };
        self.device.communicate_after(complete);
        let mut before: Option<Event> = None;
        for round in 0..rounds.count() {
            for exchange in rounds.round(round) {
                self.exchange(watch, &messages(&exchange, view))?;
                for merge in &exchange.merges {
                    let parts: Vec<View<f32>> = merge.parts.iter().map(&view).collect();
                    self.device.merge_received(&parts, view(&merge.into));
                }
            }
            // One round is under way while the next is given out, and has the deadline for itself.
            if let Some(before) = before.replace(self.device.communicated()) {
                self.wait(watch, &before)?;
            }
        }
        self.finish(watch)
    }

    /// Has NCCL add up, in an order of its own.
    pub(super) fn fast_sum(
        &self,
        watch: &Watch<'_>,
        complete: &Event,
        shards: &[Range<usize>],
        [vector, out]: [&DeviceVec<f32>; 2],
    ) -> Result<(), Cause> {
        self.device.communicate_after(complete);
        self.communicator
            .reduce_to_shards(vector.view(), shards, out.view())?;
        self.given(watch)?;
        self.finish(watch)
    }

    /// Brings every owner's spans to all ranks: they have the same place on each.
    pub(super) fn gather(
        &self,
        watch: &Watch<'_>,
        complete: &Event,
        spans: &[Vec<Span>],
    ) -> Result<(), Cause> {
        self.device.communicate_after(complete);
        for GatherPhase { send, receive } in self.topology.gather() {
            let of = |owners: &[usize]| -> Vec<Span> {
                owners.iter().flat_map(|&o| spans[o].clone()).collect()
            };
            let mut messages = Vec::new();
            for (rank, owners) in send.iter().enumerate() {
                let to = rank as u32;
                let spans = of(owners).into_iter();
                messages.extend(spans.map(|from| Message::Send { to, from }));
            }
            for (rank, owners) in receive.iter().enumerate() {
                let from = rank as u32;
                let spans = of(owners).into_iter();
                messages.extend(spans.map(|into| Message::Receive { from, into }));
            }
            self.exchange(watch, &messages)?;
        }
        self.finish(watch)
    }

    /// Gives a vector to one rank and takes one of another.
    pub(super) fn pass_on(
        &self,
        watch: &Watch<'_>,
        complete: &Event,
        neighbours: Neighbours,
        [own, received]: [&DeviceVec<f32>; 2],
    ) -> Result<(), Cause> {
        self.device.communicate_after(complete);
        let Neighbours { to, from } = neighbours;
        let messages = [
            Message::Send {
                to: to.0,
                from: own.view().span(),
            },
            Message::Receive {
                from: from.0,
                into: received.view().span(),
            },
        ];
        self.exchange(watch, &messages)?;
        self.finish(watch)
    }

    /// Gives out messages that aren't empty, and waits until the stream has them.
    fn exchange(&self, watch: &Watch<'_>, messages: &[Message]) -> Result<(), Cause> {
        let is_empty = |message: &&Message| match message {
            Message::Send { from: span, .. } | Message::Receive { into: span, .. } => {
                span.bytes() == 0
            }
        };
        let messages: Vec<Message> = messages.iter().filter(|m| !is_empty(m)).copied().collect();
        if messages.is_empty() {
            return Ok(());
        }
        self.communicator.exchange(&messages)?;
        self.given(watch)
    }

    /// Waits until the stream has what NCCL was given: what follows on the stream comes behind it only then.
    fn given(&self, watch: &Watch<'_>) -> Result<(), Cause> {
        watch.until(|| Ok(self.communicator.progress()?))
    }

    fn finish(&self, watch: &Watch<'_>) -> Result<(), Cause> {
        self.wait(watch, &self.device.communicated())
    }

    /// Waits for a point on the stream, which may never come.
    fn wait(&self, watch: &Watch<'_>, event: &Event) -> Result<(), Cause> {
        watch.until(|| {
            self.communicator.progress()?;
            Ok(event.is_done())
        })
    }
}

fn messages(exchange: &Exchange, view: impl Fn(&Place) -> View<f32>) -> Vec<Message> {
    let sends = exchange.sends.iter().map(|(rank, place)| Message::Send {
        to: *rank as u32,
        from: view(place).span(),
    });
    let receives = exchange.receives.iter();
    let receives = receives.map(|(rank, place)| Message::Receive {
        from: *rank as u32,
        into: view(place).span(),
    });
    sends.chain(receives).collect()
}
