//! Where a file that grows goes: appended to in a folder, written whole now and then in an object store.

use polestar_store::Store;
use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::{
    fs::{self, File},
    io::{AsyncSeekExt, AsyncWriteExt},
};

/// An object that has grown is written again after this time at the earliest.
const EVERY: Duration = Duration::from_secs(30);
/// An object of this size is full: what comes next goes into another.
const FULL: usize = 1 << 20;

/// Why a file doesn't grow.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A file of this machine.
    #[error("{}: can't be written", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An object.
    #[error(transparent)]
    Store(#[from] polestar_store::Error),
}

/// A file that grows.
#[derive(Debug)]
pub(super) enum Target {
    /// A file of this machine, open once it was written to.
    File {
        path: PathBuf,
        /// Bytes that are whole: after trouble it is cut there.
        length: u64,
        file: Option<File>,
    },
    /// An object, with all that is in it.
    Object {
        store: Store,
        key: String,
        bytes: Vec<u8>,
        /// When it was last written, and how much of it.
        stored: Option<(Instant, usize)>,
    },
}

impl Target {
    /// A file or an object of a store, of which so many bytes are there and whole; of objects always none.
    pub(super) fn new(store: &Store, key: &str, length: u64) -> Target {
        match store.local_path(key) {
            Some(path) => Target::File {
                path,
                length,
                file: None,
            },
            None => Target::Object {
                store: store.clone(),
                key: key.to_owned(),
                bytes: Vec::new(),
                stored: None,
            },
        }
    }

    /// Adds to it: all of it or, with an error, nothing. An object may be stored later.
    pub(super) async fn append(&mut self, more: &[u8]) -> Result<(), TargetError> {
        match self {
            Target::File { path, length, file } => {
                if let Err(source) = write(path, *length, file, more).await {
                    *file = None;
                    let path = path.clone();
                    return Err(TargetError::File { path, source });
                }
                *length += more.len() as u64;
            }
            Target::Object { bytes, stored, .. } => {
                let before = bytes.len();
                bytes.extend(more);
                let is_due = stored.is_none_or(|(at, _)| at.elapsed() >= EVERY);
                let full = bytes.len() >= FULL;
                if (is_due || full)
                    && let Err(error) = self.store().await
                {
                    // It is kept for the next time, as long as that is not too much.
                    if let Target::Object { bytes, .. } = self
                        && before >= 2 * FULL
                    {
                        bytes.truncate(before);
                        return Err(error);
                    }
                    tracing::warn!("{}", polestar_core::chain(&error));
                }
            }
        }
        Ok(())
    }

    /// Stores what is not stored yet.
    pub(super) async fn store(&mut self) -> Result<(), TargetError> {
        let Target::Object {
            store,
            key,
            bytes,
            stored,
        } = self
        else {
            return Ok(());
        };
        if stored.is_some_and(|(_, length)| length == bytes.len()) {
            return Ok(());
        }
        // Also if it fails: trouble isn't asked for with every row.
        let length = stored.map_or(0, |(_, length)| length);
        *stored = Some((Instant::now(), length));
        store.put(key, bytes.clone().into()).await?;
        *stored = Some((Instant::now(), bytes.len()));
        Ok(())
    }

    /// Whether what comes next belongs into another one.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Target::File { .. } => false,
            Target::Object { bytes, stored, .. } => {
                bytes.len() >= FULL && stored.is_some_and(|(_, length)| length == bytes.len())
            }
        }
    }

    /// Whether nothing was written to it yet.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Target::File { length, .. } => *length == 0,
            Target::Object { bytes, .. } => bytes.is_empty(),
        }
    }
}

/// Writes behind the first `length` bytes of a file, whatever is there.
async fn write(path: &Path, length: u64, file: &mut Option<File>, more: &[u8]) -> io::Result<()> {
    let opened = match file {
        Some(file) => file,
        None => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).await?;
            }
            let mut options = File::options();
            let opened = options.create(true).truncate(false).write(true);
            let mut opened = opened.open(path).await?;
            // What a write left that had no room, or one that a power cut has torn.
            opened.set_len(length).await?;
            opened.seek(io::SeekFrom::End(0)).await?;
            file.insert(opened)
        }
    };
    let written = async {
        opened.write_all(more).await?;
        opened.flush().await
    };
    if let Err(error) = written.await {
        // A half record would end the file for its readers. What can't be cut now is cut before the next write.
        let _ = opened.set_len(length).await;
        return Err(error);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_without_room_keeps_what_it_has_and_takes_more_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics/file");
        let mut target = Target::File {
            path: path.clone(),
            length: 0,
            file: None,
        };
        target.append(b"one\n").await.expect("there is room");
        // As a disk that is full: the kernel's own device that says so.
        std::fs::rename(&path, folder.path().join("aside")).expect("writable");
        std::os::unix::fs::symlink("/dev/full", &path).expect("writable");
        if let Target::File { file, .. } = &mut target {
            *file = None;
        }
        let said = target.append(b"two\n").await.expect_err("no room");
        assert!(said.to_string().contains("metrics/file"), "{said}");
        std::fs::rename(folder.path().join("aside"), &path).expect("writable");
        target
            .append(b"three\n")
            .await
            .expect("there is room again");
        let found = std::fs::read_to_string(&path).expect("readable");
        assert_eq!(found, "one\nthree\n");
        // What was torn behind the whole part goes.
        let mut after = Target::File {
            path: path.clone(),
            length: 4,
            file: None,
        };
        after.append(b"four\n").await.expect("there is room");
        let found = std::fs::read_to_string(&path).expect("readable");
        assert_eq!(found, "one\nfour\n");
    }
}
