//! The canonical sum over lanes: one binary tree, whoever hosts its leaves.
//!
//! Floating-point addition isn't associative, so the order of a sum is part of its result. Ours is
//! fixed by the lanes alone: `T(a, b) = T(a, m) + T(m, b)` over `0..lanes`, `m` the middle.
//! ```text
//!               T(0,8)
//!         T(0,4)      T(4,8)            3 ranks, 8 lanes:
//!      T(0,2) T(2,4) T(4,6) T(6,8)      rank 0: lanes 0 1    sends T(0,2)
//!      0   1  2   3  4   5  6   7       rank 1: lanes 2 3 4  sends T(2,4), lane 4
//!                                       rank 2: lanes 5 6 7  sends lane 5, T(6,8)
//! ```
//! A rank adds up the aligned subtrees inside its lanes and no more; whoever merges the partial
//! sums does so in lane order with the same accumulator. Every addition of the tree then happens
//! exactly once, with the same two operands, in every world size.

use crate::{Lane, Rank, WorldSize};
use std::ops::Range;

/// The contiguous lanes that a rank hosts. Sizes differ by at most one.
pub fn hosted(lanes: u32, world: WorldSize, rank: Rank) -> Range<u32> {
    let cut = |r: u32| (u64::from(lanes) * u64::from(r) / u64::from(world.0)) as u32;
    cut(rank.0)..cut(rank.0 + 1)
}

/// A complete aligned subtree: lanes `first .. first + 2^level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// First lane.
    pub first: u32,
    /// Height.
    pub level: u32,
}

impl Node {
    /// The node of one lane.
    pub fn leaf(lane: Lane) -> Node {
        Node {
            first: lane.0,
            level: 0,
        }
    }

    /// The parent, if `self` is a left child and `right` is its sibling.
    fn join(self, right: Node) -> Option<Node> {
        let width = 1 << self.level;
        let siblings = self.level == right.level
            && right.first == self.first + width
            && self.first.is_multiple_of(2 * width);
        siblings.then_some(Node {
            first: self.first,
            level: self.level + 1,
        })
    }
}

/// The subtrees that remain when the lanes of `range` have been added up, in lane order.
pub fn subtrees(range: Range<u32>) -> Vec<Node> {
    let mut counter = Counter::default();
    for lane in range {
        counter.push(Node::leaf(Lane(lane)), (), |(), ()| ());
    }
    counter.nodes().collect()
}

/// A binary counter of partial sums: pushed in lane order, siblings merge as soon as both exist.
#[derive(Debug)]
pub struct Counter<T> {
    partials: Vec<(Node, T)>,
}

impl<T> Default for Counter<T> {
    fn default() -> Self {
        Counter {
            partials: Vec::new(),
        }
    }
}

impl<T> Counter<T> {
    /// Adds the next partial sum; `add(left, right)` is called for each pair of siblings.
    pub fn push(&mut self, node: Node, value: T, mut add: impl FnMut(T, T) -> T) {
        let (mut node, mut value) = (node, value);
        while let Some(parent) = self.partials.last().and_then(|(left, _)| left.join(node)) {
            let Some((_, left)) = self.partials.pop() else {
                break;
            };
            value = add(left, value);
            node = parent;
        }
        self.partials.push((node, value));
    }

    /// The subtrees held, in lane order.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + '_ {
        self.partials.iter().map(|(node, _)| *node)
    }

    /// The partial sums held, in lane order.
    pub fn into_partials(self) -> Vec<(Node, T)> {
        self.partials
    }

    /// The root's sum, once all lanes were pushed.
    pub fn into_root(mut self) -> Option<T> {
        let (_, value) = self.partials.pop()?;
        self.partials.is_empty().then_some(value)
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

    fn tree(v: &[f32]) -> f32 {
        match v {
            [x] => *x,
            _ => tree(&v[..v.len() / 2]) + tree(&v[v.len() / 2..]),
        }
    }

    #[test]
    fn every_world_size_adds_the_same_tree() {
        for lanes in [1, 2, 8, 32] {
            let values = values(lanes);
            let expected = tree(&values);
            for world in 1..=lanes {
                let world = WorldSize(world);
                let mut merged = Counter::default();
                for rank in 0..world.0 {
                    let range = hosted(lanes, world, Rank(rank));
                    let mut local = Counter::default();
                    for lane in range.clone() {
                        local.push(Node::leaf(Lane(lane)), values[lane as usize], |a, b| a + b);
                    }
                    let nodes: Vec<Node> = local.nodes().collect();
                    assert_eq!(nodes, subtrees(range), "receivers know what is sent");
                    for (node, value) in local.into_partials() {
                        merged.push(node, value, |a, b| a + b);
                    }
                }
                let root = merged.into_root().expect("all lanes were pushed");
                assert_eq!(root.to_bits(), expected.to_bits(), "{lanes} lanes, {world}");
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
