//! Scaling laws: which trials a law may be fitted to, the fit itself, and how far it can be trusted.
//!
//! Everything here is a pure function over finished trials. One file per law ([`power`], [`saturating`],
//! [`parametric`], [`isoflop`], [`envelope`]), [`compare`] for the choice between two forms, [`frontier`]
//! for the choice of trials, and the machinery laws share: [`bootstrap`], [`interval`], [`minimize`],
//! [`akima`] and [`buckets`].

pub mod akima;
pub mod bootstrap;
pub mod buckets;
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
mod trial;

#[cfg(test)]
pub(crate) mod planted;

pub use bootstrap::{Bootstrap, Groups};
pub use compare::FormComparison;
pub use envelope::Envelope;
pub use frontier::{Excluded, Selection};
pub use interval::Interval;
pub use parametric::{Parametric, ParametricError};
pub use power::{FitError, Observation, PowerLaw};
pub use saturating::Saturating;
pub use trial::{Curve, CurvePoint, FailedTrial, FinishedTrial, Run};

use serde::Serialize;

/// Loss, in nats per triplet, of a model that guesses between the two candidates: ln 2.
pub const CHANCE_LOSS: f64 = std::f64::consts::LN_2;

/// A fit, or the reason why there is none.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit<T> {
    /// What was fitted.
    Fitted(T),
    /// A clause that says what is missing or wrong.
    Refused(String),
}

impl<T> Fit<T> {
    /// The law, if there is one.
    pub fn fitted(&self) -> Option<&T> {
        match self {
            Self::Fitted(law) => Some(law),
            Self::Refused(_) => None,
        }
    }
}

impl<T, E: std::fmt::Display> From<Result<T, E>> for Fit<T> {
    fn from(fit: Result<T, E>) -> Self {
        match fit {
            Ok(law) => Self::Fitted(law),
            Err(refusal) => Self::Refused(refusal.to_string()),
        }
    }
}
