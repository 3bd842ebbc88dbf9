//! Scaling laws: which trials a law may be fitted to, the fit itself, and how far it can be trusted.
//!
//! Everything here is a pure function over finished trials. One file per law ([`power`]), one for the choice of points
//! ([`frontier`]), and the machinery every law shares: [`bootstrap`] and [`interval`].

pub mod bootstrap;
pub mod frontier;
pub mod interval;
pub mod power;

pub use bootstrap::Bootstrap;
pub use frontier::{Excluded, FailedTrial, Point, Selection};
pub use interval::Interval;
pub use power::{FitError, Observation, PowerLaw};

/// Loss, in nats per triplet, of a model that cannot tell the two candidates apart: ln 2.
pub const CHANCE_LOSS: f64 = std::f64::consts::LN_2;
