//! Writing a checkpoint: objects first, the manifest last.

use super::{Error, FORMAT, Manifest, Object, TrainState, folder, load::parse, place};
use crate::{Digest, Step, TrialId};
use polestar_dataset::{Store, store::Put};
use polestar_model::{ModelLayout, SegmentLayout};
use safetensors::{Dtype, tensor::TensorView};
use std::collections::BTreeMap;

/// Writes and commits a checkpoint. Finding an equal one there is success: a generation that died
/// right after its commit is repeated by the next.
///
/// # Errors
/// [`Error::Conflict`] if another one is there, which is then left as it is; or the store's error.
pub async fn save(
    store: &Store,
    trial: &TrialId,
    config: &str,
    layout: &ModelLayout,
    state: &TrainState,
) -> Result<(), Error> {
    let place = place(trial, state.step);
    let key = format!("{place}/manifest.json");
    let digest = Digest::of(&state.weights);
    // A manifest that can't be read commits nothing, and is replaced.
    let there = store.get_opt(&key).await?;
    let readable = there.as_ref().and_then(|bytes| parse(&key, bytes).ok());
    if readable.is_some_and(|m| m.digest != digest || m.config != config) {
        return Err(Error::Conflict { key });
    }
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
        digest,
        consumed: state.consumed,
        objects,
    };
    let json = serde_json::to_vec_pretty(&manifest).map_err(|source| Error::Manifest {
        key: key.clone(),
        source,
    })?;
    if there.is_some() {
        store.put(&key, json.into()).await?;
    } else if store.put_if_absent(&key, json.into()).await? == Put::Exists {
        // Somebody else wrote it between our look and our commit: two coordinators on one run.
        return Err(Error::Conflict { key });
    }
    Ok(())
}

/// Removes the checkpoints before `newest`, the one just committed, except for the `keep - 1` (at
/// least one) before it. Later ones are left alone: they are damaged, or of a run that went further.
/// Manifests go first, so that what remains of an interrupted removal is no checkpoint, and is
/// removed the next time.
///
/// # Errors
/// The store's.
pub async fn prune(store: &Store, trial: &TrialId, newest: Step, keep: usize) -> Result<(), Error> {
    let folder = folder(trial);
    let mut places: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for object in store.list(&folder).await? {
        let step = object
            .key
            .strip_prefix(&folder)
            .and_then(|rest| rest.trim_start_matches('/').split('/').next())
            .and_then(|step| step.parse().ok());
        if let Some(step) = step.filter(|step| *step < newest.0) {
            places.entry(step).or_default().push(object.key);
        }
    }
    let is_manifest = |key: &String| key.ends_with("/manifest.json");
    let mut kept = 1;
    for (_, mut keys) in places.into_iter().rev() {
        if kept < keep.max(2) && keys.iter().any(is_manifest) {
            kept += 1;
            continue;
        }
        keys.sort_by_key(|key| !is_manifest(key));
        for key in keys {
            store.delete(&key).await?;
        }
    }
    Ok(())
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
