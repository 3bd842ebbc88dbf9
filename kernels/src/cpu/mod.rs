//! The fused operations on the CPU backend (flex). Element types other than f32 take the portable path.

mod attention;
mod matrix;
mod product;
mod rows;
mod simd;

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Shape, TensorData};

use crate::{Kernels, Positions, Precision, Spans, portable};
use attention::{Dims, Saved};
use matrix::Matrix;

impl Kernels for Flex {
    fn span_attention_forward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        spans: Spans,
    ) -> (FlexTensor, FlexTensor) {
        if !all_f32([&q, &k, &v]) {
            return portable::attention::<Self>(q, k, v, &spans);
        }
        let (q, k, v) = (Rows::new(q), Rows::new(k), Rows::new(v));
        let dims = dims(&q, &k);
        let (out, log_sums) = attention::forward(q.values(), k.values(), v.values(), dims, &spans);
        (
            tensor(out, q.shape()),
            tensor(log_sums, Shape::from([dims.tokens, dims.heads])),
        )
    }

    fn span_attention_backward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        out: FlexTensor,
        log_sums: FlexTensor,
        grad: FlexTensor,
        spans: Spans,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        if !all_f32([&q, &k, &v, &out, &log_sums, &grad]) {
            let attended = portable::Attended {
                q,
                k,
                v,
                out,
                log_sums,
            };
            return portable::attention_backward::<Self>(attended, grad, &spans);
        }
        let (q, k, v) = (Rows::new(q), Rows::new(k), Rows::new(v));
        let (out, log_sums, grad) = (Rows::new(out), Rows::new(log_sums), Rows::new(grad));
        let saved = Saved {
            q: q.values(),
            k: k.values(),
            v: v.values(),
            out: out.values(),
            log_sums: log_sums.values(),
            dims: dims(&q, &k),
        };
        let [q_grad, k_grad, v_grad] = attention::backward(&saved, grad.values(), &spans);
        (
            tensor(q_grad, q.shape()),
            tensor(k_grad, k.shape()),
            tensor(v_grad, v.shape()),
        )
    }

    fn rms_norm(x: FlexTensor, weight: FlexTensor, eps: f32) -> FlexTensor {
        if !all_f32([&x, &weight]) {
            return portable::rms_norm::<Self>(x, weight, eps);
        }
        let (x, weight) = (Rows::new(x), Rows::new(weight));
        tensor(rows::rms_norm(x.values(), weight.values(), eps), x.shape())
    }

    fn rms_norm_backward(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        eps: f32,
    ) -> (FlexTensor, FlexTensor) {
        if !all_f32([&x, &weight, &grad]) {
            return portable::rms_norm_backward::<Self>(x, weight, grad, eps);
        }
        let (x, weight, grad) = (Rows::new(x), Rows::new(weight), Rows::new(grad));
        let (x_grad, weight_grad) =
            rows::rms_norm_backward(x.values(), weight.values(), grad.values(), eps);
        (
            tensor(x_grad, x.shape()),
            tensor(weight_grad, weight.shape()),
        )
    }

    fn rope(x: FlexTensor, positions: Positions, base: f32) -> FlexTensor {
        if !all_f32([&x]) {
            return portable::rope::<Self>(x, &positions, base);
        }
        rotate(x, &positions, base, false)
    }

    fn rope_backward(grad: FlexTensor, positions: Positions, base: f32) -> FlexTensor {
        if !all_f32([&grad]) {
            return portable::rope_backward::<Self>(grad, &positions, base);
        }
        rotate(grad, &positions, base, true)
    }

    fn swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        if !all_f32([&gate, &up]) {
            return portable::swiglu::<Self>(gate, up);
        }
        let (gate, up) = (Rows::new(gate), Rows::new(up));
        tensor(rows::swiglu(gate.values(), up.values()), gate.shape())
    }

    fn swiglu_backward(
        gate: FlexTensor,
        up: FlexTensor,
        grad: FlexTensor,
    ) -> (FlexTensor, FlexTensor) {
        if !all_f32([&gate, &up, &grad]) {
            return portable::swiglu_backward::<Self>(gate, up, grad);
        }
        let (gate, up, grad) = (Rows::new(gate), Rows::new(up), Rows::new(grad));
        let (gate_grad, up_grad) = rows::swiglu_backward(gate.values(), up.values(), grad.values());
        (tensor(gate_grad, gate.shape()), tensor(up_grad, up.shape()))
    }

    fn split_heads(
        qkv: FlexTensor,
        positions: Positions,
        base: f32,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        if !all_f32([&qkv]) {
            return portable::split_heads::<Self>(qkv, &positions, base);
        }
        let qkv = Rows::new(qkv);
        let [tokens, kv_heads, parts, width] = qkv.shape().dims();
        let rotations = positions.rotations(base, width);
        let (q, k, v) = rows::split_heads(qkv.values(), [kv_heads, parts - 2], &rotations);
        let shape = |heads| Shape::from([tokens, heads, width]);
        (
            tensor(q, shape(kv_heads * (parts - 2))),
            tensor(k, shape(kv_heads)),
            tensor(v, shape(kv_heads)),
        )
    }

    fn split_heads_backward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        positions: Positions,
        base: f32,
    ) -> FlexTensor {
        if !all_f32([&q, &k, &v]) {
            return portable::split_heads_backward::<Self>(q, k, v, &positions, base);
        }
        let (q, k, v) = (Rows::new(q), Rows::new(k), Rows::new(v));
        let [tokens, kv_heads, width] = k.shape().dims();
        let group = q.shape()[1] / kv_heads;
        let rotations = positions.rotations(base, width);
        let grads = [q.values(), k.values(), v.values()];
        let qkv = rows::split_heads_backward(grads, [kv_heads, group], &rotations);
        tensor(qkv, Shape::from([tokens, kv_heads, group + 2, width]))
    }

    fn linear_with(x: FlexTensor, weight: FlexTensor, precision: Precision) -> FlexTensor {
        if precision == Precision::F32 || !all_f32([&x, &weight]) {
            return portable::linear::<Self>(x, weight, precision);
        }
        let (x, weight) = (Rows::new(x), Rows::new(weight));
        let ([m, k], n) = (x.shape().dims(), weight.shape()[0]);
        let out = product::bf16(x.matrix(), weight.matrix().transposed(), [m, k, n]);
        tensor(out, Shape::from([m, n]))
    }

    fn linear_with_backward(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        precision: Precision,
    ) -> (FlexTensor, FlexTensor) {
        if precision == Precision::F32 || !all_f32([&x, &weight, &grad]) {
            return portable::linear_backward::<Self>(x, weight, grad, precision);
        }
        let (x, weight, grad) = (Rows::new(x), Rows::new(weight), Rows::new(grad));
        let ([m, k], n) = (x.shape().dims(), weight.shape()[0]);
        let x_grad = product::bf16(grad.matrix(), weight.matrix(), [m, n, k]);
        let weight_grad = product::bf16(grad.matrix().transposed(), x.matrix(), [n, m, k]);
        (
            tensor(x_grad, x.shape()),
            tensor(weight_grad, weight.shape()),
        )
    }

    fn cross_entropy(logits: FlexTensor, targets: Arc<[u32]>) -> FlexTensor {
        if !all_f32([&logits]) {
            return portable::cross_entropy::<Self>(logits, &targets);
        }
        let losses = rows::cross_entropy(Rows::new(logits).values(), &targets);
        tensor(losses, Shape::from([targets.len()]))
    }

    fn cross_entropy_backward(
        logits: FlexTensor,
        losses: FlexTensor,
        grad: FlexTensor,
        targets: Arc<[u32]>,
    ) -> FlexTensor {
        if !all_f32([&logits, &losses, &grad]) {
            return portable::cross_entropy_backward::<Self>(logits, losses, grad, &targets);
        }
        let (losses, grad) = (Rows::new(losses), Rows::new(grad));
        Rows::new(logits).update(|logits| {
            rows::cross_entropy_backward(logits, losses.values(), grad.values(), &targets);
        })
    }
}

fn all_f32<const N: usize>(tensors: [&FlexTensor; N]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

fn dims(q: &Rows, k: &Rows) -> Dims {
    Dims {
        tokens: q.shape()[0],
        heads: q.shape()[1],
        kv_heads: k.shape()[1],
        width: q.shape()[2],
    }
}

fn rotate(x: FlexTensor, positions: &Positions, base: f32, back: bool) -> FlexTensor {
    let (heads, width) = (x.layout().shape()[1], x.layout().shape()[2]);
    let rotations = positions.rotations(base, width);
    Rows::new(x).update(|x| rows::rotate(x, heads, &rotations, back))
}

fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// An f32 tensor whose elements lie in row order, one after the other. A view is copied only if they don't.
struct Rows(FlexTensor);

impl Rows {
    fn new(tensor: FlexTensor) -> Self {
        Self(if tensor.is_contiguous() {
            tensor
        } else {
            tensor.to_contiguous()
        })
    }

    fn shape(&self) -> Shape {
        self.0.layout().shape().clone()
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::new(self.values(), self.shape()[1])
    }

    fn values(&self) -> &[f32] {
        self.0
            .as_slice()
            .expect("a contiguous tensor whose type was checked")
    }

    /// Changes the elements, in place where no one else holds them.
    fn update(self, change: impl FnOnce(&mut [f32])) -> FlexTensor {
        // A view into a larger buffer becomes a tensor of its own. `self.0` must be gone before `storage_mut` looks
        // for other owners.
        let mut whole = self.0.to_contiguous();
        drop(self);
        change(whole.storage_mut());
        whole
    }
}
