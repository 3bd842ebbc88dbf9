//! Tables of text: CSV, TSV and their kin. The first line names the columns; every value is text.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::Arc;

use csv::ByteRecord;
use serde_json::{Map, Value};

use super::layers::Source;
use super::record::{Fields, Malformed, Place, Raw, RawRecord, Unit};
use super::{BATCH_BYTES, RECORD_BYTES, Sink, Wanted, open::Fault};

/// What may stand between columns. The first one that does is the one, where as many stand as of another.
const DELIMITERS: [u8; 4] = [b'\t', b',', b';', b'|'];
/// Longer names are no names of columns.
const NAME_BYTES: usize = 200;

/// What stands between the columns of a text, judged by its first line; `None` if that names no columns.
/// `whole`: nothing follows.
pub(super) fn delimiter(text: &[u8], whole: bool) -> Option<u8> {
    let line = header_line(text, whole)?;
    if line
        .iter()
        .any(|&byte| byte < b' ' && !b"\t\r\n".contains(&byte))
    {
        return None;
    }
    let candidates = DELIMITERS.map(|delimiter| (count(line, delimiter), delimiter));
    // Of equals the first one: max_by_key would take the last.
    let most = candidates.iter().map(|(count, _)| *count).max()?;
    let (_, delimiter) = *candidates.iter().find(|(count, _)| *count == most)?;
    let mut reader = reader(line, delimiter);
    let header = reader.byte_headers().ok()?;
    // The first name is empty where a data frame's index was written.
    let named =
        |(at, name): (usize, &[u8])| (at == 0 || !name.is_empty()) && name.len() <= NAME_BYTES;
    let names = header.iter().enumerate().all(named) && std::str::from_utf8(line).is_ok();
    (most > 0 && names).then_some(delimiter)
}

/// The first line, with newlines in quotes.
fn header_line(text: &[u8], whole: bool) -> Option<&[u8]> {
    let mut quoted = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' | b'\r' if !quoted => return Some(&text[..at]),
            _ => {}
        }
    }
    whole.then_some(text)
}

fn count(line: &[u8], delimiter: u8) -> usize {
    let mut quoted = false;
    line.iter()
        .filter(|&&byte| {
            quoted ^= byte == b'"';
            !quoted && byte == delimiter
        })
        .count()
}

fn reader<R: Read>(source: R, delimiter: u8) -> csv::Reader<R> {
    csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .buffer_capacity(1 << 18)
        .from_reader(source)
}

/// The values of a line.
#[derive(Debug, Clone)]
pub(super) struct Cells {
    header: Arc<[String]>,
    record: ByteRecord,
}

impl Cells {
    pub(super) fn fields(&self, wanted: &Wanted) -> Result<Fields, Malformed> {
        if self.record.len() != self.header.len() {
            return Err(Malformed(format!(
                "has {} values, but the first line names {} columns",
                self.record.len(),
                self.header.len()
            )));
        }
        let mut values = Map::new();
        for (name, value) in self.header.iter().zip(&self.record) {
            if wanted.has(name) {
                let text = std::str::from_utf8(value).map_err(|_| {
                    Malformed(format!(
                        "holds bytes in the column '{name}' that are not UTF-8 text"
                    ))
                })?;
                values.insert(name.clone(), Value::from(text));
            }
        }
        Ok(Fields {
            values,
            columns: Arc::clone(&self.header),
            repairs: 0,
        })
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let text = |value: &[u8]| Value::from(String::from_utf8_lossy(value));
        let json = match self.record.len() == self.header.len() {
            true => {
                let pairs = self
                    .header
                    .iter()
                    .cloned()
                    .zip(self.record.iter().map(text));
                Value::Object(pairs.collect())
            }
            false => Value::Array(self.record.iter().map(text).collect()),
        };
        json.to_string().into_bytes()
    }
}

/// Hands over the lines below the first one.
pub(super) fn read(source: Source<'_>, delimiter: u8, sink: Sink<'_>) -> Result<(), Fault> {
    let budget = Rc::new(Cell::new(RECORD_BYTES));
    let bounded = Bounded {
        source,
        budget: Rc::clone(&budget),
    };
    let mut reader = reader(bounded, delimiter);
    let header = reader.byte_headers().map_err(|error| fault(error, 1))?;
    let header = names(header)?;
    let (mut records, mut bytes, mut line) = (Vec::new(), 0, 1);
    loop {
        budget.set(RECORD_BYTES);
        let mut record = ByteRecord::new();
        let more = reader.read_byte_record(&mut record);
        let more = match more {
            Ok(more) => more,
            Err(error) => {
                // What came before is good.
                sink(records);
                return Err(fault(error, line));
            }
        };
        if more {
            line = record.position().map_or(line, csv::Position::line);
            bytes += record.as_slice().len() + 64 * record.len();
            records.push(cells(record, &header, line));
        }
        if !more || bytes >= BATCH_BYTES {
            let full = std::mem::take(&mut records);
            if !full.is_empty() && !sink(full) || !more {
                return Ok(());
            }
            bytes = 0;
        }
    }
}

fn cells(record: ByteRecord, header: &Arc<[String]>, number: u64) -> RawRecord {
    let place = Place {
        unit: Unit::Line,
        number,
        member: None,
    };
    let header = Arc::clone(header);
    RawRecord {
        place,
        raw: Raw::Cells(Cells { header, record }),
    }
}

fn names(header: &ByteRecord) -> Result<Arc<[String]>, Fault> {
    let names: Vec<String> = header
        .iter()
        .map(|name| String::from_utf8_lossy(name.trim_ascii()).into_owned())
        .collect();
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            let what = format!("its first line names two columns '{name}'; rename one of them");
            return Err(Fault::Unsupported(what));
        }
    }
    Ok(names.into())
}

fn fault(error: csv::Error, line: u64) -> Fault {
    let text = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            Fault::Long(format!("the record after line {line}"))
        }
        csv::ErrorKind::Io(error) => Fault::at(error, &format!("after line {line}")),
        _ => Fault::Damaged(format!("after line {line}, {text}")),
    }
}

/// Ends a record that is too long: a quote that is never closed would take in the whole file.
struct Bounded<'a> {
    source: Source<'a>,
    budget: Rc<Cell<usize>>,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        match self.budget.get().checked_sub(length) {
            Some(left) => self.budget.set(left),
            None => return Err(io::ErrorKind::FileTooLarge.into()),
        }
        Ok(length)
    }
}
