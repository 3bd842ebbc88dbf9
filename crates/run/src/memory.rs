//! What a rank holds of a model in training, in bytes: a formula, printed by `plan` and measured by
//! the benchmark `memory`.
//!
//! Activations are not in it: they depend on the tokens of a pack and not on the ranks. Nor is what
//! the program needs anyway (code, corpus, tokenizer).

mod device;

pub use device::{DeviceMemory, PassTokens, SCORED_TOGETHER, device_memory};

use crate::placement::{Reduction, Sharding, Zero};
use polestar_core::{
    Rank, WorldSize,
    tree::{self, subtrees},
};
use polestar_model::ModelLayout;

/// What decides how much of a model a rank holds.
#[derive(Clone, Copy, Debug)]
pub struct Holding {
    /// What is sharded.
    pub zero: Zero,
    /// How many ranks share it.
    pub world: WorldSize,
    /// Lanes of a batch.
    pub lanes: u32,
    /// How they are added up.
    pub reduction: Reduction,
    /// Whether blocks are computed again in the backward pass.
    pub recompute: bool,
    /// Whether each rank keeps a copy of another one's shard, if there are shards.
    pub copies: bool,
}

/// Bytes on the rank that holds most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Weights that the optimizer updates, f32.
    pub masters: u64,
    /// Both moments, f32.
    pub moments: u64,
    /// Weights that passes compute with.
    pub compute: u64,
    /// Gradients: partial sums of lanes, and what is being reduced.
    pub gradients: u64,
    /// The copy of another rank's weights and moments, f32, and the gradient that keeps it up to date.
    pub copies: u64,
    /// From the first save on: the copy of weights and moments that is stored behind the steps, f32.
    pub saving: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.step() + self.saving
    }

    /// What a run that saves nothing holds.
    pub fn step(&self) -> u64 {
        self.masters + self.moments + self.compute + self.gradients + self.copies
    }
}

/// Reductions that may be in flight besides the gradient being computed, if lanes are strided.
const STRIDED_GRADIENTS: usize = 3;

/// The most that a rank holds at any time of a step.
pub fn memory(layout: &ModelLayout, holding: Holding) -> Memory {
    let segments: Vec<usize> = layout.segments.iter().map(|s| s.elements).collect();
    let all: usize = segments.iter().sum();
    let largest = segments.iter().copied().max().unwrap_or(0);
    let ranks = (0..holding.world.0).map(Rank);
    let place = |rank| Sharding {
        zero: holding.zero,
        world: holding.world,
        rank,
    };
    let most = |part: &dyn Fn(&Sharding, usize) -> usize| {
        let of_rank = |rank| {
            segments
                .iter()
                .map(|&s| part(&place(rank), s))
                .sum::<usize>()
        };
        ranks.clone().map(of_rank).max().unwrap_or(0)
    };
    let updated = most(&|place, elements| place.updated(elements).len());
    let shard = most(&|place, elements| place.owned(elements).len());
    let saved = most(&|place, elements| tree::shard(elements, place.world, place.rank).len());

    let alone = holding.world.0 == 1;
    let compute = match holding.zero {
        Zero::None => all,
        // A gathered segment lies there twice while it is put on the device.
        Zero::Optimizer | Zero::Gradient => all + largest,
        Zero::Weights if !holding.recompute => all + largest,
        // The one in use, and its neighbour on the way.
        Zero::Weights => segments
            .windows(2)
            .map(|pair| pair[0] + pair[1] + pair[0].max(pair[1]))
            .max()
            .unwrap_or(largest),
    };
    let gradients = if place(Rank(0)).is_strided() {
        let rounds = holding.lanes.div_ceil(holding.world.0);
        // Sums of the rounds before; what a round adds is merged segment by segment.
        let partials = match holding.reduction {
            Reduction::Fast => 1,
            Reduction::Canonical => (0..rounds)
                .map(|round| subtrees(0..round * holding.world.0, holding.lanes).len())
                .max()
                .unwrap_or(1),
        };
        let shards = match holding.zero {
            Zero::Weights => partials.max(1),
            // Measured: vectors of gathered segments and the tensors made of them differ in size, and leave gaps
            // in the heap of about a shard in all.
            _ => partials + 1,
        };
        shards * shard + STRIDED_GRADIENTS * largest
    } else {
        let vectors = match holding.reduction {
            Reduction::Fast => 1,
            Reduction::Canonical => ranks
                .map(|rank| {
                    let hosted = tree::hosted(holding.lanes, holding.world, rank);
                    partial_sums(hosted, holding.lanes)
                })
                .max()
                .unwrap_or(1),
        };
        let reducing = if alone { all } else { all + shard };
        (vectors * all).max(reducing) + largest
    };
    let copied = if holding.copies && !alone && holding.zero != Zero::None {
        4 * shard
    } else {
        0
    };
    let bytes = |elements: usize| 4 * elements as u64;
    Memory {
        masters: bytes(updated),
        moments: bytes(2 * updated),
        compute: bytes(compute),
        gradients: bytes(gradients),
        copies: bytes(copied),
        saving: bytes(3 * saved),
    }
}

/// Vectors that exist at once while contiguous lanes are added up: finished subtrees and the lane
/// that runs.
fn partial_sums(hosted: std::ops::Range<u32>, lanes: u32) -> usize {
    let before = |lane| subtrees(hosted.start..lane, lanes).len();
    hosted
        .clone()
        .map(|lane| before(lane) + 1)
        .max()
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_model::{HeadKind, Preset};

    #[test]
    fn each_stage_holds_less_than_the_one_before() {
        let layout = ModelLayout::new(&Preset::Polar116M.config(0), HeadKind::Reward);
        let total = |zero, copies| {
            let holding = Holding {
                zero,
                world: WorldSize(8),
                lanes: 32,
                reduction: Reduction::Canonical,
                recompute: true,
                copies,
            };
            memory(&layout, holding).step()
        };
        let stages = [Zero::None, Zero::Optimizer, Zero::Gradient, Zero::Weights];
        let totals = stages.map(|zero| total(zero, false));
        let [whole, sharded] =
            [Zero::None, Zero::Weights].map(|zero| total(zero, true) - total(zero, false));
        // A replica needs no copy; one of a shard is its state and its gradient.
        assert_eq!(whole, 0);
        let least = 16 * layout.elements() as u64 / 8;
        assert!(
            (least..least + least / 10).contains(&sharded),
            "{sharded} {least}"
        );
        assert!(totals.is_sorted_by(|a, b| a > b), "{totals:?}");
        // Four lanes a rank: weights twice, moments, two partial sums and the lane that runs.
        let elements = layout.elements() as u64;
        let largest = layout
            .segments
            .iter()
            .map(|s| s.elements)
            .max()
            .unwrap_or(0) as u64;
        assert_eq!(totals[0], 4 * (7 * elements + largest));
    }
}
