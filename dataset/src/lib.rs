//! Trajectories of many policies, from files to the packed rows of a training step: schema, import,
//! synthesis, manifest, tokenization, triplets, lanes, packing and the loader.
//!
//! A corpus is a set of Parquet files in an object store with a manifest that is written last. What
//! a training step contains is a pure function of the manifest and a seed; [`Loader`] only fetches
//! it ahead of time.

pub mod account;
pub mod across;
mod assemble;
pub mod corpus;
pub mod cuts;
pub mod distance;
pub mod files;
pub mod import;
pub mod inspect;
pub mod labelled;
pub mod lanes;
pub mod loader;
pub mod manifest;
pub mod mapping;
mod normal;
pub mod origin;
pub mod pack;
mod pattern;
pub mod preview;
pub mod reader;
pub mod sample;
mod sampler;
pub mod schema;
pub mod synth;
pub mod tokenizer;
pub mod tree;
pub mod triplet;
pub mod twins;
pub mod verify;

pub use account::{Account, Accounts, InputAccount};
pub use across::Pairs;
pub use assemble::{Coarser, Error as AssembleError, Obstacles, Unusable};
pub use corpus::{Corpus, LeftOut};
pub use cuts::Cuts;
pub use distance::PolicyDistances;
pub use import::{BadRows, Detection, ImportOptions, Prepared, Progress, Stage, import, leftovers};
pub use inspect::{Inspection, inspect};
pub use labelled::{LabelledInspection, SubsetView, inspect_labelled};
pub use lanes::{LaneOrder, Visit};
pub use loader::{LanePacks, LaneTriplets, LoadPlan, Loader, StepBatch};
pub use manifest::{CorpusKind, Fingerprint, Manifest, PromptRef, RowGroupRef};
pub use mapping::{Column, ColumnMapping, MappingRecipe, ReferenceFrom, recipes};
pub use normal::Changes;
pub use origin::{FileLayout, HeldOut, Origin, SynthOptions, SynthOrigin};
pub use pack::{Pack, PackCost, Packer};
pub use preview::{PreviewOptions, PromptView, TripletView, find_prompts, preview};
pub use sample::{
    AnswerSource, Layout, SampleConfig, SpecialTokens, TokenTriplet, TripletSource, Wrapper,
};
pub use sampler::Split;
pub use schema::{Message, Prompt, Trajectory};
pub use synth::planted::{Optimum, planted_optimum};
pub use synth::synth;
pub use tokenizer::{GivenTokenizer, Tokenizer};
pub use tree::{TokenTree, TreePack, TreePacker};
pub use triplet::{Obstacle, PolicyChoice, TripletChoice, Weighting};
pub use twins::{HeldOutPolicies, HeldOutPolicy, Likeness, PassedOver, Reason};
pub use verify::{Verification, verify};
