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
    /// Rewards, two for each triplet; none of a language model.
    pub(super) rewards: Pinned<f32>,
}

/// Scores of one pack, in the order of its triplets.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredPack {
    /// Loss of each triplet.
    pub losses: Vec<f32>,
    /// Of a reward model: the positive's reward minus the negative's.
    pub margins: Vec<f32>,
    /// Of a reward model: of each triplet the positive's reward, then the negative's.
    pub rewards: Vec<f32>,
}

impl Scored {
    pub(super) fn new(packs: Vec<PackScores>, uploads: Vec<Pinned<u32>>) -> Scored {
        Scored {
            packs,
            _uploads: uploads,
        }
    }

    /// Waits for it: the scores of each pack.
    pub fn read(self) -> Vec<ScoredPack> {
        let read = |mut pack: PackScores| {
            let values = pack.values.values();
            match pack.head {
                HeadKind::Reward => {
                    let (losses, margins) = values.split_at(values.len() / 2);
                    ScoredPack {
                        losses: losses.to_vec(),
                        margins: margins.to_vec(),
                        rewards: pack.rewards.values().to_vec(),
                    }
                }
                HeadKind::Language => ScoredPack {
                    losses: pack.input.mean_by_triplet(values),
                    margins: Vec::new(),
                    rewards: Vec::new(),
                },
            }
        };
        self.packs.into_iter().map(read).collect()
    }
}
