//! What a device's driver keeps for us: context, streams, events, allocations.

use super::{
    arena::Class,
    error::{CudaError, text},
};
use cudarc::driver::{result, sys};
use std::{fmt, sync::Arc};

/// A device's primary context.
pub(super) struct Context {
    raw: sys::CUcontext,
    device: sys::CUdevice,
    pub(super) ordinal: usize,
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) multiprocessors: u32,
    pub(super) capability: (u32, u32),
}

// SAFETY: a context may be made current, and its handles used, in any thread; the driver locks what it shares.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    pub(super) fn open(ordinal: usize) -> Result<Context, CudaError> {
        libraries()?;
        result::init().map_err(CudaError::driver("cuInit"))?;
        let count = result::device::get_count().map_err(CudaError::driver("cuDeviceGetCount"))?;
        let count = usize::try_from(count).unwrap_or(0);
        if ordinal >= count {
            return Err(CudaError::NoDevice { ordinal, count });
        }
        let device =
            result::device::get(ordinal as i32).map_err(CudaError::driver("cuDeviceGet"))?;
        let name =
            result::device::get_name(device).map_err(CudaError::driver("cuDeviceGetName"))?;
        let uuid =
            result::device::get_uuid(device).map_err(CudaError::driver("cuDeviceGetUuid"))?;
        let uuid = uuid.bytes.iter().map(|byte| format!("{:02x}", *byte as u8));
        use sys::CUdevice_attribute as Attribute;
        let attribute = |attribute| {
            // SAFETY: the device is one that the driver gave.
            let value = unsafe { result::device::get_attribute(device, attribute) };
            let value = value.map_err(CudaError::driver("cuDeviceGetAttribute"))?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        // SAFETY: the device is one that the driver gave.
        let raw = unsafe { result::primary_ctx::retain(device) };
        let raw = raw.map_err(CudaError::driver("cuDevicePrimaryCtxRetain"))?;
        let context = Context {
            raw,
            device,
            ordinal,
            name,
            uuid: uuid.collect(),
            multiprocessors,
            capability: (major, minor),
        };
        // SAFETY: it was retained above and is released when it is dropped.
        let entered = unsafe { result::ctx::set_current(raw) };
        entered.map_err(CudaError::driver("cuCtxSetCurrent"))?;
        Ok(context)
    }

    /// `sm_90a`: what the kernels are compiled for.
    pub(super) fn architecture(&self) -> String {
        let (major, minor) = self.capability;
        // From Hopper on, instructions that only this architecture has are behind its name with an `a`.
        let own = if major >= 9 { "a" } else { "" };
        format!("sm_{major}{minor}{own}")
    }

    /// Makes it the calling thread's.
    pub(super) fn enter(&self) {
        // SAFETY: it is retained for as long as this lives.
        let entered = unsafe { result::ctx::set_current(self.raw) };
        if let Err(error) = entered {
            panic!(
                "CUDA device {}: cuCtxSetCurrent: {}",
                self.ordinal,
                text(error)
            );
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained when it was opened. What the driver says of a context that is given up anyway
        // changes nothing.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// What has to be there before the first call: a missing library would otherwise end in a panic of the binding's.
pub(super) fn libraries() -> Result<(), CudaError> {
    // SAFETY: these look whether a library can be opened, which runs its initializers and nothing else.
    let (driver, nvrtc, products) = unsafe {
        (
            sys::is_culib_present(),
            cudarc::nvrtc::sys::is_culib_present(),
            cudarc::cublaslt::sys::is_culib_present(),
        )
    };
    let needed = [
        (driver, "libcuda.so", "NVIDIA's driver"),
        (nvrtc, "libnvrtc.so", "CUDA's compiler"),
        (products, "libcublasLt.so", "CUDA's matrix products"),
    ];
    match needed.into_iter().find(|(present, ..)| !present) {
        Some((_, name, what)) => Err(CudaError::Library { name, what }),
        None => Ok(()),
    }
}

/// Work that is done in order.
pub(super) struct Stream {
    pub(super) raw: sys::CUstream,
    context: Arc<Context>,
}

// SAFETY: work may be given to a stream from any thread.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    pub(super) fn new(context: &Arc<Context>) -> Result<Stream, CudaError> {
        let raw = result::stream::create(result::stream::StreamKind::NonBlocking);
        Ok(Stream {
            raw: raw.map_err(CudaError::driver("cuStreamCreate"))?,
            context: Arc::clone(context),
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.context.enter();
        // SAFETY: it was created above and nobody uses it any more. Errors were told where they happened.
        let _ = unsafe {
            let done = result::stream::synchronize(self.raw);
            done.and_then(|()| result::stream::destroy(self.raw))
        };
    }
}

/// A point in a stream's work.
pub struct Event {
    pub(super) raw: sys::CUevent,
    context: Arc<Context>,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Event")
    }
}

// SAFETY: an event may be waited for from any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    pub(super) fn new(context: &Arc<Context>) -> Event {
        let raw = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        let raw = raw.unwrap_or_else(|error| {
            panic!(
                "CUDA device {}: cuEventCreate: {}",
                context.ordinal,
                text(error)
            )
        });
        Event {
            raw,
            context: Arc::clone(context),
        }
    }

    /// Whether the stream's work has come so far.
    pub fn is_done(&self) -> bool {
        self.context.enter();
        // SAFETY: it is alive.
        match unsafe { result::event::query(self.raw) } {
            Ok(()) => true,
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NOT_READY => false,
            Err(error) => {
                let device = &self.context.ordinal;
                panic!("CUDA device {device}: cuEventQuery: {}", text(error));
            }
        }
    }

    /// Returns when the stream's work has come so far.
    pub fn synchronize(&self) {
        self.context.enter();
        // SAFETY: it is alive.
        let done = unsafe { result::event::synchronize(self.raw) };
        if let Err(error) = done {
            let device = &self.context.ordinal;
            panic!("CUDA device {device}: cuEventSynchronize: {}", text(error));
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.context.enter();
        // SAFETY: it was created by us; the driver keeps what streams still wait for.
        let _ = unsafe { result::event::destroy(self.raw) };
    }
}

/// One allocation of device memory.
pub(super) struct Region {
    pub(super) address: u64,
    pub(super) bytes: usize,
    context: Arc<Context>,
}

impl Region {
    pub(super) fn new(
        context: &Arc<Context>,
        class: Class,
        bytes: usize,
    ) -> Result<Region, CudaError> {
        let address = match bytes {
            0 => 0,
            // SAFETY: nobody reads it before something is written there.
            _ => unsafe { result::malloc_sync(bytes) }.map_err(|error| CudaError::Memory {
                what: class.name(),
                bytes,
                device: context.name.clone(),
                reason: text(error),
            })?,
        };
        Ok(Region {
            address,
            bytes,
            context: Arc::clone(context),
        })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.address != 0 {
            self.context.enter();
            // SAFETY: it was allocated above, and its device is closed: nobody has a view of it that could be used.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}
