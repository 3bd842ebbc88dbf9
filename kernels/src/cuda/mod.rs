//! The native CUDA device.
//!
//! [`abi`] says how each kernel of `kernels/cuda/` is launched. It is plain arithmetic, needs neither a driver nor a card, and is
//! there with and without the feature `cuda`: the tests run the same kernels on the host by it.

pub mod abi;
