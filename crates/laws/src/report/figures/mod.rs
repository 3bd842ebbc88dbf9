//! The report's figures, each in two renderings of the same data: one for slides and print ([`svg`]), and one
//! to explore in a browser ([`plotly`]). What is shown is prepared in [`data`], once.
//!
//! The renderings differ on purpose: print has labels and lines of reference in the picture and logarithmic
//! axes throughout; the browser shows a trial's numbers when it is pointed at, has laws to switch on, and
//! linear axes where one zooms.

mod data;
pub(super) mod plotly;
pub(super) mod svg;

pub use svg::{FigureError, LineFigure, LineSeries};
