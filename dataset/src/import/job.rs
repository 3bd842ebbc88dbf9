//! The folder of an import: what it has read, grouped by prompt, and what it has found. An import that
//! was stopped leaves it behind, and the next one to the same output goes on with it.
//!
//! ```text
//! polestar-import-<output>/
//!   lock                  held by the import that runs
//!   job.json              into how many partitions prompts are scattered
//!   <input>.rows          rows of one input: frames, each of one partition
//!   <input>.json          where the frames lie: the input is read
//!   <input>.bad           records of the input that can't be used, where they are set aside
//!   <inputs, recipe>-*    findings of the walks
//!   stored.json           how far the corpus files are, and of which recipe
//! ```
//! Inputs are named by path, size and time of change, and by what of them is read: one that has changed
//! is read again, the others are not.

use super::{Error, ImportOptions, Prepared, grouping::Grouping, read::Input};
use crate::assemble::{Journal, load, save};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// What is in the folder is of no use to a version that would write something else.
const FORMAT: u32 = 2;

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
    format: u32,
    parts: usize,
}

const RECORD: &str = "job.json";

impl Job {
    /// Opens the folder of this import.
    pub(super) fn open(prepared: &Prepared, url: &str, grouping: &Grouping) -> Result<Self, Error> {
        let options = &prepared.options;
        let inputs = names(&prepared.inputs);
        for (at, name) in inputs.iter().enumerate() {
            if inputs[..at].contains(name) {
                let path = prepared.inputs[at].shown.clone();
                return Err(Error::Twice { path });
            }
        }
        let joined = names(&prepared.joined);
        let what = serde_json::json!([options.columns, options.bad_rows, joined]).to_string();
        let folder = folder(options, url);
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
        let path = folder.join(RECORD);
        let known = load::<Record>(&path)
            .filter(|record| record.format == FORMAT && grouping.ahead(record.parts).is_some());
        let parts = match known {
            Some(record) => record.parts,
            None => {
                let parts = grouping.parts()?;
                // What lies there was scattered otherwise.
                clear(&folder).map_err(failed(&folder))?;
                let format = FORMAT;
                save(&path, &Record { format, parts }).map_err(failed(&path))?;
                parts
            }
        };
        let named = |input: &String| short(format!("{input} {what}").as_bytes());
        Ok(Self {
            inputs: inputs.iter().map(named).collect(),
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

    /// Where the records of an input lie that can't be used.
    pub(super) fn bad(&self, input: usize) -> PathBuf {
        self.folder.join(format!("{}.bad", self.inputs[input]))
    }

    /// Where it is recorded that an input is read.
    pub(super) fn index(&self, input: usize) -> PathBuf {
        self.folder.join(format!("{}.json", self.inputs[input]))
    }

    /// The journal of what is found in these inputs by this recipe.
    pub(super) fn journal(&self, recipe: &impl Serialize) -> Journal {
        let identity = serde_json::json!([self.inputs, recipe]).to_string();
        Journal::new(self.folder.clone(), short(identity.as_bytes()))
    }

    /// Removes the folder: the corpus is there.
    pub(super) fn done(self) {
        // What stays is a folder in the place for such things, and the corpus is there all the same.
        if clear(&self.folder).is_ok() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The folder of an import to this output, with the bytes in it, if the next import can use what is there;
/// otherwise it is removed.
pub(super) fn leftovers(options: &ImportOptions, url: &str) -> Option<(PathBuf, u64)> {
    let folder = folder(options, url);
    let entries = fs::read_dir(&folder).ok()?.flatten();
    let (mut bytes, mut useful) = (0, false);
    for entry in entries {
        let name = entry.file_name();
        useful |= name != "lock" && name != RECORD && name.to_string_lossy().ends_with(".json");
        bytes += entry.metadata().map_or(0, |metadata| metadata.len());
    }
    if useful {
        return Some((folder, bytes));
    }
    // An import that is running has a lock on it.
    let lock = File::open(folder.join("lock")).ok()?;
    if lock.try_lock().is_ok() && clear(&folder).is_ok() {
        let _ = fs::remove_dir_all(&folder);
    }
    None
}

/// Where the folder of an import to this output is.
pub(super) fn folder(options: &ImportOptions, url: &str) -> PathBuf {
    let parent = match &options.temp_dir {
        Some(folder) => folder.clone(),
        None => std::env::temp_dir(),
    };
    parent.join(format!("polestar-import-{}", short(url.as_bytes())))
}

/// Removes everything but the lock, and first of all what says that the rest may be relied on.
fn clear(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(RECORD)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() != "lock" {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Names by place, size and time of change.
fn names(inputs: &[Input]) -> Vec<String> {
    inputs.iter().map(|input| short(&input.identity)).collect()
}

/// 16 hex digits of a digest.
fn short(identity: &[u8]) -> String {
    blake3::hash(identity).to_hex()[..16].to_owned()
}
