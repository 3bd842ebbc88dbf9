//! From packed rows to what the model takes in.

use polestar_core::Lane;
use polestar_dataset::Pack;
use polestar_kernels::{Positions, Spans};
use polestar_model::PackInput;

/// Packs as the model takes them in. Their vectors are shared, not copied.
pub(super) fn inputs(packs: Vec<Pack>) -> Vec<PackInput> {
    packs.into_iter().map(pack_input).collect()
}

/// A pack as the model takes it in. Its vectors are shared, not copied.
///
/// # Panics
/// When its spans are no forest over its tokens, as those of a packer always are.
pub fn pack_input(pack: Pack) -> PackInput {
    PackInput {
        ids: pack.ids,
        positions: Positions::new(pack.positions),
        spans: Spans::new(pack.spans)
            .expect("packing makes forests: a prefix before its candidates"),
        reward_rows: pack.reward_rows,
        target_rows: pack.target_rows,
        targets: pack.targets,
        target_weights: pack.target_weights,
    }
}

/// A lane's part of a batch, on the device.
#[derive(Debug)]
pub struct LaneInput<P> {
    /// Which.
    pub lane: Lane,
    /// Its packs, in order.
    pub packs: Vec<P>,
}
