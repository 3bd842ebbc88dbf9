//! Fused operations on packed rows, forward and backward, as one burn backend extension.
//!
//! A pack has no batch dimension: T tokens of several sequences lie one after the other, and [`Spans`] says which token
//! sees which. Every function takes and returns ordinary tensors and is differentiable on an autodiff device.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use polestar_kernels::{Positions, Span, Spans};
//!
//! // A prefix of two tokens, shared by two candidates of one token each.
//! let spans = Spans::new(vec![
//!     Span { start: 0, len: 2, parent: None },
//!     Span { start: 2, len: 1, parent: Some(0) },
//!     Span { start: 3, len: 1, parent: Some(0) },
//! ])?;
//! let positions = Positions::new(vec![0, 1, 2, 2]);
//! let device = Device::flex().autodiff();
//! let x = Tensor::<3>::ones([4, 2, 8], &device).require_grad();
//! let q = polestar_kernels::rope(x.clone(), &positions, 10_000.0);
//! let out = polestar_kernels::attention(q, x.clone(), x.clone(), &spans);
//! let gradients = out.sum().backward();
//! assert_eq!(x.grad(&gradients).map(|g| g.dims()), Some([4, 2, 8]));
//! # Ok::<(), polestar_kernels::SpansError>(())
//! ```
//!
//! On the CPU backend (flex, f32) the operations are fused, use the widest instruction set the machine has, and run on the
//! current rayon pool. Work is split by shape alone and every sum has a fixed order: results depend on the instruction
//! set, never on the number of threads. Other backends and element types run [`portable`], which is also the reference
//! that the tests compare with.
//!
//! Shapes are a caller's promise: a function panics, naming the shapes, when they don't fit.

pub mod adamw;
mod autodiff;
mod cpu;
pub mod cuda;
mod extension;
mod positions;
mod spans;

pub mod portable;

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

pub use extension::Kernels;
pub use polestar_core::{Precision, Span};
pub use positions::Positions;
pub use spans::{Spans, SpansError};

/// Softmax attention over a forest of spans, with scale `1 / sqrt(hd)`.
///
/// `q` is `[T, H, hd]`; `k` and `v` are `[T, Hkv, hd]`, where Hkv divides H and query head h reads key and value head
/// `h / (H / Hkv)`. Returns `[T, H, hd]`. Memory grows with T, never with T x T.
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, spans: &Spans) -> Tensor<3> {
    let ([tokens, heads, width], [_, kv_heads, _]) = (q.dims(), k.dims());
    assert!(
        k.dims() == [tokens, kv_heads, width]
            && v.dims() == k.dims()
            && kv_heads > 0
            && heads.is_multiple_of(kv_heads)
            && spans.tokens() == tokens,
        "attention: q {:?}, k {:?}, v {:?} and spans over {} tokens don't fit together",
        q.dims(),
        k.dims(),
        v.dims(),
        spans.tokens(),
    );
    Tensor::from_dispatch(Dispatch::span_attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        spans.clone(),
    ))
}

/// [`rope`] and [`attention`] of a product that holds queries, keys and values.
///
/// `qkv` is `[T, Hkv, H / Hkv + 2, hd]`: for each key and value head the queries that read it, its key, its value. Returns
/// `[T, H, hd]`.
pub fn rotary_attention(
    qkv: Tensor<4>,
    positions: &Positions,
    base: f32,
    spans: &Spans,
) -> Tensor<3> {
    let [tokens, _, parts, width] = qkv.dims();
    assert!(
        parts > 2
            && width.is_multiple_of(2)
            && tokens == positions.ids().len()
            && tokens == spans.tokens(),
        "rotary_attention: qkv {:?}, {} positions and spans over {} tokens don't fit together",
        qkv.dims(),
        positions.ids().len(),
        spans.tokens(),
    );
    Tensor::from_dispatch(Dispatch::rotary_attention(
        qkv.into_dispatch(),
        positions.clone(),
        base,
        spans.clone(),
    ))
}

/// A number, 0, whose gradient with respect to `y` is `gradient`: from here a gradient that another graph computed goes on
/// backwards. `(y * gradient).sum()` has the same gradient, and costs four passes over memory.
pub fn graft<const D: usize>(y: Tensor<D>, gradient: Tensor<D>) -> Tensor<1> {
    assert!(
        y.dims() == gradient.dims(),
        "graft: y {:?} and gradient {:?} must have one shape",
        y.dims(),
        gradient.dims(),
    );
    Tensor::from_dispatch(Dispatch::graft(y.into_dispatch(), gradient.into_dispatch()))
}

/// `x` times the transpose of `weight`: `[T, K]` and `[N, K]` make `[T, N]`.
///
/// Both gradients are products too and are computed with the same [`Precision`].
pub fn linear(x: Tensor<2>, weight: Tensor<2>, precision: Precision) -> Tensor<2> {
    assert!(
        x.dims()[1] == weight.dims()[1],
        "linear: rows {:?} and a weight {:?} don't fit together",
        x.dims(),
        weight.dims(),
    );
    Tensor::from_dispatch(Dispatch::linear_with(
        x.into_dispatch(),
        weight.into_dispatch(),
        precision,
    ))
}

/// `x / sqrt(mean(x^2) + eps) * weight` in every row. `x` is `[T, D]`, `weight` is `[D]`.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f32) -> Tensor<2> {
    assert!(
        x.dims()[1] == weight.dims()[0],
        "rms_norm: rows of {} elements and a weight of {} don't fit together",
        x.dims()[1],
        weight.dims()[0],
    );
    Tensor::from_dispatch(Dispatch::rms_norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        eps,
    ))
}

/// Rotary embedding of `x` `[T, H, hd]`: element i of a head turns with element `i + hd / 2`, by the angle
/// `position * base^(-2i / hd)` (the half rotation of the Llama family; angles in f32).
///
/// The angles' sines and cosines are computed once per [`Positions`] and shared by its clones: make one per pack.
pub fn rope(x: Tensor<3>, positions: &Positions, base: f32) -> Tensor<3> {
    assert!(
        x.dims()[0] == positions.ids().len() && x.dims()[2].is_multiple_of(2),
        "rope: x {:?} and {} positions don't fit together (the last dimension must be even)",
        x.dims(),
        positions.ids().len(),
    );
    Tensor::from_dispatch(Dispatch::rope(x.into_dispatch(), positions.clone(), base))
}

/// `silu(gate) * up`, element by element.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    assert!(
        gate.dims() == up.dims(),
        "swiglu: gate {:?} and up {:?} must have one shape",
        gate.dims(),
        up.dims(),
    );
    Tensor::from_dispatch(Dispatch::swiglu(gate.into_dispatch(), up.into_dispatch()))
}

/// Cross-entropy of each row: `log(sum(exp(logits))) - logits[target]`. `logits` is `[M, V]`; returns `[M]` losses.
pub fn cross_entropy(logits: Tensor<2>, targets: impl Into<Arc<[u32]>>) -> Tensor<1> {
    let ([rows, classes], targets) = (logits.dims(), targets.into());
    assert!(
        targets.len() == rows && targets.iter().all(|&target| (target as usize) < classes),
        "cross_entropy: logits [{rows}, {classes}] need {rows} targets below {classes}, and have {} up to {:?}",
        targets.len(),
        targets.iter().max(),
    );
    Tensor::from_dispatch(Dispatch::cross_entropy(logits.into_dispatch(), targets))
}
