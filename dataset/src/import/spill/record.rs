//! How a row lies in a frame.

use std::io::Read;

use super::Row;
use crate::assemble::Answer;
use crate::mapping::SampleLabel;

/// A row, read back.
pub(super) struct Record {
    pub(super) prompt_id: String,
    pub(super) prompt: String,
    pub(super) label: SampleLabel,
    pub(super) answer: Answer,
}

/// A record is six strings, each behind its length: id, prompt, policy, response, then sample and
/// meta with one letter for their kind before them.
pub(super) fn encode(out: &mut Vec<u8>, prompt_id: &str, prompt: &str, row: &Row) {
    let sample = match &row.sample {
        SampleLabel::Order => "o".into(),
        SampleLabel::Number(number) => format!("n{number}"),
        SampleLabel::Text(text) => format!("t{text}"),
    };
    let meta = row
        .meta
        .as_ref()
        .map_or_else(|| "-".into(), |meta| format!("+{meta}"));
    for text in [
        prompt_id,
        prompt,
        &row.policy,
        &row.response,
        &sample,
        &meta,
    ] {
        out.extend_from_slice(&(text.len() as u64).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
}

/// The records of a frame.
pub(super) struct Records<R>(pub(super) R);

impl<R: Read> Records<R> {
    /// The next one; `None` at the end.
    pub(super) fn next(&mut self) -> std::io::Result<Option<Record>> {
        let Some(prompt_id) = self.text()? else {
            return Ok(None);
        };
        let mut field = || {
            self.text()?
                .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::UnexpectedEof))
        };
        let (prompt, policy, response, sample, meta) =
            (field()?, field()?, field()?, field()?, field()?);
        let label = match sample.split_at_checked(1) {
            Some(("n", number)) => {
                SampleLabel::Number(number.parse().map_err(std::io::Error::other)?)
            }
            Some(("t", text)) => SampleLabel::Text(text.into()),
            _ => SampleLabel::Order,
        };
        let meta = meta.strip_prefix('+').map(str::to_owned);
        Ok(Some(Record {
            prompt_id,
            prompt,
            label,
            answer: Answer {
                policy,
                sample: 0,
                response,
                meta,
            },
        }))
    }

    /// One string; `None` at the end.
    fn text(&mut self) -> std::io::Result<Option<String>> {
        let mut length = [0; 8];
        if self.0.read(&mut length[..1])? == 0 {
            return Ok(None);
        }
        self.0.read_exact(&mut length[1..])?;
        let mut bytes = vec![0; u64::from_le_bytes(length) as usize];
        self.0.read_exact(&mut bytes)?;
        String::from_utf8(bytes)
            .map(Some)
            .map_err(std::io::Error::other)
    }
}
