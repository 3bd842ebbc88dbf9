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
mod error;
mod grouping;
mod input;
mod job;
mod row;
mod scatter;
mod spill;

use std::path::PathBuf;
use std::sync::Arc;

pub use crate::assemble::{Progress, Stage};
use crate::assemble::{Recipe, assemble, present};
use crate::manifest::Manifest;
use crate::origin::{ColumnMapping, FileLayout, HeldOut, ImportOrigin, InputFile, Origin};
pub use error::Error;
use error::unreadable;
use grouping::Grouping;
use job::Job;
use polestar_core::digest::hex;
use polestar_store::Store;
use spill::Partitions;

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

/// Imports a corpus and commits it. The same inputs and options give the same bytes; over a corpus
/// with the same content the import is a success that writes nothing. Blocks its thread while it
/// reads and computes.
///
/// # Errors
/// Inputs that can't be read or hold no trajectories, by file and line; another corpus in the place; the
/// store's and the temporary folder's. What was read so far stays for the next try.
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
        tokenizer: tokenizer.as_deref().map(hex),
        pretokenize: options.pretokenize,
        drop_similar: options.drop_similar,
        layout: options.layout,
    };
    // Hours of reading are not spent on a place that is taken.
    let same = |there: &Origin| matches!(there, Origin::Import(there) if origin == ImportOrigin { failed: 0, ..*there.clone() });
    present(&store, same).await?;
    let grouping = Grouping::of(&options, &origin.inputs);
    let job = Job::open(&options, store.url(), &grouping)?;
    let read = scatter::scatter(&job, &options, &origin.inputs, grouping.cores, progress)?;
    let failed = read.iter().map(|(_, index)| index.failed).sum();
    let origin = Origin::Import(Box::new(ImportOrigin { failed, ..origin }));
    let (parts, ahead) = (job.parts(), grouping.ahead(job.parts()).unwrap_or(1));
    let journal = job.journal(&origin);
    let source = Partitions::new(read, parts, ahead, options.drop_similar, journal);
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
pub fn leftovers(options: &ImportOptions) -> Option<(PathBuf, u64)> {
    let store = Store::open(&options.output).ok()?;
    let folder = job::folder(options, store.url());
    let entries = std::fs::read_dir(&folder).ok()?;
    let sizes = entries.map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    Some((folder, sizes.flatten().sum()))
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
