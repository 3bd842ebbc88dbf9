//! How an accelerator's memory is counted: what is planned and what is taken use the same arithmetic.

/// Everything in an accelerator's memory begins on a multiple of so many bytes.
pub const ALIGNMENT: usize = 256;

/// Bytes as they are counted: up to the next multiple of [`ALIGNMENT`].
pub const fn aligned(bytes: usize) -> usize {
    bytes.div_ceil(ALIGNMENT) * ALIGNMENT
}
