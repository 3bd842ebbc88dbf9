//! Checkpoints: named tensors with digests in the run's store, free of any world size.
//!
//! ```text
//! trials/<trial>/checkpoints/00000500/embedding.safetensors     weights and both moments
//!                                     block-0000.safetensors
//!                                     head.safetensors
//!                                     manifest.json             put last, if absent: the commit
//! ```
//! Whatever has no manifest doesn't exist. A manifest lists every object with its size and blake3,
//! so damage is noticed before a single weight is used; the checkpoint before it is then taken.

mod load;
mod save;

pub use load::{Loaded, Origin, newest, read_manifests};
pub use save::{Writer, prune};

use crate::{Digest, Step, TrialId, engine::Consumed};
use serde::{Deserialize, Serialize};

/// Version of the layout that this build writes.
pub const FORMAT: u32 = 1;

/// The commit record of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Layout version.
    pub format: u32,
    /// The trial.
    pub trial: TrialId,
    /// blake3 of the trial's configuration: another trial's checkpoint is never resumed from.
    pub config: String,
    /// Steps done.
    pub step: Step,
    /// Digest of the canonical vector.
    pub digest: Digest,
    /// What has gone through.
    pub consumed: Consumed,
    /// The objects, one a segment, in canonical order.
    pub objects: Vec<Object>,
}

/// One object of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// Name below the checkpoint's folder.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// blake3, hexadecimal.
    pub blake3: String,
}

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] polestar_dataset::store::Error),
    /// A manifest is not readable.
    #[error("{key} is damaged: it is no checkpoint manifest")]
    Manifest {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An object can't be encoded or decoded.
    #[error("{key}: not a safetensors object")]
    Encoding {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: safetensors::SafeTensorError,
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
    /// A checkpoint of another configuration lies there.
    #[error(
        "{key} belongs to another configuration of this trial; give the run another name or remove its folder"
    )]
    OtherConfig {
        /// The manifest.
        key: String,
    },
    /// The checkpoint to start from isn't there.
    #[error(
        "{key} is missing, and this trial starts from it; remove the result.json of that trial to have it trained again"
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
        found: u32,
    },
}

/// Folder of a trial's checkpoints inside the run.
pub fn folder(trial: &TrialId) -> String {
    format!("trials/{trial}/checkpoints")
}

fn place(trial: &TrialId, step: Step) -> String {
    format!("{}/{:08}", folder(trial), step.0)
}
