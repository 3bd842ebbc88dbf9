//! The native CUDA device: memory of one's own, streams, kernels compiled at run time, and matrix products.
//!
//! [`abi`] says how each kernel of `kernels/cuda/` is launched. It is plain arithmetic, needs neither a driver nor a card, and is
//! there with and without the feature `cuda`: the tests run the same kernels on the host by it.
//!
//! With the feature, everything that touches the driver, NVRTC or cuBLASLt is here too; the libraries are opened when a
//! `Device` is, so that a program with this feature runs on a machine without any of them. What a model computes with it is
//! in `polestar-model`.
//!
//! **Addresses.** A `View` is an address on the device and a length. It owns nothing and is a plain number to the host,
//! which never dereferences it. Kernels are given views of memory that the device has from the moment it is opened until
//! it is closed, and the functions that launch them check lengths against shapes.
//!
//! **Order.** What is launched runs in order on one compute stream. Copies run on a stream of their own; events order the
//! two, both ways, wherever memory passes from one to the other. A third stream is for [`nccl`]: it waits for what was
//! computed, and nothing waits for it but its user, on the host, who may have to give it up.
//!
//! **Errors.** After an error of a kernel a CUDA context is of no use. Functions of an open device therefore panic with what
//! the driver said; the worker reports it as it reports any panic, and the coordinator tries again in a new generation.

pub mod abi;
#[cfg(feature = "cuda")]
mod arena;
#[cfg(feature = "cuda")]
mod context;
#[cfg(feature = "cuda")]
mod device;
#[cfg(feature = "cuda")]
mod error;
#[cfg(feature = "cuda")]
mod gemm;
#[cfg(feature = "cuda")]
mod memory;
#[cfg(feature = "cuda")]
pub mod nccl;
#[cfg(feature = "cuda")]
mod ops;
#[cfg(feature = "cuda")]
mod program;
#[cfg(feature = "cuda")]
mod transfer;

#[cfg(feature = "cuda")]
pub use arena::Class;
#[cfg(feature = "cuda")]
pub use context::Event;
#[cfg(feature = "cuda")]
pub use device::{Budget, Device};
#[cfg(feature = "cuda")]
pub use error::CudaError;
#[cfg(feature = "cuda")]
pub use gemm::{Operand, Product, WORKSPACE};
#[cfg(feature = "cuda")]
pub use memory::{Bf16, DeviceVec, Element, Frame, Span, View};
#[cfg(feature = "cuda")]
pub use ops::{AttentionView, NormBackward, RewardView, TileView};
#[cfg(feature = "cuda")]
pub use transfer::Pinned;
