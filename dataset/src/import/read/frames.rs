//! Arrow's messages, looked at before they are decoded: what they promise is allocated, so it must be
//! something that their bytes can hold.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::layers::Damage;
use arrow_ipc::{CompressionType, MessageHeader, RecordBatch, root_as_footer, root_as_message};

/// What a message's length follows, if not the length itself.
const CONTINUED: [u8; 4] = [0xff; 4];

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Whether a message's buffers can hold what they say. `word`: the first
/// eight bytes at a place of the body.
fn plausible(metadata: &[u8], word: &mut dyn FnMut(u64) -> io::Result<i64>) -> io::Result<()> {
    let message = root_as_message(metadata).map_err(|_| invalid("a message can't be read"))?;
    let batch: Option<RecordBatch<'_>> = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        MessageHeader::DictionaryBatch => {
            let dictionary = message.header_as_dictionary_batch();
            dictionary.and_then(|dictionary| dictionary.data())
        }
        _ => None,
    };
    let Some((batch, packed)) = batch.and_then(|batch| Some((batch, batch.compression()?))) else {
        return Ok(());
    };
    // What the formats reach at the very most.
    let most = match packed.codec() {
        CompressionType::LZ4_FRAME => 256,
        _ => 1 << 16,
    };
    for buffer in batch.buffers().into_iter().flatten() {
        let place = (
            u64::try_from(buffer.offset()),
            u64::try_from(buffer.length()),
        );
        let (Ok(offset), Ok(length)) = place else {
            return Err(invalid("a buffer lies nowhere"));
        };
        if length < 8 {
            continue;
        }
        let unpacked = u64::try_from(word(offset)?).unwrap_or(0);
        if unpacked > length.saturating_mul(most) {
            return Err(invalid("a buffer promises more than it can hold"));
        }
    }
    Ok(())
}

/// Checks all messages that a file's footer names.
pub(super) fn check(file: &mut File, length: u64) -> io::Result<()> {
    let mut end = [0; 4];
    file.seek(SeekFrom::End(-10))?;
    file.read_exact(&mut end)?;
    let footer_length = u64::from(u32::from_le_bytes(end));
    let begin = length.checked_sub(10 + footer_length);
    let begin = begin.ok_or_else(|| invalid("the footer is longer than the file"))?;
    let footer = part(file, begin, footer_length)?;
    let footer = root_as_footer(&footer).map_err(|_| invalid("the footer can't be read"))?;
    let dictionaries = footer.dictionaries().into_iter().flatten();
    for block in dictionaries.chain(footer.recordBatches().into_iter().flatten()) {
        let [offset, metadata, body] = [
            block.offset(),
            i64::from(block.metaDataLength()),
            block.bodyLength(),
        ]
        .map(|number| u64::try_from(number).unwrap_or(u64::MAX));
        let body_at = offset.saturating_add(metadata);
        if body_at.saturating_add(body) > length {
            return Err(invalid("the footer names what lies behind the end"));
        }
        let metadata = part(file, offset, metadata)?;
        let prefix = if metadata.starts_with(&CONTINUED) {
            8
        } else {
            4
        };
        let mut word = |at: u64| {
            let at = body_at.saturating_add(at);
            if at.saturating_add(8) > length {
                return Err(invalid("a buffer lies behind the end"));
            }
            let word = part(file, at, 8)?;
            Ok(word
                .first_chunk()
                .map_or(0, |word| i64::from_le_bytes(*word)))
        };
        plausible(metadata.get(prefix..).unwrap_or_default(), &mut word)?;
    }
    Ok(())
}

fn part(file: &mut File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A stream of messages, each of which is read and checked before the first byte of it is handed on.
pub(super) struct Checked<R> {
    source: R,
    message: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: Read> Checked<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            message: vec![],
            at: 0,
            ended: false,
        }
    }

    /// Takes so many bytes to the message, or fewer at the end.
    fn take(&mut self, length: u64) -> io::Result<bool> {
        let mut part = self.source.by_ref().take(length);
        Ok(part.read_to_end(&mut self.message)? as u64 == length)
    }

    fn next(&mut self) -> io::Result<()> {
        self.message.clear();
        self.at = 0;
        let whole = self.take(4)?;
        if self.message.is_empty() {
            self.ended = true;
            return Ok(());
        }
        // A decoder would take an early end for a late one.
        let cut = || {
            io::Error::other(Damage {
                what: "its Arrow data",
                cut: true,
                why: "a message breaks off".into(),
            })
        };
        let continued = self.message == CONTINUED;
        if !whole || continued && !self.take(4)? {
            return Err(cut());
        }
        let prefix = self.message.len();
        let length = self
            .message
            .last_chunk()
            .map_or(0, |l| u32::from_le_bytes(*l));
        if length == 0 {
            self.ended = true;
            return Ok(());
        }
        if !self.take(length.into())? {
            return Err(cut());
        }
        let metadata = self.message[prefix..].to_vec();
        let message = root_as_message(&metadata).map_err(|_| invalid("a message can't be read"))?;
        let body =
            u64::try_from(message.bodyLength()).map_err(|_| invalid("a body of no length"))?;
        let begin = self.message.len();
        if !self.take(body)? {
            return Err(cut());
        }
        let body = &self.message[begin..];
        plausible(&metadata, &mut |at| {
            let at = usize::try_from(at).ok();
            let word = at.and_then(|at| body.get(at..)?.first_chunk());
            let word = word.ok_or_else(|| invalid("a buffer lies behind the end"))?;
            Ok(i64::from_le_bytes(*word))
        })
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.message.len() && !self.ended {
            self.next()?;
        }
        let length = buffer.len().min(self.message.len() - self.at);
        buffer[..length].copy_from_slice(&self.message[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}
