//! Reading: from what a user names to raw records, streaming, whatever the format.
//!
//! ```text
//! files, folders, patterns, URLs --expand--> inputs
//! input --open--> bytes --peel: gzip, zstd, xz, bzip2; zip and tar by member--> a format, known by its content
//!       --split--> batches of raw records --fields, on any core--> columns as JSON values
//! ```
//! Nothing is taken from the ending of a name. A reader only splits; what a record holds is parsed by
//! whoever asks, and only the columns that are asked for.

mod archive;
mod arrow;
mod delimited;
mod error;
mod expand;
mod frames;
mod http;
mod hub;
mod json;
mod layers;
mod lenient;
mod lines;
mod local;
mod near;
mod objects;
mod open;
mod parquet;
mod record;
mod remote;
mod skip;
mod sniff;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread;

use super::Error;
pub use error::InputError;
pub(super) use expand::{Input, Skipped, expand};
use open::Reading;
pub(super) use record::RawRecord;

/// Columns to materialise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of them.
    All,
    /// Those of these names, at the top of a record.
    Columns(BTreeSet<String>),
}

impl Wanted {
    /// Whether the column is one of them.
    pub(super) fn has(&self, column: &str) -> bool {
        match self {
            Self::All => true,
            Self::Columns(names) => names.contains(column),
        }
    }

    /// Which columns of a table have to be read: one at least, since rows of none can't be counted.
    fn roots(&self, columns: &[String]) -> Vec<usize> {
        let all = 0..columns.len();
        let mut roots: Vec<usize> = all.filter(|at| self.has(&columns[*at])).collect();
        if roots.is_empty() && !columns.is_empty() {
            roots.push(0);
        }
        roots
    }
}

/// Records that follow one another in an input.
#[derive(Debug)]
pub(super) struct Batch {
    /// In the order of the input.
    pub(super) records: Vec<RawRecord>,
    /// Bytes of the input that are read so far, of [`Input::bytes`].
    pub(super) consumed: u64,
}

/// What is to be done with a batch: `false` ends the reading.
type Each<'a> = &'a mut dyn FnMut(Batch) -> Result<bool, Error>;

/// What a reader does with a batch: hand it on; `false` when nobody wants more.
type Sink<'a> = &'a mut dyn FnMut(Vec<RawRecord>) -> bool;

/// A batch ends with the record that brings it to so many bytes.
const BATCH_BYTES: usize = 4 << 20;
/// A record that is longer is none: some quote or bracket is missing.
const RECORD_BYTES: usize = 1 << 29;
/// Batches that are read ahead.
const AHEAD: usize = 1;

/// Hands the records of an input to `each`, in order; returns the members of an archive that were
/// skipped. Reading goes on, on a thread of its own, while `each` works. Blocks its thread, which must
/// not be one of an asynchronous runtime's.
///
/// # Errors
/// [`Error::Input`] with the first thing that can't be read; or what `each` returned. Batches before it
/// were handed over.
pub(super) fn read(input: &Input, wanted: &Wanted, each: Each<'_>) -> Result<Vec<Skipped>, Error> {
    thread::scope(|scope| {
        let (sender, batches) = mpsc::sync_channel(AHEAD);
        let reader = scope.spawn(move || {
            let mut reading = Reading::new(input, wanted);
            let consumed = reading.consumed();
            let mut send = |records: Vec<RawRecord>| {
                let consumed = consumed.bytes();
                sender.send(Batch { records, consumed }).is_ok()
            };
            let ended = reading.run(&mut send);
            // What lies after the last record was read as well.
            if ended.is_ok() {
                send(vec![]);
            }
            ended.map(|()| reading.skipped)
        });
        let mut outcome = Ok(());
        for batch in batches.iter() {
            match each(batch) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        drop(batches);
        let ended = match reader.join() {
            Ok(ended) => ended,
            Err(panicked) => std::panic::resume_unwind(panicked),
        };
        outcome?;
        Ok(ended?)
    })
}
