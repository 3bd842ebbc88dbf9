//! What can be wrong with what an import was given to read.

/// What may be given, as an error says it.
pub(super) const ACCEPTED: &str = "JSON lines, JSON, CSV, TSV, Parquet or Arrow IPC, plain or in gzip, zstd, xz, bzip2, zip or tar";

/// Why an input could not be found or read. The path is as it was given, for remote inputs the URL
/// without its query and credentials.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Nothing has this name.
    #[error("there is no file or folder {path}{near}")]
    Missing {
        /// What was named.
        path: String,
        /// "; did you mean …?" with the nearest names beside it, or nothing.
        near: String,
    },
    /// Nothing matches a pattern.
    #[error(
        "nothing matches {pattern}; check the pattern, and quote it so that the shell leaves it alone"
    )]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// The name is no path, pattern or URL.
    #[error("'{given}' can't be read: {reason}")]
    Name {
        /// What was named.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A folder, a pattern or a data set holds files, but none with data.
    #[error("{path} holds no data: {skipped}; name a file to have it read all the same")]
    NoData {
        /// The place.
        path: String,
        /// What lies there and was skipped.
        skipped: String,
    },
    /// Bytes could not be read.
    #[error("could not read {path}")]
    Read {
        /// The input.
        path: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// It is something else than data.
    #[error("{path} is {what}")]
    Mistaken {
        /// The input.
        path: String,
        /// What it is, and what to do.
        what: String,
    },
    /// Its bytes are of no known format.
    #[error("{path} is of no known format: it begins with {begins}; give {ACCEPTED}")]
    Unknown {
        /// The input.
        path: String,
        /// The first bytes, readable.
        begins: String,
    },
    /// It ends early.
    #[error("{path} is cut off: {what} end {place}; copy or download it again")]
    Cut {
        /// The input.
        path: String,
        /// "its gzip data" and the like.
        what: &'static str,
        /// Where: "in the middle, after line 3".
        place: String,
    },
    /// It is damaged.
    #[error("{path} is damaged: {what}; copy or download it again")]
    Damaged {
        /// The input.
        path: String,
        /// What is wrong, and where.
        what: String,
    },
    /// One record is longer than anything that can be data.
    #[error("{path}, {place} is longer than {mib} MiB; is it one record?")]
    Long {
        /// The input.
        path: String,
        /// The record.
        place: String,
        /// The limit.
        mib: u64,
    },
    /// It has a form that isn't read.
    #[error("{path} can't be read: {what}")]
    Unsupported {
        /// The input.
        path: String,
        /// What is not supported, and what to do.
        what: String,
    },
    /// An object store failed.
    #[error("could not read {path}")]
    Store {
        /// The URL.
        path: String,
        /// What went wrong.
        source: polestar_store::Error,
    },
    /// A web server refused.
    #[error("{path}: {answer}")]
    Web {
        /// The URL.
        path: String,
        /// What the server said, and what to do.
        answer: String,
    },
    /// A web server could not be asked.
    #[error("could not read {path}; check the address and the network")]
    Network {
        /// The URL.
        path: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The Hub could not be asked.
    #[error("could not ask the Hub at {endpoint} for {path}; check the network, or set HF_HUB_OFFLINE=1 to read only what {} has of it", cache.display())]
    Hub {
        /// The data set.
        path: String,
        /// The Hub's address.
        endpoint: String,
        /// Where its files are kept.
        cache: std::path::PathBuf,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A temporary copy could not be made.
    #[error("could not keep a copy of {path} in {}; choose a temp_dir with enough free space", folder.display())]
    Copy {
        /// The input.
        path: String,
        /// The folder of temporary files.
        folder: std::path::PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
}
