//! Weights as Hugging Face's libraries have them, in and out.
//!
//! ```text
//! folder with config.json, *.safetensors ─ Weights ─▶ elements of our tensors, by ranges    (in)
//! elements of our tensors ─ write ─▶ folder with safetensors, config.json, tokenizer.json   (out)
//! ```
//! Both ways go through the [mapping]: which run of elements of which tensor stands where. Nothing reads or
//! holds a whole model; the largest thing in memory is a few runs of a tensor. The mapping, the
//! [configuration](config) and the [tokenizer's files](tokenizer) are pure.

pub mod card;
pub mod config;
mod dtype;
mod error;
pub mod mapping;
mod open;
mod pages;
mod read;
mod table;
pub mod tokenizer;
pub mod write;

pub use config::{Architecture, Exported};
pub use dtype::Dtype;
pub use error::Error;
pub use mapping::{Assembly, Naming, Run};
pub use open::{Head, Weights};
pub use pages::{Manifest, record, recorded};
pub use write::{Elements, Written};
