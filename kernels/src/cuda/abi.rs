//! How the kernels of `kernels/cuda/` are launched: names, arguments, grids. Plain arithmetic, no driver.
//!
//! Each operation is a struct that holds what its kernel is given; [`Launch`] is what comes of it. A launch is a function of
//! shapes alone: the same shapes give the same grid, the same order of every sum, the same bits.
//!
//! **Types.** bf16 arrays are activations, compute copies of weights and their gradients; f32 arrays are masters, moments,
//! flat gradients, norm scales, the reward head and everything small; u32 arrays are indices. All matrices are row-major
//! without padding.
//!
//! **Alignment.** bf16 matrices begin on 16 bytes. They are read 16 bytes at a time where their width is a multiple of 8, element by
//! element elsewhere. f32 vectors may begin at any element: 16-byte accesses are used where all of a kernel's vectors allow
//! them, and give the same bits.
//!
//! **Memory.** Kernels write every element of their outputs and read none of them before, unless a field says "added to" or
//! "in place". Arrays don't overlap unless a field says so.

mod attention;
mod flat;
mod heads;
mod rows;
mod sources;
mod tiles;

pub use attention::{
    AttentionDelta, AttentionForward, AttentionKeyValueGradient, AttentionQueryGradient, HeadShape,
    MAX_HEAD_WIDTH, Tiles,
};
pub use flat::{
    AdamwUpdate, BlockSums, CastToBf16, CastToF32, Checksum, ClipFactor, FiniteFlag, FlatAdd,
    FlatMerge, FlatZero, MAX_MERGED, SumPartials, TREE_WIDTH, TreeReduce,
};
pub use heads::{
    CrossEntropy, RewardBackward, RewardForward, RewardLoss, RewardWeightGradient, ScatterRows,
};
pub use rows::{
    EmbeddingBackward, EmbeddingForward, MAX_NORM_WIDTH, RmsNormBackward, RmsNormForward, Rope,
    RopeTable, SortedIds, SwigluBackward, SwigluForward,
};
pub use sources::{KERNELS, NVRTC_OPTIONS, SOURCES, Source};
pub use tiles::{AttentionTiles, TileTable};

/// An address on the device; 0 is null.
pub type Address = u64;

/// Threads of a warp.
pub const WARP: u32 = 32;

/// Everything a driver is told to start a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The kernel's name, as `extern "C"` gives it.
    pub kernel: &'static str,
    /// Blocks in x, y and z. A launch with no block at all is to be left out.
    pub blocks: [u32; 3],
    /// Threads of a block, in x.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// The arguments in order, eight bytes each, of which a kernel reads as many as its parameter has.
    pub arguments: Vec<u64>,
}

impl Launch {
    fn new(kernel: &'static str, blocks: [u32; 3], threads: u32, arguments: Arguments) -> Launch {
        Launch {
            kernel,
            blocks,
            threads,
            shared: 0,
            arguments: arguments.0,
        }
    }

    /// Blocks in a row, as many as `work` needs at `each` a block.
    fn line(
        kernel: &'static str,
        work: u64,
        each: u64,
        threads: u32,
        arguments: Arguments,
    ) -> Launch {
        let blocks = u32::try_from(work.div_ceil(each)).expect("a grid has fewer than 2^32 blocks");
        Launch::new(kernel, [blocks, 1, 1], threads, arguments)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.blocks.contains(&0)
    }
}

/// A kernel's arguments, as they are collected.
#[derive(Debug, Default)]
struct Arguments(Vec<u64>);

impl Arguments {
    /// A pointer.
    fn address(mut self, address: Address) -> Self {
        self.0.push(address);
        self
    }

    /// Some pointers.
    fn addresses<const N: usize>(mut self, addresses: [Address; N]) -> Self {
        self.0.extend(addresses);
        self
    }

    /// An `int`.
    fn int(mut self, value: u32) -> Self {
        assert!(
            i32::try_from(value).is_ok(),
            "{value} doesn't fit a kernel's int"
        );
        self.0.push(u64::from(value));
        self
    }

    /// Some `int`s.
    fn ints<const N: usize>(self, values: [u32; N]) -> Self {
        values.into_iter().fold(self, Self::int)
    }

    /// A `long long`.
    fn long(mut self, value: u64) -> Self {
        self.0.push(value);
        self
    }

    /// A `float`.
    fn float(mut self, value: f32) -> Self {
        self.0.push(u64::from(value.to_bits()));
        self
    }
}
