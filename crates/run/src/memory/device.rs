//! What a rank takes of an accelerator's memory: all of it before the first step, so that nothing can run out later.
//!
//! Vectors come and go, and one that goes leaves its room to the next of exactly its size. What is needed is, for each size,
//! the most vectors of it that live at once; here they are counted, generously where ranks or phases differ.

use super::{Holding, STRIDED_GRADIENTS, partial_sums};
use crate::{
    BatchRecipe,
    placement::{Reduction, Sharding, Zero},
};
use polestar_core::{
    Objective, Rank, aligned,
    tree::{self, subtrees},
};
use polestar_dataset::SampleConfig;
use polestar_model::{
    ModelLayout,
    activations::{self, PackSize},
};
use std::collections::BTreeMap;

/// Packs that are scored together: sharded weights are gathered once for all of them.
pub const SCORED_TOGETHER: usize = 4;

/// Most bytes of [`DeviceMemory::staging`]. More would make for larger messages where very many ranks add up.
const STAGING: u64 = 128 << 20;

/// Bytes of each part of an accelerator's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// f32 vectors: weights, moments, gradients, and what is being moved.
    pub vectors: u64,
    /// The bf16 weights that passes compute with.
    pub weights: u64,
    /// What passes keep.
    pub activations: u64,
    /// What has come from other ranks and isn't added up yet.
    pub staging: u64,
}

impl DeviceMemory {
    /// All of it, without what the driver takes for itself.
    pub fn total(&self) -> u64 {
        self.vectors + self.weights + self.activations + self.staging
    }
}

/// What decides how much passes keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassTokens {
    /// Most tokens of a packed row: `train.pack_tokens`, or those of a triplet that gets a row of its own.
    pub pack: usize,
    /// Most tokens of a triplet.
    pub triplet: usize,
    /// Triplets of a lane.
    pub lane_triplets: usize,
    /// Packs that are scored together.
    pub scored: usize,
}

impl PassTokens {
    /// Those of trials whose triplets are cut and packed like this.
    pub fn new(samples: &SampleConfig, objective: Objective, batch: &BatchRecipe) -> PassTokens {
        let triplet = samples.longest_triplet(objective);
        PassTokens {
            pack: triplet.max(batch.pack_tokens as usize),
            triplet,
            lane_triplets: (batch.triplets / batch.lanes.max(1)) as usize,
            scored: SCORED_TOGETHER,
        }
    }
}

/// What this rank takes, and no more, at any time.
pub fn device_memory(
    layout: &ModelLayout,
    holding: &Holding,
    rank: Rank,
    tokens: &PassTokens,
) -> DeviceMemory {
    let place = Sharding {
        zero: holding.zero,
        world: holding.world,
        rank,
    };
    DeviceMemory {
        vectors: vectors(layout, holding, &place) as u64,
        weights: weights(layout, holding) as u64,
        activations: activations(layout, holding, &place, tokens) as u64,
        staging: staging(layout, holding),
    }
}

/// The same on every rank, since sums are cut into pieces by it.
fn staging(layout: &ModelLayout, holding: &Holding) -> u64 {
    if holding.world.0 == 1 {
        return 0;
    }
    let largest = layout.segments.iter().map(|s| s.elements).max();
    // Whatever is in it, a sum of one partial sum a rank comes at once.
    let bytes = (8 * largest.unwrap_or(0) as u64).clamp(1 << 20, STAGING);
    aligned(bytes as usize) as u64
}

/// How many vectors of each size live at once.
#[derive(Default)]
struct Sizes(BTreeMap<usize, usize>);

impl Sizes {
    fn add(&mut self, elements: usize, count: usize) {
        if elements > 0 {
            *self.0.entry(aligned(4 * elements)).or_default() += count;
        }
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|(bytes, count)| bytes * count).sum()
    }
}

fn vectors(layout: &ModelLayout, holding: &Holding, place: &Sharding) -> usize {
    let alone = holding.world.0 == 1;
    let sharded = holding.zero != Zero::None;
    let mut sizes = Sizes::default();
    let mut distinct: Vec<usize> = layout.segments.iter().map(|s| s.elements).collect();
    let (whole, shards) = gradients(holding, place);
    for &elements in &distinct {
        let own = place.owned(elements).len();
        sizes.add(place.updated(elements).len(), 3);
        // Of the gradient; of the weights, while they are gathered.
        sizes.add(elements, whole);
        sizes.add(own, shards);
        if sharded {
            sizes.add(own, 1);
        } else if !alone {
            // The state as it is read, before every rank has all of it.
            sizes.add(own, 3);
        }
        if holding.copies && sharded && !alone {
            // Whose shard it is depends on hosts: the longest. Its state, and its gradient.
            let longest = (0..holding.world.0)
                .map(|rank| tree::shard(elements, holding.world, Rank(rank)).len());
            sizes.add(longest.max().unwrap_or(0), 4);
        }
    }
    distinct.sort_unstable();
    distinct.dedup();
    for &elements in &distinct {
        // Weights that were gathered, until they are rounded, and the next ones.
        sizes.add(elements, 2);
        if place.is_strided() {
            sizes.add(elements, STRIDED_GRADIENTS);
            // Sums as they come in, before they are merged with those of the rounds before.
            sizes.add(
                place.owned(elements).len(),
                STRIDED_GRADIENTS * round_sums(holding),
            );
        }
        if holding.copies && !alone {
            // A step that was kept in memory is caught up with piece by piece: each at most half a segment.
            sizes.add(elements, 2);
        }
    }
    sizes.bytes()
}

/// For each segment: whole gradients that live from pass to pass, and shards of sums.
fn gradients(holding: &Holding, place: &Sharding) -> (usize, usize) {
    let Holding { lanes, world, .. } = *holding;
    if place.is_strided() {
        let rounds = lanes.div_ceil(world.0);
        let shards = match holding.reduction {
            Reduction::Fast => 1,
            Reduction::Canonical => (0..rounds)
                .map(|round| subtrees(0..round * world.0, lanes).len())
                .max()
                .unwrap_or(1),
        };
        return (0, shards.max(1) + 1);
    }
    let whole = match holding.reduction {
        Reduction::Fast => 1,
        Reduction::Canonical => partial_sums(tree::hosted(lanes, world, place.rank), lanes),
    };
    match world.0 {
        1 => (whole, 0),
        _ => (whole, 2),
    }
}

/// Sums that are left of one round of strided lanes.
fn round_sums(holding: &Holding) -> usize {
    let Holding { lanes, world, .. } = *holding;
    let rounds = 0..lanes.div_ceil(world.0);
    rounds
        .map(|round| subtrees(round * world.0..lanes.min((round + 1) * world.0), lanes).len())
        .max()
        .unwrap_or(1)
}

fn weights(layout: &ModelLayout, holding: &Holding) -> usize {
    let mut segments: Vec<usize> = layout
        .segments
        .iter()
        .map(activations::weights_bytes)
        .collect();
    if holding.zero == Zero::Weights && holding.recompute {
        // The one in use, and the one before it while they are exchanged.
        segments.sort_unstable();
        segments.dedup();
        return 2 * segments.iter().sum::<usize>();
    }
    segments.iter().sum()
}

fn activations(
    layout: &ModelLayout,
    holding: &Holding,
    place: &Sharding,
    tokens: &PassTokens,
) -> usize {
    let (config, head) = (&layout.config, layout.head());
    let pack = PackSize::largest(tokens.pack, head);
    let together = match place.is_strided() {
        // All packs of a lane go through a segment together, so that its gradient is sent off once.
        true => (tokens.lane_triplets * tokens.triplet)
            .div_ceil(tokens.pack)
            .max(1),
        false => 1,
    };
    let training = vec![pack; together];
    let training = activations::training_bytes(config, head, &training, holding.recompute);
    // A lane may be cut into more, and shorter, packs: of each block's few buffers, a rounding each.
    let packs = if place.is_strided() {
        tokens.lane_triplets
    } else {
        1
    };
    let buffers = 16 + 8 * config.num_hidden_layers as usize;
    // And a shorter pack's norm may be cut into more parts.
    let partials = aligned(264 * 4 * config.hidden_size as usize);
    let training = training + packs * buffers * aligned(1) + partials;
    let scoring = vec![pack; tokens.scored];
    let scoring = activations::scoring_bytes(config, head, &scoring);
    let blocks = |elements: usize| aligned(8 * elements.div_ceil(tree::BLOCK));
    let sums = layout.segments.iter().map(|s| blocks(s.elements)).max();
    training.max(scoring).max(sums.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_core::WorldSize;
    use polestar_model::{HeadKind, Preset};

    #[test]
    fn a_7b_model_is_divided_until_it_fits() {
        let layout = ModelLayout::new(&Preset::Polar7B.config(0), HeadKind::Reward);
        let tokens = PassTokens {
            pack: 16_384,
            triplet: 14_400,
            lane_triplets: 4,
            scored: 1,
        };
        let total = |zero, world| {
            let holding = Holding {
                zero,
                world: WorldSize(world),
                lanes: 64,
                reduction: Reduction::Canonical,
                recompute: true,
                copies: false,
            };
            device_memory(&layout, &holding, Rank(0), &tokens).total() as f64 / 1e9
        };
        let (alone, many) = (total(Zero::None, 1), total(Zero::Weights, 64));
        assert!(alone > 140.0 && many < 60.0, "{alone} {many}");
    }
}
