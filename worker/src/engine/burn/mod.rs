//! The engine of burn's backends, over vectors in host memory.
//!
//! Each segment has its own small autodiff graph whose input is a detached leaf. The backward pass
//! goes segment by segment, each grafted onto the gradient that the next one found:
//! ```text
//! ids ─ embedding ─▶ y₀ ┊ x₁ ─ block ─▶ y₁ ┊ x₂ ─ … ─▶ ┊ xₙ ─ head ─▶ loss
//!                  g₁ ◀─┊           g₂ ◀─┊       gₙ ◀─┊
//! ```
//! so that a segment's parameters are needed, and its gradient is complete, at one known moment. A
//! [`GradientStore`] is asked for the former and given the latter; where they come from and go to is
//! its business.
//!
//! Several packs go through each segment together, one after the other: parameters are then asked
//! for once, and a segment's gradient is complete when the last pack has added its part.

mod pass;
mod read;
#[cfg(test)]
mod tests;

use super::{Engine, GradientStore, NotFinite, ParameterStore, Scores, SegmentState, Update};
use crate::{host::HostBuffer, norm};
use burn::tensor::Device;
use polestar_core::{
    Precision,
    digest::{self, BlockHash},
    tree::add_into,
};
use polestar_kernels::adamw;
use polestar_model::{ModelLayout, PackInput, Weights};
use std::ops::Range;

/// A model on a device of burn.
#[derive(Debug)]
pub struct BurnEngine {
    layout: ModelLayout,
    device: Device,
    recompute: bool,
    precision: Precision,
}

impl BurnEngine {
    /// A model on a device. With `recompute`, only the input of each block is kept for the backward
    /// pass.
    pub fn new(
        layout: ModelLayout,
        device: &Device,
        recompute: bool,
        precision: Precision,
    ) -> BurnEngine {
        BurnEngine {
            layout,
            device: device.clone().autodiff(),
            recompute,
            precision,
        }
    }
}

impl Engine for BurnEngine {
    type Flat = HostBuffer;
    type Weights = Weights;
    type Pack = PackInput;
    type Scored = Vec<Scores>;
    type Fence = ();

    fn layout(&self) -> &ModelLayout {
        &self.layout
    }

    fn upload(&self, pack: PackInput) -> PackInput {
        pack
    }

    fn zeros(&self, elements: usize) -> HostBuffer {
        HostBuffer::zeros(elements)
    }

    fn flat(&self, values: Vec<f32>) -> HostBuffer {
        values.into()
    }

    fn copy(&self, vector: &HostBuffer) -> HostBuffer {
        vector.to_vec().into()
    }

    fn read(&self, vector: &HostBuffer, range: Range<usize>, into: &mut [f32]) {
        into.copy_from_slice(&vector[range]);
    }

    fn to_host(&self, vector: HostBuffer, elements: usize) -> Vec<f32> {
        vector.into_whole(elements, 0..elements)
    }

    fn weights(&self, segment: usize, master: &HostBuffer) -> Weights {
        Weights::from_flat(&self.layout.segments[segment], master, &self.device, true)
    }

    fn train<S: GradientStore<Self>>(
        &self,
        packs: &[PackInput],
        scale: f32,
        store: &mut S,
    ) -> Result<Vec<Scores>, S::Error> {
        self.forward_and_backward(packs, scale, store)
    }

    fn score<S: ParameterStore<Self>>(
        &self,
        packs: &[PackInput],
        store: &mut S,
    ) -> Result<Vec<Scores>, S::Error> {
        self.forward_only(packs, store)
    }

    fn scores(&self, scored: Vec<Scores>) -> Result<Vec<Scores>, NotFinite> {
        Ok(scored)
    }

    fn add(&self, sum: &mut HostBuffer, other: &HostBuffer) {
        add_into(sum, other);
    }

    fn block_sums(&self, vector: &HostBuffer) -> Vec<f64> {
        norm::block_sums(vector)
    }

    fn block_hashes(&self, vector: &HostBuffer, range: Range<usize>) -> Vec<BlockHash> {
        digest::block_hashes(&vector[range]).collect()
    }

    fn checksum(&self, vector: &HostBuffer) -> u64 {
        digest::checksum(vector)
    }

    fn adamw(&self, state: &mut SegmentState<HostBuffer>, gradient: &HostBuffer, update: &Update) {
        let SegmentState {
            master,
            exp_avg,
            exp_avg_sq,
        } = state;
        let Update {
            adamw,
            number,
            scale,
        } = update;
        let parameters = adamw::Parameters {
            param: master,
            m: exp_avg,
            v: exp_avg_sq,
        };
        adamw::step(adamw, *number, *scale, parameters, gradient);
    }

    /// burn's CPU backends have computed what they return.
    fn fence(&self) {}
}
