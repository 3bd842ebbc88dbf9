//! Import: files of trajectories in, a corpus out, in bounded memory, on all cores.
//!
//! ```text
//! what is named --read--> records --map--> rows --hash of the prompt--> partitions on disk
//!        --load a few at a time, group, sort--> assemble --> corpus
//! ```
//! Prompts stand in the order of their hash, whatever the number of partitions: neither the memory
//! limit nor the number of cores shows in the corpus. What is done stays on disk until the corpus is
//! there, so an import that was stopped goes on when it is given again.

mod convert;
mod error;
mod grouping;
mod job;
mod options;
mod pairs;
mod prepare;
mod quarantine;
mod read;
mod records;
mod scatter;
mod spill;

use std::path::PathBuf;
use std::sync::Arc;

use crate::account::InputAccount;
use crate::across::{Pairing, Pairs};
pub use crate::assemble::{Progress, Stage};
use crate::assemble::{Recipe, assemble, assemble_labelled, present};
use crate::corpus;
use crate::manifest::{Fingerprint, Manifest};
use crate::mapping::ReferenceFrom;
use crate::origin::{ImportOrigin, InputFile, Origin};
use crate::tokenizer::{GivenTokenizer, Tokenizer};
pub use error::Error;
use grouping::Grouping;
use job::Job;
pub(crate) use options::bytes_of_mib;
pub use options::{BadRows, ImportOptions};
use polestar_core::digest::hex;
use polestar_store::Store;
pub use prepare::{Detection, LabelView, Prepared};
use read::Input;
pub use read::InputError;
pub use records::{FileRecord, RecordsError, records};
use spill::{Made, Partitions};

/// Where the records that were set aside lie, beside the corpus.
pub const QUARANTINE_KEY: &str = "quarantine.jsonl";

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
    let prepared = tokio::task::spawn_blocking(|| Prepared::new(options)).await;
    let prepared = match prepared {
        Ok(prepared) => prepared?,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    prepared.import(progress).await
}

impl Prepared {
    /// Imports the corpus, as [`import`] does.
    ///
    /// # Errors
    /// As [`import`].
    pub async fn import(self, progress: &dyn Fn(Progress)) -> Result<Manifest, Error> {
        let options = &self.options;
        if options.cluster.is_some() && options.pairs == Pairs::SamePrompt {
            return Err(Error::Cluster);
        }
        if let Some(given) = options.drop_similar.filter(|s| !(*s > 0.0 && *s < 1.0)) {
            return Err(Error::Similar { given });
        }
        if options.labelled {
            options.check_labelled().map_err(Error::Labelled)?;
        }
        if options.tokenizer.is_some() && options.tokenizer_of.is_some() {
            return Err(Error::TwoTokenizers);
        }
        let store = Store::open(&options.output).map_err(Error::Output)?;
        let (other, shared) = match &options.tokenizer_of {
            Some(url) => {
                let (fingerprint, given) = tokenizer_of(url).await?;
                (Some(fingerprint), Some(given))
            }
            None => (None, None),
        };
        let tokenizer = options.tokenizer.as_deref().map(|path| {
            Tokenizer::given(path).map_err(|source| Error::Tokenizer {
                path: path.into(),
                source,
            })
        });
        let tokenizer = tokenizer.transpose()?.or(shared);
        let tokenizer_digest = tokenizer.as_ref().map(|given| hex(&given.bytes));
        let origin = ImportOrigin {
            tokenizer_of: other,
            ..options.origin(named(&self.inputs), named(&self.joined), tokenizer_digest)
        };
        // Hours of reading are not spent on a place that is taken.
        let same = |there: &Origin| matches!(there, Origin::Import(there) if origin == **there);
        present(&store, same).await?;
        let grouping = Grouping::of(options.memory, &self.inputs);
        let job = Job::open(&self, store.url(), &grouping)?;
        let read = scatter::scatter(&job, &self, grouping.cores, progress)?;
        let origin = Origin::Import(Box::new(origin));
        let account = |(input, (_, index)): (&Input, &(PathBuf, spill::Index))| InputAccount {
            name: input.name.clone(),
            account: index.account,
        };
        let inputs = self.inputs.iter().zip(&read).map(account).collect();
        if options.bad_rows == BadRows::Quarantine {
            quarantine(&store, &job, self.inputs.len()).await?;
        }
        let (parts, ahead) = (job.parts(), grouping.ahead(job.parts()).unwrap_or(1));
        let journal = job.journal(&origin);
        let made = match options.labelled {
            true => Made::Pairs {
                best: options.columns.reference != Some(ReferenceFrom::None),
            },
            false => Made::Answers {
                similar: options.drop_similar,
            },
        };
        let source = Arc::new(Partitions::new(read, parts, ahead, made, journal));
        let recipe = Recipe {
            heldout_prompts: options.heldout_prompts,
            heldout_named: &options.heldout_policies,
            heldout_chosen: options.heldout_policy_count,
            aliases: &options.aliases,
            pairing: Pairing {
                pairs: options.pairs,
                cluster: options.cluster.clone(),
            },
            twins: true,
            seed: options.seed,
            vocab_size: options.vocab_size,
            tokenizer,
            pretokenize: options.pretokenize,
            layout: options.layout,
            origin,
            inputs,
        };
        let manifest = match options.labelled {
            true => assemble_labelled(&store, source, recipe, progress).await?,
            false => assemble(&store, source, recipe, progress).await?,
        };
        job.done();
        Ok(manifest)
    }
}

/// The tokenizer of the corpus at a URL, and that corpus's name.
async fn tokenizer_of(url: &str) -> Result<(Fingerprint, GivenTokenizer), Error> {
    let read = async {
        let store = Store::open_existing(url).map_err(|source| corpus::Error::Store {
            url: url.into(),
            source,
        })?;
        corpus::read_tokenizer(&store).await
    };
    let (manifest, bytes, tokenizer) = read.await.map_err(|source| Error::TokenizerOf {
        url: url.into(),
        source: Box::new(source),
    })?;
    Ok((manifest.fingerprint, GivenTokenizer { bytes, tokenizer }))
}

/// Puts the records that were set aside beside the corpus, all inputs' in one object.
async fn quarantine(store: &Store, job: &Job, inputs: usize) -> Result<(), Error> {
    let mut all = Vec::new();
    for input in 0..inputs {
        let path = job.bad(input);
        match std::fs::read(&path) {
            Ok(mut lines) => all.append(&mut lines),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Spill { path, source }),
        }
    }
    if all.is_empty() {
        return Ok(());
    }
    let put = store.put(QUARANTINE_KEY, all.into()).await;
    put.map_err(Error::Output)
}

/// What an import that failed or was stopped has left for the next one: its folder, and the bytes in it.
/// A folder in which nothing is of use is removed.
pub fn leftovers(options: &ImportOptions) -> Option<(PathBuf, u64)> {
    let store = Store::open(&options.output).ok()?;
    job::leftovers(options, store.url())
}

/// Names and sizes of files.
fn named(inputs: &[Input]) -> Vec<InputFile> {
    let file = |input: &Input| InputFile {
        name: input.name.clone(),
        bytes: input.bytes.unwrap_or(0),
    };
    inputs.iter().map(file).collect()
}
