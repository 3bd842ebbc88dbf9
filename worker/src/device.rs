//! The devices that this build can compute on.

use burn::tensor::Device;
use polestar_run::config::Backend;

/// Why a backend can't be used here.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoDevice {
    /// This program was built without it.
    #[error(
        "train.backend is \"{}\", which this program was built without; build it with --features {feature} ({script}), or use \"flex\"",
        .backend.name()
    )]
    NotBuilt {
        /// What was asked for.
        backend: Backend,
        /// What builds it.
        feature: &'static str,
        /// What gets what it needs.
        script: &'static str,
    },
    /// It was built without CUDA, or is asked for the device of burn, which CUDA's engine doesn't use.
    #[error(
        "train.backend is \"cuda\", which this part of the program can't compute with; build it with --features cuda, or use \"flex\""
    )]
    NotBurns,
    /// The machine has nothing that it runs on.
    #[error("train.backend is \"{}\", and this machine has no device for it: {why}; {remedy}", .backend.name())]
    Absent {
        /// What was asked for.
        backend: Backend,
        /// What the search for one said.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
}

/// A backend's device on this machine.
///
/// # Errors
/// [`NoDevice`] when this build lacks the backend, or the machine what it runs on.
pub fn device(backend: Backend) -> Result<Device, NoDevice> {
    match backend {
        Backend::Flex => Ok(Device::flex()),
        Backend::Libtorch => libtorch(),
        Backend::Cuda => Err(NoDevice::NotBurns),
        Backend::BurnWgpu => wgpu(),
        Backend::BurnCuda => burn_cuda(),
    }
}

#[cfg(feature = "tch")]
fn libtorch() -> Result<Device, NoDevice> {
    Ok(Device::libtorch())
}

#[cfg(not(feature = "tch"))]
fn libtorch() -> Result<Device, NoDevice> {
    Err(NoDevice::NotBuilt {
        backend: Backend::Libtorch,
        feature: "tch",
        script: "scripts/setup-libtorch",
    })
}

/// The default adapter, initialized once a process: burn refuses a second time.
#[cfg(feature = "wgpu")]
fn wgpu() -> Result<Device, NoDevice> {
    use std::sync::OnceLock;
    static DEVICE: OnceLock<Result<Device, NoDevice>> = OnceLock::new();
    let first = || {
        let device = Device::wgpu_options().init();
        device.map_err(|error| NoDevice::Absent {
            backend: Backend::BurnWgpu,
            why: error.to_string(),
            remedy: "install a Vulkan driver (scripts/setup-lavapipe has one that computes on the CPU)",
        })
    };
    DEVICE.get_or_init(first).clone()
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> Result<Device, NoDevice> {
    Err(NoDevice::NotBuilt {
        backend: Backend::BurnWgpu,
        feature: "wgpu",
        script: "scripts/setup-lavapipe, where there is no GPU",
    })
}

/// The first GPU that this process may see: a pool gives each worker one (`CUDA_VISIBLE_DEVICES`).
#[cfg(feature = "burn-cuda")]
fn burn_cuda() -> Result<Device, NoDevice> {
    use crate::gpus::Gpus;
    match Gpus::of_this_machine() {
        Ok(gpus) if !gpus.0.is_empty() => Ok(Device::cuda(0_usize)),
        Ok(_) => Err(no_gpu("its driver counts no GPU".to_owned())),
        Err(error) => Err(no_gpu(error.to_string())),
    }
}

#[cfg(feature = "burn-cuda")]
fn no_gpu(why: String) -> NoDevice {
    NoDevice::Absent {
        backend: Backend::BurnCuda,
        why,
        remedy: "run it where `nvidia-smi` lists one, or use another backend",
    }
}

#[cfg(not(feature = "burn-cuda"))]
fn burn_cuda() -> Result<Device, NoDevice> {
    Err(NoDevice::NotBuilt {
        backend: Backend::BurnCuda,
        feature: "burn-cuda",
        script: "scripts/setup-llvm",
    })
}
