//! Packs through the chain of segments on a CUDA device, in the order of the CPU's passes: packs in order within a segment,
//! and segments asked for, and completed, at the same moments.

use super::CudaEngine;
use crate::engine::{GradientStore, ParameterStore};
use polestar_model::cuda::{Pass, PreparedPack, Scored, SegmentWeights};
use std::{ops::Range, sync::Arc};

impl CudaEngine {
    /// As [`Engine::train`](crate::engine::Engine::train).
    pub(super) fn forward_and_backward<S: GradientStore<Self>>(
        &self,
        packs: &[PreparedPack],
        scale: f32,
        store: &mut S,
    ) -> Result<Scored, S::Error> {
        let (blocks, last) = self.parts();
        let mut pass = Pass::to_train(&self.model, packs, !self.recompute);
        self.embed(&pass, store)?;
        let mut kept: Vec<Arc<SegmentWeights>> = Vec::new();
        for segment in blocks.clone() {
            let weights = store.weights(segment, Some(segment + 1))?;
            pass.forward(&weights);
            if !self.recompute {
                kept.push(weights);
            }
            store.release(segment);
        }

        let before = (self.recompute && !blocks.is_empty()).then(|| blocks.end - 1);
        let weights = store.weights(last, before)?;
        let gradient = store.gradient(last);
        let scored = pass.head(&weights, Some((gradient.view(), scale)));
        drop(weights);
        store.release(last);
        store.complete(last, gradient)?;

        for segment in blocks.rev() {
            let weights = match kept.pop() {
                Some(weights) => weights,
                None => store.weights(segment, (segment > 1).then(|| segment - 1))?,
            };
            let gradient = store.gradient(segment);
            pass.backward(&weights, gradient.view());
            drop(weights);
            store.release(segment);
            store.complete(segment, gradient)?;
        }
        let gradient = store.gradient(0);
        pass.backward_embedding(gradient.view());
        store.complete(0, gradient)?;
        Ok(scored)
    }

    /// As [`Engine::score`](crate::engine::Engine::score).
    pub(super) fn forward_only<S: ParameterStore<Self>>(
        &self,
        packs: &[PreparedPack],
        store: &mut S,
    ) -> Result<Scored, S::Error> {
        let (blocks, last) = self.parts();
        let mut pass = Pass::to_score(&self.model, packs);
        self.embed(&pass, store)?;
        for segment in blocks {
            let weights = store.weights(segment, Some(segment + 1))?;
            pass.forward(&weights);
            drop(weights);
            store.release(segment);
        }
        let weights = store.weights(last, None)?;
        let scored = pass.head(&weights, None);
        drop(weights);
        store.release(last);
        Ok(scored)
    }

    fn embed<S: ParameterStore<Self>>(
        &self,
        pass: &Pass<'_>,
        store: &mut S,
    ) -> Result<(), S::Error> {
        let weights = store.weights(0, Some(1))?;
        pass.embed(&weights);
        drop(weights);
        store.release(0);
        Ok(())
    }

    /// Blocks, and the head behind them.
    fn parts(&self) -> (Range<usize>, usize) {
        let last = self.model.layout().segments.len() - 1;
        (1..last, last)
    }
}
