//! Arrow IPC: files (Feather of version 2 too) and streams (as Hugging Face's datasets keep them).

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::ArrowError;

use super::layers::Source;
use super::open::{Fault, Reading};
use super::parquet::{guarded, placed};
use super::{BATCH_BYTES, Sink, frames, value};

/// Hands over the rows of a file.
pub(super) fn file(mut file: File, reading: &Reading<'_>, sink: Sink<'_>) -> Result<(), Fault> {
    let mut end = [0; 6];
    let length = file.seek(SeekFrom::End(0)).map_err(Fault::Read)?;
    if length > 16 {
        file.seek(SeekFrom::End(-6)).map_err(Fault::Read)?;
        file.read_exact(&mut end).map_err(Fault::Read)?;
    }
    if &end != b"ARROW1" {
        return Err(Fault::Cut {
            what: "its Arrow data",
            place: "without the footer that says what is in them".into(),
        });
    }
    guarded(|| frames::check(&mut file, length).map_err(ArrowError::from))?;
    file.rewind().map_err(Fault::Read)?;
    let reader = guarded(|| FileReader::try_new_buffered(&file, None))?;
    let all = value::names(&reader.schema());
    let batches = reader.num_batches();
    drop(reader);
    let roots = reading.wanted.roots(&all);
    file.rewind().map_err(Fault::Read)?;
    let mut reader = guarded(|| FileReader::try_new_buffered(file, Some(roots)))?;
    let mut done = 0;
    let mut next = || {
        let batch = guarded(|| reader.next().transpose());
        done += 1;
        if let Some(bytes) = reading.direct() {
            let share = f64::from(done) / batches.max(1) as f64;
            reading
                .consumed()
                .set((bytes as f64 * share.min(1.0)) as u64);
        }
        batch
    };
    rows(&mut next, all.into(), sink)
}

/// Hands over the rows of a stream.
pub(super) fn stream(
    source: Source<'_>,
    reading: &Reading<'_>,
    sink: Sink<'_>,
) -> Result<(), Fault> {
    let mut source = BufReader::with_capacity(1 << 18, source);
    // A stream says its columns first; which of them are read has to be known before.
    let head = guarded(|| schema_message(&mut source))?;
    let schema = guarded(|| StreamReader::try_new(&head[..], None))?.schema();
    let all = value::names(&schema);
    let roots = reading.wanted.roots(&all);
    let whole = frames::Checked::new(std::io::Cursor::new(head).chain(source));
    let mut reader = guarded(|| StreamReader::try_new(whole, Some(roots)))?;
    rows(
        &mut || guarded(|| reader.next().transpose()),
        all.into(),
        sink,
    )
}

/// The bytes of a stream's first message, which has no body.
fn schema_message(source: &mut impl Read) -> Result<Vec<u8>, ArrowError> {
    let mut message = vec![0; 8];
    source.read_exact(&mut message)?;
    let length = u32::from_le_bytes([message[4], message[5], message[6], message[7]]);
    source.take(length.into()).read_to_end(&mut message)?;
    Ok(message)
}

fn rows(
    next: &mut dyn FnMut() -> Result<Option<RecordBatch>, Fault>,
    all: Arc<[String]>,
    sink: Sink<'_>,
) -> Result<(), Fault> {
    let mut before = 0;
    loop {
        let batch = next().map_err(|fault| placed(fault, &format!("after row {before}")))?;
        let Some(batch) = batch else {
            return Ok(());
        };
        // Writers may put a whole table into one batch.
        let row_bytes = batch.get_array_memory_size() / batch.num_rows().max(1);
        let step = (BATCH_BYTES / row_bytes.max(1)).clamp(64, 4096);
        for begin in (0..batch.num_rows()).step_by(step) {
            let slice = batch.slice(begin, step.min(batch.num_rows() - begin));
            let records = value::records(&slice, &all, before);
            before += slice.num_rows() as u64;
            if !sink(records) {
                return Ok(());
            }
        }
    }
}
