//! The elements of a trial's weights, wherever it is.

use crate::run::Chosen;
use polestar_hf::{Elements, Run};
use polestar_model::{ModelLayout, SegmentLayout};
use polestar_run::{
    Trial,
    checkpoint::{self, Kind, Manifest, Wanted},
};
use polestar_store::Store;
use polestar_worker::engine::{InitialError, InitialWeights};

/// Why they can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ElementsError {
    /// The checkpoint can't be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// What the trial begins with can't be had.
    #[error(transparent)]
    Initial(#[from] InitialError),
    /// The checkpoint is of another model.
    #[error("the checkpoint has no tensor {tensor} of that size; it holds another model")]
    Other {
        /// The tensor.
        tensor: String,
    },
}

/// Weights of a trial: a checkpoint's, or those that it begins with.
pub(super) struct OfTrial<'a> {
    store: &'a Store,
    layout: &'a ModelLayout,
    source: Source<'a>,
}

enum Source<'a> {
    Saved(&'a Manifest),
    Initial {
        weights: Box<InitialWeights>,
        /// The segment that was made last: what comes from a seed is made from its start.
        made: Option<(usize, Vec<f32>)>,
    },
}

impl<'a> OfTrial<'a> {
    pub(super) async fn open(
        chosen: &'a Chosen,
        layout: &'a ModelLayout,
    ) -> Result<OfTrial<'a>, ElementsError> {
        let store = &chosen.run.store;
        let trial: &Trial = &chosen.trial.config;
        let source = match &chosen.manifest {
            Some(manifest) => Source::Saved(manifest),
            None => Source::Initial {
                weights: Box::new(InitialWeights::open(trial, store).await?),
                made: None,
            },
        };
        Ok(OfTrial {
            store,
            layout,
            source,
        })
    }

    /// A whole segment.
    pub(super) async fn segment(
        &mut self,
        segment: &SegmentLayout,
    ) -> Result<Vec<f32>, ElementsError> {
        let mut values = vec![0.0; segment.elements];
        for tensor in &segment.tensors {
            let run = Run {
                tensor: tensor.name.clone(),
                start: 0,
                elements: tensor.elements(),
            };
            self.read(&run, &mut values[tensor.range()]).await?;
        }
        Ok(values)
    }
}

impl Elements for OfTrial<'_> {
    type Error = ElementsError;

    async fn read(&mut self, run: &Run, sink: &mut [f32]) -> Result<(), ElementsError> {
        let other = || ElementsError::Other {
            tensor: run.tensor.clone(),
        };
        let all = self.layout.segments.iter().enumerate();
        let (number, segment, tensor) = all
            .flat_map(|(number, s)| s.tensors.iter().map(move |t| (number, s, t)))
            .find(|(_, _, tensor)| tensor.name == run.tensor)
            .ok_or_else(other)?;
        let start = tensor.offset + run.start;
        match &mut self.source {
            Source::Saved(manifest) => {
                if manifest.segments != checkpoint::segments(self.layout) {
                    return Err(other());
                }
                let wanted = vec![Wanted {
                    segment: number,
                    kind: Kind::Weight,
                    start,
                    sink,
                }];
                checkpoint::read(self.store, manifest, wanted).await?;
            }
            Source::Initial { weights, made } => {
                if made.as_ref().is_none_or(|(last, _)| *last != number) {
                    // Not two segments at a time.
                    *made = None;
                    *made = Some((number, weights.read(segment, 0..segment.elements).await?));
                }
                if let Some((_, values)) = made {
                    sink.copy_from_slice(&values[start..start + run.elements]);
                }
            }
        }
        Ok(())
    }
}
