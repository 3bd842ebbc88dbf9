//! Operations on flat vectors: sums in their one order, the norm, the optimizer, casts.

use super::{Address, Arguments, Launch};
use crate::adamw::{AdamW, Constants};
use polestar_core::tree::BLOCK;

/// Elements that a block of the elementwise kernels takes on.
const ELEMENTS: u64 = 1024;

/// Sets a vector to zero: `flat_zero(vector, elements)`.
#[derive(Clone, Copy, Debug)]
pub struct FlatZero {
    /// f32 `[elements]`, written. (bf16 zeros are zeros too: half as many elements.)
    pub vector: Address,
    /// Its length.
    pub elements: u64,
}

impl FlatZero {
    /// Four elements a thread.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .address(self.vector)
            .long(self.elements);
        Launch::line("flat_zero", self.elements, ELEMENTS, 256, arguments)
    }
}

/// `sum[i] += other[i]`: `flat_add(sum, other, elements)`.
#[derive(Clone, Copy, Debug)]
pub struct FlatAdd {
    /// f32 `[elements]`, in place.
    pub sum: Address,
    /// f32 `[elements]`.
    pub other: Address,
    /// Their length.
    pub elements: u64,
}

impl FlatAdd {
    /// Four elements a thread.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([self.sum, self.other])
            .long(self.elements);
        Launch::line("flat_add", self.elements, ELEMENTS, 256, arguments)
    }
}

/// Vectors that one [`FlatMerge`] adds up.
pub const MAX_MERGED: usize = 8;

/// Some partial sums by the lanes' tree in one pass over memory:
/// `flat_merge(out, partial0, .., partial7, count, elements)`.
///
/// The tree is that of [`tree_sum`](polestar_core::tree::tree_sum) over the partial sums in order: right for subtrees of one
/// level that are neighbours and begin at a multiple of the next power of two.
#[derive(Clone, Copy, Debug)]
pub struct FlatMerge {
    /// f32 `[elements]`, written. May be one of the partial sums.
    pub out: Address,
    /// f32 `[elements]` each, in lane order; the first `count` are read.
    pub partials: [Address; MAX_MERGED],
    /// How many, 1 to [`MAX_MERGED`].
    pub count: u32,
    /// Their length.
    pub elements: u64,
}

impl FlatMerge {
    /// Four elements a thread.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .address(self.out)
            .addresses(self.partials)
            .int(self.count)
            .long(self.elements);
        Launch::line("flat_merge", self.elements, ELEMENTS, 256, arguments)
    }
}

/// Adds rows of partial sums up, in order: `sum_partials(partials, gradient, count, width)`.
#[derive(Clone, Copy, Debug)]
pub struct SumPartials {
    /// f32 `[count, width]`.
    pub partials: Address,
    /// f32 `[width]`, added to: the rows are summed in order, then added.
    pub gradient: Address,
    /// Rows.
    pub count: u32,
    /// Columns.
    pub width: u32,
}

impl SumPartials {
    /// One thread a column.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([self.partials, self.gradient])
            .ints([self.count, self.width]);
        Launch::line("sum_partials", u64::from(self.width), 64, 64, arguments)
    }
}

/// Sum of squares of each block of 4,096: `block_sums(vector, sums, elements)`.
///
/// In f64, in the order of the canonical norm: eight interleaved sums, then their tree. The bits are those of the CPU's.
#[derive(Clone, Copy, Debug)]
pub struct BlockSums {
    /// f32 `[elements]`, beginning on a block's edge.
    pub vector: Address,
    /// f64 `[blocks]`, written.
    pub sums: Address,
    /// Length of `vector`.
    pub elements: u64,
}

impl BlockSums {
    /// Blocks of the vector, and so sums.
    pub fn blocks(elements: u64) -> u64 {
        elements.div_ceil(BLOCK as u64)
    }

    /// Eight threads a block of the vector.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([self.vector, self.sums])
            .long(self.elements);
        Launch::line(
            "block_sums",
            Self::blocks(self.elements),
            16,
            128,
            arguments,
        )
    }
}

/// Sums that one block of [`TreeReduce`] makes one of.
pub const TREE_WIDTH: u64 = 1024;

/// One storey of the fixed tree over f64 numbers: `tree_reduce(values, sums, count)`.
///
/// Each run of [`TREE_WIDTH`] becomes one sum; launched again and again until one is left, that is
/// [`tree_sum`](polestar_core::tree::tree_sum) of all.
#[derive(Clone, Copy, Debug)]
pub struct TreeReduce {
    /// f64 `[count]`.
    pub values: Address,
    /// f64 `[sums(count)]`, written.
    pub sums: Address,
    /// Length of `values`.
    pub count: u64,
}

impl TreeReduce {
    /// Sums that are left.
    pub fn sums(count: u64) -> u64 {
        count.div_ceil(TREE_WIDTH)
    }

    /// One block a run.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([self.values, self.sums])
            .long(self.count);
        Launch::line("tree_reduce", self.count, TREE_WIDTH, 256, arguments)
    }
}

/// Norm and clip factor: `clip_factor(total, norm, factor, flag, clip)`.
#[derive(Clone, Copy, Debug)]
pub struct ClipFactor {
    /// f64 `[1]`: the sum of all squares.
    pub total: Address,
    /// f64 `[1]`, written: its root.
    pub norm: Address,
    /// f32 `[1]`, written: what gradients are multiplied by.
    pub factor: Address,
    /// u32 `[1]`: set to 1 when the norm is not finite, else left alone; or null.
    pub flag: Address,
    /// The largest norm; 0 for no limit.
    pub clip: f32,
}

impl ClipFactor {
    /// One thread.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([self.total, self.norm, self.factor, self.flag])
            .float(self.clip);
        Launch::line("clip_factor", 1, 1, 32, arguments)
    }
}

/// One update of AdamW: `adamw(param, m, v, grad, copy, factor, elements, keep, beta1, beta2, eps, scale, rate,
/// root_correction)`. The bits are those of [`adamw::step`](crate::adamw::step).
#[derive(Clone, Copy, Debug)]
pub struct AdamwUpdate {
    /// f32 `[elements]`, in place.
    pub param: Address,
    /// f32 `[elements]`, in place: first moments.
    pub m: Address,
    /// f32 `[elements]`, in place: second moments.
    pub v: Address,
    /// f32 `[elements]`.
    pub grad: Address,
    /// bf16 `[elements]`, written: the new parameters, rounded; or null.
    pub copy: Address,
    /// f32 `[1]`: what gradients are multiplied by (from [`ClipFactor`]); or null to take `scale`.
    pub factor: Address,
    /// Their length.
    pub elements: u64,
    /// Settings.
    pub config: AdamW,
    /// The step's number, counted from 1.
    pub number: u64,
    /// The factor, where `factor` is null.
    pub scale: f32,
}

impl AdamwUpdate {
    /// Four elements a thread.
    ///
    /// # Panics
    /// When steps were counted from 0.
    pub fn launch(&self) -> Launch {
        assert!(self.number > 0, "adamw: steps count from 1");
        let constants = Constants::new(&self.config, self.number, self.scale);
        let arguments = Arguments::default()
            .addresses([
                self.param,
                self.m,
                self.v,
                self.grad,
                self.copy,
                self.factor,
            ])
            .long(self.elements)
            .float(constants.keep)
            .float(constants.beta1)
            .float(constants.beta2)
            .float(constants.eps)
            .float(constants.scale)
            .float(constants.rate)
            .float(constants.root_correction);
        Launch::line("adamw", self.elements, ELEMENTS, 256, arguments)
    }
}

/// Notices numbers that are none: `finite_flag(vector, flag, elements)`.
#[derive(Clone, Copy, Debug)]
pub struct FiniteFlag {
    /// f32 `[elements]`.
    pub vector: Address,
    /// u32 `[1]`: set to 1 when an element is not finite, else left alone.
    pub flag: Address,
    /// Length of `vector`.
    pub elements: u64,
}

impl FiniteFlag {
    /// Four elements a thread.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([self.vector, self.flag])
            .long(self.elements);
        Launch::line("finite_flag", self.elements, ELEMENTS, 256, arguments)
    }
}

/// [`checksum`](polestar_core::digest::checksum), one number a block:
/// `checksum(vector, sums, elements)`. The wrapping sum of all is the vector's.
#[derive(Clone, Copy, Debug)]
pub struct Checksum {
    /// f32 `[elements]`, beginning on a block's edge.
    pub vector: Address,
    /// u64 `[blocks]`, written, as many as [`BlockSums::blocks`] says. Their wrapping sum is the checksum.
    pub sums: Address,
    /// Length of `vector`.
    pub elements: u64,
}

impl Checksum {
    /// One warp a block of the vector.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([self.vector, self.sums])
            .long(self.elements);
        Launch::line(
            "checksum",
            BlockSums::blocks(self.elements),
            8,
            256,
            arguments,
        )
    }
}

/// To bf16, to nearest, ties to even: `cast_to_bf16(values, out, elements)`.
#[derive(Clone, Copy, Debug)]
pub struct CastToBf16 {
    /// f32 `[elements]`.
    pub values: Address,
    /// bf16 `[elements]`, written.
    pub out: Address,
    /// Their length.
    pub elements: u64,
}

impl CastToBf16 {
    /// Four elements a thread.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([self.values, self.out])
            .long(self.elements);
        Launch::line("cast_to_bf16", self.elements, ELEMENTS, 256, arguments)
    }
}

/// From bf16: `cast_to_f32(values, out, elements)`.
#[derive(Clone, Copy, Debug)]
pub struct CastToF32 {
    /// bf16 `[elements]`.
    pub values: Address,
    /// f32 `[elements]`, written.
    pub out: Address,
    /// Their length.
    pub elements: u64,
}

impl CastToF32 {
    /// Four elements a thread.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([self.values, self.out])
            .long(self.elements);
        Launch::line("cast_to_f32", self.elements, ELEMENTS, 256, arguments)
    }
}
