//! The Parquet files of a corpus: row groups written with the extents and digests that let each be
//! fetched and verified alone.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::{Buf, Bytes};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{ChunkReader, Length};
use parquet::schema::types::ColumnPath;
use polestar_core::digest::hex;

use crate::manifest::{Extent, File, FileSplit, RowGroup};
use crate::schema;
use polestar_store;
use polestar_store::Store;
use polestar_store::disk_cache::DiskCache;

/// Why a corpus file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Rows could not be encoded or decoded.
    #[error("could not convert the rows of {path}")]
    Schema {
        /// The file.
        path: String,
        /// What went wrong.
        source: schema::Error,
    },
    /// The Parquet library failed.
    #[error("could not {operation} {path} as Parquet")]
    Parquet {
        /// "write" or "read".
        operation: &'static str,
        /// The file.
        path: String,
        /// What went wrong.
        source: ParquetError,
    },
    /// The store failed.
    #[error("could not fetch {part} of {path}")]
    Fetch {
        /// "row group 3" or "the metadata".
        part: String,
        /// The file.
        path: String,
        /// What went wrong.
        source: Box<polestar_store::Error>,
    },
    /// Bytes differ from those written.
    #[error(
        "{part} of {path} is damaged: its bytes have the digest {found}, the manifest says \
         {expected}; restore the file, import the corpus anew, or go on without it: \
         corpus.quarantine = [{left_out}] in the sweep file, which makes it another run"
    )]
    Damaged {
        /// "row group 3" or "the metadata".
        part: String,
        /// The file.
        path: String,
        /// Digest of what was read.
        found: String,
        /// Digest of what was written.
        expected: String,
        /// What to leave out to go on.
        left_out: String,
    },
}

/// How many prompts of a row group are usable.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usable {
    pub(crate) prompts: u64,
    pub(crate) heldout_policy_prompts: u64,
}

/// A file that is being written, in memory.
pub(crate) struct FileWriter {
    path: String,
    split: FileSplit,
    writer: ArrowWriter<Vec<u8>>,
    groups: Vec<(u64, Usable)>,
}

impl FileWriter {
    /// A file of batches of this schema.
    pub(crate) fn new(path: String, split: FileSplit, schema: SchemaRef) -> Result<Self, Error> {
        let responses = ColumnPath::from("response");
        let properties = WriterProperties::builder()
            .set_created_by("polestar".into())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_statistics_enabled(EnabledStatistics::None)
            .set_offset_index_disabled(true)
            // Responses are nearly all distinct: a dictionary would only be built to be thrown
            // away.
            .set_column_dictionary_enabled(responses, false)
            .set_column_dictionary_enabled(
                ColumnPath::from(vec![
                    schema::RESPONSE_TOKENS.to_owned(),
                    "list".to_owned(),
                    "item".to_owned(),
                ]),
                false,
            )
            .set_max_row_group_row_count(None)
            .build();
        let writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties));
        let writer = writer.map_err(|source| Error::Parquet {
            operation: "write",
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            path,
            split,
            writer,
            groups: vec![],
        })
    }

    /// Bytes of the row groups written so far.
    pub(crate) fn bytes(&self) -> usize {
        self.writer.bytes_written()
    }

    /// Writes encoded rows as one row group.
    pub(crate) fn push(
        &mut self,
        batch: Result<RecordBatch, schema::Error>,
        usable: Usable,
    ) -> Result<(), Error> {
        let path = &self.path;
        let batch = batch.map_err(|source| Error::Schema {
            path: path.clone(),
            source,
        })?;
        let written = self.writer.write(&batch).and_then(|()| self.writer.flush());
        written.map_err(|source| Error::Parquet {
            operation: "write",
            path: path.clone(),
            source,
        })?;
        self.groups.push((batch.num_rows() as u64, usable));
        Ok(())
    }

    /// Ends the file: its bytes and its entry in the manifest.
    pub(crate) fn finish(self) -> Result<(File, Bytes), Error> {
        let failed = |source| Error::Parquet {
            operation: "write",
            path: self.path.clone(),
            source,
        };
        let written = self.writer.flushed_row_groups().to_vec();
        let bytes = self.writer.into_inner().map_err(failed)?;
        let extent = |start: u64, end: u64| Extent {
            offset: start,
            bytes: end - start,
            digest: hex(&bytes[start as usize..end as usize]),
        };
        let mut end = 0;
        let mut row_groups = Vec::new();
        for ((rows, usable), group) in self.groups.iter().zip(&written) {
            let chunks = group.columns().iter().map(|column| column.byte_range());
            let start = chunks.clone().map(|(start, _)| start).min().unwrap_or(end);
            end = chunks
                .map(|(start, length)| start + length)
                .max()
                .unwrap_or(end);
            row_groups.push(RowGroup {
                rows: *rows,
                prompts: usable.prompts,
                heldout_policy_prompts: usable.heldout_policy_prompts,
                extent: extent(start, end),
            });
        }
        let file = File {
            rows: self.groups.iter().map(|(rows, _)| rows).sum(),
            bytes: bytes.len() as u64,
            digest: hex(&bytes),
            footer: extent(end, bytes.len() as u64),
            path: self.path,
            split: self.split,
            row_groups,
        };
        Ok((file, bytes.into()))
    }
}

/// Fetches the Parquet metadata of a file, verified.
pub(crate) async fn fetch_metadata(
    store: &Store,
    cache: Option<&DiskCache>,
    file: &File,
) -> Result<ArrowReaderMetadata, Error> {
    let bytes = fetch(store, cache, file, &file.footer, || "the metadata".into()).await?;
    let source = Fragment {
        offset: file.footer.offset,
        bytes,
        file_bytes: file.bytes,
    };
    ArrowReaderMetadata::load(&source, ArrowReaderOptions::new())
        .map_err(|source| unreadable(file, source))
}

/// Fetches one row group with one range request, verifies and decodes it.
pub(crate) async fn fetch_row_group(
    store: &Store,
    cache: Option<&DiskCache>,
    file: &File,
    metadata: ArrowReaderMetadata,
    number: usize,
) -> Result<Vec<RecordBatch>, Error> {
    let extent = &file.row_groups[number].extent;
    let bytes = fetch(store, cache, file, extent, || format!("row group {number}")).await?;
    let source = Fragment {
        offset: extent.offset,
        bytes,
        file_bytes: file.bytes,
    };
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(source, metadata)
        .with_row_groups(vec![number])
        .build()
        .map_err(|source| unreadable(file, source))?;
    let batches: Result<Vec<_>, _> = reader.collect();
    batches.map_err(|source| unreadable(file, source.into()))
}

fn unreadable(file: &File, source: ParquetError) -> Error {
    Error::Parquet {
        operation: "read",
        path: file.path.clone(),
        source,
    }
}

async fn fetch(
    store: &Store,
    cache: Option<&DiskCache>,
    file: &File,
    extent: &Extent,
    part: impl Fn() -> String,
) -> Result<Bytes, Error> {
    let path = &file.path;
    if let Some(bytes) = cache.and_then(|cache| cache.get(&extent.digest)) {
        return Ok(bytes);
    }
    let bytes = store.get_range(path, extent.range()).await;
    let bytes = bytes.map_err(|source| Error::Fetch {
        part: part(),
        path: path.clone(),
        source: source.into(),
    })?;
    let found = hex(&bytes);
    if found != extent.digest {
        return Err(Error::Damaged {
            part: part(),
            path: path.clone(),
            found,
            expected: extent.digest.clone(),
            left_out: left_out(file, extent),
        });
    }
    if let Some(cache) = cache {
        cache.put(&extent.digest, &bytes);
    }
    Ok(bytes)
}

/// The row groups that can't be read without an extent.
fn left_out(file: &File, extent: &Extent) -> String {
    let needing = |group: &RowGroup| group.extent == *extent || file.footer == *extent;
    let numbers = file
        .row_groups
        .iter()
        .enumerate()
        .filter(|(_, group)| needing(group));
    let names: Vec<_> = numbers
        .map(|(number, _)| format!("\"{}#{number}\"", file.path))
        .collect();
    names.join(", ")
}

/// A part of a file that answers for the whole: reads outside of the part fail.
struct Fragment {
    offset: u64,
    bytes: Bytes,
    file_bytes: u64,
}

impl Length for Fragment {
    fn len(&self) -> u64 {
        self.file_bytes
    }
}

impl ChunkReader for Fragment {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let length = (self.offset + self.bytes.len() as u64).saturating_sub(start);
        Ok(self.get_bytes(start, length as usize)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let first = start.checked_sub(self.offset).map(|first| first as usize);
        let range = first.and_then(|first| Some(first..first.checked_add(length)?));
        let within = range.filter(|range| range.end <= self.bytes.len());
        within.map(|range| self.bytes.slice(range)).ok_or_else(|| {
            let end = self.offset + self.bytes.len() as u64;
            ParquetError::EOF(format!(
                "bytes {start}+{length} were asked for, {}..{end} were fetched",
                self.offset
            ))
        })
    }
}
