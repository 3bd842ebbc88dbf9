//! The canonical sum over lanes: one binary tree, whichever ranks host its leaves.
//!
//! Floating-point addition isn't associative, so the order of a sum is part of its result. Ours is
//! fixed by the number of lanes alone: `T(a, b) = T(a, m) + T(m, b)` over `0..lanes`, where `m - a`
//! is the largest power of two below `b - a`.
//! ```text
//!               T(0,8)
//!         T(0,4)      T(4,8)            3 ranks, 8 lanes:
//!      T(0,2) T(2,4) T(4,6) T(6,8)      rank 0: lanes 0 1    sends T(0,2)
//!      0   1  2   3  4   5  6   7       rank 1: lanes 2 3 4  sends T(2,4), lane 4
//!                                       rank 2: lanes 5 6 7  sends lane 5, T(6,8)
//!
//!               T(0,7)
//!         T(0,4)      T(4,7)            7 lanes: the same tree without its last leaf. A node whose
//!      T(0,2) T(2,4) T(4,6) 6           right child lies beyond the last lane is its left child.
//!      0   1  2   3  4   5
//! ```
//! A rank adds up the subtrees inside its lanes and no more; a rank that merges partial sums does so
//! in lane order with the same accumulator. Every addition of the tree then happens exactly once,
//! with the same two operands, in every world size.

use crate::{Lane, Rank, WorldSize};
use std::ops::Range;

/// The contiguous lanes that a rank hosts. Sizes differ by at most one.
pub fn hosted(lanes: u32, world: WorldSize, rank: Rank) -> Range<u32> {
    let cut = |r: u32| (u64::from(lanes) * u64::from(r) / u64::from(world.0)) as u32;
    cut(rank.0)..cut(rank.0 + 1)
}

/// A node of the tree over `0..lanes`: all lanes of `first .. first + 2^level` that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// First lane, a multiple of `2^level`.
    pub first: u32,
    /// Height in the tree over the next power of two of lanes.
    pub level: u32,
    /// Lanes of the whole tree.
    lanes: u32,
}

impl Subtree {
    /// The node of one lane of a tree over `lanes` of them.
    pub fn leaf(lane: Lane, lanes: u32) -> Subtree {
        debug_assert!(lane.0 < lanes, "{lane} of {lanes}");
        let leaf = Subtree {
            first: lane.0,
            level: 0,
            lanes,
        };
        leaf.raised()
    }

    /// The lanes whose sum it is.
    pub fn range(&self) -> Range<u32> {
        let end = u64::from(self.first) + self.width();
        self.first..end.min(u64::from(self.lanes)) as u32
    }

    /// Whether it is the sum of all lanes.
    pub fn is_root(&self) -> bool {
        self.first == 0 && self.width() >= u64::from(self.lanes)
    }

    fn width(&self) -> u64 {
        1 << self.level
    }

    fn is_left_child(&self) -> bool {
        !self.is_root() && u64::from(self.first).is_multiple_of(2 * self.width())
    }

    /// The highest node that is the same sum: a left child without a sibling is its parent.
    fn raised(mut self) -> Subtree {
        let lanes = u64::from(self.lanes);
        while self.is_left_child() && u64::from(self.first) + self.width() >= lanes {
            self.level += 1;
        }
        self
    }

    /// The parent, if `self` is a left child and `right` is its sibling.
    fn join(self, right: Subtree) -> Option<Subtree> {
        let siblings = self.level == right.level
            && self.is_left_child()
            && u64::from(right.first) == u64::from(self.first) + self.width();
        let parent = Subtree {
            level: self.level + 1,
            ..self
        };
        siblings.then(|| parent.raised())
    }
}

/// The subtrees that remain when the lanes of `range` have been added up, in lane order, in a tree
/// over `lanes` lanes.
pub fn subtrees(range: Range<u32>, lanes: u32) -> Vec<Subtree> {
    let mut sum = TreeSum::default();
    for lane in range {
        sum.push(Subtree::leaf(Lane(lane), lanes), (), |(), ()| ());
    }
    sum.nodes().collect()
}

/// A sum by the tree, as far as it has come: pushed in lane order, siblings merge as soon as both
/// exist.
#[derive(Debug)]
pub struct TreeSum<T> {
    partials: Vec<(Subtree, T)>,
}

impl<T> Default for TreeSum<T> {
    fn default() -> Self {
        TreeSum {
            partials: Vec::new(),
        }
    }
}

impl<T> TreeSum<T> {
    /// Adds the next partial sum; `add(left, right)` is called for each pair of siblings.
    pub fn push(&mut self, node: Subtree, value: T, mut add: impl FnMut(T, T) -> T) {
        let (mut node, mut value) = (node, value);
        while let Some((left, sum)) = self.partials.pop() {
            let Some(parent) = left.join(node) else {
                self.partials.push((left, sum));
                break;
            };
            value = add(sum, value);
            node = parent;
        }
        self.partials.push((node, value));
    }

    /// The subtrees held, in lane order.
    pub fn nodes(&self) -> impl Iterator<Item = Subtree> + '_ {
        self.partials.iter().map(|(node, _)| *node)
    }

    /// The partial sums held, in lane order.
    pub fn into_partials(self) -> Vec<(Subtree, T)> {
        self.partials
    }

    /// The sum of all lanes, once all were pushed.
    pub fn into_root(mut self) -> Option<T> {
        let (node, value) = self.partials.pop()?;
        node.is_root().then_some(value)
    }
}

/// `left[i] += right[i]`: the only addition of gradients there is.
pub fn add_into(left: &mut [f32], right: &[f32]) {
    for (l, r) in left.iter_mut().zip(right) {
        *l += r;
    }
}

/// Sum by halves, the left half being the larger power of two.
pub fn tree_sum(values: &[f64]) -> f64 {
    match values {
        [] => 0.0,
        [x] => *x,
        _ => {
            let half = values.len().next_power_of_two() / 2;
            tree_sum(&values[..half]) + tree_sum(&values[half..])
        }
    }
}

/// Elements in a block: shard edges, norms and optimizer work fall on its multiples.
pub const BLOCK: usize = 4096;

/// The elements of the canonical vector that a rank owns: whole blocks, as even as they go.
pub fn shard(elements: usize, world: WorldSize, rank: Rank) -> Range<usize> {
    let blocks = elements.div_ceil(BLOCK) as u64;
    let cut = |r: u32| {
        let block = blocks * u64::from(r) / u64::from(world.0);
        (block as usize * BLOCK).min(elements)
    };
    cut(rank.0)..cut(rank.0 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lane values whose sum depends on the order of addition.
    fn values(lanes: u32) -> Vec<f32> {
        (0..lanes)
            .map(|l| 1.0e-3 * 1.7_f32.powi(l as i32 % 23) * if l % 3 == 0 { -1.0 } else { 1.0 })
            .collect()
    }

    /// The definition: halves, the left one the largest power of two below the whole.
    fn tree(v: &[f32]) -> f32 {
        match v {
            [x] => *x,
            _ => {
                let (left, right) = v.split_at(v.len().next_power_of_two() / 2);
                tree(left) + tree(right)
            }
        }
    }

    /// The partial sums of a rank that hosts these lanes, one after the other.
    fn partials(hosted: Range<u32>, values: &[f32]) -> Vec<(Subtree, f32)> {
        let lanes = values.len() as u32;
        let mut local = TreeSum::default();
        for lane in hosted.clone() {
            let leaf = Subtree::leaf(Lane(lane), lanes);
            local.push(leaf, values[lane as usize], |a, b| a + b);
        }
        let nodes: Vec<Subtree> = local.nodes().collect();
        assert_eq!(
            nodes,
            subtrees(hosted.clone(), lanes),
            "receivers know what is sent"
        );
        let covered = nodes.iter().flat_map(Subtree::range);
        assert!(covered.eq(hosted), "each lane once");
        local.into_partials()
    }

    #[test]
    fn every_world_size_adds_the_same_tree() {
        for lanes in (1..=40).chain([320, 321]) {
            let values = values(lanes);
            let expected = tree(&values);
            // Every world; of the many of a large tree some.
            for world in (1..=lanes).step_by(1 + lanes as usize / 41) {
                let ranks = (0..world).map(Rank);
                let contiguous = ranks.map(|rank| hosted(lanes, WorldSize(world), rank));
                // Dealt in turn: a round of lanes is merged before the next one is there.
                let rounds = (0..lanes)
                    .step_by(world as usize)
                    .map(|first| first..lanes.min(first + world));
                let ways = [contiguous.collect::<Vec<_>>(), rounds.collect()];
                for way in ways {
                    let mut merged = TreeSum::default();
                    for (node, value) in way.iter().cloned().flat_map(|r| partials(r, &values)) {
                        merged.push(node, value, |a, b| a + b);
                    }
                    let root = merged.into_root().expect("all lanes were pushed");
                    assert_eq!(root.to_bits(), expected.to_bits(), "{lanes} lanes, {way:?}");
                }
            }
        }
        let sequential: f32 = values(32).iter().sum();
        assert_ne!(
            sequential.to_bits(),
            tree(&values(32)).to_bits(),
            "the values would show another order"
        );
    }

    #[test]
    fn a_power_of_two_of_lanes_is_halved() {
        fn halves(v: &[f32]) -> f32 {
            match v {
                [x] => *x,
                _ => halves(&v[..v.len() / 2]) + halves(&v[v.len() / 2..]),
            }
        }
        for lanes in [1, 2, 4, 8, 16, 32, 64] {
            let values = values(lanes);
            assert_eq!(tree(&values).to_bits(), halves(&values).to_bits());
            let complete = |node: &Subtree| node.range().len() == 1 << node.level;
            assert!(subtrees(0..lanes - 1, lanes).iter().all(complete));
        }
    }

    #[test]
    fn shards_cover_the_vector_on_block_edges() {
        for elements in [1, BLOCK, 3 * BLOCK + 17, 50 * BLOCK] {
            for world in 1..=7 {
                let mut end = 0;
                for rank in 0..world {
                    let range = shard(elements, WorldSize(world), Rank(rank));
                    assert_eq!(range.start, end);
                    assert!(range.end == elements || range.end.is_multiple_of(BLOCK));
                    end = range.end;
                }
                assert_eq!(end, elements);
            }
        }
    }
}
