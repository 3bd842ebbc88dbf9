//! The report's figures, each in two renderings of the same data: a slide and print ([`svg`]), and one to
//! explore in a browser ([`plotly`]). What is shown is prepared in [`data`], once.

mod data;
pub(super) mod plotly;
pub(super) mod svg;

pub use svg::FigureError;
