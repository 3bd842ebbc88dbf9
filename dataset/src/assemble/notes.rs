//! What a job has found so far, in a folder: a job that was stopped reads it there and goes on.

use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Findings of one job, by name. What depends on other input has another folder or another prefix.
#[derive(Debug)]
pub(crate) struct Notes {
    folder: PathBuf,
    prefix: String,
}

impl Notes {
    /// Notes in a folder whose names begin with `prefix`.
    pub(crate) fn new(folder: PathBuf, prefix: String) -> Self {
        Self { folder, prefix }
    }

    /// What was noted under this name; `None` also if it can't be read: it is found again then.
    pub(crate) fn recall<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        recall(&self.path(name))
    }

    /// Notes it, over what was there.
    pub(crate) fn keep<T: Serialize>(&self, name: &str, found: &T) -> io::Result<()> {
        keep(&self.path(name), found)
    }

    /// Which job's notes these are, among those that share the folder.
    pub(crate) fn job(&self) -> &str {
        &self.prefix
    }

    /// [`Notes::recall`] of what all jobs that share the folder have one note of.
    pub(crate) fn recall_shared<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        recall(&self.folder.join(format!("{name}.json")))
    }

    /// [`Notes::keep`] for all jobs that share the folder.
    pub(crate) fn keep_shared<T: Serialize>(&self, name: &str, found: &T) -> io::Result<()> {
        keep(&self.folder.join(format!("{name}.json")), found)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{}-{name}.json", self.prefix))
    }
}

/// Reads what [`keep`] wrote.
pub(crate) fn recall<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes a file that is there whole or not at all, also after a power cut.
pub(crate) fn keep<T: Serialize>(path: &Path, found: &T) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec(found)?)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
