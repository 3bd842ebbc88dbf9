//! Reading trajectories from JSON lines (plain, zstd, gzip) and Parquet, batch by batch.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatchReader};
use arrow_schema::DataType;
use flate2::read::MultiGzDecoder;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use rayon::prelude::*;
use serde_json::{Map, Value};

use super::batch::{Requests, Trouble};
use super::row::{DEFAULT_SAMPLE, Problem, Row, listed, rows};
use super::spill::Encoded;
use super::{Error, error::unreadable};
use crate::origin::ColumnMapping;

/// zstd's largest window: archives of text are often packed with more than the default limit.
const ZSTD_WINDOW_LOG: u32 = 31;

/// The kinds of input.
#[derive(Clone, Copy)]
enum Format {
    Plain,
    Zstd,
    Gzip,
    Parquet,
}

fn format(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_str()?;
    let ends = |ending: &str| name.ends_with(ending);
    match () {
        () if ends(".jsonl") || ends(".ndjson") => Some(Format::Plain),
        () if ends(".jsonl.zst") || ends(".ndjson.zst") => Some(Format::Zstd),
        () if ends(".jsonl.gz") || ends(".ndjson.gz") => Some(Format::Gzip),
        () if ends(".parquet") => Some(Format::Parquet),
        () => None,
    }
}

/// About how many bytes of text a file of so many bytes holds.
pub(super) fn text_estimate(path: &Path, bytes: u64) -> u64 {
    let ratio = match format(path) {
        Some(Format::Zstd) => 8,
        Some(Format::Gzip | Format::Parquet) => 5,
        Some(Format::Plain) | None => 1,
    };
    bytes.saturating_mul(ratio)
}

/// Rows of an input, in its order.
pub(super) struct Batch {
    pub(super) rows: Vec<Encoded>,
    /// Outputs of batch inference among them that held a failure instead of an answer.
    pub(super) failed: u64,
    /// Bytes of the file that are read.
    pub(super) consumed: u64,
}

/// What is to be done with a batch: `false` ends the reading.
type Each<'a, B> = &'a mut dyn FnMut(B) -> Result<bool, Error>;

/// Hands the rows of a file to `each`, scattered over `parts` partitions. Rows of a batch are parsed on
/// all cores. With requests, lines are outputs of batch inference.
pub(super) fn read(
    path: &Path,
    columns: &ColumnMapping,
    requests: Option<&Requests>,
    parts: usize,
    each: Each<'_, Batch>,
) -> Result<(), Error> {
    if let Some(Format::Parquet) = format(path) {
        return read_parquet(path, open(path)?, columns, parts, each);
    }
    batches(path, &mut |lines: Lines| {
        let parsed: Vec<Result<_, Error>> = lines
            .lines
            .par_iter()
            .map(|(line, text)| {
                let Some(rows) = rows_of_line(path, *line, text, columns, requests)? else {
                    return Ok(None);
                };
                Ok(Some(encode_all(&rows, parts)))
            })
            .collect();
        let mut batch = Batch {
            rows: Vec::with_capacity(parsed.len()),
            failed: 0,
            consumed: lines.consumed,
        };
        for rows in parsed {
            // The first one that is wrong is the one to tell.
            match rows? {
                Some(rows) => batch.rows.extend(rows),
                None => batch.failed += 1,
            }
        }
        each(batch)
    })
}

fn encode_all(rows: &[Row], parts: usize) -> Vec<Encoded> {
    rows.iter().map(|row| Encoded::of(row, parts)).collect()
}

/// The rows of a line, or `None` if it is the output of a request that failed.
fn rows_of_line(
    path: &Path,
    line: u64,
    text: &[u8],
    columns: &ColumnMapping,
    requests: Option<&Requests>,
) -> Result<Option<Vec<Row>>, Error> {
    let fields = parse(path, line, text)?;
    let place = || format!("line {line}");
    let fields = match requests.map(|requests| requests.join(&fields, columns)) {
        None => fields,
        Some(Ok(joined)) => joined,
        Some(Err(Trouble::Failed)) => return Ok(None),
        Some(Err(Trouble::Lacks(field))) => {
            let problem = Problem::Missing {
                column: field.to_owned(),
                available: listed(&fields),
            };
            return Err(problem.at(path, place()));
        }
        Some(Err(Trouble::Unasked(custom_id))) => {
            return Err(Error::Unasked {
                path: path.into(),
                line,
                custom_id,
            });
        }
    };
    let rows = rows(&fields, columns).map_err(|problem| problem.at(path, place()))?;
    Ok(Some(rows))
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| unreadable(path, "from the start".into(), source))
}

fn parse(path: &Path, line: u64, text: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(text).map_err(|source| Error::Json {
        path: path.into(),
        line,
        source,
    })
}

/// Hands every line of a JSONL file to `each` with its number.
pub(super) fn lines(
    path: &Path,
    each: &mut dyn FnMut(u64, Map<String, Value>) -> Result<(), Error>,
) -> Result<(), Error> {
    batches(path, &mut |batch: Lines| {
        for (line, text) in batch.lines {
            each(line, parse(path, line, &text)?)?;
        }
        Ok(true)
    })
}

/// Lines that are not empty, with their numbers from 1.
struct Lines {
    lines: Vec<(u64, Vec<u8>)>,
    consumed: u64,
}

/// A batch ends with the line that brings it to so many bytes.
const BATCH_BYTES: usize = 4 << 20;

fn batches(path: &Path, each: Each<'_, Lines>) -> Result<(), Error> {
    let format = format(path).ok_or_else(|| Error::Format { path: path.into() })?;
    let consumed = Rc::new(Cell::new(0));
    let counted = Counted {
        inner: open(path)?,
        consumed: Rc::clone(&consumed),
    };
    let source: Box<dyn Read> = match format {
        Format::Parquet => return Err(Error::Format { path: path.into() }),
        Format::Plain => Box::new(counted),
        Format::Gzip => Box::new(MultiGzDecoder::new(counted)),
        Format::Zstd => {
            let decoder = zstd::Decoder::new(counted).and_then(|mut decoder| {
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Ok(decoder)
            });
            Box::new(decoder.map_err(|source| unreadable(path, "from the start".into(), source))?)
        }
    };
    let mut source = BufReader::with_capacity(1 << 18, source);
    let (mut lines, mut bytes) = (Vec::new(), 0);
    for line in 1.. {
        let mut text = Vec::new();
        let length = source.read_until(b'\n', &mut text);
        let length =
            length.map_err(|source| unreadable(path, format!("at line {line}"), source))?;
        bytes += length;
        if !text.trim_ascii().is_empty() {
            lines.push((line, text));
        }
        if length == 0 || bytes >= BATCH_BYTES {
            let batch = Lines {
                lines: std::mem::take(&mut lines),
                consumed: consumed.get(),
            };
            if !each(batch)? || length == 0 {
                break;
            }
            bytes = 0;
        }
    }
    Ok(())
}

struct Counted {
    inner: File,
    consumed: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.consumed.set(self.consumed.get() + length as u64);
        Ok(length)
    }
}

fn read_parquet(
    path: &Path,
    file: File,
    columns: &ColumnMapping,
    parts: usize,
    each: Each<'_, Batch>,
) -> Result<(), Error> {
    let failed = |source| Error::Parquet {
        path: path.into(),
        source,
    };
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    // Without the embedded Arrow schema, text of every Arrow type comes as plain strings.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder =
        ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(failed)?;
    let total = builder.metadata().file_metadata().num_rows().max(1) as u64;
    let wanted = |name: &str| {
        let columns = [
            Some(&columns.prompt),
            Some(&columns.response),
            columns.prompt_id.as_ref(),
            columns.sample.as_ref(),
        ]
        .into_iter()
        .flatten()
        .chain(&columns.policy)
        .chain(&columns.meta);
        name == DEFAULT_SAMPLE || columns.into_iter().any(|column| column == name)
    };
    let all: Vec<String> = builder
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let roots = (0..all.len()).filter(|&at| wanted(&all[at]));
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let reader = builder.with_projection(mask).build().map_err(failed)?;
    let names: Vec<String> = reader
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let mut before = 0;
    for batch in reader {
        let batch = batch.map_err(|source| failed(source.into()))?;
        let row = |at: usize| {
            let mut fields = Map::new();
            for (name, column) in names.iter().zip(batch.columns()) {
                fields.insert(name.clone(), value(column, at));
            }
            let rows = rows(&fields, columns).map_err(|problem| {
                let problem = match problem {
                    Problem::Missing { column, .. } => Problem::Missing {
                        column,
                        available: all.join(", "),
                    },
                    other => other,
                };
                problem.at(path, format!("row {}", before + at as u64 + 1))
            })?;
            Ok(encode_all(&rows, parts))
        };
        let parsed: Vec<Result<_, Error>> =
            (0..batch.num_rows()).into_par_iter().map(row).collect();
        before += batch.num_rows() as u64;
        let mut rows = Vec::with_capacity(parsed.len());
        for parsed in parsed {
            rows.extend(parsed?);
        }
        // How much of the file that took, is not known.
        let consumed = (bytes as f64 * before as f64 / total as f64) as u64;
        let batch = Batch {
            rows,
            failed: 0,
            consumed,
        };
        if !each(batch)? {
            break;
        }
    }
    Ok(())
}

/// The JSON value of an array's element; types that no column needs become null.
fn value(array: &dyn Array, at: usize) -> Value {
    macro_rules! number {
        ($type:ty) => {
            Value::from(array.as_primitive::<$type>().value(at))
        };
    }
    if array.is_null(at) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Utf8 => Value::from(array.as_string::<i32>().value(at)),
        DataType::Boolean => Value::from(array.as_boolean().value(at)),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float32 => number!(Float32Type),
        DataType::Float64 => number!(Float64Type),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(at);
            Value::Array((0..items.len()).map(|item| value(&items, item)).collect())
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let pairs = fields
                .iter()
                .zip(columns)
                .map(|(field, column)| (field.name().clone(), value(column, at)));
            Value::Object(pairs.collect())
        }
        _ => Value::Null,
    }
}
