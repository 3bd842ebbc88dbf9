//! One decoder block, forward and backward.
//!
//! ```text
//! x ─ norm ─ wqkv ─ rope ─ attention ─ wo ─(+x)─▶ middle ─ norm ─ w1, w3 ─ swiglu ─ w2 ─(+middle)─▶ y
//! ```

use super::{CudaModel, SegmentWeights, Sizes, pack::Tables, pass::PackOnDevice};
use polestar_kernels::cuda::{
    AttentionView, Bf16, Device, Frame, NormBackward, Operand, Product, View, abi::HeadShape,
};
use std::ops::Range;

// Tensors of a block, in the layout's order.
const WQKV: Range<usize> = 0..1;
const WO: Range<usize> = 1..2;
/// w1 and w3 are neighbours: gates and ups are one product.
const W1_W3: Range<usize> = 2..4;
const W2: Range<usize> = 4..5;
const ATTENTION_NORM: usize = 5;
const FFN_NORM: usize = 6;

/// What a block computes on the way that its gradient needs again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tape {
    /// Rotated.
    qkv: View<Bf16>,
    attended: View<Bf16>,
    log_sums: View<f32>,
    middle: View<Bf16>,
    gate_up: View<Bf16>,
}

/// A block and a pack.
pub(super) struct Block<'a> {
    device: &'a Device,
    sizes: &'a Sizes,
    weights: &'a SegmentWeights,
    tables: Tables,
    rope: [View<f32>; 2],
    tokens: usize,
    x: View<Bf16>,
    /// The gradient of what comes out, and then of what goes in.
    gradient: View<Bf16>,
}

impl<'a> Block<'a> {
    pub(super) fn new(
        model: &'a CudaModel,
        weights: &'a SegmentWeights,
        pack: &PackOnDevice,
    ) -> Block<'a> {
        Block {
            device: model.device(),
            sizes: model.sizes(),
            weights,
            tables: pack.tables,
            rope: pack.rope,
            tokens: pack.prepared.tokens,
            x: pack.x,
            gradient: pack.other,
        }
    }

    /// Room for a tape.
    pub(super) fn take_tape(&self, frame: &Frame<'_>) -> Tape {
        let (tokens, sizes) = (self.tokens, self.sizes);
        Tape {
            qkv: frame.take(tokens * sizes.qkv()),
            attended: frame.take(tokens * sizes.attended()),
            log_sums: frame.take(tokens * sizes.heads),
            middle: frame.take(tokens * sizes.hidden),
            gate_up: frame.take(tokens * 2 * sizes.ffn),
        }
    }

    /// Fills a tape, and gives what comes out of the block.
    pub(super) fn forward(&self, tape: &Tape, y: View<Bf16>, moment: &Frame<'_>) {
        self.fill(tape, moment.take(self.tokens * self.sizes.hidden));
        let product = moment.take(self.tokens * self.sizes.ffn);
        self.device.swiglu(tape.gate_up, product, self.sizes.ffn);
        let (product, w2) = (self.rows(product, self.sizes.ffn), self.weights.matrix(W2));
        self.device
            .product(Product::Forward, product, w2, Some(tape.middle), y);
    }

    /// Fills a tape. `normed` is room for the time being.
    pub(super) fn fill(&self, tape: &Tape, normed: View<Bf16>) {
        let (device, sizes, weights) = (self.device, self.sizes, self.weights);
        device.rms_norm(
            self.x,
            None,
            weights.vector(ATTENTION_NORM),
            sizes.eps,
            normed,
        );
        let rows = self.rows(normed, sizes.hidden);
        device.product(Product::Forward, rows, weights.matrix(WQKV), None, tape.qkv);
        device.rope(tape.qkv, self.rope, self.heads(), false);
        device.attention(&self.attention(tape), &self.tables.forward);
        let attended = self.rows(tape.attended, sizes.attended());
        device.product(
            Product::Forward,
            attended,
            weights.matrix(WO),
            Some(self.x),
            tape.middle,
        );
        device.rms_norm(
            tape.middle,
            None,
            weights.vector(FFN_NORM),
            sizes.eps,
            normed,
        );
        device.product(
            Product::Forward,
            rows,
            weights.matrix(W1_W3),
            None,
            tape.gate_up,
        );
    }

    /// Turns the gradient of what comes out into that of what goes in, and adds the weights' to the segment's. The tape is
    /// used up.
    pub(super) fn backward(&self, tape: &Tape, whole: View<f32>, moment: &Frame<'_>) {
        let normed = moment.take(self.tokens * self.sizes.hidden);
        let partials = NormBackward::partials(self.tokens) * self.sizes.hidden;
        let partials = moment.take(partials);
        {
            let moment = moment.open();
            self.backward_ffn(
                tape,
                whole,
                normed,
                moment.take(self.tokens * self.sizes.ffn),
            );
        }
        self.backward_norm(FFN_NORM, tape.middle, normed, whole, partials);
        {
            let moment = moment.open();
            self.backward_attention(tape, whole, normed, &moment);
        }
        self.backward_norm(ATTENTION_NORM, self.x, normed, whole, partials);
    }

    /// From the gradient of what comes out to that of the second norm's output, in `normed`.
    fn backward_ffn(&self, tape: &Tape, whole: View<f32>, normed: View<Bf16>, product: View<Bf16>) {
        let (device, sizes, weights) = (self.device, self.sizes, self.weights);
        let out = self.rows(self.gradient, sizes.hidden);
        device.product(Product::Input, out, weights.matrix(W2), None, product);
        // Now gates and ups are their gradients, and the product's gradient is the product.
        device.swiglu_backward(tape.gate_up, product, sizes.ffn);
        let product = self.rows(product, sizes.ffn);
        device.accumulate(Product::Weight, out, product, weights.gradient(whole, W2));
        device.rms_norm(
            tape.middle,
            None,
            weights.vector(FFN_NORM),
            sizes.eps,
            normed,
        );
        let gate_up = self.rows(tape.gate_up, 2 * sizes.ffn);
        let rows = self.rows(normed, sizes.hidden);
        device.accumulate(
            Product::Weight,
            gate_up,
            rows,
            weights.gradient(whole, W1_W3),
        );
        device.product(Product::Input, gate_up, weights.matrix(W1_W3), None, normed);
    }

    /// From the gradient of the middle to that of the first norm's output, in `normed`.
    fn backward_attention(
        &self,
        tape: &Tape,
        whole: View<f32>,
        normed: View<Bf16>,
        moment: &Frame<'_>,
    ) {
        let (device, sizes, weights) = (self.device, self.sizes, self.weights);
        let attended_grad = moment.take(self.tokens * sizes.attended());
        let delta = moment.take(self.tokens * sizes.heads);
        let qkv_grad = moment.take(self.tokens * sizes.qkv());
        let middle = self.rows(self.gradient, sizes.hidden);
        device.product(
            Product::Input,
            middle,
            weights.matrix(WO),
            None,
            attended_grad,
        );
        let attended = self.rows(tape.attended, sizes.attended());
        device.accumulate(
            Product::Weight,
            middle,
            attended,
            weights.gradient(whole, WO),
        );
        let [queries, keys] = &self.tables.gradients;
        let views = self.attention(tape);
        device.attention_backward(&views, [queries, keys], attended_grad, delta, qkv_grad);
        device.rope(qkv_grad, self.rope, self.heads(), true);
        device.rms_norm(
            self.x,
            None,
            weights.vector(ATTENTION_NORM),
            sizes.eps,
            normed,
        );
        let (grad, rows) = (
            self.rows(qkv_grad, sizes.qkv()),
            self.rows(normed, sizes.hidden),
        );
        device.accumulate(Product::Weight, grad, rows, weights.gradient(whole, WQKV));
        device.product(Product::Input, grad, weights.matrix(WQKV), None, normed);
    }

    /// Adds the gradient that came through a norm to the one that came past it.
    fn backward_norm(
        &self,
        tensor: usize,
        x: View<Bf16>,
        grad: View<Bf16>,
        whole: View<f32>,
        partials: View<f32>,
    ) {
        self.device.rms_norm_backward(NormBackward {
            x,
            picked: None,
            scale: self.weights.vector(tensor),
            eps: self.sizes.eps,
            grad,
            residual: Some(self.gradient),
            x_grad: self.gradient,
            scale_grad: self.weights.gradient(whole, tensor..tensor + 1),
            partials,
        });
    }

    fn rows(&self, view: View<Bf16>, width: usize) -> Operand {
        Operand::new(view, self.tokens, width)
    }

    fn heads(&self) -> HeadShape {
        HeadShape {
            kv_heads: self.sizes.kv_heads as u32,
            group: (self.sizes.heads / self.sizes.kv_heads) as u32,
            width: self.sizes.head_dim as u32,
        }
    }

    fn attention(&self, tape: &Tape) -> AttentionView {
        AttentionView {
            qkv: tape.qkv,
            out: tape.attended,
            log_sums: tape.log_sums,
            tokens: self.tokens,
            heads: self.heads(),
        }
    }
}
