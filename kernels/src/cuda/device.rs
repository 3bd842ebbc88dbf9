//! An open device: its context, streams, memory, kernels and products.

use super::{
    abi::{Launch, Source},
    arena::{Class, Pool, Stack},
    context::{Context, Event, Region, Stream, libraries},
    error::{CudaError, text},
    gemm::Products,
    memory::{DeviceVec, Element, Frame, View, block},
    program::Program,
    transfer::PinnedPool,
};
use cudarc::driver::{
    result::{self, DriverError},
    sys,
};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Bytes of each class of a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Of [`Class::Vectors`].
    pub vectors: usize,
    /// Of [`Class::Weights`].
    pub weights: usize,
    /// Of [`Class::Activations`].
    pub activations: usize,
    /// Of [`Class::Staging`].
    pub staging: usize,
}

impl Budget {
    fn of(&self, class: Class) -> usize {
        match class {
            Class::Vectors => self.vectors,
            Class::Weights => self.weights,
            Class::Activations => self.activations,
            Class::Staging => self.staging,
        }
    }
}

/// A CUDA device with a share of its memory. Clones are one and the same.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    // In the order in which they are closed: all of them before the context.
    program: Program,
    products: Products,
    pinned: PinnedPool,
    memory: Mutex<Memory>,
    compute: Stream,
    copies: Stream,
    communication: Stream,
    regions: [Region; Class::ALL.len()],
    context: Arc<Context>,
}

struct Memory {
    vectors: Pool,
    weights: Pool,
    activations: Stack,
    staging: Pool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.context.enter();
        for stream in [&self.compute, &self.copies, &self.communication] {
            let stream = stream.raw;
            // SAFETY: the streams are alive until this returns. What was given out uses memory, kernels and workspaces that
            // are given up next; errors were told where they happened.
            let _ = unsafe { result::stream::synchronize(stream) };
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = &self.0.context;
        write!(f, "CUDA device {}: {}", context.ordinal, context.name)
    }
}

/// One of a device's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Kernels, products, and copies within the device.
    Compute,
    /// To and from the host.
    Copies,
    /// To and from other ranks' devices, and sums of what came.
    Communication,
}

impl Device {
    /// Opens a device, compiles the kernels for it and takes its memory.
    ///
    /// # Errors
    /// [`CudaError`], in a sentence, also where there is no driver.
    pub fn open(ordinal: usize, budget: &Budget, sources: &[Source]) -> Result<Device, CudaError> {
        let context = Arc::new(Context::open(ordinal)?);
        let program = Program::load(&context, sources)?;
        let products = Products::new(&context)?;
        let region = |class: Class| Region::new(&context, class, budget.of(class));
        let [vectors, weights, activations, staging] = Class::ALL.map(region);
        Ok(Device(Arc::new(Inner {
            program,
            products,
            pinned: PinnedPool::default(),
            memory: Mutex::new(Memory {
                vectors: Pool::new(budget.vectors),
                weights: Pool::new(budget.weights),
                activations: Stack::new(budget.activations),
                staging: Pool::new(budget.staging),
            }),
            compute: Stream::new(&context)?,
            copies: Stream::new(&context)?,
            communication: Stream::new(&context)?,
            regions: [vectors?, weights?, activations?, staging?],
            context,
        })))
    }

    /// How many devices this machine has; none without a driver.
    pub fn count() -> usize {
        if libraries().is_err() || result::init().is_err() {
            return 0;
        }
        let count = result::device::get_count();
        count
            .ok()
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(0)
    }

    /// Its name, as the driver gives it.
    pub fn name(&self) -> &str {
        &self.0.context.name
    }

    /// The number by which the driver tells devices apart, also in other processes and whatever each of them sees.
    pub fn uuid(&self) -> &str {
        &self.0.context.uuid
    }

    /// Streaming multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        self.0.context.multiprocessors
    }

    /// Compute capability: major and minor.
    pub fn capability(&self) -> (u32, u32) {
        self.0.context.capability
    }

    /// What of this device, of its libraries and of our kernels decides the bits of a result, as text.
    pub fn numerics(&self) -> String {
        let context = &self.0.context;
        let (major, minor) = context.capability;
        format!(
            "{}, {} multiprocessors, compute capability {major}.{minor}; {}; kernels {}",
            context.name,
            context.multiprocessors,
            self.0.products.version(),
            self.0.program.digest(),
        )
    }

    /// The most bytes of a class that were in use at once, as its arena counts them.
    pub fn high_water(&self, class: Class) -> usize {
        let memory = self.memory();
        match class {
            Class::Vectors => memory.vectors.high(),
            Class::Weights => memory.weights.high(),
            Class::Activations => memory.activations.high(),
            Class::Staging => memory.staging.high(),
        }
    }

    /// Bytes of a class that the device has.
    pub fn capacity(&self, class: Class) -> usize {
        self.0.regions[class as usize].bytes
    }

    /// A new vector, of no meaning yet.
    ///
    /// # Panics
    /// When its class is used up: `plan` counted less than is needed.
    pub fn alloc<T: Element>(&self, class: Class, elements: usize) -> DeviceVec<T> {
        let bytes = block::<T>(elements);
        let offset = {
            let mut memory = self.memory();
            match class {
                Class::Vectors => memory.vectors.take(bytes),
                Class::Weights => memory.weights.take(bytes),
                Class::Staging => memory.staging.take(bytes),
                Class::Activations => panic!("activations are taken from frames"),
            }
        };
        let offset = offset.unwrap_or_else(|| self.exhausted(class, bytes));
        let view = View::new(self.address(class, offset), elements);
        DeviceVec::new(self.clone(), class, offset, view)
    }

    /// The stack of activations, from its top on.
    pub fn frame(&self) -> Frame<'_> {
        Frame::new(self, self.memory().activations.top())
    }

    pub(super) fn free(&self, class: Class, offset: usize, bytes: usize) {
        let mut memory = self.memory();
        match class {
            Class::Vectors => memory.vectors.give(offset, bytes),
            Class::Weights => memory.weights.give(offset, bytes),
            Class::Staging => memory.staging.give(offset, bytes),
            Class::Activations => {}
        }
    }

    pub(super) fn push<T: Element>(&self, elements: usize) -> View<T> {
        let bytes = block::<T>(elements);
        let offset = self.memory().activations.push(bytes);
        let offset = offset.unwrap_or_else(|| self.exhausted(Class::Activations, bytes));
        View::new(self.address(Class::Activations, offset), elements)
    }

    pub(super) fn cut(&self, top: usize) {
        self.memory().activations.cut(top);
    }

    fn exhausted(&self, class: Class, bytes: usize) -> ! {
        panic!(
            "{self:?}: {} were to get {bytes} bytes more than the {} that were planned for them; please report it",
            class.name(),
            self.capacity(class)
        )
    }

    fn address(&self, class: Class, offset: usize) -> u64 {
        self.0.regions[class as usize].address + offset as u64
    }

    /// Whoever panicked while holding it left whole bookkeeping: each change is one.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pinned(&self) -> &PinnedPool {
        &self.0.pinned
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        &self.0.context
    }

    pub(super) fn products(&self) -> &Products {
        &self.0.products
    }

    pub(super) fn stream(&self, which: Which) -> sys::CUstream {
        match which {
            Which::Compute => self.0.compute.raw,
            Which::Copies => self.0.copies.raw,
            Which::Communication => self.0.communication.raw,
        }
    }

    /// The point to which a stream's work has been given out so far.
    pub(super) fn record(&self, which: Which) -> Event {
        self.0.context.enter();
        let event = Event::new(&self.0.context);
        // SAFETY: event and stream are of this context and alive.
        let recorded = unsafe { result::event::record(event.raw, self.stream(which)) };
        self.must("cuEventRecord", recorded);
        event
    }

    /// Has a stream wait for an event before what is given to it from now on.
    pub(super) fn wait(&self, which: Which, event: &Event) {
        self.0.context.enter();
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: event and stream are of this context and alive.
        let waits = unsafe { result::stream::wait_event(self.stream(which), event.raw, flags) };
        self.must("cuStreamWaitEvent", waits);
    }

    /// The point to which computing has been given out so far.
    pub fn computed(&self) -> Event {
        self.record(Which::Compute)
    }

    /// Has what is given out to be communicated from now on wait for a point.
    pub fn communicate_after(&self, event: &Event) {
        self.wait(Which::Communication, event);
    }

    /// The point to which communication has been given out so far.
    pub fn communicated(&self) -> Event {
        self.record(Which::Communication)
    }

    /// Waits until everything that was given out is done, but for communication: that others take part in.
    pub fn synchronize(&self) {
        for which in [Which::Compute, Which::Copies] {
            self.record(which).synchronize();
        }
    }

    /// Launches a kernel on a stream.
    ///
    /// # Safety
    /// Every address among the arguments must be one of this device, of memory as large as the kernel reads or writes there.
    pub(super) unsafe fn launch(&self, launch: &Launch, which: Which) {
        if launch.is_empty() {
            return;
        }
        self.0.context.enter();
        // SAFETY: what the caller promises; the stream is alive.
        let launched = unsafe { self.0.program.launch(launch, self.stream(which)) };
        if let Err(error) = launched {
            panic!(
                "{self:?}: {} can't be launched: {}",
                launch.kernel,
                text(error)
            );
        }
    }

    /// Sets bytes of device memory to zero, on the compute stream.
    pub fn zero<T: Element>(&self, view: View<T>) {
        if view.is_empty() {
            return;
        }
        self.0.context.enter();
        let stream = self.stream(Which::Compute);
        // SAFETY: a view is memory of this device; zero bits are a number of every element's type.
        let set = unsafe { result::memset_d8_async(view.address(), 0, view.bytes(), stream) };
        self.must("cuMemsetD8Async", set);
    }

    /// Copies elements within the device, on the compute stream.
    ///
    /// # Panics
    /// When the two differ in length.
    pub fn copy<T: Element>(&self, from: View<T>, to: View<T>) {
        assert_eq!(
            from.len(),
            to.len(),
            "a copy has as many elements as its original"
        );
        if from.is_empty() {
            return;
        }
        self.0.context.enter();
        let stream = self.stream(Which::Compute);
        // SAFETY: both are memory of this device, of this many bytes.
        let copied = unsafe {
            result::memcpy_dtod_async(to.address(), from.address(), from.bytes(), stream)
        };
        self.must("cuMemcpyDtoDAsync", copied);
    }

    /// What the driver said, if that isn't yes: a context is of no use after an error.
    pub(super) fn must(&self, call: &'static str, done: Result<(), DriverError>) {
        if let Err(error) = done {
            panic!("{self:?}: {call}: {}", text(error));
        }
    }
}
