//! What every crate of Polestar builds on: identifiers, digests, the canonical tree over lanes,
//! random streams, spans and objectives. Nothing here does I/O.

pub mod digest;
pub mod format;
pub mod ids;
pub mod objective;
pub mod precision;
pub mod random;
pub mod span;
pub mod tree;

pub use digest::Digest;
pub use ids::{Generation, Lane, Rank, Step, TrialId, WorldSize};
pub use objective::Objective;
pub use precision::Precision;
pub use span::Span;
