//! Checkpoints: named tensors with digests in the store, free of any world size.
//!
//! ```text
//! trials/<trial>/checkpoints/00000500/00001-of-00002.safetensors   what rank 0 of 2 owned
//!                                     00002-of-00002.safetensors   what rank 1 of 2 owned
//!                                     manifest.json                put last, if absent: the commit
//! ```
//! Whatever has no manifest doesn't exist. Each rank writes the part of every segment that it owns;
//! what an object holds is a function of the weights, the number of ranks and the rank, so a writer
//! that was given up can at worst write the same bytes again.
//!
//! The manifest says where each tensor lies in the canonical vector and which elements are in which
//! object, so that a reader of any world size and stage fetches the ranges that it needs and nothing
//! else. Objects are hashed in pages; a range is read in whole pages and checked before a single
//! weight of it is used. Damage is named, and the checkpoint before it is taken.

mod direct;
mod keep;
mod load;
mod parts;
mod save;
mod staging;

pub use keep::{Keep, Listed, Removal, committed, list, prune, removals};
pub use load::{Check, Origin, Wanted, check, open, read};
pub use parts::segments;
pub use parts::{Kind, Manifest, Object, PAGE, Part, Segment, Tensor};
pub use save::canonical;
pub use save::{Saved, Uploaded, commit, upload};
pub use staging::{Shape, Staging};

use polestar_core::{RecipeId, Step};

/// Version of the layout that this build writes.
pub const FORMAT: u32 = 3;

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] polestar_store::Error),
    /// A manifest is not readable.
    #[error("{key} is damaged: it is no checkpoint manifest")]
    Manifest {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Another run wrote a different checkpoint there.
    #[error(
        "{key} exists and differs from what this run computed; two runs share one place, or the promise of one answer is broken"
    )]
    Conflict {
        /// The manifest.
        key: String,
    },
    /// An object is missing, short or altered.
    #[error("{key} is damaged: {what}")]
    Damaged {
        /// The object.
        key: String,
        /// What was found.
        what: String,
    },
    /// A file can't be read.
    #[error("could not read {key}")]
    Read {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A checkpoint of another recipe lies there.
    #[error("{key} belongs to another recipe than its folder; remove that folder")]
    OtherRecipe {
        /// The manifest.
        key: String,
    },
    /// The checkpoint to start from isn't there.
    #[error(
        "{key} is missing, and this trial starts from it; remove that trial's results to have it trained again"
    )]
    NoStart {
        /// Its manifest.
        key: String,
    },
    /// Written by another version.
    #[error(
        "{key} has format {found}, this Polestar reads {FORMAT}; use the version that wrote it"
    )]
    Format {
        /// The manifest.
        key: String,
        /// Its format.
        found: u64,
    },
    /// A rank's word about its object is not what a rank says.
    #[error("a rank's entry of a checkpoint can't be read: {0}; are all workers of one version?")]
    Entry(String),
    /// The program's own work came to a stop.
    #[error("writing {key} ended in a panic; please report it")]
    Panicked {
        /// The object.
        key: String,
    },
}

impl Error {
    /// Whether the checkpoint before this one may be used instead.
    pub fn is_damage(&self) -> bool {
        matches!(self, Error::Damaged { .. } | Error::Manifest { .. })
    }
}

/// Folder of a trial's checkpoints in the store.
pub fn folder(trial: &RecipeId) -> String {
    format!("{}/checkpoints", trial.folder())
}

/// Folder of one checkpoint in the store.
pub fn place(trial: &RecipeId, step: Step) -> String {
    format!("{}/{:08}", folder(trial), step.0)
}

fn manifest_key(trial: &RecipeId, step: Step) -> String {
    format!("{}/manifest.json", place(trial, step))
}
