//! Operations on independent rows and elements: norm, rotation, gated activation, cross-entropy.

use rayon::prelude::*;

use super::simd::{exp, max, sigmoid, sum_of, vectorized};
use crate::positions::Rotations;

/// Elements that one task takes on. Fixed, so that work is split alike on any number of threads.
const TASK: usize = 16 * 1024;

/// Rows of `width` that make a task.
fn task_rows(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}

/// Rows of `x` by their inverse root mean square and `weight`.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let width = weight.len();
    let chunk = task_rows(width) * width;
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(chunk)
        .zip_eq(x.par_chunks(chunk))
        .for_each(|(out, x)| norm_rows(x, weight, eps, out));
    out
}

/// Gradients of x and weight.
pub(crate) fn rms_norm_backward(
    x: &[f32],
    weight: &[f32],
    grad: &[f32],
    eps: f32,
) -> (Vec<f32>, Vec<f32>) {
    let width = weight.len();
    let chunk = task_rows(width) * width;
    let mut x_grad = vec![0.0; x.len()];
    let partials: Vec<Vec<f32>> = x_grad
        .par_chunks_mut(chunk)
        .zip_eq(x.par_chunks(chunk))
        .zip_eq(grad.par_chunks(chunk))
        .map(|((x_grad, x), grad)| {
            let mut weight_grad = vec![0.0; width];
            norm_rows_backward(x, weight, grad, eps, x_grad, &mut weight_grad);
            weight_grad
        })
        .collect();
    let mut weight_grad = vec![0.0; width];
    for partial in &partials {
        for (sum, part) in weight_grad.iter_mut().zip(partial) {
            *sum += part;
        }
    }
    (x_grad, weight_grad)
}

/// Turns `x` `[T, heads, width]` in place by the table's angles, or back by them.
pub(crate) fn rotate(x: &mut [f32], heads: usize, rotations: &Rotations, back: bool) {
    let half = rotations.half_width();
    let row = heads * 2 * half;
    if row == 0 {
        return;
    }
    let tokens = task_rows(row);
    x.par_chunks_mut(tokens * row)
        .zip_eq(rotations.cos.par_chunks(tokens * half))
        .zip_eq(rotations.sin.par_chunks(tokens * half))
        .for_each(|((x, cos), sin)| {
            let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
            for (x, (cos, sin)) in x.chunks_exact_mut(row).zip(angles) {
                if back {
                    turn_heads_back(x, cos, sin);
                } else {
                    turn_heads(x, cos, sin);
                }
            }
        });
}

/// Parts each token's heads, for each of `kv_heads` `group` queries, a key and a value, and turns queries and keys.
pub(crate) fn split_heads(
    qkv: &[f32],
    [kv_heads, group]: [usize; 2],
    rotations: &Rotations,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let half = rotations.half_width();
    let width = 2 * half;
    let row = kv_heads * (group + 2) * width;
    let all = qkv.len() / row * kv_heads * width;
    let (mut q, mut k, mut v) = (vec![0.0; all * group], vec![0.0; all], vec![0.0; all]);
    let tokens = task_rows(row);
    let part = tokens * kv_heads * width;
    q.par_chunks_mut(part * group)
        .zip_eq(k.par_chunks_mut(part))
        .zip_eq(v.par_chunks_mut(part))
        .zip_eq(qkv.par_chunks(tokens * row))
        .zip_eq(rotations.cos.par_chunks(tokens * half))
        .zip_eq(rotations.sin.par_chunks(tokens * half))
        .for_each(|(((((q, k), v), qkv), cos), sin)| {
            let heads = q.chunks_exact_mut(group * width);
            let heads = heads.zip(k.chunks_exact_mut(width));
            let heads = heads.zip(v.chunks_exact_mut(width));
            let each = qkv.chunks_exact((group + 2) * width).enumerate();
            for (((q, k), v), (at, qkv)) in heads.zip(each) {
                let token = at / kv_heads;
                let (cos, sin) = (&cos[token * half..][..half], &sin[token * half..][..half]);
                let (queries, key) = qkv.split_at(group * width);
                q.copy_from_slice(queries);
                k.copy_from_slice(&key[..width]);
                v.copy_from_slice(&key[width..]);
                turn_heads(q, cos, sin);
                turn_heads(k, cos, sin);
            }
        });
    (q, k, v)
}

/// Gradient of qkv from those of queries, keys and values.
pub(crate) fn split_heads_backward(
    [q, k, v]: [&[f32]; 3],
    [kv_heads, group]: [usize; 2],
    rotations: &Rotations,
) -> Vec<f32> {
    let half = rotations.half_width();
    let width = 2 * half;
    let row = kv_heads * (group + 2) * width;
    let mut qkv = vec![0.0; k.len() * (group + 2)];
    let tokens = task_rows(row);
    let part = tokens * kv_heads * width;
    qkv.par_chunks_mut(tokens * row)
        .zip_eq(q.par_chunks(part * group))
        .zip_eq(k.par_chunks(part))
        .zip_eq(v.par_chunks(part))
        .zip_eq(rotations.cos.par_chunks(tokens * half))
        .zip_eq(rotations.sin.par_chunks(tokens * half))
        .for_each(|(((((qkv, q), k), v), cos), sin)| {
            let heads = q.chunks_exact(group * width);
            let heads = heads.zip(k.chunks_exact(width)).zip(v.chunks_exact(width));
            let each = qkv.chunks_exact_mut((group + 2) * width).enumerate();
            for (((q, k), v), (at, qkv)) in heads.zip(each) {
                let token = at / kv_heads;
                let (cos, sin) = (&cos[token * half..][..half], &sin[token * half..][..half]);
                let (turned, value) = qkv.split_at_mut((group + 1) * width);
                turned[..group * width].copy_from_slice(q);
                turned[group * width..].copy_from_slice(k);
                value.copy_from_slice(v);
                turn_heads_back(turned, cos, sin);
            }
        });
    qkv
}

/// `silu(gate) * up`.
pub(crate) fn swiglu(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; gate.len()];
    out.par_chunks_mut(TASK)
        .zip_eq(gate.par_chunks(TASK))
        .zip_eq(up.par_chunks(TASK))
        .for_each(|((out, gate), up)| gate_elements(gate, up, out));
    out
}

/// Gradients of gate and up.
pub(crate) fn swiglu_backward(gate: &[f32], up: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut gate_grad, mut up_grad) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
    gate_grad
        .par_chunks_mut(TASK)
        .zip_eq(up_grad.par_chunks_mut(TASK))
        .zip_eq(gate.par_chunks(TASK))
        .zip_eq(up.par_chunks(TASK))
        .zip_eq(grad.par_chunks(TASK))
        .for_each(|((((gate_grad, up_grad), gate), up), grad)| {
            gate_elements_backward(gate, up, grad, gate_grad, up_grad);
        });
    (gate_grad, up_grad)
}

/// A loss per row of `logits` `[M, V]`.
pub(crate) fn cross_entropy(logits: &[f32], targets: &[u32]) -> Vec<f32> {
    let Some(width) = logits.len().checked_div(targets.len()) else {
        return Vec::new();
    };
    let rows = task_rows(width);
    let mut losses = vec![0.0; targets.len()];
    losses
        .par_chunks_mut(rows)
        .zip_eq(targets.par_chunks(rows))
        .zip_eq(logits.par_chunks(rows * width))
        .for_each(|((losses, targets), logits)| {
            for ((loss, &target), row) in losses
                .iter_mut()
                .zip(targets)
                .zip(logits.chunks_exact(width))
            {
                *loss = log_sum_exp(row) - row[target as usize];
            }
        });
    losses
}

/// Turns `logits` into their gradient, in place.
pub(crate) fn cross_entropy_backward(
    logits: &mut [f32],
    losses: &[f32],
    grad: &[f32],
    targets: &[u32],
) {
    let Some(width) = logits.len().checked_div(targets.len()) else {
        return;
    };
    let rows = task_rows(width);
    logits
        .par_chunks_mut(rows * width)
        .zip_eq(targets.par_chunks(rows))
        .zip_eq(losses.par_chunks(rows))
        .zip_eq(grad.par_chunks(rows))
        .for_each(|(((logits, targets), losses), grad)| {
            let of_row = targets.iter().zip(losses).zip(grad);
            for (row, ((&target, loss), &grad)) in logits.chunks_exact_mut(width).zip(of_row) {
                let log_sum = loss + row[target as usize];
                scaled_softmax(row, log_sum, grad);
                row[target as usize] -= grad;
            }
        });
}

#[inline(always)]
fn inverse_rms<A: super::simd::Arithmetic>(row: &[f32], eps: f32) -> f32 {
    let squares = sum_of([row], |sum, [x]| A::mul_add(x, x, sum));
    1.0 / (squares / row.len() as f32 + eps).sqrt()
}

vectorized! {
    fn norm_rows<A>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let width = weight.len();
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let inverse = inverse_rms::<A>(x, eps);
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = x * inverse * weight;
            }
        }
    }

    /// With n = x / rms and g = grad * weight: x_grad = (g - n * mean(g n)) / rms, and weight_grad sums grad * n.
    fn norm_rows_backward<A>(
        x: &[f32],
        weight: &[f32],
        grad: &[f32],
        eps: f32,
        x_grad: &mut [f32],
        weight_grad: &mut [f32],
    ) {
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(grad.chunks_exact(width));
        for ((x, grad), x_grad) in rows.zip(x_grad.chunks_exact_mut(width)) {
            let inverse = inverse_rms::<A>(x, eps);
            let along = sum_of([x, grad, weight], |sum, [x, grad, weight]| {
                A::mul_add(x, grad * weight, sum)
            });
            let along = along * inverse * inverse / width as f32;
            let inputs = x.iter().zip(grad).zip(weight);
            let outputs = x_grad.iter_mut().zip(weight_grad.iter_mut());
            for (((x, grad), weight), (x_grad, weight_grad)) in inputs.zip(outputs) {
                *x_grad = A::mul_add(-along, *x, grad * weight) * inverse;
                *weight_grad = A::mul_add(*grad, x * inverse, *weight_grad);
            }
        }
    }

    /// One token's heads, each by the token's angles.
    fn turn_heads<A>(heads: &mut [f32], cos: &[f32], sin: &[f32]) {
        for head in heads.chunks_exact_mut(2 * cos.len()) {
            let (first, second) = head.split_at_mut(cos.len());
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = (A::mul_add(*a, *cos, -(*b * sin)), A::mul_add(*b, *cos, *a * sin));
            }
        }
    }

    /// The inverse of `turn_heads`.
    fn turn_heads_back<A>(heads: &mut [f32], cos: &[f32], sin: &[f32]) {
        for head in heads.chunks_exact_mut(2 * cos.len()) {
            let (first, second) = head.split_at_mut(cos.len());
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = (A::mul_add(*a, *cos, *b * sin), A::mul_add(*b, *cos, -(*a * sin)));
            }
        }
    }

    fn gate_elements<A>(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate * sigmoid::<A>(*gate) * up;
        }
    }

    /// silu' = sigmoid * (1 + gate * (1 - sigmoid)).
    fn gate_elements_backward<A>(
        gate: &[f32],
        up: &[f32],
        grad: &[f32],
        gate_grad: &mut [f32],
        up_grad: &mut [f32],
    ) {
        let inputs = gate.iter().zip(up).zip(grad);
        for (((gate, up), grad), (gate_grad, up_grad)) in inputs.zip(gate_grad.iter_mut().zip(up_grad)) {
            let sigmoid = sigmoid::<A>(*gate);
            *gate_grad = grad * up * sigmoid * A::mul_add(*gate, 1.0 - sigmoid, 1.0);
            *up_grad = grad * gate * sigmoid;
        }
    }

    fn log_sum_exp<A>(row: &[f32]) -> f32 {
        let max = max(row);
        sum_of([row], |sum, [x]| sum + exp::<A>(x - max)).ln() + max
    }

    fn scaled_softmax<A>(row: &mut [f32], log_sum: f32, factor: f32) {
        for x in row {
            *x = exp::<A>(*x - log_sum) * factor;
        }
    }
}
