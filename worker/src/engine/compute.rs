//! One packed row through the chain of segments, forward and backward.
//!
//! Each segment has its own small autodiff graph whose input is a detached leaf. The backward pass
//! goes segment by segment and feeds the incoming gradient as `(y * g).sum()`:
//! ```text
//! ids ─ embedding ─▶ y₀ ┊ x₁ ─ block ─▶ y₁ ┊ x₂ ─ … ─▶ ┊ xₙ ─ head ─▶ loss
//!                  g₁ ◀─┊           g₂ ◀─┊       gₙ ◀─┊
//! ```
//! so that a segment's parameters are needed, and its gradient is complete, at one known moment.

use burn::tensor::{Device, Gradients, Tensor, TensorData};
use polestar_model::{
    HeadKind, ModelLayout, PackInput, SegmentKind, Weights,
    segment::{block, embed, language_head, polar_head},
};

/// The loss or a gradient stopped being a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} of segment `{segment}` is not finite")]
pub struct NotFinite {
    /// "the loss" or "the gradient".
    pub what: &'static str,
    /// Name of the segment where it was noticed.
    pub segment: String,
}

/// Scores of one pack, in the order of its triplets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Loss of each triplet: -ln σ(margin), or its mean next-token loss.
    pub losses: Vec<f32>,
    /// Reward of the positive minus reward of the negative; empty for language models.
    pub margins: Vec<f32>,
}

/// A model on a device.
#[derive(Debug)]
pub struct Compute {
    layout: ModelLayout,
    device: Device,
    weights: Vec<Weights>,
    recompute: bool,
}

impl Compute {
    /// Puts a canonical vector on the device.
    pub fn new(layout: ModelLayout, device: Device, flat: &[f32], recompute: bool) -> Compute {
        let mut compute = Compute {
            layout,
            device: device.autodiff(),
            weights: Vec::new(),
            recompute,
        };
        compute.load(flat);
        compute
    }

    /// Replaces the weights by those of a canonical vector.
    pub fn load(&mut self, flat: &[f32]) {
        self.weights = self
            .layout
            .segments
            .iter()
            .map(|s| Weights::from_flat(s, &flat[s.range()], &self.device, true))
            .collect();
    }

    /// Adds the gradient of `scale` × (sum of the pack's triplet losses) to `grad`, a canonical
    /// vector.
    ///
    /// # Errors
    /// [`NotFinite`] names the segment; `grad` is then of no use.
    pub fn backward(
        &self,
        pack: &PackInput,
        scale: f32,
        grad: &mut [f32],
    ) -> Result<Scores, NotFinite> {
        let (first, blocks, last) = self.parts();
        let mut kept = Vec::with_capacity(blocks.len());
        let embedded = embed(&self.weights[first], pack);
        let mut y = embedded.clone();
        for i in blocks.clone() {
            let x = y.detach().require_grad();
            y = block(&self.layout.config, &self.weights[i], x.clone(), pack);
            // What stays in memory until the backward pass: the graph, or only its input.
            kept.push(if self.recompute {
                (x, None)
            } else {
                (x, Some(y.clone()))
            });
        }

        let x = y.detach().require_grad();
        let (loss, scores) = self.head(&self.weights[last], x.clone(), pack);
        if scores.losses.iter().any(|l| !l.is_finite()) {
            return Err(self.not_finite("the loss", last));
        }
        let mut grads = loss.mul_scalar(scale).backward();
        self.collect(last, &mut grads, grad)?;
        let mut incoming = self.input_gradient(&x, &mut grads, last)?;

        for i in blocks.rev() {
            let Some((x, y)) = kept.pop() else { break };
            let y =
                y.unwrap_or_else(|| block(&self.layout.config, &self.weights[i], x.clone(), pack));
            let mut grads = (y * Tensor::from_inner(incoming)).sum().backward();
            self.collect(i, &mut grads, grad)?;
            incoming = self.input_gradient(&x, &mut grads, i)?;
        }
        let mut grads = (embedded * Tensor::from_inner(incoming)).sum().backward();
        self.collect(first, &mut grads, grad)?;
        Ok(scores)
    }

    /// Scores a pack without gradients.
    ///
    /// # Errors
    /// [`NotFinite`] when a loss is not a number.
    pub fn forward(&self, pack: &PackInput) -> Result<Scores, NotFinite> {
        let (first, blocks, last) = self.parts();
        let mut x = embed(&untracked(&self.weights[first]), pack);
        for i in blocks {
            x = block(&self.layout.config, &untracked(&self.weights[i]), x, pack);
        }
        let (_, scores) = self.head(&untracked(&self.weights[last]), x, pack);
        if scores.losses.iter().any(|l| !l.is_finite()) {
            return Err(self.not_finite("the loss", last));
        }
        Ok(scores)
    }

    /// Embedding, blocks and head as indices into the segments.
    fn parts(&self) -> (usize, std::ops::Range<usize>, usize) {
        debug_assert_eq!(self.layout.segments[0].kind, SegmentKind::Embedding);
        let last = self.layout.segments.len() - 1;
        (0, 1..last, last)
    }

    /// The loss to differentiate, and the scores to report.
    fn head(&self, weights: &Weights, x: Tensor<2>, pack: &PackInput) -> (Tensor<1>, Scores) {
        let config = &self.layout.config;
        match self.layout.head() {
            HeadKind::Reward => {
                let output = polar_head(config, weights, x, pack);
                let rewards = host(output.rewards);
                let scores = Scores {
                    losses: host(output.losses.clone()),
                    margins: rewards.chunks_exact(2).map(|r| r[0] - r[1]).collect(),
                };
                (output.losses.sum(), scores)
            }
            HeadKind::Language => {
                let losses = language_head(config, weights, x, pack);
                let device = losses.device();
                let each = host(losses.clone());
                let data = TensorData::new(pack.target_weights.to_vec(), [each.len()]);
                let loss = (losses * Tensor::from_data(data, &device)).sum();
                let scores = Scores {
                    losses: mean_by_triplet(&each, pack),
                    margins: Vec::new(),
                };
                (loss, scores)
            }
        }
    }

    fn collect(
        &self,
        index: usize,
        grads: &mut Gradients,
        grad: &mut [f32],
    ) -> Result<(), NotFinite> {
        let segment = &self.layout.segments[index];
        let flat = &mut grad[segment.range()];
        for (tensor, weight) in segment.tensors.iter().zip(&self.weights[index].0) {
            let Some(gradient) = weight.grad_remove(grads) else {
                continue;
            };
            // Not a number or infinite survives every addition, so one look at the sum is enough.
            let mut sum = 0.0_f32;
            with_host(gradient, |values| {
                for (sink, value) in flat[tensor.range()].iter_mut().zip(values) {
                    *sink += value;
                    sum += value * 0.0;
                }
            });
            if !sum.is_finite() {
                return Err(self.not_finite("the gradient", index));
            }
        }
        Ok(())
    }

    fn input_gradient(
        &self,
        x: &Tensor<2>,
        grads: &mut Gradients,
        segment: usize,
    ) -> Result<Tensor<2>, NotFinite> {
        x.grad_remove(grads)
            .ok_or_else(|| self.not_finite("the input gradient", segment))
    }

    fn not_finite(&self, what: &'static str, index: usize) -> NotFinite {
        NotFinite {
            what,
            segment: self.layout.segments[index].name.clone(),
        }
    }
}

fn untracked(weights: &Weights) -> Weights {
    Weights(weights.0.iter().map(|w| w.clone().inner()).collect())
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    with_host(tensor, <[f32]>::to_vec)
}

/// Reads a tensor on the host. Engine tensors are f32 by construction.
fn with_host<const D: usize, T>(tensor: Tensor<D>, read: impl FnOnce(&[f32]) -> T) -> T {
    let data = tensor.into_data();
    match data.as_slice::<f32>() {
        Ok(values) => read(values),
        Err(_) => read(&data.iter::<f32>().collect::<Vec<f32>>()),
    }
}

/// Targets of a triplet follow each other; its weights are all equal, so a change of row by more
/// than one starts the next triplet.
fn mean_by_triplet(losses: &[f32], pack: &PackInput) -> Vec<f32> {
    let mut means = Vec::new();
    let mut from = 0;
    for at in 1..=losses.len() {
        let next = pack.target_rows.get(at).copied();
        if next != Some(pack.target_rows[at - 1] + 1) {
            let part = &losses[from..at];
            let sum: f64 = part.iter().map(|&l| f64::from(l)).sum();
            means.push((sum / part.len() as f64) as f32);
            from = at;
        }
    }
    means
}
