//! Figures for a slide: 1200 × 750 SVG, and the PNG made from it.

mod axis;
mod canvas;
mod curves;
mod labels;
mod pairs;
mod plate;
mod raster;
mod residuals;
mod scaling;
mod valleys;

pub(super) use curves::curves;
pub(super) use pairs::pairs;
pub(super) use raster::png;
pub(super) use residuals::residuals;
pub(super) use scaling::scaling;
pub(super) use valleys::{budgets, means, valleys};

/// Width of a figure in pixels.
const WIDTH: u32 = 1200;
/// Height of a figure in pixels.
const HEIGHT: u32 = 750;

/// Why a figure could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// Writing the SVG.
    #[error("drawing the SVG failed")]
    Draw(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The drawing does not begin as its size says.
    #[error("the SVG has an unknown header; the drawing library may have changed")]
    Header,
    /// Reading the SVG back.
    #[error("the SVG can't be read back")]
    Parse(#[source] resvg::usvg::Error),
    /// Memory for the picture.
    #[error("no picture of {width} × {height} pixels can be allocated")]
    Allocate {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// Writing the PNG.
    #[error("encoding the PNG failed")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
}
