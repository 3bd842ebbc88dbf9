//! Who has which bytes of an allocation: bookkeeping on the host, with addresses that repeat from step to step.
//!
//! A device's memory is allocated once, when it is opened, one allocation for each [`Class`]. What happens later is
//! arithmetic: no call to the driver, no fragmentation, and the most that is ever used is known before the first step.

use polestar_core::aligned;
use std::collections::BTreeMap;

/// What memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Flat f32 vectors: weights, moments, gradients, and shards of them.
    Vectors,
    /// The bf16 copy of weights that passes compute with.
    Weights,
    /// What a pass keeps and what it needs for a moment.
    Activations,
    /// What comes from other ranks until it is added up.
    Staging,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 4] = [
        Class::Vectors,
        Class::Weights,
        Class::Activations,
        Class::Staging,
    ];

    /// As messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Class::Vectors => "weights, moments and gradients",
            Class::Weights => "compute weights",
            Class::Activations => "activations",
            Class::Staging => "staging buffers",
        }
    }
}

/// Blocks that come and go in any order. A block that is free is used again for one of exactly its size, so nothing is
/// ever split: what is needed is, for each size, the most blocks of it that live at once.
#[derive(Debug)]
pub(super) struct Pool {
    capacity: usize,
    /// End of what was ever used.
    top: usize,
    /// Free blocks, by size; the one that was freed last is used first.
    free: BTreeMap<usize, Vec<usize>>,
}

impl Pool {
    pub(super) fn new(capacity: usize) -> Pool {
        Pool {
            capacity,
            top: 0,
            free: BTreeMap::new(),
        }
    }

    /// The offset of a block of at least so many bytes, if there is room.
    pub(super) fn take(&mut self, bytes: usize) -> Option<usize> {
        let bytes = aligned(bytes);
        if bytes == 0 {
            return Some(0);
        }
        if let Some(offset) = self.free.get_mut(&bytes).and_then(Vec::pop) {
            return Some(offset);
        }
        let offset = self.top;
        let top = offset
            .checked_add(bytes)
            .filter(|&top| top <= self.capacity)?;
        self.top = top;
        Some(offset)
    }

    /// Gives a block back.
    pub(super) fn give(&mut self, offset: usize, bytes: usize) {
        let bytes = aligned(bytes);
        if bytes > 0 {
            self.free.entry(bytes).or_default().push(offset);
        }
    }

    /// The most that was ever used.
    pub(super) fn high(&self) -> usize {
        self.top
    }
}

/// Blocks that go in the reverse order in which they came.
#[derive(Debug)]
pub(super) struct Stack {
    capacity: usize,
    top: usize,
    high: usize,
}

impl Stack {
    pub(super) fn new(capacity: usize) -> Stack {
        Stack {
            capacity,
            top: 0,
            high: 0,
        }
    }

    /// The offset of a new block, if there is room.
    pub(super) fn push(&mut self, bytes: usize) -> Option<usize> {
        let offset = self.top;
        let top = offset.checked_add(aligned(bytes))?;
        if top > self.capacity {
            return None;
        }
        self.top = top;
        self.high = self.high.max(top);
        Some(offset)
    }

    /// Its height.
    pub(super) fn top(&self) -> usize {
        self.top
    }

    /// Drops everything above a height.
    pub(super) fn cut(&mut self, top: usize) {
        self.top = top.min(self.top);
    }

    /// The most that was ever used.
    pub(super) fn high(&self) -> usize {
        self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_core::ALIGNMENT;

    #[test]
    fn blocks_never_overlap_and_addresses_repeat() {
        let mut pool = Pool::new(64 * ALIGNMENT);
        let mut step = |live: &mut Vec<(usize, usize)>| {
            let mut taken = Vec::new();
            for bytes in [700, 10, 700, 2000, 10] {
                let offset = pool.take(bytes).expect("there is room");
                for &(other, size) in live.iter() {
                    assert!(offset + aligned(bytes) <= other || other + aligned(size) <= offset);
                }
                live.push((offset, bytes));
                taken.push(offset);
            }
            for (offset, bytes) in live.drain(..).rev() {
                pool.give(offset, bytes);
            }
            taken
        };
        let mut live = Vec::new();
        let first = step(&mut live);
        assert_eq!(first, step(&mut live));
        assert_eq!(
            pool.high(),
            [700, 10, 700, 2000, 10].map(aligned).iter().sum::<usize>()
        );
        assert_eq!(
            pool.take(64 * ALIGNMENT),
            None,
            "what isn't there isn't given"
        );
    }

    #[test]
    fn a_stack_knows_the_most_it_held() {
        let mut stack = Stack::new(4 * ALIGNMENT);
        let base = stack.top();
        assert_eq!(
            (stack.push(1), stack.push(ALIGNMENT + 1)),
            (Some(0), Some(ALIGNMENT))
        );
        assert_eq!(stack.push(2 * ALIGNMENT), None);
        stack.cut(base);
        assert_eq!((stack.push(1), stack.high()), (Some(0), 3 * ALIGNMENT));
    }
}
