//! Writing a checkpoint: every rank's object first, the manifest last.

use super::{Error, Manifest, parts::Object, place, staging::Staging};
use polestar_core::{digest::BlockHash, tree::BLOCK};
use polestar_store::{Put, Store};
use std::{collections::BTreeMap, sync::Arc};

/// What a rank has to say when its object is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Uploaded {
    /// Its entry in the manifest.
    pub object: Object,
    /// Hashes of the blocks of each part's weights.
    pub blocks: Vec<Vec<BlockHash>>,
}

impl Uploaded {
    /// As bytes: the entry's length, the entry, and the hashes as they are.
    pub fn encode(&self) -> Vec<u8> {
        let entry =
            serde_json::to_vec(&self.object).expect("numbers and strings can be serialized");
        let mut bytes = (entry.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(&entry);
        for blocks in &self.blocks {
            bytes.extend_from_slice(blocks.as_flattened());
        }
        bytes
    }

    /// Reads what [`encode`](Uploaded::encode) wrote.
    ///
    /// # Errors
    /// [`Error::Entry`] when it is something else.
    pub fn decode(bytes: &[u8]) -> Result<Uploaded, Error> {
        let cut = || Error::Entry("it is cut short".to_owned());
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| cut())?;
        let (entry, hashes) = rest.split_at_checked(length).ok_or_else(cut)?;
        let object: Object =
            serde_json::from_slice(entry).map_err(|error| Error::Entry(error.to_string()))?;
        let (mut hashes, rest) = hashes.as_chunks::<{ size_of::<BlockHash>() }>();
        let mut blocks = Vec::with_capacity(object.parts.len());
        for part in &object.parts {
            let count = part.elements.div_ceil(BLOCK as u64) as usize;
            let (own, others) = hashes.split_at_checked(count).ok_or_else(cut)?;
            blocks.push(own.to_vec());
            hashes = others;
        }
        if !hashes.is_empty() || !rest.is_empty() {
            return Err(Error::Entry("it is too long".to_owned()));
        }
        Ok(Uploaded { object, blocks })
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Part;

    #[test]
    fn an_entry_travels_as_bytes_and_a_cut_one_is_refused() {
        let part = |segment, blocks: usize| Part {
            segment,
            start: 0,
            // The last block is not a whole one.
            elements: (blocks * BLOCK - 1) as u64,
            offset: 64,
        };
        let uploaded = Uploaded {
            object: Object {
                name: "00001-of-00001.safetensors".to_owned(),
                bytes: 1 << 20,
                parts: vec![part(0, 1), part(2, 300)],
                pages: vec!["00".repeat(32)],
            },
            blocks: vec![vec![[7; 32]], (0..300).map(|i| [i as u8; 32]).collect()],
        };
        let bytes = uploaded.encode();
        assert_eq!(Uploaded::decode(&bytes).expect("an entry"), uploaded);
        assert!(
            bytes.len() < 301 * 32 + 400,
            "32 bytes a block: {}",
            bytes.len()
        );
        for end in 0..bytes.len() {
            let cut = Uploaded::decode(&bytes[..end]);
            assert!(
                matches!(cut, Err(Error::Entry(_))),
                "{end} of {}",
                bytes.len()
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(Uploaded::decode(&longer), Err(Error::Entry(_))));
    }
}
