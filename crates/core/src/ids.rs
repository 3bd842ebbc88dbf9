//! The identifiers and small counts of a run, each its own type.
//!
//! A rank can't be passed where a lane is meant:
//! ```compile_fail
//! use polestar_core::{Lane, Rank};
//! fn hosts(_: Lane) {}
//! hosts(Rank(0));
//! ```

use crate::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $word:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($word, "{}"), self.0)
            }
        }
    };
}

number!(
    /// A member of a trial's world, `0..world`.
    Rank(u32), "rank "
);
number!(
    /// How many ranks train a trial together.
    WorldSize(u32), "world of "
);
number!(
    /// A fixed slice of every global batch. Ranks merely host lanes.
    Lane(u32), "lane "
);
number!(
    /// Number of optimizer steps done.
    Step(u64), "step "
);
number!(
    /// A worker of a pool, numbered as they join. Numbers begin again with each epoch.
    WorkerId(u64), "worker "
);
number!(
    /// One coordinator's time in a run. No two coordinators of a run ever have the same.
    Epoch(u64), "epoch "
);

/// One grouping of workers around a trial; every change of membership makes a new one. The epoch keeps apart what
/// two coordinators call by the same number.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// The coordinator's epoch.
    pub epoch: Epoch,
    /// Number within it, from 1.
    pub number: u64,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}.{}", self.epoch.0, self.number)
    }
}

/// Name of a trial inside its run: letters, digits, `-`, `.` and `_`.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct TrialId(pub String);

impl fmt::Display for TrialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What names a trial's weights, whichever run asks for them: the digest of its recipe. Equal identities
/// mean equal weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecipeId(Digest);

impl RecipeId {
    /// The identity of a serialized recipe.
    pub fn of(recipe: &[u8]) -> RecipeId {
        RecipeId(Digest::of(recipe))
    }

    /// Where everything lies that belongs to the trial, in the store that all runs share.
    pub fn folder(&self) -> String {
        format!("trials/{}", self.0.first(16))
    }
}

impl fmt::Display for RecipeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
