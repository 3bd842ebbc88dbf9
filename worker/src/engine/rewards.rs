//! Rewards themselves, which training never looks at: of a model that is being looked into or handed on.

use super::input;
use crate::device::{NoDevice, device};
use burn::tensor::Tensor;
use polestar_dataset::Pack;
use polestar_model::{
    HeadKind, ModelLayout, SegmentLayout, Weights,
    segment::{block, embed, polar_head},
};
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
    mut weights: impl FnMut(&SegmentLayout) -> Result<Vec<f32>, E>,
) -> Result<Vec<f32>, RewardError<E>> {
    if layout.head() != HeadKind::Reward {
        return Err(RewardError::Language);
    }
    let device = device(arithmetic.backend)?;
    let packs = input::inputs(packs);
    let (config, precision) = (&layout.config, arithmetic.precision);
    let last = layout.segments.len() - 1;
    let mut xs: Vec<Tensor<2>> = Vec::new();
    let mut rewards = Vec::new();
    for (number, segment) in layout.segments.iter().enumerate() {
        let flat = weights(segment).map_err(RewardError::Weights)?;
        let weights = Weights::from_flat(segment, &flat, &device, false);
        drop(flat);
        if number == 0 {
            xs = packs.iter().map(|pack| embed(&weights, pack)).collect();
            continue;
        }
        let through = std::mem::take(&mut xs).into_iter().zip(&packs);
        if number < last {
            xs = through
                .map(|(x, pack)| block(config, &weights, x, pack, precision))
                .collect();
            continue;
        }
        for (x, pack) in through {
            let data = polar_head(config, &weights, x, pack).rewards.into_data();
            rewards.extend(data.iter::<f32>());
        }
    }
    Ok(rewards)
}
