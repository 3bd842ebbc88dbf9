//! The operations on an autodiff backend: forward on the inner backend, then one node with a hand-written backward step.

use std::sync::Arc;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

use crate::{Kernels, Positions, Precision, Spans, portable::Attended};

impl<B: Kernels, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn span_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        spans: Spans,
    ) -> FloatTensor<Self> {
        let ((q, q_node), (k, k_node), (v, v_node)) =
            (q.into_parts(), k.into_parts(), v.into_parts());
        let prepared = AttentionStep
            .prepare::<C>([q_node, k_node, v_node])
            .compute_bound()
            .stateful();
        match prepared {
            OpsKind::Tracked(prepared) => {
                let attended = attend::<B>(q, k, v, spans.clone());
                let out = attended.out.clone();
                prepared.finish((attended, spans), out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::span_attention(q, k, v, spans)),
        }
    }

    fn rotary_attention(
        qkv: FloatTensor<Self>,
        positions: Positions,
        base: f32,
        spans: Spans,
    ) -> FloatTensor<Self> {
        let (qkv, node) = qkv.into_parts();
        let prepared = RotaryAttentionStep
            .prepare::<C>([node])
            .compute_bound()
            .stateful();
        match prepared {
            OpsKind::Tracked(prepared) => {
                let (q, k, v) = B::split_heads(qkv, positions.clone(), base);
                let attended = attend::<B>(q, k, v, spans.clone());
                let out = attended.out.clone();
                prepared.finish((attended, spans, positions, base), out)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::rotary_attention(qkv, positions, base, spans))
            }
        }
    }

    fn graft(y: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((y, node), (gradient, _)) = (y.into_parts(), gradient.into_parts());
        let prepared = GraftStep.prepare::<C>([node]).compute_bound().stateful();
        match prepared {
            OpsKind::Tracked(prepared) => {
                let zero = B::graft(y, gradient.clone());
                prepared.finish(gradient, zero)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::graft(y, gradient)),
        }
    }

    fn linear_with(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let prepared = LinearStep
            .prepare::<C>([x_node, weight_node])
            .compute_bound()
            .stateful();
        match prepared {
            OpsKind::Tracked(prepared) => {
                let out = B::linear_with(x.clone(), weight.clone(), precision);
                prepared.finish((x, weight, precision), out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::linear_with(x, weight, precision)),
        }
    }

    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let prepared = RmsNormStep
            .prepare::<C>([x_node, weight_node])
            .compute_bound()
            .stateful();
        match prepared {
            OpsKind::Tracked(prepared) => {
                let out = B::rms_norm(x.clone(), weight.clone(), eps);
                prepared.finish((x, weight, eps), out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::rms_norm(x, weight, eps)),
        }
    }

    fn rope(x: FloatTensor<Self>, positions: Positions, base: f32) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let prepared = RopeStep.prepare::<C>([node]).compute_bound().stateful();
        match prepared {
            OpsKind::Tracked(prepared) => {
                let out = B::rope(x, positions.clone(), base);
                prepared.finish((positions, base), out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::rope(x, positions, base)),
        }
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((gate, gate_node), (up, up_node)) = (gate.into_parts(), up.into_parts());
        let prepared = SwigluStep
            .prepare::<C>([gate_node, up_node])
            .compute_bound()
            .stateful();
        match prepared {
            OpsKind::Tracked(prepared) => {
                let out = B::swiglu(gate.clone(), up.clone());
                prepared.finish((gate, up), out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::swiglu(gate, up)),
        }
    }

    fn cross_entropy(logits: FloatTensor<Self>, targets: Arc<[u32]>) -> FloatTensor<Self> {
        let (logits, node) = logits.into_parts();
        let prepared = CrossEntropyStep
            .prepare::<C>([node])
            .compute_bound()
            .stateful();
        match prepared {
            OpsKind::Tracked(prepared) => {
                let losses = B::cross_entropy(logits.clone(), targets.clone());
                prepared.finish((logits, losses.clone(), targets), losses)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::cross_entropy(logits, targets)),
        }
    }
}

/// Attention, with all that its gradient needs.
fn attend<B: Kernels>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    spans: Spans,
) -> Attended<B> {
    let (out, log_sums) = B::span_attention_forward(q.clone(), k.clone(), v.clone(), spans);
    Attended {
        q,
        k,
        v,
        out,
        log_sums,
    }
}

/// Gradients of q, k and v, by that of what attention returned.
fn unattend<B: Kernels>(
    attended: Attended<B>,
    grad: FloatTensor<B>,
    spans: Spans,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let Attended {
        q,
        k,
        v,
        out,
        log_sums,
    } = attended;
    B::span_attention_backward(q, k, v, out, log_sums, grad, spans)
}

/// Hands each gradient to its parent, where that parent is tracked.
fn register<B: Backend, const N: usize>(
    grads: &mut Gradients,
    parents: [Option<NodeId>; N],
    gradients: [FloatTensor<B>; N],
) {
    for (parent, gradient) in parents.into_iter().zip(gradients) {
        if let Some(parent) = parent {
            grads.register::<B>(parent, gradient);
        }
    }
}

#[derive(Debug)]
struct AttentionStep;

impl<B: Kernels> Backward<B, 3> for AttentionStep {
    type State = (Attended<B>, Spans);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        let grad = grads.consume::<B>(&ops.node);
        let (attended, spans) = ops.state;
        let (q, k, v) = unattend::<B>(attended, grad, spans);
        register::<B, 3>(grads, parents, [q, k, v]);
    }
}

#[derive(Debug)]
struct RotaryAttentionStep;

impl<B: Kernels> Backward<B, 1> for RotaryAttentionStep {
    /// What attention did, and positions and base of the rotation before it.
    type State = (Attended<B>, Spans, Positions, f32);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        let grad = grads.consume::<B>(&ops.node);
        let (attended, spans, positions, base) = ops.state;
        let (q, k, v) = unattend::<B>(attended, grad, spans);
        let qkv = B::split_heads_backward(q, k, v, positions, base);
        register::<B, 1>(grads, parents, [qkv]);
    }
}

#[derive(Debug)]
struct GraftStep;

impl<B: Kernels> Backward<B, 1> for GraftStep {
    /// The gradient.
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        grads.consume::<B>(&ops.node);
        register::<B, 1>(grads, parents, [ops.state]);
    }
}

#[derive(Debug)]
struct LinearStep;

impl<B: Kernels> Backward<B, 2> for LinearStep {
    /// x, weight, precision.
    type State = (FloatTensor<B>, FloatTensor<B>, Precision);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        let grad = grads.consume::<B>(&ops.node);
        let (x, weight, precision) = ops.state;
        let (x, weight) = B::linear_with_backward(x, weight, grad, precision);
        register::<B, 2>(grads, parents, [x, weight]);
    }
}

#[derive(Debug)]
struct RmsNormStep;

impl<B: Kernels> Backward<B, 2> for RmsNormStep {
    /// x, weight, eps.
    type State = (FloatTensor<B>, FloatTensor<B>, f32);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        let grad = grads.consume::<B>(&ops.node);
        let (x, weight, eps) = ops.state;
        let (x, weight) = B::rms_norm_backward(x, weight, grad, eps);
        register::<B, 2>(grads, parents, [x, weight]);
    }
}

#[derive(Debug)]
struct RopeStep;

impl<B: Kernels> Backward<B, 1> for RopeStep {
    /// Positions, base.
    type State = (Positions, f32);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        let grad = grads.consume::<B>(&ops.node);
        let (positions, base) = ops.state;
        let x = B::rope_backward(grad, positions, base);
        register::<B, 1>(grads, parents, [x]);
    }
}

#[derive(Debug)]
struct SwigluStep;

impl<B: Kernels> Backward<B, 2> for SwigluStep {
    /// gate, up.
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        let grad = grads.consume::<B>(&ops.node);
        let (gate, up) = ops.state;
        let (gate, up) = B::swiglu_backward(gate, up, grad);
        register::<B, 2>(grads, parents, [gate, up]);
    }
}

#[derive(Debug)]
struct CrossEntropyStep;

impl<B: Kernels> Backward<B, 1> for CrossEntropyStep {
    /// Logits, losses, targets.
    type State = (FloatTensor<B>, FloatTensor<B>, Arc<[u32]>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        let grad = grads.consume::<B>(&ops.node);
        let (logits, losses, targets) = ops.state;
        let logits = B::cross_entropy_backward(logits, losses, grad, targets);
        register::<B, 1>(grads, parents, [logits]);
    }
}
