//! The operations written out in plain burn operations, for any backend and float type.
//!
//! They are what a backend runs that has no fused implementation, and the reference that fused ones are tested against.
//! The forward functions are differentiable: on an autodiff backend, burn itself derives their gradients.
//! Attention here materialises T x T scores per head.

use std::ops::{Add, Mul, Sub};

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{FloatDType, IndexingUpdateOp, Scalar, Shape, Slice, TensorData};

use crate::{Positions, Precision, Spans};

/// As [`crate::attention`], and the log of the sum of exponentials of each token's scores, `[T, H]`.
pub fn attention<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    spans: &Spans,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (q, k, v) = (Expr::<B>(q), Expr::<B>(k), Expr::<B>(v));
    let heads = Heads::of(&q, &k);
    let (q, k, v) = (
        q.by_head(),
        heads.repeat(k).by_head(),
        heads.repeat(v).by_head(),
    );
    let scores = masked_scores(&q, &k, spans);
    let log_sums = scores.log_sum_exp(2);
    let out = (scores - log_sums.clone()).exp().matmul(v).by_head();
    let log_sums = log_sums.reshape([heads.count, heads.tokens]).transpose();
    (out.0, log_sums.0)
}

/// What attention read, and what it returned.
#[derive(Clone, Debug)]
pub struct Attended<B: Backend> {
    /// Queries.
    pub q: FloatTensor<B>,
    /// Keys.
    pub k: FloatTensor<B>,
    /// Values.
    pub v: FloatTensor<B>,
    /// What it returned first.
    pub out: FloatTensor<B>,
    /// What it returned second.
    pub log_sums: FloatTensor<B>,
}

/// Gradients of q, k and v, by that of `out`.
pub fn attention_backward<B: Backend>(
    attended: Attended<B>,
    grad: FloatTensor<B>,
    spans: &Spans,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let Attended {
        q,
        k,
        v,
        out,
        log_sums,
    } = attended;
    let (q, k, v) = (Expr::<B>(q), Expr::<B>(k), Expr::<B>(v));
    let heads = Heads::of(&q, &k);
    let (q, k, v) = (
        q.by_head(),
        heads.repeat(k).by_head(),
        heads.repeat(v).by_head(),
    );
    let (out, grad) = (Expr::<B>(out).by_head(), Expr::<B>(grad).by_head());
    let log_sums = Expr::<B>(log_sums)
        .transpose()
        .reshape([heads.count, heads.tokens, 1]);

    let weights = (masked_scores(&q, &k, spans) - log_sums).exp();
    let v_grad = weights.clone().transpose().matmul(grad.clone());
    let weights_grad = grad.clone().matmul(v.transpose());
    let mean_grad = (grad * out).sum_dim(2);
    let scores_grad = weights * (weights_grad - mean_grad) * heads.scale();
    let k_grad = scores_grad.clone().transpose().matmul(q);
    let q_grad = scores_grad.matmul(k);
    (
        q_grad.by_head().0,
        heads.sum_repeats(k_grad.by_head()).0,
        heads.sum_repeats(v_grad.by_head()).0,
    )
}

/// As [`crate::Kernels::split_heads`].
pub fn split_heads<B: Backend>(
    qkv: FloatTensor<B>,
    positions: &Positions,
    base: f32,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let [tokens, kv_heads, parts, width] = qkv.shape().dims();
    let part = |from: usize, to: usize| {
        let slices = [0..tokens, 0..kv_heads, from..to, 0..width].map(Slice::from);
        let part = Expr::<B>(B::float_slice(qkv.clone(), &slices));
        part.reshape([tokens, kv_heads * (to - from), width]).0
    };
    let q = rope::<B>(part(0, parts - 2), positions, base);
    let k = rope::<B>(part(parts - 2, parts - 1), positions, base);
    (q, k, part(parts - 1, parts))
}

/// Gradient of qkv.
pub fn split_heads_backward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    positions: &Positions,
    base: f32,
) -> FloatTensor<B> {
    let [tokens, kv_heads, width] = k.shape().dims();
    let q = rope_backward::<B>(q, positions, base);
    let k = rope_backward::<B>(k, positions, base);
    let parts = [q, k, v].map(|part| {
        let each = part.shape()[1] / kv_heads;
        let part = Expr::<B>(part).reshape([tokens, kv_heads, each, width]);
        part.0
    });
    B::float_cat(parts.into(), 2)
}

/// A zero of a tensor's type and device, `[1]`.
pub fn zero<B: Backend>(like: &FloatTensor<B>) -> FloatTensor<B> {
    let dtype = FloatDType::from(like.dtype());
    B::float_zeros(Shape::from([1]), &like.device(), dtype)
}

/// As [`crate::linear`].
pub fn linear<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    precision: Precision,
) -> FloatTensor<B> {
    let (x, weight) = (Expr::<B>(x), Expr::<B>(weight));
    x.rounded(precision)
        .matmul(weight.rounded(precision).transpose())
        .0
}

/// Gradients of x and weight.
pub fn linear_backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    grad: FloatTensor<B>,
    precision: Precision,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [x, weight, grad] = [x, weight, grad].map(|t| Expr::<B>(t).rounded(precision));
    let x_grad = grad.clone().matmul(weight);
    (x_grad.0, grad.transpose().matmul(x).0)
}

/// As [`crate::rms_norm`].
pub fn rms_norm<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, eps: f32) -> FloatTensor<B> {
    let x = Expr::<B>(x);
    let inverse = inverse_rms(&x, eps);
    (x * inverse * Expr(weight).row()).0
}

/// Gradients of x and weight.
pub fn rms_norm_backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    grad: FloatTensor<B>,
    eps: f32,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (x, grad) = (Expr::<B>(x), Expr::<B>(grad));
    let inverse = inverse_rms(&x, eps);
    let normed = x * inverse.clone();
    let width = normed.dims()[1];
    let weight_grad = (grad.clone() * normed.clone()).sum_dim(0).reshape([width]);
    let grad = grad * Expr(weight).row();
    let along = (grad.clone() * normed.clone()).mean_dim(1);
    let x_grad = (grad - normed * along) * inverse;
    (x_grad.0, weight_grad.0)
}

/// As [`crate::rope`].
pub fn rope<B: Backend>(x: FloatTensor<B>, positions: &Positions, base: f32) -> FloatTensor<B> {
    rotate::<B>(x, positions, base, 1.0)
}

/// Gradient of x.
pub fn rope_backward<B: Backend>(
    grad: FloatTensor<B>,
    positions: &Positions,
    base: f32,
) -> FloatTensor<B> {
    rotate::<B>(grad, positions, base, -1.0)
}

/// As [`crate::swiglu`].
pub fn swiglu<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let gate = Expr::<B>(gate);
    (gate.sigmoid() * gate * Expr(up)).0
}

/// Gradients of gate and up.
pub fn swiglu_backward<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (gate, up, grad) = (Expr::<B>(gate), Expr::<B>(up), Expr::<B>(grad));
    let sigmoid = gate.sigmoid();
    let silu = gate * sigmoid.clone();
    // silu' = sigmoid + silu * (1 - sigmoid)
    let slope = sigmoid.clone() + silu.clone() - silu.clone() * sigmoid;
    ((grad.clone() * up * slope).0, (grad * silu).0)
}

/// As [`crate::cross_entropy`].
pub fn cross_entropy<B: Backend>(logits: FloatTensor<B>, targets: &[u32]) -> FloatTensor<B> {
    let logits = Expr::<B>(logits);
    let indices = logits.indices(targets);
    let target_logits = Expr(B::float_gather(1, logits.0.clone(), indices));
    (logits.log_sum_exp(1) - target_logits)
        .reshape([targets.len()])
        .0
}

/// Gradient of the logits: softmax minus one at the target, times the gradient of the row's loss.
pub fn cross_entropy_backward<B: Backend>(
    logits: FloatTensor<B>,
    losses: FloatTensor<B>,
    grad: FloatTensor<B>,
    targets: &[u32],
) -> FloatTensor<B> {
    let (logits, rows) = (Expr::<B>(logits), targets.len());
    let indices = logits.indices(targets);
    let target_logits = Expr::<B>(B::float_gather(1, logits.0.clone(), indices.clone()));
    let log_sums = Expr(losses).reshape([rows, 1]) + target_logits;
    let grad = Expr::<B>(grad).reshape([rows, 1]);
    let softmax = (logits - log_sums).exp() * grad.clone();
    let minus_grad = grad * -1.0;
    B::float_scatter(1, softmax.0, indices, minus_grad.0, IndexingUpdateOp::Add)
}

/// `[T, D]` to `[T, 1]`: 1 / sqrt(mean(x^2) + eps).
fn inverse_rms<B: Backend>(x: &Expr<B>, eps: f32) -> Expr<B> {
    let mean = (x.clone() * x.clone()).mean_dim(1);
    Expr(B::float_recip(B::float_sqrt(B::float_add_scalar(
        mean.0,
        Scalar::Float(f64::from(eps)),
    ))))
}

fn rotate<B: Backend>(
    x: FloatTensor<B>,
    positions: &Positions,
    base: f32,
    direction: f32,
) -> FloatTensor<B> {
    let x = Expr::<B>(x);
    let [tokens, heads, width] = x.dims3();
    let half = width / 2;
    let rotations = positions.rotations(base, width);
    let table = |values: &[f32]| x.constant(values.to_vec(), [tokens, 1, half]);
    let (cos, sin) = (table(&rotations.cos), table(&rotations.sin) * direction);
    let part = |from: usize| {
        let whole = |len: usize| Slice::from(0..len);
        let slices = [whole(tokens), whole(heads), Slice::from(from..from + half)];
        Expr::<B>(B::float_slice(x.0.clone(), &slices))
    };
    let (first, second) = (part(0), part(half));
    let turned_first = first.clone() * cos.clone() - second.clone() * sin.clone();
    let turned_second = second * cos + first * sin;
    B::float_cat(vec![turned_first.0, turned_second.0], 2)
}

/// `q k^T * scale` `[H, T, T]`, minus infinity where a token must not look.
fn masked_scores<B: Backend>(q: &Expr<B>, k: &Expr<B>, spans: &Spans) -> Expr<B> {
    let [heads, tokens, width] = q.dims3();
    let hidden = TensorData::new(spans.hidden(), [1, tokens, tokens]);
    let hidden = B::bool_from_data(hidden, &q.0.device());
    let hidden = B::bool_expand(hidden, Shape::from([heads, tokens, tokens]));
    let scores = q.clone().matmul(k.clone().transpose()) * score_scale(width);
    Expr(B::float_mask_fill(
        scores.0,
        hidden,
        Scalar::Float(f64::NEG_INFINITY),
    ))
}

/// The scale of attention scores for heads of `width`.
pub(crate) fn score_scale(width: usize) -> f32 {
    1.0 / (width as f32).sqrt()
}

/// How query heads share key and value heads.
struct Heads {
    tokens: usize,
    count: usize,
    kv_count: usize,
    width: usize,
}

impl Heads {
    fn of<B: Backend>(q: &Expr<B>, k: &Expr<B>) -> Self {
        let ([tokens, count, width], [_, kv_count, _]) = (q.dims3(), k.dims3());
        Self {
            tokens,
            count,
            kv_count,
            width,
        }
    }

    fn scale(&self) -> f32 {
        score_scale(self.width)
    }

    /// `[T, Hkv, hd]` to `[T, H, hd]`.
    fn repeat<B: Backend>(&self, kv: Expr<B>) -> Expr<B> {
        let group = self.count / self.kv_count;
        let kv = kv.reshape([self.tokens, self.kv_count, 1, self.width]);
        let shape = Shape::from([self.tokens, self.kv_count, group, self.width]);
        Expr::<B>(B::float_expand(kv.0, shape)).reshape([self.tokens, self.count, self.width])
    }

    /// The adjoint of [`Heads::repeat`].
    fn sum_repeats<B: Backend>(&self, grad: Expr<B>) -> Expr<B> {
        let group = self.count / self.kv_count;
        grad.reshape([self.tokens, self.kv_count, group, self.width])
            .sum_dim(2)
            .reshape([self.tokens, self.kv_count, self.width])
    }
}

/// A backend's float tensor, with the notation that formulas need. Binary operators broadcast.
struct Expr<B: Backend>(FloatTensor<B>);

impl<B: Backend> Clone for Expr<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: Backend> Expr<B> {
    fn dims(&self) -> Vec<usize> {
        self.0.shape().to_vec()
    }

    fn dims3(&self) -> [usize; 3] {
        let shape = self.0.shape();
        [shape[0], shape[1], shape[2]]
    }

    /// A tensor of this one's device and type.
    fn constant<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Self {
        let tensor = B::float_from_data(TensorData::new(values, shape), &self.0.device());
        Self(B::float_cast(tensor, FloatDType::from(self.0.dtype())))
    }

    /// `[M, 1]` indices on this tensor's device.
    fn indices(&self, targets: &[u32]) -> IntTensor<B> {
        let indices: Vec<i32> = targets.iter().map(|&target| target as i32).collect();
        let data = TensorData::new(indices, [targets.len(), 1]);
        B::int_from_data(data, &self.0.device())
    }

    fn reshape<const D: usize>(self, shape: [usize; D]) -> Self {
        Self(B::float_reshape(self.0, Shape::from(shape)))
    }

    /// `[D]` to `[1, D]`.
    fn row(self) -> Self {
        let width = self.dims()[0];
        self.reshape([1, width])
    }

    /// Swaps the first two dimensions: `[T, H, hd]` to `[H, T, hd]` and back.
    fn by_head(self) -> Self {
        Self(B::float_swap_dims(self.0, 0, 1))
    }

    /// Swaps the last two dimensions.
    fn transpose(self) -> Self {
        Self(B::float_transpose(self.0))
    }

    /// Rounded as operands of a product are, in the type it has.
    fn rounded(self, precision: Precision) -> Self {
        if precision == Precision::F32 {
            return self;
        }
        // By way of f32: from f64 at once, ties are not always seen for what they are.
        let dtype = FloatDType::from(self.0.dtype());
        let steps = [FloatDType::F32, FloatDType::BF16, dtype];
        Self(steps.into_iter().fold(self.0, B::float_cast))
    }

    fn matmul(self, rhs: Self) -> Self {
        Self(B::float_matmul(self.0, rhs.0))
    }

    fn exp(self) -> Self {
        Self(B::float_exp(self.0))
    }

    fn sigmoid(&self) -> Self {
        let one_plus = B::float_add_scalar((self.clone() * -1.0).exp().0, Scalar::Float(1.0));
        Self(B::float_recip(one_plus))
    }

    fn sum_dim(self, dim: usize) -> Self {
        Self(B::float_sum_dim(self.0, dim))
    }

    fn mean_dim(self, dim: usize) -> Self {
        Self(B::float_mean_dim(self.0, dim))
    }

    fn log_sum_exp(&self, dim: usize) -> Self {
        // A sum of exponentials doesn't depend on the shift, so no gradient need pass through it.
        let max = Self(B::float_detach(B::float_max_dim(self.0.clone(), dim)));
        let sum = (self.clone() - max.clone()).exp().sum_dim(dim);
        Self(B::float_log(sum.0)) + max
    }
}

impl<B: Backend> Add for Expr<B> {
    type Output = Self;
    fn add(self, rhs: Self) -> Self {
        Self(B::float_add(self.0, rhs.0))
    }
}

impl<B: Backend> Sub for Expr<B> {
    type Output = Self;
    fn sub(self, rhs: Self) -> Self {
        Self(B::float_sub(self.0, rhs.0))
    }
}

impl<B: Backend> Mul for Expr<B> {
    type Output = Self;
    fn mul(self, rhs: Self) -> Self {
        Self(B::float_mul(self.0, rhs.0))
    }
}

impl<B: Backend> Mul<f32> for Expr<B> {
    type Output = Self;
    fn mul(self, rhs: f32) -> Self {
        Self(B::float_mul_scalar(self.0, Scalar::Float(f64::from(rhs))))
    }
}
