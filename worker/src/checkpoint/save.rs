//! Writing a checkpoint: objects first, the manifest last.

use super::{Error, FORMAT, Manifest, Object, TrainState, folder, place, read_manifests};
use crate::{Digest, Step, TrialId};
use polestar_dataset::{Store, store::Put};
use polestar_model::{ModelLayout, SegmentLayout};
use safetensors::{Dtype, tensor::TensorView};

/// A committed checkpoint.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Digest of its weights.
    pub digest: Digest,
    /// Bytes of all its objects.
    pub bytes: u64,
}

/// Writes and commits a checkpoint. Finding an equal one there is success: a generation that died
/// right after its commit is repeated by the next.
///
/// # Errors
/// [`Error::Conflict`] if another one is there, or the store's error.
pub async fn save(
    store: &Store,
    trial: &TrialId,
    config: &str,
    layout: &ModelLayout,
    state: &TrainState,
) -> Result<Saved, Error> {
    let place = place(trial, state.step);
    let mut objects = Vec::with_capacity(layout.segments.len());
    for segment in &layout.segments {
        let name = format!("{}.safetensors", segment.name);
        let key = format!("{place}/{name}");
        let bytes = encode(segment, state).map_err(|source| Error::Encoding {
            key: key.clone(),
            source,
        })?;
        objects.push(Object {
            name,
            bytes: bytes.len() as u64,
            blake3: blake3::hash(&bytes).to_hex().to_string(),
        });
        store.put(&key, bytes.into()).await?;
    }
    let manifest = Manifest {
        format: FORMAT,
        trial: trial.clone(),
        config: config.to_owned(),
        step: state.step,
        digest: Digest::of(&state.weights),
        consumed: state.consumed,
        objects,
    };
    let key = format!("{place}/manifest.json");
    let source = |source| Error::Manifest {
        key: key.clone(),
        source,
    };
    let json = serde_json::to_vec_pretty(&manifest).map_err(source)?;
    if store.put_if_absent(&key, json.into()).await? == Put::Exists {
        let there: Manifest = serde_json::from_slice(&store.get(&key).await?).map_err(source)?;
        // Seconds differ between two generations that compute the same; nothing else may.
        let same = there.digest == manifest.digest
            && there.config == manifest.config
            && there.objects == manifest.objects;
        if !same {
            return Err(Error::Conflict { key });
        }
    }
    Ok(Saved {
        digest: manifest.digest,
        bytes: manifest.objects.iter().map(|o| o.bytes).sum(),
    })
}

/// Removes all but the newest `keep` checkpoints (at least 2), manifests first.
///
/// # Errors
/// The store's; what was not removed is removed the next time.
pub async fn prune(store: &Store, trial: &TrialId, keep: usize) -> Result<Vec<Step>, Error> {
    let manifests = read_manifests(store, trial).await?;
    let mut removed = Vec::new();
    for (step, _) in manifests.into_iter().skip(keep.max(2)) {
        let place = place(trial, step);
        store.delete(&format!("{place}/manifest.json")).await?;
        for object in store.list(&place).await? {
            store.delete(&object.key).await?;
        }
        removed.push(step);
    }
    debug_assert!(folder(trial).starts_with("trials/"));
    Ok(removed)
}

/// One segment: each tensor under its published name, its moments with a suffix.
fn encode(
    segment: &SegmentLayout,
    state: &TrainState,
) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let mut views = Vec::with_capacity(3 * segment.tensors.len());
    for tensor in &segment.tensors {
        let shape = if tensor.vector {
            vec![tensor.shape[1]]
        } else {
            tensor.shape.to_vec()
        };
        for (suffix, vector) in [
            ("", &state.weights),
            (super::load::FIRST, &state.first),
            (super::load::SECOND, &state.second),
        ] {
            let values = &vector[segment.range()][tensor.range()];
            let view = TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values))?;
            views.push((format!("{}{suffix}", tensor.name), view));
        }
    }
    safetensors::serialize(views, None)
}
