//! The model on a CUDA device: its weights as passes read them, and the passes themselves, launch by launch.
//!
//! A pass is a fixed sequence of launches, whose grids and order are functions of the pack's shape. The residual stream and
//! all that products take is bf16; sums, norms, softmax and gradients of weights are f32.

mod block;
mod head;
mod pack;
mod pass;
mod scored;
mod weights;

pub use pack::PreparedPack;
pub use pass::Pass;
pub use scored::{Scored, ScoredPack};
pub use weights::SegmentWeights;

use crate::{HeadKind, ModelConfig, ModelLayout, PackInput};
use polestar_kernels::cuda::{
    Budget, CudaError, Device, Product, View,
    abi::{MAX_HEAD_WIDTH, MAX_NORM_WIDTH, SOURCES},
};
use std::ops::Range;

/// A model that the kernels can't compute.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unsupported {
    /// Rows of operands must begin on 16 bytes.
    #[error(
        "train.backend is \"cuda\", whose products need {key} to be a multiple of 8, and it is {value}"
    )]
    Width {
        /// The key.
        key: &'static str,
        /// Its value.
        value: u32,
    },
    /// A kernel keeps a row's part in registers.
    #[error(
        "train.backend is \"cuda\", whose kernels take {what} of {most} at most, and this model's is {found}"
    )]
    TooWide {
        /// Of what.
        what: &'static str,
        /// The most.
        most: u32,
        /// The model's.
        found: u32,
    },
}

/// A model on a device.
#[derive(Debug)]
pub struct CudaModel {
    layout: ModelLayout,
    device: Device,
    sizes: Sizes,
}

/// A model's sizes, in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) ffn: usize,
    pub(crate) vocab: usize,
    pub(crate) eps: f32,
    pub(crate) theta: f32,
}

impl Sizes {
    fn new(config: &ModelConfig) -> Sizes {
        Sizes {
            hidden: config.hidden_size as usize,
            heads: config.num_attention_heads as usize,
            kv_heads: config.num_key_value_heads as usize,
            head_dim: config.head_dim() as usize,
            ffn: config.intermediate_size as usize,
            vocab: config.vocab_size as usize,
            eps: config.rms_norm_eps,
            theta: config.rope_theta,
        }
    }

    /// Width of queries, keys and values together.
    pub(crate) fn qkv(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Width of what attention gives.
    pub(crate) fn attended(&self) -> usize {
        self.heads * self.head_dim
    }
}

impl CudaModel {
    /// Whether the kernels can compute a model.
    ///
    /// # Errors
    /// [`Unsupported`] names the key.
    pub fn check(layout: &ModelLayout) -> Result<(), Unsupported> {
        let config = &layout.config;
        for (key, value) in [
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
        ] {
            if !value.is_multiple_of(8) {
                return Err(Unsupported::Width { key, value });
            }
        }
        if layout.head() == HeadKind::Language && !config.vocab_size.is_multiple_of(8) {
            let value = config.vocab_size;
            return Err(Unsupported::Width {
                key: "vocab_size",
                value,
            });
        }
        let (head, hidden) = (config.head_dim(), config.hidden_size);
        for (what, most, found) in [
            ("a head width", MAX_HEAD_WIDTH, head),
            ("a hidden_size", MAX_NORM_WIDTH, hidden),
        ] {
            if found > most {
                return Err(Unsupported::TooWide { what, most, found });
            }
        }
        let qkv = Sizes::new(config).qkv() as u32;
        match qkv.is_multiple_of(8) {
            true => Ok(()),
            false => Err(Unsupported::Width {
                key: "(num_attention_heads + 2 * num_key_value_heads) * head width",
                value: qkv,
            }),
        }
    }

    /// Opens a device with all kernels that a model needs.
    ///
    /// # Errors
    /// [`CudaError`].
    pub fn open(ordinal: usize, budget: &Budget) -> Result<Device, CudaError> {
        Device::open(ordinal, budget, SOURCES)
    }

    /// A model that passed its [check](CudaModel::check), on a device.
    pub fn new(layout: ModelLayout, device: &Device) -> CudaModel {
        CudaModel {
            sizes: Sizes::new(&layout.config),
            layout,
            device: device.clone(),
        }
    }

    /// What of the device, its libraries and their choices decides the bits of a result, as text. The choices are those for
    /// the model's products at a pack of so many tokens and at some shorter ones.
    ///
    /// # Errors
    /// [`CudaError`] when a library has no way to compute one of them.
    pub fn numerics(&self, tokens: usize) -> Result<String, CudaError> {
        let Sizes { hidden, ffn, .. } = self.sizes;
        let weights = [
            [self.sizes.qkv(), hidden],
            [hidden, self.sizes.attended()],
            [2 * ffn, hidden],
            [hidden, ffn],
        ];
        let mut shapes = Vec::new();
        for tokens in [tokens, tokens / 2, tokens / 3, tokens / 7].map(|tokens| tokens.max(1)) {
            for [out, width] in weights {
                shapes.push((Product::Forward, [tokens, width], [out, width], false));
                shapes.push((Product::Input, [tokens, out], [out, width], false));
                shapes.push((Product::Weight, [tokens, out], [tokens, width], true));
            }
        }
        let choices = self.device.choices(&shapes)?;
        Ok(format!("{}; products {choices}", self.device.numerics()))
    }

    /// Its parameters' layout.
    pub fn layout(&self) -> &ModelLayout {
        &self.layout
    }

    /// A segment's weights as passes read them, from its whole f32 vector.
    pub fn weights(&self, segment: usize, master: View<f32>) -> SegmentWeights {
        SegmentWeights::new(&self.device, &self.layout.segments[segment], master)
    }

    /// A segment's weights of which this rank has the elements `owned`, from their f32 values: those of other ranks are to be
    /// received where [`SegmentWeights::spans`] says.
    pub fn sharded_weights(
        &self,
        segment: usize,
        master: View<f32>,
        owned: Range<usize>,
    ) -> SegmentWeights {
        let layout = &self.layout.segments[segment];
        SegmentWeights::sharded(&self.device, layout, master, owned)
    }

    /// A pack with the tables that kernels read, in host memory.
    pub fn prepare(&self, pack: PackInput) -> PreparedPack {
        PreparedPack::new(pack, &self.sizes, self.layout.head())
    }

    /// Sum of squares of each block of a vector, in host memory.
    pub fn block_sums(&self, vector: View<f32>) -> Vec<f64> {
        let frame = self.device.frame();
        let sums = frame.take(Device::blocks(vector.len()));
        self.device.block_sums(vector, sums);
        let mut values = vec![0.0; sums.len()];
        self.device.read(sums, &mut values, None);
        values
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn sizes(&self) -> &Sizes {
        &self.sizes
    }
}
