//! Writing a checkpoint: objects first, the manifest last.

use super::{Error, FORMAT, Manifest, Object, folder, load::parse, place};
use crate::{
    Digest, Step, TrialId,
    engine::{Consumed, Part},
};
use polestar_dataset::{Store, store::Put};
use polestar_model::SegmentLayout;
use safetensors::{Dtype, tensor::TensorView};
use std::collections::BTreeMap;

/// A checkpoint being written, segment by segment. Until it is [committed](Writer::commit) there is
/// none.
#[derive(Debug)]
pub struct Writer<'a> {
    store: &'a Store,
    place: String,
    manifest: Manifest,
    /// Whether a manifest is there already: equal, or not readable.
    replaces: bool,
}

impl<'a> Writer<'a> {
    /// Begins a checkpoint of the weights with `digest`, after `step` steps of a trial whose
    /// configuration has the identity `config`. Finding an equal one there is no error: a generation
    /// that died right after its commit is repeated by the next.
    ///
    /// # Errors
    /// [`Error::Conflict`] if another one is there, which is then left as it is; or the store's.
    pub async fn begin(
        store: &'a Store,
        trial: &TrialId,
        config: &str,
        (step, digest, consumed): (Step, Digest, Consumed),
    ) -> Result<Writer<'a>, Error> {
        let place = place(trial, step);
        let key = format!("{place}/manifest.json");
        // A manifest that can't be read commits nothing, and is replaced.
        let there = store.get_opt(&key).await?;
        let readable = there.as_ref().and_then(|bytes| parse(&key, bytes).ok());
        if readable.is_some_and(|m| m.digest != digest || m.config != config) {
            return Err(Error::Conflict { key });
        }
        Ok(Writer {
            store,
            place,
            manifest: Manifest {
                format: FORMAT,
                trial: trial.clone(),
                config: config.to_owned(),
                step,
                digest,
                consumed,
                objects: Vec::new(),
            },
            replaces: there.is_some(),
        })
    }

    /// Writes the next segment, whole.
    ///
    /// # Errors
    /// The store's.
    pub async fn segment(&mut self, segment: &SegmentLayout, part: &Part) -> Result<(), Error> {
        let name = format!("{}.safetensors", segment.name);
        let key = format!("{}/{name}", self.place);
        let bytes = encode(segment, part).map_err(|source| Error::Encoding {
            key: key.clone(),
            source,
        })?;
        self.manifest.objects.push(Object {
            name,
            bytes: bytes.len() as u64,
            blake3: blake3::hash(&bytes).to_hex().to_string(),
        });
        Ok(self.store.put(&key, bytes.into()).await?)
    }

    /// Makes it a checkpoint.
    ///
    /// # Errors
    /// [`Error::Conflict`] if somebody else did in the meantime; or the store's.
    pub async fn commit(self) -> Result<(), Error> {
        let key = format!("{}/manifest.json", self.place);
        let json = serde_json::to_vec_pretty(&self.manifest).map_err(|source| Error::Manifest {
            key: key.clone(),
            source,
        })?;
        if self.replaces {
            self.store.put(&key, json.into()).await?;
        } else if self.store.put_if_absent(&key, json.into()).await? == Put::Exists {
            // Between our look and our commit: two coordinators on one run.
            return Err(Error::Conflict { key });
        }
        Ok(())
    }
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
fn encode(segment: &SegmentLayout, part: &Part) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let mut views = Vec::with_capacity(3 * segment.tensors.len());
    for tensor in &segment.tensors {
        let shape = if tensor.vector {
            vec![tensor.shape[1]]
        } else {
            tensor.shape.to_vec()
        };
        for (suffix, vector) in [
            ("", &part.weights),
            (super::load::FIRST, &part.first),
            (super::load::SECOND, &part.second),
        ] {
            let values = &vector[tensor.range()];
            let view = TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values))?;
            views.push((format!("{}{suffix}", tensor.name), view));
        }
    }
    safetensors::serialize(views, None)
}
