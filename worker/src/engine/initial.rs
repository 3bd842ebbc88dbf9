//! The weights that a trial begins with: a function of its recipe, whoever asks.

use polestar_hf::recorded;
use polestar_model::{SegmentLayout, init};
use polestar_run::{
    StartPoint, Trial,
    checkpoint::{self, Origin},
};
use polestar_store::Store;
use std::ops::Range;

/// Why they can't be had.
#[derive(Debug, thiserror::Error)]
pub enum InitialError {
    /// Another trial's can't be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// Those of a model from elsewhere can't be read.
    #[error(transparent)]
    Weights(#[from] polestar_hf::Error),
    /// Nobody said where they lie.
    #[error(
        "this trial starts from imported weights, and nothing says where they lie; are all processes of one version?"
    )]
    NoPlace,
}

enum Source {
    Seed,
    Trial(Box<Origin>),
    Imported(Box<polestar_hf::Weights>),
}

/// A trial's weights before its first step.
pub struct InitialWeights {
    seed: u64,
    source: Source,
}

impl InitialWeights {
    /// Finds what they are made from. `store` is that of the run.
    ///
    /// # Errors
    /// When what the recipe starts from isn't there, or is something else than it was.
    pub async fn open(trial: &Trial, store: &Store) -> Result<InitialWeights, InitialError> {
        let source = match &trial.recipe.start {
            None => Source::Seed,
            Some(StartPoint::Trial(start)) => {
                let elsewhere = trial.execution.weights.as_deref().map(Store::open);
                let elsewhere = elsewhere.transpose().map_err(checkpoint::Error::from)?;
                let store = elsewhere.as_ref().unwrap_or(store);
                Source::Trial(Box::new(Origin::open(store, start).await?))
            }
            Some(StartPoint::Weights(start)) => {
                let url = trial.execution.weights.as_deref();
                let url = url.ok_or(InitialError::NoPlace)?;
                let manifest = recorded(store, &start.weights).await?;
                let weights = polestar_hf::Weights::open(url).await?;
                Source::Imported(Box::new(weights.checked(manifest)?))
            }
        };
        Ok(InitialWeights {
            seed: trial.recipe.seed,
            source,
        })
    }

    /// Elements of a segment.
    ///
    /// # Errors
    /// When what they start from can't be read, or isn't what it was.
    pub async fn read(
        &self,
        segment: &SegmentLayout,
        range: Range<usize>,
    ) -> Result<Vec<f32>, InitialError> {
        let mut whole = vec![0.0; segment.elements];
        init::initial_segment(segment, self.seed, &mut whole);
        let mut weights = whole[range.clone()].to_vec();
        drop(whole);
        match &self.source {
            Source::Seed => {}
            Source::Trial(origin) => origin.overwrite(segment, range.start, &mut weights).await?,
            Source::Imported(imported) => {
                imported
                    .overwrite(segment, range.start, &mut weights)
                    .await?;
            }
        }
        Ok(weights)
    }
}
