//! Trajectories of many policies, from files to the token packs of a training step: schema, store,
//! import, synthesis, manifest, tokenization, triplets, lanes, packing and the loader.
//!
//! A corpus is a set of Parquet files in an object store with a manifest that is written last. What
//! a training step contains is a pure function of the manifest and a seed; [`Loader`] only fetches
//! it ahead of time.

mod assemble;
pub mod corpus;
pub mod distance;
pub mod files;
pub mod import;
pub mod inspect;
pub mod lanes;
pub mod layout;
pub mod loader;
pub mod manifest;
pub mod reader;
pub mod schema;
mod similarity;
pub mod synth;
pub mod tokenizer;
pub mod triplet;
pub mod verify;

pub use assemble::Error as AssembleError;
pub use corpus::{Corpus, LeftOut, Split};
pub use distance::PolicyDistances;
pub use import::{
    ColumnMapping, FileLayout, HeldOut, ImportOptions, Progress, Stage, import, left_behind,
};
pub use inspect::{Inspection, inspect};
pub use lanes::{LaneOrder, PromptRef};
pub use layout::{Layout, Pack, Placed, SampleConfig, SpecialTokens, TokenTriplet, Wrapper, pack};
pub use loader::{LoadPlan, Loader, StepBatch};
pub use manifest::{Fingerprint, Manifest};
pub use schema::{Message, Prompt, Trajectory};
pub use synth::planted::{Optimum, planted_optimum};
pub use synth::{SynthOptions, synth};
pub use tokenizer::Tokenizer;
pub use triplet::{PolicyChoice, TripletChoice, Weighting};
pub use verify::{Verification, verify};
