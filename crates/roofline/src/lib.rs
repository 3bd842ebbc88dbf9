//! What a step of training should take on a cluster of GPUs, before there is one: time by part, memory, traffic
//! and price, from a stated model of the hardware. Pure; **predicted, not measured**.
//!
//! A step is the sum of its parts, each at the rate of what bounds it:
//!
//! | part | counted | rate |
//! |---|---|---|
//! | products | FLOPs of all linear layers, forward and backward | a share of the peak |
//! | attention | FLOPs of the kernel as it runs: two products a (query, key) pair forward, five or seven backward | what such kernels reach on this GPU |
//! | elementwise | bytes of norms, rotation, gating | a share of the memory's bandwidth |
//! | optimizer | bytes of AdamW and the norm, of the part that a rank updates | likewise |
//! | lane sum | bytes of adding a lane's gradient to what is there | likewise |
//! | launches | what is left: launches, embedding, host | a share of all of the above |
//! | waiting | traffic that no computation hides | NVLink inside a node, the NIC between nodes |
//!
//! [`Gpu`] has the hardware, [`Workload`] what is trained, [`predict`] one way to run it, [`options`] all of them.

mod gpu;
mod memory;
mod paper;
mod parts;
mod plan;
mod traffic;
mod work;

pub use gpu::{Attention, Cluster, ClusterError, Gpu, KernelRates};
pub use memory::{Memory, memory};
pub use paper::{PAPER_RUNS, PaperRun};
pub use parts::Parts;
pub use plan::{Layout, Prediction, options, predict, usual_batch};
pub use traffic::Traffic;
pub use work::{Lengths, LengthsError, Workload};
