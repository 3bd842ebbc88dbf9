//! Who holds what: lanes and parts of the state on the ranks of a world.
//!
//! | stage | weights | gradient | moments | lanes of a rank |
//! |---|---|---|---|---|
//! | 0 | whole | whole | whole | contiguous |
//! | 1 | whole | whole until it is reduced | shard | contiguous |
//! | 2 | whole | one segment at a time, then shard | shard | strided |
//! | 3 | one segment at a time, and shard | likewise | shard | strided |
//!
//! The stages are those of ZeRO (Rajbhandari et al., 2020). Every segment is sharded by itself, in
//! whole [blocks](BLOCK), so that each rank owns an equal part of each segment and gathering one
//! loads all links alike.

use polestar_core::{
    Lane, Rank, WorldSize,
    tree::{self, BLOCK, Subtree},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range};

/// What is sharded over the ranks of a trial: memory, never bits.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "u8", into = "u8")]
pub enum Zero {
    /// Nothing: every rank holds everything.
    #[default]
    None,
    /// The optimizer's moments and the weights that it updates.
    Optimizer,
    /// And the gradient.
    Gradient,
    /// And the weights that the model is computed with.
    Weights,
}

impl TryFrom<u8> for Zero {
    type Error = String;

    fn try_from(stage: u8) -> Result<Zero, String> {
        match stage {
            0 => Ok(Zero::None),
            1 => Ok(Zero::Optimizer),
            2 => Ok(Zero::Gradient),
            3 => Ok(Zero::Weights),
            _ => Err(format!("zero is {stage}; the stages are 0, 1, 2 and 3")),
        }
    }
}

impl From<Zero> for u8 {
    fn from(stage: Zero) -> u8 {
        stage as u8
    }
}

impl fmt::Display for Zero {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ZeRO {}", *self as u8)
    }
}

/// In which order lanes' gradients are added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// By the tree over lanes: the same bits for every world size and stage.
    #[default]
    Canonical,
    /// As it comes: fewer buffers, and fewer bytes where ranks host more than one subtree. The
    /// weights then depend on the world size and the stage.
    Fast,
}

/// One rank's place in a trial's world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharding {
    /// What is sharded.
    pub zero: Zero,
    /// Ranks.
    pub world: WorldSize,
    /// This one.
    pub rank: Rank,
}

impl Sharding {
    /// Whether lanes are dealt out in turn, and reduced as soon as each rank has done one.
    pub fn is_strided(&self) -> bool {
        self.zero >= Zero::Gradient
    }

    /// The lanes that this rank hosts, in the order in which it runs them.
    pub fn lanes(&self, lanes: u32) -> Vec<Lane> {
        if self.is_strided() {
            let mine = (self.rank.0..lanes).step_by(self.world.0 as usize);
            mine.map(Lane).collect()
        } else {
            let mine = tree::hosted(lanes, self.world, self.rank);
            mine.map(Lane).collect()
        }
    }

    /// How often gradients are reduced in a step.
    pub fn reductions(&self, lanes: u32) -> u32 {
        if self.is_strided() {
            lanes.div_ceil(self.world.0)
        } else {
            1
        }
    }

    /// The partial sums that exist at reduction number `round` of a step, in lane order, and who
    /// holds them.
    pub fn partials(&self, lanes: u32, reduction: Reduction, round: u32) -> Vec<(Rank, Subtree)> {
        let ranks = (0..self.world.0).map(Rank);
        if self.is_strided() {
            let lane = |rank: Rank| Lane(round * self.world.0 + rank.0);
            return ranks
                .filter(|&rank| lane(rank).0 < lanes)
                .map(|rank| (rank, Subtree::leaf(lane(rank), lanes)))
                .collect();
        }
        match reduction {
            // What a rank has added up, in whatever order, is a leaf of a tree over ranks.
            Reduction::Fast => ranks
                .map(|rank| (rank, Subtree::leaf(Lane(rank.0), self.world.0)))
                .collect(),
            Reduction::Canonical => ranks
                .flat_map(|rank| {
                    let nodes = tree::subtrees(tree::hosted(lanes, self.world, rank), lanes);
                    nodes.into_iter().map(move |node| (rank, node))
                })
                .collect(),
        }
    }

    /// The elements of a segment that each rank owns.
    pub fn shards(&self, elements: usize) -> Vec<Range<usize>> {
        (0..self.world.0)
            .map(|rank| tree::shard(elements, self.world, Rank(rank)))
            .collect()
    }

    /// The elements of a segment that this rank owns.
    pub fn owned(&self, elements: usize) -> Range<usize> {
        tree::shard(elements, self.world, self.rank)
    }

    /// The elements of a segment whose weights and moments this rank updates.
    pub fn updated(&self, elements: usize) -> Range<usize> {
        match self.zero {
            Zero::None => 0..elements,
            _ => self.owned(elements),
        }
    }

    /// Number of [blocks](BLOCK) of a segment that a rank owns.
    pub fn blocks(&self, elements: usize, rank: Rank) -> usize {
        tree::shard(elements, self.world, rank)
            .len()
            .div_ceil(BLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_core::tree::TreeSum;

    fn place(zero: Zero, world: u32, rank: u32) -> Sharding {
        Sharding {
            zero,
            world: WorldSize(world),
            rank: Rank(rank),
        }
    }

    /// Whose sum depends on the order of addition.
    fn value(lane: u32) -> f32 {
        1.0e-3 * 1.7_f32.powi(lane as i32 % 23) * if lane.is_multiple_of(3) { -1.0 } else { 1.0 }
    }

    #[test]
    fn every_lane_has_one_host_and_every_world_one_sum() {
        for lanes in 1..=40 {
            let mut sums = Vec::new();
            for zero in [Zero::None, Zero::Weights] {
                for world in 1..=lanes {
                    let hosts = (0..world).flat_map(|r| place(zero, world, r).lanes(lanes));
                    let mut hosted: Vec<Lane> = hosts.collect();
                    hosted.sort();
                    assert_eq!(hosted, (0..lanes).map(Lane).collect::<Vec<_>>());

                    let mut merged = TreeSum::default();
                    let any = place(zero, world, 0);
                    for round in 0..any.reductions(lanes) {
                        for (rank, node) in any.partials(lanes, Reduction::Canonical, round) {
                            let mut local = TreeSum::default();
                            for lane in node.range() {
                                let hosted = place(zero, world, rank.0).lanes(lanes);
                                assert!(hosted.contains(&Lane(lane)), "{rank} has no {lane}");
                                let leaf = Subtree::leaf(Lane(lane), lanes);
                                local.push(leaf, value(lane), |a, b| a + b);
                            }
                            for (found, sum) in local.into_partials() {
                                assert_eq!(found, node, "one partial sum");
                                merged.push(node, sum, |a, b| a + b);
                            }
                        }
                    }
                    let root = merged.into_root().expect("the partial sums are all lanes");
                    sums.push(root.to_bits());
                }
            }
            sums.dedup();
            assert_eq!(sums.len(), 1, "{lanes} lanes have one sum");
        }
    }

    #[test]
    fn a_fast_sum_has_one_root_in_every_world() {
        for world in 1..=40 {
            let mut merged = TreeSum::default();
            for (_, node) in place(Zero::None, world, 0).partials(64, Reduction::Fast, 0) {
                merged.push(node, (), |(), ()| ());
            }
            assert!(merged.into_root().is_some(), "{world} ranks");
        }
    }
}
