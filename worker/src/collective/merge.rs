//! Merging partial sums chunk by chunk, while they are in the cache.

use polestar_core::{
    Rank,
    tree::{Subtree, TreeSum, add_into},
};

/// Elements that are merged at a time: a few of these fit into the fastest caches.
pub(super) const CHUNK: usize = 16 * 1024;

type Sums = Vec<(Subtree, Vec<f32>)>;

/// What is left when siblings have been merged.
fn merged_nodes(partials: &[(Rank, Subtree)]) -> TreeSum<()> {
    let mut nodes = TreeSum::default();
    for (_, node) in partials {
        nodes.push(*node, (), |(), ()| ());
    }
    nodes
}

/// The subtrees that are left of these partial sums when siblings have been merged, in lane order.
pub(super) fn left_over(partials: &[(Rank, Subtree)]) -> Vec<Subtree> {
    merged_nodes(partials).nodes().collect()
}

/// The one subtree that is left if each rank has one of the partial sums and nothing but their sum
/// remains: then a vector can be reduced where it is.
pub(super) fn one_root(partials: &[(Rank, Subtree)]) -> Option<Subtree> {
    let mut holders: Vec<Rank> = partials.iter().map(|(rank, _)| *rank).collect();
    holders.sort_unstable();
    holders.dedup();
    match left_over(partials)[..] {
        [root] if holders.len() == partials.len() => Some(root),
        _ => None,
    }
}

/// Adds up partial sums, `values(i)` being those of number `i`, in buffers from `spare`.
fn merge<'b>(
    partials: &[(Rank, Subtree)],
    spare: &mut Vec<Vec<f32>>,
    values: impl Fn(usize) -> &'b [f32],
) -> Sums {
    let mut merged: TreeSum<Vec<f32>> = TreeSum::default();
    for (i, (_, node)) in partials.iter().enumerate() {
        let mut buffer = spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(values(i));
        merged.push(*node, buffer, |mut left, right| {
            add_into(&mut left, &right);
            spare.push(right);
            left
        });
    }
    merged.into_partials()
}

/// Merges chunk after chunk of all partial sums.
pub(super) struct Merge<'a> {
    partials: &'a [(Rank, Subtree)],
    /// Which of its holder's partial sums each is.
    index: Vec<usize>,
    sums: Sums,
    /// Buffers that no partial sum needs at the moment.
    spare: Vec<Vec<f32>>,
}

impl<'a> Merge<'a> {
    /// A merge whose sums have room for `elements` each.
    pub(super) fn new(partials: &'a [(Rank, Subtree)], elements: usize) -> Merge<'a> {
        let mut index = Vec::with_capacity(partials.len());
        for (i, (rank, _)) in partials.iter().enumerate() {
            index.push(partials[..i].iter().filter(|(r, _)| r == rank).count());
        }
        let sum = |node| (node, Vec::with_capacity(elements));
        Merge {
            partials,
            index,
            sums: merged_nodes(partials).nodes().map(sum).collect(),
            spare: Vec::new(),
        }
    }

    /// Merges one chunk: `of(rank, i)` are the values of the rank's partial sum number `i`.
    pub(super) fn chunk<'b>(&mut self, length: usize, of: impl Fn(usize, usize) -> &'b [f32]) {
        let values = |i: usize| of(self.partials[i].0.0 as usize, self.index[i]);
        if let ([_, _], [(_, sum)]) = (self.partials, &mut self.sums[..]) {
            // Two ranks with one each: nothing is copied before it is added.
            let pairs = values(0).iter().zip(values(1));
            sum.extend(pairs.map(|(left, right)| left + right));
            return;
        }
        let merged = merge(self.partials, &mut self.spare, values);
        for ((_, sum), (_, chunk)) in self.sums.iter_mut().zip(merged) {
            sum.extend_from_slice(&chunk[..length]);
            self.spare.push(chunk);
        }
    }

    /// Merges one chunk of partial sums that have [one root](one_root) into `own`, the values of rank
    /// `me`.
    pub(super) fn chunk_in_place<'b>(
        &mut self,
        own: &mut [f32],
        me: usize,
        of: impl Fn(usize) -> &'b [f32],
    ) {
        let rank = |i: usize| self.partials[i].0.0 as usize;
        if self.partials.len() == 1 {
            return;
        }
        if self.partials.len() == 2 {
            // A sum of two has no order.
            let other = if rank(0) == me { rank(1) } else { rank(0) };
            add_into(own, of(other));
            return;
        }
        let values = |i: usize| if rank(i) == me { &*own } else { of(rank(i)) };
        let merged = merge(self.partials, &mut self.spare, values);
        for (_, sum) in merged {
            own.copy_from_slice(&sum);
            self.spare.push(sum);
        }
    }

    /// The sums of all chunks.
    pub(super) fn into_sums(self) -> Sums {
        self.sums
    }
}
