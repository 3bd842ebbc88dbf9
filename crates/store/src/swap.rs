//! Compare and swap: replacing an object only if nobody has since it was read.
//!
//! Services and memory do it themselves, by the tag that came with the object. A folder has no such
//! operation: there a lock on a file beside the object makes reading, comparing and replacing one act,
//! among all processes that see the folder.

use super::{Error, Result, Store};
use bytes::Bytes;
use object_store::{ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use std::{fs::File, io::ErrorKind};

/// What names of files begin with that are locks and no objects.
pub(super) const LOCK: &str = ".polestar-lock-";

/// The content of an object as it was read.
#[derive(Clone, Debug)]
pub struct Version(Tag);

#[derive(Clone, Debug)]
enum Tag {
    /// What the service calls it.
    Service(UpdateVersion),
    /// In a folder: the content itself, hashed. Content that comes back counts as unchanged.
    Content(blake3::Hash),
}

/// What a [swap](Store::compare_and_swap) found.
#[derive(Clone, Debug)]
pub enum Swap {
    /// The content was as expected and is replaced; the version of what is there now.
    Swapped(Version),
    /// Somebody changed or removed the object in the meantime; nothing was written.
    Changed,
}

impl Store {
    /// The whole object and its version, or `None` when there is none.
    ///
    /// # Errors
    /// The store's.
    pub async fn get_versioned(&self, key: &str) -> Result<Option<(Bytes, Version)>> {
        if self.root.is_some() {
            let bytes = self.get_opt(key).await?;
            return Ok(bytes.map(|bytes| {
                let tag = Tag::Content(blake3::hash(&bytes));
                (bytes, Version(tag))
            }));
        }
        let path = self.path(key)?;
        let read = || async {
            let found = self.inner.get(&path).await?;
            let version = UpdateVersion {
                e_tag: found.meta.e_tag.clone(),
                version: found.meta.version.clone(),
            };
            Ok((found.bytes().await?, Version(Tag::Service(version))))
        };
        match self.attempt(0, read).await.value {
            Ok(found) => Ok(Some(found)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", key, error)),
        }
    }

    /// Replaces an object only if it still is the version that was read. For small objects whose every
    /// content is new (a lease with its holder and epoch): where an answer is lost, finding one's own
    /// bytes there counts as success.
    ///
    /// # Errors
    /// The store's. Creating an object that isn't there is [`put_if_absent`](Store::put_if_absent)'s.
    pub async fn compare_and_swap(
        &self,
        key: &str,
        expected: &Version,
        bytes: Bytes,
    ) -> Result<Swap> {
        match &expected.0 {
            Tag::Content(hash) => self.swap_in_folder(key, *hash, bytes).await,
            Tag::Service(version) => self.swap_at_service(key, version.clone(), bytes).await,
        }
    }

    async fn swap_at_service(
        &self,
        key: &str,
        expected: UpdateVersion,
        bytes: Bytes,
    ) -> Result<Swap> {
        let path = self.path(key)?;
        let write = || {
            let options = PutOptions::from(PutMode::Update(expected.clone()));
            self.inner.put_opts(&path, bytes.clone().into(), options)
        };
        let written = self.attempt(bytes.len() as u64, write).await;
        match written.value {
            Ok(put) => Ok(Swap::Swapped(Version(Tag::Service(UpdateVersion {
                e_tag: put.e_tag,
                version: put.version,
            })))),
            Err(
                object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. },
            ) => {
                if !written.repeated {
                    return Ok(Swap::Changed);
                }
                // The attempt whose answer was lost may have been the one that wrote it.
                match self.get_versioned(key).await? {
                    Some((there, version)) if there == bytes => Ok(Swap::Swapped(version)),
                    _ => Ok(Swap::Changed),
                }
            }
            Err(error) => Err(self.failed("write", key, error)),
        }
    }

    async fn swap_in_folder(
        &self,
        key: &str,
        expected: blake3::Hash,
        bytes: Bytes,
    ) -> Result<Swap> {
        // Without a folder for the lock there is none for the object.
        let Some(_lock) = self.lock(key).await? else {
            return Ok(Swap::Changed);
        };
        match self.get_opt(key).await? {
            Some(there) if blake3::hash(&there) == expected => {}
            _ => return Ok(Swap::Changed),
        }
        let hash = blake3::hash(&bytes);
        self.put(key, bytes).await?;
        Ok(Swap::Swapped(Version(Tag::Content(hash))))
    }

    /// Keeps other processes from swapping this key until it is dropped; `None` if the object's folder isn't there.
    async fn lock(&self, key: &str) -> Result<Option<File>> {
        let root = self.root.as_ref().expect("only folders are locked");
        let path = root.join(self.path(key)?.as_ref());
        let name = path.file_name().unwrap_or_default();
        let name = blake3::hash(name.as_encoded_bytes()).to_hex();
        // Beside the object, so that all who see it meet there, by whichever folder above they opened it: in the
        // system's temporary folder only processes of one host would.
        let file = path.with_file_name(format!("{LOCK}{}", &name[..16]));
        let locked = tokio::task::spawn_blocking(move || {
            let file = match File::create(&file) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                created => created?,
            };
            file.lock()?;
            Ok::<_, std::io::Error>(Some(file))
        });
        let locked = locked.await.expect("taking a lock doesn't panic");
        locked.map_err(|source| Error::Open {
            url: self.url.to_string(),
            source: source.into(),
        })
    }
}
