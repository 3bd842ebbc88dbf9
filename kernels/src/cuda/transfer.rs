//! Between host and device: page-locked memory, and copies that are ordered with what is computed.

use super::{
    context::Event,
    device::{Device, Which},
    memory::{Element, View},
};
use cudarc::driver::result;
use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    ptr::NonNull,
    slice,
    sync::{Mutex, PoisonError},
};

/// Bytes that large vectors are moved by: two such buffers are under way at once.
const CHUNK: usize = 4 << 20;

/// Page-locked host memory that is free, by size. It is kept for as long as the device is open.
#[derive(Default)]
pub(super) struct PinnedPool {
    free: Mutex<BTreeMap<usize, Vec<Block>>>,
}

struct Block(NonNull<u8>);

// SAFETY: it is plain memory, which has one owner at a time.
unsafe impl Send for Block {}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: cuMemHostAlloc gave it, and nobody else has it. The context is closed after its pool.
        let _ = unsafe { result::free_host(self.0.as_ptr().cast()) };
    }
}

/// Page-locked host memory, which the device reads and writes by itself.
///
/// Dropping it waits for the copy that uses it.
pub struct Pinned<T: Element> {
    device: Device,
    block: Option<Block>,
    bytes: usize,
    elements: usize,
    /// The end of the copy that uses it.
    used: Option<Event>,
    element: std::marker::PhantomData<T>,
}

impl<T: Element> fmt::Debug for Pinned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({} elements)", self.elements)
    }
}

impl<T: Element> Pinned<T> {
    /// Waits for the copy that uses it, if any, and gives its values.
    pub fn values(&mut self) -> &mut [T] {
        if let Some(event) = self.used.take() {
            event.synchronize();
        }
        let Some(block) = &self.block else {
            return &mut [];
        };
        // SAFETY: the block has at least so many bytes, is aligned to a page, was filled when it was allocated, is ours
        // alone, and no copy is under way. Every pattern of bits is a value of an element's type.
        unsafe { slice::from_raw_parts_mut(block.0.as_ptr().cast::<T>(), self.elements) }
    }
}

impl<T: Element> Drop for Pinned<T> {
    fn drop(&mut self) {
        if let Some(event) = self.used.take() {
            event.synchronize();
        }
        if let Some(block) = self.block.take() {
            let free = &self.device.pinned().free;
            let mut free = free.lock().unwrap_or_else(PoisonError::into_inner);
            free.entry(self.bytes).or_default().push(block);
        }
    }
}

impl Device {
    /// Page-locked host memory for so many elements.
    pub fn pinned_memory<T: Element>(&self, elements: usize) -> Pinned<T> {
        // Few sizes, so that what was freed fits again.
        let bytes = (elements * size_of::<T>()).next_power_of_two().max(4096);
        let reused = {
            let free = &self.pinned().free;
            let mut free = free.lock().unwrap_or_else(PoisonError::into_inner);
            free.get_mut(&bytes).and_then(Vec::pop)
        };
        let block = match elements {
            0 => None,
            _ => Some(reused.unwrap_or_else(|| self.page_locked(bytes))),
        };
        Pinned {
            device: self.clone(),
            block,
            bytes,
            elements,
            used: None,
            element: std::marker::PhantomData,
        }
    }

    fn page_locked(&self, bytes: usize) -> Block {
        self.context().enter();
        // SAFETY: it is filled below, before anybody reads it.
        let allocated = unsafe { result::malloc_host(bytes, 0) };
        let address = allocated
            .ok()
            .and_then(|address| NonNull::new(address.cast::<u8>()));
        let address = address.unwrap_or_else(|| {
            panic!("{self:?}: {bytes} bytes of page-locked host memory can't be had; raise the limit on locked memory")
        });
        // SAFETY: it has so many bytes.
        unsafe { address.as_ptr().write_bytes(0, bytes) };
        Block(address)
    }

    /// Brings values to the device, behind what was given out to be computed and before what will be.
    ///
    /// # Panics
    /// When the two differ in length.
    pub fn send<T: Element>(&self, from: &mut Pinned<T>, to: View<T>) {
        assert_eq!(
            from.elements,
            to.len(),
            "as many elements arrive as are sent"
        );
        if to.is_empty() {
            return;
        }
        // What is computed there now may still use the memory.
        let before = self.record(Which::Compute);
        self.wait(Which::Copies, &before);
        let values: &[T] = from.values();
        let stream = self.stream(Which::Copies);
        // SAFETY: the view is memory of this device of this length. The values stay where they are, and unchanged, until
        // the event below: a [`Pinned`] waits for it before it gives them out or is dropped.
        let copied = unsafe { result::memcpy_htod_async(to.address(), values, stream) };
        self.must("cuMemcpyHtoDAsync", copied);
        let after = self.record(Which::Copies);
        self.wait(Which::Compute, &after);
        from.used = Some(after);
    }

    /// Brings values to the host. With `after`, they are as they were at that point and the caller promises that nobody
    /// changes them since; without, as everything that was given out to be computed leaves them.
    ///
    /// # Panics
    /// When the two differ in length.
    pub fn fetch<T: Element>(&self, from: View<T>, to: &mut Pinned<T>, after: Option<&Event>) {
        assert_eq!(
            from.len(),
            to.elements,
            "as many elements arrive as are sent"
        );
        if from.is_empty() {
            return;
        }
        match after {
            Some(event) => self.wait(Which::Copies, event),
            None => self.wait(Which::Copies, &self.record(Which::Compute)),
        }
        let stream = self.stream(Which::Copies);
        let values = to.values();
        // SAFETY: as in `send`, the other way round.
        let copied = unsafe { result::memcpy_dtoh_async(values, from.address(), stream) };
        self.must("cuMemcpyDtoHAsync", copied);
        let done = self.record(Which::Copies);
        // What is computed next may change or reuse what is read here.
        self.wait(Which::Compute, &done);
        to.used = Some(done);
    }

    /// Copies values to the device through page-locked memory. They are the caller's again when this returns.
    ///
    /// # Panics
    /// When the two differ in length.
    pub fn write<T: Element>(&self, values: &[T], to: View<T>) {
        assert_eq!(
            values.len(),
            to.len(),
            "as many elements arrive as are sent"
        );
        let mut under_way: Option<Pinned<T>> = None;
        for range in chunks::<T>(values.len()) {
            let mut staged = self.pinned_memory(range.len());
            staged.values().copy_from_slice(&values[range.clone()]);
            self.send(&mut staged, to.slice(range));
            // The one before is waited for while this one moves.
            under_way = Some(staged);
        }
        drop(under_way);
    }

    /// Copies values to the host through page-locked memory, as [`Device::fetch`] does.
    ///
    /// # Panics
    /// When the two differ in length.
    pub fn read<T: Element>(&self, from: View<T>, into: &mut [T], after: Option<&Event>) {
        assert_eq!(
            from.len(),
            into.len(),
            "as many elements arrive as are sent"
        );
        let mut under_way: Option<(Pinned<T>, Range<usize>)> = None;
        for range in chunks::<T>(into.len()) {
            let mut staged = self.pinned_memory(range.len());
            self.fetch(from.slice(range.clone()), &mut staged, after);
            if let Some((mut before, place)) = under_way.replace((staged, range)) {
                into[place].copy_from_slice(before.values());
            }
        }
        if let Some((mut last, place)) = under_way {
            into[place].copy_from_slice(last.values());
        }
    }
}

fn chunks<T>(elements: usize) -> impl Iterator<Item = Range<usize>> {
    let chunk = CHUNK / size_of::<T>();
    (0..elements)
        .step_by(chunk)
        .map(move |start| start..elements.min(start + chunk))
}
