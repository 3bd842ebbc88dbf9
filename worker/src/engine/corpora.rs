//! The corpus of a trial, open from the generation before where that trained on the same.

use super::{Failure, Kept, resume::data};
use polestar_dataset::Corpus;
use polestar_run::Trial;
use std::sync::Arc;

/// A corpus that a process has open, and as what.
#[derive(Clone, Debug)]
pub(super) struct OpenCorpus {
    url: String,
    /// What of it is trained on: where it has bad row groups, and which policies.
    part: String,
    corpus: Arc<Corpus>,
}

/// The trial's corpus.
///
/// # Errors
/// [`Failure::Data`] if it can't be read, [`Failure::OtherCorpus`] if it isn't the one that the trial is of.
pub(super) fn open(
    trial: &Trial,
    runtime: &tokio::runtime::Handle,
    kept: &Kept,
) -> Result<Arc<Corpus>, Failure> {
    let url = &trial.execution.corpus;
    let recipe = &trial.recipe.data;
    let part = serde_json::to_string(&(&recipe.quarantine, &recipe.policies))
        .expect("names and numbers can be written");
    let is_it = |open: &OpenCorpus| {
        let is_same = open.corpus.fingerprint().to_string() == recipe.fingerprint;
        is_same && open.url == *url && open.part == part
    };
    if let Some(open) = kept.corpus().filter(is_it) {
        return Ok(open.corpus);
    }
    let opened = Corpus::open_with(url, &recipe.quarantine, recipe.policies.clone());
    let corpus = runtime.block_on(opened).map_err(data)?;
    let found = corpus.fingerprint().to_string();
    if found != recipe.fingerprint {
        return Err(Failure::OtherCorpus {
            url: url.clone(),
            found,
            expected: recipe.fingerprint.clone(),
        });
    }
    kept.keep_corpus(OpenCorpus {
        url: url.clone(),
        part,
        corpus: Arc::clone(&corpus),
    });
    Ok(corpus)
}
