//! What every crate of Polestar builds on: identifiers, digests, the canonical tree over lanes, clustered means,
//! random streams, resemblance of texts and of names, spans, places in a trace, objectives and error chains. Nothing here does I/O.

pub mod align;
pub mod chain;
pub mod cluster;
pub mod digest;
pub mod format;
pub mod ids;
pub mod near;
pub mod objective;
pub mod precision;
pub mod random;
pub mod similarity;
pub mod span;
pub mod trace;
pub mod tree;
pub mod units;

pub use align::{ALIGNMENT, aligned};
pub use chain::{causes, chain};
pub use cluster::Clustered;
pub use digest::Digest;
pub use ids::{Epoch, Generation, Lane, Rank, RecipeId, Step, TrialId, WorkerId, WorldSize};
pub use objective::Objective;
pub use precision::Precision;
pub use span::Span;
pub use trace::TraceContext;
pub use units::ByteCount;
