//! How much of a device's memory a trial takes: what `plan` counts.

use polestar_core::WorldSize;
use polestar_kernels::cuda::Budget;
use polestar_model::ModelLayout;
use polestar_run::{
    MemoryTier, Trial,
    memory::{DeviceMemory, Holding, PassTokens, device_memory},
    placement::Sharding,
};

/// The bytes of each class of memory that this rank takes.
pub(super) fn budget(trial: &Trial, layout: &ModelLayout, sharding: Sharding) -> Budget {
    let holding = holding(trial, sharding.world);
    let recipe = &trial.recipe;
    let tokens = PassTokens::new(&recipe.data.samples, recipe.objective, &recipe.batch);
    let DeviceMemory {
        vectors,
        weights,
        activations,
        staging,
    } = device_memory(layout, &holding, sharding.rank, &tokens);
    Budget {
        vectors: vectors as usize,
        weights: weights as usize,
        activations: activations as usize,
        staging: staging as usize,
    }
}

fn holding(trial: &Trial, world: WorldSize) -> Holding {
    let execution = &trial.execution;
    Holding {
        zero: execution.zero,
        world,
        lanes: trial.recipe.batch.lanes,
        reduction: trial.recipe.arithmetic.order.reduction(),
        recompute: execution.recompute,
        copies: execution.memory_tier == MemoryTier::Auto,
    }
}
