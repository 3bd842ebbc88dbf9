//! Finding and reading checkpoints.

use super::{Error, FORMAT, Manifest, TrainState, folder, place};
use crate::{StartFrom, Step, TrialId};
use polestar_dataset::Store;
use polestar_model::ModelLayout;
use safetensors::SafeTensors;
use std::collections::HashMap;

/// Suffix of the first moment's name.
pub(super) const FIRST: &str = ".adam_m";
/// Suffix of the second moment's name.
pub(super) const SECOND: &str = ".adam_v";

/// What [`newest`] found.
#[derive(Debug)]
pub struct Loaded {
    /// The state to go on from, if there is a whole checkpoint.
    pub state: Option<TrainState>,
    /// Newer ones that are damaged, each a sentence that names the object.
    pub passed_over: Vec<String>,
}

/// All committed checkpoints of a trial, newest first. A manifest that can't be read is an error
/// in its place, not of the whole listing.
///
/// # Errors
/// The store's.
pub async fn read_manifests(
    store: &Store,
    trial: &TrialId,
) -> Result<Vec<(Step, Result<Manifest, Error>)>, Error> {
    let mut found = Vec::new();
    for object in store.list(&folder(trial)).await? {
        let Some(step) = object
            .key
            .strip_suffix("/manifest.json")
            .and_then(|place| place.rsplit('/').next())
            .and_then(|step| step.parse().ok())
        else {
            continue;
        };
        let manifest = match store.get(&object.key).await {
            Ok(bytes) => parse(&object.key, &bytes),
            Err(error) => Err(error.into()),
        };
        found.push((Step(step), manifest));
    }
    found.sort_by_key(|(step, _)| std::cmp::Reverse(*step));
    Ok(found)
}

/// Reads the newest whole checkpoint of this very configuration.
///
/// # Errors
/// [`Error::OtherConfig`] when another configuration's checkpoint lies there; the store's errors.
/// Damage is no error here: it is told in [`Loaded::passed_over`].
pub async fn newest(
    store: &Store,
    trial: &TrialId,
    config: &str,
    layout: &ModelLayout,
) -> Result<Loaded, Error> {
    let mut passed_over = Vec::new();
    for (step, manifest) in read_manifests(store, trial).await? {
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(error) => {
                passed_over.push(error.to_string());
                continue;
            }
        };
        if manifest.config != config {
            return Err(Error::OtherConfig {
                key: format!("{}/manifest.json", place(trial, step)),
            });
        }
        match read(store, trial, &manifest, layout).await {
            Ok(state) => {
                return Ok(Loaded {
                    state: Some(state),
                    passed_over,
                });
            }
            Err(error @ (Error::Damaged { .. } | Error::Encoding { .. })) => {
                passed_over.push(error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Loaded {
        state: None,
        passed_over,
    })
}

async fn read(
    store: &Store,
    trial: &TrialId,
    manifest: &Manifest,
    layout: &ModelLayout,
) -> Result<TrainState, Error> {
    let n = layout.elements();
    let mut state = TrainState {
        step: manifest.step,
        weights: vec![0.0; n],
        first: vec![0.0; n],
        second: vec![0.0; n],
        consumed: manifest.consumed,
    };
    let objects = objects(store, trial, manifest).await?;
    for segment in &layout.segments {
        for tensor in &segment.tensors {
            let parts = [
                ("", &mut state.weights),
                (FIRST, &mut state.first),
                (SECOND, &mut state.second),
            ];
            for (suffix, vector) in parts {
                let name = format!("{}{suffix}", tensor.name);
                let sink = &mut vector[segment.range()][tensor.range()];
                if !objects.copy(&name, sink)? {
                    return Err(Error::Damaged {
                        key: place(trial, manifest.step),
                        what: format!("tensor {name} is missing"),
                    });
                }
            }
        }
    }
    Ok(state)
}

/// Overwrites weights by those of another trial's checkpoint, where names and sizes match; the rest
/// (its head, say) stays as it is.
///
/// # Errors
/// [`Error::NoStart`] when that checkpoint isn't there, or what is wrong with it. No other one is
/// taken in its place.
pub async fn load_weights(
    store: &Store,
    start: &StartFrom,
    layout: &ModelLayout,
    weights: &mut [f32],
) -> Result<(), Error> {
    let key = format!("{}/manifest.json", place(&start.trial, start.step));
    let Some(bytes) = store.get_opt(&key).await? else {
        return Err(Error::NoStart { key });
    };
    let manifest = parse(&key, &bytes)?;
    let objects = objects(store, &start.trial, &manifest).await?;
    for segment in &layout.segments {
        for tensor in &segment.tensors {
            let sink = &mut weights[segment.range()][tensor.range()];
            objects.copy(&tensor.name, sink)?;
        }
    }
    Ok(())
}

/// Reads a manifest of this format.
pub(super) fn parse(key: &str, bytes: &[u8]) -> Result<Manifest, Error> {
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|source| Error::Manifest {
        key: key.to_owned(),
        source,
    })?;
    if manifest.format != FORMAT {
        return Err(Error::Format {
            key: key.to_owned(),
            found: manifest.format,
        });
    }
    Ok(manifest)
}

/// The verified objects of a checkpoint.
struct Objects {
    all: Vec<(String, bytes::Bytes)>,
    at: HashMap<String, usize>,
}

async fn objects(store: &Store, trial: &TrialId, manifest: &Manifest) -> Result<Objects, Error> {
    let place = place(trial, manifest.step);
    let mut objects = Objects {
        all: Vec::new(),
        at: HashMap::new(),
    };
    for object in &manifest.objects {
        let key = format!("{place}/{}", object.name);
        let damaged = |what: &str| Error::Damaged {
            key: key.clone(),
            what: what.to_owned(),
        };
        let bytes = store
            .get_opt(&key)
            .await?
            .ok_or_else(|| damaged("it is missing"))?;
        if bytes.len() as u64 != object.bytes {
            return Err(damaged(&format!(
                "{} bytes instead of {}",
                bytes.len(),
                object.bytes
            )));
        }
        if blake3::hash(&bytes).to_hex().as_str() != object.blake3 {
            return Err(damaged("its digest is not the manifest's"));
        }
        let names = SafeTensors::deserialize(&bytes)
            .map(|t| t.names().into_iter().map(str::to_owned).collect::<Vec<_>>())
            .map_err(|source| Error::Encoding {
                key: key.clone(),
                source,
            })?;
        for name in names {
            objects.at.insert(name, objects.all.len());
        }
        objects.all.push((key, bytes));
    }
    Ok(objects)
}

impl Objects {
    /// Copies a tensor if it is there and has the right size.
    fn copy(&self, name: &str, sink: &mut [f32]) -> Result<bool, Error> {
        let Some(&at) = self.at.get(name) else {
            return Ok(false);
        };
        let (key, bytes) = &self.all[at];
        let encoding = |source| Error::Encoding {
            key: key.clone(),
            source,
        };
        let tensors = SafeTensors::deserialize(bytes).map_err(encoding)?;
        let data = tensors.tensor(name).map_err(encoding)?.data();
        if data.len() != 4 * sink.len() {
            return Ok(false);
        }
        for (value, b) in sink.iter_mut().zip(data.chunks_exact(4)) {
            *value = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        }
        Ok(true)
    }
}
