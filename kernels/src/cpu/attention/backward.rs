//! The backward pass: scores are computed again, block by block, from the saved log sums.

use std::ops::Range;

use rayon::prelude::*;

use super::blocks::{Dims, KEYS, KeyBlock, QUERIES, QueryBlock, Transposed, query_blocks, split};
use crate::Spans;
use crate::cpu::matrix::{Matrix, MatrixMut, Write, multiply};
use crate::cpu::simd::{exp, sum_of, vectorized};
use crate::portable::score_scale;

/// What the forward pass read and returned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saved<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) k: &'a [f32],
    pub(crate) v: &'a [f32],
    pub(crate) out: &'a [f32],
    pub(crate) log_sums: &'a [f32],
    pub(crate) dims: Dims,
}

/// Gradients of q, k and v.
///
/// One task per tree, and key and value head: all that adds to a key's gradient happens inside it, in token order.
pub(crate) fn backward(saved: &Saved<'_>, grad: &[f32], spans: &Spans) -> [Vec<f32>; 3] {
    let dims = saved.dims;
    let pass = Pass {
        saved: *saved,
        grad,
        transposed_k: Transposed::new(saved.k, dims, spans),
        transposed_v: Transposed::new(saved.v, dims, spans),
    };
    let trees: Vec<Tree> = spans
        .trees()
        .iter()
        .map(|run| Tree::new(spans, run.clone()))
        .collect();
    let tasks: Vec<(&Tree, usize)> = trees
        .iter()
        .flat_map(|tree| (0..dims.kv_heads).map(move |kv_head| (tree, kv_head)))
        .collect();
    let gradients: Vec<HeadGradients> = tasks
        .into_par_iter()
        .with_max_len(1)
        .map(|(tree, kv_head)| pass.gradients(tree, kv_head))
        .collect();

    let mut q_grad = vec![0.0; saved.q.len()];
    let mut k_grad = vec![0.0; saved.k.len()];
    let mut v_grad = vec![0.0; saved.v.len()];
    let sizes = |row: usize| trees.iter().map(move |tree| tree.tokens.len() * row);
    let q_trees = split(&mut q_grad, sizes(dims.row()));
    let k_trees = split(&mut k_grad, sizes(dims.kv_row()));
    let v_trees = split(&mut v_grad, sizes(dims.kv_row()));
    let outs = q_trees.into_par_iter().zip_eq(k_trees).zip_eq(v_trees);
    let of_trees = gradients.par_chunks_exact(dims.kv_heads);
    outs.zip_eq(of_trees).for_each(|(((q, k), v), heads)| {
        interleave(
            q,
            heads.iter().flat_map(|head| &head.q),
            dims.row(),
            dims.width,
        );
        interleave(
            k,
            heads.iter().map(|head| &head.k),
            dims.kv_row(),
            dims.width,
        );
        interleave(
            v,
            heads.iter().map(|head| &head.v),
            dims.kv_row(),
            dims.width,
        );
    });
    [q_grad, k_grad, v_grad]
}

/// A closed run of spans.
struct Tree {
    tokens: Range<usize>,
    blocks: Vec<QueryBlock>,
}

impl Tree {
    fn new(spans: &Spans, indices: Range<usize>) -> Self {
        let of_tree = &spans.spans()[indices.clone()];
        let start = of_tree[0].range().start;
        let end = of_tree[of_tree.len() - 1].range().end;
        Self {
            tokens: start..end,
            blocks: query_blocks(spans, indices),
        }
    }
}

/// Gradients of one tree, and key and value head, each `[tokens, hd]`.
struct HeadGradients {
    /// One per query head of the group.
    q: Vec<Vec<f32>>,
    k: Vec<f32>,
    v: Vec<f32>,
}

/// All that the tasks of one backward pass read.
struct Pass<'a> {
    saved: Saved<'a>,
    grad: &'a [f32],
    transposed_k: Transposed,
    transposed_v: Transposed,
}

impl Pass<'_> {
    fn gradients(&self, tree: &Tree, kv_head: usize) -> HeadGradients {
        let dims = self.saved.dims;
        let zeros = || vec![0.0; tree.tokens.len() * dims.width];
        let (mut k, mut v) = (zeros(), zeros());
        let mut scores = [vec![0.0; QUERIES * KEYS], vec![0.0; QUERIES * KEYS]];
        let q = (0..dims.group())
            .map(|in_group| {
                let mut q = zeros();
                let mut head = Head {
                    pass: self,
                    kv_head,
                    head: kv_head * dims.group() + in_group,
                    first: tree.tokens.start,
                    scores: scores.each_mut().map(Vec::as_mut_slice),
                    gradients: [&mut q, &mut k, &mut v],
                };
                for block in &tree.blocks {
                    head.add(block);
                }
                q
            })
            .collect();
        HeadGradients { q, k, v }
    }
}

/// One query head of one tree.
struct Head<'a> {
    pass: &'a Pass<'a>,
    kv_head: usize,
    head: usize,
    /// The tree's first token.
    first: usize,
    /// Scores, and their gradients, of one block by one block.
    scores: [&'a mut [f32]; 2],
    /// Of q, k and v, `[tokens, hd]` of the tree each.
    gradients: [&'a mut [f32]; 3],
}

impl Head<'_> {
    /// Adds what a block of queries contributes.
    fn add(&mut self, block: &QueryBlock) {
        let Saved {
            out,
            log_sums,
            dims,
            ..
        } = self.pass.saved;
        let statistics: Vec<(f32, f32)> = block
            .queries
            .clone()
            .map(|token| {
                let at = token * dims.heads + self.head;
                let range = at * dims.width..(at + 1) * dims.width;
                let along = dot(&out[range.clone()], &self.pass.grad[range]);
                (log_sums[at], along)
            })
            .collect();
        for keys in &block.keys {
            self.add_keys(block, keys, &statistics);
        }
    }

    /// Adds what a block of queries and one of keys contribute. `statistics` are per query its log sum, and the dot
    /// product of its output and the gradient of that.
    fn add_keys(&mut self, block: &QueryBlock, keys: &KeyBlock, statistics: &[(f32, f32)]) {
        let Pass {
            saved,
            grad,
            transposed_k,
            transposed_v,
        } = self.pass;
        let Dims { width, .. } = saved.dims;
        let (queries, len) = (block.queries.len(), keys.len());
        let [weights, scores_grad] = self
            .scores
            .each_mut()
            .map(|scores| &mut scores[..queries * len]);
        let of_head = |x| Matrix::head(x, saved.dims.row(), self.head, width);
        let q = of_head(saved.q).rows_from(block.queries.start);
        let grad = of_head(grad).rows_from(block.queries.start);
        let k = Matrix::head(saved.k, saved.dims.kv_row(), self.kv_head, width);
        let k = k.rows_from(keys.keys.start);

        let shape = [queries, width, len];
        let (k_columns, v_columns) = (
            transposed_k.head(keys, self.kv_head),
            transposed_v.head(keys, self.kv_head),
        );
        multiply(
            MatrixMut::new(weights, len),
            q,
            k_columns,
            shape,
            Write::Replace,
        );
        multiply(
            MatrixMut::new(scores_grad, len),
            grad,
            v_columns,
            shape,
            Write::Replace,
        );

        let rows = weights
            .chunks_exact_mut(len)
            .zip(scores_grad.chunks_exact_mut(len));
        for (row, ((weights, scores_grad), &(log_sum, along))) in rows.zip(statistics).enumerate() {
            let (seen, unseen) = weights.split_at_mut(block.visible(row, keys));
            let (seen_grad, unseen_grad) = scores_grad.split_at_mut(seen.len());
            unseen.fill(0.0);
            unseen_grad.fill(0.0);
            softmax_backward(seen, seen_grad, score_scale(width), log_sum, along);
        }

        let weights = Matrix::new(weights, len);
        let scores_grad = Matrix::new(scores_grad, len);
        let query = (block.queries.start - self.first) * width;
        let key = (keys.keys.start - self.first) * width;
        let [q_grad, k_grad, v_grad] = &mut self.gradients;
        let q_grad = MatrixMut::new(&mut q_grad[query..], width);
        let k_grad = MatrixMut::new(&mut k_grad[key..], width);
        let v_grad = MatrixMut::new(&mut v_grad[key..], width);
        let shape = [len, queries, width];
        multiply(v_grad, weights.transposed(), grad, shape, Write::Add);
        multiply(k_grad, scores_grad.transposed(), q, shape, Write::Add);
        multiply(q_grad, scores_grad, k, [queries, len, width], Write::Add);
    }
}

/// Copies heads `[tokens, hd]` side by side into `out` `[tokens, heads, hd]`.
fn interleave<'a>(
    out: &mut [f32],
    heads: impl Iterator<Item = &'a Vec<f32>>,
    row: usize,
    width: usize,
) {
    for (head, values) in heads.enumerate() {
        for (out, values) in out.chunks_exact_mut(row).zip(values.chunks_exact(width)) {
            out[head * width..][..width].copy_from_slice(values);
        }
    }
}

vectorized! {
    /// Turns scores into weights, and the gradient of weights into the gradient of unscaled scores.
    fn softmax_backward<A>(scores: &mut [f32], grads: &mut [f32], scale: f32, log_sum: f32, along: f32) {
        for (score, grad) in scores.iter_mut().zip(grads) {
            let weight = exp::<A>(A::mul_add(*score, scale, -log_sum));
            *score = weight;
            *grad = weight * (*grad - along) * scale;
        }
    }

    fn dot<A>(a: &[f32], b: &[f32]) -> f32 {
        sum_of([a, b], |sum, [a, b]| A::mul_add(a, b, sum))
    }
}
