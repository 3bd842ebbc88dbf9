//! The crate's promises, checked through its public functions.

#[path = "../common/mod.rs"]
mod common;
mod harness;
mod operations;
mod shared_prefix;
