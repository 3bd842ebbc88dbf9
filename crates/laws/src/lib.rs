//! Scaling laws: [`fits`] with intervals, [`table`]s of measured losses, and the [`report`] with its
//! figures. It knows trials by their [`Coordinates`] and losses, not who trained them.

mod coordinates;
pub mod fits;
pub mod report;
pub mod table;

pub use coordinates::{Coordinates, Length, Policies, Spread};
