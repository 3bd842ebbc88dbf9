//! Flat vectors: sums, norms, the optimizer, rounding.

use super::same;
use crate::{
    adamw::AdamW,
    cuda::{
        Device,
        abi::{AdamwUpdate, BlockSums, CastToBf16, FlatAdd, FlatMerge, MAX_MERGED},
        device::Which,
        memory::{Bf16, View},
    },
};

impl Device {
    /// `sum[i] += other[i]`.
    pub fn add(&self, sum: View<f32>, other: View<f32>) {
        same("what is added", other.len(), sum.len());
        self.checked(
            FlatAdd {
                sum: sum.address(),
                other: other.address(),
                elements: sum.len() as u64,
            }
            .launch(),
        );
    }

    /// Adds up partial sums that have come from other ranks, on the stream on which they came, by the tree over as many
    /// leaves: 1, 2, 4 or 8 subtrees of one height that follow each other. `out` may be one of them.
    ///
    /// # Panics
    /// When there are more, or lengths differ.
    pub fn merge_received(&self, partials: &[View<f32>], out: View<f32>) {
        let count = partials.len();
        assert!(
            count.is_power_of_two() && count <= MAX_MERGED,
            "{count} partial sums are merged at once"
        );
        let mut addresses = [partials[0].address(); MAX_MERGED];
        for (address, partial) in addresses.iter_mut().zip(partials) {
            same("a partial sum", partial.len(), out.len());
            *address = partial.address();
        }
        let merge = FlatMerge {
            out: out.address(),
            partials: addresses,
            count: count as u32,
            elements: out.len() as u64,
        };
        self.checked_on(Which::Communication, merge.launch());
    }

    /// How many sums [`Device::block_sums`] makes of so many elements.
    pub fn blocks(elements: usize) -> usize {
        BlockSums::blocks(elements as u64) as usize
    }

    /// Sum of squares of each block, in the order of the canonical norm.
    pub fn block_sums(&self, vector: View<f32>, sums: View<f64>) {
        same("sums", sums.len(), Device::blocks(vector.len()));
        self.checked(
            BlockSums {
                vector: vector.address(),
                sums: sums.address(),
                elements: vector.len() as u64,
            }
            .launch(),
        );
    }

    /// An update of AdamW, number `t` counted from 1, of parameters and both moments; gradients are multiplied by `scale`
    /// first.
    pub fn adamw(
        &self,
        state: [View<f32>; 3],
        grad: View<f32>,
        config: &AdamW,
        t: u64,
        scale: f32,
    ) {
        for view in state {
            same("gradient", grad.len(), view.len());
        }
        let [param, m, v] = state.map(|view| view.address());
        self.checked(
            AdamwUpdate {
                param,
                m,
                v,
                grad: grad.address(),
                copy: 0,
                factor: 0,
                elements: grad.len() as u64,
                config: *config,
                number: t,
                scale,
            }
            .launch(),
        );
    }

    /// Rounds to bf16, to nearest.
    pub fn round(&self, values: View<f32>, out: View<Bf16>) {
        same("rounded values", out.len(), values.len());
        self.checked(
            CastToBf16 {
                values: values.address(),
                out: out.address(),
                elements: values.len() as u64,
            }
            .launch(),
        );
    }
}
