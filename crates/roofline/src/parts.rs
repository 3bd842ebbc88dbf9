//! Seconds of a step's computation on one GPU, by part.

use crate::{Attention, Gpu, Workload};
use polestar_model::count;

/// Bytes that AdamW and the norm before it move for a parameter: gradient, weight and both moments are read, the
/// gradient once more; weight and moments are written, and the weight in bf16.
const OPTIMIZER_BYTES: f64 = 5.0 * 4.0 + 3.0 * 4.0 + 2.0;
/// Bytes that adding a gradient to another one moves for a parameter.
const SUM_BYTES: f64 = 12.0;
/// What launches, the embedding and the host take of all the rest.
const LAUNCHES: f64 = 0.02;
/// Bytes of a number that is computed with.
pub(crate) const COMPUTED: f64 = 2.0;

/// How much of the work falls on one GPU in a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Triplets.
    pub(crate) triplets: f64,
    /// Lanes.
    pub(crate) lanes: f64,
    /// Parameters that it updates.
    pub(crate) updated: f64,
    /// Whether blocks are computed again in the backward pass.
    pub(crate) recompute: bool,
}

/// Seconds of a step on one GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts {
    /// Linear layers.
    pub products: f64,
    /// Attention.
    pub attention: f64,
    /// Norms, rotation, gating.
    pub elementwise: f64,
    /// AdamW and the norm of the gradient.
    pub optimizer: f64,
    /// Adding up lanes.
    pub lane_sum: f64,
    /// Launches, embedding, host.
    pub launches: f64,
    /// For traffic that nothing hides.
    pub waiting: f64,
}

impl Parts {
    /// The step.
    pub fn total(&self) -> f64 {
        self.computing() + self.waiting
    }

    /// The step, were there no traffic.
    pub fn computing(&self) -> f64 {
        self.passes() + self.optimizer + self.lane_sum
    }

    /// Forward and backward passes.
    pub(crate) fn passes(&self) -> f64 {
        self.products + self.attention + self.elementwise + self.launches
    }

    /// Each with its name.
    pub fn named(&self) -> [(&'static str, f64); 7] {
        [
            ("products", self.products),
            ("attention", self.attention),
            ("elementwise", self.elementwise),
            ("optimizer", self.optimizer),
            ("lane sum", self.lane_sum),
            ("launches", self.launches),
            ("waiting", self.waiting),
        ]
    }
}

/// What a GPU computes in a step.
pub(crate) fn computing(work: &Workload, gpu: &Gpu, kernel: Attention, share: Share) -> Parts {
    let (tokens, pairs) = (work.lengths.tokens(), work.lengths.pairs());
    let once = if share.recompute { 1.0 } else { 0.0 };
    // Forward once, backward twice, and forward again where nothing was kept.
    let products = count::flops_executed(work.model(), tokens as u64, 0) * (3.0 + once) / 3.0;

    let (kind, rates) = gpu.attention(kernel);
    let model = work.model();
    let width = f64::from(model.num_attention_heads * model.head_dim());
    let product = 2.0 * width * f64::from(model.num_hidden_layers) * pairs;
    let attention = product * 2.0 * (1.0 + once) / rates.forward
        + product * kind.backward_products() / rates.backward;

    let (forward, backward) = elementwise(work);
    let elementwise = tokens * (forward * (1.0 + once) + backward) / gpu.memory_rate();

    let mut parts = Parts {
        products: share.triplets * products / (gpu.peak * gpu.product_share),
        attention: share.triplets * attention,
        elementwise: share.triplets * elementwise,
        optimizer: share.updated * OPTIMIZER_BYTES / gpu.memory_rate(),
        lane_sum: share.lanes * work.parameters() * SUM_BYTES / gpu.memory_rate(),
        ..Parts::default()
    };
    parts.launches = LAUNCHES * parts.computing();
    parts
}

/// Bytes that kernels other than products and attention read and write for a token, forward and backward.
fn elementwise(work: &Workload) -> (f64, f64) {
    let model = work.model();
    let [hidden, gated] = [model.hidden_size, model.intermediate_size].map(f64::from);
    let head = f64::from(model.head_dim());
    let queries = f64::from(model.num_attention_heads) * head;
    let turned = queries + f64::from(model.num_key_value_heads) * head;
    // Two norms read and write a row; the rotation turns queries and keys in place; gating reads two rows, writes one.
    let forward = 2.0 * 2.0 * hidden + 2.0 * turned + 3.0 * gated;
    // Norms are computed again and their gradients read two rows, add to a third and write it; the rotation turns
    // back; gating reads its gradient and both inputs, and writes two gradients and its product again; attention reads
    // its output and the gradient of it once more, for their product.
    let backward = 2.0 * (2.0 + 4.0) * hidden + 2.0 * turned + 6.0 * gated + 2.0 * queries;
    let bytes = COMPUTED * f64::from(model.num_hidden_layers);
    (forward * bytes, backward * bytes)
}
