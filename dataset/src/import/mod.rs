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
mod options;
mod row;
mod scatter;
mod spill;

use std::path::PathBuf;
use std::sync::Arc;

use crate::across::{Pairing, Pairs};
pub use crate::assemble::{Progress, Stage};
use crate::assemble::{Recipe, assemble, present};
use crate::manifest::Manifest;
use crate::origin::{ImportOrigin, InputFile, Origin};
pub use error::Error;
use error::unreadable;
use grouping::Grouping;
use job::Job;
pub use options::ImportOptions;
pub(crate) use options::bytes_of_mib;
use polestar_core::digest::hex;
use polestar_store::Store;
use spill::Partitions;

/// Imports a corpus and commits it. The same inputs and options give the same bytes; over a corpus
/// with the same content the import is a success that writes nothing. Blocks its thread while it
/// reads and computes.
///
/// # Errors
/// Inputs that can't be read or hold no trajectories, by file and line; another corpus in the place; the
/// store's and the temporary folder's. What was read so far stays for the next try.
pub async fn import(
    mut options: ImportOptions,
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
    if let Some(cluster) = options.cluster.clone() {
        if options.pairs == Pairs::SamePrompt {
            return Err(Error::Cluster);
        }
        // What a row says of its prompt's cluster is kept with it.
        if !options.columns.meta.contains(&cluster) {
            options.columns.meta.push(cluster);
        }
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
    let tokenizer_digest = tokenizer.as_deref().map(hex);
    let origin = options.origin(inputs, requests, tokenizer_digest);
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
