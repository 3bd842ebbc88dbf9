//! Packed rows through the chain of segments, forward and backward.

use super::{
    BurnEngine, GradientStore, NotFinite, ParameterStore, Scores,
    read::{add_finite, add_part, host, with_host},
};
use crate::host::HostBuffer;
use burn::tensor::{Gradients, Tensor, TensorData};
use polestar_kernels::graft;
use polestar_model::{
    HeadKind, PackInput, Weights,
    segment::{block, embed, language_head, polar_head},
};

/// What a block's backward pass needs of its forward pass.
struct Kept {
    /// The input of each pack, a leaf.
    inputs: Vec<Tensor<2>>,
    /// Weights and outputs with their graphs, unless they are to be computed again.
    graphs: Option<(Weights, Vec<Tensor<2>>)>,
}

impl BurnEngine {
    /// As [`Engine::train`](super::Engine::train).
    pub(super) fn forward_and_backward<S: GradientStore<Self>>(
        &self,
        packs: &[PackInput],
        scale: f32,
        store: &mut S,
    ) -> Result<Vec<Scores>, S::Error> {
        let (_, blocks, last) = self.parts();
        let mut xs = self.embed(packs, store)?;
        let mut kept = Vec::with_capacity(blocks.len());
        for i in blocks.clone() {
            let (block, outputs) = self.forward_block(i, xs, packs, store)?;
            kept.push(block);
            xs = outputs;
        }

        let before = (self.recompute && !blocks.is_empty()).then(|| blocks.end - 1);
        let weights = store.weights(last, before)?;
        let mut gradient = store.gradient(last);
        let mut scores = Vec::with_capacity(packs.len());
        let mut incoming = Vec::with_capacity(packs.len());
        for (x, pack) in xs.into_iter().map(leaf).zip(packs) {
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
        store.release(last);
        store.complete(last, gradient)?;

        for i in blocks.rev() {
            let block = kept.pop().expect("the forward pass kept every block");
            self.backward_block(i, block, packs, &mut incoming, store)?;
        }
        self.backward_embedding(packs, incoming, store)?;
        Ok(scores)
    }

    fn forward_block<S: ParameterStore<Self>>(
        &self,
        segment: usize,
        xs: Vec<Tensor<2>>,
        packs: &[PackInput],
        store: &mut S,
    ) -> Result<(Kept, Vec<Tensor<2>>), S::Error> {
        let weights = store.weights(segment, Some(segment + 1))?;
        let inputs: Vec<_> = xs.into_iter().map(leaf).collect();
        let (graphs, ys) = if self.recompute {
            let weights = untracked(&weights);
            let run = |(x, pack): (&Tensor<2>, _)| self.block(&weights, x.clone().inner(), pack);
            (None, inputs.iter().zip(packs).map(run).collect())
        } else {
            let run = |(x, pack): (&Tensor<2>, _)| self.block(&weights, x.clone(), pack);
            let outputs: Vec<_> = inputs.iter().zip(packs).map(run).collect();
            let ys = outputs.iter().map(|y| y.clone().inner()).collect();
            (Some((weights, outputs)), ys)
        };
        store.release(segment);
        Ok((Kept { inputs, graphs }, ys))
    }

    /// `incoming` is the gradient of each pack's output, and becomes that of its input.
    fn backward_block<S: GradientStore<Self>>(
        &self,
        segment: usize,
        Kept { inputs, graphs }: Kept,
        packs: &[PackInput],
        incoming: &mut [Tensor<2>],
        store: &mut S,
    ) -> Result<(), S::Error> {
        let (weights, outputs) = match graphs {
            Some((weights, outputs)) => (weights, Some(outputs)),
            None => {
                let before = (segment > 1).then(|| segment - 1);
                (store.weights(segment, before)?, None)
            }
        };
        let mut outputs = outputs.map(Vec::into_iter);
        let mut gradient = store.gradient(segment);
        for ((x, pack), incoming) in inputs.into_iter().zip(packs).zip(incoming) {
            let y = match &mut outputs {
                Some(outputs) => outputs.next().expect("the forward pass kept every pack"),
                // Computed again one pack at a time: one graph is alive, not all of them.
                None => self.block(&weights, x.clone(), pack),
            };
            let mut grads = graft(y, Tensor::from_inner(incoming.clone())).backward();
            self.collect(segment, &weights, &mut grads, &mut gradient)?;
            *incoming = self.input_gradient(&x, &mut grads, segment)?;
        }
        drop(weights);
        store.release(segment);
        store.complete(segment, gradient)
    }

    /// The embedding's gradient needs no graph, and so not the table either: each token's row gets what
    /// came in for it.
    fn backward_embedding<S: GradientStore<Self>>(
        &self,
        packs: &[PackInput],
        incoming: Vec<Tensor<2>>,
        store: &mut S,
    ) -> Result<(), S::Error> {
        let (first, ..) = self.parts();
        let mut gradient = store.gradient(first);
        let width = self.layout.config.hidden_size as usize;
        let table: &mut [f32] = &mut gradient;
        for (incoming, pack) in incoming.into_iter().zip(packs) {
            let finite = with_host(incoming, |rows| {
                let rows = rows.chunks_exact(width);
                pack.ids.iter().zip(rows).fold(true, |finite, (&id, row)| {
                    let at = id as usize * width;
                    add_part(&mut table[at..at + width], row) && finite
                })
            });
            if !finite {
                return Err(self.not_finite("the gradient", first).into());
            }
        }
        store.complete(first, gradient)
    }

    /// As [`Engine::score`](super::Engine::score).
    pub(super) fn forward_only<S: ParameterStore<Self>>(
        &self,
        packs: &[PackInput],
        store: &mut S,
    ) -> Result<Vec<Scores>, S::Error> {
        let (_, blocks, last) = self.parts();
        let mut xs = self.embed(packs, store)?;
        for i in blocks {
            let weights = untracked(&store.weights(i, Some(i + 1))?);
            let run = |(x, pack)| self.block(&weights, x, pack);
            xs = xs.into_iter().zip(packs).map(run).collect();
            store.release(i);
        }
        let weights = untracked(&store.weights(last, None)?);
        store.release(last);
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

    fn embed<S: ParameterStore<Self>>(
        &self,
        packs: &[PackInput],
        store: &mut S,
    ) -> Result<Vec<Tensor<2>>, S::Error> {
        let weights = untracked(&store.weights(0, Some(1))?);
        let ys = packs.iter().map(|pack| embed(&weights, pack)).collect();
        drop(weights);
        store.release(0);
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
                    rewards,
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
                    losses: pack.mean_by_triplet(&each),
                    ..Scores::default()
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
        flat: &mut HostBuffer,
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
