//! What a pass scored, on its way to the host.

use crate::{HeadKind, PackInput};
use polestar_kernels::cuda::Pinned;

/// What a pass scored.
#[derive(Debug)]
pub struct Scored {
    packs: Vec<PackScores>,
    /// What the pass read, which may still be on its way.
    _uploads: Vec<Pinned<u32>>,
}

#[derive(Debug)]
pub(super) struct PackScores {
    pub(super) head: HeadKind,
    pub(super) input: PackInput,
    /// Losses then margins of triplets, or losses of targets.
    pub(super) values: Pinned<f32>,
}

impl Scored {
    pub(super) fn new(packs: Vec<PackScores>, uploads: Vec<Pinned<u32>>) -> Scored {
        Scored {
            packs,
            _uploads: uploads,
        }
    }

    /// Waits for it: losses and margins of each pack's triplets, in order; no margins of a language model.
    pub fn read(self) -> Vec<(Vec<f32>, Vec<f32>)> {
        let read = |mut pack: PackScores| {
            let values = pack.values.values();
            match pack.head {
                HeadKind::Reward => {
                    let (losses, margins) = values.split_at(values.len() / 2);
                    (losses.to_vec(), margins.to_vec())
                }
                HeadKind::Language => (pack.input.mean_by_triplet(values), Vec::new()),
            }
        };
        self.packs.into_iter().map(read).collect()
    }
}
