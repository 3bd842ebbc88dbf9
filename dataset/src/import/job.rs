//! The folder of an import: what it has read, grouped by prompt, and what it has found. An import that
//! was stopped leaves it behind, and the next one to the same output goes on with it.
//!
//! ```text
//! polestar-import-<output, columns, requests>/
//!   lock                  held by the import that runs
//!   job.json              into how many partitions prompts are scattered
//!   <input>.rows          rows of one input: frames, each of one partition
//!   <input>.json          where the frames lie: the input is read
//!   <inputs, recipe>-*    findings of the walks
//! ```
//! Inputs are named by path, size and time of change: one that has changed is read again, the others
//! are not.

use super::{Error, ImportOptions};
use crate::assemble::{Notes, keep, recall};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

/// What is in the folder is of no use to a version that would write something else.
const FORMAT: u32 = 1;

/// An import's folder, locked.
#[derive(Debug)]
pub(super) struct Job {
    folder: PathBuf,
    parts: usize,
    /// Names of the inputs, in order.
    inputs: Vec<String>,
    _lock: File,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    parts: usize,
}

impl Job {
    /// Opens the folder of this import; at least `parts` partitions are needed.
    pub(super) fn open(options: &ImportOptions, url: &str, parts: usize) -> Result<Self, Error> {
        let folder = folder(options, url)?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Spill { path, source }
        };
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(failed(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Busy {
                    url: url.to_owned(),
                    folder,
                });
            }
            Err(TryLockError::Error(source)) => return Err(Error::Spill { path, source }),
        }
        let path = folder.join("job.json");
        let parts = match recall::<Record>(&path) {
            Some(record) if record.parts >= parts => record.parts,
            _ => {
                // Nothing that lies there was scattered finely enough.
                clear(&folder).map_err(failed(&folder))?;
                keep(&path, &Record { parts }).map_err(failed(&path))?;
                parts
            }
        };
        Ok(Self {
            inputs: names(&options.inputs)?,
            folder,
            parts,
            _lock: lock,
        })
    }

    /// Partitions of the prompts.
    pub(super) fn parts(&self) -> usize {
        self.parts
    }

    /// Where the rows of an input lie.
    pub(super) fn rows(&self, input: usize) -> PathBuf {
        self.folder.join(format!("{}.rows", self.inputs[input]))
    }

    /// Where it is noted that an input is read.
    pub(super) fn index(&self, input: usize) -> PathBuf {
        self.folder.join(format!("{}.json", self.inputs[input]))
    }

    /// Notes of what is found in these inputs by this recipe.
    pub(super) fn notes(&self, recipe: &impl Serialize) -> Notes {
        let identity = serde_json::json!([self.inputs, recipe]).to_string();
        Notes::new(self.folder.clone(), short(identity.as_bytes()))
    }

    /// Removes the folder: the corpus is there.
    pub(super) fn done(self) {
        // What stays is a folder in the place for such things, and the corpus is there all the same.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where the folder of an import to this output is.
pub(super) fn folder(options: &ImportOptions, url: &str) -> Result<PathBuf, Error> {
    let requests: Vec<String> = names(&options.requests)?;
    let identity = serde_json::json!([FORMAT, url, options.columns, requests]);
    let parent = match &options.temp_dir {
        Some(folder) => folder.clone(),
        None => std::env::temp_dir(),
    };
    let name = format!("polestar-import-{}", short(identity.to_string().as_bytes()));
    Ok(parent.join(name))
}

/// Removes everything but the lock.
fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() != "lock" {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Names by path, size and time of change.
fn names(files: &[PathBuf]) -> Result<Vec<String>, Error> {
    let name = |path: &PathBuf| {
        let unreadable = |source| super::unreadable(path, "from the start".into(), source);
        let metadata = fs::metadata(path).map_err(unreadable)?;
        let changed = metadata.modified().map_err(unreadable)?;
        let changed = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
        let path = path.canonicalize().map_err(unreadable)?;
        let path = path.as_os_str().as_encoded_bytes();
        let mut identity = path.to_vec();
        identity.extend_from_slice(&metadata.len().to_le_bytes());
        identity.extend_from_slice(&changed.as_nanos().to_le_bytes());
        Ok(short(&identity))
    };
    files.iter().map(name).collect()
}

/// 16 hex digits of a digest.
fn short(identity: &[u8]) -> String {
    blake3::hash(identity).to_hex()[..16].to_owned()
}
