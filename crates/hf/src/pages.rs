//! What weights are, page by page: a record whose digest belongs to a trial's identity, and which whoever reads
//! the files compares them with.
//!
//! `weights/<digest>.json` in the store of runs. Files are hashed in pages, so that a rank that reads its part of
//! them checks that part.

use crate::{Error, Weights};
use futures::{StreamExt, TryStreamExt, stream};
use polestar_core::{Digest, format};
use polestar_store::Store;
use serde::{Deserialize, Serialize};

/// Version of the record that this build writes.
const FORMAT: u32 = 1;
/// Bytes that are hashed together.
pub(crate) const PAGE: u64 = 1 << 20;
/// Bytes of a request while all is hashed.
const SPAN: u64 = 16 << 20;
const AT_A_TIME: usize = 4;

/// The files of some weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    /// blake3 of config.json.
    config: Digest,
    page: u64,
    files: Vec<FilePages>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePages {
    name: String,
    bytes: u64,
    /// blake3 of each page.
    pages: Vec<Digest>,
}

impl Manifest {
    fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and strings can be serialized")
    }

    /// What names the weights: equal digests mean equal files.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.json())
    }

    /// Whether whole pages of a file are those on record.
    pub(crate) fn holds(&self, file: usize, first: u64, bytes: &[u8]) -> bool {
        let Some(of) = self.files.get(file) else {
            return false;
        };
        let pages = of.pages.iter().skip((first / self.page) as usize);
        let chunks = bytes.chunks(self.page as usize);
        chunks.len() <= pages.len()
            && chunks
                .zip(pages)
                .all(|(page, digest)| Digest::of(page) == *digest)
    }
}

fn key(digest: &Digest) -> String {
    format!("weights/{}.json", digest.first(16))
}

/// Puts a record into the store of runs.
///
/// # Errors
/// The store's.
pub async fn record(store: &Store, manifest: &Manifest) -> Result<(), Error> {
    let key = key(&manifest.digest());
    store.put_if_absent(&key, manifest.json().into()).await?;
    Ok(())
}

/// The record of weights with this digest.
///
/// # Errors
/// [`Error::Record`] when it is gone or altered; the store's.
pub async fn recorded(store: &Store, digest: &Digest) -> Result<Manifest, Error> {
    let key = key(digest);
    let wrong = |what| Error::Record {
        key: format!("{}/{key}", store.url()),
        what,
    };
    let bytes = store.get_opt(&key).await?.ok_or_else(|| wrong("missing"))?;
    if Digest::of(&bytes) != *digest {
        return Err(wrong("altered"));
    }
    format::check(&bytes, "format", FORMAT).map_err(|_| wrong("of another version"))?;
    serde_json::from_slice(&bytes).map_err(|_| wrong("not readable"))
}

impl Weights {
    /// Reads every file once, and hashes it.
    ///
    /// # Errors
    /// The store's; [`Error::File`] for one that changed its length meanwhile.
    pub async fn manifest(&self) -> Result<Manifest, Error> {
        let mut files = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let spans = (0..file.bytes).step_by(SPAN as usize);
            let reads = spans.map(|from| async move {
                let span = from..(from + SPAN).min(file.bytes);
                let length = (span.end - span.start) as usize;
                let bytes = self.store.get_range(&file.name, span).await?;
                if bytes.len() != length {
                    return Err(Error::File {
                        file: format!("{}/{}", self.url(), file.name),
                        what: "became shorter while it was read".to_owned(),
                    });
                }
                Ok(bytes
                    .chunks(PAGE as usize)
                    .map(Digest::of)
                    .collect::<Vec<_>>())
            });
            let pages: Vec<Vec<Digest>> = stream::iter(reads)
                .buffered(AT_A_TIME)
                .try_collect()
                .await?;
            files.push(FilePages {
                name: file.name.clone(),
                bytes: file.bytes,
                pages: pages.concat(),
            });
        }
        Ok(Manifest {
            format: FORMAT,
            config: Digest::of(&self.config),
            page: PAGE,
            files,
        })
    }

    /// The same, with everything that is read compared with the record.
    ///
    /// # Errors
    /// [`Error::Changed`] if files are others than those on record.
    pub fn checked(mut self, manifest: Manifest) -> Result<Weights, Error> {
        let there = self.files.iter().map(|file| (&file.name, file.bytes));
        let wanted = manifest.files.iter().map(|file| (&file.name, file.bytes));
        let what = if !there.eq(wanted) {
            "files have other names or lengths than those on record"
        } else if manifest.config != Digest::of(&self.config) {
            "config.json is another one than that on record"
        } else {
            self.pages = Some(manifest);
            return Ok(self);
        };
        Err(Error::Changed {
            url: self.url().to_owned(),
            what: what.to_owned(),
            digest: manifest.digest().short(),
        })
    }
}
