//! What ranks keep of a trial in memory for the case that one of them dies.
//!
//! ```text
//! rank 0   shard 0, copy of shard 2 ─┐ its generation ends: a snapshot
//! rank 1   lost                      │
//! rank 2   shard 2, copy of shard 1 ─┴▶ offers ─▶ one step ─▶ every element from one that has it
//! ```
//! Where nothing is sharded, every rank has everything. Where something is, each rank keeps a copy of another
//! one's shard: it is given that shard's gradient before any rank may update, and takes the same steps.
//!
//! **No step is torn.** What decides a step, the norm of its gradient, is the last thing that ranks exchange
//! before they update, and an update needs nobody else. A rank that didn't get the norm has all that it needs
//! but for the norm, which is in the step's row on any rank that did. So survivors are at one step, or can be.
//!
//! A snapshot stays with the process until the trial has begun again on every rank, or another trial begins.

mod copies;
mod neighbours;
mod offers;
mod restore;
mod snapshot;

pub(super) use copies::Copies;
pub(super) use offers::{Offer, Offers};
pub(super) use restore::{RestoreError, Restored, restore};
pub use snapshot::Kept;
pub(super) use snapshot::{Key, Piece, Snapshot};
