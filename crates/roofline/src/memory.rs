//! Bytes on one GPU.

use crate::{Workload, parts::COMPUTED, plan::Layout};
use polestar_core::WorldSize;
use polestar_run::{
    memory::{self, Holding},
    placement::Reduction,
};

/// CUDA's context, libraries, their workspaces and what NCCL keeps for its connections.
const RESERVED: u64 = 3_000_000_000;

/// Bytes on the GPU that holds most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Weights in bf16, and in f32 with both moments where they are updated.
    pub state: u64,
    /// Partial sums of lanes in f32, and what is being reduced.
    pub gradients: u64,
    /// What a lane's forward pass keeps for its backward pass.
    pub activations: u64,
    /// The rest.
    pub reserved: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.state + self.gradients + self.activations + self.reserved
    }
}

/// What a GPU holds. Copies for checkpoints and for the loss of a worker are in the host's memory.
pub fn memory(work: &Workload, layout: &Layout) -> Memory {
    let holding = Holding {
        zero: layout.zero,
        world: WorldSize(layout.world),
        lanes: layout.lanes(),
        reduction: Reduction::Canonical,
        recompute: layout.recompute,
        copies: false,
    };
    let held = memory::memory(&work.layout, holding);
    let kept = f64::from(layout.triplets_per_lane)
        * work.lengths.tokens()
        * activations(work, layout.recompute);
    Memory {
        // That formula counts four bytes of the weights that passes compute with; here they are bf16.
        state: held.masters + held.moments + held.compute / 2,
        gradients: held.gradients,
        activations: kept as u64,
        reserved: RESERVED,
    }
}

/// Bytes that are kept for a token: gate, up, queries, keys, values, attention's output and both residuals of each
/// block; norms and gating are computed again. With recompute only each block's input, and all of the one at hand.
fn activations(work: &Workload, recompute: bool) -> f64 {
    let model = work.model();
    let head = f64::from(model.head_dim());
    let [queries, keys] = [model.num_attention_heads, model.num_key_value_heads];
    let [queries, keys] = [queries, keys].map(|heads| f64::from(heads) * head);
    let [hidden, gated] = [model.hidden_size, model.intermediate_size].map(f64::from);
    let block = COMPUTED * (2.0 * gated + (queries + 2.0 * keys) + queries + 2.0 * hidden);
    let blocks = f64::from(model.num_hidden_layers);
    match recompute {
        false => blocks * block,
        true => blocks * COMPUTED * hidden + block,
    }
}
