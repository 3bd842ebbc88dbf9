//! Rows on disk, scattered by the hash of their prompt, so that all answers to a prompt meet in one
//! partition.
//!
//! The rows of one input are one file: compressed frames, each of one partition. An index says where
//! they lie, and that all of the input is there.

mod record;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Write},
    mem,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Error, pairs};
use crate::account::Account;
use crate::assemble::{Answer, Group, InputCounts, Journal, Source};
use crate::mapping::SampleLabel;
use crate::schema::Prompt;
use polestar_core::similarity::Sketch;
use record::{Record, Records, encode};

/// More would make frames of a few bytes.
pub(super) const MOST_PARTITIONS: usize = 8192;
/// A row in memory, grouped, sorted and copied into a row group, takes about this many times its
/// text.
const MEMORY_FACTOR: u64 = 4;
/// Frames that are compressed before they are written, a core.
const FRAMES_A_CORE: usize = 2;

/// As many partitions as it takes to group so much text in `memory` bytes, `ahead` of them at a time.
pub(super) fn partitions(text: u64, memory: u64, ahead: usize) -> u64 {
    // One more is being written.
    let at_a_time = ahead as u64 + 1;
    text.saturating_mul(MEMORY_FACTOR * at_a_time)
        .div_ceil(memory.max(1))
        .max(1)
}

/// An answer that is kept, as far as its input alone can tell.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) prompt: Prompt,
    pub(super) prompt_id: Option<String>,
    pub(super) policy: String,
    pub(super) sample: SampleLabel,
    pub(super) response: String,
    pub(super) meta: Option<String>,
}

/// A row, ready to be written.
#[derive(Debug)]
pub(super) struct Encoded {
    part: usize,
    bytes: Vec<u8>,
    text_bytes: u64,
}

impl Encoded {
    /// One of `parts` partitions takes it.
    pub(super) fn of(row: &Row, parts: usize) -> Self {
        let prompt = serde_json::to_string(&row.prompt).expect("messages are text");
        let prompt_id = match &row.prompt_id {
            Some(id) => id.clone(),
            None => blake3::hash(prompt.as_bytes()).to_hex()[..16].to_owned(),
        };
        let place = (order(&prompt_id) >> 64) * parts as u128;
        let mut bytes = Vec::new();
        encode(&mut bytes, &prompt_id, &prompt, row);
        Self {
            part: (place >> 64) as usize,
            bytes,
            text_bytes: (prompt.len() + row.response.len()) as u64,
        }
    }
}

/// The rows of one input while they are being written.
pub(super) struct Spill {
    path: PathBuf,
    file: File,
    /// What each partition has not written yet, and all of it together.
    pending: Vec<Vec<u8>>,
    held: usize,
    /// Bytes to hold before they are written.
    most: usize,
    index: Index,
}

/// Where the rows of an input lie.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    parts: usize,
    /// Bytes of the file.
    end: u64,
    pub(super) rows: u64,
    /// What became of the input's records; of the answers only what is known before they are grouped.
    pub(super) account: Account,
    pub(super) text_bytes: u64,
    /// Partition and bytes of each frame, in the order of the file.
    frames: Vec<(u32, u32)>,
}

impl Index {
    /// Whether the rows are there, all of them, scattered over so many partitions.
    pub(super) fn is_of(&self, path: &Path, parts: usize) -> bool {
        let size = std::fs::metadata(path).map(|metadata| metadata.len());
        self.parts == parts && size.is_ok_and(|size| size == self.end)
    }
}

/// A frame in a file.
#[derive(Clone, Copy, Debug)]
struct Frame {
    input: u32,
    bytes: u32,
    start: u64,
}

impl Spill {
    /// Begins an input's file, over what a stopped import left of it.
    pub(super) fn create(path: PathBuf, parts: usize, most: usize) -> Result<Self, Error> {
        match File::create(&path) {
            Ok(file) => Ok(Self {
                path,
                file,
                pending: vec![Vec::new(); parts],
                held: 0,
                most,
                index: Index {
                    parts,
                    ..Index::default()
                },
            }),
            Err(source) => Err(Error::Spill { path, source }),
        }
    }

    pub(super) fn push(&mut self, row: Encoded) -> Result<(), Error> {
        self.index.rows += 1;
        self.index.text_bytes += row.text_bytes;
        self.held += row.bytes.len();
        self.pending[row.part].extend_from_slice(&row.bytes);
        match self.held >= self.most {
            true => self.write(),
            false => Ok(()),
        }
    }

    /// All rows are on disk when this returns.
    pub(super) fn finish(mut self, account: Account) -> Result<Index, Error> {
        self.write()?;
        let synced = self.file.sync_all();
        synced.map_err(|source| Error::Spill {
            path: self.path.clone(),
            source,
        })?;
        Ok(Index {
            account,
            ..self.index
        })
    }

    /// Appends what is held, one zstd frame a partition.
    fn write(&mut self) -> Result<(), Error> {
        let (file, index) = (&mut self.file, &mut self.index);
        let at_a_time = FRAMES_A_CORE * rayon::current_num_threads();
        let first = (0..).step_by(at_a_time);
        let written =
            first
                .zip(self.pending.chunks_mut(at_a_time))
                .try_for_each(|(first, pending)| {
                    // Their memory goes too: partitions are many.
                    let frames = pending
                        .par_iter_mut()
                        .map(|pending| match pending.is_empty() {
                            true => Ok(Vec::new()),
                            false => zstd::bulk::compress(&mem::take(pending), 1),
                        });
                    let frames: Vec<io::Result<Vec<u8>>> = frames.collect();
                    for (part, frame) in (first..).zip(frames) {
                        let frame = frame?;
                        if frame.is_empty() {
                            continue;
                        }
                        file.write_all(&frame)?;
                        let bytes = u32::try_from(frame.len()).map_err(io::Error::other)?;
                        index.end += u64::from(bytes);
                        index.frames.push((part, bytes));
                    }
                    Ok::<_, io::Error>(())
                });
        written.map_err(|source| Error::Spill {
            path: self.path.clone(),
            source,
        })?;
        self.held = 0;
        Ok(())
    }
}

/// Where a prompt stands in the corpus. Partitions are ranges of this order.
fn order(prompt_id: &str) -> u128 {
    let mut first = [0; 16];
    first.copy_from_slice(&blake3::hash(prompt_id.as_bytes()).as_bytes()[..16]);
    u128::from_be_bytes(first)
}

/// The rows of all inputs, partition by partition.
pub(super) struct Partitions {
    /// For each partition its frames in input order.
    frames: Vec<Vec<Frame>>,
    files: Vec<PathBuf>,
    text_bytes: u64,
    ahead: usize,
    made: Made,
    journal: Journal,
    /// Groups that were loaded, where memory has room for all of them: every walk wants them again.
    loaded: Option<Vec<OnceLock<Vec<Group>>>>,
}

/// What the rows of a prompt are made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Made {
    /// Answers of policies; one that resembles another so much is left out.
    Answers { similar: Option<f64> },
    /// Pairs; `best` makes the best of ranked answers the reference.
    Pairs { best: bool },
}

impl Partitions {
    pub(super) fn new(
        inputs: Vec<(PathBuf, Index)>,
        parts: usize,
        ahead: usize,
        made: Made,
        journal: Journal,
    ) -> Self {
        let mut frames = vec![vec![]; parts];
        let mut files = Vec::with_capacity(inputs.len());
        let mut text_bytes = 0;
        for (number, (path, index)) in inputs.into_iter().enumerate() {
            text_bytes += index.text_bytes;
            let (input, mut start) = (number as u32, 0);
            for (part, bytes) in index.frames {
                frames[part as usize].push(Frame {
                    input,
                    bytes,
                    start,
                });
                start += u64::from(bytes);
            }
            files.push(path);
        }
        Self {
            // As many as may be loaded at a time are all of them.
            loaded: (parts <= ahead).then(|| (0..parts).map(|_| OnceLock::new()).collect()),
            frames,
            files,
            text_bytes,
            ahead,
            made,
            journal,
        }
    }

    /// Reads and groups the rows of a partition.
    fn grouped(&self, part: usize) -> Result<Vec<Group>, Error> {
        let mut prompts: BTreeMap<(u128, String), Answers> = BTreeMap::new();
        for frames in self.frames[part].chunk_by(|a, b| a.input == b.input) {
            let path = &self.files[frames[0].input as usize];
            let failed = |source| Error::Spill {
                path: path.clone(),
                source,
            };
            let file = File::open(path).map_err(failed)?;
            for frame in frames {
                let mut packed = vec![0; frame.bytes as usize];
                let read = file.read_exact_at(&mut packed, frame.start);
                let rows = read.and_then(|()| zstd::decode_all(&packed[..]));
                let mut records = Records(&rows.map_err(failed)?[..]);
                while let Some(record) = records.next().map_err(failed)? {
                    take(&mut prompts, record, frame.input)?;
                }
            }
        }
        let groups = prompts.into_iter().map(|((_, prompt_id), answers)| {
            let unreadable = |error: serde_json::Error| Error::Spill {
                path: self.files.first().cloned().unwrap_or_default(),
                source: error.into(),
            };
            let prompt: Prompt = serde_json::from_str(&answers.prompt).map_err(unreadable)?;
            match self.made {
                Made::Answers { similar } => Ok(group(prompt_id, prompt, answers.rows, similar)),
                Made::Pairs { best } => {
                    pairs::group(prompt_id, prompt, answers.rows, best).map_err(unreadable)
                }
            }
        });
        groups.collect()
    }
}

/// The answers to one prompt, in input order.
struct Answers {
    prompt: String,
    rows: Vec<Found>,
}

/// An answer, and which input has it.
pub(super) struct Found {
    label: SampleLabel,
    pub(super) input: u32,
    pub(super) answer: Answer,
}

impl Source for Partitions {
    type Error = Error;

    fn parts(&self) -> usize {
        self.frames.len()
    }

    fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    fn loads_ahead(&self) -> usize {
        self.ahead
    }

    fn journal(&self) -> Option<&Journal> {
        Some(&self.journal)
    }

    fn load(&self, part: usize) -> Result<Vec<Group>, Error> {
        let Some(loaded) = &self.loaded else {
            return self.grouped(part);
        };
        if let Some(known) = loaded[part].get() {
            return Ok(known.clone());
        }
        let groups = self.grouped(part)?;
        Ok(loaded[part].get_or_init(|| groups).clone())
    }
}

fn take(
    prompts: &mut BTreeMap<(u128, String), Answers>,
    record: Record,
    input: u32,
) -> Result<(), Error> {
    let Record {
        prompt_id,
        prompt,
        label,
        answer,
    } = record;
    let key = (order(&prompt_id), prompt_id);
    let found = Found {
        label,
        input,
        answer,
    };
    if let Some(known) = prompts.get_mut(&key) {
        if known.prompt != prompt {
            return Err(Error::PromptClash { prompt_id: key.1 });
        }
        known.rows.push(found);
    } else {
        let rows = vec![found];
        prompts.insert(key, Answers { prompt, rows });
    }
    Ok(())
}

/// Numbers the samples, sorts, and drops answers of a policy that repeat one before, or resemble it too
/// much.
fn group(prompt_id: String, prompt: Prompt, mut rows: Vec<Found>, similar: Option<f64>) -> Group {
    // Stable: without labels the order of the input remains.
    rows.sort_by(|a, b| (&a.answer.policy, &a.label).cmp(&(&b.answer.policy, &b.label)));
    let mut kept = Vec::with_capacity(rows.len());
    let mut inputs: BTreeMap<u32, InputCounts> = BTreeMap::new();
    for cell in rows.chunk_by_mut(|a, b| a.answer.policy == b.answer.policy) {
        let numbered = cell
            .iter()
            .all(|found| matches!(found.label, SampleLabel::Number(_)));
        for (rank, found) in cell.iter_mut().enumerate() {
            found.answer.sample = match &found.label {
                SampleLabel::Number(number) if numbered => *number,
                _ => rank as u32,
            };
        }
        cell.sort_by(|a, b| {
            (a.answer.sample, &a.answer.response).cmp(&(b.answer.sample, &b.answer.response))
        });
        let mut seen = BTreeSet::new();
        let mut sketches: Vec<Sketch> = Vec::new();
        for Found { input, answer, .. } in cell.iter() {
            let counts = inputs.entry(*input).or_default();
            let is_new = seen.insert(&answer.response);
            let resembles = is_new
                && similar.is_some_and(|similar| {
                    let sketch = Sketch::of(&answer.response);
                    let resembles = sketches.iter().any(|kept| kept.resembles(&sketch, similar));
                    if !resembles {
                        sketches.push(sketch);
                    }
                    resembles
                });
            counts.repeats += u64::from(!is_new);
            counts.similar += u64::from(resembles);
            counts.kept += u64::from(is_new && !resembles);
            kept.push(is_new && !resembles);
        }
    }
    let answers = rows.into_iter().zip(kept);
    Group {
        prompt_id,
        prompt,
        inputs,
        answers: answers
            .filter_map(|(found, kept)| kept.then_some(found.answer))
            .collect(),
    }
}
