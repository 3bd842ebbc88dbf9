//! Packed rows through the chain of segments, forward and backward.
//!
//! Each segment has its own small autodiff graph whose input is a detached leaf. The backward pass
//! goes segment by segment, each grafted onto the gradient that the next one found:
//! ```text
//! ids ─ embedding ─▶ y₀ ┊ x₁ ─ block ─▶ y₁ ┊ x₂ ─ … ─▶ ┊ xₙ ─ head ─▶ loss
//!                  g₁ ◀─┊           g₂ ◀─┊       gₙ ◀─┊
//! ```
//! so that a segment's parameters are needed, and its gradient is complete, at one known moment. A
//! [`Holder`] is asked for the former and given the latter; where they come from and go to is its
//! business.
//!
//! Several packs go through each segment together, one after the other: parameters are then asked
//! for once, and a segment's gradient is complete when the last pack has added its part.

use burn::tensor::{Device, Gradients, Tensor, TensorData};
use polestar_core::Precision;
use polestar_kernels::graft;
use polestar_model::{
    HeadKind, ModelLayout, PackInput, Weights,
    segment::{block, embed, language_head, polar_head},
};
use rayon::prelude::*;

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

/// Holds a model's parameters and takes its gradient, segment by segment.
///
/// A pass calls these in an order that depends on the model alone, so that ranks in step stay so.
pub trait Holder {
    /// Why it can't.
    type Error: From<NotFinite>;

    /// The weights of a segment, tracked, on the device of the [`Compute`]. `next` is the segment
    /// that will be asked for after this one.
    ///
    /// # Errors
    /// When they can't be had.
    fn weights(&mut self, segment: usize, next: Option<usize>) -> Result<Weights, Self::Error>;

    /// The pass has done with the weights of a segment for now.
    fn release(&mut self, segment: usize);

    /// The flat gradient of a segment, to be added to.
    fn gradient(&mut self, segment: usize) -> Vec<f32>;

    /// Takes it back: all packs of this pass have added their part. Head first, embedding last.
    ///
    /// # Errors
    /// When it can't be passed on.
    fn complete(&mut self, segment: usize, gradient: Vec<f32>) -> Result<(), Self::Error>;
}

/// A model's computation on a device.
#[derive(Debug)]
pub struct Compute {
    layout: ModelLayout,
    device: Device,
    recompute: bool,
    precision: Precision,
}

/// What a block's backward pass needs of its forward pass.
struct Kept {
    /// The input of each pack, a leaf.
    inputs: Vec<Tensor<2>>,
    /// Weights and outputs with their graphs, unless they are to be computed again.
    graphs: Option<(Weights, Vec<Tensor<2>>)>,
}

impl Compute {
    /// A model on a device. With `recompute`, only the input of each block is kept for the backward
    /// pass.
    pub fn new(
        layout: ModelLayout,
        device: &Device,
        recompute: bool,
        precision: Precision,
    ) -> Compute {
        Compute {
            layout,
            device: device.clone().autodiff(),
            recompute,
            precision,
        }
    }

    /// Its parameters' layout.
    pub fn layout(&self) -> &ModelLayout {
        &self.layout
    }

    /// A segment's flat vector on the device, tracked.
    pub fn weights(&self, segment: usize, flat: &[f32]) -> Weights {
        Weights::from_flat(&self.layout.segments[segment], flat, &self.device, true)
    }

    /// Adds the gradient of `scale` × (sum of all triplets' losses) to the holder's gradients.
    /// Returns each pack's scores. Without packs, the holder is asked and given all the same.
    ///
    /// # Errors
    /// [`NotFinite`] names the segment, and the gradients are of no use; or the holder's own.
    pub fn train<H: Holder>(
        &self,
        packs: &[PackInput],
        scale: f32,
        holder: &mut H,
    ) -> Result<Vec<Scores>, H::Error> {
        let (first, blocks, last) = self.parts();
        let config = &self.layout.config;
        let mut ys = self.embed(packs, holder)?;
        let mut kept = Vec::with_capacity(blocks.len());
        for i in blocks.clone() {
            let weights = holder.weights(i, Some(i + 1))?;
            let inputs: Vec<_> = ys.into_iter().map(leaf).collect();
            let graphs = if self.recompute {
                let weights = untracked(&weights);
                let run =
                    |(x, pack): (&Tensor<2>, _)| self.block(&weights, x.clone().inner(), pack);
                ys = inputs.iter().zip(packs).map(run).collect();
                None
            } else {
                let run = |(x, pack): (&Tensor<2>, _)| self.block(&weights, x.clone(), pack);
                let outputs: Vec<_> = inputs.iter().zip(packs).map(run).collect();
                ys = outputs.iter().map(|y| y.clone().inner()).collect();
                Some((weights, outputs))
            };
            kept.push(Kept { inputs, graphs });
            holder.release(i);
        }

        let before = (self.recompute && !blocks.is_empty()).then(|| blocks.end - 1);
        let weights = holder.weights(last, before)?;
        let mut gradient = holder.gradient(last);
        let mut scores = Vec::with_capacity(packs.len());
        let mut incoming = Vec::with_capacity(packs.len());
        for (x, pack) in ys.into_iter().map(leaf).zip(packs) {
            let (loss, score) = self.head(&weights, x.clone(), pack);
            if score.losses.iter().any(|l| !l.is_finite()) {
                return Err(self.not_finite("the loss", last).into());
            }
            let mut grads = loss.mul_scalar(scale).backward();
            self.collect(last, &weights, &mut grads, &mut gradient)?;
            incoming.push(self.input_gradient(&x, &mut grads, last)?);
            scores.push(score);
        }
        drop(weights);
        holder.release(last);
        holder.complete(last, gradient)?;

        for i in blocks.rev() {
            let Some(Kept { inputs, graphs }) = kept.pop() else {
                break;
            };
            let (weights, outputs) = match graphs {
                Some((weights, outputs)) => (weights, Some(outputs)),
                None => {
                    let before = (i > first + 1).then(|| i - 1);
                    (holder.weights(i, before)?, None)
                }
            };
            let mut outputs = outputs.map(Vec::into_iter);
            let mut gradient = holder.gradient(i);
            let each = inputs.into_iter().zip(packs).zip(&mut incoming);
            for ((x, pack), incoming) in each {
                // Computed again one pack at a time: one graph is alive, not all of them.
                let y = match &mut outputs {
                    Some(outputs) => outputs.next(),
                    None => Some(self.block(&weights, x.clone(), pack)),
                };
                let Some(y) = y else { break };
                let mut grads = graft(y, Tensor::from_inner(incoming.clone())).backward();
                self.collect(i, &weights, &mut grads, &mut gradient)?;
                *incoming = self.input_gradient(&x, &mut grads, i)?;
            }
            drop(weights);
            holder.release(i);
            holder.complete(i, gradient)?;
        }

        // The embedding's gradient needs no graph, and so not the table either: each token's row
        // gets what came in for it.
        let mut gradient = holder.gradient(first);
        let width = config.hidden_size as usize;
        for (incoming, pack) in incoming.into_iter().zip(packs) {
            let finite = with_host(incoming, |rows| {
                let rows = rows.chunks_exact(width);
                pack.ids.iter().zip(rows).fold(true, |finite, (&id, row)| {
                    let at = id as usize * width;
                    add_part(&mut gradient[at..at + width], row) && finite
                })
            });
            if !finite {
                return Err(self.not_finite("the gradient", first).into());
            }
        }
        holder.complete(first, gradient)?;
        Ok(scores)
    }

    /// Scores packs without gradients.
    ///
    /// # Errors
    /// [`NotFinite`] when a loss is not a number; or the holder's own.
    pub fn score<H: Holder>(
        &self,
        packs: &[PackInput],
        holder: &mut H,
    ) -> Result<Vec<Scores>, H::Error> {
        let (_, blocks, last) = self.parts();
        let mut xs = self.embed(packs, holder)?;
        for i in blocks {
            let weights = untracked(&holder.weights(i, Some(i + 1))?);
            let run = |(x, pack)| self.block(&weights, x, pack);
            xs = xs.into_iter().zip(packs).map(run).collect();
            holder.release(i);
        }
        let weights = untracked(&holder.weights(last, None)?);
        holder.release(last);
        let mut all = Vec::with_capacity(packs.len());
        for (x, pack) in xs.into_iter().zip(packs) {
            let (_, scores) = self.head(&weights, x, pack);
            if scores.losses.iter().any(|l| !l.is_finite()) {
                return Err(self.not_finite("the loss", last).into());
            }
            all.push(scores);
        }
        Ok(all)
    }

    /// Embedding, blocks, head. A layout has at least embedding and head.
    fn parts(&self) -> (usize, std::ops::Range<usize>, usize) {
        let last = self.layout.segments.len() - 1;
        (0, 1..last, last)
    }

    fn embed<H: Holder>(
        &self,
        packs: &[PackInput],
        holder: &mut H,
    ) -> Result<Vec<Tensor<2>>, H::Error> {
        let weights = untracked(&holder.weights(0, Some(1))?);
        let ys = packs.iter().map(|pack| embed(&weights, pack)).collect();
        drop(weights);
        holder.release(0);
        Ok(ys)
    }

    fn block(&self, weights: &Weights, x: Tensor<2>, pack: &PackInput) -> Tensor<2> {
        block(&self.layout.config, weights, x, pack, self.precision)
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
                let losses = language_head(config, weights, x, pack, self.precision);
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
        weights: &Weights,
        grads: &mut Gradients,
        flat: &mut [f32],
    ) -> Result<(), NotFinite> {
        let segment = &self.layout.segments[index];
        for (tensor, weight) in segment.tensors.iter().zip(&weights.0) {
            let Some(gradient) = weight.grad_remove(grads) else {
                continue;
            };
            let sink = &mut flat[tensor.range()];
            if !with_host(gradient, |values| add_finite(sink, values)) {
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

fn leaf(y: Tensor<2>) -> Tensor<2> {
    Tensor::from_inner(y).require_grad()
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

/// `sink[i] += values[i]`; whether all values were finite.
fn add_finite(sink: &mut [f32], values: &[f32]) -> bool {
    const PART: usize = 1 << 15;
    let parts = sink.par_chunks_mut(PART).zip(values.par_chunks(PART));
    parts
        .map(|(sink, values)| add_part(sink, values))
        .reduce(|| true, |a, b| a & b)
}

fn add_part(sink: &mut [f32], values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    let mut finite = true;
    for (sink, value) in sink.iter_mut().zip(values) {
        *sink += value;
        // On bits: a sum of numbers would forbid the compiler to do several at once.
        finite &= value.to_bits() & EXPONENT != EXPONENT;
    }
    finite
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
    use crate::engine::batch;
    use polestar_core::{Objective, TrialId};
    use polestar_dataset::{Layout, SampleConfig, SpecialTokens, TokenTriplet, Weighting};
    use polestar_model::{SegmentLayout, init::initial_weights};
    use polestar_run::{DataRecipe, Recipe, TrainConfig, Trial};

    const VOCAB: u32 = 100;

    fn trial(layout: Layout) -> Trial {
        let json = serde_json::json!({
            "batch": 8, "pack_tokens": 700, "optimizer": { "lr": 1e-3 },
        });
        let train: TrainConfig = serde_json::from_value(json).unwrap();
        let model = serde_json::json!({
            "vocab_size": VOCAB, "hidden_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256,
        });
        Trial {
            id: TrialId("t".to_owned()),
            recipe: Recipe {
                objective: Objective::Polar,
                seed: 1,
                steps: 1,
                model: serde_json::from_value(model).unwrap(),
                data: DataRecipe {
                    fingerprint: String::new(),
                    quarantine: vec![],
                    policies: None,
                    weighting: Weighting::Uniform,
                    samples: SampleConfig {
                        layout,
                        ..SampleConfig::default()
                    },
                    window: 1,
                },
                batch: train.batches(),
                optimizer: train.optimizer.clone(),
                schedule: train.schedule.clone(),
                arithmetic: train.arithmetic(1),
                start: None,
            },
            measurement: train.validation.measurement(),
            execution: train.execution("", None),
        }
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

    fn packs(trial: &Trial, special: &SpecialTokens) -> Vec<PackInput> {
        batch::inputs(trial.recipe.packer(special).pack(&triplets()))
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
        let model = ModelLayout::new(&trial.recipe.model, HeadKind::of(Objective::Polar));
        let mut weights = initial_weights(&model, trial.recipe.seed);
        let head = weights.len() - trial.recipe.model.hidden_size as usize;
        for (i, w) in weights[head..].iter_mut().enumerate() {
            *w = ((i * 29) % 17) as f32 * 0.05 - 0.4;
        }
        change(&mut weights);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let compute = Compute::new(model, &Device::flex(), recompute, Precision::F32);
            let mut whole = Whole::new(&compute, &weights);
            let packs = packs(&trial, &special);
            assert!(
                packs.len() > 1,
                "several packs go through a segment together"
            );
            let scores = compute.train(&packs, 0.125, &mut whole).unwrap();
            let losses = scores.into_iter().flat_map(|s| s.losses).collect();
            (losses, whole.gradients.concat())
        })
    }

    /// Holds a whole model.
    struct Whole {
        weights: Vec<Weights>,
        gradients: Vec<Vec<f32>>,
    }

    impl Whole {
        fn new(compute: &Compute, flat: &[f32]) -> Whole {
            let segments = &compute.layout.segments;
            let place = |(i, s): (usize, &SegmentLayout)| compute.weights(i, &flat[s.range()]);
            Whole {
                weights: segments.iter().enumerate().map(place).collect(),
                gradients: segments.iter().map(|s| vec![0.0; s.elements]).collect(),
            }
        }
    }

    impl Holder for Whole {
        type Error = NotFinite;

        fn weights(&mut self, segment: usize, _next: Option<usize>) -> Result<Weights, NotFinite> {
            Ok(self.weights[segment].clone())
        }

        fn release(&mut self, _segment: usize) {}

        fn gradient(&mut self, segment: usize) -> Vec<f32> {
            std::mem::take(&mut self.gradients[segment])
        }

        fn complete(&mut self, segment: usize, gradient: Vec<f32>) -> Result<(), NotFinite> {
            self.gradients[segment] = gradient;
            Ok(())
        }
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
        let layout = ModelLayout::new(
            &trial(Layout::Shared).recipe.model,
            HeadKind::of(Objective::Polar),
        );
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
        let model = ModelLayout::new(&trial.recipe.model, HeadKind::of(Objective::Polar));
        let mut weights = initial_weights(&model, 1);
        if let Some(last) = weights.last_mut() {
            *last = f32::NAN;
        }
        let compute = Compute::new(model, &Device::flex(), false, Precision::F32);
        let mut whole = Whole::new(&compute, &weights);
        let packs = packs(&trial, &special);
        let error = compute.train(&packs, 1.0, &mut whole).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the loss of segment `head` is not finite"
        );
    }
}
