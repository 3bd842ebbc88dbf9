//! The forward pass of each segment.

use crate::{ModelConfig, layout::SegmentLayout};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use polestar_core::Precision;
use polestar_kernels::{
    Positions, Spans, cross_entropy, linear, rms_norm, rotary_attention, swiglu,
};
use rayon::prelude::*;
use std::sync::Arc;

/// What a pack tells every segment.
#[derive(Clone, Debug)]
pub struct PackInput {
    /// Token ids, `[tokens]`.
    pub ids: Arc<[u32]>,
    /// Rotary position of each token.
    pub positions: Positions,
    /// Which token sees which.
    pub spans: Spans,
    /// Rows of the reward tokens: the positive of each triplet, then its negative, interleaved.
    pub reward_rows: Arc<[u32]>,
    /// Rows whose next token is predicted (language objective).
    pub target_rows: Arc<[u32]>,
    /// The token that follows each of `target_rows`.
    pub targets: Arc<[u32]>,
    /// Weight of each target in the loss.
    pub target_weights: Arc<[f32]>,
}

impl PackInput {
    /// The mean loss of each triplet, from that of each target. Targets of a triplet follow each other; its weights are all
    /// equal, so a change of row by more than one starts the next triplet.
    pub fn mean_by_triplet(&self, losses: &[f32]) -> Vec<f32> {
        let mut means = Vec::new();
        let mut from = 0;
        for at in 1..=losses.len() {
            let next = self.target_rows.get(at).copied();
            if next != Some(self.target_rows[at - 1] + 1) {
                let part = &losses[from..at];
                let sum: f64 = part.iter().map(|&l| f64::from(l)).sum();
                means.push((sum / part.len() as f64) as f32);
                from = at;
            }
        }
        means
    }
}

/// The parameters of one segment on a device: one leaf tensor for each
/// [`TensorLayout`](crate::TensorLayout), in canonical order.
#[derive(Clone, Debug)]
pub struct Weights(pub Vec<Tensor<2>>);

impl Weights {
    /// Copies a segment's flat vector to the device. With `tracked`, gradients can be asked for.
    pub fn from_flat(
        segment: &SegmentLayout,
        flat: &[f32],
        device: &Device,
        tracked: bool,
    ) -> Weights {
        Weights(
            segment
                .tensors
                .par_iter()
                .map(|t| {
                    let data = TensorData::new(flat[t.range()].to_vec(), t.shape);
                    let tensor = Tensor::from_data(data, device);
                    if tracked {
                        tensor.require_grad()
                    } else {
                        tensor
                    }
                })
                .collect(),
        )
    }
}

/// Rewards of a pack and the loss they make.
#[derive(Clone, Debug)]
pub struct PolarOutput {
    /// `[triplets, 2]`: reward of the positive, reward of the negative.
    pub rewards: Tensor<2>,
    /// `[triplets]`: -ln σ(positive - negative).
    pub losses: Tensor<1>,
}

/// Token ids to `[tokens, hidden]`.
pub fn embed(weights: &Weights, pack: &PackInput) -> Tensor<2> {
    let table = &weights.0[0];
    let ids = rows(&pack.ids, &table.device());
    table.clone().select(0, ids)
}

/// One decoder block, `[tokens, hidden]` to `[tokens, hidden]`.
pub fn block(
    config: &ModelConfig,
    weights: &Weights,
    x: Tensor<2>,
    pack: &PackInput,
    precision: Precision,
) -> Tensor<2> {
    let [wqkv, wo, w1, w3, w2, attention_norm, ffn_norm] = &weights.0[..] else {
        unreachable!("a block has seven tensors by construction of its layout");
    };
    let [tokens, hidden] = x.dims();
    let eps = config.rms_norm_eps;
    let head_dim = config.head_dim() as usize;
    let heads = config.num_attention_heads as usize;
    let kv_heads = config.num_key_value_heads as usize;
    let group = heads / kv_heads;
    let vector = |w: &Tensor<2>| w.clone().reshape([hidden]);

    let n = rms_norm(x.clone(), vector(attention_norm), eps);
    let qkv = linear(n, wqkv.clone(), precision).reshape([tokens, kv_heads, group + 2, head_dim]);
    let a = rotary_attention(qkv, &pack.positions, config.rope_theta, &pack.spans)
        .reshape([tokens, heads * head_dim]);
    let x = x + linear(a, wo.clone(), precision);

    let n = rms_norm(x.clone(), vector(ffn_norm), eps);
    let gate = linear(n.clone(), w1.clone(), precision);
    let up = linear(n, w3.clone(), precision);
    x + linear(swiglu(gate, up), w2.clone(), precision)
}

/// Final norm and reward head on the reward tokens' rows only.
pub fn polar_head(
    config: &ModelConfig,
    weights: &Weights,
    x: Tensor<2>,
    pack: &PackInput,
) -> PolarOutput {
    let device = x.device();
    let n = normed_rows(config, weights, x, &pack.reward_rows, &device);
    let triplets = pack.reward_rows.len() / 2;
    // A dot product as a sum: a matrix product with one column would leave its order to the
    // library's choice of kernel.
    let rewards = (n * weights.0[1].clone()).sum_dim(1).reshape([triplets, 2]);
    let margin =
        rewards.clone().slice([0..triplets, 0..1]) - rewards.clone().slice([0..triplets, 1..2]);
    let losses = activation::log_sigmoid(margin).neg().reshape([triplets]);
    PolarOutput { rewards, losses }
}

/// Final norm and next-token loss, `[targets]`, unweighted.
pub fn language_head(
    config: &ModelConfig,
    weights: &Weights,
    x: Tensor<2>,
    pack: &PackInput,
    precision: Precision,
) -> Tensor<1> {
    let device = x.device();
    let n = normed_rows(config, weights, x, &pack.target_rows, &device);
    let logits = linear(n, weights.0[1].clone(), precision);
    cross_entropy(logits, pack.targets.clone())
}

fn normed_rows(
    config: &ModelConfig,
    weights: &Weights,
    x: Tensor<2>,
    at: &[u32],
    device: &Device,
) -> Tensor<2> {
    let hidden = config.hidden_size as usize;
    let picked = x.select(0, rows(at, device));
    let scale = weights.0[0].clone().reshape([hidden]);
    rms_norm(picked, scale, config.rms_norm_eps)
}

fn rows(at: &[u32], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = at.iter().map(|&row| i64::from(row)).collect();
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), device)
}
