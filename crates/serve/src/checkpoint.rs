//! A checkpoint by its URL: whose it is, and what it was trained on.

mod find;
mod runs;

use polestar_core::{Digest, Objective, RecipeId, Step};
use polestar_dataset::{Corpus, corpus};
use polestar_model::{HeadKind, ModelLayout};
use polestar_run::{
    Recipe,
    checkpoint::{self, Kind, Manifest, Wanted},
};
use polestar_store::Store;
use polestar_worker::device::NoDevice;
use std::sync::Arc;

use crate::Texts;

/// Why a checkpoint can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] polestar_store::Error),
    /// There is something else, or nothing.
    #[error(
        "{url} is no checkpoint: give the folder of a run with the trial, as RUN#TRIAL or RUN#TRIAL@STEP, or the \
         folder of a checkpoint, …/trials/ID/checkpoints/STEP; `coordinator checkpoint list RUN` shows what there is"
    )]
    NoCheckpoint {
        /// What was given.
        url: String,
    },
    /// A run has other trials.
    #[error("{url} has no trial '{trial}'; it has {}", .trials.join(", "))]
    NoTrial {
        /// The run.
        url: String,
        /// What was given.
        trial: String,
        /// Those that it has.
        trials: Vec<String>,
    },
    /// A run has several trials.
    #[error("{url} has several trials; name one, as {url}#{}: {}", .trials[0], .trials.join(", "))]
    Several {
        /// The run.
        url: String,
        /// Those that it has.
        trials: Vec<String>,
    },
    /// What follows the `@` is no number.
    #[error("'{given}' is no step; write RUN#TRIAL@STEP with a number")]
    NoStep {
        /// What was given.
        given: String,
    },
    /// Nothing was saved.
    #[error("{url} has no committed checkpoint; `coordinator status` tells how far its trial is")]
    NoneCommitted {
        /// The trial's folder.
        url: String,
    },
    /// A record can't be read.
    #[error("{key} can't be read")]
    Record {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A recipe that isn't the one that its folder is named by.
    #[error("{key} is not the recipe that its folder is named by; the store was altered")]
    Altered {
        /// The object.
        key: String,
    },
    /// The checkpoint itself.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// It gives no rewards.
    #[error(
        "{url} is a checkpoint of a language model (objective = \"lm\"), which has no reward; give that of a reward model"
    )]
    LanguageModel {
        /// The checkpoint.
        url: String,
    },
    /// Nobody says which corpus it is.
    #[error(
        "no run beside {url} says where its corpus lies; give --corpus URL (its fingerprint is {fingerprint})"
    )]
    NoCorpus {
        /// The trial's folder.
        url: String,
        /// Of the corpus.
        fingerprint: String,
    },
    /// The corpus can't be opened.
    #[error(
        "the tokenizer is in the corpus, which can't be opened; if it was moved, give --corpus URL"
    )]
    Corpus(#[from] corpus::Error),
    /// The corpus is another one.
    #[error(
        "the corpus at {url} has fingerprint {found}, and the checkpoint is of {expected}; give --corpus URL"
    )]
    OtherCorpus {
        /// Where.
        url: String,
        /// Its fingerprint.
        found: String,
        /// The recipe's.
        expected: String,
    },
    /// The program lacks the backend.
    #[error(transparent)]
    Backend(#[from] NoDevice),
}

/// A committed checkpoint of a trial.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The store that runs share.
    store: Store,
    recipe: Recipe,
    id: RecipeId,
    manifest: Manifest,
    /// Where a run says that the corpus lies.
    corpus: Option<String>,
}

impl Checkpoint {
    /// Finds a checkpoint by the folder of a run and a trial's name (`RUN#TRIAL`, or `RUN#TRIAL@STEP`; the run
    /// alone if it has one trial), by the folder of a trial, or by its own (`…/trials/ID/checkpoints/STEP`). Without
    /// a step the newest is taken.
    ///
    /// # Errors
    /// [`OpenError`] says what is there instead.
    pub async fn open(url: &str) -> Result<Checkpoint, OpenError> {
        let found = find::find(url).await?;
        let (store, recipe) = (found.store, found.recipe);
        let id = recipe.id();
        let step = match found.step {
            Some(step) => step,
            None => {
                let committed = checkpoint::committed(&store, &id).await?;
                let url = || store.child(&id.folder()).url().to_owned();
                let newest = committed.last().copied();
                newest.ok_or_else(|| OpenError::NoneCommitted { url: url() })?
            }
        };
        let manifest = checkpoint::open(&store, &id, step).await?;
        Ok(Checkpoint {
            store,
            recipe,
            id,
            manifest,
            corpus: found.corpus,
        })
    }

    /// What its weights are a function of.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Its recipe's identity.
    pub fn recipe_id(&self) -> RecipeId {
        self.id
    }

    /// Steps done.
    pub fn step(&self) -> Step {
        self.manifest.step
    }

    /// Digest of its weights.
    pub fn digest(&self) -> &Digest {
        &self.manifest.digest
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The store that it and its run lie in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its own folder.
    pub fn url(&self) -> String {
        let place = checkpoint::place(&self.id, self.step());
        self.store.child(&place).url().to_owned()
    }

    /// Where every parameter lies.
    pub fn layout(&self) -> ModelLayout {
        ModelLayout::new(&self.recipe.model, HeadKind::of(self.recipe.objective))
    }

    /// The weights of a segment, checked against the manifest's hashes.
    ///
    /// # Errors
    /// [`OpenError::Checkpoint`] when an object is missing, short or altered; the store's.
    pub async fn segment(&self, segment: usize) -> Result<Vec<f32>, OpenError> {
        let elements = self.manifest.segments[segment].elements as usize;
        let mut weights = vec![0.0; elements];
        let wanted = Wanted {
            segment,
            kind: Kind::Weight,
            start: 0,
            sink: &mut weights,
        };
        checkpoint::read(&self.store, &self.manifest, vec![wanted]).await?;
        Ok(weights)
    }

    /// The corpus that it was trained on, at `url` or where a run of its store says that it lies.
    ///
    /// # Errors
    /// [`OpenError::NoCorpus`], [`OpenError::OtherCorpus`], or what is wrong with it.
    pub async fn corpus(&self, url: Option<&str>) -> Result<Arc<Corpus>, OpenError> {
        let expected = &self.recipe.data.fingerprint;
        let url = match (url, &self.corpus) {
            (Some(url), _) => url.to_owned(),
            (None, Some(url)) => url.clone(),
            (None, None) => {
                let found = runs::corpus_of(&self.store, self.id).await?;
                found.ok_or_else(|| OpenError::NoCorpus {
                    url: self.store.child(&self.id.folder()).url().to_owned(),
                    fingerprint: expected.clone(),
                })?
            }
        };
        let corpus = Corpus::open(&url).await?;
        let found = corpus.fingerprint().to_string();
        match found == *expected {
            true => Ok(corpus),
            false => Err(OpenError::OtherCorpus {
                url,
                found,
                expected: expected.clone(),
            }),
        }
    }

    /// Its tokenizer and limits, for texts that are to be scored; `corpus` as in [`Checkpoint::corpus`].
    ///
    /// # Errors
    /// [`OpenError::LanguageModel`]; as [`Checkpoint::corpus`].
    pub async fn texts(&self, corpus: Option<&str>) -> Result<Texts, OpenError> {
        if self.recipe.objective == Objective::Lm {
            return Err(OpenError::LanguageModel { url: self.url() });
        }
        let corpus = self.corpus(corpus).await?;
        Ok(Texts::new(corpus, self.recipe.data.samples.clone()))
    }
}
