//! Import: files of trajectories in, a corpus out, in bounded memory, on all cores.
//!
//! ```text
//! inputs --read, several at a time--> rows --hash of the prompt--> partitions on disk
//!        --load a few at a time, group, sort--> assemble --> corpus
//! ```
//! Prompts stand in the order of their hash, whatever the number of partitions: neither the memory
//! limit nor the number of cores shows in the corpus. What is done stays on disk until the corpus is
//! there, so an import that was stopped goes on when it is given again.

mod batch;
mod input;
mod job;
mod scatter;
mod spill;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::assemble::{self, Recipe, assemble};
pub use crate::assemble::{FileLayout, HeldOut, Progress, Stage};
use crate::files::digest;
use crate::manifest::{Manifest, Origin, is_false, is_zero};
use crate::store::{self, Store};
use job::Job;
use spill::{MOST_PARTITIONS, Partitions};

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to import.
    #[error(
        "there is nothing to import: give at least one .jsonl, .jsonl.zst, .jsonl.gz or \
         .parquet file"
    )]
    NoInput,
    /// No column names the policy.
    #[error("no policy column is given; name at least one")]
    NoPolicyColumn,
    /// The file's ending is unknown.
    #[error("{} is of no known format; give .jsonl, .jsonl.zst, .jsonl.gz or .parquet", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read.
    #[error("could not read {} ({place}); check that the file is there and whole", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Where reading stopped.
        place: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The file is no Parquet file.
    #[error("could not read {} as Parquet; check that the file is whole", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: parquet::errors::ParquetError,
    },
    /// A line is no JSON object.
    #[error("{}, line {line} is not a JSON object; every line must be one", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What went wrong.
        source: serde_json::Error,
    },
    /// A line is no request of a batch.
    #[error(
        "{}, line {line} is no request of a batch; it needs custom_id and body.messages or \
         body.prompt", path.display()
    )]
    Request {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
    },
    /// An output whose request is not there.
    #[error(
        "{}, line {line} answers the request '{custom_id}', which is in no file of requests; give \
         the input file of every batch", path.display()
    )]
    Unasked {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// The request.
        custom_id: String,
    },
    /// A row lacks a column.
    #[error("{}, {row} has no column '{column}'; it has {available}: map the column to one of these", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// "line 3" or "row 3", counted from 1.
        row: String,
        /// The column.
        column: String,
        /// The columns that exist.
        available: String,
    },
    /// A value has the wrong type.
    #[error("{}, {row}: the column '{column}' holds {found}, but {expected} is needed", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// "line 3" or "row 3", counted from 1.
        row: String,
        /// The column.
        column: String,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// One id, two prompts.
    #[error(
        "the prompt id '{prompt_id}' stands for two different prompts; make the ids unique or \
         leave the prompt_id column out"
    )]
    PromptClash {
        /// The id.
        prompt_id: String,
    },
    /// A resemblance is not one.
    #[error("drop_similar is {given}; give a resemblance above 0 and below 1, such as 0.9")]
    Similar {
        /// The resemblance.
        given: f64,
    },
    /// The same import is running.
    #[error(
        "another import to {url} is running (it holds {}); wait for it, or stop it", folder.display()
    )]
    Busy {
        /// The output.
        url: String,
        /// Its folder.
        folder: PathBuf,
    },
    /// So much text can't be grouped in so little memory.
    #[error(
        "about {text_gib} GiB of text can't be grouped in {memory_mib} MiB of memory; give at least \
         {needed_mib} MiB"
    )]
    Memory {
        /// Text, estimated from the sizes of the inputs.
        text_gib: u64,
        /// What was given.
        memory_mib: u64,
        /// What is enough.
        needed_mib: u64,
    },
    /// One input, twice.
    #[error("{} is given twice, perhaps under another name; give it once", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
    },
    /// Two questions under one name.
    #[error(
        "{}, line {line} asks something else under the custom_id '{custom_id}' than a line before; \
         answers could not be told apart: give the batches of one to one import", path.display()
    )]
    Ambiguous {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// The request.
        custom_id: String,
    },
    /// Temporary files failed.
    #[error("could not use the temporary file {}; choose a temp_dir with enough free space", path.display())]
    Spill {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The output is no store.
    #[error("could not open the output")]
    Output(#[source] store::Error),
    /// The rows were read, but no corpus could be made of them.
    #[error(transparent)]
    Assemble(#[from] assemble::Error),
}

/// Which columns hold what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnMapping {
    /// Text, or a list of {role, content}.
    pub prompt: String,
    /// The policy; several columns, joined with " | ", make the strict policy (say, model and
    /// decoding settings).
    pub policy: Vec<String>,
    /// Tells a policy's answers to one prompt apart: a number, or text that is replaced by its
    /// rank. `None`: the column "sample" where there is one, the order of the rows elsewhere.
    pub sample: Option<String>,
    /// The answer.
    pub response: String,
    /// Names the prompt. `None`: 16 hex digits of the prompt's hash.
    pub prompt_id: Option<String>,
    /// Columns to keep as JSON.
    pub meta: Vec<String>,
}

impl Default for ColumnMapping {
    fn default() -> Self {
        Self {
            prompt: "prompt".into(),
            policy: vec!["policy".into()],
            sample: None,
            response: "response".into(),
            prompt_id: None,
            meta: vec![],
        }
    }
}

/// What to import and how.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// .jsonl, .jsonl.zst, .jsonl.gz or .parquet files.
    pub inputs: Vec<PathBuf>,
    /// Store URL of the corpus.
    pub output: String,
    /// What was asked, where the inputs are outputs of batch inference in OpenAI's format: the input
    /// files of the batches. Requests that failed are left out.
    pub requests: Vec<PathBuf>,
    /// Which columns hold what.
    pub columns: ColumnMapping,
    /// Usable prompts to validate on.
    pub heldout_prompts: HeldOut,
    /// Policies to keep out of training, by name; for a strict policy the first columns suffice and
    /// stand for all.
    pub heldout_policies: Vec<String>,
    /// Further policies to keep out, chosen by the seed among those with at least the median number
    /// of cells.
    pub heldout_policy_count: usize,
    /// Groups of names of one and the same policy.
    pub aliases: Vec<Vec<String>>,
    /// Decides what is held out and which texts train the tokenizer.
    pub seed: u64,
    /// Most tokens of a trained tokenizer.
    pub vocab_size: u32,
    /// A tokenizer.json to use instead of training one.
    pub tokenizer: Option<PathBuf>,
    /// Whether the files hold tokens beside the texts: training then reads them instead of
    /// tokenizing, and the same weights come out.
    pub pretokenize: bool,
    /// Size of row groups and files.
    pub layout: FileLayout,
    /// Leaves out an answer that resembles an earlier one of the same policy to the same prompt at least
    /// so much: the Jaccard index of their five-letter sequences. Copies are left out in any case.
    pub drop_similar: Option<f64>,
    /// Bytes of memory for grouping, about.
    pub memory: u64,
    /// Where rows are kept meanwhile; the system's place when `None`. What a stopped import leaves there
    /// is used by the next one to the same output, and removed when that succeeds.
    pub temp_dir: Option<PathBuf>,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            inputs: vec![],
            requests: vec![],
            output: String::new(),
            columns: ColumnMapping::default(),
            heldout_prompts: HeldOut::Fraction(0.05),
            heldout_policies: vec![],
            heldout_policy_count: 0,
            aliases: vec![],
            seed: 0,
            vocab_size: 8192,
            tokenizer: None,
            pretokenize: false,
            layout: FileLayout::default(),
            drop_similar: None,
            memory: 1 << 30,
            temp_dir: None,
        }
    }
}

/// How a corpus was imported: all that its content depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportOrigin {
    /// The inputs, in order.
    pub inputs: Vec<InputFile>,
    /// Requests, where the inputs were outputs of batch inference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<InputFile>,
    /// Outputs of batch inference that held a failure and were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: u64,
    /// Which columns held what.
    pub columns: ColumnMapping,
    /// Prompts held out.
    pub heldout_prompts: HeldOut,
    /// Policies held out by name.
    pub heldout_policies: Vec<String>,
    /// Policies held out by the seed.
    pub heldout_policy_count: usize,
    /// Groups of aliases.
    pub aliases: Vec<Vec<String>>,
    /// The seed.
    pub seed: u64,
    /// Most tokens of the trained tokenizer.
    pub vocab_size: u32,
    /// blake3 of the given tokenizer.json, in hex; none when it was trained.
    pub tokenizer: Option<String>,
    /// Whether the files hold tokens.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pretokenize: bool,
    /// From which resemblance on answers were left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_similar: Option<f64>,
    /// Size of row groups and files.
    pub layout: FileLayout,
}

/// An input, by name and size: where it lay does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// File name without folders.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// Imports a corpus and commits it. The same inputs and options give the same bytes; over a corpus
/// with the same content the import is a success that writes nothing. Blocks its thread while it
/// reads and computes.
pub async fn import(
    options: ImportOptions,
    progress: &dyn Fn(Progress),
) -> Result<Manifest, Error> {
    if options.inputs.is_empty() {
        return Err(Error::NoInput);
    }
    if options.columns.policy.is_empty() {
        return Err(Error::NoPolicyColumn);
    }
    if let Some(given) = options.drop_similar.filter(|s| !(*s > 0.0 && *s < 1.0)) {
        return Err(Error::Similar { given });
    }
    let store = Store::open(&options.output).map_err(Error::Output)?;
    let tokenizer = match &options.tokenizer {
        Some(path) => Some(
            std::fs::read(path)
                .map_err(|source| unreadable(path, "from the start".into(), source))?,
        ),
        None => None,
    };
    let inputs = named(&options.inputs)?;
    let requests = named(&options.requests)?;
    let origin = ImportOrigin {
        inputs,
        requests,
        failed: 0,
        columns: options.columns.clone(),
        heldout_prompts: options.heldout_prompts,
        heldout_policies: options.heldout_policies.clone(),
        heldout_policy_count: options.heldout_policy_count,
        aliases: options.aliases.clone(),
        seed: options.seed,
        vocab_size: options.vocab_size,
        tokenizer: tokenizer.as_deref().map(digest),
        pretokenize: options.pretokenize,
        drop_similar: options.drop_similar,
        layout: options.layout,
    };
    // Hours of reading are not spent on a place that is taken.
    let same = |there: &Origin| matches!(there, Origin::Import(there) if origin == ImportOrigin { failed: 0, ..*there.clone() });
    assemble::present(&store, same).await?;
    let grouping = Grouping::of(&options, &origin.inputs);
    let job = Job::open(&options, store.url(), &grouping)?;
    let read = scatter::scatter(&job, &options, &origin.inputs, grouping.cores, progress)?;
    let failed = read.iter().map(|(_, index)| index.failed).sum();
    let origin = Origin::Import(Box::new(ImportOrigin { failed, ..origin }));
    let (parts, ahead) = (job.parts(), grouping.ahead(job.parts()).unwrap_or(1));
    let notes = job.notes(&origin);
    let source = Partitions::new(read, parts, ahead, options.drop_similar, notes);
    let recipe = Recipe {
        heldout_prompts: options.heldout_prompts,
        heldout_named: &options.heldout_policies,
        heldout_chosen: options.heldout_policy_count,
        aliases: &options.aliases,
        seed: options.seed,
        vocab_size: options.vocab_size,
        tokenizer,
        pretokenize: options.pretokenize,
        layout: options.layout,
        origin,
    };
    let manifest = assemble(&store, Arc::new(source), recipe, progress).await?;
    job.done();
    Ok(manifest)
}

/// What an import that failed or was stopped has left for the next one: its folder, and the bytes in it.
pub fn left_behind(options: &ImportOptions) -> Option<(PathBuf, u64)> {
    let store = Store::open(&options.output).ok()?;
    let folder = job::folder(options, store.url());
    let entries = std::fs::read_dir(&folder).ok()?;
    let sizes = entries.map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    Some((folder, sizes.flatten().sum()))
}

/// What decides over how many partitions prompts are scattered, and how many of them are grouped at a
/// time.
#[derive(Debug)]
struct Grouping {
    /// Bytes of text, about.
    text: u64,
    /// Bytes of memory.
    memory: u64,
    cores: usize,
}

impl Grouping {
    fn of(options: &ImportOptions, inputs: &[InputFile]) -> Self {
        let estimates = options.inputs.iter().zip(inputs);
        let estimates = estimates.map(|(path, input)| input::text_estimate(path, input.bytes));
        Self {
            text: estimates.sum(),
            memory: options.memory,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// How many of so many partitions memory has room for at a time, at most one a core; `None` if it has
    /// none for a single one.
    fn ahead(&self, parts: usize) -> Option<usize> {
        let fits =
            |ahead: &usize| spill::partitions(self.text, self.memory, *ahead) <= parts as u64;
        (1..=self.cores).rev().find(fits)
    }

    /// How many partitions to begin with: enough for all cores if that can be, and for somewhat more
    /// input than there is now.
    fn parts(&self) -> Result<usize, Error> {
        let Some(ahead) = self.ahead(MOST_PARTITIONS) else {
            return Err(Error::Memory {
                text_gib: self.text >> 30,
                memory_mib: self.memory >> 20,
                needed_mib: (spill::partitions(self.text, MOST_PARTITIONS as u64, 1) >> 20) + 1,
            });
        };
        let parts = spill::partitions(self.text, self.memory, ahead) as usize;
        Ok(parts.next_power_of_two().min(MOST_PARTITIONS))
    }
}

/// Names and sizes of files.
fn named(paths: &[PathBuf]) -> Result<Vec<InputFile>, Error> {
    let file = |path: &PathBuf| {
        let metadata = std::fs::metadata(path)
            .map_err(|source| unreadable(path, "from the start".into(), source))?;
        let name = path.file_name().unwrap_or(path.as_os_str());
        Ok(InputFile {
            name: name.to_string_lossy().into_owned(),
            bytes: metadata.len(),
        })
    };
    paths.iter().map(file).collect()
}

fn unreadable(path: &Path, place: String, source: std::io::Error) -> Error {
    Error::Read {
        path: path.into(),
        place,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_memory_groups_fewer_at_a_time_and_too_little_is_refused() {
        let of = |text: u64, memory: u64| Grouping {
            text,
            memory,
            cores: 64,
        };
        let small = of(1 << 20, 1 << 30);
        assert_eq!((small.parts().unwrap(), small.ahead(1)), (1, Some(64)));
        let large = of(1 << 40, 4 << 30);
        let ahead = large.ahead(large.parts().unwrap()).unwrap();
        assert!((1..64).contains(&ahead), "{ahead}");
        let refused = of(10 << 40, 1 << 29).parts().unwrap_err().to_string();
        let needed = "give at least 10241 MiB";
        assert!(
            refused.contains("10240 GiB") && refused.contains(needed),
            "{refused}"
        );
        let advised = of(10 << 40, 10241 << 20);
        assert_eq!(advised.ahead(advised.parts().unwrap()), Some(1));
    }

    #[test]
    fn somewhat_more_input_or_other_cores_fit_what_is_scattered() {
        let begun = Grouping {
            text: 50 << 30,
            memory: 512 << 20,
            cores: 4,
        };
        let parts = begun.parts().unwrap();
        let more = Grouping {
            text: (50 << 30) + (500 << 20),
            cores: 8,
            ..begun
        };
        assert!(more.ahead(parts).is_some());
    }
}
