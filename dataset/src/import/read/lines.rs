//! Splitting text into lines.

use std::io::{self, Read};

use bytes::Bytes;

use super::record::{Place, Raw, RawRecord, Unit};
use super::{BATCH_BYTES, RECORD_BYTES, Sink, open::Fault};

/// Text in blocks. A block begins where a record begins; what of the last one is unfinished is carried
/// over.
pub(super) struct Blocks<R> {
    source: R,
    rest: Vec<u8>,
    ended: bool,
    failed: Option<io::Error>,
}

impl<R: Read> Blocks<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            rest: vec![],
            ended: false,
            failed: None,
        }
    }

    /// Whether nothing more will come.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Whether everything was read; if not, reading failed after what has come.
    pub(super) fn whole(&self) -> bool {
        self.ended && self.failed.is_none()
    }

    /// Why reading stopped, where it didn't come to the end.
    pub(super) fn finish(self, place: &str) -> Result<(), Fault> {
        self.failed
            .map_or(Ok(()), |error| Err(Fault::at(error, place)))
    }

    /// What was left over and about a batch more; more each time that nothing was taken of it.
    pub(super) fn next(&mut self) -> Vec<u8> {
        let mut block = std::mem::take(&mut self.rest);
        // A record of many blocks is not searched anew for each of them.
        let more = BATCH_BYTES.max(block.len());
        block.reserve(more);
        let before = block.len();
        let read = self
            .source
            .by_ref()
            .take(more as u64)
            .read_to_end(&mut block);
        self.failed = read.err();
        self.ended = block.len() - before < more;
        block
    }

    /// What the next block begins with.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.rest.reserve(BATCH_BYTES + rest.len());
        self.rest.extend_from_slice(rest);
    }
}

/// Hands over the lines that are not empty.
pub(super) fn lines(source: impl Read, sink: Sink<'_>) -> Result<(), Fault> {
    let mut blocks = Blocks::new(source);
    let mut number = 0;
    loop {
        let block = Bytes::from(blocks.next());
        let whole = match blocks.whole() {
            true => block.len(),
            false => memchr::memrchr(b'\n', &block).map_or(0, |at| at + 1),
        };
        let records = split(&block.slice(..whole), &mut number, blocks.whole());
        if !records.is_empty() && !sink(records) {
            return Ok(());
        }
        if blocks.ended() {
            return blocks.finish(&after(number));
        }
        if block.len() - whole > RECORD_BYTES {
            return Err(Fault::Long(format!("line {}", number + 1)));
        }
        blocks.keep(&block[whole..]);
    }
}

/// Where reading stopped.
fn after(lines: u64) -> String {
    match lines {
        0 => "at the start".to_owned(),
        lines => format!("after line {lines}"),
    }
}

fn split(block: &Bytes, number: &mut u64, last: bool) -> Vec<RawRecord> {
    let mut records = Vec::with_capacity(block.len() / 512);
    let mut begin = 0;
    while begin < block.len() {
        let newline = memchr::memchr(b'\n', &block[begin..]).map(|at| begin + at);
        let end = newline.unwrap_or(block.len());
        *number += 1;
        if !block[begin..end].trim_ascii_start().is_empty() {
            let text = block.slice(begin..end);
            let raw = match newline {
                None if last => Raw::Cut(text),
                _ => Raw::Json(text),
            };
            let place = Place {
                unit: Unit::Line,
                number: *number,
                member: None,
            };
            records.push(RawRecord { place, raw });
        }
        begin = end + 1;
    }
    records
}
