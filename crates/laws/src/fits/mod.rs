//! Scaling laws: which trials a law may be fitted to, the fit itself, and how far it can be trusted.
//!
//! Everything here is a pure function over finished trials. One file per law ([`power`], [`saturating`], [`parametric`],
//! [`isoflop`], [`envelope`]), [`compare`] for the choice between two forms, [`frontier`] for the choice of points, and the machinery
//! laws share: [`bootstrap`], [`interval`], [`minimize`] and [`akima`].

pub mod akima;
pub mod bootstrap;
pub mod compare;
pub mod envelope;
pub mod frontier;
pub mod interval;
pub mod isoflop;
pub mod minimize;
pub mod parametric;
pub mod polar;
pub mod power;
pub mod saturating;

#[cfg(test)]
pub(crate) mod planted;

pub use bootstrap::Bootstrap;
pub use compare::Comparison;
pub use envelope::{Envelope, Track};
pub use frontier::{Excluded, FailedTrial, Point, Selection};
pub use interval::Interval;
pub use parametric::{Parametric, ParametricError, Run};
pub use power::{FitError, Observation, PowerLaw};
pub use saturating::Saturating;

/// Loss, in nats per triplet, of a model that cannot tell the two candidates apart: ln 2.
pub const CHANCE_LOSS: f64 = std::f64::consts::LN_2;
