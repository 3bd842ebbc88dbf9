//! Attention over a forest, block by block: the scores of a block of queries and a block of keys exist only while in use.

mod backward;
mod blocks;
mod forward;

pub(crate) use backward::{Saved, backward};
pub(crate) use blocks::Dims;
pub(crate) use forward::forward;
