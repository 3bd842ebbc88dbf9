//! The CUDA kernels, compiled by the host's C++ compiler and run as fibers, against f64 and against the CPU's operations.
//!
//! What this shows: indices, masks, fragment layouts, order of sums, barriers, copies that are waited for. What it can't show:
//! how a card rounds within a tensor core, and how fast it is.

mod attention;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod flat;
mod heads;
mod library;
mod reference;
mod rows;
mod sanitized;
