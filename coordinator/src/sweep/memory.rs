//! What a worker holds of a trial, and the smallest share of it that fits.

use polestar_core::WorldSize;
use polestar_model::ModelLayout;
use polestar_run::{
    MemoryTier, TrainConfig,
    memory::{Holding, memory},
    placement::Zero,
};

/// Bytes of a GiB.
pub const GIB: f64 = (1_u64 << 30) as f64;

/// Among how many workers a trial's state is divided, and what of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Workers.
    pub world: u32,
    /// What is divided.
    pub zero: Zero,
}

impl Share {
    /// Most bytes of weights, gradients, moments and the copies for checkpoints and for the loss of a worker on
    /// a rank.
    pub fn bytes(self, layout: &ModelLayout, train: &TrainConfig) -> u64 {
        let holding = Holding {
            zero: self.zero,
            world: WorldSize(self.world),
            lanes: train.lanes,
            reduction: train.reduction,
            recompute: train.recompute,
            copies: train.memory_tier == MemoryTier::Auto,
        };
        memory(layout, holding).total()
    }

    /// The same without copies of other ranks' shards: they are kept where there is room.
    pub fn least_bytes(self, layout: &ModelLayout, train: &TrainConfig) -> u64 {
        let without = TrainConfig {
            memory_tier: MemoryTier::Off,
            ..train.clone()
        };
        self.bytes(layout, &without)
    }

    /// The fewest workers, and then the lowest ZeRO stage, that need no more than `limit` bytes each.
    /// Worlds are those among `worlds` that share the lanes equally.
    pub fn smallest(
        worlds: std::ops::RangeInclusive<u32>,
        limit: f64,
        layout: &ModelLayout,
        train: &TrainConfig,
    ) -> Option<Share> {
        const STAGES: [Zero; 4] = [Zero::None, Zero::Optimizer, Zero::Gradient, Zero::Weights];
        let worlds = worlds.filter(|&world| train.lanes.is_multiple_of(world));
        let mut shares = worlds.flat_map(|world| STAGES.map(|zero| Share { world, zero }));
        shares.find(|share| share.least_bytes(layout, train) as f64 <= limit)
    }
}
