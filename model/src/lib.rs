//! The POLAR reward model as a chain of segments: embedding, blocks, head.
//!
//! This crate knows shapes, parameters and the forward pass of each segment, and what a model costs
//! ([`count`]). It doesn't know where parameters come from or where gradients go: the engine in
//! `polestar-worker` owns both, one segment at a time.
//!
//! All activations are two-dimensional, `[tokens, features]`: a pack of triplets has no batch
//! dimension, and which token sees which is said by a forest of [`polestar_core::Span`]s.

pub mod activations;
pub mod config;
pub mod count;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod init;
pub mod layout;
#[cfg(feature = "compute")]
pub mod segment;
mod size;

pub use config::{ModelConfig, ModelError, Preset};
pub use layout::{HeadKind, ModelLayout, SegmentKind, SegmentLayout, TensorLayout};
#[cfg(feature = "compute")]
pub use segment::{PackInput, PolarOutput, Weights};
