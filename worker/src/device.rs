//! The devices that this build can compute on.

use burn::tensor::Device;
use polestar_run::config::Backend;

/// A backend that this program can't compute with as burn does.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoBackend {
    /// This program was built without libtorch.
    #[error(
        "train.backend is \"libtorch\", which this program was built without; build it with --features tch (scripts/setup-libtorch), or use \"flex\""
    )]
    Libtorch,
    /// It was built without CUDA, or is asked for the device of burn, which CUDA's engine doesn't use.
    #[error(
        "train.backend is \"cuda\", which this part of the program can't compute with; build it with --features cuda, or use \"flex\""
    )]
    Cuda,
}

/// A backend's device on this machine.
///
/// # Errors
/// [`NoBackend`] when this build lacks it.
pub fn device(backend: Backend) -> Result<Device, NoBackend> {
    match backend {
        Backend::Flex => Ok(Device::flex()),
        #[cfg(feature = "tch")]
        Backend::Libtorch => Ok(Device::libtorch()),
        #[cfg(not(feature = "tch"))]
        Backend::Libtorch => Err(NoBackend::Libtorch),
        Backend::Cuda => Err(NoBackend::Cuda),
    }
}
