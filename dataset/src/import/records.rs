//! Records of files that need not be trajectories, for whoever knows what they hold: the import's readers, with nothing
//! mapped.

use super::{
    Error,
    prepare::copies,
    read::{self, Wanted},
};
use serde_json::{Map, Value};

/// A record of a file of any kind: JSON lines, a JSON array, Parquet, Arrow, CSV, packed or not.
#[derive(Clone, Debug, PartialEq)]
pub struct FileRecord {
    /// The file's name, or its path within the folder or data set that was named.
    pub file: String,
    /// What errors call the place: `data/judge.jsonl line 3`.
    pub place: String,
    /// All of its columns. What CSV and TSV hold is text.
    pub fields: Map<String, Value>,
}

/// Why records can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// A file can't be found or read.
    #[error(transparent)]
    Read(#[from] Error),
    /// A record is none.
    #[error("{place} {reason}")]
    Malformed {
        /// Which.
        place: String,
        /// A clause.
        reason: String,
    },
}

/// Hands on all records of files, folders, patterns and URLs, in order, as an import would read them, until `each`
/// returns false. Returns what was found and not read: names, with why. Blocks its thread, which must not be one of an
/// asynchronous runtime's.
///
/// # Errors
/// [`RecordsError`] with the first thing that can't be read. Records before it were handed over.
pub fn records(
    named: &[String],
    each: &mut dyn FnMut(FileRecord) -> bool,
) -> Result<Vec<String>, RecordsError> {
    let copies = copies(None)?;
    let found = read::expand(named, copies.path())?;
    let mut skipped = found.skipped;
    let mut malformed = None;
    for input in &found.inputs {
        let mut goes_on = true;
        let within = read::read(input, &Wanted::All, &mut |batch| {
            for record in batch.records {
                let place = format!("{} {}", input.shown, record.place());
                match record.fields(&Wanted::All) {
                    Ok(fields) => {
                        goes_on = each(FileRecord {
                            file: input.name.clone(),
                            place,
                            fields: fields.values,
                        });
                    }
                    Err(why) => {
                        let reason = why.to_string();
                        malformed = Some(RecordsError::Malformed { place, reason });
                        goes_on = false;
                    }
                }
                if !goes_on {
                    break;
                }
            }
            Ok(goes_on)
        })?;
        skipped.extend(within);
        if !goes_on {
            break;
        }
    }
    match malformed {
        Some(error) => Err(error),
        None => {
            let named = skipped.into_iter();
            Ok(named
                .map(|it| format!("{} ({})", it.name, it.reason))
                .collect())
        }
    }
}
