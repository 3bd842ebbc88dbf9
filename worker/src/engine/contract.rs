//! What training asks of a device: where a rank's numbers live and what is computed on them.
//!
//! Steps, sums, sharding and checkpoints are written once over this. An engine keeps flat f32 vectors
//! ([`Engine::Flat`]) wherever it computes, and hands them to a
//! [`Transport`](crate::collective::Transport) that can reach them there; values come to the host
//! only where this says so.

use crate::collective::Partials;
use polestar_core::{
    digest::{BlockHash, block_hashes},
    tree::{Subtree, TreeSum},
};
use polestar_kernels::adamw::AdamW;
use polestar_model::{ModelLayout, PackInput};
use std::ops::Range;

/// The loss or a gradient stopped being a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} of segment `{segment}` is not finite")]
pub struct NotFinite {
    /// "the loss" or "the gradient".
    pub what: &'static str,
    /// Name of the segment where it was noticed.
    pub segment: String,
}

/// Scores of one pack, in the order of its triplets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Loss of each triplet: -ln σ(margin), or its mean next-token loss.
    pub losses: Vec<f32>,
    /// Reward of the positive minus reward of the negative; empty for language models.
    pub margins: Vec<f32>,
    /// The raw rewards that the margins are of, in the order of the pack's reward rows. Ranks tell each
    /// other these of held-out triplets alone.
    pub rewards: Vec<f32>,
}

/// Weights and moments of a segment: whole, or a rank's shard.
#[derive(Clone, Debug, Default)]
pub struct SegmentState<F> {
    /// The f32 weights that the optimizer updates.
    pub master: F,
    /// First moments: the running mean of gradients.
    pub exp_avg: F,
    /// Second moments: the running mean of squared gradients.
    pub exp_avg_sq: F,
}

impl SegmentState<Vec<f32>> {
    /// Fresh moments for these weights.
    pub fn fresh(master: Vec<f32>) -> Self {
        let zeros = vec![0.0; master.len()];
        SegmentState {
            master,
            exp_avg: zeros.clone(),
            exp_avg_sq: zeros,
        }
    }
}

impl<F> SegmentState<F> {
    /// The same with other vectors.
    pub fn map<G>(self, mut vector: impl FnMut(F) -> G) -> SegmentState<G> {
        SegmentState {
            master: vector(self.master),
            exp_avg: vector(self.exp_avg),
            exp_avg_sq: vector(self.exp_avg_sq),
        }
    }
}

/// One update of the optimizer.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// Its settings.
    pub adamw: AdamW,
    /// Its number, counted from 1.
    pub number: u64,
    /// What every gradient is multiplied by first: the clip factor.
    pub scale: f32,
}

/// Weights of a model, segment by segment, wherever they come from.
///
/// A pass calls these in an order that depends on the model alone, so that ranks in step stay so.
pub trait ParameterStore<E: Engine> {
    /// Why it can't.
    type Error: From<NotFinite>;

    /// The weights of a segment, for a pass. `next` is the segment that will be asked for after this
    /// one.
    ///
    /// # Errors
    /// When they can't be had.
    fn weights(&mut self, segment: usize, next: Option<usize>) -> Result<E::Weights, Self::Error>;

    /// The pass has done with the weights of a segment for now.
    fn release(&mut self, segment: usize);
}

/// Takes a model's gradient, segment by segment.
pub trait GradientStore<E: Engine>: ParameterStore<E> {
    /// The flat gradient of a segment, to be added to.
    fn gradient(&mut self, segment: usize) -> E::Flat;

    /// Takes it back: all packs of this pass have added their part. Head first, embedding last.
    ///
    /// # Errors
    /// When it can't be passed on.
    fn complete(&mut self, segment: usize, gradient: E::Flat) -> Result<(), Self::Error>;
}

/// A point in an engine's work.
pub trait Fence: Send + 'static {
    /// Returns when the engine has come so far.
    fn wait(self);
}

/// An engine that is done with its work whenever it returns is always so far.
impl Fence for () {
    fn wait(self) {}
}

/// A rank's device and a model on it.
pub trait Engine: Send + Sized + 'static {
    /// A flat f32 vector on the device: weights, moments or gradient of a segment, or a shard.
    type Flat: Send + 'static;
    /// A segment's parameters as passes read them. Cloning shares them.
    type Weights: Clone;
    /// A packed row on the device.
    type Pack;
    /// What a pass scored, which may still be on the device.
    type Scored;
    /// See [`Engine::fence`].
    type Fence: Fence;

    /// The parameters' layout.
    fn layout(&self) -> &ModelLayout;

    /// What of the device and its libraries decides the bits of a result, as text; none where the recipe says it all.
    fn numerics(&self) -> Option<String> {
        None
    }

    /// Brings a packed row to the device, for as many passes as are to come.
    fn upload(&self, pack: PackInput) -> Self::Pack;

    /// A vector of zeros.
    fn zeros(&self, elements: usize) -> Self::Flat;

    /// A vector of these values.
    fn flat(&self, values: Vec<f32>) -> Self::Flat;

    /// A copy of a vector.
    fn copy(&self, vector: &Self::Flat) -> Self::Flat;

    /// Reads elements of a vector into host memory.
    ///
    /// # Panics
    /// When `into` has another length than `range`.
    fn read(&self, vector: &Self::Flat, range: Range<usize>, into: &mut [f32]);

    /// The values of a vector of so many elements, in host memory: the vector's own, if it lies there.
    fn to_host(&self, vector: Self::Flat, elements: usize) -> Vec<f32> {
        let mut values = vec![0.0; elements];
        self.read(&vector, 0..elements, &mut values);
        values
    }

    /// A segment's parameters from its whole vector.
    fn weights(&self, segment: usize, master: &Self::Flat) -> Self::Weights;

    /// Adds the gradient of `scale` × (sum of all triplets' losses) to the store's gradients. Returns
    /// what the packs scored, in their order. Without packs, the store is asked and given all the same.
    ///
    /// # Errors
    /// [`NotFinite`] names the segment, and the gradients are of no use; or the store's own. An engine
    /// that computes behind its caller's back may say so later, in [`Engine::scores`].
    fn train<S: GradientStore<Self>>(
        &self,
        packs: &[Self::Pack],
        scale: f32,
        store: &mut S,
    ) -> Result<Self::Scored, S::Error>;

    /// Scores packs without gradients.
    ///
    /// # Errors
    /// As [`Engine::train`].
    fn score<S: ParameterStore<Self>>(
        &self,
        packs: &[Self::Pack],
        store: &mut S,
    ) -> Result<Self::Scored, S::Error>;

    /// Waits for what a pass scored: the scores of each pack.
    ///
    /// # Errors
    /// [`NotFinite`] if the pass met a number that is none.
    fn scores(&self, scored: Self::Scored) -> Result<Vec<Scores>, NotFinite>;

    /// `sum[i] += other[i]`: the only addition of gradients there is.
    fn add(&self, sum: &mut Self::Flat, other: &Self::Flat);

    /// Adds up partial sums, given in lane order, by the lanes' tree, as far as siblings are there.
    fn merge(
        &self,
        partials: impl IntoIterator<Item = (Subtree, Self::Flat)>,
    ) -> Partials<Self::Flat> {
        let mut merged = TreeSum::default();
        for (node, vector) in partials {
            merged.push(node, vector, |mut left, right| {
                self.add(&mut left, &right);
                left
            });
        }
        merged.into_partials()
    }

    /// Sum of squares of each [block](polestar_core::tree::BLOCK) of a vector that begins on a block's
    /// edge, as [`norm::block_sums`](crate::norm::block_sums) adds them up.
    fn block_sums(&self, vector: &Self::Flat) -> Vec<f64>;

    /// Hashes of the blocks of some elements that begin on a block's edge.
    fn block_hashes(&self, vector: &Self::Flat, range: Range<usize>) -> Vec<BlockHash> {
        let mut values = vec![0.0; range.len()];
        self.read(vector, range, &mut values);
        block_hashes(&values).collect()
    }

    /// [`checksum`](polestar_core::digest::checksum) of a vector.
    fn checksum(&self, vector: &Self::Flat) -> u64;

    /// One update of a segment, or of a shard of one, in place. Elements don't meet.
    fn adamw(&self, state: &mut SegmentState<Self::Flat>, gradient: &Self::Flat, update: &Update);

    /// The point at which everything that was asked so far is done: a transport waits for it before it
    /// touches a vector.
    fn fence(&self) -> Self::Fence;
}
