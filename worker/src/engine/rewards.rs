//! Rewards themselves, which training never looks at: of a model that is being looked into or handed on.

use super::{BurnEngine, Engine, NotFinite, ParameterStore, input};
use crate::device::{NoDevice, device};
use polestar_dataset::Pack;
use polestar_model::{HeadKind, ModelLayout, SegmentLayout, Weights};
use polestar_run::Arithmetic;

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum RewardError<E> {
    /// The backend isn't in this build.
    #[error(transparent)]
    Device(#[from] NoDevice),
    /// The weights can't be had.
    #[error(transparent)]
    Weights(E),
    /// The model computes no number.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// A language model gives none.
    #[error("a language model gives no rewards")]
    Language,
}

/// The rewards of packed triplets: of each its positive, then its negative. `weights` is asked for each segment
/// once, in order; all packs go through it before the next one is asked for.
///
/// # Errors
/// [`RewardError`].
pub fn rewards<E>(
    layout: &ModelLayout,
    arithmetic: &Arithmetic,
    packs: Vec<Pack>,
    weights: impl FnMut(&SegmentLayout) -> Result<Vec<f32>, E>,
) -> Result<Vec<f32>, RewardError<E>> {
    if layout.head() != HeadKind::Reward {
        return Err(RewardError::Language);
    }
    let device = device(arithmetic.backend)?;
    let engine = BurnEngine::new(layout.clone(), &device, false, arithmetic.precision);
    let mut store = OnDemand {
        engine: &engine,
        read: weights,
    };
    let scores = engine.score(&input::inputs(packs), &mut store)?;
    Ok(scores.into_iter().flat_map(|pack| pack.rewards).collect())
}

/// Weights that are read when a pass asks for them, and gone when it has done with them.
struct OnDemand<'a, F> {
    engine: &'a BurnEngine,
    read: F,
}

impl<E, F> ParameterStore<BurnEngine> for OnDemand<'_, F>
where
    F: FnMut(&SegmentLayout) -> Result<Vec<f32>, E>,
{
    type Error = RewardError<E>;

    fn weights(&mut self, segment: usize, _: Option<usize>) -> Result<Weights, RewardError<E>> {
        let flat = (self.read)(&self.engine.layout().segments[segment]);
        let flat = self.engine.flat(flat.map_err(RewardError::Weights)?);
        Ok(self.engine.weights(segment, &flat))
    }

    fn release(&mut self, _: usize) {}
}
