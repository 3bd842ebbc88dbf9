//! What a job has found so far, in a folder: a job that was stopped reads it there and goes on.

use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Findings of one job, by name. What depends on other input has another folder or another prefix.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    prefix: String,
}

impl Journal {
    /// A journal in a folder, in files whose names begin with `prefix`.
    pub(crate) fn new(folder: PathBuf, prefix: String) -> Self {
        Self { folder, prefix }
    }

    /// What was saved under this name; `None` also if it can't be read: it is found again then.
    pub(crate) fn load<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        load(&self.path(name))
    }

    /// Saves it, over what was there.
    pub(crate) fn save<T: Serialize>(&self, name: &str, found: &T) -> io::Result<()> {
        save(&self.path(name), found)
    }

    /// Which job's journal this is, among those that share the folder.
    pub(crate) fn job(&self) -> &str {
        &self.prefix
    }

    /// [`Journal::load`] of an entry that all jobs in the folder have in common.
    pub(crate) fn load_shared<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        load(&self.folder.join(format!("{name}.json")))
    }

    /// [`Journal::save`] of an entry that all jobs in the folder have in common.
    pub(crate) fn save_shared<T: Serialize>(&self, name: &str, found: &T) -> io::Result<()> {
        save(&self.folder.join(format!("{name}.json")), found)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{}-{name}.json", self.prefix))
    }
}

/// Reads what [`save`] wrote.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes a file that is there whole or not at all, also after a power cut.
pub(crate) fn save<T: Serialize>(path: &Path, found: &T) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec(found)?)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
