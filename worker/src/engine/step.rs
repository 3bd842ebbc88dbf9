//! One optimizer step of a world of ranks, whatever is sharded: lanes to gradient to weights.
//!
//! ```text
//! lanes ─ pass ─▶ gradient of a segment ─ reduce-scatter ─▶ shard of the sum      while the pass goes on
//!                 all shards ─ norm ─▶ clip ─▶ AdamW ─▶ weights ─ all-gather ─▶   while the next pass begins
//! ```

use super::{
    Compute, NotFinite, Scores,
    compute::Holder,
    sums::{Pass, Shard, Sums},
};
use crate::{
    collective::{Collective, CollectiveError, Pending},
    norm::block_sums,
};
use polestar_core::{
    Digest, Lane, Rank,
    digest::{block_hashes, checksum},
    tree::tree_sum,
};
use polestar_kernels::adamw::{self, AdamW};
use polestar_model::{ModelLayout, PackInput, Weights};
use polestar_run::placement::{Reduction, Sharding, Zero};

/// Weights and moments of a segment: whole, or a rank's shard.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Weights, the masters that the optimizer updates.
    pub weights: Vec<f32>,
    /// First moments.
    pub first: Vec<f32>,
    /// Second moments.
    pub second: Vec<f32>,
}

impl Part {
    /// Fresh moments for these weights.
    pub fn fresh(weights: Vec<f32>) -> Part {
        let zeros = vec![0.0; weights.len()];
        Part {
            weights,
            first: zeros.clone(),
            second: zeros,
        }
    }
}

/// Where the weights that a pass computes with are.
enum Slot {
    /// To be gathered when they are needed.
    Absent,
    /// On their way.
    Gathering(Pending<Vec<f32>>),
    /// On the device.
    Ready(Weights),
}

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

impl PassError {
    fn of(self, lane: Lane) -> StepError {
        match self {
            PassError::NotFinite(source) => StepError::NotFinite { lane, source },
            PassError::Collective(error) => StepError::Collective(error),
        }
    }
}

/// A lane's part of a batch, packed.
#[derive(Debug)]
pub struct LaneInput {
    /// Which.
    pub lane: Lane,
    /// Its packs, in order.
    pub packs: Vec<PackInput>,
}

/// Scores of each pack of each lane.
pub type LaneScores = Vec<Vec<Scores>>;

/// A rank's part of a model in training.
pub struct Stepper {
    compute: Compute,
    plan: StepPlan,
    parts: Vec<Part>,
    slots: Vec<Slot>,
}

impl Stepper {
    /// A model whose segments are to be [put in](Stepper::put).
    pub fn new(compute: Compute, plan: StepPlan) -> Stepper {
        let segments = compute.layout().segments.len();
        Stepper {
            compute,
            plan,
            parts: vec![Part::default(); segments],
            slots: std::iter::repeat_with(|| Slot::Absent)
                .take(segments)
                .collect(),
        }
    }

    /// The model's layout.
    pub fn layout(&self) -> &ModelLayout {
        self.compute.layout()
    }

    /// The elements of a segment that this rank owns, and that [`put`](Stepper::put) takes.
    pub fn owned(&self, segment: usize) -> std::ops::Range<usize> {
        self.plan.sharding.owned(self.elements(segment))
    }

    /// Takes what this rank [owns](Stepper::owned) of a segment.
    pub fn put(&mut self, segment: usize, owned: Part) {
        self.parts[segment] = owned;
    }

    /// Brings what ranks own to those that keep all of it. All ranks call it once every segment is
    /// [put in](Stepper::put).
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn spread(&mut self, collective: &mut Collective) -> Result<(), CollectiveError> {
        if self.plan.sharding.zero != Zero::None || self.plan.sharding.world.0 == 1 {
            return Ok(());
        }
        for segment in 0..self.parts.len() {
            let cuts = self.cuts(segment);
            let part = &mut self.parts[segment];
            for vector in [&mut part.weights, &mut part.first, &mut part.second] {
                *vector = collective.all_gather(&cuts, vector)?;
            }
        }
        Ok(())
    }

    /// Makes the weights that were put in those that passes compute with. All ranks call it.
    pub fn load(&mut self, collective: &mut Collective) {
        for segment in 0..self.parts.len() {
            // Before new ones come: two copies at once would be the largest thing in memory.
            self.slots[segment] = Slot::Absent;
            self.slots[segment] = match self.plan.sharding.zero {
                Zero::None => {
                    let weights = &self.parts[segment].weights;
                    Slot::Ready(self.compute.weights(segment, weights))
                }
                Zero::Optimizer | Zero::Gradient => self.gather(segment, collective),
                Zero::Weights => Slot::Absent,
            };
        }
    }

    /// Runs this rank's lanes and updates the weights. `scale` is what each triplet's loss weighs in
    /// the batch's, `t` the number of this update, counted from 1, `clip` the largest norm (0: none).
    ///
    /// Returns each lane's scores, in the order given, and the norm of the global gradient.
    ///
    /// # Errors
    /// [`StepError`]; the weights are then those from before, or of no use after a lost rank.
    pub fn step(
        &mut self,
        collective: &mut Collective,
        lanes: &[LaneInput],
        scale: f32,
        (adamw, t, clip): (&AdamW, u64, f32),
    ) -> Result<(LaneScores, f64), StepError> {
        let (scores, shards) = self.gradient(collective, lanes, scale)?;
        let norm = self.norm(collective, &shards)?;
        if !norm.is_finite() {
            return Err(StepError::Norm(norm));
        }
        let clip = f64::from(clip);
        let factor = if clip > 0.0 && norm > clip {
            (clip / norm) as f32
        } else {
            1.0
        };
        let gradients: Vec<Pending<Vec<f32>>> = match self.plan.sharding.zero {
            Zero::None => {
                let gather = |(segment, shard): (usize, Shard)| {
                    let cuts = self.plan.sharding.cuts(self.elements(segment));
                    if shard.values.len() == self.elements(segment) {
                        collective.start_all_gather_in_place(cuts, shard.values)
                    } else {
                        collective.start_all_gather(cuts, shard.values)
                    }
                };
                shards.into_iter().enumerate().map(gather).collect()
            }
            _ => shards
                .into_iter()
                .map(|s| Pending::ready(s.values))
                .collect(),
        };
        for (part, gradient) in self.parts.iter_mut().zip(gradients) {
            let gradient = gradient.wait()?;
            let Part {
                weights,
                first,
                second,
            } = part;
            adamw::step(adamw, t, factor, weights, first, second, &gradient);
        }
        self.load(collective);
        Ok((scores, norm))
    }

    /// This rank's shard of the sum of all lanes' gradients, by segment.
    fn gradient(
        &mut self,
        collective: &mut Collective,
        lanes: &[LaneInput],
        scale: f32,
    ) -> Result<(LaneScores, Vec<Shard>), StepError> {
        let mut sums = Sums::new(self.compute.layout(), self.plan);
        let mut scores = Vec::with_capacity(lanes.len());
        if self.plan.sharding.is_strided() {
            // All packs of a lane go through a segment together, so that its gradient is whole, and
            // gone, before the next segment's begins.
            for round in 0..self.plan.sharding.reductions(self.plan.lanes) {
                let (lane, packs) = match lanes.get(round as usize) {
                    Some(input) => (input.lane, &input.packs[..]),
                    // Nothing to compute, but the others need our shards and our ear.
                    None => (Lane(u32::MAX), &[][..]),
                };
                let pass = Pass::Strided {
                    round,
                    hosts: !packs.is_empty(),
                };
                let done = self.pass(collective, &mut sums, pass, packs, scale);
                let done = done.map_err(|error| error.of(lane))?;
                if !packs.is_empty() {
                    scores.push(done);
                }
            }
        } else {
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
                    let done = self.pass(collective, &mut sums, pass, pack, scale);
                    of_lane.extend(done.map_err(|error| error.of(*lane))?);
                }
                scores.push(of_lane);
            }
        }
        Ok((scores, sums.finish()?))
    }

    fn pass(
        &mut self,
        collective: &mut Collective,
        sums: &mut Sums,
        pass: Pass,
        packs: &[PackInput],
        scale: f32,
    ) -> Result<Vec<Scores>, PassError> {
        let mut training = Training {
            view: View {
                compute: &self.compute,
                plan: self.plan,
                parts: &self.parts,
                slots: &mut self.slots,
                collective,
            },
            sums,
            pass,
        };
        self.compute.train(packs, scale, &mut training)
    }

    /// Scores packs without training. All ranks call it, equally often, each with packs of its own
    /// or none.
    ///
    /// # Errors
    /// When a loss is not a number or a rank is lost.
    pub fn score(
        &mut self,
        collective: &mut Collective,
        packs: &[PackInput],
    ) -> Result<Vec<Scores>, PassError> {
        let mut view = View {
            compute: &self.compute,
            plan: self.plan,
            parts: &self.parts,
            slots: &mut self.slots,
            collective,
        };
        self.compute.score(packs, &mut view)
    }

    /// The canonical norm of a gradient that lies in shards.
    fn norm(&self, collective: &mut Collective, shards: &[Shard]) -> Result<f64, CollectiveError> {
        let mine: Vec<f64> = shards.iter().flat_map(|s| block_sums(s.own())).collect();
        let bytes: Vec<u8> = mine.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        let all = collective.gather_bytes(&bytes)?;
        let mut readers: Vec<_> = all.iter().map(|b| b.as_chunks::<8>().0.iter()).collect();
        let mut sums = Vec::new();
        for segment in 0..shards.len() {
            for (rank, reader) in readers.iter_mut().enumerate() {
                let sharding = &self.plan.sharding;
                let blocks = sharding.blocks(self.elements(segment), Rank(rank as u32));
                sums.extend(reader.take(blocks).map(|b| f64::from_le_bytes(*b)));
            }
        }
        Ok(tree_sum(&sums).sqrt())
    }

    /// Digest of the whole model; every rank hashes what it owns.
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn digest(&self, collective: &mut Collective) -> Result<Digest, CollectiveError> {
        let mut mine = Vec::new();
        for segment in 0..self.parts.len() {
            let [weights, ..] = self.state(segment);
            mine.extend(block_hashes(weights).flatten());
        }
        let all = collective.gather_bytes(&mine)?;
        let mut readers: Vec<_> = all.iter().map(|b| b.as_chunks::<32>().0.iter()).collect();
        let mut hashes = Vec::new();
        for segment in 0..self.parts.len() {
            for (rank, reader) in readers.iter_mut().enumerate() {
                let sharding = &self.plan.sharding;
                let blocks = sharding.blocks(self.elements(segment), Rank(rank as u32));
                hashes.extend(reader.take(blocks));
            }
        }
        Ok(Digest::of_blocks(hashes))
    }

    /// A sum over what this rank keeps although another one owns it: equal on all ranks.
    pub fn replicas(&self) -> u64 {
        if self.plan.sharding.zero != Zero::None {
            return 0;
        }
        let sums = self.parts.iter().map(|part| checksum(&part.weights));
        sums.fold(0, |all, sum| all.rotate_left(7).wrapping_add(sum))
    }

    /// Weights, first and second moments that this rank owns of a segment.
    pub fn state(&self, segment: usize) -> [&[f32]; 3] {
        let part = &self.parts[segment];
        let all = [&part.weights[..], &part.first, &part.second];
        match self.plan.sharding.zero {
            Zero::None => all.map(|vector| &vector[self.owned(segment)]),
            _ => all,
        }
    }

    fn elements(&self, segment: usize) -> usize {
        self.compute.layout().segments[segment].elements
    }

    fn cuts(&self, segment: usize) -> Vec<std::ops::Range<usize>> {
        self.plan.sharding.cuts(self.elements(segment))
    }

    fn gather(&self, segment: usize, collective: &mut Collective) -> Slot {
        let mine = self.parts[segment].weights.clone();
        Slot::Gathering(collective.start_all_gather(self.cuts(segment), mine))
    }
}

/// What a pass sees of the weights.
struct View<'a> {
    compute: &'a Compute,
    plan: StepPlan,
    parts: &'a [Part],
    slots: &'a mut [Slot],
    collective: &'a mut Collective,
}

impl View<'_> {
    /// Asks for the weights of a segment if nobody has yet.
    fn prefetch(&mut self, segment: usize) {
        if matches!(self.slots[segment], Slot::Absent) {
            let elements = self.compute.layout().segments[segment].elements;
            let cuts = self.plan.sharding.cuts(elements);
            let mine = self.parts[segment].weights.clone();
            self.slots[segment] = Slot::Gathering(self.collective.start_all_gather(cuts, mine));
        }
    }
}

impl Holder for View<'_> {
    type Error = PassError;

    fn weights(&mut self, segment: usize, next: Option<usize>) -> Result<Weights, PassError> {
        self.prefetch(segment);
        if let Some(next) = next {
            self.prefetch(next);
        }
        let weights = match std::mem::replace(&mut self.slots[segment], Slot::Absent) {
            Slot::Ready(weights) => weights,
            Slot::Gathering(pending) => self.compute.weights(segment, &pending.wait()?),
            // `prefetch` leaves no slot absent.
            Slot::Absent => self.compute.weights(segment, &self.parts[segment].weights),
        };
        self.slots[segment] = Slot::Ready(weights.clone());
        Ok(weights)
    }

    fn release(&mut self, segment: usize) {
        if self.plan.sharding.zero == Zero::Weights {
            self.slots[segment] = Slot::Absent;
        }
    }

    fn gradient(&mut self, _segment: usize) -> Vec<f32> {
        Vec::new()
    }

    fn complete(&mut self, _segment: usize, _gradient: Vec<f32>) -> Result<(), PassError> {
        Ok(())
    }
}

/// And of the gradient.
struct Training<'a> {
    view: View<'a>,
    sums: &'a mut Sums,
    pass: Pass,
}

impl Holder for Training<'_> {
    type Error = PassError;

    fn weights(&mut self, segment: usize, next: Option<usize>) -> Result<Weights, PassError> {
        self.view.weights(segment, next)
    }

    fn release(&mut self, segment: usize) {
        self.view.release(segment);
    }

    fn gradient(&mut self, segment: usize) -> Vec<f32> {
        self.sums.take(segment, self.pass)
    }

    fn complete(&mut self, segment: usize, gradient: Vec<f32>) -> Result<(), PassError> {
        let collective = &mut *self.view.collective;
        Ok(self.sums.give(segment, self.pass, gradient, collective)?)
    }
}
