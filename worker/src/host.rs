//! A flat vector in host memory, as engines compute on it and transports move it.

use std::ops::{Deref, DerefMut, Range};

/// A flat f32 vector in host memory: a segment's weights, moments or gradient, or a shard of one.
///
/// It may lie inside a larger allocation. What surrounds it is room, of no meaning: a transport that
/// leaves a shard of a sum where the whole was can gather the whole there again without a copy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostBuffer {
    values: Vec<f32>,
    range: Range<usize>,
}

impl HostBuffer {
    /// Zeros.
    pub fn zeros(elements: usize) -> HostBuffer {
        vec![0.0; elements].into()
    }

    /// The elements `range` of an allocation that has room for more.
    ///
    /// # Panics
    /// When they lie outside of it.
    pub(crate) fn within(values: Vec<f32>, range: Range<usize>) -> HostBuffer {
        assert!(
            range.start <= range.end && range.end <= values.len(),
            "elements {range:?} of a buffer of {}",
            values.len()
        );
        HostBuffer { values, range }
    }

    /// A vector of `elements` that has this buffer's values at `place`; the others are of no meaning.
    /// The buffer's own allocation, if it has the room for it.
    ///
    /// # Panics
    /// When the buffer doesn't fit there.
    pub(crate) fn into_whole(self, elements: usize, place: Range<usize>) -> Vec<f32> {
        if self.values.len() == elements && self.range == place {
            return self.values;
        }
        let mut whole = vec![0.0; elements];
        whole[place].copy_from_slice(&self);
        whole
    }
}

impl From<Vec<f32>> for HostBuffer {
    fn from(values: Vec<f32>) -> HostBuffer {
        let range = 0..values.len();
        HostBuffer { values, range }
    }
}

impl Deref for HostBuffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.range.clone()]
    }
}

impl DerefMut for HostBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.range.clone()]
    }
}
