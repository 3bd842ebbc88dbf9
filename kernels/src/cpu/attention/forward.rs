//! The forward pass: a softmax that takes in one block of keys after the other.

use rayon::prelude::*;

use super::blocks::{Dims, KEYS, KeyBlock, QueryBlock, Transposed, query_blocks, split};
use crate::Spans;
use crate::cpu::matrix::{Matrix, MatrixMut, Write, multiply};
use crate::cpu::simd::{exp, max, sum_of, vectorized};
use crate::portable::score_scale;

/// Output `[T, H, hd]`, and per token and head the log of the sum of exponentials of its scores, `[T, H]`.
///
/// One task per block of queries, all heads of it.
pub(crate) fn forward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dims: Dims,
    spans: &Spans,
) -> (Vec<f32>, Vec<f32>) {
    let mut out = vec![0.0; q.len()];
    let mut log_sums = vec![0.0; dims.tokens * dims.heads];
    let transposed_k = Transposed::new(k, dims, spans);

    let blocks = query_blocks(spans, 0..spans.spans().len());
    let sizes = || blocks.iter().map(|block| block.queries.len());
    let outs = split(&mut out, sizes().map(|size| size * dims.row()));
    let sums = split(&mut log_sums, sizes().map(|size| size * dims.heads));
    let tasks = blocks.par_iter().with_max_len(1).zip_eq(outs).zip_eq(sums);
    tasks.for_each(|((block, out), sums)| {
        let mut softmax = Softmax::new(block, dims.width);
        for head in 0..dims.heads {
            let kv_head = head / dims.group();
            let q = Matrix::head(q, dims.row(), head, dims.width).rows_from(block.queries.start);
            let v = Matrix::head(v, dims.kv_row(), kv_head, dims.width);
            softmax.restart();
            for keys in &block.keys {
                let v = v.rows_from(keys.keys.start);
                softmax.take_in(keys, q, transposed_k.head(keys, kv_head), v);
            }
            let rows = out.chunks_exact_mut(dims.row());
            for (row, (out, sums)) in rows.zip(sums.chunks_exact_mut(dims.heads)).enumerate() {
                sums[head] = softmax.finish(row, &mut out[head * dims.width..][..dims.width]);
            }
        }
    });
    (out, log_sums)
}

/// Softmax of one head and block of queries, over the keys taken in so far.
struct Softmax<'a> {
    block: &'a QueryBlock,
    width: usize,
    /// Per query, the largest scaled score.
    maxima: Vec<f32>,
    /// Per query, the sum of `exp(score - maximum)`.
    sums: Vec<f32>,
    /// Per query, the sum of `exp(score - maximum) * value`.
    values: Vec<f32>,
    scores: Vec<f32>,
}

impl<'a> Softmax<'a> {
    fn new(block: &'a QueryBlock, width: usize) -> Self {
        let queries = block.queries.len();
        Self {
            block,
            width,
            maxima: vec![f32::NEG_INFINITY; queries],
            sums: vec![0.0; queries],
            values: vec![0.0; queries * width],
            scores: vec![0.0; queries * KEYS],
        }
    }

    fn restart(&mut self) {
        self.maxima.fill(f32::NEG_INFINITY);
        self.sums.fill(0.0);
        self.values.fill(0.0);
    }

    fn take_in(&mut self, keys: &KeyBlock, q: Matrix<'_>, transposed_k: Matrix<'_>, v: Matrix<'_>) {
        let (queries, width) = (self.block.queries.len(), self.width);
        let scores = &mut self.scores[..queries * keys.len()];
        multiply(
            MatrixMut::new(scores, keys.len()),
            q,
            transposed_k,
            [queries, width, keys.len()],
            Write::Replace,
        );
        for (row, scores) in scores.chunks_exact_mut(keys.len()).enumerate() {
            let (seen, unseen) = scores.split_at_mut(self.block.visible(row, keys));
            unseen.fill(0.0);
            online_softmax(
                seen,
                score_scale(width),
                &mut self.maxima[row],
                &mut self.sums[row],
                &mut self.values[row * width..][..width],
            );
        }
        multiply(
            MatrixMut::new(&mut self.values, width),
            Matrix::new(scores, keys.len()),
            v,
            [queries, keys.len(), width],
            Write::Add,
        );
    }

    /// Writes a query's output; returns its log sum.
    fn finish(&self, row: usize, out: &mut [f32]) -> f32 {
        let inverse = 1.0 / self.sums[row];
        for (out, value) in out.iter_mut().zip(&self.values[row * self.width..]) {
            *out = value * inverse;
        }
        self.maxima[row] + self.sums[row].ln()
    }
}

vectorized! {
    /// Turns scores into `exp(scale * score - maximum)`, after moving the running maximum, and all sums with it.
    fn online_softmax<A>(
        scores: &mut [f32],
        scale: f32,
        maximum: &mut f32,
        sum: &mut f32,
        values: &mut [f32],
    ) {
        let of_these = max(scores) * scale;
        if of_these > *maximum {
            let shrink = exp::<A>(*maximum - of_these);
            *maximum = of_these;
            *sum *= shrink;
            for value in values {
                *value *= shrink;
            }
        }
        for score in scores.iter_mut() {
            *score = exp::<A>(A::mul_add(*score, scale, -*maximum));
        }
        *sum += sum_of([scores], |sum, [x]| sum + x);
    }
}
