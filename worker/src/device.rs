//! The devices that this build can compute on.

use burn::tensor::Device;
use polestar_run::config::Backend;

/// This program was built without libtorch.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "train.backend is \"libtorch\", which this program was built without; build it with --features tch (scripts/setup-libtorch), or use \"flex\""
)]
pub struct NoLibtorch;

/// A backend's device on this machine.
///
/// # Errors
/// [`NoLibtorch`] when this build lacks it.
pub fn device(backend: Backend) -> Result<Device, NoLibtorch> {
    match backend {
        Backend::Flex => Ok(Device::flex()),
        #[cfg(feature = "tch")]
        Backend::Libtorch => Ok(Device::libtorch()),
        #[cfg(not(feature = "tch"))]
        Backend::Libtorch => Err(NoLibtorch),
    }
}
