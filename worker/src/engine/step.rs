//! One optimizer step of a world of ranks, whatever is sharded: lanes to gradient to weights.
//!
//! ```text
//! lanes ─ pass ─▶ gradient of a segment ─ sum ─▶ shard of it        while the pass goes on
//!                 all shards ─ norm ─▶ clip ─▶ AdamW ─▶ weights ─ all-gather ─▶   while the next pass begins
//! ```
//! Once all that AdamW needs is here, nothing can fail before every segment has taken the step: whatever
//! happens to other ranks, this one's state is that of a whole step.

use super::{
    Engine, LaneInput, NotFinite, PassError, Scores, SegmentState, Update,
    gradient::{Accumulator, Gradient, Pass, Shards},
    memory_tier::Copies,
    pass::{EvalPass, Residency, Segment, TrainPass},
    timing::{PassClock, Stopwatch},
};
use crate::collective::{CollectiveError, Peers, Pending, Transport};
use polestar_core::{Digest, Lane, Rank, tree::tree_sum};
use polestar_kernels::adamw::AdamW;
use polestar_model::ModelLayout;
use polestar_run::{
    StepParts,
    checkpoint::Kind,
    placement::{Reduction, Sharding, Zero},
};
use std::{ops::Range, time::Duration};

/// How steps are made. Everything but `reduction` leaves the bits alone.
#[derive(Clone, Copy, Debug)]
pub struct StepPlan {
    /// This rank's place.
    pub sharding: Sharding,
    /// Lanes of a batch.
    pub lanes: u32,
    /// How they are added up.
    pub reduction: Reduction,
}

/// What an optimizer step does with the gradient.
#[derive(Clone, Copy, Debug)]
pub struct OptimizerStep {
    /// Its settings.
    pub adamw: AdamW,
    /// Its number, counted from 1.
    pub number: u64,
    /// The largest norm of the global gradient; a longer one is scaled down. 0: no limit.
    pub clip: f32,
}

/// What a step came to on one rank.
#[derive(Clone, Debug)]
pub struct StepOutcome {
    /// Scores of each pack of each of this rank's lanes, in the order given.
    pub scores: Vec<Vec<Scores>>,
    /// Norm of the global gradient, before clipping.
    pub norm: f64,
}

impl OptimizerStep {
    /// The update by a gradient of this norm.
    pub(super) fn update(&self, norm: f64) -> Update {
        let clip = f64::from(self.clip);
        Update {
            adamw: self.adamw,
            number: self.number,
            scale: if clip > 0.0 && norm > clip {
                (clip / norm) as f32
            } else {
                1.0
            },
        }
    }
}

/// Why a step came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A loss or a gradient is not a number.
    #[error("{lane}")]
    NotFinite {
        /// Where it was noticed.
        lane: Lane,
        /// In which segment.
        #[source]
        source: NotFinite,
    },
    /// The global gradient is not finite although every lane's was.
    #[error("the norm of the global gradient is {0}")]
    Norm(f64),
    /// Communication between ranks.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
}

impl StepError {
    fn in_lane(lane: Lane) -> impl Fn(PassError) -> StepError {
        move |error| match error {
            PassError::NotFinite(source) => StepError::NotFinite { lane, source },
            PassError::Collective(error) => StepError::Collective(error),
        }
    }
}

/// A rank's part of a model in training.
pub struct Stepper<E: Engine> {
    pub(super) engine: E,
    pub(super) plan: StepPlan,
    pub(super) segments: Vec<Segment<E>>,
    /// Of another rank's shard, once they are [kept](Stepper::keep_copies).
    pub(super) copies: Option<Copies<E>>,
    /// The gradient of the next step, while the ranks agree on its norm.
    pub(super) prepared: Option<Shards<E::Flat>>,
    /// Where the time went since this was last taken.
    pub(super) parts: StepParts,
}

impl<E: Engine> Stepper<E> {
    /// A model whose segments are to be [set](Stepper::set_shard).
    pub fn new(engine: E, plan: StepPlan) -> Stepper<E> {
        let segment = |elements| Segment {
            elements,
            state: None,
            residency: Residency::Sharded,
        };
        let elements = engine.layout().segments.iter().map(|s| s.elements);
        Stepper {
            segments: elements.map(segment).collect(),
            engine,
            plan,
            copies: None,
            prepared: None,
            parts: StepParts::default(),
        }
    }

    /// The device, and the model on it.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// The model's layout.
    pub fn layout(&self) -> &ModelLayout {
        self.engine.layout()
    }

    /// The elements of a segment that this rank owns, and that [`set_shard`](Stepper::set_shard) takes.
    pub fn owned(&self, segment: usize) -> Range<usize> {
        self.plan.sharding.owned(self.segments[segment].elements)
    }

    /// Sets what this rank [owns](Stepper::owned) of a segment.
    pub fn set_shard(&mut self, segment: usize, owned: SegmentState<Vec<f32>>) {
        self.segments[segment].state = Some(owned.map(|vector| self.engine.flat(vector)));
    }

    /// Brings what ranks own to those that keep all of it. All ranks call it once every segment is
    /// [set](Stepper::set_shard).
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn replicate<T: Transport<E>>(&mut self, transport: &mut T) -> Result<(), CollectiveError> {
        if self.plan.sharding.zero != Zero::None || self.plan.sharding.world.0 == 1 {
            return Ok(());
        }
        for segment in &mut self.segments {
            let shards = self.plan.sharding.shards(segment.elements);
            let state = segment.state_mut();
            for vector in [&mut state.master, &mut state.exp_avg, &mut state.exp_avg_sq] {
                let own = std::mem::replace(vector, self.engine.zeros(0));
                *vector = transport
                    .all_gather(&self.engine, shards.clone(), own)
                    .wait()?;
            }
        }
        Ok(())
    }

    /// Makes the weights that were set those that passes compute with. All ranks call it.
    pub fn materialize<T: Transport<E>>(&mut self, transport: &mut T) {
        for (i, segment) in self.segments.iter_mut().enumerate() {
            // Before new ones come: two copies at once would be the largest thing in memory.
            segment.residency = Residency::Sharded;
            match self.plan.sharding.zero {
                Zero::None => {
                    let weights = self.engine.weights(i, &segment.state().master);
                    segment.residency = Residency::Resident(weights);
                }
                Zero::Optimizer | Zero::Gradient => {
                    segment.gather(&self.engine, transport, &self.plan, i);
                }
                Zero::Weights => {}
            }
        }
    }

    /// Runs this rank's lanes and updates the weights. `scale` is what each triplet's loss weighs in
    /// the batch's.
    ///
    /// # Errors
    /// [`StepError`]; the weights are then those from before, or of no use after a lost rank.
    pub fn step<T: Transport<E>>(
        &mut self,
        transport: &mut T,
        lanes: &[LaneInput<E::Pack>],
        scale: f32,
        optimizer: &OptimizerStep,
    ) -> Result<StepOutcome, StepError> {
        let mut gradient = self.gradient(transport, lanes, scale)?;
        let scores = std::mem::take(&mut gradient.scores);
        let norm = self.apply(transport, gradient, optimizer)?;
        Ok(StepOutcome { scores, norm })
    }

    /// Updates the weights. Returns the norm of the gradient, before clipping.
    ///
    /// # Errors
    /// [`StepError`]; the state is then that from before.
    pub(super) fn apply<T: Transport<E>>(
        &mut self,
        transport: &mut T,
        gradient: Gradient<E::Flat>,
        optimizer: &OptimizerStep,
    ) -> Result<f64, StepError> {
        let _span = tracing::info_span!("optimizer").entered();
        let mut watch = Stopwatch::start();
        let prepared = self.prepared.insert(gradient.shards);
        let sums = prepared.own.iter().map(|s| self.engine.block_sums(s));
        let sums: Vec<f64> = sums.flatten().collect();
        self.parts.optimizer += watch.lap();
        let norm = self.norm(transport, &sums)?;
        let prepared = self.prepared.take();
        let Shards { own, copied } = prepared.expect("it was put there above");
        if !norm.is_finite() {
            return Err(StepError::Norm(norm));
        }
        // All are on their way before the first is waited for, and here before the first is used.
        let gradients: Vec<Pending<E::Flat>> = match self.plan.sharding.zero {
            Zero::None => {
                let gather = |(segment, shard): (&Segment<E>, E::Flat)| {
                    let shards = self.plan.sharding.shards(segment.elements);
                    transport.all_gather(&self.engine, shards, shard)
                };
                self.segments.iter().zip(own).map(gather).collect()
            }
            _ => own.into_iter().map(Pending::ready).collect(),
        };
        let gradients: Vec<E::Flat> = gradients
            .into_iter()
            .map(Pending::wait)
            .collect::<Result<_, _>>()?;
        self.parts.reduce += watch.lap();
        let update = optimizer.update(norm);
        for (segment, gradient) in self.segments.iter_mut().zip(gradients) {
            self.engine.adamw(segment.state_mut(), &gradient, &update);
        }
        if let Some(copies) = &mut self.copies {
            copies.update(&self.engine, copied, &update);
        }
        self.materialize(transport);
        self.parts.optimizer += watch.lap();
        Ok(norm)
    }

    /// Runs this rank's lanes and adds the gradients of all up.
    ///
    /// # Errors
    /// [`StepError`].
    pub(super) fn gradient<T: Transport<E>>(
        &mut self,
        transport: &mut T,
        lanes: &[LaneInput<E::Pack>],
        scale: f32,
    ) -> Result<Gradient<E::Flat>, StepError> {
        let mut sums = Accumulator::new(self.engine.layout(), self.plan);
        let scored = match self.plan.sharding.is_strided() {
            true => self.strided_passes(transport, &mut sums, lanes, scale)?,
            false => self.contiguous_passes(transport, &mut sums, lanes, scale)?,
        };
        let mut watch = Stopwatch::start();
        let waiting = tracing::info_span!("reduce").entered();
        let mut own = sums.finish(&self.engine)?;
        drop(waiting);
        self.parts.reduce += watch.lap();
        let sharding = &self.plan.sharding;
        let passed = self.copies.as_ref().map(|copies| {
            let elements = self.segments.iter().map(|segment| segment.elements);
            copies.pass_gradient(
                &self.engine,
                transport,
                sharding,
                elements.zip(own.drain(..)),
            )
        });
        // Only now: reading what a pass scored may wait for the device.
        let mut scores = Vec::with_capacity(lanes.len());
        for (LaneInput { lane, .. }, passes) in lanes.iter().zip(scored) {
            let mut of_lane = Vec::new();
            for scored in passes {
                let read = self.engine.scores(scored);
                of_lane.extend(read.map_err(|e| StepError::in_lane(*lane)(e.into()))?);
            }
            scores.push(of_lane);
        }
        self.parts.backward += watch.lap();
        let shards = match passed {
            None => Shards {
                own,
                copied: Vec::new(),
            },
            Some(passed) => Shards::passed(passed)?,
        };
        self.parts.reduce += watch.lap();
        Ok(Gradient { scores, shards })
    }

    /// All packs of a lane go through a segment together, so that its gradient is whole, and gone,
    /// before the next segment's begins.
    fn strided_passes<T: Transport<E>>(
        &mut self,
        transport: &mut T,
        sums: &mut Accumulator<E>,
        lanes: &[LaneInput<E::Pack>],
        scale: f32,
    ) -> Result<Vec<Vec<E::Scored>>, StepError> {
        let mut scored = Vec::with_capacity(lanes.len());
        for round in 0..self.plan.sharding.reductions(self.plan.lanes) {
            match lanes.get(round as usize) {
                Some(LaneInput { lane, packs }) => {
                    let pass = Pass::Strided { round, hosts: true };
                    let done = self.pass(transport, sums, pass, packs, scale);
                    scored.push(vec![done.map_err(StepError::in_lane(*lane))?]);
                }
                None => {
                    // Nothing to compute, but the others need our shards and our ear.
                    let hosts = false;
                    let pass = Pass::Strided { round, hosts };
                    match self.pass(transport, sums, pass, &[], scale) {
                        Ok(_) => {}
                        Err(PassError::Collective(error)) => return Err(error.into()),
                        Err(PassError::NotFinite(error)) => {
                            unreachable!("a pass without packs computes no number: {error}")
                        }
                    }
                }
            }
        }
        Ok(scored)
    }

    fn contiguous_passes<T: Transport<E>>(
        &mut self,
        transport: &mut T,
        sums: &mut Accumulator<E>,
        lanes: &[LaneInput<E::Pack>],
        scale: f32,
    ) -> Result<Vec<Vec<E::Scored>>, StepError> {
        let mut scored = Vec::with_capacity(lanes.len());
        for (i, LaneInput { lane, packs }) in lanes.iter().enumerate() {
            let mut of_lane = Vec::with_capacity(packs.len());
            for (j, pack) in packs.iter().enumerate() {
                let ends_lane = j + 1 == packs.len();
                let pass = Pass::Contiguous {
                    lane: *lane,
                    ends_lane,
                    ends_step: ends_lane && i + 1 == lanes.len(),
                };
                let pack = std::slice::from_ref(pack);
                let done = self.pass(transport, sums, pass, pack, scale);
                of_lane.push(done.map_err(StepError::in_lane(*lane))?);
            }
            scored.push(of_lane);
        }
        Ok(scored)
    }

    fn pass<T: Transport<E>>(
        &mut self,
        transport: &mut T,
        sums: &mut Accumulator<E>,
        pass: Pass,
        packs: &[E::Pack],
        scale: f32,
    ) -> Result<E::Scored, PassError> {
        let mut store = TrainPass {
            weights: EvalPass {
                engine: &self.engine,
                transport,
                plan: self.plan,
                segments: &mut self.segments,
                waited: Duration::ZERO,
            },
            sums,
            pass,
            clock: PassClock::start(),
        };
        let scored = self.engine.train(packs, scale, &mut store);
        store.clock.end(store.weights.waited, &mut self.parts);
        scored
    }

    /// Scores packs without training. All ranks call it, equally often, each with packs of its own
    /// or none.
    ///
    /// # Errors
    /// When a loss is not a number or a rank is lost.
    pub fn score<T: Transport<E>>(
        &mut self,
        transport: &mut T,
        packs: &[E::Pack],
    ) -> Result<Vec<Scores>, PassError> {
        let mut store = EvalPass {
            engine: &self.engine,
            transport,
            plan: self.plan,
            segments: &mut self.segments,
            waited: Duration::ZERO,
        };
        let scored = self.engine.score(packs, &mut store)?;
        Ok(self.engine.scores(scored)?)
    }

    /// The canonical norm of a gradient of whose blocks each rank has some, of these squared norms.
    fn norm(&self, peers: &mut impl Peers, blocks: &[f64]) -> Result<f64, CollectiveError> {
        let bytes: Vec<u8> = blocks.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        let all = peers.exchange(&bytes)?;
        let sums = self
            .in_block_order(&all)
            .map(|sum| f64::from_le_bytes(*sum));
        Ok(tree_sum(&sums.collect::<Vec<_>>()).sqrt())
    }

    /// Digest of the whole model; every rank hashes what it owns.
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn digest(&self, peers: &mut impl Peers) -> Result<Digest, CollectiveError> {
        let mut local = Vec::new();
        for (i, segment) in self.segments.iter().enumerate() {
            let master = &segment.state().master;
            local.extend(self.engine.block_hashes(master, self.owned_part(i)));
        }
        let all = peers.exchange(local.as_flattened())?;
        Ok(Digest::of_blocks(self.in_block_order(&all)))
    }

    /// What ranks have to say of the blocks that they own, `N` bytes a block, in canonical order.
    fn in_block_order<'a, const N: usize>(
        &'a self,
        ranks: &'a [Vec<u8>],
    ) -> impl Iterator<Item = &'a [u8; N]> {
        let mut readers: Vec<_> = ranks.iter().map(|b| b.as_chunks::<N>().0.iter()).collect();
        let mut ordered = Vec::new();
        for segment in &self.segments {
            for (rank, reader) in readers.iter_mut().enumerate() {
                let rank = Rank(rank as u32);
                let blocks = self.plan.sharding.blocks(segment.elements, rank);
                let before = ordered.len();
                ordered.extend(reader.take(blocks));
                let sent = ordered.len() - before;
                assert_eq!(sent, blocks, "{rank} speaks of every block that it owns");
            }
        }
        ordered.into_iter()
    }

    /// A sum over what this rank keeps although another one owns it: equal on all ranks.
    pub fn replica_checksum(&self) -> u64 {
        if self.plan.sharding.zero != Zero::None {
            return 0;
        }
        let sums = self.segments.iter();
        let sums = sums.map(|segment| self.engine.checksum(&segment.state().master));
        sums.fold(0, |all, sum| all.rotate_left(7).wrapping_add(sum))
    }

    /// Reads what this rank [owns](Stepper::owned) of a segment's weights or moments.
    ///
    /// # Panics
    /// When `into` has another length.
    pub fn read_shard(&self, segment: usize, kind: Kind, into: &mut [f32]) {
        let state = self.segments[segment].state();
        let vector = match kind {
            Kind::Weight => &state.master,
            Kind::First => &state.exp_avg,
            Kind::Second => &state.exp_avg_sq,
        };
        self.engine.read(vector, self.owned_part(segment), into);
    }

    /// Where what this rank owns of a segment is in what it keeps of it.
    fn owned_part(&self, segment: usize) -> Range<usize> {
        let owned = self.owned(segment);
        match self.plan.sharding.zero {
            Zero::None => owned,
            _ => 0..owned.len(),
        }
    }
}
