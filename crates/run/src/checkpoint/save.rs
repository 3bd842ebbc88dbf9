//! Writing a checkpoint: every rank's object first, the manifest last.

use super::{Error, Manifest, parts::Object, place, staging::Staging};
use polestar_core::digest::BlockHash;
use polestar_store::{Put, Store};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// What a rank has to say when its object is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Uploaded {
    /// Its entry in the manifest.
    pub object: Object,
    /// Hashes of the blocks of each part's weights.
    pub blocks: Vec<Vec<BlockHash>>,
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// The checkpoint is new.
    Created,
    /// An equal one was there: a generation that died right after its commit is repeated by the next.
    Repeated,
}

/// Hashes and stores a rank's object.
///
/// # Errors
/// The store's.
pub async fn upload(store: &Store, place: &str, staging: Arc<Staging>) -> Result<Uploaded, Error> {
    let key = format!("{place}/{}", staging.name());
    let hashed = Arc::clone(&staging);
    let hashing = tokio::task::spawn_blocking(move || hashed.hashes());
    struct Shared(Arc<Staging>);
    impl AsRef<[u8]> for Shared {
        fn as_ref(&self) -> &[u8] {
            (*self.0).as_ref()
        }
    }
    let bytes = bytes::Bytes::from_owner(Shared(staging));
    store.put(&key, bytes).await?;
    let (object, blocks) = hashing.await.map_err(|_| Error::Panicked { key })?;
    Ok(Uploaded { object, blocks })
}

/// The hashes of all blocks of a model in canonical order, from what its ranks uploaded.
pub fn canonical(ranks: &[Uploaded]) -> impl Iterator<Item = &BlockHash> {
    let mut by_place = BTreeMap::new();
    for Uploaded { object, blocks } in ranks {
        for (part, blocks) in object.parts.iter().zip(blocks) {
            by_place.insert((part.segment, part.start), blocks);
        }
    }
    by_place.into_values().flatten()
}

/// Makes it a checkpoint. What was stored is good; an equal manifest whose objects are other ones
/// (another world wrote them, and one of them may be damaged) is replaced.
///
/// # Errors
/// [`Error::Conflict`] if a checkpoint with other weights is there, which is then left as it is; or the
/// store's.
pub async fn commit(store: &Store, manifest: &Manifest) -> Result<Saved, Error> {
    let key = super::manifest_key(&manifest.recipe, manifest.step);
    let json = serde_json::to_vec(manifest).map_err(|source| Error::Manifest {
        key: key.clone(),
        source,
    })?;
    let equal =
        |there: &Manifest| there.digest == manifest.digest && there.recipe == manifest.recipe;
    let there = store.get_opt(&key).await?;
    // A manifest that can't be read commits nothing, and is replaced.
    let readable = there.as_ref().map(|bytes| Manifest::parse(&key, bytes));
    match readable {
        None => {}
        Some(Ok(there)) if !equal(&there) => return Err(Error::Conflict { key }),
        Some(Ok(there)) if there.objects == manifest.objects => return Ok(Saved::Repeated),
        Some(_) => {
            store.put(&key, json.into()).await?;
            remove_others(store, manifest).await?;
            return Ok(Saved::Repeated);
        }
    }
    if store.put_if_absent(&key, json.into()).await? == Put::Created {
        return Ok(Saved::Created);
    }
    // Ours, if the answer to a first attempt was lost; or another coordinator's on the same run.
    match Manifest::parse(&key, &store.get(&key).await?) {
        Ok(there) if equal(&there) => Ok(Saved::Created),
        _ => Err(Error::Conflict { key }),
    }
}

/// Removes what the manifest of a place doesn't speak of any more.
async fn remove_others(store: &Store, manifest: &Manifest) -> Result<(), Error> {
    let place = place(&manifest.recipe, manifest.step);
    for object in store.list(&place).await? {
        let name = object.key.rsplit('/').next().unwrap_or_default();
        if name != "manifest.json" && manifest.objects.iter().all(|o| o.name != name) {
            store.delete(&object.key).await?;
        }
    }
    Ok(())
}
