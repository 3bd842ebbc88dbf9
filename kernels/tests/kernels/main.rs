//! The crate's promises, checked through its public functions.

mod harness;
mod operations;
mod shared_prefix;
