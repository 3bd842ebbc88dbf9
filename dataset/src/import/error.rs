//! What can be wrong with an import.

use std::path::{Path, PathBuf};

use crate::assemble;
use polestar_store;

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to import.
    #[error(
        "there is nothing to import: give at least one .jsonl, .jsonl.zst, .jsonl.gz or \
         .parquet file"
    )]
    NoInput,
    /// No column names the policy.
    #[error("no policy column is given; name at least one")]
    NoPolicyColumn,
    /// The file's ending is unknown.
    #[error("{} is of no known format; give .jsonl, .jsonl.zst, .jsonl.gz or .parquet", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read.
    #[error("could not read {} ({place}); check that the file is there and whole", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Where reading stopped.
        place: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The file is no Parquet file.
    #[error("could not read {} as Parquet; check that the file is whole", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: parquet::errors::ParquetError,
    },
    /// A line is no JSON object.
    #[error("{}, line {line} is not a JSON object; every line must be one", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What went wrong.
        source: serde_json::Error,
    },
    /// A line is no request of a batch.
    #[error(
        "{}, line {line} is no request of a batch; it needs custom_id and body.messages or \
         body.prompt", path.display()
    )]
    Request {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
    },
    /// An output whose request is not there.
    #[error(
        "{}, line {line} answers the request '{custom_id}', which is in no file of requests; give \
         the input file of every batch", path.display()
    )]
    Unasked {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// The request.
        custom_id: String,
    },
    /// A row lacks a column.
    #[error("{}, {row} has no column '{column}'; it has {available}: map the column to one of these", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// "line 3" or "row 3", counted from 1.
        row: String,
        /// The column.
        column: String,
        /// The columns that exist.
        available: String,
    },
    /// A value has the wrong type.
    #[error("{}, {row}: the column '{column}' holds {found}, but {expected} is needed", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// "line 3" or "row 3", counted from 1.
        row: String,
        /// The column.
        column: String,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// One id, two prompts.
    #[error(
        "the prompt id '{prompt_id}' stands for two different prompts; make the ids unique or \
         leave the prompt_id column out"
    )]
    PromptClash {
        /// The id.
        prompt_id: String,
    },
    /// A resemblance is not one.
    #[error("drop_similar is {given}; give a resemblance above 0 and below 1, such as 0.9")]
    Similar {
        /// The resemblance.
        given: f64,
    },
    /// A cluster where none is asked for.
    #[error(
        "--cluster serves pairs across prompts only; add --pairs across-prompts, or leave it out"
    )]
    Cluster,
    /// The same import is running.
    #[error(
        "another import to {url} is running (it holds {}); wait for it, or stop it", folder.display()
    )]
    Busy {
        /// The output.
        url: String,
        /// Its folder.
        folder: PathBuf,
    },
    /// So much text can't be grouped in so little memory.
    #[error(
        "about {text_gib} GiB of text can't be grouped in {memory_mib} MiB of memory; give at least \
         {needed_mib} MiB"
    )]
    Memory {
        /// Text, estimated from the sizes of the inputs.
        text_gib: u64,
        /// What was given.
        memory_mib: u64,
        /// What is enough.
        needed_mib: u64,
    },
    /// One input, twice.
    #[error("{} is given twice, perhaps under another name; give it once", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
    },
    /// Two questions under one name.
    #[error(
        "{}, line {line} asks something else under the custom_id '{custom_id}' than a line before; \
         answers could not be told apart: give the batches of one to one import", path.display()
    )]
    Ambiguous {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// The request.
        custom_id: String,
    },
    /// Temporary files failed.
    #[error("could not use the temporary file {}; choose a temp_dir with enough free space", path.display())]
    Spill {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The output is no store.
    #[error("could not open the output")]
    Output(#[source] polestar_store::Error),
    /// The rows were read, but no corpus could be made of them.
    #[error(transparent)]
    Assemble(#[from] assemble::Error),
}

/// [`Error::Read`] of a file, at a place in it.
pub(super) fn unreadable(path: &Path, place: String, source: std::io::Error) -> Error {
    Error::Read {
        path: path.into(),
        place,
        source,
    }
}
