//! The backend extension: which operations there are, and who runs them.

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use crate::{Positions, Precision, Spans, portable};

/// Fused operations and their gradients. Every method has a default made of plain burn operations.
///
/// The functions at the root of this crate are the way to call the forward operations; a `*_backward` method takes what
/// the forward one read, and the gradient of its output.
#[backend_extension(Flex, LibTorch: cfg(feature = "tch"), Cube: cfg(feature = "cube"), Autodiff)]
pub trait Kernels: Backend {
    /// As [`crate::attention`].
    fn span_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        spans: Spans,
    ) -> FloatTensor<Self> {
        Self::span_attention_forward(q, k, v, spans).0
    }

    /// Attention, and the log of the sum of exponentials of each token's scores, `[T, H]`.
    fn span_attention_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        spans: Spans,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        portable::attention::<Self>(q, k, v, &spans)
    }

    /// Gradients of q, k and v. `out` and `log_sums` are what [`Kernels::span_attention_forward`] returned.
    #[allow(
        clippy::too_many_arguments,
        reason = "the extension hands on tensors only as arguments of their own"
    )]
    fn span_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        out: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spans: Spans,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let attended = portable::Attended {
            q,
            k,
            v,
            out,
            log_sums,
        };
        portable::attention_backward::<Self>(attended, grad, &spans)
    }

    /// As [`crate::rotary_attention`].
    fn rotary_attention(
        qkv: FloatTensor<Self>,
        positions: Positions,
        base: f32,
        spans: Spans,
    ) -> FloatTensor<Self> {
        let (q, k, v) = Self::split_heads(qkv, positions, base);
        Self::span_attention(q, k, v, spans)
    }

    /// Parts `[T, Hkv, H / Hkv + 2, hd]` into q `[T, H, hd]`, k and v `[T, Hkv, hd]`, and turns q and k as [`crate::rope`].
    fn split_heads(
        qkv: FloatTensor<Self>,
        positions: Positions,
        base: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        portable::split_heads::<Self>(qkv, &positions, base)
    }

    /// Gradient of qkv.
    fn split_heads_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        positions: Positions,
        base: f32,
    ) -> FloatTensor<Self> {
        portable::split_heads_backward::<Self>(q, k, v, &positions, base)
    }

    /// As [`crate::graft`].
    fn graft(y: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        drop(gradient);
        portable::zero::<Self>(&y)
    }

    /// As [`crate::linear`]. (burn has a `linear` of its own, without a precision.)
    fn linear_with(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        portable::linear::<Self>(x, weight, precision)
    }

    /// Gradients of x and weight.
    fn linear_with_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        portable::linear_backward::<Self>(x, weight, grad, precision)
    }

    /// As [`crate::rms_norm`].
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        portable::rms_norm::<Self>(x, weight, eps)
    }

    /// Gradients of x and weight.
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        portable::rms_norm_backward::<Self>(x, weight, grad, eps)
    }

    /// As [`crate::rope`].
    fn rope(x: FloatTensor<Self>, positions: Positions, base: f32) -> FloatTensor<Self> {
        portable::rope::<Self>(x, &positions, base)
    }

    /// Gradient of x: the rotation by the opposite angles.
    fn rope_backward(
        grad: FloatTensor<Self>,
        positions: Positions,
        base: f32,
    ) -> FloatTensor<Self> {
        portable::rope_backward::<Self>(grad, &positions, base)
    }

    /// As [`crate::swiglu`].
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::swiglu::<Self>(gate, up)
    }

    /// Gradients of gate and up.
    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        portable::swiglu_backward::<Self>(gate, up, grad)
    }

    /// As [`crate::cross_entropy`].
    fn cross_entropy(logits: FloatTensor<Self>, targets: Arc<[u32]>) -> FloatTensor<Self> {
        portable::cross_entropy::<Self>(logits, &targets)
    }

    /// Gradient of the logits. `losses` is what [`Kernels::cross_entropy`] returned.
    fn cross_entropy_backward(
        logits: FloatTensor<Self>,
        losses: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        targets: Arc<[u32]>,
    ) -> FloatTensor<Self> {
        portable::cross_entropy_backward::<Self>(logits, losses, grad, &targets)
    }
}

/// Plain operations: libtorch has fused kernels of its own for most of them.
#[cfg(feature = "tch")]
impl Kernels for burn::backend::LibTorch {}

/// Plain operations: what is portable over wgpu and CUDA, and the same bits every time (no autotune, no fusion, no
/// kernel that adds atomically).
#[cfg(feature = "cube")]
impl Kernels for burn::backend::Cube {}
