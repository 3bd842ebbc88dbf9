//! The copy of another rank's shard: given once, then kept up to date with the shard's gradient.

use super::{Piece, neighbours::neighbours};
use crate::{
    collective::{CollectiveError, Neighbours, Passed, Pending, Transport},
    engine::{Engine, SegmentState, Stepper, Update, gradient::Shards},
};
use polestar_run::placement::{Sharding, Zero};
use std::ops::Range;

/// A copy of another rank's shard of every segment.
pub(in crate::engine) struct Copies<E: Engine> {
    neighbours: Neighbours,
    states: Vec<SegmentState<E::Flat>>,
}

impl<E: Engine> Copies<E> {
    /// The elements of a segment that it is a copy of.
    fn range(&self, sharding: &Sharding, elements: usize) -> Range<usize> {
        held(self.neighbours, sharding, elements)
    }

    /// Gives the gradient of this rank's shards to the rank that has the copy of them.
    pub(in crate::engine) fn pass_gradient<T: Transport<E>>(
        &self,
        engine: &E,
        transport: &mut T,
        sharding: &Sharding,
        shards: impl Iterator<Item = (usize, E::Flat)>,
    ) -> Vec<Pending<Passed<E::Flat>>> {
        let pass = |(elements, shard)| {
            let due = self.range(sharding, elements).len();
            transport.pass_on(engine, self.neighbours, shard, due)
        };
        shards.map(pass).collect()
    }

    /// Takes the step that the shards' owner takes.
    pub(in crate::engine) fn update(
        &mut self,
        engine: &E,
        gradients: Vec<E::Flat>,
        update: &Update,
    ) {
        for (state, gradient) in self.states.iter_mut().zip(gradients) {
            engine.adamw(state, &gradient, update);
        }
    }
}

/// The elements of a segment that the rank before owns.
fn held(neighbours: Neighbours, sharding: &Sharding, elements: usize) -> Range<usize> {
    let rank = neighbours.from;
    Sharding { rank, ..*sharding }.owned(elements)
}

impl<E: Engine> Stepper<E> {
    /// Gives a copy of what this rank owns to another one, and takes one. All ranks call it, once every segment
    /// is [set](Stepper::set_shard). Nothing happens where ranks keep replicas anyway.
    ///
    /// # Errors
    /// When a rank is lost. What this rank owns is then of no use.
    pub fn keep_copies<T: Transport<E>>(
        &mut self,
        transport: &mut T,
    ) -> Result<(), CollectiveError> {
        let sharding = self.plan.sharding;
        let ring = neighbours(&transport.hosts(), sharding.rank);
        let Some(neighbours) = ring.filter(|_| sharding.zero != Zero::None) else {
            return Ok(());
        };
        let mut states = Vec::with_capacity(self.segments.len());
        for segment in &mut self.segments {
            let due = held(neighbours, &sharding, segment.elements).len();
            let state = segment.state_mut();
            let mut received = Vec::with_capacity(3);
            for vector in [&mut state.master, &mut state.exp_avg, &mut state.exp_avg_sq] {
                let own = std::mem::replace(vector, self.engine.zeros(0));
                let passed = transport.pass_on(&self.engine, neighbours, own, due);
                let passed = passed.wait()?;
                *vector = passed.own;
                received.push(passed.received);
            }
            let mut received = received.into_iter();
            let mut next = || received.next().expect("three were received");
            states.push(SegmentState {
                master: next(),
                exp_avg: next(),
                exp_avg_sq: next(),
            });
        }
        self.copies = Some(Copies { neighbours, states });
        Ok(())
    }

    /// Everything that this rank has of the model, in host memory. The stepper is of no use afterwards.
    pub(in crate::engine) fn take_pieces(&mut self) -> Vec<Piece> {
        let sharding = self.plan.sharding;
        let prepared = self.prepared.take();
        // Where every rank has everything, a gradient in shards is of no use to one of them.
        let prepared = prepared.filter(|_| sharding.zero != Zero::None);
        let Shards { own, copied } = prepared.unwrap_or_default();
        let mut pieces = Vec::new();
        let mut gradients = own.into_iter();
        for (number, segment) in self.segments.iter_mut().enumerate() {
            let range = sharding.updated(segment.elements);
            if let Some(state) = segment.state.take() {
                let gradient = gradients.next();
                pieces.push(piece(&self.engine, number, range, state, gradient));
            }
        }
        if let Some(copies) = self.copies.take() {
            let mut gradients = copied.into_iter();
            let elements: Vec<usize> = self.segments.iter().map(|s| s.elements).collect();
            let ranges = elements.iter().map(|&all| copies.range(&sharding, all));
            let ranges: Vec<_> = ranges.collect();
            for (number, (range, state)) in ranges.into_iter().zip(copies.states).enumerate() {
                let gradient = gradients.next();
                pieces.push(piece(&self.engine, number, range, state, gradient));
            }
        }
        pieces
    }
}

fn piece<E: Engine>(
    engine: &E,
    segment: usize,
    range: Range<usize>,
    state: SegmentState<E::Flat>,
    gradient: Option<E::Flat>,
) -> Piece {
    let host = |vector| engine.to_host(vector, range.len());
    Piece {
        segment,
        start: range.start,
        state: state.map(host),
        gradient: gradient.map(host),
    }
}
