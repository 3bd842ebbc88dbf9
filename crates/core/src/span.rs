//! Runs of tokens in a packed row.

use std::ops::Range;

/// A run of consecutive tokens of a packed row that see each other causally and continue `parent`'s
/// tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First token, counted from the start of the row.
    pub start: u32,
    /// Number of tokens, at least one.
    pub len: u32,
    /// The span that this one continues, always an earlier one: its tokens, and those of its
    /// ancestors, are all visible. `None` starts a new sequence.
    pub parent: Option<u32>,
}

impl Span {
    /// The span's tokens.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}
