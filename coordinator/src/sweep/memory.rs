//! What a worker holds of a trial, and the smallest share of it that fits.

use polestar_core::{ByteCount, Objective, Rank, WorldSize};
use polestar_dataset::SampleConfig;
use polestar_model::{HeadKind, ModelLayout};
use polestar_run::{
    MemoryTier, TrainConfig,
    config::Backend,
    memory::{Holding, PassTokens, device_memory, memory},
    placement::Zero,
};

/// Whose state it is that workers divide among themselves.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// The model.
    pub layout: &'a ModelLayout,
    /// How it is trained.
    pub train: &'a TrainConfig,
    /// How its triplets are cut.
    pub samples: &'a SampleConfig,
}

/// Among how many workers a trial's state is divided, and what of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Workers.
    pub world: u32,
    /// What is divided.
    pub zero: Zero,
}

impl Share {
    /// The most on a rank: weights, gradients, moments and the copies for checkpoints and for the loss of a worker;
    /// on a GPU all that is taken of its memory, activations too, and no copies for checkpoints, which lie elsewhere.
    pub fn memory(self, state: &State<'_>) -> ByteCount {
        let State {
            layout,
            train,
            samples,
        } = state;
        let holding = Holding {
            zero: self.zero,
            world: WorldSize(self.world),
            lanes: train.lanes,
            reduction: train.reduction,
            recompute: train.recompute,
            copies: train.memory_tier == MemoryTier::Auto,
        };
        if train.backend != Backend::Cuda {
            return ByteCount(memory(layout, holding).total());
        }
        let objective = match layout.head() {
            HeadKind::Reward => Objective::Polar,
            HeadKind::Language => Objective::Lm,
        };
        let tokens = PassTokens::new(samples, objective, &train.batches());
        let ranks = (0..self.world).map(Rank);
        let of_rank = |rank| device_memory(layout, &holding, rank, &tokens).total();
        ByteCount(ranks.map(of_rank).max().unwrap_or(0))
    }

    /// The same without copies of other ranks' shards: they are kept where there is room.
    pub fn least_memory(self, state: &State<'_>) -> ByteCount {
        let without = TrainConfig {
            memory_tier: MemoryTier::Off,
            ..state.train.clone()
        };
        self.memory(&State {
            train: &without,
            ..*state
        })
    }

    /// The fewest workers, and then the lowest ZeRO stage, that need no more than `limit` each.
    /// Worlds are those among `worlds` that share the lanes equally.
    pub fn smallest(
        worlds: std::ops::RangeInclusive<u32>,
        limit: ByteCount,
        state: &State<'_>,
    ) -> Option<Share> {
        const STAGES: [Zero; 4] = [Zero::None, Zero::Optimizer, Zero::Gradient, Zero::Weights];
        let worlds = worlds.filter(|&world| state.train.lanes.is_multiple_of(world));
        let mut shares = worlds.flat_map(|world| STAGES.map(|zero| Share { world, zero }));
        shares.find(|share| share.least_memory(state) <= limit)
    }
}
