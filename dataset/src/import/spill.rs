//! Partitions of the input on disk: rows scattered by the hash of their prompt, so that all answers
//! to a prompt meet in one partition.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Error;
use super::input::{Row, SampleLabel};
use crate::assemble::{Answer, Group, Source};
use crate::schema::Prompt;

const MOST_PARTITIONS: u64 = 256;
/// A row in memory, grouped, sorted and copied into a row group, takes about this many times its
/// text.
const MEMORY_FACTOR: u64 = 4;

/// Partitions that are being filled.
pub(super) struct Spill {
    folder: TempDir,
    parts: Vec<Part>,
    /// Bytes that a part collects before it writes them.
    buffer: usize,
    text_bytes: u64,
}

struct Part {
    path: PathBuf,
    file: File,
    pending: Vec<u8>,
}

/// Filled partitions, which are removed from disk when this is dropped.
pub(super) struct Partitions {
    paths: Vec<PathBuf>,
    text_bytes: u64,
    _folder: TempDir,
}

impl Spill {
    /// Prepares as many partitions as `memory` bytes need to group one at a time.
    pub(super) fn new(
        temp_dir: Option<&Path>,
        text_estimate: u64,
        memory: u64,
    ) -> Result<Self, Error> {
        let memory = memory.max(1);
        let count = text_estimate
            .saturating_mul(MEMORY_FACTOR)
            .div_ceil(memory)
            .clamp(1, MOST_PARTITIONS);
        let parent = temp_dir.map_or_else(std::env::temp_dir, Path::to_owned);
        let folder = TempDir::with_prefix_in("polestar-import-", &parent);
        let folder = folder.map_err(|source| Error::Spill {
            path: parent,
            source,
        })?;
        let parts: Result<Vec<Part>, Error> = (0..count)
            .map(|number| {
                let path = folder.path().join(format!("{number:03}"));
                let file = OpenOptions::new().create_new(true).append(true).open(&path);
                let file = file.map_err(|source| Error::Spill {
                    path: path.clone(),
                    source,
                })?;
                Ok(Part {
                    path,
                    file,
                    pending: vec![],
                })
            })
            .collect();
        let buffer = (memory / 4 / count).clamp(1 << 16, 1 << 20) as usize;
        Ok(Self {
            folder,
            parts: parts?,
            buffer,
            text_bytes: 0,
        })
    }

    pub(super) fn push(&mut self, row: &Row) -> Result<(), Error> {
        let prompt = serde_json::to_string(&row.prompt).expect("messages are text");
        let prompt_id = match &row.prompt_id {
            Some(id) => id.clone(),
            None => blake3::hash(prompt.as_bytes()).to_hex()[..16].to_owned(),
        };
        self.text_bytes += (prompt.len() + row.response.len()) as u64;
        let place = (order(&prompt_id) >> 64) * self.parts.len() as u128;
        let part = &mut self.parts[(place >> 64) as usize];
        encode(&mut part.pending, &prompt_id, &prompt, row);
        if part.pending.len() >= self.buffer {
            part.flush()?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Partitions, Error> {
        for part in &mut self.parts {
            part.flush()?;
        }
        let paths = self.parts.into_iter().map(|part| part.path).collect();
        Ok(Partitions {
            paths,
            text_bytes: self.text_bytes,
            _folder: self.folder,
        })
    }
}

impl Part {
    /// Appends the pending rows as one zstd frame.
    fn flush(&mut self) -> Result<(), Error> {
        let frame = zstd::bulk::compress(&self.pending, 1);
        let written = frame.and_then(|frame| self.file.write_all(&frame));
        written.map_err(|source| Error::Spill {
            path: self.path.clone(),
            source,
        })?;
        self.pending.clear();
        Ok(())
    }
}

/// Where a prompt stands in the corpus. Partitions are ranges of this order.
fn order(prompt_id: &str) -> u128 {
    let mut first = [0; 16];
    first.copy_from_slice(&blake3::hash(prompt_id.as_bytes()).as_bytes()[..16]);
    u128::from_be_bytes(first)
}

/// The answers to one prompt, in input order.
struct Answers {
    prompt: String,
    rows: Vec<(SampleLabel, Answer)>,
}

impl Source for Partitions {
    type Error = Error;

    fn parts(&self) -> usize {
        self.paths.len()
    }

    fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    fn load(&self, part: usize) -> Result<Vec<Group>, Error> {
        let path = &self.paths[part];
        let failed = |source| Error::Spill {
            path: path.clone(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let mut records = Records(BufReader::with_capacity(
            1 << 18,
            zstd::Decoder::new(file).map_err(failed)?,
        ));
        let mut prompts: BTreeMap<(u128, String), Answers> = BTreeMap::new();
        while let Some(record) = records.next().map_err(failed)? {
            let Record {
                prompt_id,
                prompt,
                label,
                answer,
            } = record;
            let key = (order(&prompt_id), prompt_id);
            if let Some(known) = prompts.get_mut(&key) {
                if known.prompt != prompt {
                    return Err(Error::PromptClash { prompt_id: key.1 });
                }
                known.rows.push((label, answer));
            } else {
                prompts.insert(
                    key,
                    Answers {
                        prompt,
                        rows: vec![(label, answer)],
                    },
                );
            }
        }
        let groups = prompts.into_iter().map(|((_, prompt_id), answers)| {
            let prompt: Prompt =
                serde_json::from_str(&answers.prompt).map_err(|error| failed(error.into()))?;
            Ok(group(prompt_id, prompt, answers.rows))
        });
        groups.collect()
    }
}

/// Numbers the samples, sorts, and drops repeated answers.
fn group(prompt_id: String, prompt: Prompt, mut rows: Vec<(SampleLabel, Answer)>) -> Group {
    let found = rows.len();
    // Stable: without labels the order of the input remains.
    rows.sort_by(|(a_label, a), (b_label, b)| (&a.policy, a_label).cmp(&(&b.policy, b_label)));
    let mut answers = Vec::with_capacity(found);
    for cell in rows.chunk_by_mut(|(_, a), (_, b)| a.policy == b.policy) {
        let numbered = cell
            .iter()
            .all(|(label, _)| matches!(label, SampleLabel::Number(_)));
        for (rank, (label, answer)) in cell.iter_mut().enumerate() {
            answer.sample = match label {
                SampleLabel::Number(number) if numbered => *number,
                _ => rank as u32,
            };
        }
        cell.sort_by(|(_, a), (_, b)| (a.sample, &a.response).cmp(&(b.sample, &b.response)));
        let mut seen = BTreeSet::new();
        let distinct = cell
            .iter()
            .filter(|(_, answer)| seen.insert(&answer.response));
        answers.extend(distinct.map(|(_, answer)| answer.clone()));
    }
    let duplicates = (found - answers.len()) as u64;
    Group {
        prompt_id,
        prompt,
        answers,
        duplicates,
    }
}

struct Record {
    prompt_id: String,
    prompt: String,
    label: SampleLabel,
    answer: Answer,
}

/// A record is six strings, each behind its length: id, prompt, policy, response, then sample and
/// meta with one letter for their kind before them.
fn encode(out: &mut Vec<u8>, prompt_id: &str, prompt: &str, row: &Row) {
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

struct Records<R>(R);

impl<R: Read> Records<R> {
    fn next(&mut self) -> std::io::Result<Option<Record>> {
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
