//! Import: files of trajectories in, a corpus out, in bounded memory.
//!
//! ```text
//! inputs --read--> rows --hash of the prompt--> partitions on disk
//!        --load one at a time, group, sort--> assemble --> corpus
//! ```
//! Prompts stand in the order of their hash, whatever the number of partitions: the memory limit
//! never shows in the corpus.

mod batch;
mod input;
mod spill;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::batch::Requests;
use crate::assemble::{self, Recipe, assemble};
pub use crate::assemble::{FileLayout, HeldOut, Progress, Stage};
use crate::files::digest;
use crate::manifest::{Manifest, Origin, is_false};
use crate::store::{self, Store};
use spill::Spill;

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
    /// Bytes of memory for grouping, about.
    pub memory: u64,
    /// Where partitions are kept meanwhile; the system's place when `None`.
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
    /// Size of row groups and files.
    pub layout: FileLayout,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
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

    let total = inputs.iter().map(|input| input.bytes).sum();
    let text_estimate = options
        .inputs
        .iter()
        .zip(&inputs)
        .map(|(path, input)| input::text_estimate(path, input.bytes))
        .sum();
    let mut spill = Spill::new(options.temp_dir.as_deref(), text_estimate, options.memory)?;
    let asked = match &options.requests[..] {
        [] => None,
        paths => Some(Requests::read(paths)?),
    };
    let (mut done, mut failed) = (0, 0);
    for (path, input) in options.inputs.iter().zip(&inputs) {
        failed += input::read(
            path,
            &options.columns,
            asked.as_ref(),
            &mut |read| {
                progress(Progress {
                    stage: Stage::Read,
                    done: done + read,
                    total,
                })
            },
            &mut |row| spill.push(&row),
        )?;
        done += input.bytes;
        progress(Progress {
            stage: Stage::Read,
            done,
            total,
        });
    }
    let partitions = spill.finish()?;

    let origin = Origin::Import(Box::new(ImportOrigin {
        inputs,
        requests,
        failed,
        columns: options.columns,
        heldout_prompts: options.heldout_prompts,
        heldout_policies: options.heldout_policies.clone(),
        heldout_policy_count: options.heldout_policy_count,
        aliases: options.aliases.clone(),
        seed: options.seed,
        vocab_size: options.vocab_size,
        tokenizer: tokenizer.as_deref().map(digest),
        pretokenize: options.pretokenize,
        layout: options.layout,
    }));
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
    assemble(&store, &partitions, recipe, progress).await
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
