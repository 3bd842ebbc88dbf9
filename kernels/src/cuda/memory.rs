//! Memory on a device: vectors that own theirs, views, and the stack of activations.

use super::{Device, arena::Class};
use polestar_core::aligned;
use std::{cell::Cell, fmt, marker::PhantomData, ops::Range};

/// What views are made of.
pub trait Element: Copy + Default + Send + Sync + 'static {}

/// A bf16 number, as its bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub u16);

impl Element for Bf16 {}
impl Element for f32 {}
impl Element for f64 {}
impl Element for u32 {}
impl Element for u64 {}

/// Some elements on a device. See the [module](super).
pub struct View<T> {
    address: u64,
    elements: usize,
    element: PhantomData<fn() -> T>,
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<T> {}

impl<T> fmt::Debug for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} elements at {:#x}", self.elements, self.address)
    }
}

impl<T: Element> View<T> {
    pub(super) fn new(address: u64, elements: usize) -> View<T> {
        View {
            address,
            elements,
            element: PhantomData,
        }
    }

    /// Where it begins.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        self.elements
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.elements == 0
    }

    /// Its bytes.
    pub fn bytes(&self) -> usize {
        self.elements * size_of::<T>()
    }

    /// Its bytes, whatever they are.
    pub fn span(&self) -> Span {
        Span {
            address: self.address,
            bytes: self.bytes(),
        }
    }

    /// The same bits as elements of another type.
    ///
    /// # Panics
    /// When the two types differ in size.
    pub fn cast<U: Element>(&self) -> View<U> {
        assert_eq!(size_of::<T>(), size_of::<U>(), "as many bits as before");
        View::new(self.address, self.elements)
    }

    /// Some of its elements.
    ///
    /// # Panics
    /// When it hasn't that many.
    pub fn slice(&self, range: Range<usize>) -> View<T> {
        assert!(
            range.start <= range.end && range.end <= self.elements,
            "elements {range:?} of {}",
            self.elements
        );
        let address = self.address + (range.start * size_of::<T>()) as u64;
        View::new(address, range.len())
    }
}

/// Some bytes on a device: what is moved without a look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub(super) address: u64,
    pub(super) bytes: usize,
}

impl Span {
    /// How many there are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A vector on a device. Its memory is used again when it is dropped.
///
/// What was launched before still sees the old elements: later work on them is ordered behind it.
pub struct DeviceVec<T: Element> {
    device: Device,
    class: Class,
    offset: usize,
    view: View<T>,
}

impl<T: Element> fmt::Debug for DeviceVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceVec({:?})", self.view)
    }
}

impl<T: Element> DeviceVec<T> {
    pub(super) fn new(device: Device, class: Class, offset: usize, view: View<T>) -> DeviceVec<T> {
        DeviceVec {
            device,
            class,
            offset,
            view,
        }
    }

    /// Its elements.
    pub fn view(&self) -> View<T> {
        self.view
    }

    /// How many it has.
    pub fn len(&self) -> usize {
        self.view.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.view.is_empty()
    }

    /// Where it is.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

impl<T: Element> Drop for DeviceVec<T> {
    fn drop(&mut self) {
        self.device.free(self.class, self.offset, self.view.bytes());
    }
}

/// A part of the stack of activations, from where it was opened: dropped with all that was taken from it.
///
/// Frames close in the reverse order in which they were opened. One pass at a time uses a device's stack.
#[derive(Debug)]
pub struct Frame<'a> {
    device: &'a Device,
    base: usize,
    /// Kept on the thread that opened it: a stack is no place to meet.
    thread: PhantomData<Cell<()>>,
}

impl<'a> Frame<'a> {
    pub(super) fn new(device: &'a Device, base: usize) -> Frame<'a> {
        Frame {
            device,
            base,
            thread: PhantomData,
        }
    }

    /// New elements on top, of no meaning yet.
    ///
    /// # Panics
    /// When the stack is full: `plan` counted less than this pass needs.
    pub fn take<T: Element>(&self, elements: usize) -> View<T> {
        self.device.push(elements)
    }

    /// A frame above this one.
    pub fn open(&self) -> Frame<'a> {
        self.device.frame()
    }

    /// Drops all that was taken from this frame and from those above it.
    pub fn clear(&self) {
        self.device.cut(self.base);
    }
}

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        self.device.cut(self.base);
    }
}

/// Bytes of so many elements, as an arena counts them.
pub(super) fn block<T: Element>(elements: usize) -> usize {
    aligned(elements * size_of::<T>())
}
