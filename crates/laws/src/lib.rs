//! Scaling laws: [`fits`] with intervals, [`table`]s of measured losses, and the [`report`] with its
//! figures. It knows points and losses, not who trained them.

pub mod fits;
pub mod report;
pub mod table;
