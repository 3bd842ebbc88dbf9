//! Why a CUDA device can't be used.

use cudarc::{cublaslt::result::CublasError, driver::result::DriverError};

/// Why a device can't be opened. What goes wrong later is the end of a device's context: see [`Device`].
///
/// [`Device`]: super::Device
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// A library is not on this machine.
    #[error(
        "train.backend is \"cuda\", which needs {name} ({what}), and this machine has none; install it, or put its folder on LD_LIBRARY_PATH, or use \"flex\""
    )]
    Library {
        /// File name, without what follows `.so`.
        name: &'static str,
        /// What it is a part of.
        what: &'static str,
    },
    /// The driver says no.
    #[error("the CUDA driver refused {call}: {reason}")]
    Driver {
        /// What was asked.
        call: &'static str,
        /// What it said.
        reason: String,
    },
    /// There are fewer devices.
    #[error("CUDA device {ordinal} was asked for, and this machine has {count}")]
    NoDevice {
        /// The one that was asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// The state doesn't fit.
    #[error(
        "{what} need {bytes} bytes of memory on CUDA device {device}, which has no room for them ({reason}); use more workers a trial with a higher train.zero, train.recompute, or a smaller train.pack_tokens"
    )]
    Memory {
        /// Whose memory.
        what: &'static str,
        /// How much.
        bytes: usize,
        /// On which device.
        device: String,
        /// What the driver said.
        reason: String,
    },
    /// The kernels don't compile for this device.
    #[error("NVRTC can't compile {file} for {architecture}: {log}")]
    Compile {
        /// Source.
        file: String,
        /// For which device.
        architecture: String,
        /// What it said.
        log: String,
    },
    /// cuBLASLt says no.
    #[error("cuBLASLt refused {call}: {reason}")]
    Products {
        /// What was asked.
        call: &'static str,
        /// What it said.
        reason: String,
    },
}

impl CudaError {
    pub(super) fn driver(call: &'static str) -> impl FnOnce(DriverError) -> CudaError {
        move |error| CudaError::Driver {
            call,
            reason: text(error),
        }
    }

    pub(super) fn products(call: &'static str) -> impl FnOnce(CublasError) -> CudaError {
        move |error| CudaError::Products {
            call,
            reason: error.to_string(),
        }
    }
}

/// What the driver says of an error: its name and a sentence.
pub(super) fn text(error: DriverError) -> String {
    let part = |found: Result<&std::ffi::CStr, DriverError>| match found {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => format!("{:?}", error.0),
    };
    format!(
        "{} ({})",
        part(error.error_string()),
        part(error.error_name())
    )
}
