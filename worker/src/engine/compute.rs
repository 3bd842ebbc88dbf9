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

    /// Length of the canonical vector.
    pub fn elements(&self) -> usize {
        self.layout.elements()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Objective, TrialConfig, engine::batch};
    use polestar_dataset::{Layout, SampleConfig, SpecialTokens, TokenTriplet};
    use polestar_model::init::initial_weights;

    const VOCAB: u32 = 100;

    fn trial(layout: Layout) -> TrialConfig {
        let json = serde_json::json!({
            "id": "t", "objective": "polar", "seed": 1, "steps": 1, "corpus": "", "fingerprint": "",
            "model": {
                "vocab_size": VOCAB, "hidden_size": 128, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256,
            },
            "samples": {}, "weighting": "uniform", "window": 1, "start": null,
            "train": { "batch": 8, "pack_tokens": 700, "optimizer": { "lr": 1e-3 } },
        });
        let mut trial: TrialConfig = serde_json::from_value(json).unwrap();
        trial.samples = SampleConfig {
            layout,
            ..SampleConfig::default()
        };
        trial
    }

    /// Triplets of many lengths, as a lane would hold.
    fn triplets() -> Vec<TokenTriplet> {
        let text = |seed: u32, len: u32| {
            let token = |i| 10 + (seed * 31 + i * i * 7 + i * 13) % (VOCAB - 10);
            (0..len).map(token).collect::<Vec<u32>>()
        };
        (0..8)
            .map(|i| TokenTriplet {
                policy: 0,
                other: 1,
                prompt: text(i, 5 + i),
                reference: text(i + 20, 30 + 3 * i),
                positive: text(i + 40, 60 - 5 * i),
                negative: text(i + 60, 1 + 9 * i),
            })
            .collect()
    }

    /// Losses and gradient of all triplets with non-zero reward heads.
    fn run(layout: Layout, recompute: bool, threads: usize) -> (Vec<f32>, Vec<f32>) {
        run_with(layout, recompute, threads, |_| ())
    }

    fn run_with(
        layout: Layout,
        recompute: bool,
        threads: usize,
        change: impl FnOnce(&mut [f32]),
    ) -> (Vec<f32>, Vec<f32>) {
        let trial = trial(layout);
        let special = SpecialTokens {
            bos: 1,
            split: 2,
            reward: 3,
            newline: vec![4],
        };
        let model = ModelLayout::new(&trial.model, Objective::Polar.head());
        let mut weights = initial_weights(&model, trial.seed);
        let head = weights.len() - trial.model.hidden_size as usize;
        for (i, w) in weights[head..].iter_mut().enumerate() {
            *w = ((i * 29) % 17) as f32 * 0.05 - 0.4;
        }
        change(&mut weights);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let compute = Compute::new(model, Device::flex(), &weights, recompute);
            let mut grad = vec![0.0; compute.elements()];
            let mut losses = Vec::new();
            for pack in batch::inputs(&triplets(), &trial, &special).unwrap() {
                losses.extend(compute.backward(&pack, 0.125, &mut grad).unwrap().losses);
            }
            (losses, grad)
        })
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|v| v.to_bits()).collect()
    }

    #[test]
    fn digest_of_a_gradient_ignores_threads_and_recompute() {
        let (losses, grad) = run(Layout::Shared, false, 1);
        for (recompute, threads) in [(false, 2), (true, 1), (true, 3)] {
            let (l, g) = run(Layout::Shared, recompute, threads);
            assert_eq!(bits(&l), bits(&losses));
            assert_eq!(
                bits(&g),
                bits(&grad),
                "recompute {recompute}, {threads} threads"
            );
        }
    }

    #[test]
    fn shared_prefix_is_the_plain_layout_up_to_rounding() {
        let (shared, plain) = (run(Layout::Shared, false, 1), run(Layout::Plain, false, 1));
        for (s, p) in shared.0.iter().zip(&plain.0) {
            assert!((s - p).abs() < 1e-5, "{s} {p}");
        }
        let largest = plain.1.iter().fold(0.0_f32, |m, g| m.max(g.abs()));
        assert!(largest > 1e-3, "the gradient is not trivially zero");
        for (s, p) in shared.1.iter().zip(&plain.1) {
            assert!((s - p).abs() < 1e-5 + 1e-4 * largest, "{s} {p}");
        }
    }

    #[test]
    fn segments_together_make_the_gradient_of_the_loss() {
        let (_, grad) = run(Layout::Shared, false, 1);
        let layout = ModelLayout::new(&trial(Layout::Shared).model, Objective::Polar.head());
        let loss = |at: usize, by: f32| {
            let (losses, _) = run_with(Layout::Shared, false, 1, |w| w[at] += by);
            0.125 * losses.iter().map(|&l| f64::from(l)).sum::<f64>()
        };
        // In each segment the weight that matters most, against a central difference.
        for segment in &layout.segments {
            let largest = |a: &usize, b: &usize| grad[*a].abs().total_cmp(&grad[*b].abs());
            let at = segment.range().max_by(largest).unwrap();
            const STEP: f32 = 5e-3;
            let slope = (loss(at, STEP) - loss(at, -STEP)) / (2.0 * f64::from(STEP));
            let ours = f64::from(grad[at]);
            assert!(
                (slope - ours).abs() < 0.02 * ours.abs() + 1e-4,
                "{}: {ours} against {slope}",
                segment.name
            );
        }
    }

    #[test]
    fn a_loss_that_is_no_number_names_its_segment() {
        let trial = trial(Layout::Shared);
        let special = SpecialTokens {
            bos: 1,
            split: 2,
            reward: 3,
            newline: vec![],
        };
        let model = ModelLayout::new(&trial.model, Objective::Polar.head());
        let mut weights = initial_weights(&model, 1);
        if let Some(last) = weights.last_mut() {
            *last = f32::NAN;
        }
        let compute = Compute::new(model, Device::flex(), &weights, false);
        let mut grad = vec![0.0; compute.elements()];
        let pack = &batch::inputs(&triplets(), &trial, &special).unwrap()[0];
        let error = compute.backward(pack, 1.0, &mut grad).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the loss of segment `head` is not finite"
        );
    }
}
