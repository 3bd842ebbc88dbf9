//! Rewards of texts by a checkpoint of a run.
//!
//! ```text
//! URL ─ Checkpoint ─┬─ corpus ─▶ Texts     texts to token trees, cut as training cuts them   (any thread)
//!                   └─ weights ─▶ Scorer   token trees to rewards, many to a pack            (one thread)
//! ```
//! The prompt and the reference that candidates share go through the model once. A reward is the same, bit for bit,
//! alone and among any others, in any order: see [`polestar_dataset::tree`].

pub mod checkpoint;
pub mod http;
pub mod message;
pub mod normalization;
pub mod pairs;
pub mod scorer;
pub mod text;

pub use checkpoint::{Checkpoint, OpenError};
pub use message::Text;
pub use normalization::Normalization;
pub use scorer::{ScoreError, Scorer};
pub use text::{Cuts, Group, TextError, Texts, Tokenized};
