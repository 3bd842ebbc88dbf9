//! What a pass through the model sees of a rank's state: weights that are gathered when they are
//! needed, and a gradient that is sent off when it is complete.

use super::{
    Engine, GradientStore, NotFinite, ParameterStore, SegmentState, StepPlan,
    gradient::{Accumulator, Pass},
    timing::PassClock,
};
use crate::collective::{CollectiveError, Gathered, Pending, Transport};
use polestar_run::placement::Zero;
use std::time::{Duration, Instant};

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// A loss or a gradient is not a number.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// Communication between ranks.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
}

/// Where the weights that a pass computes with are.
pub(super) enum Residency<E: Engine> {
    /// With their owners, to be gathered when they are needed.
    Sharded,
    /// On their way.
    Gathering(Pending<Gathered<E>>),
    /// On the device.
    Resident(E::Weights),
}

/// A segment of a rank's model.
pub(super) struct Segment<E: Engine> {
    pub(super) elements: usize,
    /// What this rank updates of it; none until it is [set](super::Stepper::set_shard).
    pub(super) state: Option<SegmentState<E::Flat>>,
    pub(super) residency: Residency<E>,
}

impl<E: Engine> Segment<E> {
    pub(super) fn state(&self) -> &SegmentState<E::Flat> {
        self.state.as_ref().expect(UNSET)
    }

    pub(super) fn state_mut(&mut self) -> &mut SegmentState<E::Flat> {
        self.state.as_mut().expect(UNSET)
    }

    /// Begins to gather the weights from their owners. It is segment `number` of its model.
    pub(super) fn gather<T: Transport<E>>(
        &mut self,
        engine: &E,
        transport: &mut T,
        plan: &StepPlan,
        number: usize,
    ) {
        let shards = plan.sharding.shards(self.elements);
        let own = &self.state().master;
        let gathered = transport.gather_weights(engine, number, shards, own);
        self.residency = Residency::Gathering(gathered);
    }
}

const UNSET: &str = "every segment's shard is set before training begins";

/// The weights, for a pass without gradients.
pub(super) struct EvalPass<'a, E: Engine, T> {
    pub(super) engine: &'a E,
    pub(super) transport: &'a mut T,
    pub(super) plan: StepPlan,
    pub(super) segments: &'a mut [Segment<E>],
    /// Time that it has waited for other ranks.
    pub(super) waited: Duration,
}

impl<E: Engine, T: Transport<E>> EvalPass<'_, E, T> {
    /// Asks for the weights of a segment if nobody has yet.
    fn prefetch(&mut self, number: usize) {
        let segment = &mut self.segments[number];
        if let Residency::Sharded = segment.residency {
            segment.gather(self.engine, self.transport, &self.plan, number);
        }
    }
}

impl<E: Engine, T: Transport<E>> ParameterStore<E> for EvalPass<'_, E, T> {
    type Error = PassError;

    fn weights(&mut self, segment: usize, next: Option<usize>) -> Result<E::Weights, PassError> {
        self.prefetch(segment);
        if let Some(next) = next {
            self.prefetch(next);
        }
        let residency = &mut self.segments[segment].residency;
        let weights = match std::mem::replace(residency, Residency::Sharded) {
            Residency::Resident(weights) => weights,
            Residency::Gathering(pending) => {
                let began = Instant::now();
                let gathered = pending.wait()?;
                self.waited += began.elapsed();
                match gathered {
                    Gathered::Master(master) => self.engine.weights(segment, &master),
                    Gathered::Weights(weights) => weights,
                }
            }
            Residency::Sharded => unreachable!("it was asked for above"),
        };
        *residency = Residency::Resident(weights.clone());
        Ok(weights)
    }

    fn release(&mut self, segment: usize) {
        if self.plan.sharding.zero == Zero::Weights {
            self.segments[segment].residency = Residency::Sharded;
        }
    }
}

/// The weights and the gradient.
pub(super) struct TrainPass<'a, E: Engine, T> {
    pub(super) weights: EvalPass<'a, E, T>,
    pub(super) sums: &'a mut Accumulator<E>,
    pub(super) pass: Pass,
    pub(super) clock: PassClock,
}

impl<E: Engine, T: Transport<E>> ParameterStore<E> for TrainPass<'_, E, T> {
    type Error = PassError;

    fn weights(&mut self, segment: usize, next: Option<usize>) -> Result<E::Weights, PassError> {
        self.weights.weights(segment, next)
    }

    fn release(&mut self, segment: usize) {
        self.weights.release(segment);
    }
}

impl<E: Engine, T: Transport<E>> GradientStore<E> for TrainPass<'_, E, T> {
    fn gradient(&mut self, segment: usize) -> E::Flat {
        self.clock.turn(self.weights.waited);
        self.sums.begin(self.weights.engine, segment, self.pass)
    }

    fn complete(&mut self, segment: usize, gradient: E::Flat) -> Result<(), PassError> {
        let EvalPass {
            engine,
            transport,
            waited,
            ..
        } = &mut self.weights;
        let began = Instant::now();
        let done = self
            .sums
            .complete(*engine, *transport, segment, self.pass, gradient);
        *waited += began.elapsed();
        Ok(done?)
    }
}
