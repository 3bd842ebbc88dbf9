//! Finding and reading checkpoints.

use super::{Error, FORMAT, Manifest, folder, place};
use crate::{StartFrom, Step, TrialId, engine::Part};
use polestar_dataset::Store;
use polestar_model::{ModelLayout, SegmentLayout};
use safetensors::SafeTensors;

/// Suffix of the first moment's name.
pub(super) const FIRST: &str = ".adam_m";
/// Suffix of the second moment's name.
pub(super) const SECOND: &str = ".adam_v";

/// What [`newest`] found.
#[derive(Debug)]
pub struct Loaded {
    /// The whole checkpoint that was read, if there is one.
    pub found: Option<Manifest>,
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

/// Reads the newest whole checkpoint of this very configuration. `put(i, part)` takes segment `i`;
/// it may be called again for a segment, when the rest of a checkpoint turns out to be damaged.
///
/// # Errors
/// [`Error::OtherConfig`] when another configuration's checkpoint lies there; the store's errors.
/// Damage is no error here: it is told in [`Loaded::passed_over`].
pub async fn newest(
    store: &Store,
    trial: &TrialId,
    config: &str,
    layout: &ModelLayout,
    mut put: impl FnMut(usize, Part),
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
        match read(store, trial, &manifest, layout, &mut put).await {
            Ok(()) => {
                return Ok(Loaded {
                    found: Some(manifest),
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
        found: None,
        passed_over,
    })
}

async fn read(
    store: &Store,
    trial: &TrialId,
    manifest: &Manifest,
    layout: &ModelLayout,
    put: &mut impl FnMut(usize, Part),
) -> Result<(), Error> {
    let place = place(trial, manifest.step);
    for (i, segment) in layout.segments.iter().enumerate() {
        let missing = |what: String| Error::Damaged {
            key: place.clone(),
            what,
        };
        let object = fetch(store, &place, manifest, segment)
            .await?
            .ok_or_else(|| missing(format!("segment {} is missing", segment.name)))?;
        let mut part = Part::fresh(vec![0.0; segment.elements]);
        for tensor in &segment.tensors {
            for (suffix, vector) in [
                ("", &mut part.weights),
                (FIRST, &mut part.first),
                (SECOND, &mut part.second),
            ] {
                let name = format!("{}{suffix}", tensor.name);
                if !object.copy(&name, &mut vector[tensor.range()])? {
                    return Err(missing(format!("tensor {name} is missing")));
                }
            }
        }
        put(i, part);
    }
    Ok(())
}

/// Another trial's checkpoint, to start from.
#[derive(Debug)]
pub struct Origin<'a> {
    store: &'a Store,
    place: String,
    manifest: Manifest,
}

impl<'a> Origin<'a> {
    /// Finds it.
    ///
    /// # Errors
    /// [`Error::NoStart`] when that checkpoint isn't there, or what is wrong with it. No other one
    /// is taken in its place.
    pub async fn open(store: &'a Store, start: &StartFrom) -> Result<Origin<'a>, Error> {
        let place = place(&start.trial, start.step);
        let key = format!("{place}/manifest.json");
        let Some(bytes) = store.get_opt(&key).await? else {
            return Err(Error::NoStart { key });
        };
        Ok(Origin {
            store,
            manifest: parse(&key, &bytes)?,
            place,
        })
    }

    /// Overwrites a segment's weights where names and sizes match; the rest (a head, say) stays as
    /// it is.
    ///
    /// # Errors
    /// When its object is damaged, or the store's.
    pub async fn overwrite(
        &self,
        segment: &SegmentLayout,
        weights: &mut [f32],
    ) -> Result<(), Error> {
        let fetched = fetch(self.store, &self.place, &self.manifest, segment).await?;
        if let Some(object) = fetched {
            for tensor in &segment.tensors {
                object.copy(&tensor.name, &mut weights[tensor.range()])?;
            }
        }
        Ok(())
    }
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

/// The verified object of one segment.
struct Fetched {
    key: String,
    bytes: bytes::Bytes,
}

/// A segment's object, if the manifest lists it.
async fn fetch(
    store: &Store,
    place: &str,
    manifest: &Manifest,
    segment: &SegmentLayout,
) -> Result<Option<Fetched>, Error> {
    let name = format!("{}.safetensors", segment.name);
    let Some(object) = manifest.objects.iter().find(|o| o.name == name) else {
        return Ok(None);
    };
    let key = format!("{place}/{name}");
    let damaged = |what: String| Error::Damaged {
        key: key.clone(),
        what,
    };
    let bytes = store
        .get_opt(&key)
        .await?
        .ok_or_else(|| damaged("it is missing".to_owned()))?;
    if bytes.len() as u64 != object.bytes {
        let found = format!("{} bytes instead of {}", bytes.len(), object.bytes);
        return Err(damaged(found));
    }
    if blake3::hash(&bytes).to_hex().as_str() != object.blake3 {
        return Err(damaged("its digest is not the manifest's".to_owned()));
    }
    Ok(Some(Fetched { key, bytes }))
}

impl Fetched {
    /// Copies a tensor if it is there and has the right size.
    fn copy(&self, name: &str, sink: &mut [f32]) -> Result<bool, Error> {
        let encoding = |source| Error::Encoding {
            key: self.key.clone(),
            source,
        };
        let tensors = SafeTensors::deserialize(&self.bytes).map_err(encoding)?;
        let Ok(tensor) = tensors.tensor(name) else {
            return Ok(false);
        };
        if tensor.data().len() != 4 * sink.len() {
            return Ok(false);
        }
        for (value, b) in sink.iter_mut().zip(tensor.data().as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*b);
        }
        Ok(true)
    }
}
